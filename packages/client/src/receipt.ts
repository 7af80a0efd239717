import { TomaatError } from '@tomaat/core';
import { z } from 'zod';
import { settledStates } from './contract/jobs.ts';
import { deviceSchema } from './contract/services.ts';
import { verifySigned } from './signed.ts';

/** `sha256:` and 64 hexadecimal digits. */
const digest = z.string().regex(/^sha256:[0-9a-f]{64}$/);
const time = z.iso.datetime();

/**
 * A server's signed statement about a settled prediction: the input bytes, the model, the outputs, and how long the
 * data is kept. It contains no text from a file, no name of a person and no file name.
 */
export const receiptSchema = z.object({
  kind: z.literal('tomaat-receipt/1'),
  notice: z.string(),
  job: z.string(),
  state: z.enum(settledStates),
  error: z.string().optional().describe('The code of what went wrong'),
  server: z.object({ software: z.string(), version: z.string() }),
  service: z.object({
    id: z.string(),
    version: z.string(),
    manifest: digest.describe('Of tomaat.yaml'),
    models: z.array(
      z.object({
        runtime: z.string(),
        digest: digest.optional().describe('Of the weights, checked when they were loaded'),
        device: deviceSchema
          .optional()
          .describe(
            'What computed it. Missing for a program, for a job that has not succeeded, and in older receipts',
          ),
        verifiedOn: z
          .array(z.string())
          .optional()
          .describe('The kinds of devices on which the author of the app has compared its results'),
      }),
    ),
  }),
  acceptedTime: time,
  startedTime: time.optional(),
  settledTime: time,
  inputs: z.array(
    z.object({
      name: z.string(),
      sizeBytes: z.int(),
      received: digest.describe('The bytes as they came'),
      stored: digest.describe('The bytes that were computed on; others only where the server takes text out'),
    }),
  ),
  parameters: z
    .record(z.string(), z.union([z.number(), z.boolean(), z.string(), z.object({ digest })]))
    .describe('Numbers and choices as they are, anything else by the SHA-256 of its JSON'),
  rewrites: z
    .array(z.string())
    .optional()
    .describe('Faster forms in which operators of the networks were computed; missing if there were none'),
  frame: z.int().optional(),
  series: z
    .object({ digest })
    .optional()
    .describe('The SHA-256 of the JSON of what chose one of several DICOM series: its UID, or its number'),
  outputs: z.array(
    z.object({
      name: z.string(),
      type: z.string(),
      format: z.string(),
      primary: z.boolean(),
      sizeBytes: z.int(),
      digest,
      kept: z
        .object({ format: z.string(), sizeBytes: z.int(), digest })
        .optional()
        .describe('The second file of an output whose format cannot be read back: others are made of it'),
    }),
  ),
  retention: z.object({
    inputs: z.string(),
    results: z.string(),
    resultsDeletedTime: time.describe('At the latest'),
  }),
  audit: z
    .object({ sequence: z.int(), sha256: z.string().regex(/^[0-9a-f]{64}$/) })
    .optional()
    .describe('A line of the server’s audit log; shows later that the log was not rewritten'),
});
export type Receipt = z.infer<typeof receiptSchema>;

const receiptType = 'tomaat-receipt+jws';

/**
 * Checks the signature of a receipt and parses it. The caller decides whether its key is that of the right server,
 * which prints its thumbprint at start-up.
 * @throws TomaatError BAD_SIGNATURE
 */
export async function verifyReceipt(text: string): Promise<{ receipt: Receipt; thumbprint: string }> {
  const { payload, thumbprint } = await verifySigned(text.trim(), receiptType);
  const parsed = receiptSchema.safeParse(payload);
  if (!parsed.success) {
    throw new TomaatError(
      'BAD_SIGNATURE',
      'The receipt is signed, but says what this version does not understand. Take a newer version of TOMAAT.',
      { cause: parsed.error },
    );
  }
  return { receipt: parsed.data, thumbprint };
}
