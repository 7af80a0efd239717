import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { createDicomWeb, type DicomWeb, requireStored } from '@tomaat/client';
import { belongingOf, parseDicom } from '@tomaat/core';
import { dicomFile, sliceElements } from '../../packages/core/test/dicom-files.ts';
import { ownNodeOptions } from '../../packages/server/src/source.ts';
import { bin, endsWithTest } from '../../packages/server/test/cli-fixture.ts';
import { freePort } from '../orthanc.ts';
import { findOrthanc, orthancPlugin } from '../programs.ts';
import { type Finding, finding, load, openMortalServer, slowApp } from './harness.ts';

/**
 * kill -9 of a gateway, its service and its archive (Orthanc) at random moments, while series come: each ends with exactly one
 * segmentation and one report in its own study, for its own patient, or with one reason; nothing is left behind.
 */
export async function gatewayKills(folder: string, { kills }: { kills: number }): Promise<Finding[]> {
  const program = findOrthanc();
  if (!program) return [finding(false, 'Orthanc', 'is not on this machine')];
  const labels = [{ value: 1, name: 'bright', code: { scheme: 'SCT', value: '39607008', meaning: 'Lung' } }];
  const outputs = {
    segmentation: { type: 'LabelVolume' },
    volumes: { type: 'Measurements', from: 'segmentation' },
  };
  const app = await slowApp(folder, 'good', 150, { labels, outputs });
  // The queue is often full.
  const server = await openMortalServer([app], { dataFolder: join(folder, 'server'), maxQueued: 1 });
  const archive = await openArchive(program, join(folder, 'archive'));
  const gateway = await openGateway(folder, server.url, archive.url);
  const web = createDicomWeb({ url: archive.url });
  const series: Sent[] = [];
  const counts = { gateway: 0, service: 0, archive: 0 };
  let isPushing = true;
  try {
    const pushing = (async () => {
      while (isPushing) {
        const next = sentSeries(series.length + 1);
        await untilStored(web, next.files);
        series.push(next);
        await sleep(1500 * Math.random());
      }
    })();
    const mortals = { gateway, service: server, archive };
    for (let i = 0; i < kills; i++) {
      await sleep(200 + 2500 * Math.random());
      const name = (['gateway', 'gateway', 'service', 'archive'] as const)[Math.floor(4 * Math.random())];
      await mortals[name].kill();
      counts[name]++;
      await sleep(500 * Math.random());
      await mortals[name].start();
    }
    isPushing = false;
    await pushing;
    const rows = await settledRows(gateway.list, series.length);
    const what = `${series.length} series, kill -9 of ${JSON.stringify(counts)}`;
    const findings = await compare(web, series, rows, what);
    // What was dropped with an ended row is deleted at the service within seconds.
    await sleep(5000);
    return [...findings, ...leftovers(folder, server.dataFolder, gateway)];
  } finally {
    await gateway.close();
    await archive.close();
    await server.close();
  }
}

interface Sent {
  readonly series: string;
  readonly study: string;
  readonly patient: string;
  /** A slice is missing: it has to end with that reason. */
  readonly isBroken: boolean;
  readonly files: readonly Uint8Array[];
}

/** A series of a patient and study of its own; each fifth lacks a slice. */
function sentSeries(number: number): Sent {
  const [study, patient, isBroken] = [`1.2.826.${number}`, `PATIENT-${number}`, number % 5 === 0];
  const today = new Date().toISOString().slice(0, 10).replaceAll('-', '');
  const more = {
    524320: ['DA', today],
    1048592: ['PN', `Name^${number}`],
    1048608: ['LO', patient],
    2097165: ['UI', study],
  } as const;
  const slices = [1, 2, 3, 4, 5, 6].filter((k) => !(isBroken && k === 4));
  const files = slices.map((k) =>
    dicomFile(
      sliceElements({
        series: `${number}.1`,
        uid: `${study}.1.${k}`,
        instance: k,
        position: [3 * k * 0.48, -3 * k * 0.48, 3 * k * 0.64].map((mm) => Number(mm.toFixed(4))),
        orientation: [0.8, 0.36, -0.48, 0, 0.8, 0.6].map((part) => part),
        more: { ...more, 2097166: ['UI', `${study}.1`] },
      }),
    ),
  );
  return { series: `${study}.1`, study, patient, isBroken, files };
}

async function untilStored(web: DicomWeb, files: readonly Uint8Array[]): Promise<void> {
  for (;;) {
    try {
      return void requireStored(await web.store(files));
    } catch {
      await sleep(200);
    }
  }
}

/** Orthanc on a folder and a port of its own, which can be killed and started again. */
async function openArchive(program: string, folder: string) {
  mkdirSync(folder, { recursive: true });
  const port = await freePort();
  const file = join(folder, 'orthanc.json');
  const settings = {
    StorageDirectory: join(folder, 'db'),
    IndexDirectory: join(folder, 'db'),
    HttpPort: port,
    AuthenticationEnabled: false,
    DicomServerEnabled: false,
    Plugins: [orthancPlugin],
    DicomWeb: { Enable: true, Root: '/dicom-web/' },
  };
  writeFileSync(file, JSON.stringify(settings));
  const url = `http://127.0.0.1:${port}/dicom-web`;
  let child: ChildProcess;
  const start = async () => {
    child = spawn(program, [file], { stdio: 'ignore' });
    const isThere = () =>
      fetch(`http://127.0.0.1:${port}/system`).then(
        (response) => response.arrayBuffer().then(() => true),
        () => false,
      );
    while (!(await isThere())) await sleep(100);
  };
  const kill = async () => {
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  await start();
  return { url, start, kill, close: kill };
}

interface Row {
  readonly id: string;
  readonly series: string;
  readonly state: string;
  readonly reason?: { readonly message: string };
}

async function openGateway(folder: string, service: string, archive: string) {
  const [file, data] = [join(folder, 'gateway.yaml'), join(folder, 'data')];
  writeFileSync(
    file,
    `schemaVersion: 1
sources:
  archive: { type: dicomweb, url: ${archive}, poll: 1s, quiet: 1s, since: 2d }
services:
  good: { url: ${service}, service: good }
destinations:
  archive: { type: source, source: archive }
rules:
  - { id: all, when: { modality: MR }, service: good, destinations: [archive], results: [seg.dcm, sr.dcm] }
limits: { concurrency: 3, firstPause: 1s, longestPause: 5s }
`,
  );
  const port = await freePort();
  const command = (...args: string[]) => [...ownNodeOptions, bin, 'gateway', ...args];
  let child: ChildProcess;
  const start = async () => {
    child = spawn(
      process.execPath,
      [...endsWithTest, ...command('--config', file, '--data', data, '--port', `${port}`)],
      { stdio: ['pipe', 'pipe', process.env.TEST_LOG ? 'inherit' : 'ignore'] },
    );
    await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
  };
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  };
  await start();
  return {
    data,
    start,
    kill: () => end('SIGKILL'),
    close: () => end('SIGTERM'),
    list(): Row[] {
      const { stdout } = spawnSync(process.execPath, command('list', '--json', '--data', data), {
        encoding: 'utf8',
        maxBuffer: 2 ** 26,
      });
      return stdout
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Row);
    },
  };
}

/** The rows once all have ended, or after five minutes. */
async function settledRows(list: () => Row[], count: number): Promise<Row[]> {
  const limit = performance.now() + 300_000;
  for (;;) {
    const rows = list();
    const open = rows.filter(({ state }) => state !== 'done' && state !== 'failed');
    if ((rows.length >= count && open.length === 0) || performance.now() > limit) return rows;
    await sleep(1000);
  }
}

async function compare(
  web: DicomWeb,
  series: readonly Sent[],
  rows: readonly Row[],
  what: string,
): Promise<Finding[]> {
  const faults: string[] = [];
  for (const sent of series) {
    const own = rows.filter((row) => row.series === sent.series);
    const states = own.map(({ state }) => state).join(',');
    const expected = sent.isBroken ? 'failed' : 'done';
    if (states !== expected)
      faults.push(`${sent.series} ended as ${states || 'nothing'}: ${own[0]?.reason?.message}`);
    if (sent.isBroken && !own[0]?.reason?.message.includes('missing'))
      faults.push(`${sent.series} has no such reason`);
    const found = (await web.searchSeries({ study: sent.study }))
      .map(({ modality }) => modality)
      .sort()
      .join(' ');
    const wanted = sent.isBroken ? 'MR' : 'MR SEG SR';
    if (found !== wanted) faults.push(`the study of ${sent.series} has ${found}`);
    for await (const { bytes } of web.retrieveStudy(sent.study)) {
      const { patient } = belongingOf(parseDicom(bytes)!);
      if (!JSON.stringify(patient).includes(`"${sent.patient}"`))
        faults.push(`${sent.study} has an object of another patient`);
    }
  }
  const done = rows.filter(({ state }) => state === 'done').length;
  return [
    finding(
      faults.length === 0,
      what,
      faults.slice(0, 10).join('; ') || `${done} with one result, the others with the reason, ${load()}`,
    ),
  ];
}

function leftovers(folder: string, serverData: string, gateway: { data: string }): Finding[] {
  const work = readdirSync(join(gateway.data, 'gateway', 'work'));
  const database = new DatabaseSync(join(serverData, 'server.db'), { readOnly: true });
  const { count } = database.prepare('SELECT count(*) AS count FROM job').get() as { count: number };
  database.close();
  const audit = spawnSync(
    process.execPath,
    [...ownNodeOptions, bin, 'audit', 'verify', '--data', gateway.data, '--log', 'gateway'],
    { encoding: 'utf8', cwd: folder },
  );
  return [
    finding(work.length === 0, 'originals left', String(work.length)),
    finding(count === 0, 'jobs left at the service', String(count)),
    finding(
      audit.status === 0,
      'the audit log verifies',
      (audit.stdout + audit.stderr).trim().split('\n')[0],
    ),
  ];
}
