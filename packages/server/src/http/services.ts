import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { Service } from '@tomaat/client';
import {
  type ComputePolicy,
  hasOwnNetworks,
  type Input,
  type Manifest,
  parameterSchema,
  primaryOutput,
  TomaatError,
  verifiedDevices,
} from '@tomaat/core';
import type { FastifyInstance } from 'fastify';
import { type App, appFile, pictureOf } from '../apps.ts';
import type { Jobs } from '../store/jobs/jobs.ts';
import { runBytesOf } from '../worker/run-bytes.ts';
import type { ProcessingFacts } from './processing.ts';
import type { PublicAddress } from './public-address.ts';
import { matchesTag } from './ranges.ts';
import { contentDisposition } from './send.ts';

/** The apps of a server as services, and how requests select one. */
export interface Services {
  readonly apps: readonly App[];
  /** The app of a service id; NOT_FOUND lists the existing ids. */
  find(id: string): App;
  /** The service at an address task/anatomy; NOT_FOUND lists the existing addresses. */
  route(task: string, anatomy: string, id?: string): App;
  /** The service that v1 clients without a choice get. */
  readonly v1Default: App;
  /** Where predictions of an app may run: as its author wrote, unless the operator keeps all models here. */
  computeOf(app: App): ComputePolicy;
  card(app: App): Promise<Service>;
}

export function createServices(
  apps: readonly App[],
  jobs: Jobs,
  {
    defaultId,
    keepSeconds,
    address,
    processing,
    withholdModels = false,
  }: {
    defaultId?: string;
    keepSeconds?: number;
    address: Pick<PublicAddress, 'pathOf'>;
    processing?: Pick<ProcessingFacts, 'describe'>;
    withholdModels?: boolean;
  },
): Services {
  const byId = new Map(apps.map((app) => [app.manifest.id, app]));
  const list = () => [...byId.keys()].join(', ');

  function find(id: string): App {
    const app = byId.get(id);
    if (app) return app;
    throw new TomaatError('NOT_FOUND', `There is no service ${id.slice(0, 60)} here. Available: ${list()}.`, {
      field: 'service',
    });
  }

  function route(task: string, anatomy: string, id?: string): App {
    const candidates = apps.filter(({ manifest }) => manifest.task === task && manifest.anatomy === anatomy);
    if (candidates.length === 0) {
      const addresses = [...new Set(apps.map(({ manifest }) => `/${manifest.task}/${manifest.anatomy}`))];
      throw new TomaatError(
        'NOT_FOUND',
        `No service here offers ${task}/${anatomy}. Available: ${addresses.join(', ')}.`,
        {
          detail: { addresses },
        },
      );
    }
    if (id !== undefined) {
      const chosen = candidates.find(({ manifest }) => manifest.id === id);
      if (chosen) return chosen;
      const ids = candidates.map(({ manifest }) => manifest.id);
      throw new TomaatError(
        'NOT_FOUND',
        `No service with that id offers ${task}/${anatomy} here. Available: ${ids.join(', ')}.`,
        { field: 'service' },
      );
    }
    return candidates.find(({ manifest }) => manifest.default) ?? candidates[0];
  }

  const v1Default = defaultId === undefined ? apps[0] : find(defaultId);

  const computeOf = ({ manifest }: App) => (withholdModels ? 'server' : manifest.compute);

  async function card(app: App): Promise<Service> {
    const { manifest } = app;
    const primary = primaryOutput(manifest);
    const hashes = new Set(manifest.model.flatMap((spec) => (spec.runtime === 'onnx' ? spec.sha256 : [])));
    return {
      id: manifest.id,
      name: manifest.name,
      description: manifest.description,
      version: manifest.version,
      modality: manifest.modality,
      anatomy: manifest.anatomy,
      task: manifest.task,
      authors: manifest.authors,
      licence: manifest.licence,
      citation: manifest.citation,
      homepage: manifest.homepage,
      intendedUse: manifest.intendedUse,
      limitations: manifest.limitations,
      parity: manifest.parity,
      default: isDefault(manifest),
      inputs: Object.entries(manifest.inputs).map(([name, input]) => ({ name, ...shownInput(input) })),
      outputs: Object.entries(manifest.outputs).map(([name, output]) => ({
        name,
        primary: name === primary,
        ...output,
      })),
      labels: manifest.labels,
      parameters: parameterSchema(manifest.inputs),
      acceptance: manifest.acceptance,
      runtime: manifest.model[0].runtime,
      compute: computeOf(app),
      devices: hasOwnNetworks(manifest) ? [...verifiedDevices(manifest)] : undefined,
      modelSha256: [...hashes].at(0),
      modelSha256s: hashes.size > 1 ? [...hashes] : undefined,
      runBytes: measuredRuns(manifest),
      typicalSeconds: await jobs.typicalSeconds(manifest.id),
      sample: manifest.sample && address.pathOf(`/api/services/${manifest.id}/sample`),
      picture: manifest.picture && address.pathOf(`/api/services/${manifest.id}/picture`),
      keepSeconds,
      processing: await processing?.describe(app),
    };
  }

  const isDefault = (manifest: Manifest) => route(manifest.task, manifest.anatomy).manifest === manifest;

  return { apps, find, route, v1Default, computeOf, card };
}

export function registerServiceRoutes(app: FastifyInstance, services: Services): void {
  app.get('/api/services', async (request) => {
    const { modality, anatomy, task, q } = request.query as Record<string, string | undefined>;
    const same = (a: string, b: string | undefined) => b === undefined || a.toLowerCase() === b.toLowerCase();
    const words = (q ?? '').toLowerCase().split(/\s+/).filter(Boolean);
    const found = services.apps.filter(({ manifest }) => {
      const text = `${manifest.name} ${manifest.description}`.toLowerCase();
      return (
        same(manifest.modality, modality) &&
        same(manifest.anatomy, anatomy) &&
        same(manifest.task, task) &&
        words.every((word) => text.includes(word))
      );
    });
    return { services: await Promise.all(found.map(services.card)) };
  });

  app.get<{ Params: { id: string } }>('/api/services/:id', (request) =>
    services.card(services.find(request.params.id)),
  );

  app.get<{ Params: { id: string } }>('/api/services/:id/sample', async (request, reply) => {
    const found = services.find(request.params.id);
    if (!found.manifest.sample) {
      throw new TomaatError(
        'NOT_FOUND',
        `The service ${found.manifest.id} has no sample. Send your own volume.`,
      );
    }
    const file = await appFile(found, found.manifest.sample);
    const { size } = await stat(file);
    return reply
      .header('content-length', size)
      .header('content-disposition', contentDisposition(basename(file)))
      .type('application/octet-stream')
      .send(createReadStream(file));
  });

  app.get<{ Params: { id: string } }>('/api/services/:id/picture', async (request, reply) => {
    const found = services.find(request.params.id);
    const picture = await pictureOf(found);
    if (!picture)
      throw new TomaatError(
        'NOT_FOUND',
        `The service ${found.manifest.id} has no picture. Its author can name one in the manifest (picture).`,
      );
    const etag = `"${createHash('sha256').update(picture.bytes).digest('hex')}"`;
    reply.header('cache-control', 'private, max-age=3600').header('etag', etag);
    if (matchesTag(request.headers['if-none-match'], etag)) return reply.code(304).send();
    return reply.type(picture.mediaType).send(picture.bytes);
  });
}

/** What was measured of its networks, by their digests. */
function measuredRuns({ model }: Manifest): Record<string, number> | undefined {
  const found = model.flatMap((spec) => {
    const runBytes = spec.runtime === 'onnx' ? runBytesOf(spec) : undefined;
    return spec.runtime === 'onnx' && runBytes !== undefined ? [[spec.sha256, runBytes] as const] : [];
  });
  return found.length > 0 ? Object.fromEntries(found) : undefined;
}

/** What a card says of an input: everything but the steps of its own preprocessing. */
function shownInput(input: Manifest['inputs'][string]): Input {
  if (input.type !== 'volume') return input;
  const { preprocess: _, ...shown } = input;
  return shown;
}
