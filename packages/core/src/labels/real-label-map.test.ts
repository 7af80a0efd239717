import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { dataFolder } from '../../../../test/real-data.ts';
import { readVolume } from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import { findComponents, keepLargestComponent } from './components.ts';
import { labelVoxels } from './label-map.ts';
import { measureLabels } from './measure.ts';
import { surfaceOf } from './surface.ts';

const folder = dataFolder();

it.skipIf(!folder)('measures, splits and meshes 41 organs of a CT as nibabel and scipy', async () => {
  const bytes = new Uint8Array(await readFile(join(folder!, 'ct/abdomen_seg.nii.gz')));
  const file = {
    name: 'abdomen_seg.nii.gz',
    async *open(start = 0) {
      yield bytes.subarray(start);
    },
  };
  const { volume } = await readVolume([file], webPlatform);
  const found = measureLabels(volume, [
    { value: 5, name: 'liver' },
    { value: 1, name: 'spleen' },
  ]);
  expect(found).toHaveLength(41);
  expect(found.slice(0, 2).map(({ voxels }) => voxels)).toEqual([38634, 9452]);
  expect(found[0].volumeMl).toBeCloseTo(1043.118, 6);
  [64.34985174, 185.03106734, 150.14024205].forEach((v, k) => {
    expect(found[0].centroidMm![k]).toBeCloseTo(v, 5);
  });
  expect(findComponents(labelVoxels(volume), volume.size, { connectivity: 26 }).count).toBe(54);
  const kept = measureLabels(keepLargestComponent(volume)).reduce((n, { voxels }) => n + voxels, 0);
  expect(kept).toBe(106807);
  const { positions } = surfaceOf(volume, { labels: [5], smoothing: 0 });
  const { min, max } = found[0].boxMm!;
  for (let k = 0; k < 3; k++) {
    const along = positions.filter((_, i) => i % 3 === k);
    // The surface lies within half a voxel (3 mm) of the outermost voxels' centres, and reaches them.
    expect(along.reduce((a, b) => Math.min(a, b))).toBeGreaterThan(min[k] - 0.01);
    expect(along.reduce((a, b) => Math.min(a, b))).toBeLessThan(min[k] + 1.6);
    expect(along.reduce((a, b) => Math.max(a, b))).toBeLessThan(max[k] + 0.01);
    expect(along.reduce((a, b) => Math.max(a, b))).toBeGreaterThan(max[k] - 1.6);
  }
});
