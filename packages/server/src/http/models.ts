import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { type FileSpec, isFileSpec, TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { type App, appFile } from '../apps.ts';
import { queryWord } from '../intake/query.ts';
import { answered } from '../problem/take-in-rest.ts';
import type { ServerContext } from './context.ts';
import { contentDisposition } from './send.ts';
import { sendFile } from './send-file.ts';

/** What a caller needs to compute a prediction itself, where author (`compute`) and operator allow that: manifest and networks. */

type ModelContext = Pick<ServerContext, 'services' | 'audit' | 'ownerOf'>;

export function registerModelRoutes(app: FastifyInstance, context: ModelContext): void {
  const findOpen = (id: string): App => {
    const found = context.services.find(id);
    if (context.services.computeOf(found) !== 'server') return found;
    throw new TomaatError(
      'FORBIDDEN',
      `The service ${found.manifest.id} is computed by this server alone: its models do not leave it. Send it a volume instead.`,
    );
  };

  app.get<{ Params: { id: string } }>('/api/services/:id/manifest', async (request, reply) => {
    const { manifestText } = findOpen(request.params.id);
    return reply.header('cache-control', 'private, no-cache').type('application/yaml').send(manifestText);
  });

  app.get<{ Params: { id: string } }>('/api/services/:id/model', async (request, reply) => {
    const found = findOpen(request.params.id);
    return sendModel(request, reply, found, chooseModel(found, queryWord(request, 'sha256')), context);
  });
}

/** Refuses to start with an app that no one could use: its scans may not come here, and its models may not leave. */
export function checkModelsGiven(apps: readonly App[], withholdModels: boolean): void {
  const stuck = withholdModels ? apps.find(({ manifest }) => manifest.compute === 'caller') : undefined;
  if (!stuck) return;
  throw new TomaatError(
    'BAD_REQUEST',
    `The app ${stuck.manifest.id} runs on its callers’ computers alone (compute: caller), and --withhold-models (withholdModels) keeps its models here. Leave out one of the two.`,
  );
}

function chooseModel({ manifest }: App, sha256: string | undefined): FileSpec & { sha256: string } {
  const byDigest = new Map(
    manifest.model.flatMap((spec) =>
      isFileSpec(spec) && spec.sha256 !== undefined
        ? [[spec.sha256, { ...spec, sha256: spec.sha256 }] as const]
        : [],
    ),
  );
  const digests = [...byDigest.keys()];
  if (sha256 === undefined && digests.length > 1) {
    throw new TomaatError(
      'BAD_REQUEST',
      `The service ${manifest.id} has ${digests.length} networks. Name one of them as ?sha256=…: ${digests.join(', ')}.`,
      { field: 'sha256' },
    );
  }
  const found = byDigest.get(sha256 ?? digests[0]);
  if (found) return found;
  throw new TomaatError(
    'NOT_FOUND',
    `The service ${manifest.id} has no network with that digest. Available: ${digests.join(', ')}.`,
    { field: 'sha256' },
  );
}

/** Sends the file with its digest as entity tag; a GET may be conditional, or ask for a range. */
async function sendModel(
  request: FastifyRequest,
  reply: FastifyReply,
  app: App,
  spec: FileSpec & { sha256: string },
  { audit, ownerOf }: ModelContext,
): Promise<FastifyReply> {
  const path = await appFile(app, spec.file);
  const { size: sizeBytes } = await stat(path);
  const digest = `sha256:${spec.sha256}`;
  reply
    .header('cache-control', 'private, no-cache')
    .header('content-disposition', contentDisposition(basename(spec.file)))
    .type('application/octet-stream');
  return sendFile(reply, {
    name: 'The model',
    digest,
    sizeBytes,
    // No more than was announced, whatever is appended meanwhile.
    open: ({ offsetBytes, lengthBytes } = { offsetBytes: 0, lengthBytes: sizeBytes }) =>
      createReadStream(path, { start: offsetBytes, end: Math.max(0, offsetBytes + lengthBytes - 1) }),
    onSend: (what) =>
      void answered(reply).then((isDone) =>
        audit.record('model.read', {
          who: ownerOf(request),
          keyId: request.principal?.keyId,
          service: app.manifest.id,
          version: app.manifest.version,
          digest,
          outcome: isDone ? what : 'broken off',
        }),
      ),
  });
}
