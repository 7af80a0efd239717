import { TomaatError } from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { countBytes, readAll } from './byte-counter.ts';

/**
 * Reads a request's body as JSON of this shape. What is too long is UPLOAD_TOO_LARGE; what is no JSON, or of another
 * shape, is BAD_REQUEST with the field's path and `hint`: what to send, in a sentence.
 */
export async function readJson<T extends z.ZodType>(
  request: FastifyRequest,
  schema: T,
  { maxBytes, hint }: { maxBytes: number; hint: string },
): Promise<z.output<T>> {
  const body = countBytes(request.raw, { maxUploadBytes: maxBytes }, request.headers['content-length']);
  const text = (await readAll(body, maxBytes)).toString('utf8');
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new TomaatError('BAD_REQUEST', `The body is not valid JSON. ${hint}`, { cause: error });
  }
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  const [{ path, message }] = parsed.error.issues;
  const field = path.join('.').slice(0, 100) || undefined;
  throw new TomaatError('BAD_REQUEST', `${field ?? 'The body'}: ${message}. ${hint}`, { field });
}
