import { type Kysely, sql } from 'kysely';
import { lockAlone } from '../store/database/locks.ts';
import type { SessionSchema } from '../store/database/session-schema.ts';
import { hashOf } from './keys.ts';
import { sealText, unsealText } from './seal.ts';

/** Logins that browsers have begun and not finished, by the token in the browser's cookie. */

export interface BegunLogin {
  readonly state: string;
  readonly nonce: string;
  readonly codeVerifier: string;
  readonly redirectUri: string;
  readonly returnTo: string;
  readonly expiresMs: number;
}

export interface BegunLogins {
  /** Keeps a login, and forgets those that have expired; beyond the limit the oldest is dropped. */
  add(token: string, login: BegunLogin): Promise<void>;
  find(token: string): Promise<BegunLogin | undefined>;
  /** The same, and removes it: it is given once. */
  take(token: string): Promise<BegunLogin | undefined>;
}

const maxBegun = 10_000;

/** In the memory of this process. */
export function rememberLogins(now: () => number, limit = maxBegun): BegunLogins {
  const begun = new Map<string, BegunLogin>();
  const keyOf = (token: string) => Buffer.from(hashOf(token)).toString('base64url');
  const valid = (login: BegunLogin | undefined) => (login && login.expiresMs > now() ? login : undefined);
  return {
    async add(token, login) {
      for (const [key, { expiresMs }] of begun) {
        if (expiresMs > now() && begun.size < limit) break;
        begun.delete(key);
      }
      begun.set(keyOf(token), login);
    },
    find: async (token) => valid(begun.get(keyOf(token))),
    async take(token) {
      const found = begun.get(keyOf(token));
      begun.delete(keyOf(token));
      return valid(found);
    },
  };
}

/**
 * In the database, for servers that share one: a login may end at another of them than where it began. A row is sealed with the
 * token, of which the database has only the SHA-256.
 */
export function storeLogins(db: Kysely<SessionSchema>, now: () => number, limit = maxBegun): BegunLogins {
  const open = (row: { sealed: string } | undefined, token: string): BegunLogin | undefined => {
    const text = row && unsealText(row.sealed, token);
    return text === undefined ? undefined : (JSON.parse(text) as BegunLogin);
  };
  return {
    async add(token, login) {
      const row = {
        hash: hashOf(token),
        sealed: sealText(JSON.stringify(login), token),
        expires_ms: login.expiresMs,
      };
      await db.transaction().execute(async (trx) => {
        await lockAlone(trx, 'begunLogins');
        await trx.deleteFrom('begun_login').where('expires_ms', '<=', now()).execute();
        await sql`DELETE FROM begun_login WHERE hash IN (
          SELECT hash FROM begun_login ORDER BY expires_ms DESC LIMIT 1000000 OFFSET ${limit - 1})`.execute(
          trx,
        );
        await trx.insertInto('begun_login').values(row).execute();
      });
    },
    async find(token) {
      const row = await db
        .selectFrom('begun_login')
        .select('sealed')
        .where('hash', '=', hashOf(token))
        .where('expires_ms', '>', now())
        .executeTakeFirst();
      return open(row, token);
    },
    async take(token) {
      const row = await db
        .deleteFrom('begun_login')
        .where('hash', '=', hashOf(token))
        .returning(['sealed', 'expires_ms'])
        .executeTakeFirst();
      return row && row.expires_ms > now() ? open(row, token) : undefined;
    },
  };
}
