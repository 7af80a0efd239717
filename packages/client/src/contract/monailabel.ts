import { z } from 'zod';
import { type Endpoint, idParam, json } from './endpoint.ts';

/** MONAI Label 0.8, as far as its clients need it to segment a volume. */

const params = 'An object of JSON: parameters of the model by their names, client_id, result_extension';
const imageQuery = z.looseObject({
  image: z.string().min(1).max(1000).describe('The name of the image, as the client calls it'),
});
const sessionSchema = z.object({
  name: z.string(),
  path: z.literal(''),
  image: z.literal(''),
  meta: z.object({}),
  last_access_ts: z.int().describe('Seconds since 1970'),
  expiry: z.int().describe('Seconds after the last use'),
});
const uploadImage = {
  method: 'PUT',
  on: 'server',
  tag: 'monailabel',
  summary: 'Upload an image; it is kept for an hour after its last use',
  query: imageQuery,
  body: {
    description: 'The files of one volume as parts named file',
    content: { 'multipart/form-data': { files: { file: 'The volume' }, texts: { params } } },
  },
  responses: { 200: json(z.object({ image: z.string() }), 'Its name') },
} as const;

export const monaiLabelEndpoints = {
  monaiLabelAuth: {
    method: 'GET',
    path: '/monailabel/auth',
    on: 'server',
    tag: 'monailabel',
    summary: 'Whether a client has to log in',
    responses: { 200: json(z.object({ enabled: z.boolean() }), 'Whether it has to') },
  },
  monaiLabelToken: {
    method: 'POST',
    path: '/monailabel/auth/token',
    on: 'server',
    tag: 'monailabel',
    summary: 'Log in with any user name, and an API key as the password',
    body: {
      description: 'The user name is ignored',
      content: {
        'application/x-www-form-urlencoded': z.object({
          username: z.string().optional(),
          password: z.string(),
          grant_type: z.string().optional(),
        }),
      },
    },
    responses: {
      200: json(
        z.object({ access_token: z.string(), token_type: z.literal('bearer') }),
        'The token: the key',
      ),
    },
  },
  monaiLabelTokenValid: {
    method: 'GET',
    path: '/monailabel/auth/token/valid',
    on: 'server',
    tag: 'monailabel',
    summary: 'Whether a token is valid; otherwise 401',
    responses: { 200: json(z.object({}), 'It is') },
  },
  monaiLabelInfo: {
    method: 'GET',
    path: '/monailabel/info',
    on: 'server',
    tag: 'monailabel',
    summary: 'The models: services with one required volume, and a label map with at most 254 named labels',
    responses: {
      200: json(
        z.object({
          name: z.string(),
          description: z.string(),
          version: z.string(),
          labels: z.array(z.string()),
          models: z.record(
            z.string(),
            z.object({
              type: z.literal('segmentation'),
              labels: z.record(z.string(), z.int()).describe('Numbers from 1 on, by the names of the labels'),
              dimension: z.literal(3),
              description: z.string(),
              version: z.string(),
              config: z
                .record(z.string(), z.union([z.string(), z.boolean(), z.array(z.string())]))
                .describe('Parameters with their defaults; of a choice the list, the default first'),
            }),
          ),
          trainers: z.object({}),
          strategies: z.object({}),
          scoring: z.object({}),
          train_stats: z.object({}),
          datastore: z.record(z.string(), z.unknown()),
        }),
        'The server and its models',
      ),
    },
  },
  monaiLabelDatastore: {
    method: 'GET',
    path: '/monailabel/datastore',
    on: 'server',
    tag: 'monailabel',
    summary: 'The images to annotate: always none',
    query: z.looseObject({ output: z.string().optional().describe('all: the list, which is empty') }),
    responses: { 200: json(z.record(z.string(), z.unknown()), 'No images') },
  },
  monaiLabelUpload: { ...uploadImage, path: '/monailabel/datastore' },
  monaiLabelUploadImage: { ...uploadImage, path: '/monailabel/datastore/image' },
  monaiLabelOpenSession: {
    method: 'PUT',
    path: '/monailabel/session',
    on: 'server',
    tag: 'monailabel',
    summary: 'Upload a volume as a session, which is kept for an hour after its last use',
    body: {
      description: 'The files of one volume as parts named files; a zip archive of a DICOM series is one',
      content: { 'multipart/form-data': { files: { files: 'The volume' } } },
    },
    responses: {
      200: json(z.object({ session_id: z.string(), session_info: sessionSchema }), 'The session'),
    },
  },
  monaiLabelSession: {
    method: 'GET',
    path: '/monailabel/session/{id}',
    on: 'server',
    tag: 'monailabel',
    summary: 'A session; uses it',
    params: idParam,
    responses: {
      200: json(
        z.union([sessionSchema, z.object({})]),
        'The session, or an empty object if it does not exist or has expired',
      ),
    },
  },
  monaiLabelCloseSession: {
    method: 'DELETE',
    path: '/monailabel/session/{id}',
    on: 'server',
    tag: 'monailabel',
    summary: 'Delete a session and its files',
    params: idParam,
    responses: { 200: json(z.object({}), 'It does not exist any longer') },
  },
  monaiLabelInfer: {
    method: 'POST',
    path: '/monailabel/infer/{model}',
    on: 'server',
    tag: 'monailabel',
    summary: 'Segment a volume: of the body, of a session, or uploaded before',
    params: z.object({ model: z.string() }),
    query: z.looseObject({
      image: z.string().optional().describe('The name of an uploaded image'),
      session_id: z.string().optional(),
      output: z
        .enum(['all', 'image', 'json', 'dicom_seg'])
        .optional()
        .describe('The label map alone, the names of its values alone, or a DICOM segmentation'),
    }),
    body: {
      description: 'The volume is not needed with a session or an image',
      content: { 'multipart/form-data': { files: { file: 'The volume' }, texts: { params } } },
    },
    responses: {
      200: {
        description:
          'A form with params, which names the values of the voxels, and image, the label map: uint8, on the grid of the volume, in mm; the k-th label is k',
        headers: ['Content-Disposition'],
        content: { 'multipart/form-data': 'binary', 'application/octet-stream': 'binary' },
      },
    },
  },
  monaiLabelNextSample: {
    method: 'POST',
    path: '/monailabel/activelearning/{strategy}',
    on: 'server',
    tag: 'monailabel',
    summary: 'The next image to annotate: always none',
    params: z.object({ strategy: z.string() }),
    responses: { 200: json(z.object({}), 'None') },
  },
} as const satisfies Record<string, Endpoint>;
