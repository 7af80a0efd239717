import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openRecord, type RecordPlace } from './measured.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'measured-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const trial = { plainMs: 100, timedMs: 50, bytesPerVoxel: 1200 };
const day = 24 * 3600 * 1000;
const start = Date.UTC(2026, 1, 3);

const place = (name: string, changes: Partial<RecordPlace> = {}): RecordPlace => ({
  folder: join(folder, name),
  digest: 'a1',
  engine: '1.30.0',
  threads: 2,
  processor: 'x64 A',
  now: () => start,
  ...changes,
});

describe('openRecord()', () => {
  it('recalls what was kept for the same model, engine, processor and threads', async () => {
    await openRecord(place('same')).keep(trial);
    expect(await openRecord(place('same')).recall()).toEqual(trial);
    for (const changes of [
      { engine: '1.31.0' },
      { processor: 'x64 B' },
      { threads: 4 },
      { digest: 'a2' },
      { now: () => start + 91 * day },
      { now: () => start - day },
    ])
      expect(await openRecord(place('same', changes)).recall(), JSON.stringify(changes)).toBeUndefined();
  });

  it('does not recall a damaged, absurd or large file, and replaces it', async () => {
    const record = openRecord(place('damaged'));
    await record.keep(trial);
    const [name, ...others] = await readdir(join(folder, 'damaged'));
    expect(others).toEqual([]);
    const file = join(folder, 'damaged', name);
    for (const text of ['', '{', '[]', 'null', '{"plainMs":-1}', '\0\xff', `"${'x'.repeat(5000)}"`]) {
      await writeFile(file, text);
      expect(await record.recall(), text.slice(0, 20)).toBeUndefined();
    }
    await record.keep(trial);
    expect(await record.recall()).toEqual(trial);
    await writeFile(file, JSON.stringify({ ...JSON.parse('{}'), ...trial, plainMs: 'fast' }));
    expect(await record.recall()).toBeUndefined();
  });

  it('adds what a run takes to what is known, and says when all is', async () => {
    const record = openRecord(place('added'));
    expect(await record.measured()).toBeUndefined();
    await record.keep(trial);
    expect(await record.measured()).toEqual({ form: trial, isWhole: false });
    const run = { rewrites: ['sub-pixel'], bytesPerVoxel: 812 };
    await record.add({ run, isWhole: true });
    expect(await record.measured()).toEqual({ form: trial, run, isWhole: true });
    expect(await record.recall()).toEqual(trial);
    const other = openRecord(place('added', { engine: '1.31.0' }));
    await other.add({ isWhole: true });
    expect(await other.measured()).toEqual({ isWhole: true });
  });

  it('recalls nothing from a folder that is missing or cannot be written', async () => {
    expect(await openRecord(place('missing')).recall()).toBeUndefined();
    await writeFile(join(folder, 'a-file'), '');
    const record = openRecord(place('a-file'));
    await record.keep(trial);
    expect(await record.recall()).toBeUndefined();
  });
});
