import { subscribe } from 'node:diagnostics_channel';
import { isDeepStrictEqual } from 'node:util';
import { type Endpoint, endpoints, isOn, type Program, problemSchema } from '@tomaat/client';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { afterEach, expect } from 'vitest';
import type { z } from 'zod';

/*
 * Importing this file compares every JSON answer of the servers and registries in the process with its row of
 * the contract: the status is declared, the schema takes the body, and no field is there that the schema does not know.
 * A test fails in which one was different.
 */

const faults: string[] = [];
/** What was wrong since the last time. */
export const takeFaults = (): string[] => faults.splice(0);
// The torture uses the same fixtures outside of a test.
if (process.env.VITEST)
  afterEach(() => expect(takeFaults(), 'answers are not as the contract says').toEqual([]));

subscribe('fastify.initialization', (message) => {
  const { fastify } = message as { fastify: FastifyInstance };
  fastify.addHook('onSend', async (request, reply, payload) => {
    const fault = checkAnswer(fastify, request, reply, payload);
    if (fault) faults.push(`${request.method} ${request.url}, ${reply.statusCode}: ${fault}`);
    return payload;
  });
});

function checkAnswer(
  app: FastifyInstance,
  request: FastifyRequest,
  reply: FastifyReply,
  payload: unknown,
): string | undefined {
  const type = String(reply.getHeader('content-type') ?? '').split(';')[0];
  const isText = typeof payload === 'string' || Buffer.isBuffer(payload);
  const read = () => JSON.parse(String(payload)) as unknown;
  if (type === 'application/problem+json' && isText) return mismatch(problemSchema, read());
  const endpoint = endpointOf(app, request);
  if (!endpoint || reply.statusCode >= 400) return undefined;
  const answer = endpoint.responses[reply.statusCode];
  if (!answer) return 'the contract has no such status';
  const schema = answer.content?.['application/json'];
  if (schema === undefined || schema === 'binary') return undefined;
  if (type !== 'application/json') return `it is ${type || 'nothing'}, not JSON`;
  // A stream (volumes of TOMAAT v1) is for the client alone.
  return isText ? mismatch(schema, read()) : undefined;
}

/** The row of an address; `/api/services` is one of the server's and another of the registry's. */
function endpointOf(app: FastifyInstance, request: FastifyRequest): Endpoint | undefined {
  const has = (method: 'GET' | 'PUT', url: string) => app.hasRoute({ method, url });
  const on: Program = has('PUT', '/api/announcements/:id')
    ? 'registry'
    : has('GET', '/api/gateway/summary')
      ? 'gateway'
      : 'server';
  return Object.values<Endpoint>(endpoints).find(
    (endpoint) =>
      isOn(endpoint, on) &&
      endpoint.method === request.method &&
      routeUrlOf(endpoint.path) === request.routeOptions.url,
  );
}

/** The path of the contract as the router writes it: `/api/jobs/:id`. */
export const routeUrlOf = (path: string): string => path.replace(/\{(\w+)\}/g, ':$1');

function mismatch(schema: z.ZodType, value: unknown): string | undefined {
  const { data, error } = schema.safeParse(value);
  if (error) return error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; ');
  if (isDeepStrictEqual(data, value)) return undefined;
  return `fields that the contract does not have, in ${JSON.stringify(value).slice(0, 500)}`;
}
