import { z } from 'zod';

/** RFC 9457. `code` is ours and stable; `requestId` finds the line in the server's log. */
export const problemSchema = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string().describe('What was wrong and what to do about it'),
  code: z.string(),
  retryable: z.boolean(),
  field: z.string().optional().describe('The input, parameter or header that it is about'),
  requestId: z.string().optional(),
  facts: z.record(z.string(), z.unknown()).optional(),
});
export type Problem = z.infer<typeof problemSchema>;
