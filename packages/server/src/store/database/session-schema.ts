import { sql } from 'kysely';
import type { Migration } from './database.ts';

/** The table of browser sessions, in the database of a server and of a registry; see `access/sessions.ts`. */

export interface SessionTable {
  /** SHA-256 of the token. */
  hash: Uint8Array;
  owner: string;
  /** The name of the user on the page (a key's label, or the name from the issuer), sealed with the session's token. */
  label: string;
  /** The scopes of a session opened through the issuer; a session opened with a key has the key's. */
  scopes: string;
  key_id: string | null;
  /** The digest of the OIDC settings when it was opened: it ends when they change. */
  basis: string | null;
  created_ms: number;
  used_ms: number;
  expires_ms: number;
  /** The issuer's ID token, sealed with the session's token; see `seal()`. */
  id_token: Uint8Array | null;
}

/** Logins through an issuer that have begun at one of several servers with one database; see `access/begun-logins.ts`. */
export interface BegunLoginTable {
  /** SHA-256 of the token in the browser's cookie. */
  hash: Uint8Array;
  /** What the login needs when the browser returns, sealed with the token. */
  sealed: string;
  expires_ms: number;
}

export interface SessionSchema {
  session: SessionTable;
  begun_login: BegunLoginTable;
}

/** For any database that holds keys, after its existing migrations. */
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

/** Later migrations of any database that holds sessions; they follow all earlier ones. */
export const sessionLogoutMigrations: readonly Migration[] = [
  {
    name: 'id token of sessions',
    async up(db) {
      await sql`ALTER TABLE session ADD COLUMN id_token BLOB`.execute(db);
    },
  },
];

/** For the databases that several servers may share. */
export const begunLoginMigrations: readonly Migration[] = [
  {
    name: 'begun logins',
    async up(db) {
      await sql`CREATE TABLE begun_login (
        hash BLOB PRIMARY KEY, sealed TEXT NOT NULL, expires_ms INTEGER NOT NULL) STRICT`.execute(db);
      await sql`CREATE INDEX begun_login_expiry ON begun_login (expires_ms)`.execute(db);
    },
  },
];
