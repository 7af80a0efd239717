import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { storedKeys, storeKey } from './keyring.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-keyring-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it('keeps every key of logins at the same time, for their owner alone', async () => {
  const data = join(folder, 'many');
  const servers = Array.from({ length: 12 }, (_, i) => `https://server${i}.example:9443`);
  await Promise.all(servers.map((server, i) => storeKey(`${server}/services/brain`, `key ${i}`, data)));
  const found = (await storedKeys(data)).map(({ server, key }) => [server, key]);
  expect(found.sort()).toEqual(servers.map((server, i) => [server, `key ${i}`]).sort());
  expect((await stat(join(data, 'keyring'))).mode & 0o777).toBe(0o600);
  // No lock, no part of a file.
  expect(await readdir(data)).toEqual(['keyring']);
});

it('a logout where nothing is stored makes no folder', async () => {
  const data = join(folder, 'none');
  expect(await storeKey('https://server.example', undefined, data)).toBe(false);
  expect(existsSync(data)).toBe(false);
});
