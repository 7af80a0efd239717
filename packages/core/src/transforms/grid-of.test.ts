import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { affinesEqual, applyAffine, composeAffine, determinant, shiftIndex } from '../geometry/affine.ts';
import { oblique, patterned, rotation, voxelAt } from '../geometry/fixtures.ts';
import { corners, inverseAffine } from '../geometry/grid.ts';
import { resample } from '../geometry/resample.ts';
import { labelTransforms } from '../labels/table.ts';
import { type Grid, type Volume, voxelCount } from '../volume.ts';
import { parameterSets } from './fixtures.ts';
import { spatialTransforms } from './spatial.ts';
import { imageTransforms } from './table.ts';
import { defineTransform, keepsGrid, type VolumeTransform } from './transform.ts';

/** Asymmetric, anisotropic, oblique: left-handed, right-handed, sheared, and with axes that lie in another order. */
const rightHanded = composeAffine([0.7, 1.9, 3.1], rotation(-0.7, 0.2, 1.1), [-40, 3, 8]);
const sheared = oblique.map((v, i) => (i === 1 ? v + 0.4 : v));
const permuted = [...[0.1, 0.2, -2, 60], ...[-1.1, 0, 0.3, -9], ...[0.1, 3, 0.1, 5], ...[0, 0, 0, 1]];
const labelMaps = [
  patterned([7, 5, 6], oblique, 'uint8'),
  patterned([4, 9, 3], rightHanded, 'uint8'),
  patterned([1, 6, 11], sheared, 'uint16'),
  patterned([8, 3, 5], permuted, 'uint8'),
];
const images = [
  patterned([7, 5, 6], oblique, 'int16'),
  patterned([4, 9, 3], rightHanded, 'float32', 2),
  patterned([1, 6, 11], sheared, 'uint8'),
  patterned([8, 3, 5], permuted, 'float64', 3),
];

const context = { parameters: {}, log: () => {} };

/** What `gridOf` says otherwise than `apply` does; undefined where they agree. */
async function gridFault(
  transform: VolumeTransform,
  volume: Volume,
  given: object,
): Promise<string | undefined> {
  const parameters = transform.parameters.parse(given);
  const { size, affine } = volume;
  const told = transform.gridOf({ size, affine }, parameters);
  const made = await transform.apply(volume, parameters, context);
  if (made.components !== volume.components || made.voxels.length !== voxelCount(made) * made.components)
    return `${made.voxels.length} voxels of ${made.components} components on ${made.size.join(' × ')}`;
  if (transform.gridIsUpperBound)
    return liesWithin(made, told)
      ? undefined
      : `${made.size.join(' × ')} is not within ${told.size.join(' × ')}`;
  if (made.size.join() !== told.size.join())
    return `${told.size.join(' × ')} instead of ${made.size.join(' × ')}`;
  return affinesEqual(made.affine, told.affine, 1e-9) ? undefined : 'another affine';
}

/** Whether no axis is longer and no voxel lies outside. */
function liesWithin(inner: Grid, outer: Grid): boolean {
  const toIndex = inverseAffine(outer.affine);
  return (
    inner.size.every((n, axis) => n <= outer.size[axis]) &&
    corners(inner).every((corner) =>
      applyAffine(toIndex, corner).every((v, axis) => v > -1e-6 && v < outer.size[axis] - 1 + 1e-6),
    )
  );
}

describe('gridOf()', () => {
  it('is tried with volumes that are left-handed, right-handed, and differ along every axis', () => {
    expect(images.map(({ affine }) => Math.sign(determinant(affine)))).toEqual([-1, 1, -1, 1]);
    for (const { size } of images) expect(new Set(size).size).toBe(3);
  });

  it('is tried for every transform: parameterSets lists parameters for each', () => {
    const names = [...imageTransforms, ...labelTransforms].map(({ name }) => name);
    expect(Object.keys(parameterSets).sort()).toEqual(names.sort());
  });

  it.each([
    ...imageTransforms.map((transform) => [transform.name, transform, images] as const),
    ...labelTransforms.map((transform) => [transform.name, transform, labelMaps] as const),
  ])('of %s equals the grid of apply(), or contains it where declared', async (name, transform, volumes) => {
    for (const parameters of parameterSets[name] ?? []) {
      for (const volume of volumes) {
        const fault = await gridFault(transform, volume, parameters);
        expect(fault, `${JSON.stringify(parameters)} of ${volume.size.join(' × ')}`).toBeUndefined();
      }
    }
  });

  // What they make is not among what the estimate of memory counts.
  it('of a transform of labels keeps the grid', () => {
    for (const { name, gridOf, parameters } of labelTransforms)
      expect(gridOf(labelMaps[0], parameters.parse(parameterSets[name][0]))).toBe(labelMaps[0]);
  });

  it('is an upper bound of cropForeground, which crops less or more by the voxels', async () => {
    const cropForeground = imageTransforms.find(({ name }) => name === 'cropForeground')!;
    expect(cropForeground.gridIsUpperBound).toBe(true);
    const exact = { ...cropForeground, gridIsUpperBound: undefined };
    expect(await gridFault(exact, images[0], { above: 25 })).toMatch(/^7 × 5 × 6 instead of /);
  });
});

/** Axes in two orders, one of them left-handed; three components that hold the voxel's place: its world x, y and z. */
const places = [images[0], images[3]].map((grid): Volume => {
  const { size, affine } = grid;
  const count = voxelCount(grid);
  const voxels = new Float64Array(3 * count);
  for (let i = 0; i < count; i++) {
    const at = [i % size[0], Math.floor(i / size[0]) % size[1], Math.floor(i / size[0] / size[1])] as const;
    applyAffine(affine, at).forEach((v, c) => {
      voxels[c * count + i] = v;
    });
  }
  return { voxels, size, components: 3, affine };
});

/**
 * The voxels between the volume's outer centres that do not hold the place where the result's affine puts them, and how
 * many lie there. What lies outside was padded.
 */
async function placeFaults(transform: VolumeTransform, volume: Volume, given: object) {
  const made = await transform.apply(volume, transform.parameters.parse(given), context);
  const toIndex = inverseAffine(volume.affine);
  const faults: string[] = [];
  let inside = 0;
  for (let z = 0; z < made.size[2]; z++)
    for (let y = 0; y < made.size[1]; y++)
      for (let x = 0; x < made.size[0]; x++) {
        const place = applyAffine(made.affine, [x, y, z]);
        const index = applyAffine(toIndex, place);
        if (!index.every((v, axis) => v > -1e-6 && v < volume.size[axis] - 1 + 1e-6)) continue;
        inside++;
        const held = [0, 1, 2].map((c) => voxelAt(made, [x, y, z], c));
        if (held.some((v, c) => Math.abs(v - place[c]) > 1e-3)) faults.push(`${x}, ${y}, ${z}`);
      }
  return { faults, inside };
}

describe('apply() of a transform of geometry', () => {
  // Places change linearly, so linear interpolation is exact; the other modes and smoothing are not, at the border.
  const isExact = (parameters: object) => {
    const { mode, antiAlias } = parameters as { mode?: string; antiAlias?: boolean };
    return mode !== 'nearest' && mode !== 'cubic' && !antiAlias;
  };

  // This is what restore() relies on: it knows nothing but the affine.
  it.each(spatialTransforms.map((transform) => [transform.name, transform] as const))(
    '%s leaves every voxel where it was in the world',
    async (name, transform) => {
      const sets = (parameterSets[name] ?? []).filter((given) =>
        isExact(transform.parameters.parse(given) as object),
      );
      expect(sets, 'parameterSets without antiAlias, nearest and cubic').not.toEqual([]);
      for (const given of sets) {
        for (const volume of places) {
          const { faults, inside } = await placeFaults(transform, volume, given);
          const what = `${JSON.stringify(given)} of ${volume.size.join(' × ')}`;
          expect(inside, what).toBeGreaterThan(0);
          expect(faults, what).toEqual([]);
        }
      }
    },
  );
});

describe('a planted transform', () => {
  const [volume] = images;
  const [nx, ny, nz] = volume.size;
  const spatial = (name: string) => spatialTransforms.find((transform) => transform.name === name)!;
  /** Twice as many voxels along each axis. */
  const double = defineTransform({
    name: 'double',
    description: 'Made for a test.',
    parameters: z.object({}),
    gridOf: ({ size, affine }) => ({
      size: [size[0] * 2, size[1] * 2, size[2] * 2],
      affine: affine.map((v, i) => (i < 12 && i % 4 < 3 ? v / 2 : v)),
    }),
    apply: (given, _, __, grid) => resample(given, grid, { outside: 'edge' }),
  });
  const cropped: Grid = { size: [nx - 2, ny - 2, nz - 2], affine: shiftIndex(volume.affine, [1, 1, 1]) };
  const crop = { ...spatial('centerSpatialCrop'), gridOf: () => cropped };
  const toCrop = { roiSize: cropped.size };

  it('is given by apply() the grid that its gridOf() says', async () => {
    expect(await gridFault(double, volume, {})).toBeUndefined();
    expect((await double.apply(volume, {}, context)).size).toEqual([nx * 2, ny * 2, nz * 2]);
  });

  it('that changes the grid and says that it keeps it is found', async () => {
    expect(await gridFault({ ...double, gridOf: keepsGrid }, volume, {})).toBe(
      '7 × 5 × 6 instead of 14 × 10 × 12',
    );
    expect(await gridFault({ ...spatial('flip'), gridOf: keepsGrid }, volume, { axes: ['y'] })).toBe(
      'another affine',
    );
  });

  it('with an error of one voxel or a stale affine is found', async () => {
    expect(await gridFault(crop, volume, toCrop)).toBeUndefined();
    const longer = { ...crop, gridOf: () => ({ ...cropped, size: [nx - 2, ny - 2, nz - 1] as const }) };
    expect(await gridFault(longer, volume, toCrop)).toBe('5 × 3 × 5 instead of 5 × 3 × 4');
    const unmoved = { ...crop, gridOf: () => ({ ...cropped, affine: volume.affine }) };
    expect(await gridFault(unmoved, volume, toCrop)).toBe('another affine');
  });

  it('that moves voxels, in gridOf() and apply() alike, is found', async () => {
    /** Means of two voxels along x. Their place is `shift` voxels behind the first one's: a half is true. */
    const means = (shift: number) =>
      defineTransform({
        name: 'means',
        description: 'Made for a test.',
        parameters: z.object({}),
        gridOf: ({ size, affine }) => ({
          size: [size[0] >> 1, size[1], size[2]],
          affine: shiftIndex(affine, [shift, 0, 0]).map((v, i) => (i % 4 === 0 ? v * 2 : v)),
        }),
        apply({ voxels, size, components }, _, __, grid) {
          const n = grid.size[0];
          const mean = (_: unknown, i: number) => {
            const first = Math.floor(i / n) * size[0] + (i % n) * 2;
            return (Number(voxels[first]) + Number(voxels[first + 1])) / 2;
          };
          return {
            ...grid,
            components,
            voxels: Float64Array.from({ length: voxelCount(grid) * components }, mean),
          };
        },
      });
    for (const given of places) {
      expect((await placeFaults(means(0.5), given, {})).faults).toEqual([]);
      expect(await gridFault(means(0), given, {})).toBeUndefined();
      expect((await placeFaults(means(0), given, {})).faults).toContain('1, 2, 2');
    }
  });

  it('whose upper bound does not hold the result is found', async () => {
    const bound = (grid: Grid) => ({ ...crop, gridIsUpperBound: true as const, gridOf: () => grid });
    expect(await gridFault(bound(volume), volume, toCrop)).toBeUndefined();
    expect(await gridFault(bound(cropped), volume, toCrop)).toBeUndefined();
    const small: Grid = { ...cropped, size: [nx - 2, ny - 3, nz] };
    expect(await gridFault(bound(small), volume, toCrop)).toBe('5 × 3 × 4 is not within 5 × 2 × 6');
    const aside: Grid = { ...volume, affine: shiftIndex(volume.affine, [0, 0, 2]) };
    expect(await gridFault(bound(aside), volume, toCrop)).toBe('5 × 3 × 4 is not within 7 × 5 × 6');
  });

  it('that changes the number of components is found', async () => {
    const dropping: VolumeTransform = {
      ...double,
      gridOf: keepsGrid,
      apply: (given) =>
        ({ ...given, voxels: given.voxels.slice(0, voxelCount(given)), components: 1 }) as Volume,
    };
    expect(await gridFault(dropping, images[1], {})).toBe('108 voxels of 1 components on 4 × 9 × 3');
  });

  it('without gridOf() does not pass the types', () => {
    // @ts-expect-error: a transform says what grid it gives.
    defineTransform({ name: 'none', description: '', parameters: z.object({}), apply: (given) => given });
  });
});
