import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { lockDataFolder } from '../store/database/database.ts';
import { openWorkFolder } from './work-folder.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tomaat-folders-'));
  vi.stubEnv('TMPDIR', folder);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

/** A folder as a worker has it: with its lock's files, and a scan. */
function makeFolder(name: string, files: readonly string[]): string {
  const made = join(folder, name);
  mkdirSync(join(made, 'jobs'), { recursive: true });
  for (const file of [...files, 'jobs/scan']) writeFileSync(join(made, file), '');
  return made;
}

it('openWorkFolder() removes folders of killed workers, and no others', async () => {
  makeFolder('tomaat-worker-killed', ['lock.db', 'lock.pid']);
  const old = makeFolder('tomaat-worker-killed-early', []);
  utimesSync(old, 0, Date.now() / 1000 - 3600);
  const kept = [
    makeFolder('somebody-else', ['lock.db', 'lock.pid']),
    makeFolder('tomaat-worker-live', []),
    makeFolder('tomaat-worker-opening', ['lock.db']),
  ];
  using _lock = lockDataFolder(kept[1]);
  {
    await using opened = new AsyncDisposableStack();
    const own = await openWorkFolder(opened);
    expect(readdirSync(own).toSorted()).toEqual(['lock.db', 'lock.db-journal', 'lock.pid']);
    expect(readdirSync(folder)).toHaveLength(kept.length + 1);
    expect(kept.filter((one) => !existsSync(join(one, 'jobs/scan')))).toEqual([]);
  }
  expect(readdirSync(folder)).toHaveLength(kept.length);
});

it('workers that start and end at the same moment do not disturb each other', async () => {
  const program = `
    import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
    import { openWorkFolder } from ${JSON.stringify(join(import.meta.dirname, 'work-folder.ts'))};
    for (let i = 0; i < 25; i++) {
      const made = process.env.TMPDIR + '/made-' + process.pid;
      mkdirSync(made + '/jobs', { recursive: true });
      for (const name of ['lock.db', 'lock.pid', 'jobs/scan']) writeFileSync(made + '/' + name, '');
      renameSync(made, process.env.TMPDIR + '/tomaat-worker-' + process.pid + '-' + i);
      await using opened = new AsyncDisposableStack();
      const own = await openWorkFolder(opened);
      await new Promise((resolve) => setTimeout(resolve, 2));
      if (!existsSync(own + '/lock.pid')) throw new Error('the folder of a live worker was removed');
    }`;
  const args = ['--conditions=tomaat-source', '--input-type=module', '--eval', program];
  await Promise.all(Array.from({ length: 3 }, () => promisify(execFile)(process.execPath, args)));
  expect(readdirSync(folder)).toEqual([]);
});
