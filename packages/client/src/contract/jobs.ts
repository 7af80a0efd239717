import { stages, supportedExtensions } from '@tomaat/core';
import { z } from 'zod';
import { type Endpoint, fileRequestHeaders, fileResponses, idParam, json } from './endpoint.ts';
import { problemSchema } from './problem.ts';

export const settledStates = ['succeeded', 'failed', 'canceled'] as const;
export const jobStates = ['queued', 'running', ...settledStates] as const;
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

/** Fields present in some states and absent in all others. */
const absent = z.never({ error: 'A job of this state has no such field' }).optional();
const never = {
  startedTime: absent,
  settledTime: absent,
  expiresTime: absent,
  stage: absent,
  fraction: absent,
  queuePosition: absent,
  expectedSeconds: absent,
  expectedWaitSeconds: absent,
  error: absent,
};
const every = {
  id: z.string(),
  service: z.string(),
  attempt: z.int(),
  createdTime: z.string(),
  parameters: z.record(z.string(), z.unknown()),
  strippedInputs: z
    .array(z.string())
    .optional()
    .describe(
      'Inputs from which the server removed what may identify the patient. UIDs of DICOM inputs were replaced: results have the replaced ones',
    ),
};
const noOutputs = z.array(jobOutputSchema).max(0);
const expectedSeconds = z.number().optional().describe('From start to end, from this service’s own history');
const settled = {
  settledTime: z.string(),
  expiresTime: z.string().describe('When results and row are deleted'),
};
const unsuccessful = {
  ...settled,
  startedTime: z.string().optional().describe('Missing if it ended while it waited'),
  outputs: noOutputs,
  error: problemSchema,
};

/** A job in each state. Unknown fields are ignored: a newer server may send some. */
export const jobSchemas = {
  queued: z.object({
    ...every,
    ...never,
    state: z.literal('queued'),
    queuePosition: z.int().optional().describe('0: next'),
    expectedSeconds,
    expectedWaitSeconds: z
      .number()
      .optional()
      .describe('Until it starts, from its position and this service’s own history'),
    outputs: noOutputs,
  }),
  running: z.object({
    ...every,
    ...never,
    state: z.literal('running'),
    startedTime: z.string(),
    stage: z
      .string()
      .optional()
      .describe(`What is being done: ${stages.join(', ')}`),
    fraction: z.number().min(0).max(1).optional().describe('How much of the whole is done'),
    expectedSeconds,
    outputs: noOutputs,
  }),
  succeeded: z.object({
    ...every,
    ...never,
    ...settled,
    state: z.literal('succeeded'),
    startedTime: z.string(),
    outputs: z.array(jobOutputSchema).describe('What is left of them'),
  }),
  failed: z.object({ ...every, ...never, ...unsuccessful, state: z.literal('failed') }),
  canceled: z.object({ ...every, ...never, ...unsuccessful, state: z.literal('canceled') }),
} satisfies Record<JobState, z.ZodObject>;

export const jobSchema = z.discriminatedUnion('state', [
  jobSchemas.queued,
  jobSchemas.running,
  jobSchemas.succeeded,
  jobSchemas.failed,
  jobSchemas.canceled,
]);
export type Job = z.infer<typeof jobSchema>;
/** A job in these states: `JobIn<'queued' | 'running'>`. */
export type JobIn<State extends JobState> = Extract<Job, { state: State }>;

/** Whether a job has ended, whatever the outcome. */
export const isSettled = <T extends { state: JobState }>(
  job: T,
): job is T & { state: (typeof settledStates)[number] } => job.state !== 'queued' && job.state !== 'running';

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
  keepJob: {
    method: 'POST',
    path: '/api/jobs/{id}/keep',
    on: 'server',
    tag: 'jobs',
    summary:
      'Keeps a settled job and its results for another period (keepSeconds of the service) from now, up to seven periods in all',
    params: idParam,
    responses: { 200: json(jobSchema, 'The job with its new expiresTime') },
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
      'In the stored format it has an ETag, and one range of bytes may be requested, so that an interrupted download can resume (`curl -C -`). A converted output is always sent whole. Instead of `?format=`, the format may end the address, as in `…/outputs/mask.nrrd`.',
    headers: fileRequestHeaders,
    params: z.object({ id: z.string(), name: z.string() }),
    query: z.object({
      format: z
        .string()
        .optional()
        .describe(`${supportedExtensions.join(', ')}, vtk, stl, json, txt …`),
    }),
    responses: fileResponses,
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
