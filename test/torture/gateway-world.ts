import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { dicomFile, sliceElements } from '../../packages/core/test/dicom-files.ts';
import { createSeriesAdmin } from '../../packages/server/src/gateway/series-admin.ts';
import { ownNodeOptions } from '../../packages/server/src/source.ts';
import {
  gatewayFolder,
  openGatewayDatabase,
} from '../../packages/server/src/store/database/gateway-database.ts';
import { inferBright, writeApp } from '../../packages/server/test/app-fixture.ts';
import { bin, endsWithTest } from '../../packages/server/test/cli-fixture.ts';
import { freePort, type Orthanc, startOrthanc } from '../orthanc.ts';
import { findOrthanc } from '../programs.ts';
import { type Finding, finding, insist, load } from './harness.ts';

const slices = 4;

/** A command of tomaat in a process of its own, on a fixed port, to be killed and started again; `log` is a file for its stderr. */
export interface MortalCommand extends AsyncDisposable {
  readonly pid: number;
  kill(): Promise<void>;
  start(): Promise<void>;
}

export async function openMortalCommand(
  args: readonly string[],
  { log }: { log?: string } = {},
): Promise<MortalCommand> {
  let child: ChildProcess;
  let exit: Promise<unknown>;
  const command: MortalCommand = {
    get pid() {
      return child.pid!;
    },
    async start() {
      const stderr = log === undefined ? undefined : openSync(log, 'a');
      child = spawn(process.execPath, [...ownNodeOptions, ...endsWithTest, bin, ...args, '--json'], {
        stdio: ['pipe', 'pipe', stderr ?? (process.env.TEST_LOG ? 'inherit' : 'ignore')],
      });
      if (stderr !== undefined) closeSync(stderr);
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
limits: { ${limits} }
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
export async function push(archive: Orthanc, number: number): Promise<void> {
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

/** An archive, a service and a gateway between them, each in a process of its own. */
export interface GatewayWorld extends AsyncDisposable {
  readonly archive: Orthanc;
  readonly server: MortalCommand;
  readonly gateway: MortalCommand;
  readonly gatewayUrl: string;
  /** Data folder of the service. */
  readonly served: string;
  /** Data folder of the gateway. */
  readonly data: string;
  /** What the gateway wrote to stderr. */
  readonly log: string;
}

export interface WorldOptions {
  /** How long a job takes at least, ms. */
  readonly jobMs: number;
  /** More of the rules’ `limits`, as text. */
  readonly limits?: string;
  /** Data folder of the gateway, if it is not in `folder`. */
  readonly data?: string;
}

/** Undefined where Orthanc is not installed. */
export async function openWorld(
  folder: string,
  { jobMs, limits, data = join(folder, 'data') }: WorldOptions,
): Promise<GatewayWorld | undefined> {
  const program = findOrthanc();
  if (!program) return undefined;
  await using opened = new AsyncDisposableStack();
  const archive = opened.use(await startOrthanc(program));
  const [port, gatewayPort] = [await freePort(), await freePort()];
  const [served, rules, log] = ['served', 'gateway.yaml', 'gateway.log'].map((name) => join(folder, name));
  await mkdir(data, { recursive: true });
  const web = `{ type: dicomweb, url: '${archive.dicomWeb}'`;
  await writeRules(rules, {
    source: `${web}, poll: 5s, quiet: 1s }`,
    destination: `${web} }`,
    port,
    limits,
  });
  const app = await brightApp(folder, jobMs);
  const ports = ['--port', String(port), '--tls-port', '0'];
  const server = opened.use(await openMortalCommand(['serve', app, ...ports, '--data', served]));
  const start = ['gateway', '--config', rules, '--port', String(gatewayPort), '--data', data];
  const gateway = opened.use(await openMortalCommand(start, { log }));
  const kept = opened.move();
  return {
    ...{ archive, server, gateway, served, data, log },
    gatewayUrl: `http://127.0.0.1:${gatewayPort}`,
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/**
 * What a world came to: each series that was sent has one segmentation and one report of its patient, or one reason, and
 * nothing else is left.
 * @param limitMs how long the last may take to end
 */
export async function judgeWorld(
  world: GatewayWorld,
  sent: number,
  how: string,
  limitMs?: number,
): Promise<Finding[]> {
  const { archive, data, served } = world;
  const rows = await endedRows(data, sent, limitMs);
  const failed = rows.filter(({ state }) => state === 'failed');
  const open = rows.filter(({ state }) => state !== 'done' && state !== 'failed');
  const wrong: string[] = [];
  for (let number = 0; number < sent; number++) {
    const found = await instancesOf(archive, studyOf(number));
    const segs = found.filter(({ sopClass }) => sopClass === segmentation).length;
    const reports = found.filter(({ sopClass }) => isReport(sopClass)).length;
    const isRight = found.every(({ patient }) => patient === patientOf(number));
    const mine = rows.filter(({ study }) => study === studyOf(number));
    const hasReason = mine[0]?.state === 'failed' && mine[0].reason !== undefined;
    const isWhole = segs === 1 && reports === 1 && found.length === slices + 2;
    if (mine.length === 1 && isRight && (isWhole || (hasReason && found.length === slices))) continue;
    const states = mine.map(({ state }) => state);
    wrong.push(`study ${number}: ${states}, ${found.length} instances, ${segs} SEG, ${reports} SR`);
  }
  const [jobs, files] = [await jobsLeft(served), await readdir(join(gatewayFolder(data), 'work'))];
  const verified = await verify(data);
  const reason = failed[0] && ` (${failed[0].reason?.code}: ${failed[0].reason?.message})`;
  return [
    finding(
      wrong.length === 0 && sent > 0,
      'each series has one result or one reason, of its patient',
      `${how}, ${sent} series, ${sent - wrong.length} right, ${failed.length} with a reason${reason ?? ''}${wrong.length > 0 ? `; ${wrong.slice(0, 5).join('; ')}` : ''}, ${load()}`,
    ),
    finding(open.length === 0, 'no row is open', `${open.length} of ${rows.length}`),
    finding(jobs === 0, 'the service keeps no job', `${jobs} jobs`),
    finding(files.length === 0, 'no originals are left', `${files.length} folders`),
    finding(verified.code === 0, 'the audit log verifies', verified.text),
  ];
}

/** The rows of a gateway. */
export async function rowsOf(data: string) {
  await using database = await openGatewayDatabase(data);
  return await createSeriesAdmin(database as never).list({ limit: 100_000 });
}

const hasEnded = ({ state }: { state: string }) => state === 'done' || state === 'failed';

/** The rows of a gateway, when as many as were sent have ended; as they are after `limitMs`. */
export async function endedRows(data: string, count: number, limitMs = 300_000) {
  for (const end = performance.now() + limitMs; ; await sleep(500)) {
    const rows = await rowsOf(data);
    const ended = rows.filter(hasEnded);
    if ((ended.length >= count && ended.length === rows.length) || performance.now() > end) return rows;
  }
}

export const countEnded = async (data: string): Promise<number> =>
  (await rowsOf(data)).filter(hasEnded).length;

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
