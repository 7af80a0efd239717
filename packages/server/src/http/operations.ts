import { openApiDocument, type Program } from '@tomaat/client';
import type { FastifyInstance } from 'fastify';

export interface Operations {
  on: Program;
  version: string;
  /** Prometheus text of the metrics. */
  metrics(): Promise<string>;
  /** What it is ready with, such as the number of services, or why no work is accepted now. */
  ready(): Readiness | Promise<Readiness>;
}

type Readiness =
  | { reason: string }
  | { services: number }
  | { away: { sources: number; destinations: number } };

/** The routes for operators of a server, a registry or a gateway: health, metrics, the description of the API. */
export function registerOperations(app: FastifyInstance, { on, version, metrics, ready }: Operations): void {
  let document: string | undefined;
  app.get('/api/openapi.json', async (_request, reply) => {
    document ??= JSON.stringify(openApiDocument(on, version, app.publicAddress.url));
    return reply.type('application/json; charset=utf-8').send(document);
  });
  app.get('/health/live', async () => ({ status: 'live' }));
  app.get('/health/ready', async (_request, reply) => {
    const state = await ready();
    if ('reason' in state)
      return reply.code(503).header('retry-after', '5').send({ status: 'not ready', reason: state.reason });
    return { status: 'ready', ...state };
  });
  app.get('/metrics', async (_request, reply) =>
    reply.type('text/plain; version=0.0.4; charset=utf-8').send(await metrics()),
  );
}
