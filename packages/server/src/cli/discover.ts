import { createRegistryClient, type Entry, type RegistryClient, type ServiceFilters } from '@tomaat/client';
import { TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import Table from 'cli-table3';
import { defaultRegistry } from '../settings.ts';
import { type ConnectOptions, connectTo, dataFolderOf, parseUrl } from './connect.ts';
import { openTable, plain } from './console.ts';
import { storedKeyFor } from './keyring.ts';

export interface DiscoverFlags extends ServiceFilters, ConnectOptions {
  all?: boolean;
  json?: boolean;
}

/** `tomaat discover`: the services of a registry, as a table or as JSON. */
export async function discover(registryUrl: string | undefined, flags: DiscoverFlags): Promise<number> {
  const baseUrl = registryUrl ?? flags.registry ?? defaultRegistry;
  const apiKey = flags.apiKey ?? (await storedKeyFor(parseUrl(baseUrl).href, await dataFolderOf(flags)));
  const { fetch, hosts } = await connectTo(baseUrl, { ...flags, apiKey });
  const { modality, anatomy, task, q } = flags;
  const registry = createRegistryClient({ baseUrl, apiKey, fetch, otherHosts: hosts });
  const entries = await registry.discover(
    { modality, anatomy, task, q },
    { live: flags.all ? undefined : true },
  );
  if (flags.json) {
    console.log(JSON.stringify(entries));
    return 0;
  }
  if (entries.length === 0) {
    const filtered = modality ?? anatomy ?? task ?? q;
    console.log(
      filtered === undefined
        ? `No service is announced at ${baseUrl}.`
        : `No service at ${baseUrl} matches. Remove a filter to see more.`,
    );
    return 0;
  }
  const signers = new Map<Entry, Signer>();
  const faults: string[] = [];
  for (const entry of entries) signers.set(entry, await signerOf(registry, entry, faults));
  console.log(tableOf(entries, Boolean(flags.all), signers));
  for (const fault of faults) console.error(plain(fault));
  return 0;
}

interface Signer {
  /** Its key, shortened; “unsigned” for TOMAAT v1. */
  key: string;
  /** The verdict that it signed. */
  parity?: string;
}

/** Who signed an entry. Invalid signatures are reported in `faults`. */
async function signerOf(registry: RegistryClient, entry: Entry, faults: string[]): Promise<Signer> {
  if (!entry.signed && entry.face === 'v1') return { key: 'unsigned' };
  try {
    const { sub, parity } = await registry.verify(entry);
    return { key: `${sub.slice(0, 8)}…`, parity: parity?.verdict };
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    // An expired announcement is merely old.
    if (!entry.live) return { key: 'expired' };
    faults.push(`${entry.name}: ${error.message}`);
    return { key: 'BAD' };
  }
}

function tableOf(entries: readonly Entry[], withState: boolean, signers: ReadonlyMap<Entry, Signer>): string {
  const rows = [...entries].sort((a, b) => keyOf(a).localeCompare(keyOf(b)));
  const withParity = [...signers.values()].some(({ parity }) => parity !== undefined);
  const head = [
    'NAME',
    'MODALITY',
    'ANATOMY',
    'TASK',
    'ADDRESS',
    'KEY',
    ...(withParity ? ['PARITY'] : []),
    ...(withState ? ['LIVE'] : []),
  ];
  return openTable(
    Table,
    head,
    rows.map((entry) => {
      const cells = [
        entry.name,
        entry.modality,
        entry.anatomy,
        entry.task,
        addressOf(entry),
        signers.get(entry)?.key ?? '',
      ];
      if (withParity) cells.push(signers.get(entry)?.parity ?? '');
      return withState ? [...cells, entry.live ? 'yes' : 'no'] : cells;
    }),
  );
}

const keyOf = (entry: Entry) => `${entry.modality}\n${entry.anatomy}\n${entry.task}\n${entry.name}`;

/** The argument for `tomaat predict`. */
function addressOf(entry: Entry): string {
  if (!entry.serverUrl || !entry.serviceId) return entry.predictionUrl;
  return `${withoutTrailingSlashes(entry.serverUrl)}/services/${entry.serviceId}`;
}
