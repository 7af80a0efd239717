import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseManifest } from '@tomaat/core';
import { afterAll, describe, expect, it } from 'vitest';
import { temporaryFolder, tomaat } from './cli-fixture.ts';
import { encodeModel, labelNetwork, pointwiseNetwork, writeModel } from './onnx-fixture.ts';

const work = temporaryFolder();
afterAll(() => work.remove());
const at = (...names: string[]) => join(work.path, ...names);
const known = '--anatomy liver --modality CT --licence MIT --author Ann --spacing 2,2,3'.split(' ');
const init = (...args: string[]) => tomaat(['init', ...args], { cwd: work.path });

/** Scores 0, x − 1, 2x − 7 … : the larger x, the higher the class. */
const classes = (count: number, more = {}) =>
  pointwiseNetwork({
    weights: Array.from({ length: count }, (_, k) => [k]),
    bias: Array.from({ length: count }, (_, k) => -k * k),
    ...more,
  });

describe('tomaat init', () => {
  it('makes an app that passes tomaat check, with the hash and a palette', async () => {
    const bytes = classes(4);
    await writeModel(work.path, 'Liver Net.onnx', bytes);
    const made = await init('Liver Net.onnx', ...known, '--labels', 'liver, tumour: solid,cyst');
    expect(made.stderr).toContain(
      'volumes of any × any × any voxels (x, y, z) with 1 component; gives 4 scores for each voxel',
    );
    expect(made).toMatchObject({ code: 0, stdout: 'liver-net/tomaat.yaml\n' });
    const text = readFileSync(at('liver-net', 'tomaat.yaml'), 'utf8');
    const manifest = parseManifest(text);
    expect(manifest).toMatchObject({
      id: 'liver-net',
      name: 'Liver on CT',
      task: 'segmentation',
      authors: ['Ann'],
    });
    expect(manifest.labels.map(({ value, name }) => [value, name])).toEqual([
      [1, 'liver'],
      [2, 'tumour: solid'],
      [3, 'cyst'],
    ]);
    expect(new Set(manifest.labels.map(({ color }) => color)).size).toBe(3);
    // Known names have their code; nothing is guessed of the others.
    expect(manifest.labels.map(({ code }) => code?.value)).toEqual(['10200004', undefined, undefined]);
    expect(manifest.model[0]).toMatchObject({
      file: 'Liver Net.onnx',
      sha256: createHash('sha256').update(bytes).digest('hex'),
      inferer: { type: 'slidingWindow', roiSize: [96, 96, 96] },
    });
    expect(manifest.preprocess.map(({ name }) => name)).toEqual([
      'orientation',
      'spacing',
      'scaleIntensityRange',
    ]);
    const checked = await tomaat(['check', at('liver-net')]);
    expect(checked.stdout).toContain('1 × 1 × 96 × 96 × 96 → 4 classes');
    expect(checked.code).toBe(0);
  }, 60_000);

  it('lists the missing flags where there is no terminal', async () => {
    await writeModel(work.path, 'two.onnx', classes(2));
    const { code, stderr } = await init('two.onnx', '--modality', 'MRI');
    expect(code).toBe(2);
    expect([...stderr.matchAll(/^ *(--[a-z]+) \(/gm)].map(([, flag]) => flag)).toEqual([
      '--anatomy',
      '--licence',
      '--author',
      '--spacing',
    ]);
    expect(existsSync(at('two'))).toBe(false);
  });

  it('overwrites an app with --force alone', async () => {
    await writeModel(work.path, 'three.onnx', classes(3));
    expect((await init('three.onnx', ...known, '-o', 'kept')).code).toBe(0);
    writeFileSync(at('kept', 'tomaat.yaml'), 'mine');
    const refused = await init('three.onnx', ...known, '-o', 'kept');
    expect(refused).toMatchObject({ code: 2, stdout: '' });
    expect(refused.stderr).toContain('kept/tomaat.yaml exists. Give --force');
    expect(readFileSync(at('kept', 'tomaat.yaml'), 'utf8')).toBe('mine');
    expect((await init('three.onnx', ...known, '-o', 'kept', '--force')).code).toBe(0);
    expect(parseManifest(readFileSync(at('kept', 'tomaat.yaml'), 'utf8')).id).toBe('kept');
  }, 60_000);

  it('says what is wrong with a file that is no network of images', async () => {
    writeFileSync(at('notes.onnx'), 'weights');
    const text = await init('notes.onnx', ...known);
    expect(text.code).toBe(1);
    expect(text.stderr).toContain('notes.onnx is not an ONNX model');
    const gone = await init('gone.onnx', ...known);
    expect(gone.code).toBe(2);
    expect(gone.stderr).toContain('gone.onnx');
    await writeModel(
      work.path,
      'sum.onnx',
      encodeModel({
        nodes: [{ op: 'Add', inputs: ['t1', 't2'], outputs: ['scores'] }],
        inputs: ['t1', 't2'].map((name) => ({ name, dims: [1, 1, 8, 8, 8] })),
        outputs: [{ name: 'scores', dims: [1, 1, 8, 8, 8] }],
      }),
    );
    const two = await init('sum.onnx', ...known);
    expect(two.code).toBe(1);
    expect(two.stderr).toContain('has 2 inputs (t1, t2)');
  }, 60_000);

  it('asks for the number of labels that an integer output has; --write-hash corrects a hash', async () => {
    await writeModel(work.path, 'labels.onnx', labelNetwork(0.5));
    const refused = await init('labels.onnx', ...known);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('--classes N, the background included');
    expect((await init('labels.onnx', ...known, '--labels', 'liver')).code).toBe(0);
    const manifest = at('labels', 'tomaat.yaml');
    const made = readFileSync(manifest, 'utf8');
    writeFileSync(manifest, made.replace(/sha256: [0-9a-f]{64}/, `sha256: ${'0'.repeat(64)}`));
    const checked = await tomaat(['check', at('labels'), '--write-hash']);
    expect(readFileSync(manifest, 'utf8')).toBe(made);
    expect(checked.stdout).toContain('label values');
    expect(checked.code).toBe(0);
  }, 60_000);
});
