import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { reorient, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { formatProofMarkdown } from '../src/import/parity-report.ts';
import { type AuthorCase, proveApp } from '../src/import/prove.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { temporaryFolder } from './test-server.ts';

/* The proof of an app that marks what is brighter than 100, against label maps of a small phantom that are made by hand. */

let folder: string;
let appFolder: string;
const scan = phantom();
/** Its two blocks: 6 × 6 × 4 and 3 × 4 × 3 voxels. */
const blocks = Float32Array.from(scan.voxels as Int16Array, (v) => (v === 10 ? 0 : 1));

beforeAll(async () => {
  folder = await temporaryFolder();
  const labels = [
    { value: 1, name: 'bright' },
    { value: 2, name: 'dark' },
  ];
  appFolder = await writeApp(folder, 'bright', { infer: inferBright, labels });
  await mkdir(join(folder, 'cases'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function write(name: string, volume: Volume): Promise<string> {
  const path = join(folder, 'cases', `${name}.nii`);
  await writeFile(path, await encode(volume, 'nii'));
  return path;
}

async function caseOf(name: string, expected: Volume, more: Partial<AuthorCase> = {}): Promise<AuthorCase> {
  const volume = await write(`${name}-scan`, scan);
  return { name, inputs: { volume }, expected: await write(`${name}-labels`, expected), ...more };
}

it('proveApp() says what weakens a proof: fractions, another grid, no label', async () => {
  const fractional = blocks.slice();
  // Linear interpolation of label numbers: 0.75 is 1, 0.5 is 0, the even number.
  fractional.fill(0.5, 0, 3);
  fractional[fractional.indexOf(1)] = 0.75;
  const map = { ...scan, voxels: blocks };
  const cases = [
    await caseOf('fractions', { ...map, voxels: fractional }),
    await caseOf('reordered', reorient(map, 'SAR')),
    await caseOf('empty', { ...map, voxels: new Uint8Array(blocks.length) }),
  ];
  const again = await write('again', { ...map, voxels: blocks.map((v, i) => (i < 7 ? 1 : v)) });
  const proof = await proveApp({ appFolder, cases, noise: { reordered: again } });
  const [fractions, reordered, empty] = proof.cases;
  expect(fractions).toMatchObject({ verdict: 'exact', differ: 0, voxels: 4301 });
  expect(fractions.warnings).toEqual([
    expect.stringContaining('in 4 of 4301 voxels the author’s result is not a whole label'),
  ]);
  expect(reordered).toMatchObject({ verdict: 'exact', noise: 7 });
  expect(reordered.warnings).toEqual([expect.stringContaining('lies on another grid')]);
  expect(empty).toMatchObject({ verdict: 'differs', differ: 180 });
  expect(empty.labels).toEqual([{ value: 1, dice: 0, expected: 0, found: 180, judged: false }]);
  expect(empty.warnings).toEqual([expect.stringContaining('has no label')]);
  expect(proof.warnings).toEqual(['labels that occur in no case: 2 (dark)']);
  // 180 of 4301 voxels, rounded down.
  expect(proof.parity).toMatchObject({ verdict: 'differs', cases: 3, agree: 0.9581492 });
  expect(formatProofMarkdown(proof)).toContain('| empty | differs | 4301 | 180 | 95.814 % |  |');
});

it('proveApp() does not count cases in which neither result has a label', async () => {
  const dark = { ...scan, voxels: new Int16Array(blocks.length).fill(10) };
  const none = await write('none-labels', { ...scan, voxels: new Uint8Array(blocks.length) });
  const empty = { name: 'empty', inputs: { volume: await write('none-scan', dark) }, expected: none };
  const given = await caseOf('plain', { ...scan, voxels: blocks }, { fractional: 9 });
  const likely = { ...scan, voxels: blocks.map((v) => v * 0.75) };
  const probable = await caseOf('probable', likely, { isProbabilities: true });
  const proof = await proveApp({ appFolder, cases: [empty, given, probable], conditions: 'Both by hand.' });
  expect(proof.parity).toMatchObject({ verdict: 'exact', agree: 1, cases: 2, conditions: 'Both by hand.' });
  expect(proof.cases.map(({ warnings }) => warnings)).toEqual([
    [expect.stringContaining('not counted')],
    [expect.stringContaining('in 9 of 4301 voxels the author’s result is not a whole label')],
    ['the author’s result is probabilities: where they are above 0.5 was compared'],
  ]);
  expect(formatProofMarkdown(proof)).toContain('| empty | not counted | 4301 | 0 |');
  expect(formatProofMarkdown(proof)).toContain('differs in 2 cases. Both by hand.');
  await expect(proveApp({ appFolder, cases: [empty] })).rejects.toMatchObject({
    code: 'BAD_INPUT',
    field: 'case',
    message: 'In no case did the author’s pipeline find a label. Give a case that shows one.',
  });
});

it('proveApp() compares dumps, and refuses those that are not what they say', async () => {
  const file = join(folder, 'labels.f32');
  const dims = [1, 11, 17, 23];
  await writeFile(file, Buffer.from(blocks.buffer));
  const other = { ...scan, voxels: blocks.map((v, i) => (i < 900 ? 1 - v : v)) };
  const proveWith = async (dump: object) => {
    const given = await caseOf('dumped', other, { dumps: [{ stage: 'labels', file, dims, ...dump }] });
    return (await proveApp({ appFolder, cases: [given] })).cases[0];
  };
  const { verdict, bisection } = await proveWith({});
  expect(verdict).toBe('differs');
  expect(bisection!.stages).toEqual([expect.objectContaining({ stage: 'labels', agrees: true })]);
  expect(bisection!.first).toBeUndefined();
  await expect(proveWith({ dims: [1, 11, 17, 22] })).rejects.toThrow('In the case dumped: The dump');
  await expect(proveWith({ stage: 'scores' })).rejects.toThrow('scores is not a stage of the app');
});

it('proveApp() refuses what cannot be compared', async () => {
  const given = await caseOf('plain', { ...scan, voxels: blocks });
  await expect(proveApp({ appFolder, cases: [] })).rejects.toThrow('There is no case');
  const outputs = { text: { type: 'PlainText' } };
  const text = await writeApp(folder, 'text', { infer: 'return { text: "none" };', outputs });
  await expect(proveApp({ appFolder: text, cases: [given] })).rejects.toMatchObject({ code: 'BAD_MANIFEST' });
  const missing = { ...given, expected: join(folder, 'none.nii') };
  await expect(proveApp({ appFolder, cases: [missing] })).rejects.toThrow('none.nii cannot be read (ENOENT)');
});
