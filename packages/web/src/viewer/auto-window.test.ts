import type { Vec3, Volume } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import { sampleWindow } from './auto-window.ts';

const filled = (size: Vec3, valueAt: (x: number, y: number, z: number) => number): Volume => {
  const [nx, ny, nz] = size;
  const voxels = Float32Array.from({ length: nx * ny * nz }, (_, i) =>
    valueAt(i % nx, Math.floor(i / nx) % ny, Math.floor(i / (nx * ny))),
  );
  return { size, components: 1, affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], voxels };
};
const blackAndWhite = (scan: Volume) => {
  const { level, width } = sampleWindow(scan).automatic;
  return [level - width / 2, level + width / 2];
};

describe('sampleWindow()', () => {
  it('goes from the 2nd to the 98th percentile of the middle half', () => {
    // The middle half of 400 slices has 100 to 299; the rest would pull it to either side.
    const scan = filled([20, 8, 400], (_x, _y, z) => (z < 100 || z >= 300 ? 5000 : z));
    const [black, white] = blackAndWhite(scan);
    expect(black).toBeCloseTo(104, 0);
    expect(white).toBeCloseTo(295, 0);
  });

  it('reads every column and row of a scan of which it reads a part', () => {
    // Two million voxels; a tenth of the columns is bright. Reading each row at the same places would miss or double them.
    const scan = filled([128, 120, 130], (x, y) => (x % 10 === 3 ? 1000 : y % 100));
    const { automatic, range } = sampleWindow(scan);
    expect(range).toEqual({ lowest: 30, highest: 1000 });
    expect(automatic.level + automatic.width / 2).toBe(1000);
  });

  it('leaves out zeros that are most of the voxels, and values that are not finite', () => {
    const cutOut = filled([40, 40, 40], (x, y) => (x < 18 || y < 18 ? 0 : 100 + x + y));
    const [black, white] = blackAndWhite(cutOut);
    expect(black).toBe(0);
    expect(white).toBeGreaterThan(150);
    const broken = filled([8, 8, 8], (x) => [Number.NaN, Number.POSITIVE_INFINITY, -7, 9][x % 4]);
    expect(blackAndWhite(broken)).toEqual([-7, 9]);
  });

  it('looks at all of a scan whose middle has one value', () => {
    expect(blackAndWhite(filled([8, 8, 8], (x) => (x === 0 ? 30 : 10)))).toEqual([10, 30]);
    const { automatic, range } = sampleWindow(filled([4, 4, 4], () => 3));
    expect(automatic).toEqual({ level: 3, width: 1e-6 });
    expect(range).toEqual({ lowest: 3, highest: 3 });
  });
});
