import { sql } from 'kysely';
import type { Migration } from './database.ts';

/** The table of API keys, in the database of a server and of a registry; `access/keys.ts` reads and writes it. */

export interface KeyTable {
  id: string;
  hash: Uint8Array;
  label: string;
  scopes: string;
  /** `program`: created by `renewProgramKey()` for use on this machine; otherwise by an operator. */
  made_by: 'operator' | 'program';
  created_ms: number;
  expires_ms: number | null;
  revoked_ms: number | null;
  max_jobs: number | null;
  per_day: number | null;
}

export interface KeySchema {
  api_key: KeyTable;
}

/** The first migrations of any database that holds keys. */
export const keyMigrations: readonly Migration[] = [
  {
    name: 'keys',
    async up(db) {
      await sql`CREATE TABLE api_key (
        id TEXT PRIMARY KEY,
        hash BLOB NOT NULL,
        label TEXT NOT NULL,
        scopes TEXT NOT NULL,
        made_by TEXT NOT NULL CHECK (made_by IN ('operator', 'program')),
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER,
        revoked_ms INTEGER
      ) STRICT`.execute(db);
    },
  },
];

/** Later migrations of any database that holds keys; they follow all earlier ones. */
export const keyLimitMigrations: readonly Migration[] = [
  {
    name: 'key limits',
    async up(db) {
      await sql`ALTER TABLE api_key ADD COLUMN max_jobs INTEGER`.execute(db);
      await sql`ALTER TABLE api_key ADD COLUMN per_day INTEGER`.execute(db);
    },
  },
];
