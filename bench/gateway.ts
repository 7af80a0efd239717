/**
 * What a gateway costs besides the job: the time for a series from a folder to a folder, over that of the same job sent
 * directly; and whether its memory stays level over many of them.
 */
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from '@tomaat/client';
import { freePort } from '../test/orthanc.ts';
import {
  brightApp,
  endedRows,
  openMortalCommand,
  seriesOf,
  writeRules,
} from '../test/torture/gateway-world.ts';
import { rssMb } from '../test/torture/harness.ts';
import { type BenchOptions, type BenchResult, median } from './report.ts';

const slices = 20;

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const count = quick ? 20 : 1000;
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  const [inbox, results, data, served] = ['in', 'out', 'data', 'served'].map((name) => join(folder, name));
  try {
    for (const made of [inbox, results, data]) await mkdir(made);
    const port = await freePort();
    const rules = join(folder, 'gateway.yaml');
    await writeRules(rules, {
      source: `{ type: folder, path: ${inbox}, poll: 1s, quiet: 1s }`,
      destination: `{ type: folder, path: ${results} }`,
      port,
      limits: 'firstPause: 1s, longestPause: 2s, concurrency: 1',
    });
    const serve = ['serve', await brightApp(folder), '--port', String(port), '--tls-port', '0'];
    await using _server = await openMortalCommand([...serve, '--data', served]);
    const directMs = await measureJobs(`http://127.0.0.1:${port}`, quick ? 10 : 50);
    for (let number = 0; number < count; number++) await putInto(inbox, folder, number);
    const start = ['gateway', '--config', rules, '--port', String(await freePort()), '--data', data];
    await using gateway = await openMortalCommand(start);
    const samples: [seconds: number, mb: number][] = [];
    const startMs = performance.now();
    const sample = async () => {
      samples.push([(performance.now() - startMs) / 1000, await rssMb(gateway.pid)]);
    };
    await sample();
    const timer = setInterval(() => void sample(), quick ? 500 : 5000);
    const rows = await endedRows(data, count, 3_600_000).finally(() => clearInterval(timer));
    const done = rows.filter(({ state }) => state === 'done').map(({ endedAt }) => endedAt ?? 0);
    // From one end to the next, as they are processed one after the other.
    const ends = done.sort((a, b) => a - b);
    const eachMs = ends.slice(1).map((end, i) => end - ends[i]);
    // The first fifth is the start: code that is compiled, caches that fill.
    const level = samples.slice(Math.ceil(samples.length / 5));
    const hourly = slope(level) * 3600;
    console.log(`RSS of the gateway, MB: ${samples.map(([, mb]) => mb.toFixed(0)).join(' ')}`);
    console.log(
      `memory grows by ${hourly.toFixed(1)} MB an hour; a job alone takes ${median(directMs).toFixed(0)} ms`,
    );
    const total = level.length > 1 ? slope(level) * (level.at(-1)![0] - level[0][0]) : 0;
    return {
      lines: [
        { point: `series lost of ${count}`, measured: count - done.length, target: 0, unit: 'series' },
        {
          point: 'a series through the gateway, over the job alone',
          measured: median(eachMs) / median(directMs),
        },
        { point: 'a series through the gateway, p50', measured: median(eachMs), unit: 'ms' },
        { point: 'growth of its memory over the run, fitted', measured: total, unit: 'MB' },
      ],
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The folder appears with all its files: there is nothing to wait for. */
async function putInto(inbox: string, folder: string, number: number): Promise<void> {
  const part = join(folder, 'part');
  await mkdir(part);
  for (const [k, bytes] of seriesOf(number, slices).entries()) await writeFile(join(part, `${k}.dcm`), bytes);
  await rename(part, join(inbox, String(number)));
}

/** The same work without a gateway: sent, waited for, fetched, removed. */
async function measureJobs(baseUrl: string, rounds: number): Promise<number[]> {
  const client = createClient({ baseUrl });
  const ms: number[] = [];
  for (let round = -2; round < rounds; round++) {
    const volume = seriesOf(1_000_000 + round, slices);
    const start = performance.now();
    const { id } = await client.predict('bright', { volumes: { volume }, keepText: true });
    const job = await client.wait(id);
    for (const { name } of job.outputs) await (await client.output(id, name)).bytes();
    await client.remove(id);
    if (round >= 0) ms.push(performance.now() - start);
  }
  return ms;
}

/** Of the line through points by least squares. */
function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (at: 0 | 1) => points.reduce((sum, point) => sum + point[at], 0) / points.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  const over = points.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
  const under = points.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return under === 0 ? 0 : over / under;
}
