import { type Database, type Migration, openDatabase } from './database.ts';
import type { PostgresLocation } from './postgres.ts';

/** The path of an SQLite file, or a PostgreSQL database. */
export type DatabaseLocation = string | PostgresLocation;

/** Opens a database and brings its schema up to date; throws as `openDatabase()` and `openPostgres()` do. */
export async function openDatabaseAt<Schema>(
  location: DatabaseLocation,
  migrations: readonly Migration[],
): Promise<Database<Schema>> {
  if (typeof location === 'string') return openDatabase<Schema>(location, migrations);
  // The client of PostgreSQL is loaded only where it is asked for.
  const { openPostgres } = await import('./postgres.ts');
  return openPostgres<Schema>(location, migrations);
}
