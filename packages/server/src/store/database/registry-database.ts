import { join } from 'node:path';
import { sql } from 'kysely';
import type { Database, Migration } from './database.ts';
import { openDatabaseAt } from './database-at.ts';
import { type DeploymentSchema, deploymentMigrations } from './deployment-schema.ts';
import { type KeySchema, keyLimitMigrations, keyMigrations } from './key-schema.ts';
import { requireNotMoved } from './moved.ts';
import {
  begunLoginMigrations,
  type SessionSchema,
  sessionLogoutMigrations,
  sessionMigrations,
} from './session-schema.ts';

/** The registry's database: entries, keys and browser sessions. */

export interface EntryTable {
  sid: string;
  key_id: string;
  /** The id of an announcement of our API; null for v1. */
  id: string | null;
  /** The announcement as signed by its server. */
  signed: string | null;
  face: 'api' | 'v1';
  name: string;
  modality: string;
  anatomy: string;
  task: string;
  description: string;
  /** The names as slugs: addresses and filters are compared with them. */
  modality_slug: string;
  anatomy_slug: string;
  task_slug: string;
  /** Name and description in lower case, for the search. */
  words: string;
  prediction_url: string;
  interface_url: string;
  server_url: string | null;
  service_id: string | null;
  version: string | null;
  is_default: number;
  volumes: number | null;
  first_ms: number;
  announced_ms: number;
  expires_ms: number;
}
/** The last announcement under an id, kept as long as a copy of it could be accepted as new, with or without an entry. */
interface AnnouncedTable {
  id: string;
  thumbprint: string;
  epoch: number;
  announced_ms: number;
}

export interface RegistrySchema extends KeySchema, SessionSchema, DeploymentSchema {
  entry: EntryTable;
  announced: AnnouncedTable;
}

/** New steps are only added at the end. */
export const registryMigrations: readonly Migration[] = [
  ...keyMigrations,
  {
    name: 'entries',
    async up(db) {
      await sql`CREATE TABLE entry (
        sid TEXT PRIMARY KEY,
        key_id TEXT NOT NULL,
        id TEXT UNIQUE,
        face TEXT NOT NULL CHECK (face IN ('api', 'v1')),
        name TEXT NOT NULL,
        modality TEXT NOT NULL,
        anatomy TEXT NOT NULL,
        task TEXT NOT NULL,
        description TEXT NOT NULL,
        modality_slug TEXT NOT NULL,
        anatomy_slug TEXT NOT NULL,
        task_slug TEXT NOT NULL,
        words TEXT NOT NULL,
        prediction_url TEXT NOT NULL,
        interface_url TEXT NOT NULL,
        server_url TEXT,
        service_id TEXT,
        version TEXT,
        is_default INTEGER NOT NULL,
        volumes INTEGER,
        first_ms INTEGER NOT NULL,
        announced_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        UNIQUE (key_id, prediction_url)
      ) STRICT`.execute(db);
      await sql`CREATE INDEX entry_address ON entry (task_slug, anatomy_slug)`.execute(db);
      await sql`CREATE INDEX entry_expiry ON entry (expires_ms)`.execute(db);
    },
  },
  ...keyLimitMigrations,
  ...sessionMigrations,
  {
    name: 'signed announcements',
    async up(db) {
      // Unsigned announcements are repeated within 30 s, with a signature.
      await sql`DELETE FROM entry WHERE face = 'api'`.execute(db);
      await sql`ALTER TABLE entry ADD COLUMN signed TEXT`.execute(db);
      await sql`CREATE TABLE announced (
        id TEXT PRIMARY KEY,
        thumbprint TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        announced_ms INTEGER NOT NULL
      ) STRICT`.execute(db);
      await sql`CREATE INDEX announced_time ON announced (announced_ms)`.execute(db);
    },
  },
  ...sessionLogoutMigrations,
  ...begunLoginMigrations,
  ...deploymentMigrations,
];

/** Where the tables of several registries are. */
export const registrySchema = 'tomaat_registry';

export const registryDatabaseFile = (dataFolder: string): string => join(dataFolder, 'registry.db');

/**
 * Opens the database of a data folder, or the one in the PostgreSQL database `shared` of several registries.
 * @throws TomaatError CONFLICT if what is in the folder was moved
 */
export async function openRegistryDatabase(
  dataFolder: string,
  shared?: string,
): Promise<Database<RegistrySchema>> {
  if (shared !== undefined)
    return openDatabaseAt<RegistrySchema>({ url: shared, schema: registrySchema }, registryMigrations);
  requireNotMoved(dataFolder);
  return openDatabaseAt<RegistrySchema>(registryDatabaseFile(dataFolder), registryMigrations);
}
