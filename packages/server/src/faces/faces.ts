import type { FastifyInstance } from 'fastify';
import type { ServerContext } from '../http/context.ts';
import type { FaceName } from '../settings.ts';
import { auto3dseg } from './auto3dseg.ts';
import { monaiLabel } from './monailabel.ts';
import { promise } from './promise.ts';
import { v1 } from './v1.ts';

interface Registered {
  register(app: FastifyInstance, context: ServerContext): void;
}

/** The faces of a server in addition to its own API (http/jobs.ts). */
const always: readonly Registered[] = [promise, v1];

/** Those that the operator asks for (--faces). */
const optional: Partial<Record<FaceName, Registered>> = { monailabel: monaiLabel, auto3dseg };

export function registerFaces(
  app: FastifyInstance,
  context: ServerContext,
  names: readonly FaceName[] = [],
): void {
  const asked = [...new Set(names)].flatMap((name) => optional[name] ?? []);
  for (const face of [...always, ...asked]) face.register(app, context);
}
