import { z } from 'zod';
import { type Endpoint, idParam, json } from './endpoint.ts';
import { problemSchema } from './problem.ts';

export const jobStates = ['queued', 'running', 'succeeded', 'failed', 'canceled'] as const;
export type JobState = (typeof jobStates)[number];

export const jobOutputSchema = z.object({
  name: z.string(),
  type: z.string(),
  label: z.string(),
  primary: z.boolean(),
  format: z.string().describe('The format that is stored'),
  formats: z.array(z.string()).describe('The formats that can be asked for'),
  fileName: z.string(),
  sizeBytes: z.int(),
  digest: z.string().describe('sha256:… of the stored format'),
  url: z.string(),
});
export type JobOutput = z.infer<typeof jobOutputSchema>;

export const jobSchema = z.object({
  id: z.string(),
  service: z.string(),
  state: z.enum(jobStates),
  attempt: z.int(),
  createdTime: z.string(),
  startedTime: z.string().optional(),
  settledTime: z.string().optional(),
  expiresTime: z.string().optional().describe('When results and row are deleted'),
  stage: z.string().optional().describe('What is being done: decode, preprocess, infer, postprocess, encode'),
  fraction: z.number().min(0).max(1).optional().describe('How much of the whole is done'),
  queuePosition: z.int().optional().describe('0: next'),
  expectedSeconds: z.number().optional().describe('From start to end, from this service’s own history'),
  expectedWaitSeconds: z
    .number()
    .optional()
    .describe('Until it starts, from its position and this service’s own history'),
  parameters: z.record(z.string(), z.unknown()),
  outputs: z.array(jobOutputSchema),
  error: problemSchema.optional(),
});
export type Job = z.infer<typeof jobSchema>;

export const jobEndpoints = {
  getJob: {
    method: 'GET',
    path: '/api/jobs/{id}',
    on: 'server',
    tag: 'jobs',
    summary: 'State, progress, outputs or error of a job',
    params: idParam,
    responses: { 200: json(jobSchema, 'The job') },
  },
  jobEvents: {
    method: 'GET',
    path: '/api/jobs/{id}/events',
    on: 'server',
    tag: 'jobs',
    summary:
      'The job at every change, as server-sent events, until it is settled; after a minute the stream ends and is asked for again',
    params: idParam,
    responses: {
      200: { description: 'Events named job; data: the job', content: { 'text/event-stream': 'binary' } },
    },
  },
  cancelJob: {
    method: 'POST',
    path: '/api/jobs/{id}/cancel',
    on: 'server',
    tag: 'jobs',
    summary: 'Cancels a queued or running job. A settled job stays as it is, with its results',
    params: idParam,
    responses: { 200: json(jobSchema, 'The job: cancelled, or settled before the request came') },
  },
  deleteJob: {
    method: 'DELETE',
    path: '/api/jobs/{id}',
    on: 'server',
    tag: 'jobs',
    summary: 'Cancels a queued or running job; deletes a settled one with its results',
    params: idParam,
    responses: {
      200: json(jobSchema, 'The cancelled job'),
      204: { description: 'The settled job and its results are deleted' },
    },
  },
  getOutput: {
    method: 'GET',
    path: '/api/jobs/{id}/outputs/{name}',
    on: 'server',
    tag: 'jobs',
    summary: 'One output, in the stored format or the one asked for',
    description:
      'In the stored format it has an ETag, and one range of bytes may be asked for, so that a download goes on where it broke off (`curl -C -`). What is converted is always sent whole.',
    headers: {
      Range:
        'bytes=FIRST-LAST, bytes=FIRST- or bytes=-LENGTH; several ranges are answered with the whole file',
      'If-Range':
        'The ETag that the first part came with: the range is sent only if the file is still the same',
      'If-None-Match': 'ETags of what is there already',
    },
    params: z.object({ id: z.string(), name: z.string() }),
    query: z.object({
      format: z.string().optional().describe('nii, nii.gz, mha, nrrd, vtk, stl, json, txt …'),
    }),
    responses: {
      200: {
        description: 'The file',
        headers: ['Content-Disposition', 'ETag', 'Accept-Ranges'],
        content: { 'application/octet-stream': 'binary' },
      },
      206: {
        description: 'The range; Content-Range says where it lies',
        content: { 'application/octet-stream': 'binary' },
      },
      304: { description: 'It has the ETag of If-None-Match' },
    },
  },
  getReceipt: {
    method: 'GET',
    path: '/api/jobs/{id}/receipt',
    on: 'server',
    tag: 'jobs',
    summary:
      'The signed receipt of a settled job: digests of inputs, models and outputs, versions, retention',
    description:
      'A compact JWS (RFC 7515), signed with the Ed25519 key of the server’s data folder. “tomaat verify” checks it.',
    params: idParam,
    responses: { 200: { description: 'The receipt', content: { 'application/jose': 'binary' } } },
  },
} as const satisfies Record<string, Endpoint>;
