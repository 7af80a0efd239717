import { describe, expect, it } from 'vitest';
import { oblique, patterned } from '../geometry/fixtures.ts';
import type { Volume } from '../volume.ts';
import { apply, row, values } from './fixtures.ts';
import { intensityTransforms, suvAfter, suvFactor } from './intensity.ts';
import { imageTransforms } from './table.ts';

const parse = (name: string, parameters: object) => {
  const transform = intensityTransforms.find((one) => one.name === name);
  if (!transform) throw new Error(`no transform ${name}`);
  return transform.parameters.safeParse(parameters);
};

describe('intensityTransforms', () => {
  it('stand in the order of the documentation', () => {
    expect(intensityTransforms.map(({ name }) => name)).toEqual([
      'standardUptakeValue',
      'scaleIntensity',
      'scaleIntensityRange',
      'scaleIntensityRangePercentiles',
      'clipIntensityPercentiles',
      'normalizeIntensity',
      'divideByMax',
      'thresholdIntensity',
      'castToType',
      'gaussianSmooth',
      'medianSmooth',
    ]);
  });

  it.each([
    ['standardUptakeValue', {}, { withoutHeader: 'refuse' }],
    ['standardUptakeValue', { withoutHeader: 'suv' }, { withoutHeader: 'suv' }],
    ['scaleIntensity', {}, { minv: 0, maxv: 1, channelWise: false }],
    ['scaleIntensityRange', { aMin: -1, aMax: 2 }, { aMin: -1, aMax: 2, bMin: 0, bMax: 1, clip: false }],
    [
      'scaleIntensityRangePercentiles',
      { lower: 0, upper: 100 },
      { lower: 0, upper: 100, bMin: 0, bMax: 1, clip: false, relative: false, channelWise: false },
    ],
    ['clipIntensityPercentiles', { lower: 0 }, { lower: 0, channelWise: false }],
    ['clipIntensityPercentiles', { lower: 99.5 }, { lower: 99.5, channelWise: false }],
    ['clipIntensityPercentiles', { upper: 100 }, { upper: 100, channelWise: false }],
    ['normalizeIntensity', {}, { nonzero: false, mask: 'all', foreground: false, channelWise: false }],
    [
      'normalizeIntensity',
      { nonzero: true },
      { nonzero: true, mask: 'all', foreground: false, channelWise: false },
    ],
    ['divideByMax', {}, { channelWise: false }],
    ['thresholdIntensity', { threshold: 3 }, { threshold: 3, above: true, cval: 0 }],
    ['castToType', { dtype: 'int16' }, { dtype: 'int16' }],
    ['gaussianSmooth', {}, {}],
    ['gaussianSmooth', { sigma: 0 }, { sigma: 0 }],
    ['gaussianSmooth', { sigma: 1000 }, { sigma: 1000 }],
    ['gaussianSmooth', { sigmaMm: [0, 1000, 0] }, { sigmaMm: [0, 1000, 0] }],
    ['gaussianSmooth', { sigmaMm: [1000, 0, 1000] }, { sigmaMm: [1000, 0, 1000] }],
    ['medianSmooth', {}, { radius: 1 }],
    ['medianSmooth', { radius: 5 }, { radius: 5 }],
  ])('%s takes %j, with its defaults', (name, given, whole) => {
    expect(parse(name, given).data).toEqual(whole);
  });

  it.each([
    ['scaleIntensityRange', { aMin: 1, aMax: 1 }, ['aMax'], 'greater than aMin'],
    ['scaleIntensityRange', { aMin: 1, aMax: 0 }, ['aMax'], 'greater than aMin'],
    ['scaleIntensityRangePercentiles', { lower: 5, upper: 5 }, ['upper'], 'greater than lower'],
    ['scaleIntensityRangePercentiles', { lower: -0.5, upper: 5 }, ['lower'], '0'],
    ['scaleIntensityRangePercentiles', { lower: 5, upper: 100.5 }, ['upper'], '100'],
    ['clipIntensityPercentiles', {}, [], 'lower, upper or both'],
    ['clipIntensityPercentiles', { lower: 50, upper: 50 }, ['upper'], 'greater than lower'],
    ['clipIntensityPercentiles', { upper: 0 }, ['upper'], 'greater than lower'],
    ['clipIntensityPercentiles', { lower: 100 }, ['upper'], 'greater than lower'],
    ['normalizeIntensity', { divisor: 0 }, ['divisor'], '0'],
    ['normalizeIntensity', { nonzero: true, mask: 'nonzero' }, ['mask'], 'nonzero'],
    ['normalizeIntensity', { mask: 'some' }, ['mask'], 'aboveMean'],
    ['normalizeIntensity', { foreground: true, mask: 'aboveMean' }, ['foreground'], 'nonzero or mask'],
    ['normalizeIntensity', { foreground: true, nonzero: true }, ['foreground'], 'nonzero or mask'],
    ['gaussianSmooth', { sigma: 1, sigmaMm: 1 }, [], 'not both'],
    ['gaussianSmooth', { sigma: -0.5 }, ['sigma'], ''],
    ['gaussianSmooth', { sigma: 1000.5 }, ['sigma'], ''],
    ['gaussianSmooth', { sigma: [-0.5, 0, 0] }, ['sigma', 0], ''],
    ['gaussianSmooth', { sigma: [0, -0.5, 0] }, ['sigma', 1], ''],
    ['gaussianSmooth', { sigma: [0, 0, -0.5] }, ['sigma', 2], ''],
    ['gaussianSmooth', { sigma: [1000.5, 0, 0] }, ['sigma', 0], ''],
    ['gaussianSmooth', { sigma: [0, 1000.5, 0] }, ['sigma', 1], ''],
    ['gaussianSmooth', { sigma: [0, 0, 1000.5] }, ['sigma', 2], ''],
    ['gaussianSmooth', { sigma: [1, 1] }, ['sigma'], ''],
    ['medianSmooth', { radius: 0 }, ['radius'], '1'],
    ['medianSmooth', { radius: 6 }, ['radius'], '5'],
    ['medianSmooth', { radius: 1.5 }, ['radius'], 'int'],
  ])('%s refuses %j', (name, given, path, text) => {
    const issue = parse(name, given).error?.issues[0];
    expect(issue?.path).toEqual(path);
    expect(issue?.message).toContain(text);
  });
});

/** Two components of three voxels in a row. */
const pair = (...numbers: number[]): Volume => ({ ...row(...numbers), size: [3, 1, 1], components: 2 });

describe('channelWise', () => {
  it.each([
    ['scaleIntensity', {}, [0, 0.2, 0.4, 0.4, 0.6, 1], [0, 0.5, 1, 0, 0.33333, 1]],
    [
      'scaleIntensityRangePercentiles',
      { lower: 0, upper: 100, bMax: 10 },
      [0, 2, 4, 4, 6, 10],
      [0, 5, 10, 0, 3.33333, 10],
    ],
    ['clipIntensityPercentiles', { lower: 20, upper: 80 }, [1, 1, 2, 2, 3, 3], [0.4, 1, 1.6, 2.4, 3, 4.2]],
    ['divideByMax', {}, [0, 0.2, 0.4, 0.4, 0.6, 1], [0, 0.5, 1, 0.4, 0.6, 1]],
    // All: mean 13/6. Components: mean 1 and √(2/3), mean 10/3 and √(14/9).
    [
      'normalizeIntensity',
      { divisor: 1 },
      [-2.16667, -1.16667, -0.16667, -0.16667, 0.83333, 2.83333],
      [-1, 0, 1, -1.33333, -0.33333, 1.66667],
    ],
    [
      'normalizeIntensity',
      { subtrahend: 0, nonzero: true },
      [0, 0.73721, 1.47442, 1.47442, 2.21163, 3.68605],
      [0, 2, 4, 1.60357, 2.40535, 4.00892],
    ],
  ])('gives for %s %j other values', async (name, parameters, together, apart) => {
    const volume = pair(0, 1, 2, 2, 3, 5);
    expect(await values(volume, [name, parameters])).toEqual(together);
    expect(await values(volume, [name, { ...parameters, channelWise: true }])).toEqual(apart);
  });
});

describe('scaleIntensityRange', () => {
  it('clips to the range whichever end is larger', async () => {
    const down = { aMin: 0, aMax: 10, bMin: 4, bMax: -1 };
    expect(await values(row(-10, 0, 5, 10, 20), ['scaleIntensityRange', down])).toEqual([9, 4, 1.5, -1, -6]);
    expect(await values(row(-10, 0, 5, 10, 20), ['scaleIntensityRange', { ...down, clip: true }])).toEqual([
      4, 4, 1.5, -1, -1,
    ]);
  });

  it('gives 0 where the result is not a finite float32', async () => {
    const out = await values(row(1, 1e30), ['scaleIntensityRange', { aMin: 0, aMax: 1e-20, bMax: 1 }]);
    expect(out).toEqual([Math.fround(1e20), 0]);
  });
});

describe('scaleIntensityRangePercentiles', () => {
  it('only shifts where both percentiles are equal', async () => {
    const line = row(3, 3, 3, 3, 9);
    const range = { lower: 0, upper: 50, bMin: 2, bMax: 7 };
    expect(await values(line, ['scaleIntensityRangePercentiles', range])).toEqual([2, 2, 2, 2, 8]);
  });

  it('takes relative percentiles of the way from bMin to bMax', async () => {
    const line = row(...Array.from({ length: 11 }, (_, i) => i));
    const range = { lower: 10, upper: 80, bMin: 10, bMax: 60, relative: true };
    // 1 becomes 15, and 8 becomes 50: five a step.
    expect(await values(line, ['scaleIntensityRangePercentiles', range])).toEqual([
      10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60,
    ]);
    expect(await values(line, ['scaleIntensityRangePercentiles', { ...range, clip: true }])).toEqual([
      15, 15, 20, 25, 30, 35, 40, 45, 50, 50, 50,
    ]);
  });
});

describe('clipIntensityPercentiles', () => {
  it('limits one end alone where one is given', async () => {
    const line = row(-50, 1, 2, 3, 90);
    expect(await values(line, ['clipIntensityPercentiles', { lower: 25 }])).toEqual([1, 1, 2, 3, 90]);
    expect(await values(line, ['clipIntensityPercentiles', { upper: 75 }])).toEqual([-50, 1, 2, 3, 3]);
    expect(await values(line, ['clipIntensityPercentiles', { lower: 25, upper: 50 }])).toEqual([
      1, 1, 2, 2, 2,
    ]);
  });

  it('gives infinities the limit of their end, or 0', async () => {
    const line = row(-Infinity, 1, 2, 3, Infinity);
    expect(await values(line, ['clipIntensityPercentiles', { lower: 50 }])).toEqual([2, 2, 2, 3, 0]);
    expect(await values(line, ['clipIntensityPercentiles', { upper: 50 }])).toEqual([0, 1, 2, 2, 2]);
  });
});

describe('normalizeIntensity', () => {
  it('measures only what is not given', async () => {
    // Mean 3 and deviation 2.
    const line = row(1, 5, 1, 5);
    expect(await values(line, ['normalizeIntensity'])).toEqual([-1, 1, -1, 1]);
    expect(await values(line, ['normalizeIntensity', { subtrahend: 2 }])).toEqual([-0.5, 1.5, -0.5, 1.5]);
    expect(await values(line, ['normalizeIntensity', { divisor: 4 }])).toEqual([-0.5, 0.5, -0.5, 0.5]);
  });

  it('takes a deviation of 0 for 1', async () => {
    expect(await values(row(3, 3), ['normalizeIntensity', { subtrahend: 1 }])).toEqual([2, 2]);
    expect(await values(row(0, 0), ['normalizeIntensity', { subtrahend: 1 }])).toEqual([-1, -1]);
  });

  it('leaves zeros with nonzero, whatever is subtracted', async () => {
    const given = { nonzero: true, subtrahend: 1, divisor: 2 };
    expect(await values(row(0, 5, -3, Number.NaN), ['normalizeIntensity', given])).toEqual([0, 2, -2, 0]);
  });
});

describe('divideByMax', () => {
  it('divides by any positive value and by no other', async () => {
    expect(await values(row(0.25, 0.5), ['divideByMax'])).toEqual([0.5, 1]);
    expect(await values(row(-4, 0), ['divideByMax'])).toEqual([-4, 0]);
  });
});

describe('thresholdIntensity', () => {
  it('replaces what equals the threshold, above and below it', async () => {
    const line = row(-1, 0, 0.5, 1, 2, Number.NaN);
    expect(await values(line, ['thresholdIntensity', { threshold: 0.5, cval: 9 }])).toEqual([
      9, 9, 9, 1, 2, 9,
    ]);
    expect(await values(line, ['thresholdIntensity', { threshold: 0.5, above: false, cval: 9 }])).toEqual([
      -1, 0, 9, 9, 9, 9,
    ]);
    expect(await values(line, ['thresholdIntensity', { threshold: 1.5, cval: 1e39 }])).toEqual([
      0, 0, 0, 0, 2, 0,
    ]);
  });
});

describe('castToType', () => {
  it('cuts off toward 0, and keeps within the type', async () => {
    const line = row(-1.9, -0.5, 0.9, 2.5, -40_000.5, 3e9, Number.NaN);
    // numpy.array([-1.9, -0.5, 0.9, 2.5, -40000.5]).astype(numpy.int32) is [-1, 0, 0, 2, -40000].
    expect(await values(line, ['castToType', { dtype: 'int32' }])).toEqual([
      -1, 0, 0, 2, -40_000, 2_147_483_648, 0,
    ]);
    expect(await values(line, ['castToType', { dtype: 'int16' }])).toEqual([-1, 0, 0, 2, -32_768, 32_767, 0]);
  });
});

describe('gaussianSmooth', () => {
  it('smooths with one voxel by default, one number along all axes', async () => {
    const volume = patterned([7, 5, 6], oblique, 'int16');
    const { voxels } = await apply(volume, ['gaussianSmooth', { sigma: [1, 1, 1] }]);
    expect((await apply(volume, ['gaussianSmooth'])).voxels).toEqual(voxels);
    expect((await apply(volume, ['gaussianSmooth', { sigma: 1 }])).voxels).toEqual(voxels);
    expect((await apply(volume, ['gaussianSmooth', { sigma: 2 }])).voxels).not.toEqual(voxels);
  });

  it('divides millimetres by the spacing of each axis', async () => {
    // 1.2, 0.8 and 2.5 mm.
    const volume = patterned([7, 5, 6], oblique, 'int16');
    for (const [sigmaMm, sigma] of [
      [
        [2.4, 0.8, 5],
        [2, 1, 2],
      ],
      [
        [0.6, 1.6, 0],
        [0.5, 2, 0],
      ],
      [3, [2.5, 3.75, 1.2]],
    ]) {
      const inMm = (await apply(volume, ['gaussianSmooth', { sigmaMm }])).voxels as Float32Array;
      const inVoxels = (await apply(volume, ['gaussianSmooth', { sigma }])).voxels as Float32Array;
      expect([...inMm]).toEqual([...inVoxels].map((v) => expect.closeTo(v, 4)));
    }
  });
});

describe('medianSmooth', () => {
  it('takes integers of 64 bits and gives float32', async () => {
    const line = { ...row(), voxels: BigInt64Array.of(5n, 1n, 9n, -7n), size: [4, 1, 1] as const };
    const out = await apply(line, ['medianSmooth']);
    expect(out.voxels).toEqual(Float32Array.of(5, 5, 1, -7));
  });

  it('widens with the radius', async () => {
    const line = row(0, 0, 4, 5, 6, 0, 0);
    expect(await values(line, ['medianSmooth'])).toEqual([0, 0, 4, 5, 5, 0, 0]);
    expect(await values(line, ['medianSmooth', { radius: 2 }])).toEqual([0, 0, 4, 4, 4, 0, 0]);
  });
});

describe('results', () => {
  it('reach every voxel of volumes larger than a piece', async () => {
    // 16384 voxels are handled at a time; the int8 ones of both components by a table.
    const count = 40_001;
    const numbers = Array.from({ length: 2 * count }, (_, i) => (i % 201) - 100);
    const expected = Float32Array.from(numbers, (v) => (v + 100) / 200);
    for (const voxels of [Int8Array.from(numbers), Float32Array.from(numbers), Int32Array.from(numbers)]) {
      const volume: Volume = { voxels, size: [count, 1, 1], components: 2, affine: oblique };
      for (const channelWise of [false, true]) {
        const out = (await apply(volume, ['scaleIntensity', { channelWise }])).voxels as Float32Array;
        const worst = out.reduce((most, v, i) => Math.max(most, Math.abs(v - expected[i])), 0);
        expect(worst).toBeLessThan(1e-6);
        expect(out.length).toBe(2 * count);
      }
    }
  });
});

describe('standardUptakeValue', () => {
  it('multiplies by the factor of the header, once', async () => {
    const pet: Volume = { ...row(0, 1000, -4, 40_000), suv: { factor: 0.0005 } };
    expect(await values(pet, ['standardUptakeValue'])).toEqual([0, 0.5, -0.002, 20]);
    expect(await values(pet, ['standardUptakeValue'], ['standardUptakeValue'])).toEqual([0, 0.5, -0.002, 20]);
  });

  it('refuses a volume without a header, unless its values count as SUV', async () => {
    await expect(apply(row(3, 4), ['standardUptakeValue'])).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringMatching(/only DICOM files hold the weight.* Send the DICOM series/),
    });
    expect(await values(row(3, 4), ['standardUptakeValue', { withoutHeader: 'suv' }])).toEqual([3, 4]);
  });

  it('refuses a DICOM series without a factor, whatever counts as SUV', async () => {
    const ct: Volume = { ...row(3, 4), suv: { refusal: 'No SUV: a CT' } };
    for (const withoutHeader of ['refuse', 'suv'])
      await expect(apply(ct, ['standardUptakeValue', { withoutHeader }])).rejects.toThrow('No SUV: a CT.');
  });
});

describe('suvAfter()', () => {
  const before: Volume = { ...row(1, 2), suv: { factor: 3 } };
  const after = (name: string, volume = before) =>
    suvAfter(imageTransforms.find((one) => one.name === name)!, volume, row(5));

  it('keeps the factor of volumes that were moved alone', () => {
    expect(after('spacing')).toEqual({ factor: 3 });
    expect(after('spacing', row(1))).toBeUndefined();
  });

  it('gives none for values that were changed, with the step that did', () => {
    expect(() => suvFactor(after('normalizeIntensity'), 'suv')).toThrow(/by normalizeIntensity before/);
    expect(after('normalizeIntensity', row(1))).toBeUndefined();
  });
});
