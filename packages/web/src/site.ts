import { useQuery } from '@tanstack/react-query';
import { type Client, createClient, createRegistryClient, type Entry, type Service } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { baseUrl } from './base.ts';

/** The server or registry that this page was loaded from. */
export const client: Client = createClient({ baseUrl });
/** For a quick check whether the server responds at all. */
export const impatientClient: Client = createClient({ baseUrl, retries: 0, silenceMs: 4000 });
const registry = createRegistryClient({ baseUrl });

/** What is at this address: a server with its services, or a registry with the announced ones. */
export type Site = { kind: 'server'; services: Service[] } | { kind: 'registry'; entries: Entry[] };

/** Requests services as from a server; a registry's response is recognised by its entries, which have no inputs. */
async function findSite(signal: AbortSignal): Promise<Site> {
  let notServer: unknown;
  try {
    const services = await client.services({}, { signal });
    if (services.length > 0) return { kind: 'server', services };
  } catch (error) {
    if (!(error instanceof TomaatError) || error.code !== 'UPSTREAM') throw error;
    notServer = error;
  }
  try {
    return { kind: 'registry', entries: await registry.discover({}, { signal }) };
  } catch (error) {
    throw notServer ?? error;
  }
}

export const useSite = (enabled = true) =>
  useQuery({
    queryKey: ['site'],
    queryFn: ({ signal }) => findSite(signal),
    refetchInterval: 30_000,
    enabled,
  });

export const useService = (id: string | undefined) =>
  useQuery({
    queryKey: ['service', id],
    queryFn: ({ signal }) => client.service(id!, { signal }),
    enabled: id !== undefined,
  });

/** The address if a browser may open it: http or https only. */
export function safeAddress(address: string | undefined): string | undefined {
  if (address === undefined) return undefined;
  try {
    const url = new URL(address);
    return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : undefined;
  } catch {
    return undefined;
  }
}
