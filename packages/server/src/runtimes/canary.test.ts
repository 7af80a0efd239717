import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { canaryTensor, type LabelTensor, type Tensor } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { modelsFolder } from '../../../../test/real-data.ts';
import { unetNetwork } from '../../test/onnx-fixture.ts';
import { differenceOf, openFaster } from './canary.ts';
import { type OnnxSession, openOnnxSession } from './onnx.ts';
import type { OnnxOptions } from './onnx-options.ts';

let folder: string;
const networks: Record<string, string> = {};
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'canary-'));
  for (const [name, options] of Object.entries({
    monai: { classes: 4, channels: [4, 6, 8], upKernel: 3, activation: 'prelu' },
    nnunet: { classes: 4, channels: [4, 6, 8] },
    pooling: { classes: 4, channels: [4] },
  } as const)) {
    networks[name] = join(folder, `${name}.onnx`);
    await writeFile(networks[name], unetNetwork(options));
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function withSession<T>(
  file: string,
  options: OnnxOptions,
  use: (session: OnnxSession) => Promise<T>,
): Promise<T> {
  const session = await openOnnxSession(file, { threads: 1, ...options });
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

const scores = (values: readonly number[], dims: readonly number[]): Tensor => ({
  data: Float32Array.from(values),
  dims,
});

describe('openOnnxSession() with rewrites', () => {
  it.each([
    ['monai', { 'sub-pixel': 2, 'leaky-relu': 10 }],
    ['nnunet', { 'sub-pixel': 2 }],
  ])('computes the %s network in its faster form, with the same labels', async (name, applied) => {
    const input = canaryTensor([1, 1, 12, 8, 20]);
    const options = { labels: true, roiSize: [16, 12, 8] };
    const found = await withSession(networks[name], options, async (session) => {
      expect(session.graph).toEqual({ applied });
      return [await session.run(input), await session.runLabels!(input)];
    });
    const expected = await withSession(networks[name], { ...options, rewrite: false }, async (session) => {
      expect(session.graph).toEqual({ applied: {}, left: 'the app wants it as it is' });
      return [await session.run(input), await session.runLabels!(input)];
    });
    expect(differenceOf(expected[0], found[0])).toBeUndefined();
    expect(found[1]).toEqual(expected[1]);
    expect(new Set(expected[1].data).size).toBeGreaterThan(1);
  });

  it('leaves a network alone that has nothing to rewrite', () =>
    withSession(networks.pooling, {}, async ({ graph }) =>
      expect(graph).toEqual({ applied: {}, left: 'no operator has a faster form that is known' }),
    ));

  const models = modelsFolder();
  it.skipIf(!models).each([
    ['torchio-unet/torchio_unet_whole_4mm.onnx', { 'leaky-relu': 10 }],
    ['meshnet/model5_gw_ae.onnx', {}],
  ])('rewrites %s of others as far as it can', (file, applied) =>
    withSession(join(models!, file), { roiSize: [20, 12, 16] }, async ({ graph }) =>
      expect(graph.applied).toEqual(applied),
    ),
  );
});

describe('openFaster()', () => {
  it('does not use a rewritten graph with other labels, and opens the original again', async () => {
    const model = unetNetwork({ classes: 4, channels: [4, 6, 8] });
    const other = join(folder, 'other.onnx');
    await writeFile(other, unetNetwork({ classes: 4, channels: [4, 6, 8], seed: 2 }));
    const original = await openOnnxSession(networks.nnunet, { rewrite: false });
    const asked: boolean[] = [];
    const { session, choice } = await openFaster(model, original, { tries: [[1, 1, 8, 4, 12]] }, (bytes) => {
      asked.push(bytes !== undefined);
      return openOnnxSession(bytes ? other : networks.nnunet, { rewrite: false });
    });
    expect(choice).toEqual({ applied: {}, left: expect.stringContaining('rewritten, its scores differ by') });
    expect(asked).toEqual([true, false]);
    await expect(original.run(canaryTensor([1, 1, 4, 4, 4]))).rejects.toThrow('closed');
    expect((await session.run(canaryTensor([1, 1, 4, 4, 4]))).dims).toEqual([1, 4, 4, 4, 4]);
    await session.close();
  });

  it('keeps the original where the engine refuses the rewritten graph, or no volume fits', async () => {
    const model = unetNetwork({ classes: 4, channels: [4, 6, 8] });
    const open = () => openOnnxSession(networks.nnunet, { rewrite: false });
    const refused = await openFaster(model, await open(), { tries: [[1, 1, 4, 4, 4]] }, (bytes) =>
      bytes ? Promise.reject(new Error('no such operator')) : open(),
    );
    expect(refused.choice.left).toBe('rewritten, no such operator');
    await refused.session.close();
    const dims = { tries: [[1, 1, 4, 4, 4]], warmDims: [1, 1, 8, 8, 8] };
    const tooLarge = await openFaster(model, await open(), dims, async (bytes) => {
      const session = await open();
      return bytes ? { ...session, warmUp: () => Promise.reject(new Error('out of memory')) } : session;
    });
    expect(tooLarge.choice).toEqual({ applied: {}, left: 'rewritten, out of memory' });
    expect(tooLarge.isWarm).toBeUndefined();
    await tooLarge.session.close();
    const original = await open();
    const odd = await openFaster(model, original, { tries: [[1, 1, 3, 3, 3]] }, open);
    expect(odd.session).toBe(original);
    expect(odd.choice.left).toContain('small enough to compare');
    await original.close();
  });
});

describe('differenceOf()', () => {
  const dims = [1, 2, 1, 100, 200];
  const half = 20_000;
  /** Two classes; the second has the larger score at the first `ones` voxels, by 1e-5. */
  const withOnes = (ones: number) =>
    scores(
      Array.from({ length: 2 * half }, (_, i) => (i < half ? 1 : i - half < ones ? 1.00001 : 0.99999)),
      dims,
    );

  it('accepts at most one label in 10,000 that differs', () => {
    expect(differenceOf(withOnes(50), withOnes(50))).toBeUndefined();
    expect(differenceOf(withOnes(50), withOnes(52))).toBeUndefined();
    expect(differenceOf(withOnes(50), withOnes(53))).toBe('3 of 20000 labels differ');
    const labels = (value: number): LabelTensor => ({
      data: Uint8Array.from({ length: half }, (_, i) => (i < 3 ? value : 0)),
      dims: [1, 1, 1, 100, 200],
      integer: true,
    });
    expect(differenceOf(labels(1), labels(2))).toBe('3 of 20000 labels differ');
    expect(differenceOf(labels(1), labels(1))).toBeUndefined();
  });

  it('finds scores that differ, are not numbers, or have other dimensions', () => {
    const one = scores([0, 1, 2, -4], [1, 1, 1, 2, 2]);
    expect(differenceOf(one, scores([0.003, 1, 2, -4], one.dims))).toBeUndefined();
    expect(differenceOf(one, scores([0.005, 1, 2, -4], one.dims))).toContain('differ by 0.005');
    expect(differenceOf(one, scores([Number.NaN, 1, 2, -4], one.dims))).toContain('not numbers');
    expect(differenceOf(one, scores([0, 1, Number.POSITIVE_INFINITY, -4], one.dims))).toContain(
      'differ by Infinity',
    );
    const infinite = scores([Number.NaN, Number.POSITIVE_INFINITY, 2, -4], one.dims);
    expect(differenceOf(infinite, infinite)).toBeUndefined();
    expect(differenceOf(one, scores([0, 1, 2, -4], [1, 1, 1, 4, 1]))).toContain(
      'instead of 1 × 1 × 1 × 2 × 2',
    );
  });
});
