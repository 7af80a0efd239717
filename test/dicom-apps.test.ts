import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { collectBytes, readVolume, sourceFromBytes, writeVolume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Affine, applyAffine, invert, type Vec3 } from '../packages/core/src/geometry/affine.ts';
import type { Size, Volume } from '../packages/core/src/volume.ts';
import { type LocalApp, openApp } from '../packages/server/src/local-app.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { writeSeries } from './write-series.ts';

/* Each bundled app gives on a DICOM series what it gives on the NIfTI file of the same scan, at every place of the world. */

const apps = join(import.meta.dirname, '../apps');
const folder = mkdtempSync(join(tmpdir(), 'tomaat-dicom-apps-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Rows and columns at right angles, as those of DICOM images are, with slices that may be sheared. */
function withStraightPixels({ affine, ...volume }: Volume): Volume {
  const column = (i: number): Vec3 => [affine[i], affine[4 + i], affine[8 + i]];
  const [x, y, z, origin] = [0, 1, 2, 3].map(column);
  const dot = (a: Vec3, b: Vec3) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const lean = dot(x, y) / dot(x, x);
  const straight = y.map((value, i) => value - lean * x[i]);
  return {
    ...volume,
    affine: [0, 1, 2]
      .flatMap((r) => [x[r], straight[r], z[r], origin[r]])
      .concat(0, 0, 0, 1) as unknown as Affine,
  };
}

/** The same voxels at the same places with the slices in the other order: a left-handed grid becomes right-handed and back. */
function flipped({ voxels, size, affine, components }: Volume): Volume {
  const [nx, ny, nz] = size;
  const n = nx * ny;
  const turned = voxels.slice();
  for (let k = 0; k < nz; k++) turned.set(voxels.subarray(k * n, (k + 1) * n) as never, (nz - 1 - k) * n);
  const last = applyAffine(affine, [0, 0, nz - 1]);
  const other = [0, 1, 2].flatMap((r) => [affine[4 * r], affine[4 * r + 1], -affine[4 * r + 2], last[r]]);
  return { voxels: turned, size, components, affine: [...other, 0, 0, 0, 1] as unknown as Affine };
}

const save = async (name: string, volume: Volume) => {
  const path = join(folder, name);
  writeFileSync(path, await collectBytes(writeVolume(volume, 'nii.gz', nodePlatform)));
  return path;
};
const load = async (path: string) =>
  (await readVolume([sourceFromBytes('a.nii.gz', readFileSync(path))], nodePlatform)).volume;

/** The voxel of another grid at the place of a voxel, which is its centre. */
function sameVoxel(from: Affine, to: Affine, size: Size): (index: Vec3) => number {
  const back = invert(to);
  return (index) => {
    const at = applyAffine(back, applyAffine(from, index));
    const [i, j, k] = at.map(Math.round);
    for (const [axis, value] of [i, j, k].entries()) expect(Math.abs(value - at[axis])).toBeLessThan(1e-3);
    return i + size[0] * (j + size[1] * k);
  };
}

interface Scan {
  readonly nifti: string;
  readonly series: string;
}
const scans: Record<string, Scan> = {};

beforeAll(async () => {
  for (const name of ['ct-lung', 'brain']) {
    const sample = withStraightPixels(await load(join(apps, name, 'sample.nii.gz')));
    // The series has no values below -1024.
    const voxels = Int16Array.from(sample.voxels as Int16Array, (value) =>
      Math.max(-1024, Math.round(value)),
    );
    const plain = await save(`${name}.nii.gz`, { ...sample, voxels });
    const series = join(folder, name);
    await writeSeries(plain, series, [1]);
    scans[name] = { nifti: await save(`${name}-flipped.nii.gz`, flipped({ ...sample, voxels })), series };
  }
});

describe('openApp().predict()', () => {
  it('has a case here for every bundled app', () => {
    expect(readdirSync(apps).sort()).toEqual(Object.keys(scanOf).sort());
  });

  const scanOf = {
    brain: 'brain',
    'ct-body': 'ct-lung',
    'ct-bone': 'ct-lung',
    'ct-lung': 'ct-lung',
    threshold: 'brain',
  };
  it.each(Object.entries(scanOf))(
    'of %s gives on a series what it gives on its NIfTI file',
    async (id, name) => {
      await using app: LocalApp = await openApp(join(apps, id));
      const { nifti, series } = scans[name];
      const files = readdirSync(series).map((file) => ({ path: join(series, file) }));
      const ofSeries = (await app.predict({ volumes: { volume: files } })).output();
      const ofNifti = (await app.predict({ volumes: { volume: { path: nifti } } })).output();
      expect([ofSeries.format, ofNifti.format]).toEqual(['seg.dcm', 'nii.gz']);
      const [a, b] = [await ofSeries.volume(), await ofNifti.volume()];
      expect(a.affine).not.toEqual(b.affine);
      expect([...a.size]).toEqual([...b.size]);
      const find = sameVoxel(a.affine, b.affine, b.size);
      let [wrong, labelled] = [0, 0];
      for (let k = 0, at = 0; k < a.size[2]; k++) {
        for (let j = 0; j < a.size[1]; j++) {
          // A row of voxels runs along a row of the other grid.
          const start = find([0, j, k]);
          const step = find([1, j, k]) - start;
          for (let i = 0; i < a.size[0]; i++, at++) {
            if (a.voxels[at] !== b.voxels[start + i * step]) wrong++;
            if (a.voxels[at] !== 0) labelled++;
          }
        }
      }
      expect(wrong).toBe(0);
      expect(labelled).toBeGreaterThan(1000);
    },
  );
});
