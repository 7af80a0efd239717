import { openApiDocument } from '@tomaat/client';
import type { FastifyInstance } from 'fastify';

export interface Operations {
  on: 'server' | 'registry';
  version: string;
  /** Prometheus text of the metrics. */
  metrics(): Promise<string>;
  /** The number of services, or why no work is accepted now. */
  ready(): { services: number } | { reason: string };
}

/** The routes for operators of a server or a registry: health, metrics, the description of the API. */
export function registerOperations(app: FastifyInstance, { on, version, metrics, ready }: Operations): void {
  let document: string | undefined;
  app.get('/api/openapi.json', async (_request, reply) => {
    document ??= JSON.stringify(openApiDocument(on, version, app.publicAddress.url));
    return reply.type('application/json; charset=utf-8').send(document);
  });
  app.get('/health/live', async () => ({ status: 'live' }));
  app.get('/health/ready', async (_request, reply) => {
    const state = ready();
    if ('reason' in state)
      return reply.code(503).header('retry-after', '5').send({ status: 'not ready', reason: state.reason });
    return { status: 'ready', services: state.services };
  });
  app.get('/metrics', async (_request, reply) =>
    reply.type('text/plain; version=0.0.4; charset=utf-8').send(await metrics()),
  );
}
