import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { dataFolder } from '../../../../test/real-data.ts';
import { asymmetricLabels, madeSource } from '../../test/dicom-source.ts';
import { collectBytes, readVolume, sourceFromBytes } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import { affinesEqual } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import { ascii, binary, bytesElement, datasetOf, sequence } from './build.ts';
import { type Dataset, type DicomElement, firstItem, itemsOf, words } from './dataset.ts';
import { parseDicom } from './parse.ts';
import { privateTags } from './private-block.ts';
import { readSegmentation, readSegmentationFile } from './read-segmentation.ts';
import { buildSegmentation, type SegmentationOptions } from './segmentation.ts';
import { type Tag, tags } from './tags.ts';
import { writeDicomFile } from './write-file.ts';

const data = dataFolder();
const bytesOf = (name: string) => new Uint8Array(readFileSync(join(data!, 'dicom_seg', name)));

const options: SegmentationOptions = {
  labels: [
    { value: 1, name: 'Liver', color: '#dd8265' },
    { value: 3, name: 'Spleen' },
  ],
  maker: { id: 'an-app', name: 'An app', version: '1.2.0' },
  description: 'Organs',
  role: 'organs',
  seed: 'a job',
};

async function written(
  labelMap: Volume,
  made: ReturnType<typeof madeSource>,
  more: Partial<SegmentationOptions> = {},
): Promise<Uint8Array> {
  return collectBytes(
    writeDicomFile(await buildSegmentation(labelMap, made.source, { ...options, ...more })),
  );
}

const isPrivate = (tag: Tag) => Math.floor(tag / 65536) % 2 === 1;

/** A data set as a program gives it away that keeps no private elements. */
const withoutPrivate = (dataset: Dataset): Dataset =>
  new Map(
    [...dataset]
      .filter(([tag]) => !isPrivate(tag))
      .map(([tag, element]) => [
        tag,
        element.kind === 'sequence' ? { ...element, items: element.items.map(withoutPrivate) } : element,
      ]),
  );

/** A BINARY file of the asymmetric labels, with some elements changed. */
async function changed(change: (dataset: Dataset) => readonly DicomElement[]) {
  const made = madeSource();
  const file = parseDicom(await written(asymmetricLabels(made.grid), made))!;
  const dataset = withoutPrivate(file.dataset);
  return { ...file, dataset: new Map([...dataset, ...datasetOf(...change(dataset))]) };
}

/** The frames with other positions, or none. */
const placed = (
  dataset: Dataset,
  place: (position: number[], frame: number) => (number | string)[] | undefined,
): DicomElement =>
  sequence(
    tags.perFrameFunctionalGroupsSequence,
    ...itemsOf(dataset, tags.perFrameFunctionalGroupsSequence).map((item, i) => {
      const own = words(firstItem(item, tags.planePositionSequence)!, tags.imagePositionPatient);
      const position = place(own.map(Number), i);
      const items = position ? [datasetOf(ascii(tags.imagePositionPatient, 'DS', ...position))] : [];
      return new Map([...item, ...datasetOf(sequence(tags.planePositionSequence, ...items))]);
    }),
  );

describe('readSegmentation()', () => {
  it.each([
    ['BINARY', 'rle'],
    ['LABELMAP', 'none'],
    ['LABELMAP', 'rle'],
  ] as const)('gives back what was written as %s (%s)', async (type, compression) => {
    for (const shearMm of [0, 0.9]) {
      // 11 × 7 pixels: frames do not end with a byte.
      const made = madeSource({ size: [11, 7, 6], shearMm });
      const labelMap = asymmetricLabels(made.grid);
      const read = readSegmentationFile(await written(labelMap, made, { type, compression }));
      expect(read.labelMap).toEqual(labelMap);
      expect(read.labels.map(({ value, name, color }) => [value, name, color])).toEqual([
        [1, 'Liver', '#dd8265'],
        [3, 'Spleen', undefined],
        [2, 'label 2', undefined],
      ]);
    }
  });

  it.each(['none', 'rle'] as const)('gives back 16 bits (%s)', async (compression) => {
    const made = madeSource();
    const labelMap = asymmetricLabels(made.grid);
    const voxels = Uint16Array.from(labelMap.voxels as Uint8Array, (value) => value * 0x0101);
    const bytes = await written({ ...labelMap, voxels }, made, { type: 'LABELMAP', compression });
    expect(readSegmentationFile(bytes).labelMap.voxels).toEqual(voxels);
  });

  it('keeps names that a label of DICOM cannot hold, codes and their meanings', async () => {
    const made = madeSource({ characterSets: ['ISO_IR 100'] });
    const labels = [
      {
        value: 1,
        name: `Left\\right ${'and so on '.repeat(8)}end`,
        color: '#0a0b0c',
        code: { scheme: 'SCT', value: '12345678901234567890', meaning: 'Größe' },
        category: { scheme: 'SCT', value: '123037004', meaning: 'Body structure' },
        modifier: { scheme: 'SCT', value: '7771000', meaning: 'Left' },
      },
      { value: 3, name: '脾臓', code: { scheme: 'SCT', value: '78961009', meaning: 'Spleen' } },
    ];
    const read = readSegmentationFile(await written(asymmetricLabels(made.grid), made, { labels }));
    expect(read.labels[0]).toEqual(labels[0]);
    expect(read.labels[1]).toMatchObject(labels[1]);
  });

  it('reads from the first to the last frame without the private elements', async () => {
    const made = madeSource({ size: [11, 7, 9] });
    const labelMap = asymmetricLabels(made.grid);
    const [pixels, voxels] = [77, labelMap.voxels as Uint8Array];
    // Slices 0, 1, 4 and 8 have no label.
    for (const z of [0, 1, 4, 8]) voxels.fill(0, z * pixels, (z + 1) * pixels);
    const file = parseDicom(await written(labelMap, made))!;
    const read = readSegmentation({ ...file, dataset: withoutPrivate(file.dataset) });
    expect(read.labelMap.size).toEqual([11, 7, 6]);
    const numbered = voxels.slice(2 * pixels, 8 * pixels).map((value) => (value === 3 ? 2 : value));
    expect(read.labelMap.voxels).toEqual(numbered);
    const { affine } = made.grid;
    const first = affine.map((value, i) => (i % 4 === 3 && i < 12 ? value + 2 * affine[i - 1] : value));
    expect(affinesEqual(read.labelMap.affine, first, 1e-6)).toBe(true);
    expect(read.labels.map(({ value, name }) => [value, name])).toEqual([
      [1, 'Liver'],
      [2, 'Spleen'],
    ]);
  });

  it('does not believe private elements that frames contradict', async () => {
    const made = madeSource();
    const labelMap = asymmetricLabels(made.grid);
    const file = parseDicom(await written(labelMap, made))!;
    const moved = placed(file.dataset, ([x, y, z]) => [x + 100, y, z]);
    const read = readSegmentation({ ...file, dataset: new Map([...file.dataset, [moved.tag, moved]]) });
    expect(read.labelMap.affine[3]).toBeCloseTo(labelMap.affine[3] - 100, 6);
    expect(read.labelMap.voxels).toEqual(labelMap.voxels);
  });

  it('uses segment numbers where the stored label values are 0 or duplicates', async () => {
    const made = madeSource();
    const file = parseDicom(await written(asymmetricLabels(made.grid), made))!;
    for (const [first, second] of [
      [0, 3],
      [3, 3],
    ]) {
      const items = itemsOf(file.dataset, tags.segmentSequence).map((item, i) => {
        const value = [first, second, 2][i];
        return new Map([...item, ...datasetOf(binary(privateTags.labelValue, 'US', value))]);
      });
      const segments = sequence(tags.segmentSequence, ...items);
      const read = readSegmentation({
        ...file,
        dataset: new Map([...file.dataset, [segments.tag, segments]]),
      });
      expect(read.labels.map(({ value }) => value)).toEqual([1, 2, 3]);
    }
  });

  it('refuses segments that overlap in a voxel, by their numbers', async () => {
    const both = await changed(() => [bytesElement(tags.pixelData, 'OB', new Uint8Array(1000).fill(0xff))]);
    expect(() => readSegmentation(both)).toThrow(
      expect.objectContaining({
        code: 'UNSUPPORTED_FORMAT',
        message: expect.stringMatching(/^The segments 1 and 2 overlap/),
      }),
    );
  });

  it.each<[string, string, (dataset: Dataset) => DicomElement[]]>([
    ['FRACTIONAL', 'UNSUPPORTED_FORMAT', () => [ascii(tags.segmentationType, 'CS', 'FRACTIONAL')]],
    ['no type', 'BAD_HEADER', () => [ascii(tags.segmentationType, 'CS')]],
    [
      'irregular distances',
      'UNSUPPORTED_FORMAT',
      (d) => [placed(d, ([x, y, z], i) => [x, y, z + (i % 5 === 1 ? 1 : 0)])],
    ],
    [
      'frames beside each other',
      'UNSUPPORTED_FORMAT',
      (d) => [placed(d, ([x, y, z], i) => [x + (i % 5 === 1 ? 1 : 0), y, z])],
    ],
    ['NaN as a position', 'BAD_HEADER', (d) => [placed(d, ([x, y]) => [x, y, 'NaN'])]],
    ['no position', 'UNSUPPORTED_FORMAT', (d) => [placed(d, () => undefined)]],
    ['too few pixels', 'BAD_VOXELS', () => [bytesElement(tags.pixelData, 'OB', new Uint8Array(10))]],
    ['no pixels', 'BAD_VOXELS', () => [ascii(tags.pixelData, 'CS')]],
    ['8 bits as BINARY', 'BAD_HEADER', () => [binary(tags.bitsAllocated, 'US', 8)]],
    ['another number of frames', 'BAD_HEADER', () => [ascii(tags.numberOfFrames, 'IS', 3)]],
    ['no rows', 'BAD_HEADER', () => [binary(tags.rows, 'US', 0)]],
    ['no segment described', 'BAD_HEADER', () => [sequence(tags.segmentSequence)]],
    ['no orientation', 'BAD_HEADER', () => [sequence(tags.sharedFunctionalGroupsSequence)]],
  ])('refuses a file with %s', async (_, code, change) => {
    const file = await changed(change);
    expect(() => readSegmentation(file)).toThrow(expect.objectContaining({ code }));
  });

  it('refuses more voxels than allowed, before it makes room for them', async () => {
    const large = await changed(() => [binary(tags.rows, 'US', 60_000), binary(tags.columns, 'US', 60_000)]);
    expect(() => readSegmentation(large)).toThrow(expect.objectContaining({ code: 'TOO_MANY_VOXELS' }));
  });

  it('gives a typed error or a label map for every damaged byte', async () => {
    const made = madeSource({ size: [5, 3, 2] });
    for (const type of ['BINARY', 'LABELMAP'] as const) {
      const bytes = await written(asymmetricLabels(made.grid), made, { type });
      for (let at = 132; at < bytes.length; at += 3) {
        const damaged = bytes.slice();
        damaged[at] ^= 0x5a;
        try {
          readSegmentationFile(damaged, { maxVoxels: 2 ** 22 });
        } catch (error) {
          expect(error).toMatchObject({
            code: expect.stringMatching(/^(BAD_|UNSUPPORTED|UNKNOWN|TOO_MANY)/),
          });
        }
      }
    }
  });
});

describe.skipIf(!data)('readSegmentation() of a file of dcmqi', () => {
  it.each([
    ['liver.dcm', 'liver_seg.nrrd'],
    // A LABELMAP whose middle slice has no frame.
    ['sparse-labelmap-noppv.dcm', 'sparse_labelmap_noppv_seg.nrrd'],
    ['23x38x3/seg/label.seg', '23x38x3/nrrd/label.nrrd'],
    ['24x38x3/seg/label.seg', '24x38x3/nrrd/label.nrrd'],
  ])('%s gives the label map that it was made of', async (name, nrrd) => {
    const { labelMap, labels } = readSegmentationFile(bytesOf(name));
    const { volume } = await readVolume([sourceFromBytes('labels.nrrd', bytesOf(nrrd))], webPlatform);
    expect(labelMap.size).toEqual(volume.size);
    expect(affinesEqual(labelMap.affine, volume.affine, 1e-6)).toBe(true);
    const differs = (labelMap.voxels as Uint8Array).findIndex(
      (value, i) => value !== Number(volume.voxels[i]),
    );
    expect(differs).toBe(-1);
    expect(labels.map(({ value, name, color }) => [value, name, color])).toEqual([[1, 'Liver', '#dd8265']]);
  });

  it('partial_overlaps.dcm is refused, as its segments overlap', () => {
    expect(() => readSegmentationFile(bytesOf('partial_overlaps.dcm'))).toThrow(/overlap/);
  });
});
