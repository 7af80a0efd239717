import { describe, expect, it } from 'vitest';
import type { NetworkSession } from '../inferers/spec.ts';
import type { Tensor } from '../tensor.ts';
import { canaryDims, canaryTensor, compareSessions } from './canary.ts';
import type { NetworkSpec } from './manifest.ts';
import { parseManifest } from './parse-manifest.ts';

const manifest = parseManifest(`schemaVersion: 1
id: net
name: Net
description: A test.
version: 1.0.0
modality: CT
anatomy: liver
task: segmentation
authors: [Someone]
licence: MIT
intendedUse: Tests.
inputs:
  volume: { type: volume }
model: { runtime: onnx, file: net.onnx, sha256: '${'0'.repeat(64)}' }
outputs: { segmentation: { type: LabelVolume } }
`);
const spec = manifest.model[0] as NetworkSpec;
const dims = [1, 1, 20, 30, 40];

/** An engine: class 1 where `scoreOf` a voxel's index is above 0. */
const engine = (scoreOf: (input: Float32Array, index: number) => number): NetworkSession => ({
  async run({ data, dims: [batch, , ...size] }: Tensor) {
    const scores = new Float32Array(2 * data.length);
    for (let i = 0; i < data.length; i++) scores[data.length + i] = scoreOf(data, i);
    return { data: scores, dims: [batch, 2, ...size] };
  },
});
const right = (input: Float32Array, i: number) => input[i];
const compare = (found: NetworkSession, expected = engine(right)) =>
  compareSessions(manifest, spec, { reference: expected, session: found }, dims);

describe('compareSessions()', () => {
  it('finds no fault where the scores differ by rounding', async () => {
    const report = await compare(engine((input, i) => input[i] * (1 + 1e-6)));
    expect(report).toMatchObject({ voxels: 24_000, differ: 0 });
    expect(report.fault).toBeUndefined();
    expect(report.scoreDifference).toBeLessThan(1e-5);
  });

  it('names the number of labels that differ, and allows 0.01 %', async () => {
    const wrongIn = (count: number) =>
      engine((input, i) => (i < count ? (input[i] > 0 ? -0.001 : 0.001) : input[i]));
    // 2.4 voxels of 24,000 may differ; such scores change by little only near 0.
    const near = engine((input, i) => (Math.abs(input[i]) < 1e-3 ? -input[i] : input[i]));
    const few = await compare(near);
    expect(few.differ).toBe(
      [...canaryTensor(dims).data].filter((value) => Math.abs(value) < 1e-3 && value !== 0).length,
    );
    expect((await compare(wrongIn(3))).fault).toMatch(
      /^3 of 24000 voxels \(0\.013 %\) get another label than from the processor, and 0\.01 % may$/,
    );
    expect((await compare(wrongIn(2))).fault ?? '').not.toMatch(/another label/);
  });

  it.each([
    ['x', (i: number) => i - (i % 40) + 39 - (i % 40)],
    ['z', (i: number) => (19 - Math.floor(i / 1200)) * 1200 + (i % 1200)],
  ])('refuses an engine that mirrors along %s', async (_, from) => {
    expect((await compare(engine((input, i) => input[from(i)]))).fault).toMatch(/voxels .* another label/);
  });

  it('refuses wrong scores where all labels are background', async () => {
    const empty = engine((input, i) => input[i] - 100);
    const wrong = engine((input, i) => (i % 7 === 0 ? -50 : input[i] - 100));
    const report = await compare(wrong, empty);
    expect(report.differ).toBe(0);
    expect(report.fault).toMatch(
      /^its scores differ from those of the processor by up to \d+ % of the largest/,
    );
  });

  it('refuses scores that are not finite', async () => {
    const nan = engine((input, i) => (i === 23_999 ? Number.NaN : input[i]));
    expect((await compare(nan)).fault).toMatch(/not finite|another label/);
  });

  it('refuses an answer of another shape', async () => {
    const short: NetworkSession = {
      run: async () => ({ data: new Float32Array(2), dims: [1, 2, 1, 1, 1] }),
    };
    expect((await compare(short)).fault).toBe(
      'it gives a tensor of 1 × 2 × 1 × 1 × 1, and the processor one of 1 × 2 × 20 × 30 × 40',
    );
  });

  it('compares the networks of slices, without a batch too', async () => {
    const flat = (scale: number): NetworkSession => ({
      run: async ({ data, dims: [, rows, columns] }) => ({
        data: Float32Array.from([...data.map(() => 0), ...data.map((value) => value * scale)]),
        dims: [2, rows, columns],
      }),
    });
    const sessions = { reference: flat(1), session: flat(-1) };
    expect(await compareSessions(manifest, spec, sessions, [1, 30, 40])).toMatchObject({
      voxels: 1200,
      fault: expect.stringContaining('another label'),
    });
  });
});

describe('canaryTensor()', () => {
  it('is equal to none of its mirror images, and differs between components', () => {
    const { data } = canaryTensor([1, 2, 8, 8, 8]);
    const at = (c: number, z: number, y: number, x: number) => data[((c * 8 + z) * 8 + y) * 8 + x];
    const images = [
      (z: number, y: number, x: number) => at(0, z, y, 7 - x),
      (z: number, y: number, x: number) => at(0, z, 7 - y, x),
      (z: number, y: number, x: number) => at(0, 7 - z, y, x),
      (z: number, y: number, x: number) => at(0, x, y, z),
      (z: number, y: number, x: number) => at(1, z, y, x),
    ];
    for (const image of images) {
      let changed = 0;
      for (let i = 0; i < 512; i++) {
        const [z, y, x] = [i >> 6, (i >> 3) & 7, i & 7];
        if (at(0, z, y, x) > 0 !== image(z, y, x) > 0) changed++;
      }
      expect(changed).toBeGreaterThan(20);
    }
  });
});

describe('canaryDims()', () => {
  it.each<[string, (number | null)[], number[] | undefined, string]>([
    ['any size', [null, 1, null, null, null], undefined, '1,1,16,32,64 1,1,32,64,128'],
    ['windows', [1, null, null, null, null], [1, 2, 96, 96, 96], '1,2,16,32,64 1,2,32,64,96 1,2,96,96,96'],
    [
      'thick slices',
      [1, 1, null, null, null],
      [1, 1, 20, 320, 256],
      '1,1,16,32,64 1,1,20,64,128 1,1,20,320,256',
    ],
    ['small windows', [1, 1, null, null, null], [1, 1, 8, 8, 8], '1,1,8,8,8'],
    ['one size', [null, 1, 128, 128, 128], undefined, '1,1,128,128,128'],
    ['a size that is too large', [1, 1, 256, 256, 256], undefined, ''],
    ['large windows', [1, 1, null, null, null], [1, 1, 192, 192, 192], '1,1,16,32,64 1,1,32,64,128'],
    ['slices without a batch', [null, null, null], [2, 256, 256], '2,32,64 2,64,128 2,256,256'],
  ])('tries small volumes first: %s', (_, inputDims, window, expected) => {
    const tries = canaryDims(inputDims, window, 2);
    expect(tries.map((dims) => dims.join()).join(' ')).toBe(expected);
    for (const dims of tries) expect(dims.reduce((a, b) => a * b, 1)).toBeLessThanOrEqual(128 ** 3);
  });
});
