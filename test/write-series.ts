import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readVolume, sourceFromBytes } from '@tomaat/core';
import { dicomFile, sliceElements } from '../packages/core/test/dicom-files.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';

/** The slices of a volume as DICOM files, once for each number of a series. */
export async function writeSeries(
  volumePath: string,
  folder: string,
  numbers: readonly number[],
): Promise<void> {
  mkdirSync(folder);
  const file = sourceFromBytes('a.nii.gz', readFileSync(volumePath));
  const { voxels, size, affine } = (await readVolume([file], nodePlatform)).volume;
  const [columns, rows, slices] = size;
  // RAS+ to LPS.
  const axis = (i: number) => [-affine[i], -affine[4 + i], affine[8 + i]];
  const [x, y, z, origin] = [0, 1, 2, 3].map(axis);
  const [dx, dy] = [x, y].map((step) => Math.hypot(...step));
  const text = (values: readonly number[]) => values.map((value) => Number(value.toFixed(6)));
  for (const number of numbers) {
    for (let k = 0; k < slices; k++) {
      const plane = voxels.subarray(k * rows * columns, (k + 1) * rows * columns);
      const bytes = dicomFile(
        sliceElements({
          series: String(number),
          instance: k + 1,
          rows,
          columns,
          position: text(origin.map((at, i) => at + k * z[i])),
          orientation: text([...x.map((step) => step / dx), ...y.map((step) => step / dy)]),
          spacing: text([dy, dx]),
          bitsStored: 16,
          intercept: '-1024',
          values: Array.from(plane as Int16Array, (value) => Math.max(0, Math.round(value) + 1024)),
          more: { 2097169: ['IS', String(number)] },
        }),
      );
      writeFileSync(join(folder, `IM${number}-${k}`), bytes);
    }
  }
}
