import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { applyAffine } from '../geometry/affine.ts';
import { createNumbers, oblique, voxelAt } from '../geometry/fixtures.ts';
import { restore } from '../geometry/restore.ts';
import type { Size, Volume } from '../volume.ts';
import { apply, logged } from './fixtures.ts';
import { foregroundMask } from './foreground.ts';

/**
 * A shell of many values, some below 0, that lacks one corner, with an empty inside; of a second component one voxel inside and one
 * to the left of the shell. Oblique, anisotropic, left-handed.
 */
const size: Size = [9, 8, 7];
const shell: Volume = { voxels: new Float32Array(2 * 504), size, components: 2, affine: oblique };
const second = 504;
for (let z = 1; z <= 5; z++)
  for (let y = 1; y <= 6; y++)
    for (let x = 2; x <= 7; x++) {
      const onSurface = x === 2 || x === 7 || y === 1 || y === 6 || z === 1 || z === 5;
      const isCorner = x === 2 && y === 1 && z === 1;
      if (onSurface && !isCorner)
        shell.voxels[(z * 8 + y) * 9 + x] = ((7 * x + 13 * y + 29 * z) % 31) - 20 || 5;
    }
shell.voxels[second + (3 * 8 + 3) * 9 + 1] = -4.5;
shell.voxels[second + (3 * 8 + 3) * 9 + 4] = 8;

/** Enclosed by its definition: everything that a flood from the border through faces does not reach. */
function floodedMask({ voxels, size: [nx, ny, nz], components }: Volume): Uint8Array {
  const n = nx * ny * nz;
  const isEmpty = (i: number) =>
    Array.from({ length: components }, (_, c) => voxels[c * n + i]).every((v) => Number(v) === 0);
  const mask = new Uint8Array(n).fill(1);
  const next: [number, number, number][] = [];
  for (let z = -1; z <= nz; z++)
    for (let y = -1; y <= ny; y++)
      for (let x = -1; x <= nx; x++)
        if (x < 0 || y < 0 || z < 0 || x === nx || y === ny || z === nz) next.push([x, y, z]);
  for (let at = next.pop(); at; at = next.pop()) {
    const [x, y, z] = at;
    for (const [dx, dy, dz] of [
      [1, 0, 0],
      [-1, 0, 0],
      [0, 1, 0],
      [0, -1, 0],
      [0, 0, 1],
      [0, 0, -1],
    ]) {
      const [u, v, w] = [x + dx, y + dy, z + dz];
      if (u < 0 || v < 0 || w < 0 || u >= nx || v >= ny || w >= nz) continue;
      const i = (w * ny + v) * nx + u;
      if (mask[i] === 0 || !isEmpty(i)) continue;
      mask[i] = 0;
      next.push([u, v, w]);
    }
  }
  return mask;
}

describe('foregroundMask()', () => {
  it('fills what faces enclose, a missing corner included', () => {
    // scipy 1.17.1: binary_fill_holes of the voxels that are not 0 in any component; 133 of them, 180 with the holes.
    const mask = foregroundMask(shell);
    const planes = [0, 1, 2, 3, 4, 5, 6].map((z) =>
      mask.subarray(z * 72, (z + 1) * 72).reduce((sum, v) => sum + v, 0),
    );
    expect(planes).toEqual([0, 35, 36, 37, 36, 36, 0]);
  });

  it('equals a flood from the border, in volumes of any shape', () => {
    fc.assert(
      fc.property(
        fc.tuple(
          fc.integer({ min: 1, max: 7 }),
          fc.integer({ min: 1, max: 6 }),
          fc.integer({ min: 1, max: 5 }),
        ),
        fc.integer({ min: 1, max: 2 }),
        fc.integer({ min: 40, max: 90 }),
        fc.integer({ min: 0, max: 2 ** 31 }),
        (size, components, percent, seed) => {
          const random = createNumbers(seed);
          const voxels = Int16Array.from({ length: size[0] * size[1] * size[2] * components }, () =>
            (random() / 2 ** 32) * 100 < percent ? -1 : 0,
          );
          const volume: Volume = { voxels, size, components, affine: oblique };
          expect(foregroundMask(volume)).toEqual(floodedMask(volume));
        },
      ),
      { numRuns: 200 },
    );
  });

  it('is the same within the crop to its box', async () => {
    const cropped = await apply(shell, ['cropForeground', { nonzero: true, fillHoles: true }]);
    const mask = foregroundMask(shell);
    const expected: number[] = [];
    for (let z = 1; z <= 5; z++)
      for (let y = 1; y <= 6; y++) for (let x = 1; x <= 7; x++) expected.push(mask[(z * 8 + y) * 9 + x]);
    expect([...foregroundMask(cropped)]).toEqual(expected);
  });

  it('counts NaN and 64-bit integers that are not 0', () => {
    const one = { size: [3, 1, 1] as Size, components: 1, affine: oblique };
    expect([...foregroundMask({ ...one, voxels: Float32Array.of(0, Number.NaN, 0) })]).toEqual([0, 1, 0]);
    expect([...foregroundMask({ ...one, voxels: BigInt64Array.of(0n, 0n, -2n) })]).toEqual([0, 0, 1]);
  });
});

describe('cropForeground with nonzero', () => {
  it('keeps the box of every component’s voxels, negative ones too, in place', async () => {
    const out = await apply(shell, ['cropForeground', { nonzero: true, fillHoles: true }]);
    // scipy 1.17.1, as above: from 1, 1, 1 to 7, 6, 5.
    expect(out.size).toEqual([7, 6, 5]);
    applyAffine(out.affine, [0, 0, 0]).forEach((v, i) => {
      expect(v).toBeCloseTo(applyAffine(shell.affine, [1, 1, 1])[i], 9);
    });
    for (const component of [0, 1])
      for (const at of [
        [0, 2, 2],
        [3, 2, 2],
        [6, 5, 4],
      ] as const)
        expect(voxelAt(out, at, component)).toBe(
          voxelAt(shell, [at[0] + 1, at[1] + 1, at[2] + 1], component),
        );
    const wider = await apply(shell, ['cropForeground', { nonzero: true, margin: [3, 1, 0] }]);
    expect(wider.size).toEqual([9, 8, 5]);
  });

  it('is undone by restore(), which leaves 0 outside the box', async () => {
    const out = await apply(shell, ['cropForeground', { nonzero: true }]);
    const labels = { ...out, components: 1, voxels: new Uint8Array(7 * 6 * 5).fill(9) };
    const back = restore(labels, shell);
    for (let z = 0; z < 7; z++)
      for (let y = 0; y < 8; y++)
        for (let x = 0; x < 9; x++) {
          const isInside = x >= 1 && x <= 7 && y >= 1 && y <= 6 && z >= 1 && z <= 5;
          expect(voxelAt(back, [x, y, z])).toBe(isInside ? 9 : 0);
        }
  });

  it('leaves a volume of zeros whole, and says so', async () => {
    logged.length = 0;
    const empty = { ...shell, voxels: new Float32Array(1008) };
    expect(await apply(empty, ['cropForeground', { nonzero: true }])).toBe(empty);
    expect(logged).toEqual([expect.stringContaining('every voxel is 0')]);
  });
});

describe('normalizeIntensity with foreground', () => {
  const valuesOf = (volume: Volume, ...at: [number, number, number]) =>
    [0, 1].map((component) => voxelAt(volume, at, component));
  // Mean and deviation over the filled mask: numpy 2.4.6, scipy 1.17.1.
  it('measures the filled foreground of each component, and changes nothing else', async () => {
    const out = await apply(shell, ['normalizeIntensity', { foreground: true, channelWise: true }]);
    const [mean0, std0] = [-3.3055555555555554, 8.071966043193513];
    const [mean1, std1] = [0.019444444444444445, 0.6838694825299653];
    const mask = foregroundMask(shell);
    for (let i = 0; i < 504; i++) {
      const [a, b] = [Number(shell.voxels[i]), Number(shell.voxels[504 + i])];
      expect(out.voxels[i]).toBeCloseTo(mask[i] ? (a - mean0) / std0 : a, 5);
      expect(out.voxels[504 + i]).toBeCloseTo(mask[i] ? (b - mean1) / std1 : b, 5);
    }
    // The hole counts and is normalised; the missing corner is not.
    expect(voxelAt(out, [3, 3, 3])).toBeCloseTo(0.40951, 5);
    expect(valuesOf(out, 2, 1, 1)).toEqual([0, 0]);
  });

  it('measures all components together by default', async () => {
    const [first, other] = valuesOf(
      await apply(shell, ['normalizeIntensity', { foreground: true }]),
      7,
      4,
      2,
    );
    expect(first).toBeCloseTo(-2.40704, 5);
    expect(other).toBeCloseTo(0.27547, 5);
  });

  it('gives the same before and after the crop to the foreground', async () => {
    const crop = ['cropForeground', { nonzero: true, fillHoles: true }] as const;
    const normalise = ['normalizeIntensity', { foreground: true, channelWise: true }] as const;
    expect(await apply(shell, crop, normalise)).toEqual(await apply(shell, normalise, crop));
  });

  it('measures large volumes piece by piece as a whole', async () => {
    // 3 × 16,000 voxels: pieces of 16,384 begin within components.
    const random = createNumbers(3);
    const voxels = Float32Array.from({ length: 48_000 }, () => Math.floor(random() / 2 ** 30) * 7);
    const large: Volume = { voxels, size: [40, 20, 20], components: 3, affine: oblique };
    const mask = floodedMask(large);
    const inside = [...voxels].filter((_, i) => mask[i % 16_000]);
    const mean = inside.reduce((a, b) => a + b) / inside.length;
    const std = Math.sqrt(inside.reduce((a, b) => a + (b - mean) ** 2, 0) / inside.length);
    const out = await apply(large, ['normalizeIntensity', { foreground: true }]);
    for (let i = 0; i < 48_000; i += 77)
      expect(out.voxels[i]).toBeCloseTo(mask[i % 16_000] ? (voxels[i] - mean) / std : 0, 5);
  });

  it('takes given numbers, a deviation of 0 for 1, and NaN for 0', async () => {
    const row = { size: [4, 1, 1] as Size, components: 1, affine: oblique };
    const given = { foreground: true, subtrahend: 1, divisor: 2 };
    const normalised = async (values: number[], parameters: object) => {
      const volume: Volume = { ...row, voxels: Float32Array.from(values) };
      return [...(await apply(volume, ['normalizeIntensity', parameters])).voxels];
    };
    expect(await normalised([0, 5, Number.NaN, -3], given)).toEqual([0, 2, 0, -2]);
    expect(await normalised([0, 4, 4, 0], { foreground: true })).toEqual([0, 0, 0, 0]);
    expect(await normalised([0, 0, 0, 0], { foreground: true })).toEqual([0, 0, 0, 0]);
  });
});
