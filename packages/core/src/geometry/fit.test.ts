import { describe, expect, it } from 'vitest';
import { type Size, type Volume, voxelCount } from '../volume.ts';
import { applyAffine, composeAffine, spacingOf, type Vec3 } from './affine.ts';
import { fitOf, fittedGrid, fitVolume, linearPlace, nearestPlace } from './fit.ts';
import { oblique, patterned, rotation, voxelAt } from './fixtures.ts';
import { corners, sameGrid } from './grid.ts';
import { resample } from './resample.ts';

/** Oblique, left-handed, 1.2 × 0.8 × 2.5 mm. */
const scan = patterned([5, 4, 3], oblique, 'float32', 2);
const fitted = fittedGrid(scan, [1.5, 0.5, 3]);
const component = ({ voxels, size }: Volume, c: number) =>
  Array.from(voxels as Float32Array).slice(c * voxelCount({ size }), (c + 1) * voxelCount({ size }));
const near = (values: readonly number[]) => values.map((v) => expect.closeTo(v, 3));

describe('fittedGrid()', () => {
  it('keeps both outer edges of every axis', () => {
    const [before, after] = [corners(scan, 'edges'), corners(fitted, 'edges')];
    after.forEach((corner, i) => {
      corner.forEach((mm, axis) => {
        expect(mm).toBeCloseTo(before[i][axis], 9);
      });
    });
  });

  it('rounds n · old / new, halves to the even number', () => {
    // 5 · 1.2 / 1.5 = 4, 4 · 0.8 / 0.5 = 6.4, 3 · 2.5 / 3 = 2.5.
    expect(fitted.size).toEqual([4, 6, 2]);
    // 3 · 2.5 / 2.142857142857143 = 3.5.
    expect(fittedGrid(scan, [0, -1, 7.5 / 3.5]).size).toEqual([5, 4, 4]);
    expect(fittedGrid(scan, [100, 100, 100]).size).toEqual([1, 1, 1]);
  });

  it('decides a half as the file does where an oblique affine was stored in float32', () => {
    const affine = Array.from(Float32Array.from(oblique));
    expect(spacingOf(affine)[2]).not.toBe(2.5);
    expect(fittedGrid({ size: [5, 4, 3], affine }, [1.5, 0.5, 3]).size).toEqual([4, 6, 2]);
    // Along the axes of the world a float32 is the spacing itself: 2.3 is a little less, so that 5 · 2.3 / 1 is under 11.5.
    const straight = [Math.fround(2.3), 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
    expect(fittedGrid({ size: [5, 4, 3], affine: straight }, [1, 1, 1]).size).toEqual([11, 4, 3]);
  });
});

describe('fitOf()', () => {
  const gridOf = (spacing: Vec3) => ({
    size: [9, 8, 7] as const,
    affine: composeAffine(spacing, rotation(0.1, -0.2, 0.3), [1, 2, 3]),
  });
  const axesOf = (from: Vec3, to: Vec3) => {
    const fit = fitOf(gridOf(from), to, 'auto');
    return [fit.sliceAxis, fit.sliceAxisBack];
  };

  it('separate auto takes the coarse axis above 3 times the finest spacing', () => {
    expect(axesOf([1, 1, 3.1], [1, 1, 1])).toEqual([2, 2]);
    expect(axesOf([4, 1, 1], [1, 1, 1])).toEqual([0, 0]);
    expect(axesOf([1, 1, 3], [1, 1, 1])).toEqual([undefined, undefined]);
    // The target decides where the volume itself is not anisotropic.
    expect(axesOf([1, 1, 2], [1, 5, 1])).toEqual([1, 1]);
    // Both are: the spacing of the volume in hand decides, which is another one on the way back.
    expect(axesOf([1, 1, 5], [1, 5, 1])).toEqual([2, 1]);
    // Two axes share the largest spacing.
    expect(axesOf([0.25, 1.25, 1.25], [1, 1, 1])).toEqual([undefined, undefined]);
    expect(axesOf([1, 1, 6], [0, 0, 0])).toEqual([2, 2]);
  });

  it('separate names an axis, and without it there is none', () => {
    const grid = gridOf([1, 1, 5]);
    expect(fitOf(grid, [2, 2, 2], 'y')).toMatchObject({ sliceAxis: 1, sliceAxisBack: 1 });
    expect(fitOf(grid, [2, 2, 2])).toMatchObject({ sliceAxis: undefined, sliceAxisBack: undefined });
  });
});

// scipy 1.17.1: ndimage.zoom(mode='nearest', grid_mode=True), limited to the range of the source, as skimage's resize does; with
// slices each by itself, then ndimage.map_coordinates(order=0) along the third axis. x runs fastest.
describe('fitVolume()', () => {
  it('cubic has the values of skimage’s resize', () => {
    const made = fitVolume(scan, fitted, 'cubic');
    expect(sameGrid(made, fitted)).toBe(true);
    expect(component(made, 1)).toEqual(
      near([
        ...[3.8725, 13.2064, 27.6467, 0.6347, 13.7259, 17.4713, 18.2093, 15.026, 18.3069, 21.0061, 8.9885],
        ...[27.0739, 8.025, 19.7693, 11.7276, 20.8605, 8.9468, 21.2908, 19.5938, 16.4136, 15.6781, 23.8378],
        ...[24.7351, 16.7313, 1.0882, 10.3856, 21.2931, 22.6078, 7.3558, 14.7568, 13.3861, 23.4345, 18.8874],
        ...[17.1431, 5.9471, 21.897, 26.8795, 13.7536, 9.002, 16.6577, 19.7103, 16.2728, 16.5036, 13.6669],
        ...[10.0223, 20.7575, 21.3439, 13.2537],
      ]),
    );
  });

  it('cubic with slices along z has the values of nnU-Net', () => {
    expect(component(fitVolume(scan, fitted, 'cubic', 2), 1)).toEqual(
      near([
        ...[4.0345, 13.5882, 27.774, 2.5794, 14.8195, 17.7215, 18.4623, 16.1006, 17.6201, 21.4479, 9.3024],
        ...[27.2838, 2.6336, 20.773, 11.9216, 21.1443, 5.6373, 22.0487, 19.8264, 16.7854, 16.5955, 24.0911],
        ...[25.0744, 17.0459, 1, 10.2217, 20.1915, 28.8027, 7.2173, 14.4821, 12.7061, 26.1356, 18.3128],
        ...[16.8377, 5.6726, 21.1056, 25.1352, 13.5937, 8.6687, 16.1286, 18.4828, 16.0601, 16.1385, 13.5075],
        ...[9.8457, 20.415, 21.0273, 12.8956],
      ]),
    );
  });

  it('cubic with slices along x has the values of nnU-Net, limited slice by slice', () => {
    expect(component(fitVolume(scan, fitted, 'cubic', 0), 0)).toEqual(
      near([
        ...[6.2432, 5.0394, 21.0194, 28, 7.7281, 16.6138, 17.8842, 25.1172, 15.5081, 21.3718, 8.752, 20.6214],
        ...[25.5581, 8.9799, 1, 16.7303, 17.8121, 13.7378, 12.016, 12.2345, 6.05, 24, 26.676, 9.303],
        ...[29, 3, 18.35, 24.697, 17.3642, 13.2622, 11.2231, 21.7655, 10.1483, 18.0201, 9.7411, 17.2697],
        ...[
          21.3145, 5.6282, 21.4745, 13.3786, 15.1598, 10.3862, 24.2621, 8.8828, 2.5542, 21.9606, 20.7781, 6,
        ],
      ]),
    );
  });

  it('linear has the values of skimage’s resize, and so has nearest', () => {
    expect(component(fitVolume(scan, fitted, 'linear'), 0)).toEqual(
      near([
        ...[7.1562, 9.125, 17.875, 26.625, 10.4531, 11.875, 12.8125, 23.4375, 15.3333, 14.25, 8, 19.1875],
        ...[21.6667, 12.75, 9, 14.9375, 16.375, 15.125, 13.875, 12.625, 9.5, 17.875, 18.5, 11.375],
        ...[
          24.5, 6.125, 14.875, 23.625, 17.625, 13.2344, 14.1719, 20.4375, 12.3333, 18.5156, 14.6875, 16.6719,
        ],
        ...[18.6667, 11.2031, 19.5625, 14.3594, 13.375, 12.125, 18.1406, 11.0781, 6.5, 14.875, 15.5, 8.375],
      ]),
    );
    const nearest = fitVolume(patterned([5, 4, 3]), fitted, 'nearest');
    expect(nearest.voxels).toBeInstanceOf(Int16Array);
    expect([...(nearest.voxels as Int16Array)]).toEqual([
      ...[0, 7, 21, 28, 13, 23, 12, 22, 13, 23, 12, 22, 26, 8, 3, 16, 8, 24, 25, 10, 8, 24, 25, 10],
      ...[27, 3, 17, 24, 9, 19, 8, 18, 9, 19, 8, 18, 22, 4, 30, 12, 4, 20, 21, 6, 4, 20, 21, 6],
    ]);
  });

  it.each([undefined, 0, 1, 2] as const)(
    'keeps every voxel at its place in the world, slices along %s',
    (axis) => {
      // Each component holds a coordinate in mm, which is linear: exact between the outermost centres.
      const size: Size = [7, 5, 6];
      const n = voxelCount({ size });
      const voxels = new Float64Array(3 * n);
      for (let i = 0; i < n; i++)
        applyAffine(oblique, [i % 7, Math.floor(i / 7) % 5, Math.floor(i / 35)]).forEach((mm, c) => {
          voxels[c * n + i] = mm;
        });
      const volume = { voxels, size, components: 3, affine: oblique };
      const made = fitVolume(volume, fittedGrid(volume, [1, 1.3, 1.7]), 'linear', axis);
      expect(made.size).toEqual([8, 3, 9]);
      const old = [0, 1, 2].map((k) => size[k] / made.size[k]);
      let compared = 0;
      for (let z = 1; z < 8; z++)
        for (let y = 1; y < 2; y++)
          for (let x = 1; x < 7; x++) {
            const index = [x, y, z].map((i, k) => {
              const p = old[k] * (i + 0.5) - 0.5;
              return k === axis ? Math.floor(p + 0.5) : p;
            }) as unknown as Vec3;
            const place = applyAffine(oblique, index);
            if (axis === undefined)
              applyAffine(made.affine, [x, y, z]).forEach((mm, c) => {
                expect(mm).toBeCloseTo(place[c], 6);
              });
            place.forEach((mm, c) => {
              expect(voxelAt(made, [x, y, z], c)).toBeCloseTo(mm, 4);
            });
            compared++;
          }
      expect(compared).toBe(42);
    },
  );

  it('linear equals resample(), which takes the places from the affine', () => {
    const made = component(fitVolume(scan, fitted, 'linear'), 0);
    expect(made).toEqual(near(component(resample(scan, fitted, { mode: 'linear', outside: 'edge' }), 0)));
  });

  it('limits cubic to the range of the source, which resample() leaves', () => {
    const voxels = Float32Array.of(2, 2, 2, 10, 10, 10);
    const step: Volume = { voxels, size: [6, 1, 1], components: 1, affine: oblique };
    const grid = fittedGrid(step, [0.7, 0, 0]);
    const range = ({ voxels: v }: Volume) => [
      Math.min(...(v as Float32Array)),
      Math.max(...(v as Float32Array)),
    ];
    const [least, most] = range(resample(step, grid, { mode: 'cubic', outside: 'edge' }));
    expect(least).toBeLessThan(1.9);
    expect(most).toBeGreaterThan(10.1);
    expect(range(fitVolume(step, grid, 'cubic'))).toEqual([2, 10]);
  });

  it('gives the same voxels where the size stays, also of an axis alone', () => {
    expect(fitVolume(scan, scan, 'cubic', 2).voxels).toBe(scan.voxels);
    const wide = fitVolume(scan, { ...fitted, size: [5, 4, 6] }, 'cubic');
    const line = (volume: Volume, z: number) => [0, 1, 2, 3, 4].map((x) => voxelAt(volume, [x, 2, z]));
    expect(line(wide, 0)).not.toEqual(line(scan, 0));
    expect(fitVolume(patterned([5, 4, 3]), scan, 'cubic').voxels).toBeInstanceOf(Float32Array);
  });

  it('keeps a voxel that is not a number within its neighbourhood, linear', () => {
    const voxels = (scan.voxels as Float32Array).slice();
    voxels[0] = Number.NaN;
    const made = fitVolume({ ...scan, voxels }, fitted, 'linear');
    expect(Number.isNaN(made.voxels[0])).toBe(true);
    expect(component(made, 1).some(Number.isNaN)).toBe(false);
    expect(Number.isNaN(voxelAt(made, [3, 5, 1]))).toBe(false);
  });

  it('refuses more voxels than a grid may have', () => {
    const huge = { size: [2 ** 11, 2 ** 11, 2 ** 11] as const, affine: oblique };
    expect(() => fitVolume(scan, huge, 'cubic')).toThrow(
      expect.objectContaining({ code: 'TOO_MANY_VOXELS' }),
    );
  });
});

describe('nearestPlace()', () => {
  it('has nnU-Net’s arithmetic: just under a half stays below', () => {
    // 26 slices that were 23: (26/23) · 11.5 − 0.5 is 12.499999999999998 in double.
    expect(nearestPlace(11, 26, 23)).toBe(12);
    expect(nearestPlace(0, 1, 5)).toBe(0);
    expect([0, 1, 2].map((i) => nearestPlace(i, 6, 3))).toEqual([1, 3, 5]);
    expect([0, 1, 2, 3, 4, 5].map((i) => nearestPlace(i, 3, 6))).toEqual([0, 0, 1, 1, 2, 2]);
  });
});

describe('linearPlace()', () => {
  it('stays between the outermost centres', () => {
    expect([0, 1, 2, 3].map((i) => linearPlace(i, 2, 4))).toEqual([0, 0.25, 0.75, 1]);
    expect(linearPlace(0, 4, 2)).toBe(0.5);
  });
});
