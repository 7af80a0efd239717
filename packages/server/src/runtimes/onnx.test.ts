import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { type Affine, infer, infererSchema, type Size, type Volume, voxelCount } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dataFolder, isSlowWanted, modelsFolder } from '../../../../test/real-data.ts';
import {
  encodeModel,
  labelNetwork,
  pointwiseNetwork,
  thresholdNetwork,
  unetNetwork,
  writeModel,
} from '../../test/onnx-fixture.ts';
import type { App } from '../apps.ts';
import { onnxRuntime, openOnnxSession } from './onnx.ts';
import { inspectGraph, withLabelOutput } from './onnx-graph.ts';

const affine: Affine = [-0.8, 0.1, 0.3, 12, 0.05, 1.4, -0.2, -30, 0.1, 0.2, 2.5, 7, 0, 0, 0, 1];
const free = ['z', 'y', 'x'] as const;
const image = { name: 'image', dims: [1, 1, ...free] };
const scores = { name: 'scores', dims: [1, 1, ...free] };
const identity = (type: 'float16' | 'float64' | 'int32') => [
  {
    op: 'Cast',
    inputs: ['image'],
    outputs: ['scores'],
    attributes: { to: { float16: 10, float64: 11, int32: 6 }[type] },
  },
];

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'onnx-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function ramp(size: Size, components = 1): Volume & { voxels: Float32Array } {
  const voxels = Float32Array.from(
    { length: voxelCount({ size }) * components },
    (_, i) => ((i * 7919) % 1013) / 1013,
  );
  return { voxels, size, components, affine };
}

describe('openOnnxSession()', () => {
  it('gives the scores of known weights, axes in the order [1, C, z, y, x]', async () => {
    const weights = [
      [1, 2],
      [-1, 0.5],
      [0, 0],
    ];
    const bias = [0, 0.25, 1];
    const model = await writeModel(
      folder,
      'pointwise.onnx',
      pointwiseNetwork({ weights, bias, size: [5, 3, 4] }),
    );
    await using session = await open(model);
    expect(session.inputDims).toEqual([1, 2, 4, 3, 5]);
    const input = ramp([5, 3, 4], 2);
    const result = await infer(input, session, { type: 'simple' }, { type: 'none' });
    if (!('scores' in result)) throw new Error('no scores');
    const expected = Float32Array.from({ length: 180 }, (_, i) => {
      const [k, voxel] = [Math.floor(i / 60), i % 60];
      return (
        weights[k][0] * Number(input.voxels[voxel]) +
        weights[k][1] * Number(input.voxels[60 + voxel]) +
        bias[k]
      );
    });
    expect([...result.scores.voxels].map(Number)).toEqual([...expected].map((v) => expect.closeTo(v, 5)));
  });

  describe('with slices', () => {
    /** The sum of each pixel with its left neighbour, twice the one above it, and a bias. */
    const conv = (dims: readonly (number | string)[], out: readonly (number | string)[]) =>
      encodeModel({
        inputs: [{ name: 'image', dims }],
        outputs: [{ name: 'scores', dims: out }],
        initializers: [
          { name: 'w', dims: [1, 1, 2, 2], data: Float32Array.of(0, 2, 1, 1) },
          { name: 'b', dims: [1], data: Float32Array.of(0.5) },
        ],
        nodes: [
          {
            op: 'Conv',
            inputs: ['image', 'w', 'b'],
            outputs: ['scores'],
            attributes: { kernel_shape: [2, 2], pads: [1, 1, 0, 0] },
          },
        ],
      });
    const none = { type: 'none' } as const;

    it.each([
      ['free', ['n', 1, 'y', 'x']],
      ['fixed', [1, 1, 3, 5]],
    ])('runs a 2-D network of %s size, rows and columns in their order', async (_what, dims) => {
      const path = await writeModel(folder, `flat-${_what}.onnx`, conv(dims, dims));
      await using session = await open(path, { slices: true });
      expect(session.inputDims).toEqual(dims.map((d) => (typeof d === 'number' ? d : null)));
      const input = ramp([5, 4, 3]);
      const spec = infererSchema.parse({ type: 'slice', axis: 'y' });
      const result = await infer(input, session, spec, none);
      if (!('scores' in result)) throw new Error('no scores');
      const at = (x: number, y: number, z: number) =>
        x < 0 || z < 0 ? 0 : Number(input.voxels[(z * 4 + y) * 5 + x]);
      for (let z = 0; z < 3; z++)
        for (let y = 0; y < 4; y++)
          for (let x = 0; x < 5; x++)
            expect(result.scores.voxels[(z * 4 + y) * 5 + x]).toBeCloseTo(
              at(x, y, z) + at(x - 1, y, z) + 2 * at(x, y, z - 1) + 0.5,
              5,
            );
    });

    it('takes a network without a batch', async () => {
      const dims = [1, 'y', 'x'];
      const relu = encodeModel({
        inputs: [{ name: 'image', dims }],
        outputs: [{ name: 'scores', dims }],
        nodes: [{ op: 'Relu', inputs: ['image'], outputs: ['scores'] }],
      });
      const path = await writeModel(folder, 'unbatched.onnx', relu);
      await using session = await open(path, { slices: true, warmUpDims: [1, 3, 4] });
      const input = ramp([5, 4, 3]);
      const spec = infererSchema.parse({ type: 'slice', axis: 'x', roiSize: [2, 2] });
      // No voxel is below 0.
      expect(await infer(input, session, spec, none)).toEqual({ scores: input });
    });

    it('refuses networks of other dimensions, and says which inferer they need', async () => {
      const flat = await writeModel(folder, 'flat.onnx', conv(['n', 1, 'y', 'x'], ['n', 1, 'y', 'x']));
      await expect(open(flat)).rejects.toMatchObject({
        code: 'BAD_MANIFEST',
        message: expect.stringContaining('use the inferer slice for a 2-D network'),
      });
      const volume = await writeModel(folder, 'volume.onnx', unetNetwork({ classes: 2, channels: [4, 8] }));
      await expect(open(volume, { slices: true })).rejects.toMatchObject({
        code: 'BAD_MANIFEST',
        message: expect.stringContaining('the inferer slice expects 1 × components × rows × columns'),
      });
    });
  });

  it('runLabels gives the argmax of run', async () => {
    const model = await writeModel(folder, 'unet.onnx', unetNetwork({ classes: 5, channels: [4, 8] }));
    await using session = await open(model, { labels: true });
    expect(session.runLabels).toBeTypeOf('function');
    const input = ramp([12, 8, 10]);
    const labels = await infer(input, session, { type: 'simple' }, { type: 'argmax' });
    const { runLabels, ...plain } = session;
    expect(await infer(input, plain, { type: 'simple' }, { type: 'argmax' })).toEqual(labels);
    if (!('labels' in labels)) throw new Error('no labels');
    expect(new Set([...labels.labels.voxels]).size).toBeGreaterThan(2);
  });

  it('takes label maps, float16 and float64 as outputs', async () => {
    const input = ramp([5, 3, 4]);
    const expected = Uint8Array.from(input.voxels, (v) => (Number(v) > 0.5 ? 1 : 0));
    for (const type of ['uint8', 'int32', 'int64'] as const) {
      await using session = await open(
        await writeModel(folder, `labels-${type}.onnx`, labelNetwork(0.5, type)),
      );
      expect(await infer(input, session, { type: 'simple' }, { type: 'argmax' })).toEqual({
        labels: { ...input, voxels: expected },
      });
    }
    for (const type of ['float16', 'float64'] as const) {
      const model = encodeModel({ nodes: identity(type), inputs: [image], outputs: [{ ...scores, type }] });
      await using session = await open(await writeModel(folder, `${type}.onnx`, model));
      const output = await session.run({ data: Float32Array.of(0.1, -70000, 65504), dims: [1, 1, 1, 1, 3] });
      expect([...output.data]).toEqual(
        type === 'float16'
          ? [0.0999755859375, Number.NEGATIVE_INFINITY, 65504]
          : [Math.fround(0.1), -70000, 65504],
      );
    }
  });

  it('fills a float16 input', async () => {
    const model = encodeModel({
      nodes: [{ op: 'Cast', inputs: ['image'], outputs: ['scores'], attributes: { to: 1 } }],
      inputs: [{ ...image, type: 'float16' }],
      outputs: [scores],
    });
    await using session = await open(await writeModel(folder, 'half-input.onnx', model));
    const output = await session.run({ data: Float32Array.of(0.1, 3), dims: [1, 1, 1, 1, 2] });
    expect([...output.data]).toEqual([0.0999755859375, 3]);
  });

  it('refuses labels that fit no label map', async () => {
    const model = encodeModel({
      nodes: identity('int32'),
      inputs: [image],
      outputs: [{ ...scores, type: 'int32' }],
    });
    await using session = await open(await writeModel(folder, 'int32.onnx', model));
    const run = (value: number) => session.run({ data: Float32Array.of(value, 3), dims: [1, 1, 1, 1, 2] });
    expect(await run(255)).toMatchObject({ data: Uint8Array.of(255, 3), integer: true });
    expect(await run(256)).toMatchObject({ data: Uint16Array.of(256, 3), integer: true });
    await expect(run(-1)).rejects.toMatchObject({
      code: 'APP_OUTPUT',
      message: expect.stringContaining('-1'),
    });
    await expect(run(65536)).rejects.toMatchObject({ code: 'APP_OUTPUT' });
  });

  it('picks inputs and outputs by name and says which there are', async () => {
    const model = encodeModel({
      nodes: [
        { op: 'Identity', inputs: ['image'], outputs: ['first'] },
        { op: 'Neg', inputs: ['image'], outputs: ['second'] },
      ],
      inputs: [image],
      outputs: [
        { ...scores, name: 'first' },
        { ...scores, name: 'second' },
      ],
    });
    const path = await writeModel(folder, 'two-outputs.onnx', model);
    for (const [outputName, sign] of [
      [undefined, 1],
      ['second', -1],
    ] as const) {
      await using session = await open(path, { outputName });
      expect((await session.run({ data: Float32Array.of(2), dims: [1, 1, 1, 1, 1] })).data[0]).toBe(2 * sign);
    }
    await refuses(path, 'first, second', { outputName: 'third' });
    await refuses(path, 'image', { inputName: 'picture' });
  });

  it('warms up where the size is known, and finds graphs that cannot run', async () => {
    // 3 × 3 values cannot be added to 2 × 3: known only at run time, because the second shape is free.
    const model = encodeModel({
      nodes: [
        {
          op: 'MaxPool',
          inputs: ['image'],
          outputs: ['half'],
          attributes: { kernel_shape: [2, 2, 2], strides: [2, 2, 2] },
        },
        { op: 'Add', inputs: ['half', 'image'], outputs: ['scores'] },
      ],
      inputs: [image],
      outputs: [scores],
    });
    const path = await writeModel(folder, 'broken.onnx', model);
    await (await openOnnxSession(path)).close();
    await refuses(path, 'failed on a tensor of 1 × 1 × 8 × 8 × 8', { warmUpDims: [1, 1, 8, 8, 8] });
  });

  it('a failed run names the tensor; missing memory is OUT_OF_MEMORY', async () => {
    await using session = await open(
      await writeModel(folder, 'deep.onnx', unetNetwork({ classes: 2, channels: [2, 4] })),
    );
    const odd = { data: new Float32Array(27), dims: [1, 1, 3, 3, 3] };
    await expect(session.run(odd)).rejects.toMatchObject({
      code: 'APP_FAILED',
      message: expect.stringContaining('1 × 1 × 3 × 3 × 3'),
    });
    // 2^46 bytes: refused by the allocator before anything is written.
    const huge = encodeModel({
      nodes: [{ op: 'Expand', inputs: ['image', 'shape'], outputs: ['scores'] }],
      initializers: [{ name: 'shape', dims: [5], data: BigInt64Array.of(1n, 1n, 1n << 22n, 1n << 22n, 1n) }],
      inputs: [image],
      outputs: [scores],
    });
    await using expanding = await open(await writeModel(folder, 'huge.onnx', huge));
    await expect(expanding.run({ data: new Float32Array(1), dims: [1, 1, 1, 1, 1] })).rejects.toMatchObject({
      code: 'OUT_OF_MEMORY',
    });
  });

  it('may be closed twice', async () => {
    const session = await openOnnxSession(await writeModel(folder, 'closing.onnx', thresholdNetwork(0)));
    await session.close();
    await session.close();
    await expect(session.run({ data: new Float32Array(1), dims: [1, 1, 1, 1, 1] })).rejects.toMatchObject({
      code: 'INTERNAL',
    });
  });

  const whole = unetNetwork({ classes: 2, channels: [2] });
  const files: [string, Uint8Array | string, string][] = [
    ['empty.onnx', '', 'is empty'],
    ['lfs.onnx', 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n', 'git lfs pull'],
    ['page.onnx', '\n<!DOCTYPE html><html></html>', 'web page'],
    ['checkpoint.onnx', 'PK\u0003\u0004 archive', 'torch.onnx.export'],
    ['noise.onnx', Uint8Array.from({ length: 999 }, (_, i) => (i * 131 + 7) % 256), 'not an ONNX model'],
    ['cut.onnx', whole.subarray(0, whole.length >> 1), 'truncated'],
    [
      'opset.onnx',
      encodeModel({
        nodes: [{ op: 'Neg', inputs: ['image'], outputs: ['scores'] }],
        inputs: [image],
        outputs: [scores],
        opset: 999,
      }),
      'onnxruntime cannot load',
    ],
    [
      'operator.onnx',
      encodeModel({
        nodes: [{ op: 'Magic', inputs: ['image'], outputs: ['scores'] }],
        inputs: [image],
        outputs: [scores],
      }),
      'Magic',
    ],
    [
      'flat.onnx',
      encodeModel({
        nodes: [{ op: 'Neg', inputs: ['image'], outputs: ['scores'] }],
        inputs: [{ name: 'image', dims: [1, 3, 'y', 'x'] }],
        outputs: [{ name: 'scores', dims: [1, 3, 'y', 'x'] }],
      }),
      '1 × 3 × y × x',
    ],
    [
      'batch.onnx',
      encodeModel({
        nodes: [{ op: 'Neg', inputs: ['image'], outputs: ['scores'] }],
        inputs: [{ name: 'image', dims: [4, 1, ...free] }],
        outputs: [{ name: 'scores', dims: [4, 1, ...free] }],
      }),
      'batch 1',
    ],
    [
      'integers.onnx',
      encodeModel({
        nodes: [{ op: 'Cast', inputs: ['image'], outputs: ['scores'], attributes: { to: 1 } }],
        inputs: [{ ...image, type: 'int16' }],
        outputs: [scores],
      }),
      'int16',
    ],
    [
      'inputs.onnx',
      encodeModel({
        nodes: [{ op: 'Add', inputs: ['image', 'other'], outputs: ['scores'] }],
        inputs: [image, { ...image, name: 'other' }],
        outputs: [scores],
      }),
      'image, other',
    ],
  ];
  it.each(files)('refuses %s in words that help', async (name, content, words) => {
    const path = join(folder, name);
    await writeFile(path, content);
    await refuses(path, words);
    await refuses(path, words, { labels: true });
  });
  it('refuses a missing file, or a folder', async () => {
    await refuses(join(folder, 'nowhere.onnx'), 'does not exist');
    await refuses(folder, 'cannot be read');
  });

  it('reads weights beside the model, and nowhere else', async () => {
    const withWeights = (location: string) =>
      encodeModel({
        nodes: [{ op: 'Add', inputs: ['image', 'w'], outputs: ['scores'] }],
        initializers: [{ name: 'w', dims: [1], external: { location, length: 4 } }],
        inputs: [image],
        outputs: [scores],
      });
    const app = join(folder, 'app');
    await mkdir(app);
    await writeFile(join(folder, 'secret.bin'), new Uint8Array(8));
    await writeFile(join(app, 'weights.bin'), new Uint8Array(Float32Array.of(1.5).buffer));
    await symlink(join(folder, 'secret.bin'), join(app, 'link.bin'));
    const good = await writeModel(app, 'good.onnx', withWeights('weights.bin'));
    await using session = await open(good, { labels: true });
    expect((await session.run({ data: Float32Array.of(2), dims: [1, 1, 1, 1, 1] })).data[0]).toBe(3.5);
    for (const location of ['../secret.bin', 'link.bin', join(folder, 'secret.bin'), '/etc/passwd']) {
      await refuses(await writeModel(app, 'bad.onnx', withWeights(location)), 'weights in');
    }
    await refuses(await writeModel(app, 'missing.onnx', withWeights('nothing.bin')), 'not next to it');
  });
});

describe('onnxRuntime', () => {
  it('tries the window of the manifest before the first prediction', async () => {
    await writeModel(folder, 'halving.onnx', unetNetwork({ classes: 2, channels: [2, 4] }));
    const context = { folder, closing: new AbortController().signal, onSpawn() {}, onExit() {} };
    const open = (roiSize: [number, number, number]) => {
      const inferer = infererSchema.parse({ type: 'slidingWindow', roiSize });
      const spec = { runtime: 'onnx', file: 'halving.onnx', sha256: '', inferer } as const;
      return onnxRuntime.open({ folder } as App, spec, context);
    };
    expect(await open([8, 6, 10])).toMatchObject({ kind: 'network' });
    await expect(open([8, 7, 10])).rejects.toMatchObject({
      code: 'BAD_MANIFEST',
      message: expect.stringContaining('1 × 1 × 10 × 7 × 8'),
    });
  });
});

describe('inspectGraph()', () => {
  it('never does worse than a RangeError on damaged files', () => {
    const model = unetNetwork({ classes: 2, channels: [2] });
    for (let i = 0; i < 400; i++) {
      const damaged = model.slice(0, i % 3 === 0 ? (i * 37) % model.length : model.length);
      damaged[(i * 7919) % Math.max(1, damaged.length)] ^= 1 << (i % 8);
      try {
        inspectGraph(damaged);
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError);
      }
    }
    expect(inspectGraph(withLabelOutput(model, 'scores'))).toEqual({ externalFiles: [], opset: 17 });
  });
});

describe('infer() with a network in onnxruntime', () => {
  it('finds the same labels in windows as at once, for a voxelwise network', async () => {
    await using session = await open(await writeModel(folder, 'threshold.onnx', thresholdNetwork(0.5)));
    const input = ramp([21, 13, 17]);
    const spec = infererSchema.parse({
      type: 'slidingWindow',
      roiSize: [8, 8, 8],
      overlap: 0.5,
      mode: 'gaussian',
      mirrorAxes: ['x', 'z'],
    });
    const expected = {
      labels: { ...input, voxels: Uint8Array.from(input.voxels, (v) => (Number(v) > 0.5 ? 1 : 0)) },
    };
    expect(await infer(input, session, { type: 'simple' }, { type: 'argmax' })).toEqual(expected);
    expect(await infer(input, session, spec, { type: 'argmax' })).toEqual(expected);
  });
});

const models = modelsFolder();
const data = dataFolder();

describe('real networks', () => {
  const networks: [string, (number | null)[], boolean][] = [
    ['meshnet/model18cls.onnx', [1, 1, null, null, null], true],
    ['meshnet/mindgrab.onnx', [1, 1, null, null, null], true],
    ['meshnet/model5_gw_ae.niivue-original.onnx', [null, 1, 256, 256, 256], true],
    ['deepbrain/deepbrain_extractor_v2.onnx', [null, 1, 128, 128, 128], true],
    ['torchio-unet/torchio_unet_whole_4mm.onnx', [null, 1, null, null, null], true],
  ];
  it.skipIf(!models).each(networks)('%s is loaded as it is', async (file, inputDims, labels) => {
    const warmUpDims = inputDims[2] === null ? [1, 1, 16, 16, 16] : undefined;
    await using session = await open(join(models!, file), { labels: true, warmUpDims, rewrite: false });
    expect(session.inputDims).toEqual(inputDims);
    expect(session.runLabels !== undefined).toBe(labels);
  });

  // `real-networks.test.ts` has it find the same as an app.
  it.skipIf(!models || !data || !isSlowWanted())(
    'model5_gw_ae finds the reference labels of a real head',
    async () => {
      const read = async (name: string) =>
        gunzipSync(await readFile(join(data!, 'brain', name))).subarray(352, 352 + 256 ** 3);
      const head = await read('t1_crop.nii.gz');
      const expected = await read('t1_crop_ref_model5_gw_ae.nii.gz');
      const size: Size = [256, 256, 256];
      let [low, high] = [255, 0];
      for (const value of head) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
      const voxels = Float32Array.from(head, (v) => (v - low) / (high - low));
      await using session = await open(join(models!, 'meshnet/model5_gw_ae.onnx'), {
        labels: true,
        threads: 2,
      });
      const result = await infer(
        { voxels, size, components: 1, affine },
        session,
        { type: 'simple' },
        { type: 'argmax' },
      );
      if (!('labels' in result)) throw new Error('no labels');
      let equal = 0;
      for (let i = 0; i < voxels.length; i++) if (result.labels.voxels[i] === expected[i]) equal++;
      expect(equal / voxels.length).toBeGreaterThanOrEqual(0.999);
    },
    240_000,
  );
});

/** A session that closes when its block ends. */
async function open(...args: Parameters<typeof openOnnxSession>) {
  const session = await openOnnxSession(...args);
  return { ...session, [Symbol.asyncDispose]: () => session.close() };
}

async function refuses(path: string, words: string, options: Parameters<typeof openOnnxSession>[1] = {}) {
  await expect(openOnnxSession(path, options)).rejects.toMatchObject({
    code: 'BAD_MANIFEST',
    message: expect.stringContaining(words),
  });
}
