import { describe, expect, it } from 'vitest';
import type { Volume } from '../volume.ts';
import { type Affine, applyAffine, composeAffine, identity, multiply } from './affine.ts';
import { resampleThrough, transformPoint, transformPoints } from './displacement.ts';
import { oblique, patterned, rotation, voxelAt } from './fixtures.ts';
import { cropGrid } from './grid.ts';
import { resample } from './resample.ts';

/** A displacement that is an affine function of the place, so that linear interpolation is exact. */
function field(matrix: Affine): Volume {
  const size = [6, 5, 4] as const;
  const affine = composeAffine([14, 16, 19], rotation(0.2, -0.1, 0.3), [-30, -40, 0]);
  const n = 120;
  const voxels = new Float64Array(3 * n);
  let i = 0;
  for (let z = 0; z < 4; z++) {
    for (let y = 0; y < 5; y++) {
      for (let x = 0; x < 6; x++, i++) {
        const p = applyAffine(affine, [x, y, z]);
        applyAffine(matrix, p).forEach((v, c) => {
          voxels[c * n + i] = v - p[c];
        });
      }
    }
  }
  return { voxels, size, components: 3, affine };
}

const matrix = multiply(
  [1, 0, 0, 3, 0, 1, 0, -2, 0, 0, 1, 1.5, 0, 0, 0, 1],
  composeAffine([1.05, 0.95, 1], rotation(0.05, 0, -0.04), [0, 0, 0]),
);

describe('transformPoint()', () => {
  it('agrees for a matrix and the displacement grid of the same map', () => {
    const displacement = field(matrix);
    for (const index of [
      [2.3, 1.1, 2.9],
      [0, 0, 0],
      [5, 4, 3],
    ] as const) {
      const p = applyAffine(displacement.affine, index);
      const moved = transformPoint({ kind: 'grid', displacement }, p);
      transformPoint({ kind: 'linear', matrix }, p).forEach((v, k) => {
        expect(moved[k]).toBeCloseTo(v, 9);
      });
    }
  });

  it('leaves points outside the displacement grid where they are', () => {
    const points = [
      [900, 0, 0],
      [0, -900, 5],
    ] as const;
    expect(transformPoints({ kind: 'grid', displacement: field(matrix) }, points)).toEqual(points);
  });

  it('refuses a grid without three components', () => {
    expect(() => transformPoint({ kind: 'grid', displacement: patterned([3, 3, 3]) }, [0, 0, 0])).toThrow(
      /Give 3 /,
    );
  });
});

describe('resampleThrough()', () => {
  const volume = patterned(
    [7, 5, 6],
    composeAffine([3, 4, 5], rotation(0.1, 0.2, -0.3), [-5, -5, 20]),
    'float32',
  );

  it('moves the image against the transform, as ITK', () => {
    // Output point + 3 mm along the first axis is the input point: what was at voxel 2 is seen at voxel 1.
    const step = [volume.affine[0], volume.affine[4], volume.affine[8]];
    const shift = [...identity];
    for (let k = 0; k < 3; k++) shift[4 * k + 3] = step[k];
    const out = resampleThrough(volume, volume, { kind: 'linear', matrix: shift }, { mode: 'nearest' });
    expect(voxelAt(out, [1, 2, 3])).toBe(voxelAt(volume, [2, 2, 3]));
    expect(voxelAt(out, [6, 2, 3])).toBe(0);
  });

  it('gives the same for a matrix and its displacement grid in every mode', () => {
    const grid = {
      size: [8, 6, 7] as const,
      affine: composeAffine([2.3, 3.1, 4.1], rotation(0, 0.1, 0.2), [-4, -4, 21]),
    };
    for (const mode of ['nearest', 'linear', 'cubic'] as const) {
      const a = resampleThrough(volume, grid, { kind: 'linear', matrix }, { mode, fill: -9 });
      const b = resampleThrough(
        volume,
        grid,
        { kind: 'grid', displacement: field(matrix) },
        { mode, fill: -9 },
      );
      expect(a.voxels.some((v) => v !== -9)).toBe(true);
      for (let i = 0; i < a.voxels.length; i++) expect(b.voxels[i]).toBeCloseTo(Number(a.voxels[i]), 3);
    }
  });

  it('is resample() for a displacement of zero', () => {
    const still = { kind: 'grid', displacement: field(identity) } as const;
    const grid = { ...cropGrid(volume, [0.3, 0.2, -0.4], [6, 5, 5]) };
    const a = resample(volume, grid, { mode: 'linear' });
    const b = resampleThrough(volume, grid, still, { mode: 'linear' });
    for (let i = 0; i < a.voxels.length; i++) expect(b.voxels[i]).toBeCloseTo(Number(a.voxels[i]), 4);
  });

  it('refuses a matrix without inverse', () => {
    expect(() => resampleThrough(volume, volume, { kind: 'linear', matrix: oblique.map(() => 0) })).toThrow(
      /singular/,
    );
  });
});
