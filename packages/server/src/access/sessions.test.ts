import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sql } from 'kysely';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { onEachDatabase } from '../../test/support/each-database.ts';
import { temporaryFolder } from '../../test/test-server.ts';
import type { Database } from '../store/database/database.ts';
import type { KeySchema } from '../store/database/key-schema.ts';
import { openServerDatabase, type ServerSchema } from '../store/database/server-database.ts';
import type { SessionSchema } from '../store/database/session-schema.ts';
import { createKey, revokeKey } from './keys.ts';
import { createSessions } from './sessions.ts';

const minute = 60_000;
// As SECURITY.md promises them; not those of the source.
const idleMs = 8 * 60 * minute;
const keySessionMs = 7 * 24 * 60 * minute;
const oidcSessionMs = 24 * 60 * minute;
const maxSessionsPerOwner = 20;

onEachDatabase(({ dialect, newDatabase }) => {
  describe('createSessions()', () => {
    let folder: string;
    let database: Database<ServerSchema>;
    let clock: number;
    const now = () => clock;
    const open = (basis?: string) => createSessions({ db: database.db, basis, now });
    const count = async () => (await database.db.selectFrom('session').select('owner').execute()).length;
    async function keySession() {
      const key = await createKey(database.db, { label: 'ward 3', scopes: ['predict'] }, clock);
      return { key, token: await open().open({ owner: `key:${key.id}`, label: key.label, keyId: key.id }) };
    }

    /** What the database has of keys and sessions: the bytes of its file, or each value. */
    async function storedBytes(): Promise<Buffer> {
      if (dialect === 'postgres') {
        const rows = [
          ...(await database.db.selectFrom('api_key').selectAll().execute()),
          ...(await database.db.selectFrom('session').selectAll().execute()),
        ];
        const values = rows.flatMap((row) => Object.values(row));
        return Buffer.concat(values.map((v) => (v instanceof Uint8Array ? v : Buffer.from(String(v)))));
      }
      await database.truncateWal();
      return readFile(join(folder, 'server.db'));
    }

    beforeAll(async () => {
      folder = await temporaryFolder();
      database = await openServerDatabase(folder, await newDatabase());
    });
    afterAll(() => database.close());
    beforeEach(async () => {
      clock = Date.parse('2026-03-04T05:06:07Z');
      await database.db.deleteFrom('session').execute();
      await database.db.deleteFrom('api_key').execute();
    });

    it('find() gives who opened it, with what the key may do now', async () => {
      const { key, token } = await keySession();
      expect(await open().find(token)).toEqual({
        principal: { owner: `key:${key.id}`, scopes: ['predict'], via: 'session', keyId: key.id },
        label: 'ward 3',
        expiresTime: new Date(clock + keySessionMs).toISOString(),
      });
      await database.db.updateTable('api_key').set({ scopes: 'predict,admin' }).execute();
      expect((await open().find(token))?.principal.scopes).toEqual(['predict', 'admin']);
    });

    it('find() gives nothing for an unknown token of any form', async () => {
      const { token } = await keySession();
      const others = [
        '',
        token.slice(1),
        `${token}A`,
        `${token[0] === 'A' ? 'B' : 'A'}${token.slice(1)}`,
        `${token} `,
        "' OR 1=1 --",
        'A'.repeat(43),
        'x'.repeat(100_000),
      ];
      for (const other of others) expect(await open().find(other)).toBeUndefined();
    });

    it('open() writes no token to the disk, only its hash', async () => {
      const { token } = await keySession();
      const bytes = await storedBytes();
      expect(bytes.includes('ward 3')).toBe(true);
      expect(bytes.includes(token)).toBe(false);
      expect(bytes.includes(Buffer.from(token, 'base64url'))).toBe(false);
    });

    it('close() gives the ID token back, which no file contains in plain text', async () => {
      const idToken = 'eyJhbGciOiJSUzI1NiJ9.eyJuYW1lIjoiQWRhIn0.c2lnbmF0dXJl';
      const ofIssuer = { owner: 'oidc:i|s', label: 'Ada', scopes: ['predict'], basis: 'a' } as const;
      const token = await open('a').open({ ...ofIssuer, idToken });
      const bytes = await storedBytes();
      for (const part of idToken.split('.')) {
        expect(bytes.includes(part)).toBe(false);
        expect(bytes.includes(Buffer.from(part, 'base64url'))).toBe(false);
      }
      const { id_token: sealed } = await database.db
        .selectFrom('session')
        .select('id_token')
        .executeTakeFirstOrThrow();
      expect(sealed!.length).toBeGreaterThan(idToken.length);
      // The token of another session does not open it.
      const other = await open('a').open(ofIssuer);
      await database.db
        .updateTable('session')
        .set({ id_token: sealed })
        .where('id_token', 'is', null)
        .execute();
      expect(await open('a').close(other)).toEqual({ kind: 'oidc', idToken: undefined });
      expect(await open('a').close(token)).toEqual({ kind: 'oidc', idToken });
      expect(await open('a').close(token)).toBeUndefined();
      expect(await open().close((await keySession()).token)).toEqual({ kind: 'key' });
    });

    it('find() ends a session idle for 8 h, but keeps a used one', async () => {
      const { token } = await keySession();
      for (let hours = 7; hours <= 49; hours += 7) {
        clock += 7 * 60 * minute;
        expect(await open().find(token)).toBeDefined();
      }
      clock += idleMs - 1;
      expect(await open().find(token)).toBeDefined();
      clock += idleMs;
      expect(await open().find(token)).toBeUndefined();
    });

    it('find() ends sessions in use: of keys after 7 days, issuers after one', async () => {
      const { token } = await keySession();
      const oidc = open('basis');
      const other = await oidc.open({ owner: 'oidc:i|s', label: 'Ada', basis: 'basis', scopes: ['predict'] });
      const started = clock;
      let otherEnded: number | undefined;
      for (; clock < started + keySessionMs; clock += 60 * minute) {
        expect(await oidc.find(token)).toBeDefined();
        if (!(await oidc.find(other))) otherEnded ??= clock;
      }
      expect(otherEnded).toBe(started + oidcSessionMs);
      expect(await oidc.find(token)).toBeUndefined();
    });

    it('find() ends a session when its key is revoked, expired or deleted', async () => {
      const first = await keySession();
      await revokeKey(database.db, first.key.id, clock);
      expect(await open().find(first.token)).toBeUndefined();

      const expiresTime = new Date(clock + minute);
      const key = await createKey(database.db, { label: 'short', scopes: ['predict'], expiresTime }, clock);
      const token = await open().open({ owner: `key:${key.id}`, label: 'short', keyId: key.id });
      expect((await open().find(token))?.expiresTime).toBe(expiresTime.toISOString());
      clock += minute;
      expect(await open().find(token)).toBeUndefined();

      const third = await keySession();
      await database.db.deleteFrom('api_key').execute();
      expect(await open().find(third.token)).toBeUndefined();
    });

    it('find() ends an issuer’s sessions when its settings change or vanish', async () => {
      const token = await open('a').open({
        owner: 'oidc:i|s',
        label: 'Ada',
        basis: 'a',
        scopes: ['predict'],
      });
      expect((await open('a').find(token))?.principal).toEqual({
        owner: 'oidc:i|s',
        scopes: ['predict'],
        via: 'session',
      });
      expect(await open('b').find(token)).toBeUndefined();
      expect(await open().find(token)).toBeUndefined();
    });

    it('open() keeps an owner’s 20 most recently used sessions, and all others’', async () => {
      const other = await keySession();
      const key = await createKey(database.db, { label: 'many', scopes: ['predict'] }, clock);
      const tokens: string[] = [];
      for (let i = 0; i < maxSessionsPerOwner; i++) {
        clock += minute;
        tokens.push(await open().open({ owner: `key:${key.id}`, label: 'many', keyId: key.id }));
      }
      clock += 2 * minute;
      await open().find(tokens[0]);
      tokens.push(await open().open({ owner: `key:${key.id}`, label: 'many', keyId: key.id }));
      const alive = await Promise.all(tokens.map((token) => open().find(token)));
      expect(alive.map((session) => session !== undefined)).toEqual(tokens.map((_, i) => i !== 1));
      expect(await open().find(other.token)).toBeDefined();
    });

    it('open() keeps the limit when many are opened at once', async () => {
      const ofIssuer = { owner: 'oidc:i|s', label: 'Ada', scopes: ['predict'], basis: 'a' } as const;
      // Each, as a login does, in a transaction that other work follows in.
      const { transaction } = database as unknown as Database<SessionSchema & KeySchema>;
      const login = () =>
        transaction(async (trx) => {
          await open('a').open(ofIssuer, trx);
          await sql`SELECT count(*) FROM session`.execute(trx);
        });
      await Promise.all(Array.from({ length: maxSessionsPerOwner + 5 }, login));
      expect(await count()).toBe(maxSessionsPerOwner);
      await Promise.all(Array.from({ length: 5 }, () => open('a').open(ofIssuer)));
      expect(await count()).toBe(maxSessionsPerOwner);
    });

    it('close() ends one session, and sweep() deletes all that have ended', async () => {
      const { token } = await keySession();
      const { token: second, key } = await keySession();
      await open().close(token);
      await open().close('nothing');
      expect(await open().find(token)).toBeUndefined();
      expect(await open().find(second)).toBeDefined();
      const ofIssuer = { owner: 'oidc:i|s', label: 'Ada', scopes: ['predict'] } as const;
      await open('a').open({ ...ofIssuer, basis: 'a' });
      await open('b').open({ ...ofIssuer, basis: 'b' });
      await open('b').sweep();
      expect(await count()).toBe(2);
      await revokeKey(database.db, key.id, clock);
      await open('b').sweep();
      expect(await count()).toBe(1);
      clock += idleMs;
      await open('b').sweep();
      expect(await count()).toBe(0);
    });
  });
});
