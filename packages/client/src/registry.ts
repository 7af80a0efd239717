import { TomaatError } from '@tomaat/core';
import { z } from 'zod';
import type { ServiceFilters } from './client.ts';
import { type Entry, entrySchema } from './contract.ts';
import { addressOf, type ConnectionOptions, callJson, openConnection } from './http.ts';

export interface DiscoverOptions {
  /** true: only services whose announcement is still valid. */
  live?: boolean;
  signal?: AbortSignal;
}

export interface RegistryClient {
  readonly baseUrl: string;
  /** The services that are announced; a registry that speaks only TOMAAT v1 is asked in v1. */
  discover(filters?: ServiceFilters, options?: DiscoverOptions): Promise<Entry[]>;
}

/** A client of a service registry. Rejects as `createClient` does. */
export function createRegistryClient(options: ConnectionOptions): RegistryClient {
  const connection = openConnection(options);
  return {
    baseUrl: connection.baseUrl,
    async discover(filters = {}, { live, signal } = {}) {
      const schema = z.object({ services: z.array(z.record(z.string(), z.unknown())) });
      let found: Record<string, unknown>[];
      try {
        const answer = await callJson(connection, '/api/services', schema, {
          query: { ...filters, live },
          signal,
        });
        found = answer?.services ?? [];
      } catch (error) {
        const old =
          error instanceof TomaatError &&
          ['NOT_FOUND', 'METHOD_NOT_ALLOWED', 'BAD_REQUEST', 'UPSTREAM'].includes(error.code);
        if (!old) throw error;
        const entries = await discoverV1(connection.baseUrl, options, signal).catch((second: unknown) => {
          // Neither: what the first answer said is about the address, the second would only confuse.
          throw signal?.aborted ? second : error;
        });
        return entries.filter((entry) => matches(entry, filters));
      }
      return found.map((item) => {
        const entry = entrySchema.safeParse(item);
        if (entry.success) return entry.data;
        throw new TomaatError(
          'UPSTREAM',
          'inputs' in item
            ? `${connection.baseUrl} is a server, not a registry. Ask it for its services, or give the address of a registry.`
            : `${addressOf(connection, '/api/services')} answered, but not as a registry of this version does. Check the address.`,
          { cause: entry.error, detail: { server: 'inputs' in item } },
        );
      });
    },
  };
}

const v1Entry = z.object({
  prediction_url: z.string(),
  interface_url: z.string().default(''),
  name: z.string().default('unnamed'),
  modality: z.string().default(''),
  anatomy: z.string().default(''),
  task: z.string().default(''),
  description: z.string().default(''),
  SID: z.coerce.string().default(''),
  creation_time: z.number().default(0),
});
const v1LifetimeMs = 3_600_000;

/** The live entries of a TOMAAT v1 registry: `GET /discover`. Entries without an address are left out. */
export async function discoverV1(
  baseUrl: string,
  options: Omit<ConnectionOptions, 'baseUrl'> = {},
  signal?: AbortSignal,
): Promise<Entry[]> {
  const connection = openConnection({ ...options, baseUrl: baseUrl.replace(/\/discover\/?$/, '') });
  const list = await callJson(connection, '/discover', z.array(z.unknown()), { signal });
  return (list ?? []).flatMap((item) => {
    const parsed = v1Entry.safeParse(item);
    if (!parsed.success) return [];
    const entry = parsed.data;
    return {
      sid: entry.SID,
      name: entry.name,
      modality: entry.modality,
      anatomy: entry.anatomy,
      task: entry.task,
      description: entry.description,
      predictionUrl: entry.prediction_url,
      interfaceUrl: entry.interface_url,
      face: 'v1' as const,
      live: true,
      announcedTime: new Date(entry.creation_time * 1000).toISOString(),
      expiresTime: new Date(entry.creation_time * 1000 + v1LifetimeMs).toISOString(),
    };
  });
}

function matches(entry: Entry, { modality, anatomy, task, q }: ServiceFilters): boolean {
  const same = (value: string, wanted?: string) =>
    wanted === undefined || value.toLowerCase() === wanted.toLowerCase();
  const text = `${entry.name} ${entry.description}`.toLowerCase();
  const words = (q ?? '').toLowerCase().split(/\s+/).filter(Boolean);
  return (
    same(entry.modality, modality) &&
    same(entry.anatomy, anatomy) &&
    same(entry.task, task) &&
    words.every((word) => text.includes(word))
  );
}
