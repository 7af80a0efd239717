import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type TrialPlace, trialRecord } from './trials.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'trials-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const trial = { plainMs: 100, timedMs: 50, bytesPerVoxel: 1200 };
const day = 24 * 3600 * 1000;
const start = Date.UTC(2026, 1, 3);

const place = (name: string, changes: Partial<TrialPlace> = {}): TrialPlace => ({
  folder: join(folder, name),
  model: Uint8Array.of(1, 2, 3),
  engine: '1.30.0',
  threads: 2,
  processor: 'x64 A',
  now: () => start,
  ...changes,
});

describe('trialRecord()', () => {
  it('recalls what was kept for the same model, engine, processor and threads', async () => {
    await trialRecord(place('same')).keep(trial);
    expect(await trialRecord(place('same')).recall()).toEqual(trial);
    for (const changes of [
      { engine: '1.31.0' },
      { processor: 'x64 B' },
      { threads: 4 },
      { model: Uint8Array.of(1, 2, 4) },
      { now: () => start + 91 * day },
      { now: () => start - day },
    ])
      expect(await trialRecord(place('same', changes)).recall(), JSON.stringify(changes)).toBeUndefined();
  });

  it('does not recall a damaged, absurd or large file, and replaces it', async () => {
    const record = trialRecord(place('damaged'));
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

  it('recalls nothing from a folder that is missing or cannot be written', async () => {
    expect(await trialRecord(place('missing')).recall()).toBeUndefined();
    await writeFile(join(folder, 'a-file'), '');
    const record = trialRecord(place('a-file'));
    await record.keep(trial);
    expect(await record.recall()).toBeUndefined();
  });
});
