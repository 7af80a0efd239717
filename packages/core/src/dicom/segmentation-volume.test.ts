import { describe, expect, it } from 'vitest';
import { asymmetricLabels, madeFiles, madeSource } from '../../test/dicom-source.ts';
import { zipOf } from '../../test/zip-files.ts';
import { labelled, level, program, programOf, run } from '../app/fixtures.ts';
import { collectBytes, inspectVolume, readVolume, sourceFromBytes } from '../formats/volume-file.ts';
import { joinBytes } from '../formats/voxel-pieces.ts';
import { webPlatform } from '../formats/web-platform.ts';
import type { Volume } from '../volume.ts';
import { ascii, sequence } from './build.ts';
import type { DicomElement } from './dataset.ts';
import { encodeDicomFile } from './encode-file.ts';
import { parseDicom } from './parse.ts';
import { buildSegmentation } from './segmentation.ts';
import type { SegmentationType } from './segmentation-identity.ts';
import { tags } from './tags.ts';
import { writeDicomFile } from './write-file.ts';

const labels = [
  { value: 1, name: 'Liver', color: '#dd8265' },
  { value: 3, name: 'Spleen' },
];
const made = madeSource({ shearMm: 0.7 });
const labelMap = asymmetricLabels(made.grid);

async function segmentation(type: SegmentationType = 'BINARY'): Promise<Uint8Array<ArrayBuffer>> {
  const maker = { id: 'an-app', name: 'An app', version: '1.2.0' };
  const options = { labels, maker, description: 'Organs', role: 'organs', seed: 'a job', type };
  return collectBytes(writeDicomFile(await buildSegmentation(labelMap, made.source, options)));
}
const fileOf = (bytes: Uint8Array, name = 'organs.seg.dcm') => sourceFromBytes(name, bytes);
const images = async () =>
  (await madeFiles({ shearMm: 0.7 }, new Int16Array(13 * 7 * 5))).map((bytes, i) =>
    fileOf(bytes, `${i}.dcm`),
  );

/** Affines of the world, within the digits of a decimal string. */
function expectSamePlace(volume: Volume, other: Volume): void {
  expect([...volume.size]).toEqual([...other.size]);
  for (const [i, value] of volume.affine.entries()) expect(value).toBeCloseTo(other.affine[i], 6);
}

describe('readVolume() of a segmentation', () => {
  it.each(['BINARY', 'LABELMAP'] as const)('gives the label map and the labels of %s', async (type) => {
    const bytes = await segmentation(type);
    const { volume, header, labels: read, source } = await readVolume([fileOf(bytes)], webPlatform);
    expectSamePlace(volume, labelMap);
    expect(volume.voxels).toEqual(labelMap.voxels);
    expect(header).toMatchObject({ format: 'dicom', extension: 'nii.gz', voxelType: 'uint8', frames: 1 });
    expect(read?.map(({ value, name }) => ({ value, name }))).toEqual([
      { value: 1, name: 'Liver' },
      { value: 3, name: 'Spleen' },
      { value: 2, name: 'label 2' },
    ]);
    expect(source).toBeUndefined();
  });

  it('says the grid before the pixels are there', async () => {
    const bytes = await segmentation();
    const prefix = bytes.subarray(0, bytes.length - 40);
    const header = await inspectVolume([{ name: 'a', prefix, sizeBytes: bytes.length }], webPlatform);
    expectSamePlace({ ...labelMap, ...header }, labelMap);
  });

  it('takes one from a zip archive, beside files of other kinds', async () => {
    const text = new TextEncoder().encode('about the study');
    const zip = zipOf([
      { name: 'a/organs.dcm', data: await segmentation() },
      { name: 'a/readme.txt', data: text },
    ]);
    const { volume, leftOut } = await readVolume([fileOf(zip, 'organs.zip')], webPlatform);
    expect(volume.voxels).toEqual(labelMap.voxels);
    expect(leftOut?.map(({ name }) => name)).toEqual(['readme.txt']);
  });

  it('takes one whatever series is chosen for the other volumes of a request', async () => {
    const { volume } = await readVolume([fileOf(await segmentation())], webPlatform, { series: '3' });
    expect(volume.voxels).toEqual(labelMap.voxels);
  });

  it('refuses more segments than there can be', async () => {
    const dicom = parseDicom(await segmentation())!;
    const items = Array.from({ length: 70_000 }, () => new Map<number, DicomElement>());
    const dataset = new Map(dicom.dataset).set(
      tags.segmentSequence,
      sequence(tags.segmentSequence, ...items),
    );
    const bytes = joinBytes(encodeDicomFile({ ...dicom, dataset }));
    await expect(readVolume([fileOf(bytes)], webPlatform)).rejects.toMatchObject({ code: 'BAD_HEADER' });
  });

  it('reads images where it lies among them', async () => {
    const files = [fileOf(await segmentation()), ...(await images())];
    const { source, leftOut } = await readVolume(files, webPlatform);
    expect(source?.slices.length).toBe(5);
    expect(leftOut?.map(({ reason }) => reason)).toEqual(['is a segmentation (SEG)']);
  });

  it('refuses two of them, a FRACTIONAL one, and one with too many voxels', async () => {
    const bytes = await segmentation();
    await expect(readVolume([fileOf(bytes), fileOf(bytes, 'b.dcm')], webPlatform)).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringMatching(/^None of the 2 files is an image of a volume/),
    });
    const limits = { maxVoxels: 100 };
    await expect(readVolume([fileOf(bytes)], webPlatform, { limits })).rejects.toMatchObject({
      code: 'TOO_MANY_VOXELS',
    });
    const dicom = parseDicom(bytes)!;
    const dataset = new Map(dicom.dataset).set(
      tags.segmentationType,
      ascii(tags.segmentationType, 'CS', 'FRACTIONAL'),
    );
    const fractional = joinBytes(encodeDicomFile({ ...dicom, dataset }));
    await expect(readVolume([fileOf(fractional)], webPlatform)).rejects.toMatchObject({
      code: 'UNSUPPORTED_FORMAT',
      message: expect.stringContaining('FRACTIONAL'),
    });
  });
});

describe('predict() on a segmentation', () => {
  it('takes it as a label map, and answers with one', async () => {
    const manifest = programOf({ outputs: { levels: { type: 'LabelVolume' } } });
    const model = program(({ volume }) => ({
      levels: labelled(volume as Volume, (value) => level(10 * value)),
    }));
    const { outputs } = await run(manifest, model, { files: { volume: [fileOf(await segmentation())] } });
    expect(outputs.levels.format).toBe('nii.gz');
    const { volume } = await readVolume([sourceFromBytes('a.nii.gz', outputs.levels.data)], webPlatform);
    expect([...volume.voxels]).toEqual(
      [...labelMap.voxels].map((value) => (value > 2 ? 2 : value > 1 ? 1 : 0)),
    );
  });
});
