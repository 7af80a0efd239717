import { z } from 'zod';
import { type Endpoint, idParam, json } from './endpoint.ts';
import { jobSchema } from './jobs.ts';
import { slug } from './services.ts';

const fileRefSchema = z.union([
  z.strictObject({ upload: z.string().describe('Id of a whole upload') }),
  z.strictObject({
    blob: z.string().describe('sha256:…, of a file of yours that is on the server'),
    fileName: z.string().optional(),
  }),
]);

/** Selects one of several DICOM series: its UID (PS3.5 9: digits and dots, 64 at most), or its number. */
export const seriesSchema = z
  .string()
  .max(64)
  .regex(/^\d[\d.]*$/, 'is the UID of a DICOM series, or its number')
  .describe('Which DICOM series, where the files hold several: its UID, or its number');

/** A prediction whose files are already on the server. */
export const namedPredictionSchema = z.strictObject({
  inputs: z.record(z.string(), z.union([fileRefSchema, z.array(fileRefSchema)])),
  parameters: z.record(z.string(), z.unknown()).optional(),
  frame: z.int().min(0).optional(),
  series: seriesSchema.optional(),
  format: z.string().optional().describe('Of the primary output'),
  formats: z.record(z.string(), z.string()).optional().describe('The format of each output, by its name'),
});
export type NamedPrediction = z.infer<typeof namedPredictionSchema>;

const predictionBody = {
  description:
    'multipart/form-data: a part for each volume, named as the input (parts of one name belong together: .hdr and .img, .mhd and its data, up to 4096 files of a DICOM series; a zip archive of them is one part); every other field is a parameter. application/octet-stream, application/zip, application/dicom: the only volume; parameters in the query. application/json: files that are on the server already, as uploads or by their SHA-256.',
  content: {
    'multipart/form-data': {
      files: { volume: 'The volume of a service that has one; those of others by their names' },
      texts: {
        frame: 'Which frame of a 4-D volume, from 0',
        series: 'Which DICOM series, where the files hold several: its UID, or its number',
      },
    },
    'application/octet-stream': 'binary',
    'application/json': namedPredictionSchema,
  },
} as const;
/** An Idempotency-Key: visible ASCII. */
export const idempotencyKeySchema = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[\x21-\x7e]+$/);
const volumeQuery = z.looseObject({
  frame: z.coerce.number().int().min(0).optional().describe('Which frame of a 4-D volume, from 0'),
  series: seriesSchema.optional(),
  format: z
    .string()
    .optional()
    .describe('Of the primary output: nii.gz, seg.dcm, zip …; otherwise that of the input'),
  formats: z
    .string()
    .optional()
    .describe('Formats by the names of outputs: segmentation:zip,measurements:csv'),
});

export const predictionEndpoints = {
  createPrediction: {
    method: 'POST',
    path: '/api/services/{id}/predictions',
    on: 'server',
    tag: 'jobs',
    summary: 'Ask for a prediction; it becomes a job',
    params: idParam,
    query: volumeQuery,
    headers: {
      Priority: 'u=N, from 0 (most urgent) to 7; 3 if missing (RFC 9218)',
      Prefer: 'wait=N: answer 200 with the settled job if N seconds were enough',
      'Idempotency-Key': {
        description:
          'The same key with the same request gives the same job: 1 to 200 visible ASCII characters, such as a random UUID',
        schema: idempotencyKeySchema,
      },
    },
    body: predictionBody,
    responses: {
      200: {
        ...json(jobSchema, 'The settled job (Prefer: wait)'),
        headers: ['Location', 'Preference-Applied'],
      },
      202: {
        ...json(jobSchema, 'The job, on disk; its address is in Location'),
        headers: ['Location', 'Preference-Applied'],
      },
    },
  },
  promise: {
    method: 'POST',
    path: '/{task}/{anatomy}',
    on: 'both',
    tag: 'promise',
    summary: 'A volume in, its segmentation out',
    description:
      'Answers with the primary output on the input’s grid and in the input’s format. The header TOMAAT-Service names the service that answered; TOMAAT-Receipt is the signed receipt. Where the header of the answer would be longer than proxies take (4 kB), Link says where the receipt is to be had, for as long as results are kept. On a registry the request goes through to a server that offers it.',
    params: z.object({ task: slug, anatomy: slug }),
    query: volumeQuery.extend({ service: z.string().optional().describe('Which of several services') }),
    body: predictionBody,
    responses: {
      200: {
        description: 'The primary output',
        headers: [
          'Content-Disposition',
          'TOMAAT-Service',
          'TOMAAT-Server',
          'TOMAAT-Stripped',
          'TOMAAT-Receipt',
          'Link',
        ],
        content: { 'application/octet-stream': 'binary' },
      },
    },
  },
} as const satisfies Record<string, Endpoint>;
