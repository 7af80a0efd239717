import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { canaryTensor, TomaatError } from '@tomaat/core';
import { env } from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { modelsFolder } from '../../../../test/real-data.ts';
import { unetNetwork } from '../../test/onnx-fixture.ts';
import { differenceOf } from './canary.ts';
import { processor } from './devices.ts';
import { openFaster, withLighter } from './faster-form.ts';
import { openRecord } from './measured.ts';
import { type OnnxSession, openOnnxSession } from './onnx.ts';
import type { OnnxOptions } from './onnx-options.ts';

// Where trials are kept is part of what is tried here.
delete process.env.TOMAAT_TRIALS;

let folder: string;
const networks: Record<string, string> = {};
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'faster-form-'));
  for (const [name, options] of Object.entries({
    monai: { classes: 4, channels: [4, 6, 8], upKernel: 3, activation: 'prelu' },
    nnunet: { classes: 4, channels: [4, 6, 8] },
    pooling: { classes: 4, channels: [4] },
    wide: { classes: 4, channels: [16, 32] },
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

/** Options with a trial of the network that was kept before. */
async function kept(file: string, plainMs: number, timedMs: number, bytesPerVoxel = 0): Promise<OnnxOptions> {
  const trialsFolder = await mkdtemp(join(folder, 'trials-'));
  const digest = createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
  await openRecord({ folder: trialsFolder, digest, engine: env.versions.node, threads: 1 }).keep({
    plainMs,
    timedMs,
    bytesPerVoxel,
  });
  return { device: { ...processor, trialsFolder } };
}

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
    ['torchio-unet/torchio_unet_whole_4mm.onnx', { 'leaky-relu': 10, winograd: 8 }],
    ['meshnet/model5_gw_ae.onnx', {}],
  ])('rewrites %s of others as far as it can', (file, applied) =>
    kept(join(models!, file), 2, 1).then((options) =>
      withSession(join(models!, file), { roiSize: [20, 12, 16], ...options }, async ({ graph }) =>
        expect(graph.applied).toEqual(applied),
      ),
    ),
  );
});

describe('openOnnxSession() with rewrites that are timed', () => {
  const input = canaryTensor([1, 1, 10, 12, 6]);
  const full = { winograd: 5, 'sub-pixel': 1 };
  const plain = { 'sub-pixel': 1 };
  const left = 'its faster form needs more memory than is free';
  const free = (bytes: number) => () => ({ resident: bytes, data: 2 * bytes });

  it('measures both forms once, keeps that, and uses the faster one', async () => {
    const trialsFolder = join(folder, 'measured');
    const lines: string[] = [];
    const options = {
      device: { ...processor, trialsFolder },
      roiSize: [16, 12, 8],
      threads: availableParallelism(),
      log: (line: string) => lines.push(line),
    };
    const applied = await withSession(networks.wide, options, async (session) => {
      expect((await session.run(input)).dims).toEqual([1, 4, 10, 12, 6]);
      return session.graph.applied;
    });
    const [file, ...others] = await readdir(trialsFolder);
    expect(others).toEqual([]);
    const { plainMs, timedMs } = JSON.parse(await readFile(join(trialsFolder, file), 'utf8')).form;
    expect(applied).toEqual(timedMs <= 0.95 * plainMs ? full : plain);
    expect(lines).toEqual([
      `winograd: ${(timedMs / plainMs).toFixed(2)} of the time without it, in a trial on this machine`,
    ]);
    await withSession(networks.wide, options, async ({ graph }) => expect(graph.applied).toEqual(applied));
    expect(lines).toHaveLength(1);
  });

  it('uses them as a kept trial says, with the same scores and labels', async () => {
    const expected = await withSession(networks.wide, { labels: true, rewrite: false }, async (session) => [
      await session.run(input),
      await session.runLabels!(input),
    ]);
    for (const [timedMs, applied] of [
      [80, full],
      [99, plain],
    ] as const) {
      const options = { labels: true, ...(await kept(networks.wide, 100, timedMs)) };
      await withSession(networks.wide, options, async (session) => {
        expect(session.graph).toEqual({ applied });
        expect(session.rewrites?.toSorted()).toEqual(Object.keys(applied).toSorted());
        expect(differenceOf(expected[0], await session.run(input))).toBeUndefined();
        expect(await session.runLabels!(input)).toEqual(expected[1]);
      });
    }
  });

  it('leaves them out for a window that needs more than half of the memory', async () => {
    const options = { roiSize: [8, 8, 16], ...(await kept(networks.wide, 2, 1, 1000)) };
    const needed = 8 * 8 * 16 * 1000;
    for (const [bytes, applied] of [
      [2 * needed, full],
      [2 * needed - 2, plain],
    ] as const)
      await withSession(networks.wide, { ...options, freeMemory: free(bytes) }, async ({ graph }) =>
        expect(graph.applied).toEqual(applied),
      );
  });

  it('computes a volume that needs more memory by the original graph', async () => {
    const options = { ...(await kept(networks.wide, 2, 1, 1000)), freeMemory: free(2e6) };
    await withSession(networks.wide, options, async (session) => {
      const small = await session.run(canaryTensor([1, 1, 10, 10, 10]));
      expect(session.graph.applied).toEqual(full);
      const large = await session.run(canaryTensor([1, 1, 10, 10, 12]));
      expect(session.graph).toEqual({ applied: {}, left });
      expect(session.rewrites).toBeUndefined();
      await withSession(networks.wide, { rewrite: false }, async (original) => {
        expect(await original.run(canaryTensor([1, 1, 10, 10, 12]))).toEqual(large);
        const again = await original.run(canaryTensor([1, 1, 10, 10, 10]));
        expect(differenceOf(again, small)).toBeUndefined();
      });
    });
  });

  it('computes again by the original graph when memory runs out', async () => {
    const session = await openOnnxSession(networks.wide, { rewrite: false, threads: 1 });
    const full = new TomaatError('OUT_OF_MEMORY', 'no memory');
    const first = { ...session, graph: { applied: { winograd: 1 } }, run: () => Promise.reject(full) };
    const lighter = withLighter(
      first,
      () => true,
      () => openOnnxSession(networks.wide, { rewrite: false }),
    );
    expect((await lighter.run(input)).dims).toEqual([1, 4, 10, 12, 6]);
    expect(lighter.graph).toEqual({ applied: {}, left });
    await expect(session.run(input)).rejects.toThrow('closed');
    await lighter.close();
    await expect(lighter.run(input)).rejects.toThrow('closed');
  });

  it('does not use them where the operator wants networks as they are', () =>
    withSession(networks.wide, { device: { ...processor, rewrite: false } }, async ({ graph }) =>
      expect(graph).toEqual({ applied: {}, left: 'the operator wants it as it is' }),
    ));
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
    expect(choice).toEqual({
      applied: {},
      left: expect.stringMatching(/^rewritten, .* from the original graph, and 0.01 % may$/),
    });
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
