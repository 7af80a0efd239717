import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { licenceOf, recognise } from './recognise.ts';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'tomaat-recognise-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** Makes files of these paths. */
function put(...paths: string[]): void {
  for (const path of paths) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), '{}');
  }
}

const trained = (name: string, ...folds: string[]) =>
  put(
    `${name}/plans.json`,
    `${name}/dataset.json`,
    ...folds.map((fold) => `${name}/fold_${fold}/checkpoint_final.pth`),
  );

describe('recognise()', () => {
  it('finds the inference of a bundle, and its licence', async () => {
    put('configs/metadata.json', 'configs/inference.yaml', 'configs/train.json', 'LICENSE');
    expect(await recognise(root)).toEqual({
      kind: 'monai',
      folder: root,
      config: 'inference.yaml',
      notes: [],
      licenceFile: join(root, 'LICENSE'),
    });
  });

  it('takes one config of several, and says so', async () => {
    put('configs/metadata.json', 'configs/inference.json', 'configs/inference_segresnet.json');
    const { config, notes } = await recognise(root);
    expect(config).toBe('inference.json');
    expect(notes).toEqual([expect.stringContaining('inference_segresnet.json')]);
    const other = await recognise(root, { config: 'configs/inference_segresnet.json' });
    expect(other).toMatchObject({ config: 'inference_segresnet.json', notes: [] });
    await expect(recognise(root, { config: 'infer.json' })).rejects.toThrow(/Available: inference.json/);
  });

  it('prefers full resolution among configurations of nnU-Net', async () => {
    trained('Dataset1_A/T__nnUNetPlans__2d', '0');
    trained('Dataset1_A/T__nnUNetPlans__3d_fullres', '1', '0', '10');
    trained('Dataset1_A/T__nnUNetPlans__3d_cascade_fullres', '0');
    const found = await recognise(root);
    expect(basename(found.folder)).toBe('T__nnUNetPlans__3d_fullres');
    expect(found.folds).toEqual(['0', '1', '10']);
    expect(found.notes).toEqual([expect.stringContaining('2d or 3d_cascade_fullres')]);
    const flat = await recognise(root, { config: '2d' });
    expect(basename(flat.folder)).toBe('T__nnUNetPlans__2d');
    await expect(recognise(root, { config: '3d_lowres' })).rejects.toThrow(/Available: 3d_fullres, 2d/);
  });

  it('takes the folds that are asked for, if they have weights', async () => {
    trained('M', '0', '3', 'all');
    put('M/fold_4/debug.json');
    const folds = async (wanted?: string) => (await recognise(root, { folds: wanted })).folds;
    expect(await folds()).toEqual(['0', '3']);
    expect(await folds('all')).toEqual(['0', '3']);
    expect(await folds('3')).toEqual(['3']);
    await expect(folds('0,4')).rejects.toThrow(/no fold 4. Available: 0, 3, all/);
    await expect(folds('0,3,0')).rejects.toThrow('--folds has 0 twice');
  });

  it('says what is missing', async () => {
    await expect(recognise(join(root, 'no'))).rejects.toThrow(/is not a folder/);
    put('weights.pt');
    await expect(recognise(root)).rejects.toThrow(/metadata.json.*plans.json.*It holds weights.pt/);
    put('plans.json');
    await expect(recognise(root)).rejects.toThrow(/no dataset.json/);
    put('dataset.json');
    await expect(recognise(root)).rejects.toThrow(/no fold_\*\/checkpoint_final.pth/);
    put('configs/train.json');
    await expect(recognise(root)).rejects.toThrow(/no metadata.json/);
    put('configs/metadata.json');
    await expect(recognise(root)).rejects.toThrow(/--config. Available: metadata.json, train.json/);
  });
});

describe('licenceOf()', () => {
  it('knows a licence by its text', async () => {
    const file = join(root, 'LICENSE');
    writeFileSync(file, `${' '.repeat(30)}Apache License\n  Version 2.0, January 2004\n`);
    expect(await licenceOf(file)).toBe('Apache-2.0');
    writeFileSync(file, 'All rights reserved.');
    expect(await licenceOf(file)).toBeUndefined();
  });
});
