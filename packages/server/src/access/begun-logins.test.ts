import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { onEachDatabase } from '../../test/support/each-database.ts';
import type { Database } from '../store/database/database.ts';
import { openServerDatabase, type ServerSchema } from '../store/database/server-database.ts';
import { type BegunLogin, type BegunLogins, rememberLogins, storeLogins } from './begun-logins.ts';

const login = (name: string, expiresMs: number): BegunLogin => ({
  state: `state-${name}`,
  nonce: `nonce-${name}`,
  codeVerifier: `verifier-${name}`,
  redirectUri: 'https://server.example/auth/oidc/callback',
  returnTo: `/jobs/${name}`,
  expiresMs,
});

function testLogins(open: (now: () => number, limit?: number) => BegunLogins): void {
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
}

describe('rememberLogins()', () => testLogins(rememberLogins));

onEachDatabase(({ newDatabase }) => {
  let folder: string;
  let database: Database<ServerSchema>;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-begun-'));
    database = await openServerDatabase(folder, await newDatabase());
  });
  afterAll(async () => {
    await database.close();
    await rm(folder, { recursive: true, force: true });
  });
  beforeEach(async () => {
    await database.db.deleteFrom('begun_login').execute();
  });

  describe('storeLogins()', () => {
    testLogins((now, limit) => storeLogins(database.db, now, limit));

    it('keeps the limit when several servers begin logins at once', async () => {
      const atOnce = Array.from({ length: 12 }, (_, index) =>
        storeLogins(database.db, () => 0, 3).add(`token ${index}`, login(`${index}`, 10 + index)),
      );
      await Promise.all(atOnce);
      expect(await database.db.selectFrom('begun_login').select('hash').execute()).toHaveLength(3);
    });

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
});
