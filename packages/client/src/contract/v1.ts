import { z } from 'zod';
import { type Endpoint, json } from './endpoint.ts';

export const v1Endpoints = {
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
} as const satisfies Record<string, Endpoint>;
