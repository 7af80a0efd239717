import { describe, expect, it, vi } from 'vitest';
import type { LabelTensor, Tensor } from '../tensor.ts';
import { type Size, type Volume, voxelCount } from '../volume.ts';
import { affine, identityNetwork, positional, slidingWindow, volumeOf } from './fixtures.ts';
import { infer } from './inferer.ts';
import { ringPlan } from './sliding-window.ts';
import { type InfererSpec, infererSchema, type NetworkSession, type SlidingWindowSpec } from './spec.ts';
import { importanceMap, type Stepping, windowsAlong } from './windows.ts';

function windowStarts(length: number, roi: number, overlap: number, stepping: Stepping): number[] {
  const { count, start } = windowsAlong(length, roi, overlap, stepping);
  return Array.from({ length: count }, (_, index) => start(index));
}

/** The sliding window as its definition says it: pad, add up all windows everywhere, divide, crop. */
async function reference(
  input: Volume,
  session: NetworkSession,
  spec: SlidingWindowSpec,
): Promise<Float64Array> {
  const { size, components } = input;
  const [rx, ry, rz] = spec.roiSize;
  const overlap =
    typeof spec.overlap === 'number' ? [spec.overlap, spec.overlap, spec.overlap] : spec.overlap;
  const starts = spec.roiSize.map((n, i) => windowStarts(size[i], n, overlap[i], spec.stepping));
  const importance = importanceMap(spec.roiSize, spec.mode, spec.sigmaScale, spec.stepping);
  const count = voxelCount({ size });
  let sums = new Float64Array(0);
  const weights = new Float64Array(count);
  const read = (c: number, x: number, y: number, z: number) => {
    const at = [x, y, z].map((v, i) => {
      if (v >= 0 && v < size[i]) return v;
      if (spec.paddingMode === 'constant') return Number.NaN;
      if (spec.paddingMode === 'replicate') return Math.min(Math.max(v, 0), size[i] - 1);
      return v < 0 ? -v : 2 * (size[i] - 1) - v;
    });
    if (at.some(Number.isNaN)) return spec.paddingValue;
    return Number(input.voxels[((c * size[2] + at[2]) * size[1] + at[1]) * size[0] + at[0]]);
  };
  const flips = [0, 1, 2, 3, 4, 5, 6, 7]
    .map((bits) => [bits & 1, bits & 2, bits & 4].map(Boolean))
    .filter((flip) => flip.every((on, i) => !on || spec.mirrorAxes?.includes((['x', 'y', 'z'] as const)[i])));
  for (const sz of starts[2])
    for (const sy of starts[1])
      for (const sx of starts[0])
        for (const flip of flips) {
          const source = (i: number, n: number, axis: number) => (flip[axis] ? n - 1 - i : i);
          const data = new Float32Array(components * rx * ry * rz);
          let at = 0;
          for (let c = 0; c < components; c++)
            for (let z = 0; z < rz; z++)
              for (let y = 0; y < ry; y++)
                for (let x = 0; x < rx; x++) {
                  data[at++] = read(c, sx + source(x, rx, 0), sy + source(y, ry, 1), sz + source(z, rz, 2));
                }
          const output = await session.run({ data, dims: [1, components, rz, ry, rx] });
          const classes = output.dims[1];
          if (sums.length === 0) sums = new Float64Array(classes * count);
          for (let z = 0; z < rz; z++)
            for (let y = 0; y < ry; y++)
              for (let x = 0; x < rx; x++) {
                const [vx, vy, vz] = [sx + x, sy + y, sz + z];
                if (vx < 0 || vy < 0 || vz < 0 || vx >= size[0] || vy >= size[1] || vz >= size[2]) continue;
                const voxel = (vz * size[1] + vy) * size[0] + vx;
                const from = (source(z, rz, 2) * ry + source(y, ry, 1)) * rx + source(x, rx, 0);
                const weight = importance[(z * ry + y) * rx + x];
                weights[voxel] += weight;
                for (let k = 0; k < classes; k++)
                  sums[k * count + voxel] += weight * output.data[k * rx * ry * rz + from];
              }
        }
  return sums.map((v, i) => v / weights[i % count]);
}

const cases: [string, Size, number, Partial<SlidingWindowSpec> & { roiSize: [number, number, number] }][] = [
  ['constant weights, along z', [13, 11, 19], 1, { roiSize: [6, 5, 4] }],
  [
    'Gaussian weights, along y',
    [10, 23, 9],
    1,
    { roiSize: [7, 6, 8], mode: 'gaussian', overlap: [0.5, 0.25, 0.6] },
  ],
  [
    'a volume smaller than the window',
    [5, 9, 4],
    2,
    { roiSize: [8, 6, 9], mode: 'gaussian', paddingValue: -3 },
  ],
  ['a volume lower than the window, along z', [6, 4, 9], 1, { roiSize: [5, 7, 4], mode: 'gaussian' }],
  ['reflected', [6, 9, 5], 1, { roiSize: [9, 6, 8], paddingMode: 'reflect' }],
  ['replicated, two components', [6, 9, 5], 2, { roiSize: [11, 6, 8], paddingMode: 'replicate' }],
  [
    'mirrored along all axes, two components, along y',
    [7, 10, 4],
    2,
    { roiSize: [5, 4, 2], mode: 'gaussian', mirrorAxes: ['x', 'y', 'z'] },
  ],
  [
    'nnU-Net’s stepping with mirroring',
    [13, 11, 12],
    1,
    { roiSize: [6, 5, 4], stepping: 'nnunet', overlap: 0.5, mode: 'gaussian', mirrorAxes: ['z', 'x'] },
  ],
];

describe('infer() with a sliding window', () => {
  it.each(cases)('gives the weighted mean of all windows: %s', async (_name, size, components, partial) => {
    const input = volumeOf(size, components);
    const spec = slidingWindow(partial);
    const expected = await reference(input, positional(3), spec);
    const result = await infer(input, positional(3), spec, { type: 'none' });
    if (!('scores' in result)) throw new Error('no scores');
    expect(result.scores).toMatchObject({ size, components: 3, affine });
    let worst = 0;
    for (let i = 0; i < expected.length; i++)
      worst = Math.max(worst, Math.abs(expected[i] - Number(result.scores.voxels[i])));
    expect(worst).toBeLessThan(2e-5);

    const labels = await infer(input, positional(3), spec, { type: 'argmax' });
    if (!('labels' in labels)) throw new Error('no labels');
    const count = voxelCount(input);
    let different = 0;
    for (let i = 0; i < count; i++) {
      const scores = [0, 1, 2].map((k) => expected[k * count + i]);
      const best = Math.max(...scores);
      if (best - scores[Number(labels.labels.voxels[i])] > 2e-5) different++;
    }
    expect(different).toBe(0);
  });

  it.each(cases)(
    'ring, full accumulator and plain loops give the same labels: %s',
    async (_name, size, components, partial) => {
      const input = volumeOf(size, components, 5);
      const spec = slidingWindow(partial);
      for (const reduction of [
        { type: 'argmax' },
        { type: 'threshold', channel: 1, above: 0.1 },
        { type: 'none' },
      ] as const) {
        const runs = [
          {},
          { accumulator: 'full' },
          { kernels: 'plain' },
          { accumulator: 'full', kernels: 'plain' },
        ] as const;
        const results = [];
        for (const options of runs) results.push(await infer(input, positional(4), spec, reduction, options));
        for (const other of results.slice(1)) expect(other).toEqual(results[0]);
      }
    },
  );

  it('threshold compares the mean, not the sum', async () => {
    const input = volumeOf([9, 7, 8]);
    const result = await infer(input, identityNetwork, slidingWindow({ roiSize: [4, 4, 4], overlap: 0.5 }), {
      type: 'threshold',
      channel: 0,
      above: 0.4,
    });
    if (!('labels' in result)) throw new Error('no labels');
    // The identity's windows agree, so the mean is the voxel itself up to rounding.
    const wrong = [...result.labels.voxels].filter(
      (v, i) =>
        Math.abs(Number(input.voxels[i]) - 0.4) > 1e-6 && (Number(input.voxels[i]) > 0.4 ? 1 : 0) !== v,
    );
    expect(wrong).toEqual([]);
    expect(new Set([...result.labels.voxels].map(Number))).toEqual(new Set([0, 1]));
  });

  it('labels more than 256 classes in two bytes', async () => {
    const session: NetworkSession = {
      run: async ({ data, dims }) => {
        const out = new Float32Array(300 * data.length);
        for (let i = 0; i < data.length; i++) out[data[i] * data.length + i] = 1;
        return { data: out, dims: [1, 300, ...dims.slice(2)] };
      },
    };
    const voxels = Float32Array.from({ length: 5 * 6 * 7 }, (_, i) => i + 80);
    const input: Volume = { voxels, size: [5, 6, 7], components: 1, affine };
    const result = await infer(input, session, slidingWindow({ roiSize: [3, 4, 4] }), { type: 'argmax' });
    expect(result).toEqual({
      labels: { ...input, voxels: Uint16Array.from({ length: 210 }, (_, i) => i + 80) },
    });
  });

  it('reports progress window by window and stops between windows', async () => {
    const seen: number[] = [];
    const spec = slidingWindow({ roiSize: [4, 4, 4], overlap: 0 });
    await infer(
      volumeOf([8, 8, 12]),
      identityNetwork,
      spec,
      { type: 'argmax' },
      { onProgress: (f) => seen.push(f) },
    );
    expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map((done) => done / 12));
    const controller = new AbortController();
    let runs = 0;
    const session: NetworkSession = {
      run: async (input) => {
        if (++runs === 2) controller.abort();
        return input;
      },
    };
    await expect(
      infer(volumeOf([8, 4, 8]), session, spec, { type: 'argmax' }, { signal: controller.signal }),
    ).rejects.toMatchObject({ code: 'CANCELED' });
    expect(runs).toBe(2);
  });

  it.each([
    [4, 1, 1],
    [1, 4, 1],
    [1, 1, 4],
  ] as [number, number, number][])('refuses one answer for windows of %i × %i × %i', async (...roiSize) => {
    for (const dims of [
      [1, 3],
      [1, 3, 1, 1, 1],
    ]) {
      const session: NetworkSession = { run: async () => ({ data: new Float32Array(3), dims }) };
      const result = infer(volumeOf([5, 5, 5]), session, slidingWindow({ roiSize }), { type: 'argmax' });
      await expect(result).rejects.toMatchObject({
        code: 'BAD_MANIFEST',
        message: expect.stringContaining('Use the simple inferer'),
      });
    }
  });

  it('refuses a number of classes that changes between windows', async () => {
    let runs = 0;
    const session: NetworkSession = {
      run: async ({ data, dims }) => {
        const classes = runs++ === 0 ? 3 : 2;
        return { data: new Float32Array(classes * data.length), dims: [1, classes, ...dims.slice(2)] };
      },
    };
    const result = infer(volumeOf([8, 4, 4]), session, slidingWindow({ roiSize: [4, 4, 4] }), {
      type: 'argmax',
    });
    await expect(result).rejects.toMatchObject({
      code: 'APP_OUTPUT',
      message: expect.stringMatching(/gave 3 classes .* and 2 for another/),
    });
  });

  it('refuses an empty volume before the network runs', async () => {
    let runs = 0;
    const session: NetworkSession = {
      run: async (input) => {
        runs++;
        return input;
      },
    };
    for (const size of [
      [0, 4, 4],
      [4, 0, 4],
      [4, 4, 0],
    ] as Size[])
      await expect(
        infer(volumeOf(size), session, slidingWindow({ roiSize: [4, 4, 4] }), { type: 'argmax' }),
      ).rejects.toMatchObject({ code: 'BAD_INPUT', message: expect.stringContaining('empty') });
    expect(runs).toBe(0);
  });

  it('accepts a network whose fixed dimensions are those of the window', async () => {
    const input = volumeOf([6, 5, 7], 2);
    const session: NetworkSession = {
      run: async ({ dims }) => ({
        data: new Float32Array(dims[2] * dims[3] * dims[4]),
        dims: [1, 1, ...dims.slice(2)],
      }),
      inputDims: [1, 2, 5, 4, 3],
    };
    const result = await infer(input, session, slidingWindow({ roiSize: [3, 4, 5] }), { type: 'argmax' });
    expect(result).toEqual({ labels: { ...input, components: 1, voxels: new Uint8Array(210) } });
  });

  it('keeps exact scores of constant windows, which weigh 1 each', async () => {
    const input: Volume = { voxels: Float32Array.of(1, 2, 3, 5, 8), size: [5, 1, 1], components: 1, affine };
    // Windows from 0, 2 and 3 give their own voxels, and the number of the window above them.
    let runs = 0;
    const session: NetworkSession = {
      run: async ({ data, dims }) => {
        runs++;
        return { data: data.map((v) => v + 8 * runs), dims };
      },
    };
    const spec = slidingWindow({ roiSize: [2, 1, 1], overlap: 0 });
    const result = await infer(input, session, spec, { type: 'none' });
    // Voxel 3 lies in the windows 2 and 3: 5 + 8 · 2.5.
    expect(result).toEqual({ scores: { ...input, voxels: Float32Array.of(9, 10, 19, 25, 32) } });
  });

  it('reports how many MB did not fit for a window, mirrored or not', async () => {
    const construct = (target: Float32ArrayConstructor, args: [number]) => {
      if (args[0] > 2 ** 36) throw new RangeError('Array buffer allocation failed');
      return new target(...args);
    };
    vi.stubGlobal('Float32Array', new Proxy(Float32Array, { construct }));
    try {
      // 4096³ voxels of two components in float32 are 549755.8 MB.
      for (const mirrorAxes of [undefined, ['x' as const]]) {
        const spec = slidingWindow({ roiSize: [4096, 4096, 4096], mirrorAxes });
        const result = infer(volumeOf([2, 2, 2], 2), identityNetwork, spec, { type: 'argmax' });
        await expect(result).rejects.toMatchObject({
          code: 'OUT_OF_MEMORY',
          message: expect.stringContaining('memory for 549756 MB'),
        });
      }
    } finally {
      vi.unstubAllGlobals();
    }
  });

  it('refuses what cannot be blended', async () => {
    const input = volumeOf([8, 4, 8]);
    const spec = slidingWindow({ roiSize: [4, 4, 4] });
    const answering = (output: Tensor | LabelTensor, inputDims?: (number | null)[]): NetworkSession => ({
      run: async () => output,
      inputDims,
    });
    const cube = [1, 1, 4, 4, 4];
    const bad: [NetworkSession, string][] = [
      [answering({ data: new Uint8Array(64), dims: cube, integer: true }), 'BAD_MANIFEST'],
      [answering({ data: new Float32Array(3), dims: [1, 3] }), 'BAD_MANIFEST'],
      [answering({ data: new Float32Array(8), dims: [1, 1, 2, 2, 2] }), 'APP_OUTPUT'],
      [answering({ data: new Float32Array(63), dims: cube }), 'APP_OUTPUT'],
      [answering({ data: new Float32Array(64).fill(Number.NaN), dims: cube }), 'APP_OUTPUT'],
      [answering({ data: new Float32Array(64), dims: cube }, [1, 1, 8, null, null]), 'BAD_MANIFEST'],
      [answering({ data: new Float32Array(64), dims: cube }, [1, 2, 4, 4, 4]), 'BAD_MANIFEST'],
    ];
    for (const [session, code] of bad)
      await expect(infer(input, session, spec, { type: 'argmax' })).rejects.toMatchObject({ code });
    await expect(
      infer(input, identityNetwork, spec, { type: 'threshold', channel: 1, above: 0 }),
    ).rejects.toMatchObject({ code: 'BAD_MANIFEST' });
  });
});

const identity = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
const rowOf = (values: readonly number[] | Float32Array, size: Size): Volume => ({
  voxels: Float32Array.from(values),
  size,
  components: 1,
  affine: identity,
});
const specs: readonly [string, InfererSpec][] = [
  ['simple', infererSchema.parse({ type: 'simple' })],
  ['a window as large as the volume', infererSchema.parse({ type: 'slidingWindow', roiSize: [7, 1, 1] })],
  [
    'windows that overlap, along z',
    infererSchema.parse({ type: 'slidingWindow', roiSize: [4, 1, 1], overlap: 0.5 }),
  ],
];

describe('infer() with a threshold', () => {
  /** Two channels: the voxels, and their negatives. */
  const network: NetworkSession = {
    run: async ({ data, dims }) => ({
      data: Float32Array.from([...data, ...data.map((v) => -v)]),
      dims: [1, 2, ...dims.slice(2)],
    }),
  };

  it.each(specs)('labels scores above it, and none that equal it (%s)', async (_what, spec) => {
    // The float32 numbers next to 0.5, and to 0: 2^-24 and 2^-25 are the last places of 0.5.
    const values = [0.5, 0.5 + 2 ** -24, 0.5 - 2 ** -25, 0, 1, -0.5, 0.5];
    const above = async (threshold: number, channel = 0) => {
      const reduction = { type: 'threshold', channel, above: threshold } as const;
      const result = await infer(rowOf(values, [7, 1, 1]), network, spec, reduction);
      return 'labels' in result ? [...result.labels.voxels] : undefined;
    };
    expect(await above(0.5)).toEqual([0, 1, 0, 0, 1, 0, 0]);
    expect(await above(0)).toEqual([1, 1, 1, 0, 1, 0, 1]);
    expect(await above(-0.5)).toEqual([1, 1, 1, 1, 1, 0, 1]);
    expect(await above(1)).toEqual([0, 0, 0, 0, 0, 0, 0]);
    // The other channel: −v above 0 is v below 0, and −0 is not above 0.
    expect(await above(0, 1)).toEqual([0, 0, 0, 0, 0, 1, 0]);
    expect(await above(-0.5, 1)).toEqual([0, 0, 1, 1, 0, 1, 0]);
  });

  it.each(specs)('gives the first class where scores are equal (%s)', async (_what, spec) => {
    const values = [0, 1, -1, 0, 0, 2, -2];
    const result = await infer(rowOf(values, [7, 1, 1]), network, spec, { type: 'argmax' });
    expect('labels' in result && [...result.labels.voxels]).toEqual([0, 0, 1, 0, 0, 0, 1]);
  });
});

describe('infer() with very many windows', () => {
  it('yields the first one immediately, and keeps nothing of the others', async () => {
    // 2^22 windows of 16 voxels, a voxel apart: a list of them with what each reads takes about a gigabyte.
    const length = 2 ** 22;
    const spec = infererSchema.parse({ type: 'slidingWindow', roiSize: [16, 1, 1], overlap: 0.9 });
    const input = rowOf(new Float32Array(length), [length, 1, 1]);
    const ended = new AbortController();
    const used = () => {
      const { heapUsed, arrayBuffers } = process.memoryUsage();
      return heapUsed + arrayBuffers;
    };
    const before = used();
    let grown = Number.NaN;
    let fraction = 0;
    const network: NetworkSession = {
      run: async ({ data, dims }) => {
        grown = used() - before;
        ended.abort();
        return { data, dims };
      },
    };
    const options = {
      signal: ended.signal,
      onProgress: (done: number) => {
        fraction = done;
      },
    };
    await expect(infer(input, network, spec, { type: 'argmax' }, options)).rejects.toMatchObject({
      code: 'CANCELED',
    });
    expect(fraction).toBe(1 / (length - 15));
    expect(grown).toBeLessThan(50e6);
  });
});

describe('ringPlan()', () => {
  const spec = (...roiSize: Size) =>
    infererSchema.parse({ type: 'slidingWindow', roiSize }) as SlidingWindowSpec;

  it.each([
    // Floats of all planes: z · min(ry, y) rows along y against y · min(rz, z) along z; z wins a tie.
    ['z', 3, 80, [10, 8, 6], [5, 4, 3]],
    ['z', 3, 80, [10, 8, 7], [5, 4, 3]],
    ['y', 4, 50, [10, 8, 5], [5, 4, 3]],
    ['z', 6, 30, [10, 3, 6], [5, 9, 9]],
    ['y', 2, 60, [10, 9, 6], [5, 2, 9]],
    ['z', 1, 21, [7, 3, 9], [2, 2, 1]],
    ['y', 1, 63, [7, 3, 9], [2, 1, 4]],
    // Windows larger than the volume along both.
    ['z', 5, 12, [6, 2, 5], [3, 8, 8]],
  ] as ['z' | 'y', number, number, Size, Size][])(
    'runs along %s, %i planes of %i, for %j in windows of %j',
    (axis, depth, plane, size, roi) => {
      const plan = ringPlan(size, spec(...roi), 2, 'argmax');
      expect(plan).toMatchObject({ axis, depth, plane });
      const full = ringPlan(size, spec(...roi), 2, 'argmax', 'full');
      expect(full).toMatchObject({ axis, depth: axis === 'z' ? size[2] : size[1], plane });
    },
  );

  it('places everything in steps of 16 bytes', () => {
    // A window of 3 · 3 · 3 = 27, planes of 25, three deep; labels of two bytes and 16 more: 13 + 8 numbers.
    const offsets = { importance: 0, patch: 28, ones: 56, labels: 60, weights: 84 };
    expect(ringPlan([5, 5, 9], spec(3, 3, 3), 2, 'argmax')).toEqual({
      ...{ axis: 'z', depth: 3, plane: 25, channels: 2, weighted: false },
      offsets: { ...offsets, scores: 84 },
      totalBytes: 4 * (84 + 152),
    });
    expect(ringPlan([5, 5, 9], spec(3, 3, 3), 2, 'none')).toEqual({
      ...{ axis: 'z', depth: 3, plane: 25, channels: 2, weighted: true },
      offsets: { ...offsets, scores: 84 + 76 },
      totalBytes: 4 * (84 + 76 + 152),
    });
    expect(ringPlan([5, 5, 9], spec(3, 3, 3), 2, 'threshold')).toEqual({
      ...{ axis: 'z', depth: 3, plane: 25, channels: 1, weighted: true },
      offsets: { ...offsets, scores: 84 + 76 },
      totalBytes: 4 * (84 + 76 + 76),
    });
  });
});
