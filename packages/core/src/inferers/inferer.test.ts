import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Affine } from '../geometry/affine.ts';
import { applyAffine } from '../geometry/affine.ts';
import type { LabelTensor, Tensor } from '../tensor.ts';
import { type Size, type Volume, voxelCount } from '../volume.ts';
import {
  estimateMemory,
  infer,
  infererSchema,
  type NetworkSession,
  type SlidingWindowSpec,
} from './inferer.ts';
import { sourceSha256 } from './kernel-module.gen.ts';
import { argmaxScores, openKernels } from './kernels.ts';
import { importanceMap, sourceIndices, windowStarts } from './windows.ts';

// Oblique, anisotropic, left-handed.
const affine: Affine = [-0.8, 0.1, 0.3, 12, 0.05, 1.4, -0.2, -30, 0.1, 0.2, 2.5, 7, 0, 0, 0, 1];

/** Reproducible numbers in [−1, 1). */
function noise(length: number, seed = 1): Float32Array {
  let state = seed;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

function volumeOf(size: Size, components = 1, seed = 1): Volume {
  return { voxels: noise(voxelCount({ size }) * components, seed), size, components, affine };
}

function slidingWindow(
  spec: Partial<SlidingWindowSpec> & { roiSize: [number, number, number] },
): SlidingWindowSpec {
  const parsed = infererSchema.parse({ type: 'slidingWindow', ...spec });
  if (parsed.type !== 'slidingWindow') throw new Error('not a sliding window');
  return parsed;
}

/** A network that mixes position in the window and value, so that windows disagree where they overlap. */
function positional(classes: number): NetworkSession {
  return {
    run: async ({ data, dims }) => {
      const count = dims[2] * dims[3] * dims[4];
      const out = new Float32Array(classes * count);
      for (let k = 0; k < classes; k++) {
        for (let i = 0; i < count; i++)
          out[k * count + i] = data[i] * Math.cos(k + 1) + Math.sin(i * (k + 2));
      }
      return { data: out, dims: [1, classes, ...dims.slice(2)] };
    },
  };
}

const identityNetwork: NetworkSession = { run: async (input) => input };

describe('windowStarts()', () => {
  it('gives the positions of MONAI 1.5 dense_patch_slices', () => {
    expect(windowStarts(160, 96, 0.5, 'monai')).toEqual([0, 48, 64]);
    expect(windowStarts(100, 32, 0.25, 'monai')).toEqual([0, 24, 48, 68]);
    expect(windowStarts(96, 96, 0.25, 'monai')).toEqual([0]);
    expect(windowStarts(97, 96, 0.25, 'monai')).toEqual([0, 1]);
    expect(windowStarts(9, 2, 0.9, 'monai')).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(windowStarts(64, 32, 0, 'monai')).toEqual([0, 32]);
  });
  it('gives the positions of nnU-Net compute_steps_for_sliding_window', () => {
    expect(windowStarts(128, 64, 0.5, 'nnunet')).toEqual([0, 32, 64]);
    expect(windowStarts(110, 64, 0.5, 'nnunet')).toEqual([0, 23, 46]);
    expect(windowStarts(123, 64, 0.5, 'nnunet')).toEqual([0, 30, 59]); // 29.5 rounds to the even 30
    expect(windowStarts(64, 64, 0.5, 'nnunet')).toEqual([0]);
  });
  it('centres a volume that is smaller than the window, one more voxel behind', () => {
    expect(windowStarts(5, 8, 0.25, 'monai')).toEqual([-1]);
    expect(windowStarts(5, 9, 0.25, 'nnunet')).toEqual([-2]);
  });
  it('covers every voxel', () => {
    const parameters = [
      fc.integer({ min: 1, max: 200 }),
      fc.integer({ min: 1, max: 64 }),
      fc.double({ min: 0, max: 0.95, noNaN: true }),
    ] as const;
    fc.assert(
      fc.property(
        ...parameters,
        fc.constantFrom('monai' as const, 'nnunet' as const),
        (length, roi, overlap, stepping) => {
          let covered = 0;
          for (const start of windowStarts(length, roi, overlap, stepping)) {
            if (start > covered) return false;
            covered = start + roi;
          }
          return covered >= length;
        },
      ),
    );
  });
});

describe('importanceMap()', () => {
  it('has the values of MONAI compute_importance_map', () => {
    // torch: compute_importance_map((4, 3, 2), 'gaussian', 0.125), patch in z, y, x.
    const map = importanceMap([2, 3, 4], 'gaussian', 0.125, 'monai');
    const weight = (x: number, y: number, z: number) =>
      Math.exp(-(x * x) / (2 * 0.0625)) *
      Math.exp(-(y * y) / (2 * 0.140625)) *
      Math.exp(-(z * z) / (2 * 0.25));
    expect(map.length).toBe(24);
    expect(map[2 + 6]).toBeCloseTo(weight(0.5, 0, 0.5), 6); // x 0, y 1, z 1
    expect(map[2]).toBeCloseTo(Math.max(weight(0.5, 0, 1.5), 1e-3), 7); // x 0, y 1, z 0
    expect(map[0]).toBe(Math.fround(1e-3));
    expect(Math.max(...map)).toBe(map[2 + 6]);
  });
  it('is nnU-Net’s with its stepping: centred on voxel ⌊n/2⌋, not raised to 0.001', () => {
    const map = importanceMap([8, 1, 1], 'gaussian', 0.125, 'nnunet');
    expect([...map].map((v) => Math.log(v))).toEqual(
      [-8, -4.5, -2, -0.5, 0, -0.5, -2, -4.5].map((v) => expect.closeTo(v, 4)),
    );
  });
});

describe('sourceIndices()', () => {
  it('pads as torch.nn.functional.pad does', () => {
    expect([...sourceIndices(-2, 7, 4, 'constant')]).toEqual([-1, -1, 0, 1, 2, 3, -1]);
    expect([...sourceIndices(-2, 7, 4, 'replicate')]).toEqual([0, 0, 0, 1, 2, 3, 3]);
    expect([...sourceIndices(-2, 7, 4, 'reflect')]).toEqual([2, 1, 0, 1, 2, 3, 2]);
  });
  it('refuses to reflect more voxels than there are', () => {
    expect(() => sourceIndices(-2, 7, 2, 'reflect')).toThrow(expect.objectContaining({ code: 'BAD_INPUT' }));
  });
});

describe('kernels', () => {
  it('come from the source that lies in scripts/kernels', () => {
    const source = readFileSync(new URL('../../../../scripts/kernels/kernels.as.txt', import.meta.url));
    expect(createHash('sha256').update(source).digest('hex')).toBe(sourceSha256);
  });
  it('give the bits of their twins in TypeScript', () => {
    for (const [classes, plane] of [
      [1, 5],
      [3, 37],
      [14, 160],
      [300, 51],
    ]) {
      const values = noise(classes * plane + 3 * plane, classes);
      const outputs = (['auto', 'plain'] as const).map((kind) => {
        const kernels = openKernels((values.length + plane) * 4, kind);
        expect(kernels.kind).toBe(kind === 'auto' ? 'simd' : 'plain');
        kernels.floats.set(values);
        const [a, b, out] = [classes * plane, (classes + 1) * plane, values.length * 4];
        // Two rows of uneven width, from uneven places.
        kernels.accumulate(1, plane >> 1, a, plane >> 1, b, 0, (plane >> 1) - 1, 2);
        kernels.divide(0, b, plane);
        kernels.argmax(0, plane, classes, plane, out, classes > 256);
        return Buffer.from(kernels.bytes.slice(0, out + plane * (classes > 256 ? 2 : 1))).toString('hex');
      });
      expect(outputs[0]).toBe(outputs[1]);
    }
  });
  it('argmax takes the first of equals and never NaN', () => {
    const scores = Float32Array.of(1, 5, 0, Number.NEGATIVE_INFINITY, 1, 5, Number.NaN, -2, 0, 6, 0.5, -2);
    for (const kind of ['auto', 'plain'] as const)
      expect([...argmaxScores(scores, 3, 4, kind)]).toEqual([0, 2, 2, 1]);
  });
  it('argmaxScores() works across blocks and in two bytes', () => {
    const count = 70001;
    const scores = noise(3 * count);
    const expected = Array.from({ length: count }, (_, i) => {
      const values = [0, 1, 2].map((k) => scores[k * count + i]);
      return values.indexOf(Math.max(...values));
    });
    expect(Buffer.from(argmaxScores(scores, 3, count)).equals(Buffer.from(expected))).toBe(true);
    const many = new Float32Array(400 * 5);
    for (let i = 0; i < 5; i++) many[(i * 90 + 7) * 5 + i] = 1;
    expect(argmaxScores(many, 400, 5)).toEqual(Uint16Array.of(7, 97, 187, 277, 367));
  });
});

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
  ['reflected', [6, 9, 5], 1, { roiSize: [9, 6, 8], paddingMode: 'reflect' }],
  ['replicated, two components', [6, 9, 5], 2, { roiSize: [11, 6, 8], paddingMode: 'replicate' }],
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
      volumeOf([8, 4, 8]),
      identityNetwork,
      spec,
      { type: 'argmax' },
      { onProgress: (f) => seen.push(f) },
    );
    expect(seen).toEqual([0.25, 0.5, 0.75, 1]);
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

describe('infer() with the whole volume', () => {
  const input = volumeOf([5, 4, 3]);
  it('keeps scores, takes the largest, or compares with a threshold', async () => {
    const session = positional(4);
    const scores = (await session.run({ data: input.voxels as Float32Array, dims: [1, 1, 3, 4, 5] })).data;
    expect(await infer(input, session, { type: 'simple' }, { type: 'none' })).toEqual({
      scores: { ...input, components: 4, voxels: scores },
    });
    const best = Uint8Array.from({ length: 60 }, (_, i) => {
      const values = [0, 1, 2, 3].map((k) => scores[k * 60 + i]);
      return values.indexOf(Math.max(...values));
    });
    expect(await infer(input, session, { type: 'simple' }, { type: 'argmax' })).toEqual({
      labels: { ...input, voxels: best },
    });
    const above = Uint8Array.from({ length: 60 }, (_, i) => (scores[120 + i] > 0.25 ? 1 : 0));
    expect(
      await infer(input, session, { type: 'simple' }, { type: 'threshold', channel: 2, above: 0.25 }),
    ).toEqual({ labels: { ...input, voxels: above } });
  });
  it('takes label values as they are', async () => {
    const data = Uint8Array.from({ length: 60 }, (_, i) => i);
    const session: NetworkSession = { run: async () => ({ data, dims: [1, 1, 3, 4, 5], integer: true }) };
    for (const type of ['none', 'argmax'] as const)
      expect(await infer(input, session, { type: 'simple' }, { type })).toEqual({
        labels: { ...input, voxels: data },
      });
    const turned: NetworkSession = { run: async () => ({ data, dims: [1, 1, 5, 4, 3], integer: true }) };
    await expect(infer(input, turned, { type: 'simple' }, { type: 'argmax' })).rejects.toMatchObject({
      code: 'APP_OUTPUT',
    });
  });
  it('gives a classifier’s answer as one voxel that covers the volume', async () => {
    for (const dims of [
      [1, 3],
      [1, 3, 1, 1, 1],
    ]) {
      const session: NetworkSession = { run: async () => ({ data: Float32Array.of(0.1, 0.7, 0.2), dims }) };
      const result = await infer(input, session, { type: 'simple' }, { type: 'none' });
      if (!('scores' in result)) throw new Error('no scores');
      expect(result.scores).toMatchObject({ size: [1, 1, 1], components: 3 });
      // Its corners are the corners of the volume.
      for (const corner of [
        [-0.5, -0.5, -0.5],
        [0.5, -0.5, 0.5],
        [0.5, 0.5, 0.5],
      ] as const) {
        const there = applyAffine(affine, [
          (corner[0] + 0.5) * 5 - 0.5,
          (corner[1] + 0.5) * 4 - 0.5,
          (corner[2] + 0.5) * 3 - 0.5,
        ]);
        expect(applyAffine(result.scores.affine, corner)).toEqual(there.map((v) => expect.closeTo(v, 9)));
      }
      expect(await infer(input, session, { type: 'simple' }, { type: 'argmax' })).toMatchObject({
        labels: { voxels: Uint8Array.of(1), size: [1, 1, 1] },
      });
    }
  });
  it('says what a network of fixed size takes', async () => {
    const session: NetworkSession = { run: async (tensor) => tensor, inputDims: [1, 1, 48, 60, 48] };
    await expect(infer(input, session, { type: 'simple' }, { type: 'argmax' })).rejects.toMatchObject({
      code: 'BAD_MANIFEST',
      message: expect.stringContaining('1 × 1 × 48 × 60 × 48'),
    });
  });
  it('refuses voxels that are not float32', async () => {
    const other: Volume = { ...input, voxels: new Int16Array(60) };
    for (const spec of [{ type: 'simple' } as const, slidingWindow({ roiSize: [2, 2, 2] })])
      await expect(infer(other, identityNetwork, spec, { type: 'argmax' })).rejects.toMatchObject({
        code: 'APP_FAILED',
      });
  });
});

describe('infererSchema', () => {
  it('has MONAI’s defaults', () => {
    expect(infererSchema.parse({ type: 'slidingWindow', roiSize: [96, 80, 64] })).toEqual({
      type: 'slidingWindow',
      roiSize: [96, 80, 64],
      overlap: 0.25,
      mode: 'constant',
      sigmaScale: 0.125,
      paddingMode: 'constant',
      paddingValue: 0,
      stepping: 'monai',
    });
  });
  it.each([
    { type: 'slidingWindow' },
    { type: 'slidingWindow', roiSize: [96, 96] },
    { type: 'slidingWindow', roiSize: [9, 9, 0] },
    { type: 'slidingWindow', roiSize: [9, 9, 9], overlap: 1 },
    { type: 'simple', roi: 1 },
    { type: 'magic' },
  ])('refuses %o', (spec) => {
    expect(infererSchema.safeParse(spec).success).toBe(false);
  });
});

describe('estimateMemory()', () => {
  it('counts the ring, not all scores, and nothing is allocated for it', () => {
    const spec = slidingWindow({ roiSize: [128, 128, 128], overlap: 0.5 });
    const labels = estimateMemory(spec, [512, 512, 300], 1, 118);
    const voxels = 512 * 512 * 300;
    // Planes of 512 × 300 along y are smaller than 512 × 512 along z.
    const ring = 118 * 128 * 512 * 300 * 4;
    expect(labels).toBeGreaterThan(ring + voxels * 5);
    expect(labels).toBeLessThan(ring * 1.02 + voxels * 5 + 119 * 128 ** 3 * 4);
    expect(estimateMemory(spec, [512, 512, 300], 1, 118, 'none')).toBeGreaterThan(ring + voxels * 4 * 118);
    expect(estimateMemory({ type: 'simple' }, [256, 256, 256], 1, 3)).toBe(256 ** 3 * (4 + 12 + 1));
  });
});
