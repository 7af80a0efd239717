import { describe, expect, it, vi } from 'vitest';
import { asymmetricLabels, madeSource } from '../../test/dicom-source.ts';
import { type Dataset, word } from '../dicom/dataset.ts';
import { parseDicom } from '../dicom/parse.ts';
import { readSegmentationFile } from '../dicom/read-segmentation.ts';
import { tags } from '../dicom/tags.ts';
import { TomaatError } from '../errors.ts';
import { collectBytes, sourceFromBytes } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import { openZip } from '../formats/zip.ts';
import { dicomFormats } from './elements.ts';
import { encodeSeriesFormat } from './encode-dicom.ts';

/* The archive of all DICOM objects of a label map. */

// What really refuses a structure set has ten million points.
vi.mock('../dicom/structure-set.ts', async (original) => {
  const { buildStructureSet } = await original<typeof import('../dicom/structure-set.ts')>();
  return {
    buildStructureSet(...given: Parameters<typeof buildStructureSet>) {
      if (given[2].role !== 'noise') return buildStructureSet(...given);
      throw new TomaatError('NOT_ACCEPTABLE', 'There are too many outlines.');
    },
  };
});

const { source, grid } = madeSource();
const labelMap = asymmetricLabels(grid);
const labels = [
  { value: 3, name: 'Spleen', color: '#3cb44b' },
  { value: 9, name: 'Not found' },
];
const context = (seed?: string) => ({
  source,
  maker: { id: 'an-app', name: 'An app', version: '1' },
  name: 'organs',
  description: 'Organs',
  seed,
  readSlice: async () => new Int16Array(grid.size[0] * grid.size[1]),
});

async function filesOf(seed?: string, more: object = {}): Promise<Map<string, Uint8Array>> {
  const given = { ...context(seed), ...more };
  const bytes = await collectBytes(encodeSeriesFormat('zip', labelMap, given, labels));
  const files = await openZip(sourceFromBytes('organs.zip', bytes), webPlatform);
  return new Map(
    await Promise.all(
      files.map(async (file) => [file.name, await collectBytes(file.open())] as [string, Uint8Array]),
    ),
  );
}
const datasetOf = (bytes: Uint8Array): Dataset => parseDicom(bytes)!.dataset;
const uidOf = (bytes: Uint8Array) => word(datasetOf(bytes), tags.sopInstanceUid)!;

describe('encodeSeriesFormat() of zip', () => {
  it('gives one file of every DICOM format but labelmap.dcm, each of the study', async () => {
    const files = await filesOf('a job');
    const others = dicomFormats.filter((format) => format !== 'labelmap.dcm');
    expect([...files.keys()]).toEqual(others.map((format) => `organs.${format}`));
    for (const [name, bytes] of files)
      for (const tag of [tags.studyInstanceUid, tags.patientName])
        expect(word(datasetOf(bytes), tag), name).toBe(word(source.dataset, tag));
    expect(new Set([...files.values()].map(uidOf)).size).toBe(others.length);
  });

  it('has a report that refers to its segmentation', async () => {
    const files = await filesOf();
    const report = Buffer.from(files.get('organs.sr.dcm')!).toString('latin1');
    expect(report).toContain(uidOf(files.get('organs.seg.dcm')!));
    expect(report).toContain('1.2.840.10008.5.1.4.1.1.66.4');
    expect(report).toContain('Not found');
  });

  it('has the label map in its segmentation', async () => {
    const read = readSegmentationFile((await filesOf()).get('organs.seg.dcm')!);
    expect(read.labelMap).toEqual(labelMap);
    expect(read.labels.slice(0, 2)).toMatchObject(labels);
  });

  it('has the objects of the same seed that each format has alone', async () => {
    const files = await filesOf('a job');
    for (const format of ['seg.dcm', 'rtstruct.dcm'] as const) {
      const alone = await collectBytes(encodeSeriesFormat(format, labelMap, context('a job'), labels));
      expect(uidOf(files.get(`organs.${format}`)!)).toBe(uidOf(alone));
    }
  });

  it('leaves out an object that cannot be made, and says why', async () => {
    const files = await filesOf('a job', { name: 'noise' });
    const formats = dicomFormats.filter((format) => !/^(?:labelmap|rtstruct)/.test(format));
    expect([...files.keys()]).toEqual([...formats.map((format) => `noise.${format}`), 'noise.left-out.txt']);
    const note = new TextDecoder().decode(files.get('noise.left-out.txt'));
    expect(note).toBe('noise.rtstruct.dcm: There are too many outlines.\n');
  });

  it('refuses a label map on another grid', async () => {
    const moved = { ...labelMap, affine: labelMap.affine.map((v, i) => (i === 3 ? v + 5 : v)) };
    const bytes = collectBytes(encodeSeriesFormat('zip', moved, context(), labels));
    await expect(bytes).rejects.toMatchObject({ code: 'APP_OUTPUT' });
  });

  it('has new objects every time without a seed', async () => {
    const [first, second] = [await filesOf(), await filesOf()];
    for (const [name, bytes] of first) expect(uidOf(second.get(name)!), name).not.toBe(uidOf(bytes));
  });
});
