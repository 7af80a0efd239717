import { createHmac } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Kysely } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openServerDatabase } from '../store/database/server-database.ts';
import type { Oidc } from './oidc.ts';
import { hideOwners, openPseudonyms, withPseudonyms } from './pseudonyms.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-pseudonyms-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const anna = 'oidc:https://login.example/realms/main|anna';

describe('openPseudonyms()', () => {
  it('gives the first 128 bits of HMAC-SHA-256 under the key of the folder', async () => {
    const { of } = await openPseudonyms(folder);
    const key = (await readFile(join(folder, 'pseudonym.key'), 'utf8')).trim();
    expect(Buffer.from(key, 'base64url')).toHaveLength(32);
    const code = createHmac('sha256', key).update(anna).digest('hex').slice(0, 32);
    expect(of(anna)).toBe(`oidc:${Buffer.from(code, 'hex').toString('base64url')}`);
    expect((await openPseudonyms(folder)).of(anna)).toBe(of(anna));
    if (process.platform !== 'win32')
      expect((await stat(join(folder, 'pseudonym.key'))).mode & 0o777).toBe(0o600);
  });

  it('distinguishes people, issuers and addresses, and keeps other owners unchanged', async () => {
    const { of } = await openPseudonyms(folder);
    const clear = [
      anna,
      anna.replace('anna', 'bob'),
      anna.replace('main', 'other'),
      'legacy:10.0.0.1',
      'legacy:::1',
      'legacy:unknown',
    ];
    const hidden = clear.map(of);
    expect(new Set(hidden).size).toBe(clear.length);
    for (const [index, owner] of hidden.entries()) {
      expect(owner).toMatch(index < 3 ? /^oidc:[\w-]{22}$/ : /^legacy:[\w-]{22}$/);
      expect(of(owner)).toBe(owner);
    }
    for (const owner of ['anonymous', 'key:abcdefghij', '']) expect(of(owner)).toBe(owner);
  });

  it('has another key in another folder', async () => {
    const other = await mkdtemp(join(tmpdir(), 'tomaat-pseudonyms-'));
    expect((await openPseudonyms(other)).of(anna)).not.toBe((await openPseudonyms(folder)).of(anna));
    await rm(other, { recursive: true });
  });

  it('refuses a key file that is empty, and names it', async () => {
    await writeFile(join(folder, 'pseudonym.key'), '');
    await expect(openPseudonyms(folder)).rejects.toThrow(`${join(folder, 'pseudonym.key')} is empty`);
  });
});

describe('hideOwners()', () => {
  it('replaces an earlier version’s owners in every table, with no trace left', async () => {
    const pseudonyms = await openPseudonyms(folder);
    const database = await openServerDatabase(folder);
    const { db } = database;
    const session = { label: 'x', scopes: 'predict', created_ms: 1, used_ms: 1, expires_ms: 9 };
    const owners = [anna, 'legacy:10.7.7.7', 'key:abcdefghij'];
    for (const [index, owner] of owners.entries()) {
      const job = { service: 's', state: 'queued', attempt: 0, request: '{}', created_ms: index } as const;
      await db
        .insertInto('job')
        .values({ id: `job-${index}`, owner, ...job })
        .execute();
      const upload = { size_bytes: 1, offset_bytes: 0, metadata: '', expires_ms: 9 };
      await db
        .insertInto('upload')
        .values({ id: `upload-${index}`, owner, ...upload })
        .execute();
      await db.insertInto('created_on').values({ owner, day: 1, jobs: 1 }).execute();
      const basis = { basis: 'b', key_id: null, hash: Buffer.from([index]) };
      await db
        .insertInto('session')
        .values({ owner, ...session, ...basis })
        .execute();
    }
    expect(await hideOwners(db as unknown as Kysely<unknown>, pseudonyms)).toBe(2);
    expect(await hideOwners(db as unknown as Kysely<unknown>, pseudonyms)).toBe(0);
    await database.truncateWal();
    const wanted = owners.map(pseudonyms.of);
    for (const table of ['job', 'upload', 'created_on', 'session'] as const) {
      const rows = await db.selectFrom(table).select('owner').execute();
      expect(rows.map(({ owner }) => owner).sort()).toEqual([...wanted].sort());
    }
    await database.close();
    const bytes = await readFile(join(folder, 'server.db'), 'latin1');
    for (const clear of ['anna', 'login.example', '10.7.7.7']) expect(bytes).not.toContain(clear);
  });
});

describe('withPseudonyms()', () => {
  it('hides the owner of a login or token, and rejects unknown tokens', async () => {
    const pseudonyms = await openPseudonyms(folder);
    const person = { owner: anna, label: 'Anna', scopes: ['predict'] };
    const issuer = {
      name: 'an issuer',
      finish: async () => ({ ...person, idToken: 'x' }),
      recognise: async (jwt: string) => (jwt === 'good' ? person : undefined),
    };
    const oidc = withPseudonyms(issuer as unknown as Oidc, pseudonyms)!;
    const hidden = { ...person, owner: pseudonyms.of(anna) };
    expect(await (oidc.finish as () => Promise<unknown>)()).toEqual({ ...hidden, idToken: 'x' });
    expect(await oidc.recognise('good')).toEqual(hidden);
    expect(await oidc.recognise('bad')).toBeUndefined();
    expect((oidc as unknown as typeof issuer).name).toBe('an issuer');
    expect(withPseudonyms(undefined, pseudonyms)).toBeUndefined();
  });
});
