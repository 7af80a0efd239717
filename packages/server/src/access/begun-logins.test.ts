import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Database } from '../store/database.ts';
import { openServerDatabase, type ServerSchema } from '../store/server-database.ts';
import { type BegunLogin, rememberLogins, storeLogins } from './begun-logins.ts';

let folder: string;
let database: Database<ServerSchema>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-begun-'));
  database = await openServerDatabase(folder);
});
afterAll(async () => {
  await database.close();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  await database.db.deleteFrom('begun_login').execute();
});

const login = (name: string, expiresMs: number): BegunLogin => ({
  state: `state-${name}`,
  nonce: `nonce-${name}`,
  codeVerifier: `verifier-${name}`,
  redirectUri: 'https://server.example/auth/oidc/callback',
  returnTo: `/jobs/${name}`,
  expiresMs,
});

describe.each([
  ['rememberLogins()', (now: () => number, limit?: number) => rememberLogins(now, limit)],
  ['storeLogins()', (now: () => number, limit?: number) => storeLogins(database.db, now, limit)],
])('%s', (_name, open) => {
  it('gives a login back once, to the token that began it', async () => {
    const logins = open(() => 0);
    await logins.add('one', login('a', 10));
    await logins.add('two', login('b', 10));
    expect(await logins.find('one')).toEqual(login('a', 10));
    expect(await logins.find('other')).toBeUndefined();
    expect(await logins.take('one')).toEqual(login('a', 10));
    expect(await logins.take('one')).toBeUndefined();
    expect(await logins.find('one')).toBeUndefined();
    expect(await logins.take('two')).toEqual(login('b', 10));
  });

  it('gives none that has expired', async () => {
    let nowMs = 0;
    const logins = open(() => nowMs);
    await logins.add('one', login('a', 10));
    await logins.add('two', login('b', 11));
    nowMs = 10;
    expect(await logins.find('one')).toBeUndefined();
    expect(await logins.take('one')).toBeUndefined();
    expect(await logins.take('two')).toEqual(login('b', 11));
  });

  it('drops the oldest beyond the limit', async () => {
    const logins = open(() => 0, 2);
    for (const [index, token] of ['one', 'two', 'three'].entries())
      await logins.add(token, login(token, 10 + index));
    expect(await logins.find('one')).toBeUndefined();
    expect(await logins.find('two')).toBeDefined();
    expect(await logins.find('three')).toBeDefined();
  });
});

describe('storeLogins()', () => {
  it('lets a login end at another server, and keeps no secret in clear text', async () => {
    await storeLogins(database.db, () => 0).add('one', login('a', 10));
    const rows = JSON.stringify(await database.db.selectFrom('begun_login').selectAll().execute());
    for (const secret of ['state-a', 'nonce-a', 'verifier-a', '/jobs/a', 'one'])
      expect(rows).not.toContain(secret);
    const elsewhere = storeLogins(database.db, () => 0);
    const [first, second] = await Promise.all([elsewhere.take('one'), elsewhere.take('one')]);
    expect([first, second].filter(Boolean)).toEqual([login('a', 10)]);
  });
});
