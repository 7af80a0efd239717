import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDicomWeb, type DicomWeb, requireStored } from '@tomaat/client';
import { parseDicom, readVolume, sourceFromBytes } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { writeApp } from '../packages/server/test/app-fixture.ts';
import { bin, endsWithTest, tomaat } from '../packages/server/test/cli-fixture.ts';
import { type RecordingProxy, startRecordingProxy } from '../packages/server/test/recording-proxy.ts';
import { startTestServer, type TestServer } from '../packages/server/test/test-server.ts';
import { readText, repository } from './documents.ts';
import { freePort, type Orthanc, startOrthanc } from './orthanc.ts';
import { findDciodvfy, findDcmtk, findOrthanc, findPython } from './programs.ts';
import { dataFolder } from './real-data.ts';

/*
 * The whole way with real programs: a scanner sends to Orthanc, whose hook tells the gateway; a second archive is searched. One service
 * elsewhere computes both, and segmentations and reports lie in the studies that they are of.
 */

const data = dataFolder();
const program = findOrthanc();
const python = findPython('pydicom', 'highdicom');
const dciodvfy = findDciodvfy();
const isHere = Boolean(data && program && python && dciodvfy && findDcmtk());

const level = 60;
const password = 'a password';
const cases = { door: 'ct_oblique', archive: 'mr_hfdl_sagittal' } as const;
type Archive = keyof typeof cases;
const archives = Object.keys(cases) as Archive[];

describe.skipIf(!isHere)('from the scanner to the PACS', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tomaat-chain-'));
  const inFolder = (...names: string[]) => join(folder, ...names);
  const orthancs: Partial<Record<Archive, Orthanc>> = {};
  let server: TestServer;
  let service: RecordingProxy;
  let gateway: ReturnType<typeof startGateway>;
  let dicomPort: number;

  /** The images that are sent: real ones, of a study of today, because older ones are not searched. */
  const pathsOf = (archive: Archive) =>
    readdirSync(inFolder('images', archive))
      .sort()
      .map((file) => inFolder('images', archive, file));
  function writeImages(archive: Archive): void {
    mkdirSync(inFolder('images', archive), { recursive: true });
    const script = `import datetime, os, pydicom, sys
for name in os.listdir(sys.argv[1]):
    image = pydicom.dcmread(os.path.join(sys.argv[1], name), force=True)
    image.StudyDate = datetime.date.today().strftime("%Y%m%d")
    image.save_as(os.path.join(sys.argv[2], name))`;
    const folders = [join(data!, 'dicom_cases', cases[archive]), inFolder('images', archive)];
    execFileSync(python!, ['-c', script, ...folders]);
  }
  const headers = { authorization: `Basic ${Buffer.from(`gateway:${password}`).toString('base64')}` };
  const webOf = (archive: Archive): DicomWeb =>
    createDicomWeb({ url: orthancs[archive]!.dicomWeb, ...(archive === 'door' && { headers }) });

  function startGateway(port: number) {
    const args = [
      'gateway',
      '--config',
      inFolder('gateway.yaml'),
      '--data',
      inFolder('data'),
      '--port',
      `${port}`,
    ];
    const child = spawn(process.execPath, [...endsWithTest, bin, ...args], {
      stdio: ['pipe', 'ignore', 'pipe'],
      env: { ...process.env, NODE_OPTIONS: '' },
    });
    let log = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      log += text;
    });
    const ended = once(child, 'close');
    return {
      log: () => log,
      async stop() {
        child.kill('SIGTERM');
        await ended;
      },
    };
  }

  async function rows(): Promise<{ state: string; rule: string; reason?: { message: string } }[]> {
    const { stdout } = await tomaat(['gateway', 'list', '--json', '--data', inFolder('data')]);
    return stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line));
  }

  /** All instances of the study of an archive, by modality. */
  async function stored(archive: Archive): Promise<Map<string, Uint8Array[]>> {
    const web = webOf(archive);
    const found = new Map<string, Uint8Array[]>();
    const [study, ...others] = await web.searchStudies();
    expect(others).toEqual([]);
    for (const { modality = '', seriesInstanceUid } of await web.searchSeries({
      study: study.studyInstanceUid,
    })) {
      const files = found.get(modality) ?? [];
      for await (const { bytes } of web.retrieveSeries(study.studyInstanceUid, seriesInstanceUid))
        files.push(bytes);
      found.set(modality, files);
    }
    return found;
  }

  const dcmsend = () => {
    const sent = spawnSync(
      'dcmsend',
      ['-aet', 'SOMATOM', '-aec', 'TOMAAT', '+sd', '127.0.0.1', `${dicomPort}`, inFolder('images', 'door')],
      { encoding: 'utf8' },
    );
    expect(sent.status, sent.stdout + sent.stderr).toBe(0);
  };

  beforeAll(async () => {
    const app = await writeApp(folder, 'bright', {
      infer: `return { segmentation: { ...volume, voxels: Uint8Array.from(volume.voxels, (v) => Number(v > ${level})) } };`,
      outputs: {
        segmentation: { type: 'LabelVolume', label: 'Bright' },
        volumes: { type: 'Measurements', from: 'segmentation' },
      },
      labels: [{ value: 1, name: 'bright', code: { scheme: 'SCT', value: '39607008', meaning: 'Lung' } }],
    });
    for (const archive of archives) writeImages(archive);
    server = await startTestServer([app]);
    service = await startRecordingProxy(server.url);
    const port = await freePort();
    dicomPort = await freePort();
    const configuration = (name: string): Record<string, object> =>
      JSON.parse(readText(`deploy/orthanc/${name}`).replaceAll(/^ *\/\/.*$/gm, ''));
    const { HttpPort, StorageDirectory, IndexDirectory, ...own } = configuration('orthanc.json');
    const hook = new URL((own.Tomaat as { Hook: string }).Hook);
    hook.port = `${port}`;
    const { scanner } = own.DicomModalities as Record<string, object>;
    orthancs.door = await startOrthanc(program!, {
      ...own,
      ...configuration('credentials.json'),
      RegisteredUsers: { gateway: password },
      LuaScripts: [join(repository, 'deploy/orthanc/tomaat.lua')],
      StableAge: 1,
      DicomPort: dicomPort,
      DicomModalities: { scanner: { ...scanner, Host: '127.0.0.1' } },
      Tomaat: { Hook: hook.href, FirstPauseSeconds: 1, SendResultsTo: '' },
    });
    orthancs.archive = await startOrthanc(program!);
    writeFileSync(inFolder('orthanc.password'), password, { mode: 0o600 });
    const { TomaatHookSecret } = configuration('credentials.json');
    writeFileSync(inFolder('hook.secret'), String(TomaatHookSecret), { mode: 0o600 });
    writeFileSync(
      inFolder('gateway.yaml'),
      `schemaVersion: 1
sources:
  door: { type: orthanc, url: ${orthancs.door.dicomWeb}, user: gateway, passwordFile: orthanc.password, hookSecretFile: hook.secret, poll: 1s, quiet: 1s, since: 2d }
  archive: { type: dicomweb, url: ${orthancs.archive.dicomWeb}, poll: 1s, quiet: 1s, since: 2d }
services:
  bright: { url: ${service.url}, service: bright }
destinations:
  door: { type: source, source: door }
  archive: { type: source, source: archive }
rules:
  - { id: from-scanner, when: { sources: door, modality: CT }, service: bright, destinations: [door], results: [seg.dcm, sr.dcm] }
  - { id: from-archive, when: { sources: archive, modality: MR }, service: bright, destinations: [archive], results: [seg.dcm, sr.dcm] }
`,
    );
    const checked = await tomaat(['gateway', 'check', '--config', inFolder('gateway.yaml'), '--connect']);
    expect(checked.code, checked.stdout + checked.stderr).toBe(0);
    gateway = startGateway(port);
  }, 60_000);
  afterAll(async () => {
    await gateway?.stop();
    for (const name of archives) await orthancs[name]?.[Symbol.asyncDispose]();
    await service?.[Symbol.asyncDispose]();
    await server?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  }, 60_000);

  it('stores a segmentation and a report for each series, and nothing in the other archive', async () => {
    dcmsend();
    const own = pathsOf('archive').map((path) => new Uint8Array(readFileSync(path)));
    requireStored(await webOf('archive').store(own));
    const states = async () => (await rows()).map(({ rule, state }) => `${rule} ${state}`).sort();
    await expect
      .poll(states, { timeout: 60_000, interval: 500, message: gateway.log() })
      .toEqual(['from-archive done', 'from-scanner done']);
    for (const archive of archives) {
      const files = await stored(archive);
      const image = cases[archive].slice(0, 2).toUpperCase();
      expect([...files].map(([modality, all]) => [modality, all.length]).sort()).toEqual(
        [
          [image, pathsOf(archive).length],
          ['SEG', 1],
          ['SR', 1],
        ].sort(),
      );
      mkdirSync(inFolder(archive));
      for (const name of ['SEG', 'SR']) writeFileSync(inFolder(archive, `${name}.dcm`), files.get(name)![0]);
    }
  }, 120_000);

  it('places them right, for pydicom and highdicom, with the right patient', async () => {
    const described: object[] = [];
    for (const archive of archives) {
      const truth = JSON.parse(
        readFileSync(join(data!, 'dicom_cases', `${cases[archive]}_truth.json`), 'utf8'),
      );
      const nifti = new Uint8Array(
        readFileSync(join(data!, 'dicom_cases', `${cases[archive]}_truth.nii.gz`)),
      );
      const { volume } = await readVolume([sourceFromBytes('truth.nii.gz', nifti)], nodePlatform);
      const labels = inFolder(archive, 'labels.raw');
      writeFileSync(
        labels,
        Uint8Array.from(volume.voxels as Float32Array, (value) => Number(value > level)),
      );
      described.push({
        segmentation: inFolder(archive, 'SEG.dcm'),
        report: inFolder(archive, 'SR.dcm'),
        series: pathsOf(archive),
        size: truth.size,
        affine: truth.affineRas.flat(),
        labels,
        values: { 1: 1 },
      });
    }
    writeFileSync(inFolder('cases.json'), JSON.stringify(described));
    const check = (script: string) =>
      JSON.parse(
        execFileSync(python!, [join(repository, 'test', script), inFolder('cases.json')], {
          encoding: 'utf8',
        }),
      );
    for (const found of check('check-segmentation.py'))
      expect(found).toMatchObject({ wrong: 0, highdicom: 0, distance: 0, references: true, differs: [] });
    for (const found of check('check-measurement-report.py')) {
      expect(found).toMatchObject({ tracked: true, refers: true, sourceSeries: true, differs: [] });
      expect(found.groups).toHaveLength(1);
      expect(found.groups[0].millilitres).toBeCloseTo(found.millilitres[0], 4);
    }
    for (const archive of archives) {
      const [first] = pathsOf(archive);
      for (const name of ['SEG.dcm', 'SR.dcm']) {
        const read = (path: string) =>
          execFileSync(
            python!,
            [
              '-c',
              'import pydicom, sys\nd = pydicom.dcmread(sys.argv[1], force=True)\nprint([str(d.get(k)) for k in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber")])',
              path,
            ],
            { encoding: 'utf8' },
          );
        expect(read(inFolder(archive, name))).toBe(read(first));
        const { stdout, stderr } = spawnSync(dciodvfy!, [inFolder(archive, name)], { encoding: 'utf8' });
        expect(`${stdout}${stderr}`.split('\n').filter((line) => line.startsWith('Error'))).toEqual([]);
      }
    }
  }, 60_000);

  it('sends nothing that names a patient or a study', () => {
    const sent = service.sent().toString('latin1');
    const names = new Set<string>();
    for (const path of archives.flatMap((archive) => pathsOf(archive).slice(0, 1))) {
      const text = execFileSync(
        python!,
        [
          '-c',
          'import json, pydicom, sys\nd = pydicom.dcmread(sys.argv[1], force=True)\nkeys = "PatientID PatientName PatientBirthDate AccessionNumber StudyInstanceUID SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID InstitutionName InstitutionAddress ReferringPhysicianName StationName DeviceSerialNumber StudyID OperatorsName RequestingPhysician ProtocolName".split()\nprint(json.dumps([str(d.get(k, "")) for k in keys]))',
          path,
        ],
        { encoding: 'utf8' },
      );
      for (const value of JSON.parse(text) as string[]) if (value.length > 4) names.add(value);
    }
    expect(names.size).toBeGreaterThan(8);
    expect([...names].filter((name) => sent.includes(name))).toEqual([]);
  });

  it('changes nothing when the same images are sent again', async () => {
    const before = await stored('door');
    const jobs = service.requests.filter(({ path }) => path.endsWith('/predictions')).length;
    for (let i = 0; i < 2; i++) dcmsend();
    // The searches after it, of which there is one a second, and Orthanc's second of quiet.
    const searched = Date.now() + 5000;
    await expect.poll(() => Date.now() > searched, { timeout: 10_000 }).toBe(true);
    expect((await rows()).map(({ state }) => state)).toEqual(['done', 'done']);
    const after = await stored('door');
    for (const name of ['SEG', 'SR']) expect(after.get(name)).toEqual(before.get(name));
    expect(service.requests.filter(({ path }) => path.endsWith('/predictions'))).toHaveLength(jobs);
    expect(parseDicom(after.get('SEG')![0])).toBeDefined();
  }, 30_000);
});
