import {
  computePolicies,
  deviceKinds,
  inputSchema,
  labelSchema,
  outputSchema,
  paritySchema,
} from '@tomaat/core';
import { z } from 'zod';
import { type Endpoint, fileRequestHeaders, fileResponses, idParam, json } from './endpoint.ts';

/** What computes networks, as `--device` names a single one. */
export const deviceSchema = z.string().regex(/^(cpu|webgpu|cuda:[0-9]{1,3})$/);

/** Where a server computes, and what it accepts. Of a server that does not say so nothing is assumed. */
export const processingSchema = z.object({
  reach: z
    .enum(['loopback', 'network'])
    .describe('loopback: only programs on the server’s own machine reach it, unless through a tunnel'),
  machine: z
    .string()
    .optional()
    .describe('With loopback: a name of the machine until its next start, to be compared with one’s own'),
  ports: z
    .array(z.int())
    .optional()
    .describe('With loopback: the ports at which it listens itself. At any other, something is in between'),
  devices: z
    .array(deviceSchema)
    .optional()
    .describe(
      'What computes networks on this server; missing where all predictions are made by workers elsewhere',
    ),
  remoteWorkers: z.boolean().describe('Whether workers on other machines may take its jobs'),
  modelServers: z
    .array(z.string())
    .optional()
    .describe(
      'Model servers on other machines (host:port) that get the voxels, without names; missing if there are none',
    ),
  identity: z
    .enum(['allowed', 'refused'])
    .describe('Whether DICOM files that name a patient are accepted; refused: with 403'),
  stripsInputs: z
    .boolean()
    .describe('Whether the server removes what identifies the patient before it stores an input'),
});
export type Processing = z.infer<typeof processingSchema>;

export const serviceSchema = z.object({
  id: z.string(),
  name: z.string(),
  description: z.string(),
  version: z.string(),
  modality: z.string(),
  anatomy: z.string(),
  task: z.string(),
  authors: z.array(z.string()),
  licence: z.string(),
  citation: z.string().optional(),
  homepage: z.string().optional(),
  intendedUse: z.string(),
  limitations: z.string().optional(),
  parity: paritySchema
    .loose()
    .optional()
    .describe('How its results agree with those of the authors’ own pipeline, as its manifest states'),
  default: z.boolean().describe('Whether task/anatomy alone means this service'),
  inputs: z.array(z.intersection(z.object({ name: z.string() }), inputSchema)),
  outputs: z.array(z.intersection(z.object({ name: z.string(), primary: z.boolean() }), outputSchema)),
  labels: z.array(labelSchema),
  parameters: z.record(z.string(), z.unknown()).describe('JSON Schema of the inputs that are not files'),
  acceptance: z.array(z.record(z.string(), z.unknown())).describe('Rules that an input volume must meet'),
  runtime: z.string(),
  compute: z
    .enum(computePolicies)
    .optional()
    .describe(
      'Where predictions run: server; anywhere: also at the caller, who may fetch manifest and models; caller: there alone. Missing for older servers: server',
    ),
  devices: z
    .array(z.enum(deviceKinds))
    .optional()
    .describe(
      'The devices on which the author has compared the results of its networks; missing if no network of it is computed here',
    ),
  modelSha256: z
    .string()
    .optional()
    .describe('Of the file of its network; of several, that of the first one'),
  modelSha256s: z
    .array(z.string())
    .optional()
    .describe('Of the files of all its networks in the order of its manifest, if there are several'),
  runBytes: z
    .record(z.string(), z.int())
    .optional()
    .describe(
      'Bytes that a run of a network which takes the whole volume at once was measured to take per voxel of its input, by the SHA-256 of its file; missing if none was measured',
    ),
  typicalSeconds: z.number().optional().describe('Median of the last predictions here'),
  sample: z.string().optional().describe('Path of a sample volume to try'),
  picture: z.string().optional().describe('Path of a picture of a result'),
  keepSeconds: z.number().optional().describe('How long results are kept after the job ended'),
  processing: processingSchema.optional().describe('Where it computes; missing for older servers: unknown'),
});
export type Service = z.infer<typeof serviceSchema>;

/** The facts in an input's header from which a service estimates the requirements of a prediction. */
export const volumeFactsSchema = z.strictObject({
  size: z.tuple([z.int().min(1), z.int().min(1), z.int().min(1)]).describe('Voxels along x, y, z'),
  spacing: z
    .tuple([z.number().positive(), z.number().positive(), z.number().positive()])
    .optional()
    .describe('mm along x, y, z'),
  affine: z
    .array(z.number())
    .length(16)
    .optional()
    .describe('Voxel index to world mm, RAS+, row by row; instead of spacing'),
  components: z.int().min(1).max(4096).default(1),
  frames: z.int().min(1).default(1),
  voxelType: z.string().max(20).optional().describe('uint8, int16, float32 …'),
  sizeBytes: z.int().min(1).optional().describe('Length of the file'),
});
export type VolumeFacts = z.infer<typeof volumeFactsSchema>;

export const fitSchema = z.object({
  verdict: z
    .enum(['fits', 'tiled', 'too big', 'not accepted'])
    .describe('tiled: it fits because it is done window by window'),
  reason: z.string().describe('Why, and what to do about it'),
  neededMb: z.number().optional().describe('Memory of the process that computes, estimated, MB (10^6 bytes)'),
  allowedMb: z.number().optional().describe('What it may use'),
  windows: z.int().optional().describe('Windows that the volume is done in'),
  expectedSeconds: z.number().optional().describe('From this service’s own history'),
  expectedWaitSeconds: z.number().optional().describe('For those that wait already'),
});
export type Fit = z.infer<typeof fitSchema>;

/** A task or an anatomy, as it appears in addresses. */
export const slug = z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/, 'must be one lower-case slug');
/** Filters for lists of services. */
export const filters = z.object({
  modality: z.string().optional(),
  anatomy: z.string().optional(),
  task: z.string().optional(),
  q: z.string().optional().describe('Words that must occur in name or description'),
});

export const serviceEndpoints = {
  listServices: {
    method: 'GET',
    path: '/api/services',
    on: 'server',
    tag: 'services',
    summary: 'The services of this server',
    query: filters,
    responses: { 200: json(z.object({ services: z.array(serviceSchema) }), 'Services') },
  },
  getService: {
    method: 'GET',
    path: '/api/services/{id}',
    on: 'server',
    tag: 'services',
    summary: 'One service: card, inputs, outputs, labels, parameters as JSON Schema',
    params: idParam,
    responses: { 200: json(serviceSchema, 'The service') },
  },
  getSample: {
    method: 'GET',
    path: '/api/services/{id}/sample',
    on: 'server',
    tag: 'services',
    summary: 'A sample volume to try the service with',
    params: idParam,
    responses: {
      200: {
        description: 'The file',
        headers: ['Content-Disposition'],
        content: { 'application/octet-stream': 'binary' },
      },
    },
  },
  getPicture: {
    method: 'GET',
    path: '/api/services/{id}/picture',
    on: 'server',
    tag: 'services',
    summary: 'A picture of a result of the service',
    headers: { 'If-None-Match': 'ETags of what is there already' },
    params: idParam,
    responses: {
      200: {
        description: 'The file',
        headers: ['ETag'],
        content: { 'image/png': 'binary', 'image/jpeg': 'binary', 'image/webp': 'binary' },
      },
      304: { description: 'It has the ETag of If-None-Match' },
    },
  },
  getManifest: {
    method: 'GET',
    path: '/api/services/{id}/manifest',
    on: 'server',
    tag: 'services',
    summary: 'The whole manifest of a service that its callers may compute themselves',
    description:
      'For services whose `compute` is `anywhere` or `caller`; of all others 403. It has the steps before and after the networks.',
    params: idParam,
    responses: {
      200: {
        description: 'The tomaat.yaml of its author, as docs/reference/manifest.md describes it',
        content: { 'application/yaml': 'binary' },
      },
    },
  },
  getModel: {
    method: 'GET',
    path: '/api/services/{id}/model',
    on: 'server',
    tag: 'services',
    summary: 'A network of a service that its callers may compute themselves, an ONNX file',
    description:
      'For services whose `compute` is `anywhere` or `caller`; of all others 403. One range of bytes may be requested, so that an interrupted download can resume. The server’s audit log records who fetched it.',
    headers: fileRequestHeaders,
    params: idParam,
    query: z.object({
      sha256: z
        .string()
        .optional()
        .describe('Which one, by its digest in the manifest; needed where the service has several'),
    }),
    responses: fileResponses,
  },
  fit: {
    method: 'POST',
    path: '/api/services/{id}/fit',
    on: 'server',
    tag: 'services',
    summary: 'What a prediction would need, from the header alone: before anything is uploaded',
    params: idParam,
    body: {
      description: 'The facts of each volume, by input',
      content: { 'application/json': z.strictObject({ inputs: z.record(z.string(), volumeFactsSchema) }) },
    },
    responses: { 200: json(fitSchema, 'Whether it fits, and what it needs') },
  },
} as const satisfies Record<string, Endpoint>;
