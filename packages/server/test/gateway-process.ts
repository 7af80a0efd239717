/**
 * A gateway with a folder as its source and steps that do next to nothing, in a process of its own, to be killed. Speaks by IPC; ends
 * with its parent. `gateway-process.ts DATA INBOX RESULTS`
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GatewayConfig } from '../src/gateway/config.ts';
import { startGateway } from '../src/gateway/gateway.ts';
import type { Destination, ProcessSeries } from '../src/gateway/series.ts';
import { openSources } from '../src/gateway/sources/open-sources.ts';
import { lockDataFolder } from '../src/store/database/database.ts';
import { gatewayFolder, openGatewayDatabase } from '../src/store/database/gateway-database.ts';

const [dataFolder, inbox, results] = process.argv.slice(2);
mkdirSync(results, { recursive: true });

const config: GatewayConfig = {
  sources: { inbox: { type: 'folder', path: inbox, pollMs: 150, quietMs: 100 } },
  services: { brain: { url: 'http://127.0.0.1:1', service: 'brain' } },
  destinations: { results: { type: 'folder', path: results } },
  rules: ['a', 'b'].map((id) => ({
    id,
    when: {},
    service: 'brain',
    destinations: ['results'],
    parameters: {},
    results: [],
    keepIdentity: false,
    keepPatientCharacteristics: false,
    urgency: 3,
  })),
  limits: {
    concurrency: 2,
    firstPauseMs: 50,
    longestPauseMs: 200,
    giveUpMs: 60_000,
    keepMs: 86_400_000,
    maxSeriesBytes: 1e8,
  },
};

/** Files are named by their content: storing the same again changes nothing. */
const destination: Destination = {
  name: 'results',
  async store(objects) {
    for (const { name, bytes } of objects as { name: string; bytes: Uint8Array }[]) {
      const part = join(results, `.${name}-${process.pid}`);
      writeFileSync(part, bytes);
      renameSync(part, join(results, name));
    }
  },
};

/** Each step takes a while, so that a kill may come between any two. */
const processSeries: ProcessSeries = async (
  row,
  { source, folder, destinations, predecessor, save, signal },
) => {
  if (readdirSync(folder).length > 0) throw new Error('the folder of the series is not empty');
  const hash = createHash('sha256');
  let count = 0;
  for await (const { name, bytes } of source.fetch(row.study, row.series, signal)) {
    writeFileSync(join(folder, name), bytes);
    hash.update(bytes);
    count++;
  }
  await save({ digest: row.digest, step: 'predict' });
  await sleep(10, undefined, { signal });
  const sopInstance = `${row.rule}_${row.series}_${count}`;
  const result = { format: 'seg.dcm', sopClass: '1.2', sopInstance, series: `${row.series}.999` } as const;
  await save({ step: 'store', seed: hash.digest('hex'), results: [{ ...result, storedAt: [] }] });
  const bytes = Buffer.from(JSON.stringify({ after: predecessor?.results[0]?.sopInstance }));
  await destinations[0].store([{ name: sopInstance, bytes } as never], signal);
  await sleep(5);
  await save({ results: [{ ...result, storedAt: [destinations[0].name] }] });
};

lockDataFolder(gatewayFolder(dataFolder));
const database = await openGatewayDatabase(dataFolder);
await startGateway({
  config,
  database,
  dataFolder,
  folder: gatewayFolder(dataFolder),
  matchSeen: (rules) => rules,
  processSeries,
  sources: openSources(config, () => {
    throw new Error('there is a folder alone');
  }),
  destinations: [destination],
  onFault: (error) => console.error(error),
  tickMs: 20,
});
process.on('disconnect', () => process.exit(0));
process.send?.('ready');
