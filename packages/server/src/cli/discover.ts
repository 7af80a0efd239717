import { createRegistryClient, type Entry, type ServiceFilters } from '@tomaat/client';
import Table from 'cli-table3';
import { type ConnectOptions, defaultRegistry, prepareConnection } from './connect.ts';
import { plain } from './console.ts';

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
  const table = new Table({
    head: ['NAME', 'MODALITY', 'ANATOMY', 'TASK', 'ADDRESS', 'LIVE'].slice(0, withState ? 6 : 5),
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
    chars: Object.fromEntries(
      ['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right', 'left', 'left-mid'].map((key) => [key, '']).concat(
        ['mid', 'mid-mid', 'right', 'right-mid', 'middle'].map((key) => [key, '']),
      ),
    ),
  });
  for (const entry of rows) {
    const cells = [entry.name, entry.modality, entry.anatomy, entry.task, addressOf(entry), entry.live ? 'yes' : 'no'];
    table.push(cells.slice(0, withState ? 6 : 5).map(plain));
  }
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

const keyOf = (entry: Entry) => `${entry.modality}\n${entry.anatomy}\n${entry.task}\n${entry.name}`;

/** What `tomaat predict` takes. */
function addressOf(entry: Entry): string {
  if (!entry.serverUrl || !entry.serviceId) return entry.predictionUrl;
  return `${entry.serverUrl.replace(/\/+$/, '')}/services/${entry.serviceId}`;
}
