/**
 * `npm run torture [PART…]`: what a server has to bear, at length. Each part prints what was asked for and what was seen;
 * the exit code is 1 if anything fell short. TORTURE_SCALE=0.1 makes it shorter, 2 longer; --kills and --seed are for the part
 * gateway, --minutes for gatewayOutage and cluster.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { cluster } from './cluster.ts';
import { crashPoints } from './crash-points.ts';
import { disk } from './disk.ts';
import { gatewayKills } from './gateway.ts';
import { gatewayDisk } from './gateway-disk.ts';
import { gatewayOutage } from './gateway-outage.ts';
import type { Finding } from './harness.ts';
import { killLoop } from './kills.ts';
import { leftovers } from './leftovers.ts';
import { overhead } from './overhead.ts';
import { overload } from './overload.ts';
import { partition } from './partition.ts';
import { cutUpload } from './uploads.ts';

const scale = Number(process.env.TORTURE_SCALE ?? 1);
const scaled = (n: number) => Math.max(1, Math.round(n * scale));

const { values: flags, positionals: wanted } = parseArgs({
  options: {
    kills: { type: 'string' },
    minutes: { type: 'string' },
    seed: { type: 'string', default: '1' },
  },
  allowPositionals: true,
});

const parts: Record<string, (folder: string) => Promise<Finding[]>> = {
  overhead: (folder) => overhead(folder, { jobs: scaled(300) }),
  uploads: (folder) => cutUpload(folder, { bytes: scaled(300) * 1e6, cuts: 20 }),
  leftovers: (folder) => leftovers(folder, { count: scaled(1000) }),
  overload: (folder) => overload(folder, { seconds: scaled(60) }),
  crashPoints: (folder) => crashPoints(folder, { perCall: scaled(40) }),
  disk: (folder) => disk(folder),
  partition: (folder) => partition(folder),
  gateway: (folder) =>
    gatewayKills(folder, { kills: Number(flags.kills ?? scaled(100)), seed: Number(flags.seed) }),
  gatewayOutage: (folder) => gatewayOutage(folder, { minutes: Number(flags.minutes ?? scaled(10)) }),
  cluster: (folder) =>
    cluster(folder, {
      seconds: flags.minutes ? 60 * Number(flags.minutes) : scaled(120),
      seed: Number(flags.seed),
    }),
  gatewayDisk: (folder) => gatewayDisk(folder),
  kills: (folder) => killLoop(folder, { kills: scaled(200) }),
};

// As the command keeps it: who is started again finds its code compiled.
const codeCache = await mkdtemp(join(tmpdir(), 'tomaat-torture-code-'));
process.env.NODE_COMPILE_CACHE ??= codeCache;

const unknown = wanted.filter((name) => !(name in parts));
if (unknown.length > 0) {
  console.error(`There is no part ${unknown.join(', ')}. There are: ${Object.keys(parts).join(', ')}.`);
  process.exit(2);
}
let failed = 0;
for (const [name, part] of Object.entries(parts)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-torture-'));
  const start = performance.now();
  try {
    for (const { ok, what, seen } of await part(folder)) {
      if (!ok) failed++;
      console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}: ${what}: ${seen}`);
    }
  } catch (error) {
    failed++;
    console.log(`FAIL ${name}: ${(error as Error).stack}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  console.log(`     ${name} took ${Math.round((performance.now() - start) / 1000)} s`);
}
await rm(codeCache, { recursive: true, force: true });
process.exitCode = failed > 0 ? 1 : 0;
