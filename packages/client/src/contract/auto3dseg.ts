import { z } from 'zod';
import { type Endpoint, json } from './endpoint.ts';

/** The server of Auto3DSeg's module for 3D Slicer. */

const modelSchema = z.object({
  id: z.string(),
  title: z.string(),
  version: z.string(),
  inputs: z
    .array(z.object({ title: z.string() }))
    .min(1)
    .max(4),
  imagingModality: z.string(),
  description: z.string(),
  sampleData: z.null(),
  segmentNames: z.array(z.string()),
  details: z.string().describe('HTML'),
  url: z.string(),
  deprecated: z.literal(false),
});
const idQuery = z.looseObject({ id: z.string().describe('The id of a model') });

export const auto3dsegEndpoints = {
  auto3dsegModels: {
    method: 'GET',
    path: '/auto3dseg/models',
    on: 'server',
    tag: 'auto3dseg',
    summary: 'The models: services that make a label map with named labels of one to four volumes alone',
    responses: { 200: json(z.array(modelSchema), 'Models') },
  },
  auto3dsegModel: {
    method: 'GET',
    path: '/auto3dseg/modelinfo',
    on: 'server',
    tag: 'auto3dseg',
    summary: 'One of them',
    query: idQuery,
    responses: { 200: json(modelSchema, 'A model') },
  },
  auto3dsegAbout: {
    method: 'GET',
    path: '/auto3dseg/monaiinfo',
    on: 'server',
    tag: 'auto3dseg',
    summary: 'What the server is',
    responses: { 200: json(z.string(), 'A text of several lines') },
  },
  auto3dsegLabels: {
    method: 'GET',
    path: '/auto3dseg/labelDescriptions',
    on: 'server',
    tag: 'auto3dseg',
    summary: 'The labels of a model: values, names and codes in 17 columns',
    query: idQuery,
    responses: {
      200: {
        description: 'A table (RFC 4180)',
        headers: ['Content-Disposition'],
        content: { 'text/csv': z.string() },
      },
    },
  },
  auto3dsegInfer: {
    method: 'POST',
    path: '/auto3dseg/infer',
    on: 'server',
    tag: 'auto3dseg',
    summary: 'Segment volumes',
    query: z.looseObject({ model_name: z.string().describe('The id of a model') }),
    body: {
      description: 'The volumes in the order of the model’s inputs',
      content: {
        'multipart/form-data': {
          files: {
            image_file: 'The first volume',
            image_file_2: 'The second one, and so on, to image_file_4',
          },
        },
      },
    },
    responses: {
      200: {
        description: 'The label map as NRRD, in LPS and mm, on the grid of the first volume',
        headers: ['Content-Disposition'],
        content: { 'application/octet-stream': 'binary' },
      },
    },
  },
} as const satisfies Record<string, Endpoint>;
