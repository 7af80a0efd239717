import { isNetworkSpec, type NetworkSession, parseManifest, verifyNetwork } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import type { OnnxSignature } from '../runtimes/onnx-signature.ts';
import { type AnswerFlags, type Ask, answersFor } from './init-questions.ts';
import { shapeOfNetwork } from './network-shape.ts';
import { newManifest } from './new-manifest.ts';

type Dims = readonly (number | string)[];
const signature = (takes: Dims, gives: Dims, operator?: string, type = 'float32'): OnnxSignature => ({
  inputs: [{ name: 'image', type: 'float32', shape: takes }],
  outputs: [{ name: 'out', type, shape: gives, operator }],
  externalFiles: [],
});

const known: AnswerFlags = {
  anatomy: 'liver',
  modality: 'MRI',
  licence: 'MIT',
  author: 'Ann',
  spacing: '1.5,1.5,3',
};

async function manifestOf(of: OnnxSignature, flags: AnswerFlags = {}, ask?: Ask) {
  const shape = shapeOfNetwork(of, 'net.onnx');
  const answers = await answersFor(shape, { ...known, ...flags }, { id: 'net' }, ask);
  return parseManifest(newManifest(shape, answers, { file: 'net.onnx', sha256: 'ab'.repeat(32) }));
}

/** The steps as in YAML, and the inferer. */
function partsOf(manifest: Awaited<ReturnType<typeof manifestOf>>) {
  const [model] = manifest.model;
  return {
    preprocess: manifest.preprocess.map(({ name }) => name),
    postprocess: manifest.postprocess.map(({ name }) => name),
    inferer: isNetworkSpec(model) ? model.inferer : undefined,
    labels: manifest.labels.length,
  };
}

/** What tomaat check finds with a network that gives as many scores as stated. */
async function faultsOf(
  manifest: Awaited<ReturnType<typeof manifestOf>>,
  takes: Dims,
  classes: number,
): Promise<readonly string[]> {
  const [model] = manifest.model;
  if (!isNetworkSpec(model)) throw new Error('no network');
  const session: NetworkSession = {
    inputDims: takes.map((n) => (typeof n === 'number' ? n : null)),
    run: async ({ dims }) => {
      const out =
        dims.length === 5 || dims.length === 4 ? [1, classes, ...dims.slice(2)] : [classes, ...dims.slice(1)];
      return { data: new Float32Array(out.reduce((a, b) => a * b, 1)), dims: out };
    },
  };
  return (await verifyNetwork(manifest, model, session)).faults;
}

describe('newManifest()', () => {
  const free = ['n', 1, 'z', 'y', 'x'];
  it.each([
    ['free sizes get windows', free, ['n', 3, 'z', 'y', 'x'], undefined, {}, 'slidingWindow', ['restore', 'argmax'], 2],
    ['one score gets a threshold', free, ['n', 1, 'z', 'y', 'x'], undefined, {}, 'slidingWindow', ['sigmoid', 'restore', 'threshold'], 1],
    ['one probability needs no sigmoid', free, ['n', 1, 'z', 'y', 'x'], 'Sigmoid', {}, 'slidingWindow', ['restore', 'threshold'], 1],
    ['regions of a sigmoid are composed', free, ['n', 3, 'z', 'y', 'x'], 'Sigmoid', {}, 'slidingWindow', ['restore', 'compose'], 3],
    ['a fixed size is the whole volume', [1, 1, 32, 48, 64], [1, 2, 32, 48, 64], undefined, {}, 'simple', ['restore', 'argmax'], 1],
    ['a fixed size may be that of windows', [1, 1, 32, 48, 64], [1, 2, 32, 48, 64], undefined, { inferer: 'slidingWindow' }, 'slidingWindow', ['restore', 'argmax'], 1],
    ['whole volumes of any size are padded', free, ['n', 2, 'z', 'y', 'x'], undefined, { inferer: 'simple' }, 'simple', ['restore', 'argmax'], 1],
    ['a network without batch takes slices', [1, 40, 56], [4, 40, 56], undefined, { axis: 'x' }, 'slice', ['restore', 'argmax'], 3],
    ['slices of any size', ['n', 1, 'h', 'w'], ['n', 2, 'h', 'w'], undefined, { axis: 'y' }, 'slice', ['restore', 'argmax'], 1],
  ] as const)('%s', async (_, takes, gives, operator, flags, inferer, postprocess, labels) => {
    const manifest = await manifestOf(signature(takes, gives, operator), flags);
    const parts = partsOf(manifest);
    expect(parts).toMatchObject({ inferer: { type: inferer }, postprocess, labels });
    const classes = gives.length === 3 ? gives[0] : gives[1];
    expect(await faultsOf(manifest, takes, classes)).toEqual([]);
  }); // biome-ignore format: one table

  it('sizes are x, y, z, and columns and rows of a slice lie on its axes', async () => {
    const whole = await manifestOf(signature([1, 1, 32, 48, 64], [1, 2, 32, 48, 64]));
    expect(whole.preprocess.at(-1)).toMatchObject({
      name: 'resizeWithPadOrCrop',
      parameters: { size: [64, 48, 32] },
    });
    const across = async (axis: string) =>
      (await manifestOf(signature([1, 1, 40, 56], [1, 2, 40, 56]), { axis })).preprocess.at(-1);
    expect(await across('z')).toMatchObject({ parameters: { size: [56, 40, -1] } });
    expect(await across('y')).toMatchObject({ parameters: { size: [56, -1, 40] } });
    expect(await across('x')).toMatchObject({ parameters: { size: [-1, 56, 40] } });
  });

  it('several components are volumes of their own, in order', async () => {
    const takes = ['n', 2, 'z', 'y', 'x'];
    const manifest = await manifestOf(signature(takes, ['n', 2, 'z', 'y', 'x']), { channels: 't1, flair' });
    expect(Object.keys(manifest.inputs)).toEqual(['t1', 'flair']);
    expect(manifest.model[0]).toMatchObject({ channels: ['t1', 'flair'] });
    expect(await faultsOf(manifest, takes, 2)).toEqual([]);
    await expect(manifestOf(signature(takes, takes), { channels: 't1' })).rejects.toThrow(
      /names 1 volume, .* takes 2/,
    );
  });

  it('what it suggests in comments at its end is valid without the comment sign', async () => {
    const shape = shapeOfNetwork(signature(free, ['n', 3, 'z', 'y', 'x']), 'net.onnx');
    const answers = await answersFor(shape, known, { id: 'net' });
    const text = newManifest(shape, answers, { file: 'net.onnx', sha256: 'ab'.repeat(32) });
    const manifest = parseManifest(text.replaceAll(/^# (?=(sample|selftest|picture): )/gm, ''));
    expect(manifest).toMatchObject({
      sample: 'case.nii.gz',
      selftest: [{ inputs: { volume: 'case.nii.gz' } }],
      picture: 'picture.webp',
    });
  });

  it('keeps what YAML would read as something else', async () => {
    const odd = { licence: 'no', author: 'A: B # C', title: '12', labels: "it's, {x}" };
    const manifest = await manifestOf(signature(free, ['n', 3, 'z', 'y', 'x']), odd);
    expect(manifest).toMatchObject({ licence: 'no', authors: ['A: B # C'], name: '12' });
    expect(manifest.labels.map(({ name }) => name)).toEqual(["it's", '{x}']);
  });
});

describe('answersFor()', () => {
  const free = signature(['n', 1, 'z', 'y', 'x'], ['n', 4, 'z', 'y', 'x']);

  it('asks for what is not given, proposes, and asks again after a bad answer', async () => {
    const asked: string[] = [];
    const replies = ['', 'Liver!', 'liver', 'MIT', 'RAX', 'LPS', '', '2,2,4', '', ''];
    const ask: Ask = async (question) => {
      asked.push(question);
      if (asked.length > replies.length) throw new Error('asked too much');
      return replies[asked.length - 1];
    };
    const flags = { anatomy: undefined, spacing: undefined, orientation: undefined, licence: undefined };
    const manifest = await manifestOf(free, flags, ask);
    expect(asked.map((question) => question.trim().split(' ')[0])).toEqual([
      'Task',
      'Anatomy,',
      '--anatomy',
      'Licence',
      'Orientation',
      '--orientation',
      'Spacing',
      'Spacing',
      'Size',
      'Names',
    ]);
    expect(asked[2]).toMatch(/Give another one\.\nAnatomy, such as prostate: $/);
    expect(asked[8]).toContain('[96,96,96]');
    expect(manifest.preprocess[1]).toMatchObject({ parameters: { pixdim: [2, 2, 4] } });
    expect(manifest.anatomy).toBe('liver');
  });

  it.each([
    [{ spacing: '1,x,2' }, /--spacing 1,x,2 is not a spacing/],
    [{ orientation: 'RLA' }, /--orientation RLA is not an orientation/],
    [{ labels: 'a,b' }, /--labels has 2 names, and the network gives 3 labels/],
    [{ roiSize: '64,64' }, /--roi-size 64,64 is not a size/],
    [{ task: 'api' }, /--task api: .*reserved/],
    [{ classes: 3 }, /the network gives 4/],
    [{ licence: 'MIT\u202e' }, /invisible/],
  ])('refuses %o', async (flags, message) => {
    await expect(manifestOf(free, flags)).rejects.toThrow(message);
  });
});

describe('shapeOfNetwork()', () => {
  it.each([
    ['a batch of two', signature([2, 1, 8, 8, 8], [2, 2, 8, 8, 8]), /batches of 2/],
    ['a row of numbers', signature([1, 30], [1, 2]), /takes 1 × 30/],
    ['one result for a volume', signature([1, 1, 8, 8, 8], [1, 4]), /gives 1 × 4 .*not a score for each/],
    [
      'integers as input',
      { ...signature([1, 1, 8, 8, 8], []), inputs: [{ name: 'i', type: 'int64', shape: [1, 1, 8, 8, 8] }] },
      /takes int64/,
    ],
  ])('refuses %s', (_, of, message) => {
    expect(() => shapeOfNetwork(of, 'net.onnx')).toThrow(message);
  });

  it('needs the number of classes where the file does not state it', async () => {
    const of = signature(['n', 1, 'z', 'y', 'x'], []);
    await expect(manifestOf(of)).rejects.toThrow(/--classes N/);
    expect((await manifestOf(of, { classes: 5 })).labels).toHaveLength(4);
  });
});
