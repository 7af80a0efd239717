import { randomBytes } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import type { Migration } from '../store/database.ts';
import { findKeyById, hashOf, type KeySchema, type KeyScope } from './keys.ts';
import { type Principal, principalOf } from './principal.ts';

/**
 * Browser sessions. A session is a random token of 256 bits in a cookie; the table keeps its SHA-256 alone, so that a
 * copy of the database opens nothing. One that was opened with an API key may do what the key may, for as long as the key may.
 */

export interface SessionTable {
  /** SHA-256 of the token. */
  hash: Uint8Array;
  owner: string;
  /** What the page calls its user: a key's label, or the name that the issuer tells. */
  label: string;
  /** Of a session that the issuer's word opened; one of a key has the key's. */
  scopes: string;
  key_id: string | null;
  /** The digest of the OIDC settings under which it was opened: when they change, it ends. */
  basis: string | null;
  created_ms: number;
  used_ms: number;
  expires_ms: number;
}

export interface SessionSchema {
  session: SessionTable;
}

/** For any database that holds keys, after the migrations that it has. */
export const sessionMigrations: readonly Migration[] = [
  {
    name: 'sessions',
    async up(db) {
      await sql`CREATE TABLE session (
        hash BLOB PRIMARY KEY,
        owner TEXT NOT NULL,
        label TEXT NOT NULL,
        scopes TEXT NOT NULL,
        key_id TEXT,
        basis TEXT,
        created_ms INTEGER NOT NULL,
        used_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        CHECK ((key_id IS NULL) <> (basis IS NULL))
      ) STRICT`.execute(db);
      await sql`CREATE INDEX session_owner ON session (owner, used_ms)`.execute(db);
    },
  },
];

/** A session that nobody uses ends after this time. */
export const idleMs = 8 * 3_600_000;
/** A session of a key ends after this time, however much it is used. */
export const keySessionMs = 7 * 86_400_000;
/** The same for one of an issuer, which may have closed the account since. */
export const oidcSessionMs = 86_400_000;
export const maxSessionsPerOwner = 20;
/** Not every request writes to the disk that the session was used. */
const touchEveryMs = 60_000;

export interface Session {
  readonly principal: Principal;
  readonly label: string;
  /** When it ends even if it is used. */
  readonly expiresTime: string;
}

export type NewSession = { readonly label: string; readonly owner: string } & (
  | { readonly keyId: string }
  | { readonly basis: string; readonly scopes: readonly KeyScope[] }
);

export interface Sessions {
  /** Opens a session and gives its token, which appears here alone. The owner's least used one beyond the limit ends. */
  open(session: NewSession): Promise<string>;
  /** The session of a token, if it is one that goes on. */
  find(token: string): Promise<Session | undefined>;
  /** Ends a session; nothing there is fine. */
  close(token: string): Promise<void>;
  /** Deletes what has ended. */
  sweep(): Promise<void>;
}

export interface SessionsOptions {
  readonly db: Kysely<SessionSchema & KeySchema>;
  /** The digest of today's OIDC settings; missing: sessions of an issuer have ended. */
  readonly basis?: string;
  readonly now?: () => number;
}

const tokenForm = /^[A-Za-z0-9_-]{43}$/;

export function createSessions({ db, basis, now = Date.now }: SessionsOptions): Sessions {
  return {
    async open(session) {
      const token = randomBytes(32).toString('base64url');
      const time = now();
      const ofKey = 'keyId' in session;
      const row: SessionTable = {
        hash: hashOf(token),
        owner: session.owner,
        label: session.label,
        scopes: ofKey ? '' : session.scopes.join(','),
        key_id: ofKey ? session.keyId : null,
        basis: ofKey ? null : session.basis,
        created_ms: time,
        used_ms: time,
        expires_ms: time + (ofKey ? keySessionMs : oidcSessionMs),
      };
      await sql`DELETE FROM session WHERE hash IN (
        SELECT hash FROM session WHERE owner = ${session.owner}
        ORDER BY used_ms DESC, created_ms DESC LIMIT -1 OFFSET ${maxSessionsPerOwner - 1})`.execute(db);
      await db.insertInto('session').values(row).execute();
      return token;
    },

    async find(token) {
      if (!tokenForm.test(token)) return undefined;
      const hash = hashOf(token);
      const row = await db.selectFrom('session').selectAll().where('hash', '=', hash).executeTakeFirst();
      const time = now();
      if (!row || time >= row.expires_ms || time >= row.used_ms + idleMs) return undefined;
      const key = row.key_id === null ? undefined : await findKeyById(db, row.key_id, time);
      if (row.key_id === null ? row.basis !== basis : key === undefined) return undefined;
      if (time - row.used_ms >= touchEveryMs) {
        await db.updateTable('session').set({ used_ms: time }).where('hash', '=', hash).execute();
      }
      const endsMs = Math.min(
        row.expires_ms,
        key?.expiresTime ? Date.parse(key.expiresTime) : row.expires_ms,
      );
      return {
        principal: key
          ? principalOf(key, 'session')
          : { owner: row.owner, scopes: row.scopes.split(',') as KeyScope[], via: 'session' },
        label: row.label,
        expiresTime: new Date(endsMs).toISOString(),
      };
    },

    async close(token) {
      if (tokenForm.test(token)) await db.deleteFrom('session').where('hash', '=', hashOf(token)).execute();
    },

    async sweep() {
      const time = now();
      await sql`DELETE FROM session WHERE expires_ms <= ${time} OR used_ms <= ${time - idleMs}
        OR (key_id IS NULL AND basis IS NOT ${basis ?? null})
        OR (key_id IS NOT NULL AND key_id NOT IN (
          SELECT id FROM api_key WHERE revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ${time})))`.execute(
        db,
      );
    },
  };
}
