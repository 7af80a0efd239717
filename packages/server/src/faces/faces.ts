import type { FastifyInstance } from 'fastify';
import type { ServerContext } from '../http/context.ts';
import type { Face } from './face.ts';
import { promise } from './promise.ts';
import { v1 } from './v1.ts';

/** The faces of a server in addition to its own API (http/jobs.ts). */
const faces: readonly Face[] = [promise, v1];

export function registerFaces(app: FastifyInstance, context: ServerContext): void {
  for (const face of faces) face.register(app, context);
}
