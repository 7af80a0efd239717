import { createRegistryClient, type Entry, type ServiceFilters } from '@tomaat/client';
import Table from 'cli-table3';
import { type ConnectOptions, defaultRegistry, prepareConnection } from './connect.ts';
import { openTable } from './console.ts';

export interface DiscoverFlags extends ServiceFilters, ConnectOptions {
  all?: boolean;
  json?: boolean;
}

/** `tomaat discover`: the services of a registry, as a table or as JSON. */
export async function discover(registryUrl: string | undefined, flags: DiscoverFlags): Promise<number> {
  const baseUrl = registryUrl ?? flags.registry ?? defaultRegistry;
  await prepareConnection(baseUrl, flags);
  const { modality, anatomy, task, q } = flags;
  const entries = await createRegistryClient({ baseUrl, apiKey: flags.apiKey }).discover(
    { modality, anatomy, task, q },
    { live: flags.all ? undefined : true },
  );
  if (flags.json) {
    console.log(JSON.stringify(entries, null, 2));
    return 0;
  }
  if (entries.length === 0) {
    const filtered = modality ?? anatomy ?? task ?? q;
    console.log(
      filtered === undefined
        ? `No service is announced at ${baseUrl}.`
        : `No service at ${baseUrl} fits. Leave out a filter to see more.`,
    );
    return 0;
  }
  console.log(tableOf(entries, Boolean(flags.all)));
  return 0;
}

function tableOf(entries: readonly Entry[], withState: boolean): string {
  const rows = [...entries].sort((a, b) => keyOf(a).localeCompare(keyOf(b)));
  const head = ['NAME', 'MODALITY', 'ANATOMY', 'TASK', 'ADDRESS', ...(withState ? ['LIVE'] : [])];
  return openTable(
    Table,
    head,
    rows.map((entry) => {
      const cells = [entry.name, entry.modality, entry.anatomy, entry.task, addressOf(entry)];
      return withState ? [...cells, entry.live ? 'yes' : 'no'] : cells;
    }),
  );
}

const keyOf = (entry: Entry) => `${entry.modality}\n${entry.anatomy}\n${entry.task}\n${entry.name}`;

/** What `tomaat predict` takes. */
function addressOf(entry: Entry): string {
  if (!entry.serverUrl || !entry.serviceId) return entry.predictionUrl;
  return `${entry.serverUrl.replace(/\/+$/, '')}/services/${entry.serviceId}`;
}
