import { execFile } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  collectBytes,
  parseDicom,
  readSegmentationFile,
  readVolume,
  sourceFromBytes,
  writeVolume,
} from '@tomaat/core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { dataFolder } from '../../../test/real-data.ts';
import { text } from '../../core/src/dicom/dataset.ts';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { zipOf } from '../../core/test/zip-files.ts';
import { nodePlatform } from '../src/node-platform.ts';
import { temporaryFolder, tomaat } from './cli-fixture.ts';
import { type RecordingProxy, startRecordingProxy } from './recording-proxy.ts';
import { type Serving, startServing } from './serving.ts';

/* DICOM series from the command line to a real server and back; what leaves is recorded on the way. */

const data = dataFolder();
const python = data && findPython('pydicom', 'highdicom');
const root = fileURLToPath(new URL('../../..', import.meta.url));
const app = join(root, 'apps/threshold');
const cases = join(data ?? '', 'dicom_cases');

const servers = temporaryFolder();
let serving: Serving;
let proxy: RecordingProxy;
let folder: ReturnType<typeof temporaryFolder>;
/** A user without any key yet. */
let env: Record<string, string>;

beforeAll(async () => {
  // Others reach it by another name: clients de-identify what they send.
  const reached = ['--allow-host', 'scans.example'];
  serving = await startServing(['serve', app, '--data', join(servers.path, 'data'), ...reached]);
}, 60_000);
afterAll(async () => {
  await serving.stop();
  servers.remove();
});
beforeEach(async () => {
  folder = temporaryFolder();
  env = { XDG_DATA_HOME: join(folder.path, 'user') };
  proxy = await startRecordingProxy(serving.addresses.server);
});
afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  folder.remove();
});

const predict = (...args: string[]) => tomaat(['predict', proxy.url, ...args], { env });
const posts = () =>
  proxy.requests.filter(({ method, path }) => method === 'POST' && /predictions/.test(path));
const path = (name: string) => join(folder.path, name);

/** Files of a series of 16-bit slices 2 mm apart; others by their number. */
function writeSeries(name: string, slices: number, more: Parameters<typeof sliceElements>[0] = {}): string {
  mkdirSync(path(name), { recursive: true });
  for (let i = 0; i < slices; i++) {
    const position = [0, 0, 2 * i];
    const slice = { orientation: [1, 0, 0, 0, 1, 0], position, instance: i + 1, ...more };
    writeFileSync(join(path(name), `i${String(i).padStart(3, '0')}`), dicomFile(sliceElements(slice)));
  }
  return path(name);
}
const seriesNumber = (number: number) => ({ more: { 2097169: ['IS', String(number)] as const } });

describe('tomaat predict with DICOM', () => {
  it('walks nested folders but not links out, and names omitted files', async () => {
    const series = writeSeries('series', 4);
    const export_ = path('export');
    mkdirSync(join(export_, 'IM0001/IM0002'), { recursive: true });
    for (const [i, name] of readdirSync(series).entries())
      copyFileSync(join(series, name), join(export_, i < 2 ? `IM0001/${name}` : `IM0001/IM0002/${name}`));
    writeFileSync(join(export_, 'notes.txt'), 'notes');
    writeFileSync(join(export_, '.hidden'), 'hidden');
    writeFileSync(join(export_, 'old.zip'), 'PK');
    symlinkSync(join(series, 'i000'), join(export_, 'out'));
    symlinkSync(series, join(export_, 'folder'));
    symlinkSync(join(export_, 'IM0001/i000'), join(export_, 'within'));
    const { code, stdout, stderr } = await predict('--volume', export_);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stdout.split('\n')[0]).toBe(path('export_segmentation.seg.dcm'));
    expect(stderr.split('\n').filter((line) => line.startsWith('Left out'))).toEqual([
      'Left out: folder, out (is a link out of the folder)',
      'Left out: old.zip (is an archive: give it to --volume by itself)',
      'Left out: notes.txt (is not a DICOM file)',
      'Left out: within (is a copy of another file)',
    ]);
    const { labelMap } = readSegmentationFile(readFileSync(path('export_segmentation.seg.dcm')));
    expect(labelMap.size).toEqual([4, 3, 4]);
  });

  it('lists several series without sending, and accepts a number, UID or all', async () => {
    const series = path('two');
    mkdirSync(series);
    for (const [name, number] of [
      ['a', 3],
      ['b', 12],
    ] as const) {
      writeSeries(name, number, { series: name === 'a' ? '9' : '8', ...seriesNumber(number) });
      for (const file of readdirSync(path(name)))
        copyFileSync(join(path(name), file), join(series, name + file));
    }
    const several = await predict('--volume', series);
    expect(several.code).toBe(2);
    expect(several.stderr).toContain(
      `${series} holds 2 DICOM series. Choose one, or all of them, with --series NUMBER, --series UID or --series all:`,
    );
    expect(several.stderr).toMatch(/^ {2}NUMBER {2}MODALITY {2}IMAGES {2}SIZE {8}DESCRIPTION {2}UID$/m);
    expect(several.stderr).toMatch(/^ {2}3 {7}MR {8}3 {7}4 × 3 × 3 {3}- {12}1\.2\.3\.9$/m);
    expect(several.stderr).toMatch(/^ {2}12 {6}MR {8}12 {6}4 × 3 × 12 {2}- {12}1\.2\.3\.8$/m);
    const missing = await predict('--volume', series, '--series', '4');
    expect(missing).toMatchObject({ code: 2, stderr: expect.stringContaining('has no series 4') });
    expect(posts()).toEqual([]);

    for (const choice of ['12', '1.2.3.8']) {
      const { code, stdout } = await predict('--volume', series, '--series', choice, '--json', '--force');
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({
        input: series,
        series: '1.2.3.8',
        files: [{ file: path('two_segmentation.seg.dcm'), format: 'seg.dcm' }],
      });
    }
    const all = await predict('--volume', series, '--series', 'all', '-q');
    expect(all).toMatchObject({ code: 0, stderr: '' });
    expect(all.stdout.trim().split('\n').sort()).toEqual([
      path('two_series12_segmentation.seg.dcm'),
      path('two_series3_segmentation.seg.dcm'),
    ]);
    expect(posts()).toHaveLength(4);
  });

  it('asks which is meant where volumes and DICOM lie side by side', async () => {
    const mixed = writeSeries('mixed', 3);
    const volume = {
      voxels: Float32Array.of(1, 2, 3, 4, 5, 6),
      size: [1, 2, 3] as const,
      components: 1,
      affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
    };
    writeFileSync(join(mixed, 'a.nii.gz'), await collectBytes(writeVolume(volume, 'nii.gz', nodePlatform)));
    const both = await predict('--volume', mixed);
    expect(both.code).toBe(2);
    expect(both.stderr).toContain(
      'holds both volume files (1) and DICOM images. Choose the DICOM series with --series NUMBER, --series UID or --series all; for a volume file, name it with --volume FILE.',
    );
    expect((await predict('--volume', mixed, '--series', '1.2.3.9')).code).toBe(0);
    expect((await predict('--volume', join(mixed, 'a.nii.gz'))).code).toBe(0);
    const wrong = await predict('--volume', join(mixed, 'a.nii.gz'), '--series', '1');
    expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining('holds no DICOM image') });
    expect(posts().map(({ body }) => /filename="([^"]+)"/.exec(body.toString('latin1'))?.[1])).toEqual([
      'series.zip',
      'volume.nii.gz',
    ]);
  });

  it('explains folders without a volume, series with a gap and inapplicable flags', async () => {
    mkdirSync(path('empty'));
    const gap = writeSeries('gap', 6);
    rmSync(join(gap, 'i003'));
    for (const [args, message] of [
      [['--volume', path('empty')], /no volume in .*empty .*and no DICOM image/],
      [['--volume', gap], /gap of 4 mm between slice 3 at 4 mm and slice 4 at 8 mm/],
      [
        ['--volume', writeSeries('good', 3), '--keep-text'],
        /DICOM files are sent unchanged with --keep-identity/,
      ],
    ] as const) {
      const { code, stderr } = await predict(...args);
      expect(code).toBe(2);
      expect(stderr).toMatch(message);
    }
    expect(posts()).toEqual([]);
  });

  it('never overwrites a result without --force, and refuses before sending anything', async () => {
    const series = writeSeries('series', 3);
    writeFileSync(path('series_segmentation.seg.dcm'), 'mine');
    const { code, stderr } = await predict('--volume', series);
    expect({ code, stderr }).toMatchObject({ code: 2, stderr: expect.stringContaining('already exists') });
    expect(posts()).toEqual([]);
    expect(readFileSync(path('series_segmentation.seg.dcm'), 'utf8')).toBe('mine');
    expect((await predict('--volume', series, '--force')).code).toBe(0);
    expect(readFileSync(path('series_segmentation.seg.dcm')).subarray(128, 132).toString()).toBe('DICM');
  });

  it('makes one owner-only key, and sends identical bytes again', async () => {
    const series = writeSeries('series', 3);
    for (const force of ['', '--force']) {
      const run = await predict('--volume', series, ...(force ? [force] : []));
      expect(run).toMatchObject({ code: 0 });
    }
    const key = join(env.XDG_DATA_HOME, 'tomaat/uid.key');
    expect(statSync(key).mode & 0o777).toBe(0o600);
    expect(readFileSync(key, 'utf8')).toMatch(/^[\w-]{43}\n$/);
    const [first, second] = posts().map(({ body }) => zipIn(body));
    expect(first.length).toBeGreaterThan(500);
    expect(second.equals(first)).toBe(true);
    // Another user has another key.
    rmSync(key);
    await predict('--volume', series, '--force');
    expect(zipIn(posts()[2].body).equals(first)).toBe(false);
  });

  it('de-identifies a series of --input, and builds its result, as that of --volume', async () => {
    const series = writeSeries('series', 3, { more: { 1048592: ['PN', 'Canary^Name'] } });
    const byInput = await predict('--input', `volume=${series}`, '-o', path('a.seg.dcm'));
    expect(byInput).toMatchObject({ code: 0, stderr: expect.stringContaining('Removed or replaced') });
    expect(posts().length).toBe(1);
    expect(proxy.requests.some(({ body }) => body.includes('Canary'))).toBe(false);
    const file = parseDicom(readFileSync(path('a.seg.dcm')))!;
    expect(text(file.dataset, 0x00100010)).toBe('Canary^Name');
    const twice = await predict('--input', `volume=${series}`, '--input', `volume=${series}`);
    expect(twice).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--input volume is given twice'),
    });
    const empty = path('empty');
    mkdirSync(empty);
    const nothing = await predict('--input', `volume=${empty}`);
    expect(nothing).toMatchObject({ code: 2, stderr: expect.stringContaining('holds no DICOM image') });
  });

  it('sends a segmentation only with --keep-identity, and takes it as a label map', async () => {
    const series = writeSeries('series', 3);
    expect(await predict('--volume', series, '-o', path('a.seg.dcm'))).toMatchObject({ code: 0 });
    const before = posts().length;
    for (const flag of [
      ['--volume', path('a.seg.dcm')],
      ['--input', `volume=${path('a.seg.dcm')}`],
    ]) {
      const refused = await predict(...flag);
      expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('names the patient') });
    }
    expect(posts().length).toBe(before);
    const target = path('again.nii.gz');
    const kept = await predict('--volume', path('a.seg.dcm'), '--keep-identity', '-o', target);
    expect(kept).toMatchObject({ code: 0 });
    const { volume } = await readVolume([sourceFromBytes('x.nii.gz', readFileSync(target))], nodePlatform);
    expect([...volume.size]).toEqual([4, 3, 3]);
    const local = await tomaat(['run', app, '--volume', path('a.seg.dcm'), '-o', path('local.nii.gz')], {
      env,
    });
    expect(local).toMatchObject({ code: 0 });
    expect(readFileSync(path('local.nii.gz')).equals(readFileSync(target))).toBe(true);
  });

  it('sends the voxels alone to a server that speaks only TOMAAT v1', async () => {
    const series = writeSeries('series', 3, { more: { 1048592: ['PN', 'Canary^Name'] } });
    await using old = await startRecordingProxy(
      serving.addresses.server,
      () => undefined,
      (path) => path.startsWith('/api'),
    );
    const run = (...args: string[]) =>
      tomaat(['predict', `${old.url}/predict`, '--volume', series, ...args], { env });
    const refused = await run('--format', 'seg.dcm');
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('gives no seg.dcm') });
    const { code, stdout, stderr } = await run();
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const target = path('series_segmentation.nii.gz');
    expect(stdout.split('\n')[0]).toBe(target);
    const { volume } = await readVolume([sourceFromBytes('x.nii.gz', readFileSync(target))], nodePlatform);
    expect(volume.size).toEqual([4, 3, 3]);
    const sent = old.requests.find(({ path }) => path === '/predict')!.body.toString('latin1');
    const start = sent.indexOf('name="volume"\r\n\r\n') + 'name="volume"\r\n\r\n'.length;
    const field = sent.slice(start, sent.indexOf('\r\n--', start));
    const mha = Buffer.from(field.replace(/\s/g, ''), 'base64').toString('latin1');
    expect(mha).toContain('ElementType');
    expect(mha).not.toContain('Canary');
  });

  it('continues with the same bytes after the connection broke', async () => {
    // 36 slices of 512 × 512: 18 MB, more than goes in one request.
    const values = Array.from({ length: 512 * 512 }, (_, i) => (i * 7) % 4096);
    const series = writeSeries('large', 36, { rows: 512, columns: 512, values });
    let cuts = 0;
    await using cutting = await startRecordingProxy(serving.addresses.server, ({ method }) =>
      method === 'PATCH' && cuts++ === 0 ? 5_000_000 : undefined,
    );
    const { code, stderr } = await tomaat(['predict', cutting.url, '--volume', series], { env });
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const patches = cutting.requests.filter(({ method }) => method === 'PATCH');
    const offsets = patches.map(({ headers }) => Number(headers['upload-offset']));
    const begun = cutting.requests.find(({ method, path }) => method === 'POST' && path === '/api/uploads')!;
    const total = Number(begun.headers['upload-length']);
    expect(total).toBeGreaterThan(36 * 512 * 512 * 2);
    expect(offsets[0]).toBe(0);
    expect(patches[0].body.length).toBeGreaterThanOrEqual(5_000_000);
    expect(patches[0].body.length).toBeLessThan(16 * 2 ** 20);
    expect(patches.length).toBeGreaterThan(2);
    // Each request begins where the server was, which may be before what was sent of the broken one.
    const whole = Buffer.alloc(total);
    for (const [i, { body }] of patches.entries()) {
      const overlap = i === 0 ? 0 : Math.max(0, offsets[i - 1] + patches[i - 1].body.length - offsets[i]);
      expect(body.subarray(0, overlap).equals(whole.subarray(offsets[i], offsets[i] + overlap))).toBe(true);
      body.copy(whole, offsets[i]);
    }
    expect(whole.subarray(0, 4).toString('latin1')).toBe('PK\x03\x04');
    expect(whole.subarray(total - 22, total - 18).toString('latin1')).toBe('PK\x05\x06');
    const { labelMap } = readSegmentationFile(readFileSync(path('large_segmentation.seg.dcm')));
    expect(labelMap.size).toEqual([512, 512, 36]);
  }, 60_000);
});

/** The archive in a form. */
function zipIn(body: Buffer): Buffer {
  const start = body.indexOf('PK\x03\x04', 0, 'latin1');
  const end = body.lastIndexOf('PK\x05\x06', undefined, 'latin1') + 22;
  return body.subarray(start, end);
}

describe.skipIf(!data)('tomaat predict with real DICOM series', () => {
  it('leaves out localizer, captures, directory and text, each by name', async () => {
    const args = ['--volume', join(cases, 'ct_folder_with_surview'), '-o', `${path('out')}/`];
    const { code, stdout, stderr } = await predict(...args);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stdout.split('\n')[0]).toBe(path('out/ct_folder_with_surview_segmentation.seg.dcm'));
    expect(stderr).toContain('Left out: DIRFILE (is a DICOMDIR, the table of contents of a medium)');
    expect(stderr).toContain('Left out: README.txt (is not a DICOM file)');
    expect(stderr).toContain('Left out: ref_I10, ref_I20 (is a secondary capture)');
    expect(stderr).toContain('Left out: surview (is a localizer (ImageType LOCALIZER))');
    expect(stderr).toMatch(/before sending.*: 3 of the patient, .* 5 identifiers, 6 dates and times/);
  });

  it.each(['ct_oblique', 'mr9_name_japanese', 'mr9_enhanced_shuffled', 'pet_bqml_suv'])(
    'sends nothing of whose scan %s is',
    async (name) => {
      const texts = identifyingTexts(join(cases, name));
      const opened = path('John_Doe');
      mkdirSync(opened);
      for (const [i, file] of readdirSync(join(cases, name)).entries())
        copyFileSync(join(cases, name, file), join(opened, `doe-john-${i}.dcm`));
      texts.push(Buffer.from('John_Doe'), Buffer.from('doe-john'));
      const { code, stderr } = await predict('--volume', opened, '--keep-patient-characteristics');
      expect({ code, stderr }).toMatchObject({ code: 0 });
      const sent = proxy.sent();
      expect(texts.filter((text) => sent.includes(text)).map(String)).toEqual([]);
      // The search finds them where they are sent.
      await predict('--volume', opened, '--keep-identity', '--force');
      const all = proxy.sent();
      expect(texts.filter((text) => all.includes(text)).length).toBeGreaterThan(5);
    },
  );

  it('takes what the server built where it was sent the originals', async () => {
    const volume = join(cases, 'ct_oblique');
    const { code, stderr } = await predict('--volume', volume, '--keep-identity', '-o', `${path('')}`);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stderr).toContain('sent with the patient’s identity');
    const fetched = proxy.requests.filter(({ path }) => /outputs\/segmentation/.test(path));
    expect(fetched.map(({ path }) => path.includes('format'))).toEqual([false]);
    expect(patientOf(path('ct_oblique_segmentation.seg.dcm'))).toEqual(
      patientOf(join(volume, readdirSync(volume)[0])),
    );
  });

  it.each(['nii.gz', 'labelmap.dcm'])('writes %s where it is asked for', async (format) => {
    const out = path(`out.${format}`);
    const { code, stderr } = await predict('--volume', join(cases, 'ct_hfdr'), '-o', out);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    const bytes = readFileSync(out);
    const { size } =
      format === 'nii.gz'
        ? (await readVolume([sourceFromBytes('x.nii.gz', bytes)], nodePlatform)).volume
        : readSegmentationFile(bytes).labelMap;
    expect(size).toEqual([192, 192, 10]);
  });
});

const names: readonly string[] = ['ct_oblique', 'ct_hfdr', 'mr9_enhanced_shuffled', 'mr9_nonsquare'];

describe.skipIf(!python)('a segmentation of the command line', () => {
  // One process of Python for all: its libraries take eight seconds to load.
  it('is where pydicom and highdicom expect it, voxel by voxel', async () => {
    const described = (await Promise.all(names.map(describeCase))).flat();
    writeFileSync(path('cases.json'), JSON.stringify(described));
    const script = join(root, 'test/check-segmentation.py');
    const { stdout } = await promisify(execFile)(python!, [script, path('cases.json')]);
    const found = JSON.parse(stdout) as object[];
    expect(found).toHaveLength(2 * (2 * names.length + 1));
    for (const [i, one] of found.entries()) {
      expect(one, described[i].segmentation).toMatchObject({
        wrong: 0,
        distance: 0,
        highdicom: 0,
        differs: [],
        references: true,
        names: { 1: 'bright' },
      });
    }
  }, 120_000);

  /** The segmentations of a series as a folder, an archive and a file, by both commands, with what they have to be. */
  async function describeCase(name: string): Promise<{ segmentation: string }[]> {
    const files = readdirSync(join(cases, name)).map((file) => join(cases, name, file));
    const own = (file: string) => path(`${name}-${file}`);
    const volumes: Record<string, string> = { folder: join(cases, name), zip: own('case.zip') };
    const entries = files.map((file) => ({ name: `a/${basename(file)}`, data: readFileSync(file) }));
    writeFileSync(own('case.zip'), zipOf(entries));
    if (files.length === 1) volumes.file = files[0];
    const [truth, label] = [join(cases, `${name}_truth.nii.gz`), own('truth.nii.gz')];
    expect((await tomaat(['run', app, '--volume', truth, '-o', label], { env })).code).toBe(0);
    const { volume } = await readVolume([sourceFromBytes('x.nii.gz', readFileSync(label))], nodePlatform);
    expect(new Set(volume.voxels as Uint8Array)).toEqual(new Set([0, 1]));
    writeFileSync(own('labels.raw'), volume.voxels as Uint8Array);
    const described: { segmentation: string }[] = [];
    for (const [kind, given] of Object.entries(volumes)) {
      for (const command of [
        ['predict', proxy.url],
        ['run', app],
      ]) {
        const out = own(`${kind}-${command[0]}.seg.dcm`);
        const { code, stderr } = await tomaat([...command, '--volume', given, '-o', out], { env });
        expect({ code, stderr }).toMatchObject({ code: 0 });
        const what = {
          segmentation: out,
          series: files,
          size: volume.size,
          affine: volume.affine,
          labels: own('labels.raw'),
          values: { 1: 1 },
        };
        described.push(what);
      }
    }
    return described;
  }
});

const tagsOfPatients = {
  PatientName: 0x00100010,
  PatientID: 0x00100020,
  PatientBirthDate: 0x00100030,
  StudyInstanceUID: 0x0020000d,
  SeriesInstanceUID: 0x0020000e,
  SOPInstanceUID: 0x00080018,
  FrameOfReferenceUID: 0x00200052,
  StudyDate: 0x00080020,
  SeriesDate: 0x00080021,
  AcquisitionDate: 0x00080022,
  InstitutionName: 0x00080080,
  StationName: 0x00081010,
  ReferringPhysicianName: 0x00080090,
  OperatorsName: 0x00081070,
  AccessionNumber: 0x00080050,
  StudyID: 0x00200010,
  StudyDescription: 0x00081030,
  DeviceSerialNumber: 0x00181000,
};

/** The values that tell whose scan it is, of 5 bytes or more, once each. */
function identifyingTexts(series: string): Buffer[] {
  const found = new Set<string>();
  for (const file of readdirSync(series)) {
    const { dataset } = parseDicom(readFileSync(join(series, file)))!;
    for (const tag of Object.values(tagsOfPatients)) {
      const element = dataset.get(tag);
      if (element?.kind !== 'value') continue;
      const text = Buffer.from(element.bytes)
        .toString('latin1')
        .replace(/[\0 ]+$/, '');
      if (text.length >= 5) found.add(text);
    }
  }
  return [...found].map((text) => Buffer.from(text, 'latin1'));
}

function patientOf(file: string): string[] {
  expect(existsSync(file)).toBe(true);
  const { dataset } = parseDicom(readFileSync(file))!;
  return [0x00100010, 0x00100020, 0x0020000d].map((tag) => {
    const element = dataset.get(tag);
    return element?.kind === 'value' ? Buffer.from(element.bytes).toString('latin1') : '';
  });
}
