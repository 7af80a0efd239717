import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { dicomFile, sliceElements } from '../../packages/core/test/dicom-files.ts';
import { createSeriesAdmin } from '../../packages/server/src/gateway/series-admin.ts';
import { ownNodeOptions } from '../../packages/server/src/source.ts';
import { gatewayFolder, openGatewayDatabase } from '../../packages/server/src/store/gateway-database.ts';
import { inferBright, writeApp } from '../../packages/server/test/app-fixture.ts';
import { bin, endsWithTest } from '../../packages/server/test/cli-fixture.ts';
import { freePort, type Orthanc, startOrthanc } from '../orthanc.ts';
import { findOrthanc } from '../programs.ts';
import { type Finding, finding, insist, load } from './harness.ts';

const slices = 4;
/** Series that are sent before the earlier ones have ended. */
const mostAhead = 6;

/** A command of tomaat in a process of its own, on a fixed port, to be killed and started again. */
export interface MortalCommand extends AsyncDisposable {
  readonly pid: number;
  kill(): Promise<void>;
  start(): Promise<void>;
}

export async function openMortalCommand(args: readonly string[]): Promise<MortalCommand> {
  let child: ChildProcess;
  let exit: Promise<unknown>;
  const command: MortalCommand = {
    get pid() {
      return child.pid!;
    },
    async start() {
      child = spawn(process.execPath, [...ownNodeOptions, ...endsWithTest, bin, ...args, '--json'], {
        stdio: ['pipe', 'pipe', process.env.TEST_LOG ? 'inherit' : 'ignore'],
      });
      exit = once(child, 'exit');
      const lines = createInterface({ input: child.stdout! });
      const first = await Promise.race([once(lines, 'line'), exit.then(() => undefined)]);
      if (!first) throw new Error(`tomaat ${args[0]} ended before it was ready`);
    },
    async kill() {
      child.kill('SIGKILL');
      await exit;
    },
    [Symbol.asyncDispose]: () => command.kill(),
  };
  await command.start();
  return command;
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const studyOf = (number: number): string => `1.2.4.${number}`;
export const patientOf = (number: number): string => `PATIENT${number}`;

/** The files of a small axial series of a patient and a study of its own. */
export function seriesOf(number: number, count = slices): Uint8Array<ArrayBuffer>[] {
  const today = new Date().toISOString().slice(0, 10).replaceAll('-', '');
  return Array.from({ length: count }, (_, k) =>
    dicomFile(
      sliceElements({
        series: String(number),
        instance: k + 1,
        orientation: [1, 0, 0, 0, 1, 0],
        position: [-3, 5, 2.5 * k],
        more: {
          524320: ['DA', today],
          528446: ['LO', 'T1'],
          1048592: ['PN', `Canary^${number}`],
          1048608: ['LO', patientOf(number)],
          2097165: ['UI', studyOf(number)],
        },
      }),
    ),
  );
}

/** A file of rules: one source, one service, one destination. */
export async function writeRules(
  file: string,
  {
    source,
    destination,
    port,
    limits = '',
  }: Record<'source' | 'destination', string> & { port: number; limits?: string },
): Promise<void> {
  await writeFile(
    file,
    `schemaVersion: 1
sources: { in: ${source} }
services: { bright: { url: 'http://127.0.0.1:${port}', service: bright } }
destinations: { out: ${destination} }
rules:
  - { id: all, when: { modality: MR }, service: bright, destinations: [out], results: [seg.dcm, sr.dcm] }
limits: { firstPause: 1s, longestPause: 2s${limits} }
`,
  );
}

/** An app that marks what is bright, and measures it. */
export const brightApp = (folder: string, ms = 0): Promise<string> =>
  writeApp(folder, 'bright', {
    infer: ms > 0 ? `await sleep(${ms}); ${inferBright}` : inferBright,
    outputs: {
      segmentation: { type: 'LabelVolume', label: 'Bright' },
      volumes: { type: 'Measurements', from: 'segmentation' },
    },
    labels: [{ value: 1, name: 'bright', code: { scheme: 'SCT', value: '39607008', meaning: 'Lung' } }],
  });

/** Puts series into the archive until each of its files is confirmed. */
async function push(archive: Orthanc, number: number): Promise<void> {
  for (const body of seriesOf(number)) {
    const response = await insist(
      `${archive.url}/instances`,
      { method: 'POST', body },
      AbortSignal.timeout(60_000),
    );
    if (!response.ok) throw new Error(`Orthanc refused a file: ${response.status} ${await response.text()}`);
    await response.arrayBuffer();
  }
}

interface Found {
  readonly sopClass: string;
  readonly patient: string;
}

/** The instances of a study, by QIDO. */
async function instancesOf(archive: Orthanc, study: string): Promise<Found[]> {
  const url = `${archive.dicomWeb}/studies/${study}/instances?includefield=00100020`;
  const response = await fetch(url, { headers: { accept: 'application/dicom+json' } });
  const found = (await response.json()) as Record<string, { Value?: string[] }>[];
  return found.map((one) => ({
    sopClass: one['00080016']?.Value?.[0] ?? '',
    patient: one['00100020']?.Value?.[0] ?? '',
  }));
}

const segmentation = '1.2.840.10008.5.1.4.1.1.66.4';
const isReport = (sopClass: string) => sopClass.startsWith('1.2.840.10008.5.1.4.1.1.88.');

/**
 * kill -9 of the gateway, the server and Orthanc at random moments while series come in: each series ends with one
 * segmentation and one report of its patient, or with one reason.
 */
export async function gatewayKills(
  folder: string,
  { kills, seed }: { kills: number; seed: number },
): Promise<Finding[]> {
  const program = findOrthanc();
  if (!program) return [finding(true, 'skipped', 'Orthanc is not installed on this machine')];
  const random = randomOf(seed);
  await using archive = await startOrthanc(program);
  const [port, gatewayPort] = [await freePort(), await freePort()];
  const [served, data, rules] = ['served', 'data', 'gateway.yaml'].map((name) => join(folder, name));
  await mkdir(data);
  const web = `{ type: dicomweb, url: '${archive.dicomWeb}'`;
  await writeRules(rules, { source: `${web}, poll: 5s, quiet: 1s }`, destination: `${web} }`, port });
  const app = await brightApp(folder, 100);
  await using server = await openMortalCommand([
    'serve',
    app,
    '--port',
    String(port),
    '--tls-port',
    '0',
    '--data',
    served,
  ]);
  await using gateway = await openMortalCommand([
    'gateway',
    '--config',
    rules,
    '--port',
    String(gatewayPort),
    '--data',
    data,
  ]);
  const counts = { gateway: 0, server: 0, archive: 0 };
  const targets = {
    gateway: [gateway.kill, gateway.start],
    server: [server.kill, server.start],
    archive: [archive.kill, archive.restart],
  } as const;
  const stop = new AbortController();
  let sent = 0;
  const stream = (async () => {
    for (; !stop.signal.aborted; sent++) {
      await push(archive, sent);
      // A few wait, not hundreds: the kills are for series in work.
      while (sent - (await countEnded(data)) > mostAhead && !stop.signal.aborted) await sleep(300);
    }
  })();
  try {
    for (let kill = 0; kill < kills; kill++) {
      await sleep(200 + random() * 4000);
      const names = Object.keys(targets) as (keyof typeof targets)[];
      const name = names[Math.floor(random() * names.length)];
      counts[name]++;
      await targets[name][0]();
      await targets[name][1]();
    }
  } finally {
    stop.abort();
  }
  await stream;

  const rows = await endedRows(data, sent);
  const failed = rows.filter(({ state }) => state === 'failed');
  const open = rows.filter(({ state }) => state !== 'done' && state !== 'failed');
  let whole = 0;
  const wrong: string[] = [];
  for (let number = 0; number < sent; number++) {
    const found = await instancesOf(archive, studyOf(number));
    const segs = found.filter(({ sopClass }) => sopClass === segmentation).length;
    const reports = found.filter(({ sopClass }) => isReport(sopClass)).length;
    const isRight = found.every(({ patient }) => patient === patientOf(number));
    const mine = rows.filter(({ study }) => study === studyOf(number));
    const hasReason = mine[0]?.state === 'failed' && mine[0].reason !== undefined;
    const isWhole = segs === 1 && reports === 1 && found.length === slices + 2;
    if (mine.length === 1 && isRight && (isWhole || (hasReason && found.length === slices))) whole++;
    else
      wrong.push(
        `study ${number}: ${mine.map(({ state }) => state)}, ${found.length} instances, ${segs} SEG, ${reports} SR`,
      );
  }
  const jobs = await jobsLeft(served);
  const files = await readdir(join(gatewayFolder(data), 'work'));
  const verified = await verify(data);
  return [
    finding(
      wrong.length === 0 && sent > 0,
      'each series has one result or one reason, of its patient',
      `${kills} kills (${counts.gateway} gateway, ${counts.server} server, ${counts.archive} Orthanc), ${sent} series, ${whole} right, ${failed.length} with a reason${failed[0] ? ` (${failed[0].reason?.code}: ${failed[0].reason?.message})` : ''}${wrong.length > 0 ? `; ${wrong.slice(0, 5).join('; ')}` : ''}, ${load()}`,
    ),
    finding(open.length === 0, 'no row is open', `${open.length} of ${rows.length}`),
    finding(jobs === 0, 'the service keeps no job', `${jobs} jobs`),
    finding(files.length === 0, 'no originals are left', `${files.length} folders`),
    finding(verified.code === 0, 'the audit log verifies', verified.text),
  ];
}

/** The rows of a gateway, when as many as were sent have ended; as they are after five minutes. */
export async function endedRows(data: string, count: number, limitMs = 300_000) {
  await using database = await openGatewayDatabase(data);
  const admin = createSeriesAdmin(database as never);
  for (const end = performance.now() + limitMs; ; await sleep(500)) {
    const rows = await admin.list({ limit: 100_000 });
    const ended = rows.filter(({ state }) => state === 'done' || state === 'failed');
    if ((ended.length >= count && ended.length === rows.length) || performance.now() > end) return rows;
  }
}

async function countEnded(data: string): Promise<number> {
  await using database = await openGatewayDatabase(data);
  const rows = await createSeriesAdmin(database as never).list({ limit: 100_000 });
  return rows.filter(({ state }) => state === 'done' || state === 'failed').length;
}

/** Jobs that a server still has; those of failed rows are deleted a moment after their end. */
async function jobsLeft(served: string): Promise<number> {
  using database = new DatabaseSync(join(served, 'server.db'), { readOnly: true });
  const count = () => (database.prepare('SELECT COUNT(*) AS jobs FROM job').get() as { jobs: number }).jobs;
  for (let tries = 0; tries < 20 && count() > 0; tries++) await sleep(500);
  return count();
}

async function verify(data: string): Promise<{ code: number; text: string }> {
  const args = [...ownNodeOptions, bin, 'audit', 'verify', '--data', data, '--log', 'gateway'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (part) => (text += part));
  const [code] = (await once(child, 'close')) as [number];
  return { code, text: text.trim().split('\n').join(' ') };
}
