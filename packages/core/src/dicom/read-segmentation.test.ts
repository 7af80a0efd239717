import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { dataFolder } from '../../../../test/real-data.ts';
import { asymmetricLabels, sourceOf } from '../../test/dicom-source.ts';
import { collectBytes, readVolume, sourceFromBytes } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import { affinesEqual } from '../geometry/affine.ts';
import { ascii } from './build.ts';
import { parseDicom } from './parse.ts';
import { readSegmentation } from './read-segmentation.ts';
import { buildSegmentation } from './segmentation.ts';
import { tags } from './tags.ts';
import { writeDicomFile } from './write-file.ts';

const data = dataFolder();
const bytesOf = (name: string) => new Uint8Array(readFileSync(join(data!, 'dicom_seg', name)));

describe.skipIf(!data)('readSegmentation()', () => {
  it.each([
    ['liver.dcm', 'liver_seg.nrrd'],
    ['sparse-labelmap-noppv.dcm', 'sparse_labelmap_noppv_seg.nrrd'],
    ['23x38x3/seg/label.seg', '23x38x3/nrrd/label.nrrd'],
    ['24x38x3/seg/label.seg', '24x38x3/nrrd/label.nrrd'],
  ])('reads %s as dcmqi does', async (name, nrrd) => {
    const { labelMap, labels } = readSegmentation(parseDicom(bytesOf(name))!);
    const { volume } = await readVolume([sourceFromBytes('a.nrrd', bytesOf(nrrd))], webPlatform);
    console.log(
      name,
      labelMap.size,
      volume.size,
      labelMap.affine,
      volume.affine,
      labels,
      new Set(labelMap.voxels as Uint8Array),
      new Set(volume.voxels as Int16Array),
    );
    let wrong = 0;
    if (labelMap.voxels.length === volume.voxels.length)
      for (let i = 0; i < labelMap.voxels.length; i++) if (labelMap.voxels[i] !== volume.voxels[i]) wrong++;
    console.log(wrong, affinesEqual(labelMap.affine, volume.affine, 1e-3));
  });
  it('over', () => {
    console.log(readSegmentation(parseDicom(bytesOf('partial_overlaps.dcm'))!));
  });
});
