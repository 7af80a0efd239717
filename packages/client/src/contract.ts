import {
  type ErrorCode,
  errorCodes,
  fileGeometrySchema,
  hasUnseen,
  inputSchema,
  labelSchema,
  mediaTypes,
  type OutputFormat,
  outputSchema,
  supportedExtensions,
} from '@tomaat/core';
import { z } from 'zod';
import type { ResponseHeader } from './response-headers.ts';

/**
 * Every endpoint of a server and of a registry, once. Validation, OpenAPI and the client's types come from
 * this table. The faces that others defined (v1, the promise) are documented here and implemented to their
 * own letter.
 */

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
  default: z.boolean().describe('Whether task/anatomy alone means this service'),
  inputs: z.array(z.intersection(z.object({ name: z.string() }), inputSchema)),
  outputs: z.array(z.intersection(z.object({ name: z.string(), primary: z.boolean() }), outputSchema)),
  labels: z.array(labelSchema),
  parameters: z.record(z.string(), z.unknown()).describe('JSON Schema of the inputs that are not files'),
  acceptance: z.array(z.record(z.string(), z.unknown())).describe('Rules that an input volume has to meet'),
  runtime: z.string(),
  modelSha256: z.string().optional(),
  typicalSeconds: z.number().optional().describe('Median of the last predictions here'),
  sample: z.string().optional().describe('Path of a sample volume to try'),
  keepSeconds: z.number().optional().describe('How long results are kept after the job ended'),
});
export type Service = z.infer<typeof serviceSchema>;

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

/** What a registry knows of a service. */
export const entrySchema = z.object({
  sid: z.string(),
  name: z.string(),
  modality: z.string(),
  anatomy: z.string(),
  task: z.string(),
  description: z.string(),
  predictionUrl: z.string().describe('TOMAAT v1 address'),
  interfaceUrl: z.string(),
  serverUrl: z
    .string()
    .optional()
    .describe('Base address of the server’s own API; missing for v1-only servers'),
  serviceId: z.string().optional(),
  version: z.string().optional(),
  default: z.boolean().optional(),
  volumes: z.int().optional().describe('Volumes that a prediction needs'),
  face: z.enum(['api', 'v1']).describe('How it was announced; only api entries are relayed'),
  live: z.boolean().describe('Whether the last announcement is still valid'),
  announcedTime: z.string(),
  expiresTime: z.string(),
  id: z
    .string()
    .optional()
    .describe('Of the announcement: the thumbprint of the server’s key, a dot, the service; missing for v1'),
  signed: z
    .union([z.literal(false), z.string()])
    .optional()
    .describe(
      'The announcement as its server signed it, to be checked by the client; false: TOMAAT v1 signs nothing',
    ),
});
export type Entry = z.infer<typeof entrySchema>;

const slug = z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/, 'must be one lower-case slug');
const url = z
  .url({ protocol: /^https?$/ })
  .max(2000)
  .refine((text) => !hasUnseen(text) && !/\s/.test(text), 'must not hold spaces or control characters');

/** The facts of an input's header, from which a service tells what a prediction will need. */
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

const fileRefSchema = z.union([
  z.strictObject({ upload: z.string().describe('Id of a whole upload') }),
  z.strictObject({
    blob: z.string().describe('sha256:…, of a file of yours that is on the server'),
    fileName: z.string().optional(),
  }),
]);

/** A prediction whose files are on the server already. */
export const namedPredictionSchema = z.strictObject({
  inputs: z.record(z.string(), z.union([fileRefSchema, z.array(fileRefSchema)])),
  parameters: z.record(z.string(), z.unknown()).optional(),
  frame: z.int().min(0).optional(),
  format: z.string().optional(),
});
export type NamedPrediction = z.infer<typeof namedPredictionSchema>;

// What workers on other machines and the server say to each other.

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
/** 31 years: estimates are made of what was taken, and stay finite. */
const maxSeconds = 1e9;
const digestSchema = z.string().regex(/^sha256:[0-9a-f]{64}$/);
export const completeSchema = z.strictObject({
  attempt: attemptSchema,
  seconds: z.number().min(0).max(maxSeconds).describe('How long the prediction took'),
  outputs: z.array(
    z.strictObject({
      name: z.string(),
      type: z.string(),
      label: z.string(),
      primary: z.boolean(),
      format: z.enum(Object.keys(mediaTypes) as [OutputFormat, ...OutputFormat[]]),
      digest: digestSchema,
      sizeBytes: z.int().min(0),
      geometry: fileGeometrySchema.optional(),
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
  request: z.looseObject({ parameters: z.record(z.string(), z.unknown()), stem: z.string() }),
  inputs: z.array(
    z.object({
      name: z.string().regex(/^[\w-]+$/),
      fileName: z.string(),
      digest: z.string(),
      sizeBytes: z.int(),
    }),
  ),
});

export const handBackSchema = z.strictObject({ attempt: attemptSchema });

/** Who sends a request, as the page shows it. */
export const meSchema = z.object({
  login: z.enum(['required', 'off']).describe('off: everything is open to this machine'),
  who: z
    .object({
      kind: z.enum(['key', 'oidc']),
      owner: z.string().describe('Whose jobs are seen; stays the same over sessions'),
      label: z.string(),
      scopes: z.array(z.string()),
      expiresTime: z.string().optional().describe('When the session or the key ends'),
    })
    .optional()
    .describe('Missing when nobody is logged in'),
  ways: z
    .object({
      key: z.boolean(),
      oidc: z
        .object({ host: z.string(), address: z.string().describe('Path to go to; takes ?return=') })
        .optional(),
    })
    .describe('How one logs in here'),
});
export type Me = z.infer<typeof meSchema>;

/** What is left of a login after a logout. */
export const loggedOutSchema = z.object({
  issuer: z
    .object({
      host: z.string(),
      address: z
        .string()
        .optional()
        .describe('Where to send the browser to end the session there; missing if the issuer offers none'),
    })
    .describe('Still logged in there'),
});
export type LoggedOut = z.infer<typeof loggedOutSchema>;
/** Text of one line, as it is shown in lists. */
const line = (least: number, most: number) =>
  z
    .string()
    .min(least)
    .max(most)
    .refine((text) => !hasUnseen(text), unseenFault);
const unseenFault =
  'must not hold control characters, or ones that are not seen or change the direction of writing';

export const announcementSchema = z.strictObject({
  name: line(1, 200),
  modality: line(1, 40),
  anatomy: slug,
  task: slug,
  description: z
    .string()
    .max(4000)
    .refine((text) => !hasUnseen(text.replace(/[\r\n\t]/g, '')), unseenFault),
  predictionUrl: url,
  interfaceUrl: url,
  serverUrl: url,
  serviceId: line(1, 100),
  version: line(0, 40).optional(),
  default: z.boolean().optional(),
  volumes: z.int().min(0).max(64).optional(),
});
export type Announcement = z.infer<typeof announcementSchema>;

const thumbprint = z.string().regex(/^[\w-]{43}$/, 'must be a SHA-256 thumbprint in base64url');
const seconds = z.int().min(0).max(Number.MAX_SAFE_INTEGER);

/** What a server signs (compact JWS, EdDSA, type `tomaat-announcement+jws`, its public key as `jwk` in the header). */
export const signedAnnouncementSchema = announcementSchema.extend({
  id: z.string().regex(/^[\w-]{43}\.[\w.:-]{1,100}$/, 'must be a thumbprint, a dot and the id of a service'),
  sub: thumbprint.describe('Thumbprint (RFC 7638) of the key that signs'),
  aud: url.describe('Address of the registry that it is meant for'),
  iat: seconds.describe('When it was signed, seconds since 1970'),
  exp: seconds.describe('Until when it is good, at most 120 s later'),
  epoch: z.int().min(1).describe('Grows with every announcement: an older one never replaces a newer one'),
  certificate: z
    .string()
    .regex(/^[0-9A-F]{2}(:[0-9A-F]{2}){31}$/, 'must be a SHA-256 fingerprint such as AB:01:…')
    .describe('SHA-256 fingerprint of the server’s TLS certificate'),
});
export type SignedAnnouncement = z.infer<typeof signedAnnouncementSchema>;

/** The fields of a form that are known by name: files, and values as text. Others may come beside them. */
export interface FormFields {
  readonly files: Record<string, string>;
  readonly texts?: Record<string, string>;
}

/** A header of a request: what it means, and what it may be. */
export interface RequestHeader {
  readonly description: string;
  readonly schema: z.ZodType;
  readonly required?: boolean;
}

export interface EndpointResponse {
  readonly description: string;
  /** Besides those that every answer has. A page of another origin may read these (`exposedHeaders`). */
  readonly headers?: readonly ResponseHeader[];
  readonly content?: Record<string, z.ZodType | 'binary'>;
}

export interface Endpoint {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'OPTIONS';
  readonly path: string;
  readonly on: 'server' | 'registry' | 'both';
  readonly tag:
    | 'services'
    | 'jobs'
    | 'uploads'
    | 'workers'
    | 'promise'
    | 'v1'
    | 'registry'
    | 'login'
    | 'operations';
  readonly summary: string;
  readonly description?: string;
  readonly params?: z.ZodObject;
  readonly query?: z.ZodObject;
  readonly headers?: Record<string, string | RequestHeader>;
  readonly body?: {
    readonly description: string;
    readonly content: Record<string, z.ZodType | 'binary' | FormFields>;
  };
  readonly responses: Record<number, EndpointResponse>;
}

const json = <T extends z.ZodType>(schema: T, description: string) => ({
  description,
  content: { 'application/json': schema },
});
const filters = z.object({
  modality: z.string().optional(),
  anatomy: z.string().optional(),
  task: z.string().optional(),
  q: z.string().optional().describe('Words that must occur in name or description'),
});
const idParam = z.object({ id: z.string() });
const predictionBody = {
  description:
    'multipart/form-data: a part for each volume, named as the input (parts of one name belong together: .hdr and .img, .mhd and its data); every other field is a parameter. application/octet-stream: the only volume; parameters in the query. application/json: files that are on the server already, as uploads or by their SHA-256.',
  content: {
    'multipart/form-data': {
      files: { volume: 'The volume of a service that has one; those of others by their names' },
      texts: { frame: 'Which frame of a 4-D volume, from 0' },
    },
    'application/octet-stream': 'binary',
    'application/json': namedPredictionSchema,
  },
} as const;
const tusResumable = {
  'Tus-Resumable': {
    description: 'Version of tus',
    schema: z.enum(['1.0.0']),
    required: true,
  },
} as const;
const tusHeaders = {
  ...tusResumable,
  'X-HTTP-Method-Override':
    'The method that is meant, sent by POST: for networks that let no PATCH, HEAD or DELETE through',
} as const;
const bytesHeader = (description: string) =>
  ({ description, schema: z.int().min(0), required: true }) as const;
/** An Idempotency-Key: visible ASCII. */
export const idempotencyKeySchema = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[\x21-\x7e]+$/);
const frameQuery = z.looseObject({
  frame: z.coerce.number().int().min(0).optional().describe('Which frame of a 4-D volume, from 0'),
});

export const endpoints = {
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
  createPrediction: {
    method: 'POST',
    path: '/api/services/{id}/predictions',
    on: 'server',
    tag: 'jobs',
    summary: 'Ask for a prediction; it becomes a job',
    params: idParam,
    query: frameQuery,
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
  describeUploads: {
    method: 'OPTIONS',
    path: '/api/uploads',
    on: 'server',
    tag: 'uploads',
    summary: 'tus 1.0: what of it is spoken here',
    responses: {
      204: {
        description: 'It is in the header',
        headers: ['Tus-Resumable', 'Tus-Version', 'Tus-Extension', 'Tus-Max-Size'],
      },
    },
  },
  createUpload: {
    method: 'POST',
    path: '/api/uploads',
    on: 'server',
    tag: 'uploads',
    summary: 'tus 1.0: begin an upload that may be cut and go on',
    headers: {
      ...tusResumable,
      'Upload-Length': bytesHeader('Bytes of the file'),
      'Upload-Metadata': 'filename and sha256 (hex), each in base64; the sha256 is checked at the end',
    },
    responses: {
      201: {
        description: 'Its address is in Location; it expires at Upload-Expires',
        headers: ['Location', 'Tus-Resumable', 'Upload-Offset', 'Upload-Expires'],
      },
    },
  },
  getUpload: {
    method: 'HEAD',
    path: '/api/uploads/{id}',
    on: 'server',
    tag: 'uploads',
    summary: 'tus 1.0: how many bytes are there (Upload-Offset)',
    headers: tusHeaders,
    params: idParam,
    responses: {
      200: {
        description: 'How much is there, and of how much; the digest once it is whole',
        headers: [
          'Tus-Resumable',
          'Upload-Offset',
          'Upload-Length',
          'Upload-Expires',
          'Upload-Metadata',
          'TOMAAT-Digest',
        ],
      },
    },
  },
  appendUpload: {
    method: 'PATCH',
    path: '/api/uploads/{id}',
    on: 'server',
    tag: 'uploads',
    summary: 'tus 1.0: send bytes from Upload-Offset on',
    headers: { ...tusHeaders, 'Upload-Offset': bytesHeader('Where the bytes begin') },
    params: idParam,
    body: { description: 'The bytes', content: { 'application/offset+octet-stream': 'binary' } },
    responses: {
      204: {
        description: 'They are on the disk; Upload-Offset says how many there are',
        headers: ['Tus-Resumable', 'Upload-Offset', 'Upload-Expires', 'TOMAAT-Digest'],
      },
    },
  },
  deleteUpload: {
    method: 'DELETE',
    path: '/api/uploads/{id}',
    on: 'server',
    tag: 'uploads',
    summary: 'tus 1.0: delete an upload, whole or not',
    headers: tusHeaders,
    params: idParam,
    responses: { 204: { description: 'Gone', headers: ['Tus-Resumable'] } },
  },
  headBlob: {
    method: 'HEAD',
    path: '/api/blobs/{digest}',
    on: 'server',
    tag: 'uploads',
    summary: 'Whether a file of yours with this SHA-256 (sha256:…) is there already',
    params: z.object({ digest: z.string() }),
    responses: { 200: { description: 'It is' } },
  },
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
      format: z
        .string()
        .optional()
        .describe(`${supportedExtensions.join(', ')}, vtk, stl, json, txt …`),
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
  promise: {
    method: 'POST',
    path: '/{task}/{anatomy}',
    on: 'both',
    tag: 'promise',
    summary: 'A volume in, its segmentation out',
    description:
      'Answers with the primary output on the input’s grid and in the input’s format. The header TOMAAT-Service names the service that answered; TOMAAT-Receipt is the signed receipt. Where the header of the answer would be longer than proxies take (4 kB), Link says where the receipt is to be had, for as long as results are kept. On a registry the request goes through to a server that offers it.',
    params: z.object({ task: slug, anatomy: slug }),
    query: frameQuery.extend({ service: z.string().optional().describe('Which of several services') }),
    body: predictionBody,
    responses: {
      200: {
        description: 'The primary output',
        headers: ['Content-Disposition', 'TOMAAT-Service', 'TOMAAT-Server', 'TOMAAT-Receipt', 'Link'],
        content: { 'application/octet-stream': 'binary' },
      },
    },
  },
  v1Interface: {
    method: 'GET',
    path: '/interface',
    on: 'server',
    tag: 'v1',
    summary: 'TOMAAT v1: the inputs of the default service (also under /services/{id}/interface)',
    responses: { 200: json(z.array(z.record(z.string(), z.unknown())), 'Input elements') },
  },
  v1Predict: {
    method: 'POST',
    path: '/predict',
    on: 'server',
    tag: 'v1',
    summary: 'TOMAAT v1: a prediction by the default service (also under /services/{id}/predict)',
    body: {
      description: 'One field per element; volumes are base64 of a MetaImage file',
      content: { 'multipart/form-data': 'binary', 'application/x-www-form-urlencoded': 'binary' },
    },
    responses: {
      200: json(
        z.array(z.record(z.string(), z.unknown())),
        'Output elements, an error, or a delayed response',
      ),
    },
  },
  v1Responses: {
    method: 'POST',
    path: '/responses',
    on: 'server',
    tag: 'v1',
    summary: 'TOMAAT v1: what became of a delayed response',
    body: {
      description: 'request_id',
      content: { 'application/x-www-form-urlencoded': z.object({ request_id: z.string() }) },
    },
    responses: {
      200: json(z.array(z.record(z.string(), z.unknown())), 'Output elements, or the delayed response again'),
    },
  },
  listEntries: {
    method: 'GET',
    path: '/api/services',
    on: 'registry',
    tag: 'registry',
    summary: 'The services that are announced here',
    query: filters.extend({
      live: z.stringbool().optional().describe('true: only those whose announcement is valid'),
    }),
    responses: { 200: json(z.object({ services: z.array(entrySchema) }), 'Entries') },
  },
  announce: {
    method: 'PUT',
    path: '/api/announcements/{id}',
    on: 'registry',
    tag: 'registry',
    summary: 'Announces a service, or renews it; needs a key with the scope announce',
    description:
      'The id begins with the thumbprint of the key that signs, and is the same in the signed text: a compact JWS (EdDSA, type tomaat-announcement+jws, the public key as jwk in its header) of a SignedAnnouncement. An epoch that is not greater than the last one of this id is refused.',
    params: z.object({ id: signedAnnouncementSchema.shape.id }),
    body: {
      description: 'The signed announcement',
      content: { 'application/json': z.strictObject({ signed: z.string().max(65_536) }) },
    },
    responses: { 200: json(entrySchema, 'The entry, with the time until which it is valid') },
  },
  withdraw: {
    method: 'DELETE',
    path: '/api/announcements/{id}',
    on: 'registry',
    tag: 'registry',
    summary: 'Withdraws a service',
    params: z.object({ id: z.string() }),
    responses: { 204: { description: 'Gone' } },
  },
  v1Announce: {
    method: 'POST',
    path: '/announce',
    on: 'registry',
    tag: 'v1',
    summary: 'TOMAAT v1: announce a service',
    body: {
      description: 'JSON, whatever the content type says',
      content: { 'application/json': z.record(z.string(), z.unknown()) },
    },
    responses: {
      200: json(z.object({ status: z.int(), error: z.string() }), '0: accepted; else the number of problems'),
    },
  },
  v1Discover: {
    method: 'GET',
    path: '/discover',
    on: 'registry',
    tag: 'v1',
    summary: 'TOMAAT v1: the live entries',
    responses: { 200: json(z.array(z.record(z.string(), z.unknown())), 'Entries') },
  },
  workerWelcome: {
    method: 'GET',
    path: '/api/worker',
    on: 'server',
    tag: 'workers',
    summary: 'What a worker has to know: services with their versions, the time of a lease',
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
    responses: { 204: { description: 'Go on' } },
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
  me: {
    method: 'GET',
    path: '/auth/me',
    on: 'both',
    tag: 'login',
    summary: 'Who is logged in, and how one logs in; also for those who are not',
    query: z.object({
      page: z
        .string()
        .optional()
        .describe('Address of the page that asks: 403 if it may not use this server'),
    }),
    responses: { 200: json(meSchema, 'Who it is') },
  },
  logIn: {
    method: 'POST',
    path: '/auth/session',
    on: 'both',
    tag: 'login',
    summary: 'Logs a browser in with a key; the session is a cookie. Programs send the key itself',
    body: {
      description: 'The key',
      content: { 'application/json': z.strictObject({ key: z.string() }) },
    },
    responses: { 204: { description: 'The cookie is in Set-Cookie' } },
  },
  logOut: {
    method: 'DELETE',
    path: '/auth/session',
    on: 'both',
    tag: 'login',
    summary: 'Ends the session of the cookie, at once',
    responses: {
      200: json(loggedOutSchema, 'It has ended; the OpenID Connect issuer that opened it has a session too'),
      204: { description: 'It has ended' },
    },
  },
  oidcLogin: {
    method: 'GET',
    path: '/auth/oidc/login',
    on: 'both',
    tag: 'login',
    summary: 'Sends the browser to the OpenID Connect issuer to log in there',
    query: z.object({
      return: z.string().optional().describe('Path of this server to go on to afterwards'),
      again: z
        .string()
        .optional()
        .describe('If given, the issuer asks who it is even if it knows (prompt=login)'),
    }),
    responses: { 303: { description: 'To the issuer', headers: ['Location'] } },
  },
  oidcCallback: {
    method: 'GET',
    path: '/auth/oidc/callback',
    on: 'both',
    tag: 'login',
    summary: 'Where the issuer sends the browser back to: the redirect URI to register there',
    responses: {
      303: { description: 'Logged in, or back with the reason in login-fault', headers: ['Location'] },
    },
  },
  openapi: {
    method: 'GET',
    path: '/api/openapi.json',
    on: 'both',
    tag: 'operations',
    summary: 'This description',
    responses: { 200: json(z.record(z.string(), z.unknown()), 'OpenAPI 3.1') },
  },
  healthLive: {
    method: 'GET',
    path: '/health/live',
    on: 'both',
    tag: 'operations',
    summary: 'Whether the process answers',
    responses: { 200: json(z.object({ status: z.literal('live') }), 'It does') },
  },
  healthReady: {
    method: 'GET',
    path: '/health/ready',
    on: 'both',
    tag: 'operations',
    summary: 'Whether work is taken now',
    responses: {
      200: json(z.object({ status: z.literal('ready'), services: z.int() }), 'It is'),
      503: { description: 'Not now', headers: ['Retry-After'] },
    },
  },
  metrics: {
    method: 'GET',
    path: '/metrics',
    on: 'both',
    tag: 'operations',
    summary: 'Prometheus metrics',
    responses: { 200: { description: 'Text', content: { 'text/plain': 'binary' } } },
  },
} as const satisfies Record<string, Endpoint>;

export type EndpointName = keyof typeof endpoints;
