import { TomaatError } from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { countBytes, readAll } from './byte-counter.ts';

/** Levels of lists and objects in untrusted JSON: code that walks through it may recurse this deep. */
export const maxJsonDepth = 64;

/**
 * Reads a request's body as JSON and checks it against the schema. A body that is too long is UPLOAD_TOO_LARGE; one that is not JSON, is
 * nested more than 64 levels deep, or has another shape, is BAD_REQUEST with the field's path and `hint`, a sentence that says
 * what to send.
 */
export async function readJson<T extends z.ZodType>(
  request: FastifyRequest,
  schema: T,
  { maxBytes, hint }: { maxBytes: number; hint: string },
): Promise<z.output<T>> {
  const body = countBytes(request.raw, { maxUploadBytes: maxBytes }, request.headers['content-length']);
  return checkJson(parseJson(await readAll(body, maxBytes), hint), schema, hint);
}

/** Bytes as JSON: UTF-8, 64 levels deep at most; else BAD_REQUEST with the hint. */
export function parseJson(bytes: Uint8Array, hint: string): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new TomaatError('BAD_REQUEST', `The body is not JSON in UTF-8. ${hint}`, { cause: error });
  }
  if (goesDeeper(text, maxJsonDepth)) {
    throw new TomaatError(
      'BAD_REQUEST',
      `The JSON body is nested more than ${maxJsonDepth} levels deep. ${hint}`,
    );
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TomaatError('BAD_REQUEST', `The body is not valid JSON. ${hint}`, { cause: error });
  }
}

/** The value in the schema's shape; else BAD_REQUEST with the field's path and the hint. */
export function checkJson<T extends z.ZodType>(data: unknown, schema: T, hint: string): z.output<T> {
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  const [{ path, message }] = parsed.error.issues;
  const field = path.join('.').slice(0, 100) || undefined;
  throw new TomaatError('BAD_REQUEST', `${field ?? 'The body'}: ${message}. ${hint}`, { field });
}

const quote = 34;
const backslash = 92;

/** Whether a JSON text opens more than `levels` lists and objects inside one another; brackets in strings are text. */
function goesDeeper(text: string, levels: number): boolean {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === quote) {
      for (at++; at < text.length && text.charCodeAt(at) !== quote; at++) {
        if (text.charCodeAt(at) === backslash) at++;
      }
    } else if (code === 91 || code === 123) {
      if (++depth > levels) return true;
    } else if (code === 93 || code === 125) depth--;
  }
  return false;
}
