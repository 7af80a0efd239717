import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildMeasurementReport } from '../packages/core/src/dicom/measurement-report.ts';
import { buildSegmentation } from '../packages/core/src/dicom/segmentation.ts';
import {
  identifySegmentation,
  type SegmentationType,
} from '../packages/core/src/dicom/segmentation-identity.ts';
import { type DicomObject, writeDicomFile } from '../packages/core/src/dicom/write-file.ts';
import { collectBytes } from '../packages/core/src/formats/volume-file.ts';
import { measureLabels } from '../packages/core/src/labels/measure.ts';
import { asymmetricLabels, sourceOf } from '../packages/core/test/dicom-source.ts';
import { findDciodvfy, findDsrdump, findPython } from './programs.ts';
import { dataFolder } from './real-data.ts';

/*
 * Reports of volumes in real series, as the programs of others read them: highdicom, the validator dciodvfy, and
 * dsrdump of dcmtk.
 */

const run = promisify(execFile);
const data = dataFolder();
const python = data && findPython('pydicom', 'highdicom');
const dciodvfy = data && findDciodvfy();
const dsrdump = data && findDsrdump();
const folder = mkdtempSync(join(tmpdir(), 'tomaat-dicom-report-'));
afterAll(() => rmSync(folder, { recursive: true }));

const cases: readonly { name: string; type: SegmentationType }[] = [
  { name: 'dicom/prostate_t2_tra', type: 'BINARY' },
  { name: 'dicom_cases/ct_tilt_regular', type: 'BINARY' },
  { name: 'dicom_cases/mr9_name_japanese', type: 'BINARY' },
  { name: 'dicom_cases/mr9_enhanced_shuffled', type: 'LABELMAP' },
];
const labels = [
  { value: 1, name: 'Prostate', code: { scheme: 'SCT', value: '41216001', meaning: 'Prostate' } },
  {
    value: 3,
    name: '左肺',
    code: { scheme: 'SCT', value: '39607008', meaning: 'Lung' },
    modifier: { scheme: 'SCT', value: '7771000', meaning: 'Left' },
  },
  { value: 9, name: 'Never seen' },
];
const maker = { id: 'an-app', name: 'An app', version: '1.2.0' };
const seed = 'a job';

/** What check-measurement-report.py says. */
interface Found {
  readonly groups: readonly { readonly millilitres: number; readonly [name: string]: unknown }[];
  readonly counts: readonly number[];
  readonly millilitres: readonly number[];
  readonly boxByVoxel: number;
  readonly [name: string]: unknown;
}

const found: Found[] = [];
const fileOf = (name: string) => join(folder, `${cases.findIndex((one) => one.name === name)}-report.dcm`);
const write = async (file: string, object: DicomObject) =>
  writeFileSync(file, await collectBytes(writeDicomFile(object)));

beforeAll(async () => {
  if (!data) return;
  const described: object[] = [];
  for (const [i, { name, type }] of cases.entries()) {
    const paths = readdirSync(join(data, name))
      .map((file) => join(data, name, file))
      .filter((path) => statSync(path).isFile());
    const { source, grid } = sourceOf(paths.map((path) => readFileSync(path)));
    const labelMap = asymmetricLabels(grid);
    const of = { labels, role: 'labels', seed, type };
    const segmentation = identifySegmentation(labelMap, of);
    const [file, raw] = [join(folder, `${i}-segmentation.dcm`), join(folder, `${i}.raw`)];
    await write(file, await buildSegmentation(labelMap, source, { ...of, maker, description: 'Labels' }));
    const options = { segmentation, maker, description: 'Volumes', role: 'volumes', seed };
    await write(fileOf(name), buildMeasurementReport(measureLabels(labelMap, labels), source, options));
    writeFileSync(raw, labelMap.voxels as Uint8Array);
    const values = type === 'BINARY' ? { 1: 1, 2: 3, 3: 9, 4: 2 } : { 1: 1, 2: 2, 3: 3, 9: 9 };
    described.push({ report: fileOf(name), segmentation: file, series: paths, labels: raw, values });
  }
  if (!python) return;
  writeFileSync(join(folder, 'cases.json'), JSON.stringify(described));
  const checker = join(import.meta.dirname, 'check-measurement-report.py');
  const { stdout } = await run(python, [checker, join(folder, 'cases.json')], { maxBuffer: 2 ** 24 });
  found.push(...(JSON.parse(stdout) as Found[]));
}, 120_000);

const foundIn = (name: string) => found[cases.findIndex((one) => one.name === name)];

describe.skipIf(!python)('buildMeasurementReport() of a real series', () => {
  it.each(cases)('of $name has the volumes that its headers give', ({ name }) => {
    const { groups, counts, millilitres } = foundIn(name);
    expect(groups.length).toBe(4);
    expect(counts.filter((count) => count > 0).length).toBe(3);
    expect(counts[2]).toBe(0);
    for (const [i, group] of groups.entries()) {
      if (counts[i] === 0) expect(group.millilitres).toBe(0);
      else expect(Math.abs(group.millilitres / millilitres[i] - 1)).toBeLessThan(1e-6);
    }
  });

  it.each(cases)('of $name refers to the segments of its segmentation', ({ name, type }) => {
    expect(foundIn(name)).toMatchObject({ tracked: true, refers: true, sourceSeries: true, differs: [] });
    const numbers = type === 'BINARY' ? [1, 2, 3, 4] : [1, 3, 9, 2];
    const unnamed = ['SCT', '85756007', 'Tissue'];
    expect(foundIn(name).groups).toMatchObject([
      { name: 'Prostate', number: numbers[0], site: ['SCT', '41216001', 'Prostate'], side: null },
      { name: '左肺', number: numbers[1], side: ['SCT', '7771000', 'Left'] },
      { name: 'Never seen', number: numbers[2], finding: unnamed, site: null },
      { name: 'label 2', number: numbers[3], category: unnamed, unit: ['UCUM', 'mL', 'mL'] },
    ]);
  });

  it.each(cases)('of $name has the content and evidence of highdicom’s own', ({ name }) => {
    expect(foundIn(name)).toMatchObject({ sameTree: true, sameEvidence: true });
  });

  it('measures the sheared voxels of a tilted gantry, not boxes', () => {
    // 1 / cos 16.5°.
    expect(foundIn('dicom_cases/ct_tilt_regular').boxByVoxel).toBeCloseTo(1.043, 3);
  });

  it('keeps a name in Japanese', () => {
    const { patientName } = foundIn('dicom_cases/mr9_name_japanese');
    expect(patientName).toBe('Yamada^Tarou=山田^太郎=やまだ^たろう');
  });
});

describe.skipIf(!dciodvfy)('dciodvfy', () => {
  /** It does not know the class of a LABELMAP. */
  const unknown =
    'Error - Shall not be present for Referenced SOP Class that is not segmentation - attribute <ReferencedSegmentNumber>';

  it.each(cases)('finds no fault in the report of $name', async ({ name, type }) => {
    const { stderr } = await run(dciodvfy!, [fileOf(name)]).catch((error) => error);
    expect(stderr).toMatch(/^ComprehensiveSR$/m);
    const errors = (stderr as string).split('\n').filter((line) => line.startsWith('Error'));
    expect(errors).toEqual(type === 'BINARY' ? [] : [unknown, unknown, unknown, unknown]);
  });
});

describe.skipIf(!dsrdump)('dsrdump', () => {
  // Version 3.6.7 refuses references to a LABELMAP, whose class it does not know.
  it.each(cases.filter(({ type }) => type === 'BINARY'))('reads the report of $name', async ({ name }) => {
    const { stdout, stderr } = await run(dsrdump!, [fileOf(name)]);
    const lines = stderr.split('\n').filter((line) => line !== '');
    expect(lines).toEqual(['W: The VR checker does not support this Specific Character Set: ISO_IR 192']);
    expect(stdout).toContain('Comprehensive SR Document');
    expect(stdout.match(/<contains NUM:\(,,"Volume"\)=".*" \(mL,UCUM,"mL"\)>/g)?.length).toBe(4);
    expect(stdout).toContain('<contains IMAGE:(,,"Referenced Segment")=(SG image,,2)>');
  });
});
