import { type Kysely, sql } from 'kysely';
import type { Migration } from './database.ts';

/** What is the same at all servers of a database, by name; see `access/deployment.ts`. */
export interface DeploymentSchema {
  deployment: { name: string; value: string };
}

export const deploymentMigrations: readonly Migration[] = [
  {
    name: 'deployment',
    async up(db: Kysely<unknown>) {
      await sql`CREATE TABLE deployment (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT`.execute(db);
    },
  },
];
