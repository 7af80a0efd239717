import { describe, expect, it } from 'vitest';
import { applyAffine, composeAffine, invert } from '../geometry/affine.ts';
import { reorient } from '../geometry/exact.ts';
import { rotation, voxelAt } from '../geometry/fixtures.ts';
import type { Tensor } from '../tensor.ts';
import type { Volume } from '../volume.ts';
import {
  app,
  fileOf,
  forEachVoxel,
  type Given,
  level,
  levels,
  network,
  networkOf,
  onnx,
  run,
  scan,
  volumeIn,
} from './fixtures.ts';
import type { FileSpec, Manifest, ModelSpec } from './manifest.ts';
import type { LoadedModel } from './predict.ts';

const low = { ...onnx, file: 'low', id: 'low' };
const high = (channels: unknown[], more: object = {}) => ({ ...onnx, file: 'high', channels, ...more });
const times = (factor: number) => ({ scaleIntensityRange: { aMin: 0, aMax: 1, bMax: factor } });

/** Runs a cascade; what the second network was given, as a volume. */
async function cascade(
  manifest: Manifest,
  models: { low: LoadedModel; high: LoadedModel },
  given: Given = {},
) {
  let input: Volume | undefined;
  const load = async (spec: ModelSpec) => models[(spec as FileSpec).file as 'low' | 'high'];
  const take = async (_: string, volume: Volume) =>
    void (input = { ...volume, voxels: volume.voxels.slice() as Float32Array });
  const { outputs } = await run(manifest, models.high, {
    load,
    trace: { stages: ['model[1].input'], take },
    ...given,
  });
  return { input: input!, outputs };
}

describe('predict(): a network that takes labels of another one', () => {
  it('gives it masks of the values it lists, between its volumes, untouched by steps of intensity', async () => {
    const channels = [{ labelsOf: 'low', values: [2] }, 'volume', { labelsOf: 'low', values: [1, 7] }];
    const seen: Tensor[] = [];
    const spy = network((values) => values, seen);
    const manifest = networkOf({
      model: [low, high(channels)],
      preprocess: [times(3), 'normalizeIntensity'],
    });
    const models = { low: network(([v]) => [-v, v - 1, v ** 2 - 2]), high: spy };
    const { input } = await cascade(manifest, models, { trace: undefined });
    expect(input).toBeUndefined();
    expect(seen[0].dims).toEqual([1, 4, 3, 4, 5]);
    const n = 60;
    const [two, volume, one, seven] = [0, 1, 2, 3].map((c) => [...seen[0].data.subarray(c * n, (c + 1) * n)]);
    const mean = volume.reduce((a, b) => a + b) / n;
    expect(mean).toBeCloseTo(0, 4);
    expect(Math.hypot(...volume) / Math.sqrt(n)).toBeCloseTo(1, 3);
    // Of -v, v - 1 and v² - 2 the second one is the largest from v = 0.5 on, and the last one above the root of v² - v - 1.
    for (let i = 0; i < n; i++) {
      const last = volume[i] > (1 + Math.sqrt(5)) / 2;
      expect(two[i]).toBe(Number(last));
      expect(one[i]).toBe(Number(!last && volume[i] > 0.5));
    }
    expect(new Set(seven)).toEqual(new Set([0]));
    expect([two, one].map((mask) => mask.includes(1))).toEqual([true, true]);
  });

  it('brings them to the grid of the volume, wherever its voxels move', async () => {
    const manifest = networkOf({
      preprocess: [{ orientation: { axcodes: 'PIR' } }, { flip: { axes: ['y'] } }],
      model: [
        low,
        high(['volume', { labelsOf: 'low', values: [1, 2] }], {
          preprocess: [
            { centerSpatialCrop: { roiSize: [3, 2, 0] } },
            { spatialPad: { size: [0, 5, 8], mode: 'edge' } },
          ],
        }),
      ],
    });
    const { input } = await cascade(manifest, { low: levels, high: network(([v]) => [15 - v, v - 15]) });
    expect([input.components, ...input.size]).toEqual([3, 3, 5, 8]);
    const back = invert(scan.affine);
    const found = new Map<number, number>();
    forEachVoxel(input.size, (at) => {
      const place = applyAffine(back, applyAffine(input.affine, at)).map(Math.round) as [
        number,
        number,
        number,
      ];
      const inside = place.every((v, k) => v >= 0 && v < scan.size[k]);
      const value = inside ? voxelAt(scan, place) : Number.NaN;
      // The crop is 3 and 2 voxels wide; what the pad adds has no label, though the volume repeats its border.
      if (voxelAt(input, at) !== value)
        return expect([1, 2].map((c) => voxelAt(input, at, c))).toEqual([0, 0]);
      expect([at, voxelAt(input, at, 1), voxelAt(input, at, 2)]).toEqual([
        at,
        Number(level(value) === 1),
        Number(level(value) === 2),
      ]);
      found.set(level(value), (found.get(level(value)) ?? 0) + 1);
    });
    expect([...found.keys()].sort()).toEqual([0, 1, 2]);
  });

  // Made with nnunetv2 2.8.1 and batchgenerators 0.25.5 of these images, whose label is a tenth of the value (0 … 39, as one character
  // each), z, y, x: crop_to_nonzero(), then resample_data_or_seg_to_shape(is_seg=True, order=1, order_z=0, force_separate_z=None).
  const digits = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ';
  it.each([
    {
      name: 'slices by themselves',
      mm: [1.2, 0.8, 2.5] as const,
      pixdim: [1, 1.1, 1.7],
      size: [6, 4, 6],
      image:
        '00000000000000000000000000000000000000000000ihzy300ffvy400v4ABh0088Ais00wibdx000000000dbxBw00fbzz700m8ywf00rhwxg00Bmhbv0000000003B52h00l781e00215yi0034zCh0086rpe0000000001117h008C57g0082Azw0036xBg0056Boh0000000',
      labels:
        '113330113330003312311113113333113330213331321113113333113330213331321113030001200001000331002221000001000001003331003321000001000001003331003321',
    },
    {
      name: 'all axes, with positions half-way between voxels',
      mm: [1.2, 0.8, 2] as const,
      pixdim: [0.6, 1.6, 1],
      size: [10, 2, 8],
      image:
        '0000000042Acg00w5wCb00y57p30035oCC00spCB600000000024AzC0056wxf0044nrx0037gmx00owBl8000000000Azrog00xxlec00xCyxe00zvzCf00BA3BC000000000wymsc00cwelb00vxvAy00Av7yh00CBwzB0000000000000000000000000000000000000000000',
      labels:
        '3300333311000022333330003333110000223333000033331100001122330000333311000011223333332211113333333331333322211133333333111333122211333333331111331122113333003311',
    },
  ])('resamples them as nnU-Net does: $name', async ({ mm, pixdim, size, image, labels }) => {
    const turned = rotation(0.3, -0.4, 0.5).map((v, i) => (i % 3 === 0 ? -v : v));
    const affine = composeAffine(mm, turned, [10, -20, 30]);
    const voxels = Float32Array.from(image, (digit) => digits.indexOf(digit));
    const volume: Volume = { voxels, size: [7, 6, 5], components: 1, affine };
    const manifest = networkOf({
      preprocess: [
        { cropForeground: { nonzero: true, fillHoles: true } },
        { normalizeIntensity: { subtrahend: 0, divisor: 10 } },
      ],
      model: [
        low,
        high(['volume', { labelsOf: 'low', values: [1, 2, 3] }], {
          preprocess: [{ spacing: { pixdim, mode: 'cubic', fit: true, separate: 'auto' } }],
        }),
      ],
    });
    const tenths = network(([v]) => [0, 1, 2, 3].map((k) => Number(Math.floor(v + 1e-4) === k)));
    const files = { volume: [await fileOf(volume)] };
    const { input } = await cascade(manifest, { low: tenths, high: network((values) => values) }, { files });
    expect([input.components, ...input.size]).toEqual([4, ...size]);
    const given: number[] = [];
    forEachVoxel(
      input.size,
      (at) => void given.push([1, 2, 3].find((c) => voxelAt(input, at, c) === 1) ?? 0),
    );
    expect(given.join('')).toBe(labels);
    // Nothing but 0 and 1, and one value in each voxel.
    const sum = (input.voxels as Float32Array).subarray(given.length).reduce((a, b) => a + b, 0);
    expect(sum).toBe(given.filter((value) => value > 0).length);
  });

  it('resamples them by the place in the world with any other spacing', async () => {
    const manifest = networkOf({
      preprocess: [{ orientation: { axcodes: 'RAS' } }, { spacing: { pixdim: [0.9, 1.1, 1.3] } }],
      model: [low, high(['volume', { labelsOf: 'low', values: [1, 2] }])],
      postprocess: ['restore', 'argmax'],
    });
    const { input } = await cascade(manifest, { low: levels, high: network(([v]) => [15 - v, v - 15]) });
    // The labels of `low` on the grid of the scan, found by the same network alone.
    const alone = networkOf({
      preprocess: manifest.preprocess.map(({ name, parameters }) => ({ [name]: parameters })),
      postprocess: ['restore', 'argmax'],
    });
    const labels = await volumeIn((await run(alone, levels)).outputs.segmentation);
    const back = invert(labels.affine);
    const isOf = (value: number, [x, y, z]: number[]) => {
      const at = [x, y, z].map((v, k) => Math.min(labels.size[k] - 1, Math.max(0, v)));
      return Number(voxelAt(labels, [at[0], at[1], at[2]]) === value);
    };
    let checked = 0;
    forEachVoxel(input.size, (at) => {
      const place = applyAffine(back, applyAffine(input.affine, at));
      const first = place.map(Math.floor);
      const score = (value: number) => {
        let sum = 0;
        for (let corner = 0; corner < 8; corner++) {
          const up = [0, 1, 2].map((k) => (corner >> k) & 1);
          const weight = up.reduce((w, u, k) => w * (u ? place[k] - first[k] : 1 - place[k] + first[k]), 1);
          sum +=
            weight *
            isOf(
              value,
              first.map((v, k) => v + up[k]),
            );
        }
        return sum;
      };
      const scores = [0, 1, 2].map(score);
      const [most, next] = scores.toSorted((a, b) => b - a);
      if (most - next < 1e-4) return;
      checked++;
      expect([at, voxelAt(input, at, 1), voxelAt(input, at, 2)]).toEqual([
        at,
        Number(scores[1] === most),
        Number(scores[2] === most),
      ]);
    });
    expect(checked).toBeGreaterThan(0.8 * input.size.reduce((a, b) => a * b));
  });

  it('brings them to a second volume on another grid', async () => {
    const inputs = { a: { type: 'volume' }, b: { type: 'volume' } };
    const manifest = networkOf({
      inputs,
      model: [{ ...low, channels: ['a'] }, high(['b', 'a', { labelsOf: 'low', values: [2] }])],
    });
    const files = { a: [await fileOf(scan)], b: [await fileOf(reorient(scan, 'SAR'))] };
    const { input } = await cascade(manifest, { low: levels, high: network((values) => values) }, { files });
    expect(input.size).not.toEqual(scan.size);
    forEachVoxel(input.size, (at) => {
      const value = voxelAt(input, at);
      expect([at, voxelAt(input, at, 1), voxelAt(input, at, 2)]).toEqual([
        at,
        value,
        Number(level(value) === 2),
      ]);
    });
  });

  it('has the labels of the last network as its result, and those of the first one if it runs alone', async () => {
    const quality = { type: 'radiobutton', options: ['fine', 'fast'] };
    const manifest = networkOf({
      inputs: { ...app.inputs, quality },
      model: [low, high(['volume', { labelsOf: 'low', values: [2] }], { when: { quality: 'fine' } })],
    });
    // Where low gave 2, that is above 20, it decides at 25.
    const refine = network(([v, two]) => [0.5, two * Number(v > 25)]);
    const fine = await cascade(manifest, { low: levels, high: refine });
    const labels = await volumeIn(fine.outputs.segmentation);
    forEachVoxel(scan.size, (at) => expect(voxelAt(labels, at)).toBe(Number(voxelAt(scan, at) > 25)));
    const fast = await cascade(manifest, { low: levels, high: refine }, { parameters: { quality: 'fast' } });
    const others = await volumeIn(fast.outputs.segmentation);
    forEachVoxel(scan.size, (at) => expect(voxelAt(others, at)).toBe(level(voxelAt(scan, at))));
  });

  it('takes the values of the network itself, not those of its table', async () => {
    const manifest = networkOf({
      model: [
        { ...low, merge: [{ from: 1, to: 2 }] },
        high(['volume', { labelsOf: 'low', values: [1, 2] }], { merge: [{ from: 1, to: 9 }] }),
      ],
    });
    const both = network(([, one, two]) => [0.5, two, one * 0.25]);
    const { input, outputs } = await cascade(manifest, { low: levels, high: both });
    const labels = await volumeIn(outputs.segmentation);
    forEachVoxel(scan.size, (at) => {
      const found = level(voxelAt(scan, at));
      expect([1, 2].map((c) => voxelAt(input, at, c))).toEqual([Number(found === 1), Number(found === 2)]);
      expect(voxelAt(labels, at)).toBe([0, 2, 9][found]);
    });
  });
});
