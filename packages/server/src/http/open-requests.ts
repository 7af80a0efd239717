import type { ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { FastifyInstance } from 'fastify';

/** Which requests have no complete answer yet. */
export interface OpenRequests {
  /** From now on connections end with their next answer, so that a client or a proxy opens the next one elsewhere. */
  leave(): void;
  /** Resolves as soon as every request has its answer, or its sender is gone; at the latest after `limitMs`. */
  answered(limitMs: number): Promise<void>;
}

/** Call it before the first route is registered. */
export function trackRequests(app: FastifyInstance): OpenRequests {
  const open = new Set<ServerResponse>();
  let onNone = () => {};
  let isLeaving = false;
  app.addHook('onRequest', async (_request, { raw }) => {
    open.add(raw);
    raw.once('close', () => {
      open.delete(raw);
      if (open.size === 0) onNone();
    });
  });
  app.addHook('onSend', async (_request, reply) => {
    if (isLeaving) reply.header('connection', 'close');
  });
  return {
    leave() {
      isLeaving = true;
    },
    async answered(limitMs) {
      if (open.size === 0) return;
      const limit = new AbortController();
      const isNone = new Promise<void>((resolve) => {
        onNone = resolve;
      });
      const isLate = delay(limitMs, undefined, { signal: limit.signal }).catch(() => {});
      await Promise.race([isNone, isLate]);
      limit.abort();
    },
  };
}
