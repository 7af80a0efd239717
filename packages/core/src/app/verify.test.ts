import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import type { NetworkSession } from '../inferers/spec.ts';
import type { ModelSpec } from './manifest.ts';
import { parseManifest } from './parse-manifest.ts';
import { verifyNetwork } from './verify.ts';

interface Parts {
  inputs?: string;
  preprocess?: string;
  model?: string;
  postprocess?: string;
  labels?: string;
}

const manifestText = ({
  inputs = '',
  preprocess = '[]',
  model = '',
  postprocess = '[argmax]',
  labels,
}: Parts) =>
  `schemaVersion: 1
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
${inputs}
preprocess: ${preprocess}
model: { runtime: onnx, file: net.onnx, sha256: '${'0'.repeat(64)}'${model} }
postprocess: ${postprocess}
outputs: { segmentation: { type: LabelVolume } }
${labels === undefined ? '' : `labels: ${labels}`}
`;
const manifestOf = (parts: Parts) => parseManifest(manifestText(parts));

/** A network of so many classes that keeps the size of its input; what it was run on is in `seen`. */
function network(classes: number, inputDims?: readonly (number | null)[]) {
  const seen: number[][] = [];
  const session: NetworkSession = {
    ...(inputDims && { inputDims }),
    async run({ data, dims }) {
      seen.push([...dims]);
      const [, components, z, y, x] = dims;
      expect(data).toHaveLength(components * z * y * x);
      expect(data.every((v) => v === 0)).toBe(true);
      return { data: new Float32Array(classes * z * y * x), dims: [1, classes, z, y, x] };
    },
  };
  return { session, seen };
}

async function verify(parts: Parts, session: NetworkSession) {
  const manifest = manifestOf(parts);
  return verifyNetwork(manifest, manifest.model[0] as Extract<ModelSpec, { runtime: 'onnx' }>, session);
}

/** Labels of these values, named v1, v2 and so on. */
const labelsOf = (...values: number[]) =>
  `[${values.map((value) => `{ value: ${value}, name: v${value} }`).join(', ')}]`;
const upTo = (last: number) => Array.from({ length: last }, (_, i) => i + 1);
const two = '[{ value: 1, name: left }, { value: 2, name: right }]';
const one = '[{ value: 1, name: left }]';
const window = ', inferer: { type: slidingWindow, roiSize: [8, 6, 4] }';

describe('verifyNetwork()', () => {
  it('finds no fault where network and manifest fit', async () => {
    const { session, seen } = network(3);
    expect(await verify({ model: window, labels: two }, session)).toEqual({
      faults: [],
      summary: '1 × 1 × 4 × 6 × 8 → 3 classes',
    });
    expect(seen).toEqual([[1, 1, 4, 6, 8]]);
  });

  it('tries a small volume after its preprocessing where no window is named', async () => {
    const { session, seen } = network(3);
    await verify({ preprocess: '[divisiblePad: { k: [24, 20, 16] }]', labels: two }, session);
    expect(seen).toEqual([[1, 1, 32, 40, 48]]);
  });

  it('names the classes without a label', async () => {
    const { faults } = await verify({ labels: one }, network(3).session);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatch(/gives 3 classes, and labels names 1 value: 2 has no name/);
  });

  it('names the labels that are never given', async () => {
    const labels = '[{ value: 1, name: left }, { value: 2, name: right }, { value: 5, name: cyst }]';
    const { faults } = await verify({ labels }, network(3).session);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toContain('never gives the label 5 (cyst)');
  });

  it('follows the values through the steps of the postprocessing', async () => {
    const labels = '[{ value: 7, name: left }, { value: 2, name: right }]';
    const map = 'mapLabelValue: { origLabels: [1, 3], targetLabels: [7, 0] }';
    expect((await verify({ postprocess: `[argmax, ${map}]`, labels }, network(4).session)).faults).toEqual(
      [],
    );
    expect((await verify({ postprocess: `[argmax, ${map}]`, labels }, network(3).session)).faults).toEqual(
      [],
    );
    expect(
      (await verify({ postprocess: `[argmax, ${map}]`, labels }, network(5).session)).faults,
    ).toHaveLength(1);
    const filter = '[argmax, labelFilter: { appliedLabels: [1] }]';
    expect((await verify({ postprocess: filter, labels: one }, network(3).session)).faults).toEqual([]);
    expect((await verify({ postprocess: filter, labels: two }, network(3).session)).faults).toHaveLength(1);
  });

  it('looks at every choice of the parameters', async () => {
    const parts = {
      inputs: '  detail: { type: radiobutton, options: [mask, parts] }',
      postprocess:
        '[argmax, { mapLabelValue: { origLabels: [2], targetLabels: [1] }, when: { detail: mask } }]',
      labels:
        '[{ value: 1, name: all, when: { detail: mask } }, { value: 1, name: left, when: { detail: parts } }, { value: 2, name: right, when: { detail: parts } }]',
    };
    expect((await verify(parts, network(3).session)).faults).toEqual([]);
    const missing = { ...parts, labels: parts.labels.replace(/, \{ value: 2.*?\}\s*\}/, '') };
    expect((await verify(missing, network(3).session)).faults).toHaveLength(1);
  });

  it('wants threshold for one channel, and a channel that exists', async () => {
    expect((await verify({ labels: one }, network(1).session)).faults[0]).toContain('Use threshold');
    const threshold = '[threshold: { channel: 0, above: 0.5 }]';
    expect((await verify({ postprocess: threshold, labels: one }, network(1).session)).faults).toEqual([]);
    const beyond = '[threshold: { channel: 2, above: 0.5 }]';
    const { faults } = await verify({ postprocess: beyond, labels: one }, network(2).session);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toContain('channel 2');
    expect((await verify({ postprocess: threshold, labels: two }, network(2).session)).faults).toHaveLength(
      1,
    );
  });

  it('wants channels of compose that exist, and labels for their values', async () => {
    const compose = '[compose: [{ channel: 0, value: 1 }, { channel: 2, value: 2 }]]';
    expect((await verify({ postprocess: compose, labels: two }, network(3).session)).faults).toEqual([]);
    const few = await verify({ postprocess: compose, labels: two }, network(2).session);
    expect(few.faults).toEqual([expect.stringContaining('The step compose names channel 2')]);
    const unnamed = await verify({ postprocess: compose, labels: one }, network(3).session);
    expect(unnamed.faults).toEqual([expect.stringContaining('2 has no name')]);
  });

  it('counts the values from 1 where there is no background channel', async () => {
    const postprocess = '[argmax: { backgroundAtMost: 0 }]';
    expect((await verify({ postprocess, labels: two }, network(2).session)).faults).toEqual([]);
    expect((await verify({ postprocess, labels: one }, network(1).session)).faults).toEqual([]);
    expect((await verify({ postprocess, labels: two }, network(3).session)).faults).toHaveLength(1);
  });

  it('accepts values without any names', async () => {
    expect((await verify({}, network(9).session)).faults).toEqual([]);
  });

  it('compares the components that the network takes with the volumes', async () => {
    const { session, seen } = network(2, [1, 2, null, null, null]);
    const { faults } = await verify({ labels: one }, session);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatch(/takes 2 components, and the manifest gives it 1 \(volume\)/);
    // It goes on with what the network takes, and so finds the other faults too.
    expect(seen[0][1]).toBe(2);
    const both = { inputs: '  other: { type: volume }', model: ', channels: [volume, other]' };
    expect((await verify({ ...both, labels: one }, session)).faults).toEqual([]);
  });

  it('compares fixed sizes with roiSize and with the preprocessing', async () => {
    const fixed = [1, 1, 4, 6, 8];
    expect((await verify({ model: window, labels: one }, network(2, fixed).session)).faults).toEqual([]);
    const turned = network(2, [1, 1, 8, 6, 4]).session;
    expect((await verify({ model: window, labels: one }, turned)).faults[0]).toContain(
      'windows of 4 × 6 × 8',
    );
    const { session, seen } = network(2, fixed);
    expect((await verify({ labels: one }, session)).faults[0]).toContain('8 × 6 × 4 voxels');
    expect(seen).toEqual([[1, 1, 4, 6, 8]]);
    const resize = '[resize: { size: [8, 6, 4] }]';
    expect((await verify({ preprocess: resize, labels: one }, session)).faults).toEqual([]);
  });

  it('passes on what the network says, and a result of another size', async () => {
    const broken: NetworkSession = {
      run: () => Promise.reject(new TomaatError('APP_FAILED', 'mismatched shapes')),
    };
    expect((await verify({ labels: one }, broken)).faults).toEqual(['mismatched shapes']);
    const half: NetworkSession = {
      async run({ dims: [, , z, y, x] }) {
        const dims = [1, 2, z / 2, y / 2, x / 2];
        return { data: new Float32Array(dims.reduce((a, b) => a * b)), dims };
      },
    };
    expect((await verify({ labels: one }, half)).faults[0]).toContain('has the size of its input');
  });

  it('takes label values as they are, but for a threshold', async () => {
    const labels: NetworkSession = {
      async run({ dims: [, , z, y, x] }) {
        return { data: new Uint8Array(x * y * z), dims: [1, 1, z, y, x], integer: true };
      },
    };
    expect((await verify({ labels: two }, labels)).faults).toEqual([]);
    for (const step of [
      'threshold',
      'argmax: { backgroundAtMost: 0 }',
      'compose: [{ channel: 0, value: 1 }]',
    ])
      expect((await verify({ postprocess: `[${step}]`, labels: one }, labels)).faults).toHaveLength(1);
    expect((await verify({ postprocess: '[softmax, argmax]', labels: one }, labels)).faults).toEqual([
      'The network gives label values, not scores. Remove the softmax step.',
    ]);
  });

  it('rethrows errors that neither network nor manifest caused', async () => {
    const broken: NetworkSession = { run: () => Promise.reject(new TypeError('a bug')) };
    await expect(verify({}, broken)).rejects.toThrow(TypeError);
  });

  it('says on what it was tried where the network fails', async () => {
    const broken: NetworkSession = {
      inputDims: [1, 2, null, null, null],
      run: () => Promise.reject(new TomaatError('APP_FAILED', 'no memory')),
    };
    const report = await verify({ model: window }, broken);
    expect(report.summary).toBe('1 × 2 × 4 × 6 × 8');
    expect(report.faults).toEqual([expect.stringContaining('takes 2 components'), 'no memory']);
    const flat: NetworkSession = {
      inputDims: [1, 2, null, null, null],
      run: async () => ({ data: new Float32Array(2), dims: [2] }),
    };
    const { faults, summary } = await verify({ model: window }, flat);
    expect(summary).toBe('1 × 2 × 4 × 6 × 8');
    expect(faults).toEqual([expect.stringContaining('2 components'), expect.stringContaining('gave 2;')]);
  });

  describe('components', () => {
    const both = '  other: { type: volume }';

    it('are those of the first volume where no channels are named', async () => {
      const { session, seen } = network(2);
      expect((await verify({ inputs: both }, session)).faults).toEqual([]);
      expect(seen[0][1]).toBe(1);
      const fixed = network(2, [1, 1, null, null, null]).session;
      expect((await verify({ inputs: both }, fixed)).faults).toEqual([]);
    });

    it('are as many as the channels', async () => {
      const { session, seen } = network(2);
      const model = ', channels: [other, volume]';
      expect((await verify({ inputs: both, model }, session)).faults).toEqual([]);
      expect(seen[0][1]).toBe(2);
      const { faults } = await verify({ inputs: both, model }, network(2, [1, 1]).session);
      expect(faults[0]).toMatch(/takes 1 component, and .* gives it 2 \(other, volume\)/);
    });

    it('are those that the network takes where frames decide', async () => {
      const frames = { inputs: '  cine: { type: volume, frames: all }', model: ', channels: [cine]' };
      const { session, seen } = network(2, [1, 4, null, null, null]);
      expect((await verify(frames, session)).faults).toEqual([]);
      const free = network(2);
      expect((await verify(frames, free.session)).faults).toEqual([]);
      expect([seen[0][1], free.seen[0][1]]).toEqual([4, 1]);
      const mixed = { ...frames, model: ', channels: [volume, cine]' };
      expect((await verify(mixed, network(2, [1, 4]).session)).faults).toEqual([]);
    });
  });

  describe('size', () => {
    it('is 32 voxels along each axis where nothing is fixed', async () => {
      for (const dims of [undefined, [], [null, null, null, null, null]]) {
        const { session, seen } = network(2, dims);
        expect(await verify({}, session)).toEqual({
          faults: [],
          summary: '1 × 1 × 32 × 32 × 32 → 2 classes',
        });
        expect(seen).toEqual([[1, 1, 32, 32, 32]]);
      }
    });

    it('is that of the steps, from voxels of 1 mm', async () => {
      const { session, seen } = network(2);
      // 31 / 4 + 1, 31 / 0.5 + 1 and 31 / 8 + 1, rounded.
      await verify({ preprocess: '[spacing: { pixdim: [4, 0.5, 8] }]' }, session);
      expect(seen).toEqual([[1, 1, 5, 63, 9]]);
    });

    it('is that of the first channel’s own steps, then of all', async () => {
      const { session, seen } = network(2);
      const inputs = '  second: { type: volume, preprocess: [resize: { size: [8, 6, 4] }] }';
      const preprocess = '[divisiblePad: { k: 5 }]';
      const model = ', channels: [second, volume]';
      expect((await verify({ inputs, preprocess, model }, session)).faults).toEqual([]);
      expect(seen).toEqual([[1, 2, 5, 10, 10]]);
    });

    it('is that of the steps that the default parameters choose', async () => {
      const parts = {
        inputs: '  mode: { type: radiobutton, options: [fast, fine] }',
        preprocess:
          '[{ resize: { size: [7, 9, 11] }, when: { mode: fast } }, { resize: { size: [3, 3, 3] }, when: { mode: fine } }]',
      };
      const { session, seen } = network(2);
      await verify(parts, session);
      expect(seen).toEqual([[1, 1, 11, 9, 7]]);
    });

    it('is fixed by the network along single axes', async () => {
      const { session, seen } = network(2, [1, 1, null, 6, null]);
      expect((await verify({ model: window }, session)).faults).toEqual([]);
      expect((await verify({}, session)).faults).toEqual([
        expect.stringContaining('volumes of any × 6 × any voxels'),
      ]);
      expect(seen).toEqual([
        [1, 1, 4, 6, 8],
        [1, 1, 32, 6, 32],
      ]);
    });

    it.each([
      ['a small volume alone has', '[]', 32, 1],
      ['a large volume alone has', '[centerSpatialCrop: { roiSize: [48, 48, 48] }]', 48, 1],
      ['small volumes alone are padded to', '[spatialPad: { size: [64, 64, 64] }]', 64, 1],
      ['small volumes alone are padded to', '[spatialPad: { size: [69, 69, 69] }]', 69, 1],
      ['multiples of it have', '[divisiblePad: { k: 48 }]', 48, 1],
      ['every volume has', '[resizeWithPadOrCrop: { size: [48, 48, 48] }]', 48, 0],
    ])('that %s after %s: %i gives %i faults', async (_what, preprocess, side, count) => {
      const { session } = network(2, [1, 1, side, side, side]);
      const { faults } = await verify({ preprocess }, session);
      expect(faults).toHaveLength(count);
      for (const fault of faults) expect(fault).toContain(`${side} × ${side} × ${side} voxels`);
    });

    it.each([
      [[1, 1, null, null, 9], '9 × any × any'],
      [[1, 1, null, 9, null], 'any × 9 × any'],
      [[1, 1, 9, null, null], 'any × any × 9'],
    ])('of a window must match that of the network: %j', async (dims, stated) => {
      const { faults } = await verify({ model: window }, network(2, dims).session);
      expect(faults).toEqual([
        expect.stringMatching(new RegExp(`windows of ${stated} .* roiSize is 8 × 6 × 4\\.`)),
      ]);
    });
  });

  describe('slices', () => {
    /** A 2-D network of three classes; what it was run on is in `seen`. */
    function flat(inputDims?: (number | null)[]) {
      const seen: number[][] = [];
      const session: NetworkSession = {
        ...(inputDims && { inputDims }),
        async run({ dims }) {
          seen.push([...dims]);
          const [rows, columns] = dims.slice(-2);
          return { data: new Float32Array(3 * rows * columns), dims: [1, 3, rows, columns] };
        },
      };
      return { session, seen };
    }
    const inferer = (more: string) => `, inferer: { type: slice, ${more} }`;

    it.each([
      ['axis: y', [1, 1, 32, 32]],
      ['axis: x, roiSize: [8, 6]', [1, 1, 6, 8]],
    ])('with %s are tried as one', async (spec, dims) => {
      const { session, seen } = flat([null, 1, null, null]);
      const labels = labelsOf(1, 2);
      expect(await verify({ model: inferer(spec), labels }, session)).toEqual({
        faults: [],
        summary: `${dims.join(' × ')} → 3 classes`,
      });
      expect(seen).toEqual([dims]);
    });

    it('of a fixed size need steps that give it along their two axes', async () => {
      const fixed = [1, 1, 16, 24];
      const { session, seen } = flat(fixed);
      const preprocess = '[resize: { size: [24, 0, 16] }]';
      expect((await verify({ preprocess, model: inferer('axis: y') }, session)).faults).toEqual([]);
      expect(seen).toEqual([fixed]);
      const wrong = await verify({ preprocess, model: inferer('axis: z') }, flat(fixed).session);
      expect(wrong.faults).toEqual([expect.stringContaining('takes slices of 24 × 16 voxels (x × y) only')]);
      const roi = await verify({ model: inferer('axis: y, roiSize: [16, 24]') }, flat(fixed).session);
      expect(roi.faults).toEqual([
        'The network takes windows of 24 × 16 (x × z), and roiSize is 16 × 24. Correct roiSize.',
      ]);
    });

    it('are not for a network that takes volumes', async () => {
      const { session } = network(3, [1, 1, null, null, null]);
      const { faults } = await verify({ model: inferer('axis: z') }, session);
      expect(faults).toEqual([expect.stringContaining('takes a tensor of 5 dimensions')]);
    });
  });

  describe('labels', () => {
    it('are looked at for the parameters that choose the network', async () => {
      const manifest = manifestOf({
        inputs: '  mode: { type: radiobutton, options: [fast, fine] }',
        labels:
          '[{ value: 1, name: all, when: { mode: fast } }, { value: 1, name: left, when: { mode: fine } }, { value: 2, name: right, when: { mode: fine } }]',
      });
      const [model] = manifest.model as Extract<ModelSpec, { runtime: 'onnx' }>[];
      const [fast, fine] = ['fast', 'fine'].map((mode) => ({ ...model, when: { mode } }));
      const both = { ...manifest, model: [fast, fine] };
      expect((await verifyNetwork(both, fast, network(2).session)).faults).toEqual([]);
      expect((await verifyNetwork(both, fine, network(3).session)).faults).toEqual([]);
      expect((await verifyNetwork(both, fast, network(3).session)).faults).toHaveLength(1);
      expect((await verifyNetwork(both, fine, network(2).session)).faults).toHaveLength(1);
    });

    it('of a network that is never chosen are not looked at', async () => {
      const manifest = manifestOf({ model: window, labels: one });
      const [model] = manifest.model as Extract<ModelSpec, { runtime: 'onnx' }>[];
      const hidden = { ...model };
      const { faults } = await verifyNetwork(
        { ...manifest, model: [model, hidden] },
        hidden,
        network(9).session,
      );
      expect(faults).toEqual([]);
    });

    it('follow every step after the reduction, and none before', async () => {
      const map = (from: number, to: number) =>
        `mapLabelValue: { origLabels: [${from}], targetLabels: [${to}] }`;
      const after = `[argmax, ${map(1, 5)}, ${map(5, 6)}]`;
      expect((await verify({ postprocess: after, labels: labelsOf(6) }, network(2).session)).faults).toEqual(
        [],
      );
      const before = `[${map(1, 5)}, argmax]`;
      expect((await verify({ postprocess: before, labels: labelsOf(1) }, network(2).session)).faults).toEqual(
        [],
      );
      const none = `[${map(1, 5)}]`;
      expect((await verify({ postprocess: none, labels: labelsOf(5) }, network(2).session)).faults).toEqual(
        [],
      );
    });

    it('have the value of the threshold, of a channel that exists', async () => {
      const threshold = (channel: number) => `[threshold: { channel: ${channel}, value: 7 }]`;
      const parts = { postprocess: threshold(1), labels: labelsOf(7) };
      expect((await verify(parts, network(2).session)).faults).toEqual([]);
      const { faults } = await verify({ ...parts, postprocess: threshold(2) }, network(2).session);
      expect(faults).toEqual([expect.stringContaining('gives 2 channels (0 … 1)')]);
    });

    it('are not compared where a single score allows no choice', async () => {
      const { faults, summary } = await verify({ labels: two }, network(1).session);
      expect(faults).toHaveLength(1);
      expect(summary).toMatch(/→ 1 class$/);
    });

    it('without a name are listed, up to 20', async () => {
      const listed = async (classes: number) =>
        (await verify({ labels: one }, network(classes).session)).faults.join();
      expect(await listed(3)).toMatch(/names 1 value: 2 has no name\. Add it to .* remove it with/);
      expect(await listed(4)).toMatch(/: 2, 3 have no name\. Add them to .* remove them with/);
      expect(await listed(22)).toContain(`${upTo(21).slice(1).join(', ')} have`);
      expect(await listed(23)).toContain(`${upTo(21).slice(1).join(', ')} … have`);
    });

    it('that are never given are listed, up to 20', async () => {
      const listed = async (...values: number[]) =>
        (await verify({ labels: labelsOf(1, ...values) }, network(2).session)).faults;
      expect(await listed(4, 3)).toEqual([
        expect.stringContaining('gives 2 classes, so it never gives the label 4 (v4), 3 (v3).'),
      ]);
      const [many] = await listed(...upTo(22).slice(1));
      expect(many).toContain('2 (v2), ');
      expect(many).toContain('21 (v21).');
    });

    it('may lack and exceed at once', async () => {
      const { faults } = await verify({ labels: labelsOf(1, 3) }, network(3).session);
      expect(faults).toEqual([
        expect.stringContaining('names 2 values: 2 has no name'),
        expect.stringContaining('3 (v3)'),
      ]);
    });
  });

  it('says of label values what they were made from', async () => {
    const session: NetworkSession = {
      async run({ dims: [, , z, y, x] }) {
        return { data: new Uint8Array(x * y * z), dims: [1, 1, z, y, x], integer: true };
      },
    };
    const parts = {
      inputs: '  mode: { type: radiobutton, options: [fast, fine] }',
      model: window,
      postprocess: '[{ threshold: { above: 0.5 }, when: { mode: fine } }]',
    };
    const { faults, summary } = await verify(parts, session);
    expect(summary).toBe('1 × 1 × 4 × 6 × 8 → label values');
    expect(faults).toEqual([expect.stringContaining('Remove the threshold step')]);
    expect((await verify({ ...parts, postprocess: '[argmax]' }, session)).faults).toEqual([]);
  });
});

describe('verifyNetwork() of one of several', () => {
  const net = (more: string) => `{ runtime: onnx, file: net.onnx, sha256: '${'0'.repeat(64)}'${more} }`;
  const several = (models: readonly string[], more: Parts = {}) => {
    const text = manifestText(more).replace(/^model: .*$/m, `model: [${models.map(net).join(', ')}]`);
    return parseManifest(text);
  };
  const verifyAt = (manifest: ReturnType<typeof several>, index: number, session: NetworkSession) =>
    verifyNetwork(manifest, manifest.model[index] as Extract<ModelSpec, { runtime: 'onnx' }>, session);
  const merged = several(
    [
      ', merge: [{ from: 2, to: 1 }]',
      ', merge: [{ from: 1, to: 2 }, { from: 4, to: 3 }, { from: 5, to: 2 }]',
    ],
    { labels: labelsOf(1, 2, 3) },
  );

  it('compares the classes with its table, not with the labels of the app', async () => {
    expect((await verifyAt(merged, 0, network(3).session)).faults).toEqual([]);
    expect((await verifyAt(merged, 1, network(6).session)).faults).toEqual([]);
    const { faults } = await verifyAt(merged, 1, network(4).session);
    expect(faults).toEqual([
      'The network gives 4 classes, so it never gives the value 4, 5 of merge. Correct merge.',
    ]);
  });

  it('compares the classes with what others take of it, and counts their masks as components', async () => {
    const manifest = several([
      ', id: low, preprocess: [{ divisiblePad: { k: [40, 48, 56] } }]',
      ', channels: [volume, { labelsOf: low, values: [1, 3] }], postprocess: [{ labelFilter: { appliedLabels: [1] } }]',
    ]);
    const { session, seen } = network(4);
    expect((await verifyAt(manifest, 0, session)).faults).toEqual([]);
    expect(seen).toEqual([[1, 1, 56, 48, 40]]);
    expect((await verifyAt(manifest, 0, network(3).session)).faults).toEqual([
      'The network gives 3 classes, so it never gives the value 3 of labelsOf: low in model[1].channels. Correct labelsOf: low in model[1].channels.',
    ]);
    const second = network(2, [1, 3, null, null, null]);
    expect((await verifyAt(manifest, 1, second.session)).faults).toEqual([]);
    expect(second.seen).toEqual([[1, 3, 32, 32, 32]]);
    const wrong = await verifyAt(manifest, 1, network(2, [1, 2, null, null, null]).session);
    expect(wrong.faults).toHaveLength(1);
    expect(wrong.faults[0]).toContain('gives it 3 (volume, 2 labels of low)');
  });

  it('follows the values through its own steps and those of all', async () => {
    const labels = '[{ value: 7, name: seven }]';
    const manifest = several([', postprocess: [argmax, { labelFilter: { appliedLabels: [2] } }]'], {
      postprocess: '[{ mapLabelValue: { origLabels: [2], targetLabels: [7] } }]',
      labels,
    });
    expect((await verifyAt(manifest, 0, network(4).session)).faults).toEqual([]);
    expect((await verifyAt(manifest, 0, network(2).session)).faults).toHaveLength(1);
  });
});
