import type { FastifyRequest } from 'fastify';

/** A parameter of a request's query; the last one counts if it is repeated. */
export function queryWord(request: FastifyRequest, name: string): string | undefined {
  return lastOf((request.query as Record<string, string | string[] | undefined>)[name]);
}

/** All parameters of a request's query, each as `queryWord` reads it; without a prototype, because any name is possible. */
export function queryWords(request: FastifyRequest): Record<string, string> {
  const words: Record<string, string> = Object.create(null);
  for (const name of Object.keys(request.query as object)) words[name] = queryWord(request, name) ?? '';
  return words;
}

const lastOf = (value: string | string[] | undefined) => (Array.isArray(value) ? value.at(-1) : value);
