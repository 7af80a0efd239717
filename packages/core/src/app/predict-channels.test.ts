import { describe, expect, it } from 'vitest';
import { type Affine, applyAffine, type Vec3 } from '../geometry/affine.ts';
import { voxelAt } from '../geometry/fixtures.ts';
import type { NetworkSession } from '../inferers/spec.ts';
import type { Tensor } from '../tensor.ts';
import type { Size, Volume } from '../volume.ts';
import {
  app,
  fileOf,
  forEachVoxel,
  labelled,
  level,
  network,
  networkOf,
  type Output,
  onnx,
  program,
  programOf,
  run,
  scan,
  volumeIn,
} from './fixtures.ts';

/** The labels lie on the grid of the scan, each of them where the value is that it stands for. */
async function expectLabels(output: Output, labelOf: (value: number, at: Vec3) => number) {
  const labels = await volumeIn(output);
  expect(labels.size).toEqual(scan.size);
  labels.affine.forEach((v, i) => void expect(v).toBeCloseTo(scan.affine[i], 4));
  forEachVoxel(scan.size, (at) => {
    expect([at, voxelAt(labels, at)]).toEqual([at, labelOf(voxelAt(scan, at), at)]);
  });
}

describe('predict(): channels and slices', () => {
  describe('steps of one input', () => {
    const field = ([r, a, s]: Vec3) => 2 * r - a + 0.5 * s + 100;
    /** The field of the world on a grid. */
    const filled = (gridSize: Size, affine: Affine): Volume => {
      const voxels = new Float32Array(gridSize[0] * gridSize[1] * gridSize[2]);
      let i = 0;
      forEachVoxel(gridSize, (at) => void (voxels[i++] = field(applyAffine(affine, at))));
      return { size: gridSize, affine, components: 1, voxels };
    };
    // Oblique, anisotropic, left-handed, and at right angles to the last bit, of 1.25, 0.625 and 2.5 mm: spacing keeps the
    // first voxel. And one around it whose axes lie in another order.
    const tilted: Affine = [1, 0.375, 0, 10, 0.75, -0.5, 0, -20, 0, 0, 2.5, 30, 0, 0, 0, 1];
    const first = filled([9, 13, 5], tilted);
    const around = filled([14, 21, 20], [0, 0, -1.5, 24, 2, 0, 0, -36, 0, 1.7, 0, 15, 0, 0, 0, 1]);
    const grid = [{ orientation: { axcodes: 'RAS' } }, { spacing: { pixdim: [1, 1, '$mm'] } }];
    const times = (factor: number, more = {}) => ({
      scaleIntensityRange: { aMin: 0, aMax: 1, bMax: factor },
      ...more,
    });
    const inputs = {
      a: { type: 'volume', preprocess: [...grid, times(3), times(7, { when: { strong: true } })] },
      b: { type: 'volume', preprocess: [...grid, times(10)] },
      mm: { type: 'slider', minimum: 1, maximum: 4 },
      strong: { type: 'checkbox' },
    };
    const manifest = networkOf({
      inputs,
      preprocess: [times(2)],
      model: { ...onnx, channels: ['a', 'b'] },
      postprocess: ['restore', { threshold: { channel: 1, above: 2000 } }],
    });

    it('come before the channels are stacked on the first one’s new grid', async () => {
      const files = { a: [await fileOf(first)], b: [await fileOf(around)] };
      const seen: Tensor[] = [];
      const spy = network((channels) => channels, seen);
      const { outputs } = await run(manifest, spy, { files, parameters: { mm: 2 } });
      // Spacings become 1, 1, 2: 8 · 1.25 + 1, 12 · 0.625 + 1 = 8.5, halves to even, and 4 · 2.5 / 2 + 1.
      expect(seen[0].dims).toEqual([1, 2, 6, 8, 11]);
      const n = 6 * 8 * 11;
      // Both have the field of the same place: 3 and 10 times, and twice that by the common step.
      for (let i = 0; i < n; i++) expect(seen[0].data[n + i] / 20).toBeCloseTo(seen[0].data[i] / 6, 2);
      const labels = await volumeIn(outputs.segmentation);
      expect(labels.size).toEqual(first.size);
      forEachVoxel(first.size, (at) => {
        const value = field(applyAffine(tilted, at));
        if (Math.abs(value - 100) > 3) expect([at, voxelAt(labels, at)]).toEqual([at, Number(value > 100)]);
      });
    });

    it('have the caller’s parameters and conditions', async () => {
      const files = { a: [await fileOf(first)], b: [await fileOf(around)] };
      const seen: Tensor[] = [];
      const spy = network((channels) => channels, seen);
      await run(manifest, spy, { files, parameters: { mm: 1, strong: true } });
      expect(seen[0].dims).toEqual([1, 2, 11, 8, 11]);
      expect(seen[0].data[0] / 42).toBeCloseTo(seen[0].data[11 * 88] / 20, 2);
    });

    it('prepare the volumes of a program, too', async () => {
      const own = { type: 'volume', preprocess: [{ flip: { axes: ['x'] } }] };
      const given: Record<string, unknown> = {};
      const keep = program((values) => {
        Object.assign(given, values);
        return { segmentation: labelled(values.plain as Volume, level) };
      });
      const both = programOf({ inputs: { plain: { type: 'volume' }, own }, preprocess: [times(2)] });
      await run(both, keep, { files: { plain: [await fileOf(scan)], own: [await fileOf(scan)] } });
      const [plain, flipped] = [given.plain as Volume, given.own as Volume];
      expect(voxelAt(plain, [1, 2, 1])).toBe(2 * voxelAt(scan, [1, 2, 1]));
      expect(voxelAt(flipped, [3, 2, 1])).toBe(2 * voxelAt(scan, [1, 2, 1]));
    });
  });

  it.each([[[]], [['restore']]])(
    'composes overlapping channels, the later rule last (after %j)',
    async (before) => {
      const rule = (channel: number, above: number | string, value: number) => ({ channel, above, value });
      const limit = { type: 'slider', minimum: 0, maximum: 30 };
      const nested = network(([v]) => [v, v - 10, 30 - v]);
      const manifest = networkOf({
        inputs: { ...app.inputs, limit },
        preprocess: [{ orientation: { axcodes: 'PIR' } }],
        postprocess: [...before, { compose: [rule(1, 10, 4), rule(0, '$limit', 2), rule(2, 25, 1)] }],
      });
      const { outputs } = await run(manifest, nested, { parameters: { limit: 25 } });
      // The first rule wins from 21 to 25 only: the second one overwrites it above.
      await expectLabels(outputs.segmentation, (v) => (v < 5 ? 1 : v > 25 ? 2 : v > 20 ? 4 : 0));
      const reversed = networkOf({ postprocess: [...before, { compose: [rule(0, 25, 2), rule(1, 10, 4)] }] });
      await expectLabels((await run(reversed, nested)).outputs.segmentation, (v) => (v > 20 ? 4 : 0));
    },
  );

  it.each([[[]], [['restore']]])('gives background where no class is above (after %j)', async (before) => {
    const manifest = networkOf({ postprocess: [...before, { argmax: { backgroundAtMost: 5 } }] });
    const { outputs } = await run(
      manifest,
      network(([v]) => [v - 20, 10 - v]),
    );
    await expectLabels(outputs.segmentation, (v) => (v > 25 ? 1 : v < 5 ? 2 : 0));
  });

  it('runs a 2-D network on slices, whose rows and columns lie as the steps put them', async () => {
    // RAS of the fixture: x to the left, y to the front, z up. Across A, columns go to the right and rows up.
    const session: NetworkSession = {
      inputDims: [null, 1, null, null],
      async run({ data, dims }) {
        const [, , rows, columns] = dims;
        const isMarked = (i: number) => Math.floor(i / columns) === 2 && i % columns === 0;
        const scores = Float32Array.from({ length: 2 * rows * columns }, (_, i) => {
          const pixel = i % (rows * columns);
          return i < rows * columns ? 10.5 : isMarked(pixel) ? 99 : data[pixel];
        });
        return { data: scores, dims: [1, 2, rows, columns] };
      },
    };
    const model = { ...onnx, inferer: { type: 'slice', axis: 'y' } };
    for (const postprocess of [['argmax'], ['restore', 'argmax']]) {
      const manifest = networkOf({ preprocess: [{ orientation: { axcodes: 'RAS' } }], model, postprocess });
      const { outputs, progress } = await run(manifest, { kind: 'network', session });
      await expectLabels(outputs.segmentation, (v, [x, , z]) => Number(v > 10 || (x === 4 && z === 2)));
      expect(progress.filter(([stage]) => stage === 'infer')).toHaveLength(6);
    }
  });
});
