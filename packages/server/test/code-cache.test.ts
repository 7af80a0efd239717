import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { temporaryFolder, tomaat } from './cli-fixture.ts';

const folder = temporaryFolder();
afterAll(() => folder.remove());
// Of the run of tests: here, the command chooses.
delete process.env.NODE_COMPILE_CACHE;

const cached = (path: string): number =>
  readdirSync(path, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).length;

it.skipIf(process.platform !== 'linux')(
  'tomaat keeps its compiled code where only the user may write',
  async () => {
    const caches = join(folder.path, 'caches');
    const { code } = await tomaat(['--version'], { env: { XDG_CACHE_HOME: caches, NODE_COMPILE_CACHE: '' } });
    expect(code).toBe(0);
    expect(existsSync(caches)).toBe(false);

    const env = { XDG_CACHE_HOME: caches };
    await tomaat(['--version'], { env });
    const found = join(caches, 'tomaat/code');
    expect(statSync(found).mode & 0o777).toBe(0o700);
    expect(cached(found)).toBeGreaterThan(3);
  },
);

it.skipIf(process.platform !== 'linux')('tomaat works without a folder for its compiled code', async () => {
  const file = join(folder.path, 'file');
  writeFileSync(file, '');
  const { code, stdout, stderr } = await tomaat(['--version'], { env: { XDG_CACHE_HOME: file } });
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});
