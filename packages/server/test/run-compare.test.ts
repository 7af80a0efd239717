import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { reorient, restore, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeApp } from './app-fixture.ts';
import { temporaryFolder, tomaat } from './cli-fixture.ts';
import { pointwiseNetwork, writeModel } from './onnx-fixture.ts';
import { encode, phantom } from './phantom.ts';

/* tomaat run with a label map to compare with, and what it says where nothing is found. */

const work = temporaryFolder();
afterAll(() => work.remove());
const at = (...names: string[]) => join(work.path, ...names);
const run = (...args: string[]) =>
  tomaat(['run', at('bright'), '--volume', at('scan.nii.gz'), '-o', at('out.nii.gz'), '--force', ...args]);

/** 1 above 300, 2 above 700: as the network, which is given hundreds, finds it, but with one column of label 1 more. */
const scan = phantom();
const expected: Volume = {
  ...scan,
  voxels: Uint8Array.from(scan.voxels as Int16Array, (v) => (v > 700 ? 2 : v > 300 ? 1 : 0)),
};

beforeAll(async () => {
  const bytes = pointwiseNetwork({ weights: [[0], [1], [2]], bias: [0, -3, -10] });
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  await writeModel(work.path, 'bright/net.onnx', bytes);
  await writeApp(work.path, 'bright', {
    model: { runtime: 'onnx', file: 'net.onnx', sha256 },
    preprocess: [
      { orientation: { axcodes: 'RAS' } },
      { scaleIntensityRange: { aMin: 0, aMax: 1000, bMin: 0, bMax: 10, clip: true } },
    ],
    labels: [
      { value: 1, name: 'block' },
      { value: 2, name: 'core' },
    ],
  });
  writeFileSync(at('scan.nii.gz'), await encode(scan, 'nii.gz'));
  writeFileSync(at('same.mha'), await encode(reorient(expected, 'SPL'), 'mha'));
  const voxels = (expected.voxels as Uint8Array).slice();
  // 6 × 6 × 4 voxels of label 1 and 3 × 4 × 3 of label 2: 9 of those become 1.
  let left = 9;
  for (let i = 0; i < voxels.length && left > 0; i++) if (voxels[i] === 2) [voxels[i], left] = [1, left - 1];
  writeFileSync(at('other.nii'), await encode({ ...expected, voxels }, 'nii'));
});

describe('tomaat run', () => {
  it('--expected compares by position, and exits with 0', async () => {
    const { code, stdout, stderr } = await run('--expected', at('same.mha'));
    expect(stderr).not.toContain('Error');
    expect(stdout).toContain(`equal to ${at('same.mha')}: all ${23 * 17 * 11} voxels`);
    expect(stdout).toMatch(/block +1 /);
    expect(code).toBe(0);
  });

  it('--min-dice exits with 1 where a label is below, and --json has the numbers', async () => {
    const { code, stdout, stderr } = await run('--expected', at('other.nii'), '--min-dice', '0.9', '--json');
    const { comparison } = JSON.parse(stdout);
    expect(comparison).toMatchObject({ differ: 9, voxels: 4301 });
    // 2 · 144 / (144 + 153), and 2 · 27 / (36 + 27).
    expect(comparison.labels[0].dice).toBeCloseTo(288 / 297, 12);
    expect(comparison.labels[1].dice).toBeCloseTo(54 / 63, 12);
    expect(stderr).toContain('core has a Dice of 0.8571, less than 0.9.');
    expect(code).toBe(1);
  });

  it('--preview writes a picture, and overwrites none without --force', async () => {
    const picture = at('picture.png');
    const { code } = await run('--preview', picture);
    expect(code).toBe(0);
    const png = readFileSync(picture);
    expect(png.subarray(1, 4).toString()).toBe('PNG');
    expect(png.readUInt32BE(16)).toBeGreaterThan(3 * 479);
    const again = [
      'run',
      at('bright'),
      '--volume',
      at('scan.nii.gz'),
      '-o',
      at('new.nii'),
      '--preview',
      picture,
    ];
    const refused = await tomaat(again);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('picture.png exists. Give --force');
  });

  it('--expected on other voxels is refused, and so is --min-dice alone', async () => {
    const coarse = restore(expected, { size: [11, 17, 11], affine: expected.affine });
    writeFileSync(at('coarse.nii'), await encode(coarse, 'nii'));
    const other = await run('--expected', at('coarse.nii'));
    expect(other.code).toBe(2);
    expect(other.stderr).toContain('do not lie on the same voxels: the result has 23 × 17 × 11 voxels');
    const alone = await run('--min-dice', '0.9');
    expect(alone.code).toBe(2);
    expect(alone.stderr).toContain('Give --expected');
  });

  it('says why nothing was found: ranges, sizes, scores, and the cause that fits', async () => {
    const dim = { ...scan, voxels: Float32Array.from(scan.voxels as Int16Array, (v) => v / 100 - 20) };
    writeFileSync(at('dim.nii'), await encode(dim, 'nii'));
    const { code, stderr } = await run('--volume', at('dim.nii'));
    expect(code).toBe(0);
    const lines = stderr.split('\n');
    expect(lines).toContain('Nothing was found.');
    // 10, 400 and 900 are −19.9 … −11, clipped to 0.
    expect(stderr).toContain('volume: values -19.9 … -11, 23 × 17 × 11 voxels of ');
    expect(stderr).toContain('after preprocess: values 0 … 0, 23 × 17 × 11 voxels');
    expect(stderr).toContain('highest score of each class: 0: 0, 1: -3, 2: -10');
    expect(stderr).toContain(
      'scaleIntensityRange expects values of 0 … 1000, and those of volume are -19.9 … -11',
    );
  });
});
