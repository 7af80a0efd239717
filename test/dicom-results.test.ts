import { execFile } from 'node:child_process';
import {
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseDicom } from '../packages/core/src/dicom/parse.ts';
import { readSegmentation } from '../packages/core/src/dicom/read-segmentation.ts';
import {
  buildSegmentation,
  liesOnSource,
  type SegmentationOptions,
} from '../packages/core/src/dicom/segmentation.ts';
import type { SegmentationType } from '../packages/core/src/dicom/segmentation-identity.ts';
import { writeDicomFile } from '../packages/core/src/dicom/write-file.ts';
import { collectBytes, readVolume, sourceFromBytes } from '../packages/core/src/formats/volume-file.ts';
import type { Volume } from '../packages/core/src/volume.ts';
import { asymmetricLabels, sourceOf } from '../packages/core/test/dicom-source.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { findCornerstone, findDciodvfy, findPython } from './programs.ts';
import { dataFolder } from './real-data.ts';

/* Segmentations of real series, as the programs of others read them: pydicom, highdicom, OHIF's reader, and the validator dciodvfy. */

const run = promisify(execFile);
const data = dataFolder();
const python = data && findPython('pydicom', 'highdicom');
const dciodvfy = data && findDciodvfy();
const cornerstone = data && findCornerstone();
const checker = join(import.meta.dirname, 'check-segmentation.py');
const folder = mkdtempSync(join(tmpdir(), 'tomaat-dicom-results-'));
afterAll(() => rmSync(folder, { recursive: true }));

const series = [
  'dicom/prostate_t2_tra',
  'dicom/head_t1_enhanced',
  'dicom_cases/ct_oblique',
  'dicom_cases/ct_hfdr',
  'dicom_cases/ct_tilt_regular',
  'dicom_cases/mr9_enhanced_shuffled',
  'dicom_cases/mr9_name_japanese',
  'dicom_seg/23x38x3/image',
  'dicom_seg/24x38x3/image',
  'dicom_seg/23x38x3/multiframe',
];
const kinds: readonly { type: SegmentationType; compression?: 'none' | 'rle' }[] = [
  { type: 'BINARY' },
  { type: 'LABELMAP', compression: 'none' },
  { type: 'LABELMAP', compression: 'rle' },
];

const options: SegmentationOptions = {
  labels: [
    {
      value: 1,
      name: 'Prostate',
      color: '#e6194b',
      code: { scheme: 'SCT', value: '41216001', meaning: 'Prostate' },
    },
    {
      value: 3,
      name: 'Left lung',
      color: '#3cb44b',
      code: { scheme: 'SCT', value: '39607008', meaning: 'Lung' },
      category: { scheme: 'SCT', value: '123037004', meaning: 'Body structure' },
      modifier: { scheme: 'SCT', value: '7771000', meaning: 'Left' },
    },
    { value: 9, name: 'Never seen' },
  ],
  maker: { id: 'an-app', name: 'An app', version: '1.2.0' },
  description: 'Labels',
  role: 'labels',
  seed: 'a job',
};

interface Case {
  readonly labelMap: Volume;
  readonly file: string;
}

/** What check-segmentation.py says. */
interface Found {
  highdicom: number | string;
  [name: string]: unknown;
}

/** What read-segmentations.mjs says. */
interface FoundByOhif {
  wrong: number;
  labelled: number;
  error?: string;
  [name: string]: unknown;
}

const cases = new Map<string, Case>();
const foundByOhif = new Map<string, FoundByOhif>();
const found = new Map<string, Found>();
const nameOf = (name: string, { type, compression }: (typeof kinds)[number]) =>
  `${name} as ${type}${compression === undefined ? '' : ` (${compression})`}`;
const all = series.flatMap((name) => kinds.map((kind) => ({ name, kind, title: nameOf(name, kind) })));

const pathsOf = (name: string) =>
  readdirSync(join(data!, name))
    .map((file) => join(data!, name, file))
    .filter((path) => statSync(path).isFile());

beforeAll(async () => {
  if (!data) return;
  const described: object[] = [];
  for (const [i, { name, kind, title }] of all.entries()) {
    const paths = pathsOf(name);
    const { source, grid } = sourceOf(paths.map((path) => readFileSync(path)));
    const labelMap = asymmetricLabels(grid);
    const [file, labels] = [join(folder, `${i}.dcm`), join(folder, `${i}.raw`)];
    const object = await buildSegmentation(labelMap, source, { ...options, ...kind });
    writeFileSync(file, await collectBytes(writeDicomFile(object)));
    writeFileSync(labels, labelMap.voxels as Uint8Array);
    const values = kind.type === 'BINARY' ? { 1: 1, 2: 3, 3: 9, 4: 2 } : { 1: 1, 2: 2, 3: 3, 9: 9 };
    cases.set(title, { labelMap, file });
    described.push({ segmentation: file, series: paths, ...grid, labels, values });
  }
  writeFileSync(join(folder, 'cases.json'), JSON.stringify(described));
  if (cornerstone) {
    const { stdout } = await readWithOhif(cornerstone);
    for (const [i, one] of (JSON.parse(stdout) as FoundByOhif[]).entries())
      foundByOhif.set(all[i].title, one);
  }
  if (!python) return;
  const { stdout } = await run(python, [checker, join(folder, 'cases.json')], { maxBuffer: 2 ** 24 });
  for (const [i, one] of (JSON.parse(stdout) as Found[]).entries()) found.set(all[i].title, one);
}, 300_000);

/** The reader is made for browsers: a bundle of it runs in Node. */
async function readWithOhif({ esbuild, packages }: NonNullable<ReturnType<typeof findCornerstone>>) {
  const [script, bundle] = [join(folder, 'read-segmentations.mjs'), join(folder, 'bundle.mjs')];
  copyFileSync(join(import.meta.dirname, 'cornerstone/read-segmentations.mjs'), script);
  const require =
    'import { createRequire as requireOf } from "node:module"; const require = requireOf(import.meta.url);';
  const options = ['--bundle', '--platform=node', '--format=esm', '--main-fields=module,main'];
  await run(
    esbuild,
    [script, ...options, '--external:@icr/*', `--banner:js=${require}`, `--outfile=${bundle}`],
    { env: { ...process.env, NODE_PATH: packages } },
  );
  return run(process.execPath, [bundle, join(folder, 'cases.json')], { maxBuffer: 2 ** 24 });
}

describe.skipIf(!cornerstone)('buildSegmentation() of a real series', () => {
  it.each(all)('of $title is read by OHIF voxel by voxel', ({ name, kind, title }) => {
    const { wrong, labelled, error, ...rest } = foundByOhif.get(title)!;
    // Its parser refuses the series itself, too.
    if (name.endsWith('japanese')) {
      expect(error).toBe('Using multiple character sets is not supported: ,ISO 2022 IR 87');
      return;
    }
    expect({ wrong, error }).toEqual({ wrong: 0 });
    const { voxels } = cases.get(title)!.labelMap;
    expect(labelled).toBe((voxels as Uint8Array).filter((value) => value !== 0).length);
    expect(rest).toMatchObject({ maps: 1, overlapping: false });
    expect(rest.names).toEqual(
      kind.type === 'BINARY'
        ? ['Prostate', 'Left lung', 'Never seen', 'label 2']
        : ['Background', 'Prostate', 'label 2', 'Left lung', 'Never seen'],
    );
  });
});

describe.skipIf(!python)('buildSegmentation() of a real series', () => {
  it.each(all)('of $title is read by pydicom and highdicom voxel by voxel', ({ name, kind, title }) => {
    const { highdicom, ...rest } = found.get(title)!;
    expect(rest).toMatchObject({ wrong: 0, distance: 0, differs: [], references: true });
    // highdicom has no volumes whose slices do not lie straight above each other.
    expect(highdicom).toBe(
      name.includes('tilt') ? 'Frame positions do not form a regularly-spaced volume.' : 0,
    );
    const isBinary = kind.type === 'BINARY';
    expect(rest.names).toEqual({
      ...(isBinary ? {} : { 0: 'Background' }),
      1: 'Prostate',
      [isBinary ? 2 : 3]: 'Left lung',
      [isBinary ? 3 : 9]: 'Never seen',
      [isBinary ? 4 : 2]: 'label 2',
    });
    expect(rest.types).toMatchObject({
      1: ['SCT', '41216001', 'Prostate'],
      [isBinary ? 4 : 2]: ['SCT', '85756007', 'Tissue'],
    });
    expect(rest.categories).toMatchObject({
      1: ['SCT', '123037004', 'Anatomical Structure'],
      [isBinary ? 2 : 3]: ['SCT', '123037004', 'Body structure'],
    });
  });

  it('keeps a name in Japanese', () => {
    const { patientName } = found.get('dicom_cases/mr9_name_japanese as BINARY')!;
    expect(patientName).toBe('Yamada^Tarou=山田^太郎=やまだ^たろう');
  });
});

describe.skipIf(!dciodvfy)('dciodvfy', () => {
  /** It knows no LABELMAP: neither the class nor that its segments may begin with 0. */
  const unknown = [
    'Error - SegmentNumber not monotonically increasing from one by one - have SegmentSequence item number 1 (from one) with SegmentNumber of 0',
    'Error - Information Object Not found',
  ];

  it.each(all)('finds no fault in $title', async ({ kind, title }) => {
    const { stderr } = await run(dciodvfy!, [cases.get(title)!.file]).catch((error) => error);
    const errors = (stderr as string).split('\n').filter((line) => line.startsWith('Error'));
    expect(stderr).toMatch(kind.type === 'BINARY' ? /^Segmentation$/m : /Information Object Not found/);
    expect(errors).toEqual(kind.type === 'BINARY' ? [] : unknown);
  });
});

describe.skipIf(!data)('readVolume()', () => {
  it.each(series)('gives the source of %s as the plainest reader does', async (name) => {
    const paths = pathsOf(name);
    const { source, grid } = sourceOf(paths.map((path) => readFileSync(path)));
    const files = paths.map((path) => sourceFromBytes(basename(path), readFileSync(path)));
    const read = await readVolume(files, nodePlatform);
    expect(read.volume.size).toEqual(grid.size);
    expect(read.source!.slices.length).toBe(grid.size[2]);
    for (const [k, { window: _, ...slice }] of read.source!.slices.entries())
      expect(source.slices[k]).toMatchObject(slice);
    expect(read.source!.pixelSpacing).toEqual(source.pixelSpacing);
    expect(liesOnSource(read.volume, source)).toBe(true);
    expect(liesOnSource(grid, read.source!)).toBe(true);
  });
});

describe.skipIf(!data)('readSegmentation()', () => {
  it.each(all)('gives the label map of $title again, with its place and its labels', ({ title }) => {
    const { labelMap, file } = cases.get(title)!;
    const read = readSegmentation(parseDicom(readFileSync(file))!);
    expect(read.labelMap.size).toEqual(labelMap.size);
    expect(read.labelMap.affine.map((value) => value + 0)).toEqual(labelMap.affine.map((value) => value + 0));
    expect(Buffer.from(read.labelMap.voxels as Uint8Array).equals(labelMap.voxels as Uint8Array)).toBe(true);
    expect(read.labels.map(({ value, name, color }) => ({ value, name, color }))).toEqual([
      { value: 1, name: 'Prostate', color: '#e6194b' },
      { value: 3, name: 'Left lung', color: '#3cb44b' },
      { value: 9, name: 'Never seen', color: undefined },
      { value: 2, name: 'label 2', color: undefined },
    ]);
    expect(read.labels[1]).toMatchObject(options.labels[1]);
  });
});
