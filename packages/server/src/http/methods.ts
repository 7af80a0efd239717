import { reservedWords } from '@tomaat/core';
import type { FastifyInstance } from 'fastify';

/** Remembers the routes of an app; returns the methods of an address (none: there is nothing at it). */
export function trackMethods(app: FastifyInstance): (path: string) => string[] {
  const routes: { pattern: RegExp; isOpen: boolean; methods: readonly string[] }[] = [];
  app.addHook('onRoute', ({ url, method }) => {
    const pattern = url
      .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
      .replace(/:\w+/g, '[^/]+')
      .replace(/\*/g, '.*');
    routes.push({
      pattern: new RegExp(`^${pattern}/?$`),
      isOpen: url.startsWith('/:'),
      methods: [method].flat(),
    });
  });
  return (path) => {
    // Addresses of apps begin with any word except the reserved ones.
    const isReserved = (reservedWords as readonly string[]).includes(path.split('/')[1]);
    const found = routes.filter(({ pattern, isOpen }) => pattern.test(path) && !(isOpen && isReserved));
    return [...new Set(found.flatMap(({ methods }) => methods))].sort();
  };
}
