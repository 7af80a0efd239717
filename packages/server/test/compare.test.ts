import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readVolume, reorient, sourceFromBytes, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { temporaryFolder, tomaat } from './cli-fixture.ts';
import { encode } from './phantom.ts';

/* tomaat compare: label maps from files, in any order of the axes. */

const work = temporaryFolder();
afterAll(() => work.remove());
const at = (name: string) => join(work.path, name);

// Left-handed, anisotropic: a voxel is 2 × 1 × 3 mm = 0.006 ml.
const affine: Volume['affine'] = [-2, 0, 0, 11, 0, 1, 0, -6, 0, 0, 3, 4, 0, 0, 0, 1];
const labelMap = (isLabel: (x: number, y: number, z: number) => number): Volume => ({
  size: [8, 7, 5],
  components: 1,
  affine,
  voxels: Uint8Array.from({ length: 280 }, (_, i) =>
    isLabel(i % 8, Math.floor(i / 8) % 7, Math.floor(i / 56)),
  ),
});
const bar = (from: number, to: number) =>
  labelMap((x, y, z) => (z === 2 && y === 3 && x >= from && x <= to ? 1 : 0));
const truth = bar(1, 4);

beforeAll(async () => {
  writeFileSync(at('truth.nii.gz'), await encode(truth, 'nii.gz'));
  writeFileSync(at('same.mha'), await encode(reorient(truth, 'SPL'), 'mha'));
  writeFileSync(at('longer.nrrd'), await encode(reorient(bar(1, 6), 'IAR'), 'nrrd'));
  writeFileSync(at('moved.nii'), await encode({ ...truth, affine: affine.with(3, 12) as never }, 'nii'));
  await writeApp(work.path, 'app', { infer: inferBright, labels: [{ value: 1, name: 'rod' }] });
});

describe('tomaat compare', () => {
  it('compares each result with the truth, by position', async () => {
    const files = [at('same.mha'), at('longer.nrrd')];
    const { code, stdout } = await tomaat(['compare', ...files, '--truth', at('truth.nii.gz'), '--json']);
    expect(code).toBe(0);
    const [same, longer] = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(same).toMatchObject({ result: files[0], expected: at('truth.nii.gz'), differ: 0, agree: 1 });
    expect(longer).toMatchObject({ differ: 2, voxels: 280 });
    expect(longer.labels).toHaveLength(1);
    // 4 of 6 voxels: 8 / 10; two voxels are 2 and 4 mm away.
    expect(longer.labels[0].dice).toBeCloseTo(0.8, 12);
    expect(longer.labels[0].foundMl).toBeCloseTo(0.036, 12);
    expect(longer.labels[0].surface.mean).toBeCloseTo(0.6, 12);
    expect(longer.labels[0].surface.hausdorff).toBeCloseTo(4, 12);
  });

  it('prints a table with names, writes a map of differences, and obeys --min-dice', async () => {
    const files = [at('truth.nii.gz'), at('longer.nrrd')];
    const flags = ['--app', at('app'), '--map', at('where.nii.gz'), '--min-dice', '0.9'];
    const { code, stdout, stderr } = await tomaat(['compare', ...files, ...flags]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/rod +0\.8000 +0\.60 mm +3\.50 mm +4\.00 mm +0\.036 ml +0\.024 ml/);
    expect(stderr).toContain('longer.nrrd: rod has a Dice of 0.8000, less than 0.9.');
    const bytes = readFileSync(at('where.nii.gz'));
    const { volume } = await readVolume([sourceFromBytes('where.nii.gz', bytes)], nodePlatform);
    expect(volume.affine).toEqual(affine);
    const marked = [...volume.voxels].flatMap((value, i) => (value === 0 ? [] : [[i, value]]));
    expect(marked).toEqual([5, 6].map((x) => [x + 8 * (3 + 7 * 2), 1]));
    const again = await tomaat(['compare', ...files, '--map', at('where.nii.gz')]);
    expect(again).toMatchObject({ code: 2, stderr: expect.stringContaining('--force') });
  });

  it.each([
    [['truth.nii.gz'], /nothing to compare it with/],
    [
      ['truth.nii.gz', 'moved.nii'],
      /moved\.nii and .*truth\.nii\.gz do not lie on the same voxels: their first voxels are 1 mm apart/,
    ],
    [['truth.nii.gz', 'missing.nii'], /missing\.nii does not exist/],
    [['truth.nii.gz', 'same.mha', '--map', 'where.txt'], /no ending of a volume format/],
    [['truth.nii.gz', 'same.mha', 'longer.nrrd', '--map', 'x.nii'], /--map shows where two/],
  ])('refuses %j with what to do', async (args, message) => {
    const { code, stderr } = await tomaat([
      'compare',
      ...args.map((arg) => (arg.startsWith('-') ? arg : at(arg))),
    ]);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});
