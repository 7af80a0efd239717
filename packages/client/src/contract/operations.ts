import { z } from 'zod';
import { type Endpoint, json } from './endpoint.ts';

export const operationEndpoints = {
  openapi: {
    method: 'GET',
    path: '/api/openapi.json',
    on: 'all',
    tag: 'operations',
    summary: 'This description',
    responses: { 200: json(z.record(z.string(), z.unknown()), 'OpenAPI 3.1') },
  },
  healthLive: {
    method: 'GET',
    path: '/health/live',
    on: 'all',
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
    on: 'all',
    tag: 'operations',
    summary: 'Prometheus metrics',
    responses: { 200: { description: 'Text', content: { 'text/plain': 'binary' } } },
  },
} as const satisfies Record<string, Endpoint>;
