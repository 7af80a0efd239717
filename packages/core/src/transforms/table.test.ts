import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { applyAffine, composeAffine, orientationOf, spacingOf } from '../geometry/affine.ts';
import { oblique, patterned, rotation, voxelAt } from '../geometry/fixtures.ts';
import { sameGrid } from '../geometry/grid.ts';
import { restore } from '../geometry/restore.ts';
import { createVoxels, type Volume } from '../volume.ts';
import { apply, logged, parameterSets, row, values } from './fixtures.ts';
import { intensityTransforms } from './intensity.ts';
import { spatialTransforms } from './spatial.ts';
import { imageTransforms } from './table.ts';

describe('imageTransforms', () => {
  it('describes every transform and each of its parameters, strictly', () => {
    expect(new Set(imageTransforms.map((t) => t.name)).size).toBe(imageTransforms.length);
    for (const { name, description, parameters } of imageTransforms) {
      expect(name).toMatch(/^[a-z][A-Za-z]+$/);
      expect(description.length).toBeGreaterThan(20);
      const schema = z.toJSONSchema(parameters, { io: 'input' });
      expect(schema.additionalProperties).toBe(false);
      expect(parameters.safeParse({ noSuchParameter: 1 }).success).toBe(false);
    }
  });

  it('lists those of geometry, then those of intensity', () => {
    expect(imageTransforms).toEqual([...spatialTransforms, ...intensityTransforms]);
  });

  it('refuses parameters that make no sense', () => {
    const refuse = (name: string, parameters: object) => {
      const transform = imageTransforms.find((t) => t.name === name);
      expect(
        transform?.parameters.safeParse(parameters).success,
        `${name} ${JSON.stringify(parameters)}`,
      ).toBe(false);
    };
    refuse('orientation', { axcodes: 'RAX' });
    refuse('orientation', { axcodes: 'RRA' });
    refuse('spacing', { pixdim: [1, 1] });
    refuse('resize', { size: [0.5, 3, 3] });
    refuse('scaleIntensityRange', { aMin: 5, aMax: 5 });
    refuse('scaleIntensityRangePercentiles', { lower: 95, upper: 5 });
    refuse('normalizeIntensity', { nonzero: true, mask: 'aboveMean' });
    refuse('clipIntensityPercentiles', {});
    refuse('cropForeground', { above: 1, aboveFraction: 0.2 });
    refuse('gaussianSmooth', { sigma: 1, sigmaMm: 1 });
    refuse('medianSmooth', { radius: 9 });
    refuse('divisiblePad', { k: 0 });
  });

  it.each(imageTransforms.map(({ name }) => name))(
    '%s never changes the volume that it is given',
    async (name) => {
      for (const parameters of parameterSets[name] ?? []) {
        const volume = patterned([7, 5, 6], oblique, 'int16');
        const before = volume.voxels.slice();
        await apply(volume, [name, parameters]);
        expect(volume.voxels).toEqual(before);
      }
    },
  );
});

describe('geometry', () => {
  const volume = patterned([7, 5, 6], oblique, 'int16');

  it('cropForeground keeps the foreground’s box, with its margin, in place', async () => {
    const head = { ...volume, voxels: new Int16Array(210) };
    const set = (x: number, y: number, z: number, v: number) => (head.voxels[(z * 5 + y) * 7 + x] = v);
    set(2, 1, 3, 100);
    set(4, 2, 3, 30);
    set(6, 4, 5, 10);
    const all = await apply(head, ['cropForeground']);
    expect(all.size).toEqual([5, 4, 3]);
    const part = await apply(head, ['cropForeground', { aboveFraction: 0.2 }]);
    expect(part.size).toEqual([3, 2, 1]);
    expect(applyAffine(part.affine, [0, 0, 0])).toEqual(applyAffine(head.affine, [2, 1, 3]));
    const margin = await apply(head, ['cropForeground', { aboveFraction: 0.2, margin: [9, 1, 0] }]);
    expect(margin.size).toEqual([7, 4, 1]);
    expect(voxelAt(restore(part, head), [4, 2, 3])).toBe(30);
    expect(voxelAt(restore(part, head), [6, 4, 5])).toBe(0);
  });

  it('cropForeground keeps an empty volume whole and logs that', async () => {
    logged.length = 0;
    const empty = { ...volume, voxels: new Float32Array(210).fill(Number.NaN) };
    expect((await apply(empty, ['cropForeground'])).size).toEqual([7, 5, 6]);
    expect(logged.join()).toMatch(/no voxel is above 0/);
  });

  it('resizeWithPadOrCrop crops some axes and pads others around the centre', async () => {
    const out = await apply(volume, ['resizeWithPadOrCrop', { size: [4, 8, -1], value: -5 }]);
    expect(out.size).toEqual([4, 8, 6]);
    expect(voxelAt(out, [0, 1, 2])).toBe(voxelAt(volume, [1, 0, 2]));
    expect(voxelAt(out, [0, 0, 2])).toBe(-5);
  });

  it('divisiblePad and spatialPad pad as MONAI', async () => {
    expect((await apply(volume, ['divisiblePad', { k: [4, 1, 8] }])).size).toEqual([8, 5, 8]);
    const end = await apply(volume, ['spatialPad', { size: [9, 5, 6], method: 'end', mode: 'edge' }]);
    expect(voxelAt(end, [8, 2, 3])).toBe(voxelAt(volume, [6, 2, 3]));
  });

  it('spacing repeats the border where its last voxel lies outside', async () => {
    // 4 voxels of 1.2 mm at 2 mm: round(3 · 0.6 + 1) = 3, the last at 4 mm of 3.6.
    const line: Volume = {
      ...row(1, 2, 3, 9),
      affine: composeAffine([1.2, 1, 1], rotation(0.3, 0.2, 0.1), [0, 0, 0]),
    };
    expect(await values(line, ['spacing', { pixdim: [2, -1, -1] }])).toEqual([1, 2.66667, 9]);
    expect(await values(line, ['spacing', { pixdim: [2, -1, -1], mode: 'nearest' }])).toEqual([1, 3, 9]);
  });

  it('spacing repeats the border beyond half a voxel, along every axis', async () => {
    // 4 voxels of 1 mm at 4 mm: round(3 / 4 + 1) = 2, the second at 4 mm, 1 mm behind the last centre.
    for (const axis of [0, 1, 2]) {
      const size = [0, 1, 2].map((k) => (k === axis ? 4 : 1)) as unknown as Volume['size'];
      const line: Volume = {
        voxels: Float32Array.of(5, 2, 3, 9),
        size,
        components: 1,
        affine: composeAffine([1, 1, 1], rotation(0.3, 0.2, 0.1), [0, 0, 0]),
      };
      const pixdim = [0, 1, 2].map((k) => (k === axis ? 4 : -1));
      for (const mode of ['linear', 'nearest', 'cubic'])
        expect(await values(line, ['spacing', { pixdim, mode }]), `${mode}, axis ${axis}`).toEqual([5, 9]);
      const ends = { ...line, voxels: Float32Array.of(7, 7, 7, 7) };
      expect(await values(ends, ['spacing', { pixdim, antiAlias: true }])).toEqual([7, 7]);
    }
  });

  it('antiAlias smooths with sigma (factor − 1) / 2 before it samples', async () => {
    const size: [number, number, number] = [3, -1, 2];
    const smooth = await apply(
      volume,
      ['gaussianSmooth', { sigma: [(7 / 3 - 1) / 2, 0, 1] }],
      ['resize', { size }],
    );
    const direct = await apply(volume, ['resize', { size, antiAlias: true }]);
    expect(direct.voxels).toEqual(smooth.voxels);
    expect(direct.voxels).not.toEqual((await apply(volume, ['resize', { size }])).voxels);
  });
});

describe('intensity', () => {
  it('follows the formulas', async () => {
    expect(await values(row(-2, 0, 2, 6), ['scaleIntensity'])).toEqual([0, 0.25, 0.5, 1]);
    expect(await values(row(-2, 0, 2, 6), ['scaleIntensity', { minv: -1, maxv: 1 }])).toEqual([
      -1, -0.5, 0, 1,
    ]);
    expect(await values(row(4, 4), ['scaleIntensity', { minv: 3, maxv: 5 }])).toEqual([3, 3]);
    const ct = { aMin: -100, aMax: 300, bMin: 0, bMax: 2 };
    expect(await values(row(-300, -100, 100, 500), ['scaleIntensityRange', ct])).toEqual([-1, 0, 1, 3]);
    expect(await values(row(-300, -100, 100, 500), ['scaleIntensityRange', { ...ct, clip: true }])).toEqual([
      0, 0, 1, 2,
    ]);
    expect(await values(row(1, 2, 3, 10), ['thresholdIntensity', { threshold: 2, cval: -1 }])).toEqual([
      -1, -1, 3, 10,
    ]);
    expect(await values(row(1, 2, 3), ['thresholdIntensity', { threshold: 2, above: false }])).toEqual([
      1, 0, 0,
    ]);
    expect(await values(row(-4, 0, 8), ['divideByMax'])).toEqual([-0.5, 0, 1]);
    expect(await values(row(-4, -1), ['divideByMax'])).toEqual([-4, -1]);
  });

  it('scales percentiles to a range, clipped or not, relative or not', async () => {
    const line = row(...Array.from({ length: 101 }, (_, i) => 2 * i));
    const plain = await values(line, ['scaleIntensityRangePercentiles', { lower: 5, upper: 95 }]);
    expect([plain[0], plain[5], plain[50], plain[95], plain[100]]).toEqual([-0.05556, 0, 0.5, 1, 1.05556]);
    const clipped = await values(line, [
      'scaleIntensityRangePercentiles',
      { lower: 5, upper: 95, clip: true },
    ]);
    expect([clipped[0], clipped[50], clipped[100]]).toEqual([0, 0.5, 1]);
    const relative = { lower: 10, upper: 80, bMin: 0, bMax: 50, relative: true };
    const part = await values(line, ['scaleIntensityRangePercentiles', relative]);
    expect([part[10], part[80], part[100]]).toEqual([5, 40, 50]);
    const hot = await values(row(0, 1, 2, 3, 1000), ['clipIntensityPercentiles', { upper: 75 }]);
    expect(hot).toEqual([0, 1, 2, 3, 3]);
  });

  it('normalizes over all voxels, those not 0, or those above the mean', async () => {
    const line = row(0, 0, 2, 4, 6, 8);
    // mean 10/3, std 3.0732…; nonzero: mean 5, std √5; above the mean: 4, 6, 8, mean 6, std √(8/3).
    const std = Math.sqrt(8.888888888888889);
    expect((await values(line, ['normalizeIntensity']))[2]).toBeCloseTo((2 - 10 / 3) / std, 4);
    expect(await values(line, ['normalizeIntensity', { nonzero: true }])).toEqual([
      0, 0, -1.34164, -0.44721, 0.44721, 1.34164,
    ]);
    expect((await values(line, ['normalizeIntensity', { mask: 'nonzero' }]))[0]).toBeCloseTo(
      -5 / Math.sqrt(5),
      4,
    );
    expect((await values(line, ['normalizeIntensity', { mask: 'aboveMean' }]))[5]).toBeCloseTo(
      2 / Math.sqrt(8 / 3),
      4,
    );
    expect(await values(line, ['normalizeIntensity', { subtrahend: 2, divisor: 4 }])).toEqual([
      -0.5, -0.5, 0, 0.5, 1, 1.5,
    ]);
    expect(await values(row(3, 3), ['normalizeIntensity'])).toEqual([0, 0]);
  });

  it('treats components separately only on request', async () => {
    const two: Volume = {
      voxels: Float32Array.of(0, 1, 0, 10),
      size: [2, 1, 1],
      components: 2,
      affine: oblique,
    };
    expect(await values(two, ['divideByMax'])).toEqual([0, 0.1, 0, 1]);
    expect(await values(two, ['divideByMax', { channelWise: true }])).toEqual([0, 1, 0, 1]);
  });

  it('gives scipy’s values for gaussianSmooth and medianSmooth', async () => {
    const volume = patterned([7, 5, 6], oblique, 'int16');
    const smooth = await apply(volume, ['gaussianSmooth', { sigma: [1.5, 0.7, 2.2] }]);
    const gauss = [13.433856, 14.68718, 12.719042, 14.422047, 13.02621, 14.399929, 13.781489, 14.292904];
    gauss.forEach((v, i) => {
      expect(smooth.voxels[17 * i]).toBeCloseTo(v, 4);
    });
    const inMm = await apply(volume, ['gaussianSmooth', { sigmaMm: [1.8, 0.56, 5.5] }]);
    inMm.voxels.forEach((v, i) => {
      expect(v).toBeCloseTo(Number(smooth.voxels[i]), 4);
    });
    const median = await apply(volume, ['medianSmooth']);
    [7, 12, 11, 17, 9, 15, 17, 9, 12, 5, 15, 12, 18].forEach((v, i) => {
      expect(median.voxels[17 * i]).toBe(v);
    });
    const wide = await values(row(0, 0, 10, 0, 0, 3, 0), ['gaussianSmooth', { sigma: [5, 0, 0] }]);
    expect(wide).toEqual([1.90191, 1.89303, 1.87715, 1.85723, 1.83709, 1.82124, 1.81235]);
  });

  it('leaves NaN and Infinity out of statistics and gives 0 for them', async () => {
    const line = row(Number.NaN, 0, 2, Infinity, 4, -Infinity);
    expect(await values(line, ['scaleIntensity'])).toEqual([0, 0, 0.5, 0, 1, 0]);
    expect(await values(line, ['normalizeIntensity'])).toEqual([0, -1.22474, 0, 0, 1.22474, 0]);
    expect(await values(line, ['divideByMax'])).toEqual([0, 0, 0.5, 0, 1, 0]);
    expect(await values(line, ['scaleIntensityRange', { aMin: 0, aMax: 4, clip: true }])).toEqual([
      0, 0, 0.5, 1, 1, 0,
    ]);
    expect(await values(line, ['clipIntensityPercentiles', { lower: 0, upper: 100 }])).toEqual([
      0, 0, 2, 4, 4, 0,
    ]);
    for (const { name } of imageTransforms) {
      if (['gaussianSmooth', 'medianSmooth', 'thresholdIntensity'].includes(name)) {
        const out = await values(line, [name, name === 'thresholdIntensity' ? { threshold: 1 } : {}]);
        expect(out.every(Number.isFinite)).toBe(true);
      }
    }
  });
});

describe('the pipelines that real networks need', () => {
  const head = patterned(
    [40, 36, 30],
    composeAffine([5, 5.5, 6.2], rotation(0.1, -0.2, 0.3), [90, -80, -70]),
    'int16',
  );

  it('conforms to LIA, 1 mm, a fixed size', async () => {
    const out = await apply(
      head,
      ['orientation', { axcodes: 'LIA' }],
      ['spacing', { pixdim: [4, 4, 4] }],
      ['resizeWithPadOrCrop', { size: [64, 64, 64] }],
      ['scaleIntensity'],
    );
    expect(orientationOf(out.affine)).toBe('LIA');
    expect(out.size).toEqual([64, 64, 64]);
    spacingOf(out.affine).forEach((mm) => {
      expect(mm).toBeCloseTo(4, 9);
    });
    expect(out.voxels).toBeInstanceOf(Float32Array);
    expect(sameGrid(restore(out, head), head)).toBe(true);
  });

  it('maps quantiles to 0 and 1 without clipping', async () => {
    const out = await apply(head, ['scaleIntensityRangePercentiles', { lower: 5, upper: 95 }]);
    expect((out.voxels as Float32Array).some((v) => v > 1)).toBe(true);
  });

  it('resizes with antialias and divides by the maximum', async () => {
    const out = await apply(head, ['resize', { size: [16, 16, 16], antiAlias: true }], ['divideByMax']);
    expect(Math.max(...(out.voxels as Float32Array))).toBe(1);
  });

  it('smooths to RAS 8 mm, crops or pads, normalizes above the mean', async () => {
    const out = await apply(
      head,
      ['orientation', { axcodes: 'RAS' }],
      ['spacing', { pixdim: [8, 8, 8], antiAlias: true }],
      ['resizeWithPadOrCrop', { size: [24, 30, 24] }],
      ['normalizeIntensity', { mask: 'aboveMean' }],
    );
    expect(out.size).toEqual([24, 30, 24]);
    expect(orientationOf(out.affine)).toBe('RAS');
  });
});

describe('intensity transforms', () => {
  it.each([
    ['uint8', 0, 255],
    ['int8', -128, 127],
    ['uint16', 0, 65535],
    ['int16', -32768, 32767],
  ] as const)(
    'give %s voxels what they give the same numbers as float64, bit for bit',
    async (type, low, high) => {
      // More voxels than the type has values: then results are looked up in a table.
      const size = [83, 41, 23] as const;
      const count = size[0] * size[1] * size[2];
      const numbers = Float64Array.from({ length: 2 * count }, (_, i) =>
        i < count ? low + ((i * 7919) % (high - low + 1)) : Math.max(low, Math.min(high, (i % 91) - 20)),
      );
      const own = createVoxels(type, 2 * count) as Int16Array;
      own.set(numbers);
      const volume = { size, components: 2, affine: oblique };
      for (const [name, parameters] of [
        ['scaleIntensity', { minv: -0.3, maxv: 1.7 }],
        ['scaleIntensity', { channelWise: true }],
        ['scaleIntensityRange', { aMin: -3, aMax: 40, bMin: 0.1, bMax: 0.9, clip: true }],
        ['normalizeIntensity', { nonzero: true, channelWise: true }],
        ['thresholdIntensity', { threshold: 7, cval: -2.5 }],
        ['divideByMax', { channelWise: true }],
      ] as const) {
        const looked = await apply({ ...volume, voxels: own }, [name, parameters]);
        const computed = await apply({ ...volume, voxels: numbers }, [name, parameters]);
        expect(looked.voxels).toBeInstanceOf(Float32Array);
        expect(Buffer.compare(bytes(looked), bytes(computed)), name).toBe(0);
        expect(new Set(looked.voxels as Float32Array).size).toBeGreaterThan(20);
      }
    },
  );
});

const bytes = ({ voxels }: Volume) => Buffer.from(voxels.buffer, voxels.byteOffset, voxels.byteLength);

describe('orientation', () => {
  it('returns a volume in the target orientation unchanged, and moves any other', async () => {
    const volume = patterned([5, 4, 3], oblique, 'int16');
    const own = orientationOf(volume.affine);
    expect((await apply(volume, ['orientation', { axcodes: own }])).voxels).toBe(volume.voxels);
    expect(await apply(volume, ['orientation', { axcodes: 'stored' }])).toEqual(volume);
    const other = [own[1], own[0], own[2]].join('');
    expect((await apply(volume, ['orientation', { axcodes: other }])).voxels).not.toEqual(volume.voxels);
  });
});
