import { TomaatError } from '@tomaat/core';
import { z } from 'zod';
import type { VerifiedAnnouncement } from './announcement.ts';
import type { ServiceFilters } from './client.ts';
import { type Entry, entrySchema } from './contract/registry.ts';
import { addressOf, type ConnectionOptions, callJson, openConnection } from './http.ts';

export interface DiscoverOptions {
  /** true: only services whose announcement is still valid. */
  live?: boolean;
  signal?: AbortSignal;
}

export interface RegistryClientOptions extends ConnectionOptions {
  /** Host names of the registry besides that of `baseUrl`, such as the names in its certificate. */
  otherHosts?: readonly string[];
}

export interface RegistryClient {
  readonly baseUrl: string;
  /** The announced services; a registry that supports only TOMAAT v1 is queried by v1. */
  discover(filters?: ServiceFilters, options?: DiscoverOptions): Promise<Entry[]>;
  /**
   * Checks what a server signed about itself, so that the registry does not have to be trusted: the signature, the
   * time, that it was made for this registry, that the entry matches what was signed, and that it is not older than
   * one seen before. The caller remembers whether the signing key (`sub`) is the right one.
   * @throws TomaatError BAD_SIGNATURE; also for a v1 entry, which is unsigned.
   */
  verify(entry: Entry): Promise<VerifiedAnnouncement>;
}

/** A client of a service registry. Rejects as `createClient` does. */
export function createRegistryClient(options: RegistryClientOptions): RegistryClient {
  const connection = openConnection(options);
  const epochs = new Map<string, number>();
  return {
    baseUrl: connection.baseUrl,
    async verify(entry) {
      // Imported here, so that a page that only lists services does not load the code for signatures.
      const { isSameRegistry, verifyEntry } = await import('./announcement.ts');
      const announcement = await verifyEntry(entry, {
        isAudience: (address) => isSameRegistry(address, connection.baseUrl, options.otherHosts),
        nowMs: Date.now(),
      });
      const { id, epoch } = announcement;
      if (epoch < (epochs.get(id) ?? 0)) {
        throw new TomaatError(
          'BAD_SIGNATURE',
          `The registry shows an older announcement of ${entry.name} than before. Do not use it; tell the registry's operator.`,
        );
      }
      epochs.set(id, epoch);
      return announcement;
    },
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
          // If both fail, the first error is the one about the address; the second would only confuse.
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

/** The live entries of a TOMAAT v1 registry: `GET /discover`. Entries without an address are omitted. */
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
      signed: false as const,
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
