import { type ErrorCode, errorCodes, fileGeometrySchema, mediaTypes, type OutputFormat } from '@tomaat/core';
import { z } from 'zod';
import { type Endpoint, idParam, json } from './endpoint.ts';
import { seriesSchema } from './predictions.ts';
import { deviceSchema } from './services.ts';

// The messages between the server and workers on other machines.

const nameSchema = z.string().regex(/^[\w.:@-]{1,100}$/);
export const attemptSchema = z.int().min(1);

export const claimSchema = z.strictObject({
  worker: nameSchema.describe('Of this worker, different from all others'),
  services: z
    .array(z.strictObject({ id: z.string(), version: z.string() }))
    .min(1)
    .max(1000),
  waitSeconds: z.number().min(0).max(30).default(20),
});
export const touchSchema = z.strictObject({
  attempt: attemptSchema,
  stage: z.string().max(40).optional(),
  fraction: z.number().min(0).max(1).optional(),
});
/** 31 years: estimates are computed from measured durations, and must stay finite. */
const maxSeconds = 1e9;
const digestSchema = z.string().regex(/^sha256:[0-9a-f]{64}$/);
const fileSchema = {
  format: z.enum(Object.keys(mediaTypes) as [OutputFormat, ...OutputFormat[]]),
  digest: digestSchema,
  sizeBytes: z.int().min(0),
};
export const completeSchema = z.strictObject({
  attempt: attemptSchema,
  seconds: z.number().min(0).max(maxSeconds).describe('How long the prediction took'),
  rewrites: z
    .array(z.string().regex(/^[a-z0-9-]{1,40}$/))
    .max(100)
    .default([])
    .describe('Faster forms in which operators of the networks were computed; stated in the receipt'),
  device: deviceSchema
    .optional()
    .describe('What computed its networks, stated in the receipt; cpu if missing'),
  outputs: z.array(
    z.strictObject({
      name: z.string(),
      type: z.string(),
      label: z.string(),
      primary: z.boolean(),
      ...fileSchema,
      geometry: fileGeometrySchema.optional(),
      kept: z
        .strictObject(fileSchema)
        .optional()
        .describe('The same output in a format that can be read back, where the other one cannot'),
    }),
  ),
});
export const failSchema = z.strictObject({
  attempt: attemptSchema,
  error: z.strictObject({
    code: z.enum(errorCodes as [ErrorCode, ...ErrorCode[]]),
    message: z.string().max(10_000),
    field: z.string().optional(),
    detail: z.record(z.string(), z.unknown()).optional(),
  }),
});
export const welcomeSchema = z.object({
  leaseMs: z.number().positive(),
  maxVoxels: z.number().positive(),
  services: z.array(z.object({ id: z.string(), version: z.string() })),
});
export type Welcome = z.infer<typeof welcomeSchema>;

export const claimedJobSchema = z.object({
  id: z.string().regex(/^[\w-]+$/),
  service: z.string(),
  attempt: z.int(),
  request: z.looseObject({
    parameters: z.record(z.string(), z.unknown()),
    series: seriesSchema.optional(),
    stem: z.string(),
  }),
  inputs: z.array(
    z.object({
      name: z.string().regex(/^[\w-]+$/),
      fileName: z.string(),
      digest: z.string(),
      sizeBytes: z.int(),
      received: z
        .string()
        .optional()
        .describe('Digest of the file as it came, where text was taken out of it'),
    }),
  ),
});

export const handBackSchema = z.strictObject({ attempt: attemptSchema });

export const workerEndpoints = {
  workerWelcome: {
    method: 'GET',
    path: '/api/worker',
    on: 'server',
    tag: 'workers',
    summary: 'What a worker needs: services with their versions, the time of a lease',
    responses: { 200: json(welcomeSchema, 'Welcome') },
  },
  claimJob: {
    method: 'POST',
    path: '/api/worker/claim',
    on: 'server',
    tag: 'workers',
    summary:
      'The next job, as soon as there is one; it is lost when the server does not hear of it for a lease',
    body: { description: 'Who asks, and for what', content: { 'application/json': claimSchema } },
    responses: {
      200: json(claimedJobSchema, 'A job, with the number of this attempt'),
      204: { description: 'There was none; ask again' },
    },
  },
  touchJob: {
    method: 'POST',
    path: '/api/worker/jobs/{id}/touch',
    on: 'server',
    tag: 'workers',
    summary: 'The job is being worked on; renews the lease. 409: it was cancelled, or is another worker’s',
    params: idParam,
    body: { description: 'How far it is', content: { 'application/json': touchSchema } },
    responses: { 204: { description: 'Continue' } },
  },
  getJobInput: {
    method: 'GET',
    path: '/api/worker/jobs/{id}/inputs/{digest}',
    on: 'server',
    tag: 'workers',
    summary: 'The bytes of an input',
    params: z.object({ id: z.string(), digest: z.string() }),
    query: z.object({ attempt: z.coerce.number().int() }),
    responses: { 200: { description: 'The file', content: { 'application/octet-stream': 'binary' } } },
  },
  putJobOutput: {
    method: 'PUT',
    path: '/api/worker/jobs/{id}/outputs/{name}',
    on: 'server',
    tag: 'workers',
    summary: 'Brings an output, before the job is completed',
    params: z.object({ id: z.string(), name: z.string() }),
    query: z.object({ attempt: z.coerce.number().int(), digest: z.string() }),
    body: { description: 'The bytes', content: { 'application/octet-stream': 'binary' } },
    responses: { 204: { description: 'It is on the disk' } },
  },
  completeJob: {
    method: 'POST',
    path: '/api/worker/jobs/{id}/complete',
    on: 'server',
    tag: 'workers',
    summary: 'The job has succeeded with these outputs',
    params: idParam,
    query: z.object({
      version: z
        .string()
        .max(100)
        .optional()
        .describe(
          'Of the app that computed them. 409 if it is not that of the server: the job is queued again',
        ),
    }),
    body: { description: 'What came out', content: { 'application/json': completeSchema } },
    responses: { 200: json(z.object({ accepted: z.boolean() }), 'It is settled') },
  },
  failJob: {
    method: 'POST',
    path: '/api/worker/jobs/{id}/fail',
    on: 'server',
    tag: 'workers',
    summary: 'The job has failed',
    params: idParam,
    body: { description: 'Why', content: { 'application/json': failSchema } },
    responses: { 200: json(z.object({ accepted: z.boolean() }), 'Whether it was still this attempt’s') },
  },
  handBackJob: {
    method: 'POST',
    path: '/api/worker/jobs/{id}/hand-back',
    on: 'server',
    tag: 'workers',
    summary: 'The worker stops: the job is for others, and this attempt is not held against it',
    params: idParam,
    body: { description: 'Which attempt', content: { 'application/json': handBackSchema } },
    responses: { 204: { description: 'It is queued again' } },
  },
} as const satisfies Record<string, Endpoint>;
