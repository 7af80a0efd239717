/** DICOM segmentations: the reader of untrusted files, and that what it reads can be written and read again. */
import { buildSegmentation, collectBytes, readSegmentationFile, writeDicomFile } from '@tomaat/core';
import type { SegmentationOptions } from '../../packages/core/src/dicom/segmentation.ts';
import { asymmetricLabels, madeSource } from '../../packages/core/test/dicom-source.ts';
import { must, type Target } from '../target.ts';

const limits = { maxVoxels: 2 ** 14 };
const made = madeSource({ size: [5, 3, 4] });
const options: SegmentationOptions = {
  labels: [
    { value: 1, name: 'Liver', color: '#dd8265' },
    { value: 3, name: 'Left\\right', code: { scheme: 'SCT', value: '78961009', meaning: 'Spleen' } },
  ],
  maker: { id: 'an-app', name: 'An app', version: '1' },
  description: 'Organs',
  role: 'organs',
  seed: 'a job',
  time: new Date(0),
};

async function seeds(): Promise<Uint8Array[]> {
  const kinds = [
    { type: 'BINARY' },
    { type: 'LABELMAP', compression: 'none' },
    { type: 'LABELMAP', compression: 'rle' },
  ] as const;
  const labelMap = asymmetricLabels(made.grid);
  return Promise.all(
    kinds.map(async (kind) =>
      collectBytes(writeDicomFile(await buildSegmentation(labelMap, made.source, { ...options, ...kind }))),
    ),
  );
}

export const segmentationTargets: Readonly<Record<string, Target>> = {
  'dicom-segmentation': {
    description: 'readSegmentationFile(): DICOM segmentations, BINARY and LABELMAP',
    seeds,
    words: ['BINARY', 'LABELMAP', 'FRACTIONAL', 'TOMAAT', 'nan', '1e999', '0', '\xff\xff', '\x01\x00'],
    maxBytes: 2 ** 15,
    run(input) {
      const { labelMap, labels } = readSegmentationFile(input, limits);
      const { size, affine, voxels } = labelMap;
      must(size[0] * size[1] * size[2] <= limits.maxVoxels, 'no more voxels than are allowed');
      must(voxels.length === size[0] * size[1] * size[2], 'a value for every voxel');
      must(affine.every(Number.isFinite), 'the affine is finite');
      const known = new Set([0, ...labels.map(({ value }) => value)]);
      must(known.size === labels.length + 1, 'each label has a value of its own');
      must(
        voxels.every((value: number | bigint) => known.has(Number(value))),
        'every voxel has a label that is described',
      );
    },
  },
};
