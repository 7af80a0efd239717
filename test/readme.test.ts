import { createReadStream, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseManifest, readVolume, sameGrid, type Volume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { codeBlocks, readText, type Stand, startStand, tryServing } from './documents.ts';
import { findCurl, findPython } from './programs.ts';

const readme = readText('README.md');
const blocks = codeBlocks(readme);
const lines = blocks
  .filter((block) => block.language === 'sh')
  .flatMap((block) => block.text.trim().split('\n'));
const [install, ...commands] = lines;

async function read(path: string): Promise<Volume> {
  const source = { name: basename(path), open: (start = 0) => createReadStream(path, { start }) };
  return (await readVolume([source], nodePlatform)).volume;
}

describe('README', () => {
  let stand: Stand;
  let sample: Volume;
  beforeAll(async () => {
    stand = await startStand();
  }, 60_000);
  afterAll(() => stand?.[Symbol.asyncDispose](), 30_000);

  const inFolder = (name: string) => join(stand.folder, name);
  /** A label map on the sample's grid with lungs in it: more than 1 l, less than 8 l. */
  async function expectLungs(name: string): Promise<void> {
    const found = await read(inFolder(name));
    expect(sameGrid(found, sample)).toBe(true);
    const { affine, voxels } = found;
    const voxelMl = Math.abs(affine[0] * affine[5] * affine[10]) / 1000;
    let count = 0;
    for (const value of voxels) if (value) count++;
    expect(count * voxelMl).toBeGreaterThan(1000);
    expect(count * voxelMl).toBeLessThan(8000);
  }

  it('fits on one screen and knows only kinds of blocks that are tried here', () => {
    expect(readme.split('\n').length).toBeLessThanOrEqual(71);
    expect(new Set(blocks.map((block) => block.language))).toEqual(new Set(['sh', 'python', 'yaml']));
  });

  it('npm ci && npm start: ready in 10 s; demo prints label, millilitres, seconds', async () => {
    expect(install).toBe('npm ci && npm start');
    expect(stand.readyMs).toBeLessThan(10_000);
    const { running } = stand;
    await running.until(/^Press Ctrl-C to stop\.$/m);
    expect(running.output.stdout).toMatch(/^ {2}\S.* +\d+(\.\d+)? ml$/m);
    expect(running.output.stdout).toMatch(/^ {2}volume_segmentation\.nii\.gz, \d+ kB, in \d+(\.\d)? s$/m);
  });

  it('the copied sample is a chest CT', async () => {
    expect(commands[0]).toMatch(/^cp apps\/ct-lung\/sample\.nii\.gz chest\.nii\.gz$/);
    expect((await stand.shell(commands[0])).code).toBe(0);
    sample = await read(inFolder('chest.nii.gz'));
  });

  it.skipIf(!findPython('requests'))('the Python lines write the segmentation', async () => {
    const python = blocks.filter((block) => block.language === 'python');
    expect(python).toHaveLength(1);
    const ended = await stand.python(python[0].text);
    expect(ended.stderr).toBe('');
    expect(ended.code).toBe(0);
    await expectLungs('lungs.nii.gz');
  });

  it('the lines of the manifest are lines of a manifest', () => {
    const [excerpt, ...more] = blocks.filter((block) => block.language === 'yaml');
    expect(more).toEqual([]);
    const whole = parse(readText('apps/threshold/tomaat.yaml')) as Record<string, unknown>;
    const shown = parse(excerpt.text.replace('…', 'a'.repeat(64))) as Record<string, unknown>;
    expect(Object.keys(shown)).toEqual(['preprocess', 'model', 'postprocess']);
    const manifest = parseManifest(stringify({ ...whole, ...shown }));
    expect(manifest.preprocess.map((step) => step.name)).toContain('spacing');
  });

  const noCurl = !findCurl();
  for (const line of commands.slice(1))
    it.skipIf(noCurl && line.startsWith('curl '))(line, async () => {
      if (/^npx tomaat serve /.test(line)) {
        expect(await tryServing(line, stand)).toContain('"ready"');
        return;
      }
      const ended = await stand.shell(line);
      expect(ended.code, ended.stderr).toBe(0);
      const output = / -o (\S+)/.exec(line)?.[1];
      if (output) await expectLungs(output);
      if (/discover$/.test(line)) expect(ended.stdout).toContain('Lungs on chest CT');
      if (/check/.test(line)) expect(ended.stdout).toMatch(/ok {3}.*geometry[\s\S]*ready to be served/);
    });

  it('names files that exist in its links', () => {
    const links = [...readme.matchAll(/\]\(([^)#]+)[^)]*\)/g)].map((match) => match[1]);
    expect(links.length).toBeGreaterThan(10);
    for (const link of links.filter((target) => target.endsWith('.json')))
      expect(() => JSON.parse(readFileSync(join(import.meta.dirname, '..', link), 'utf8'))).not.toThrow();
  });
});
