import { type Database, type Migration, openDatabase } from './database.ts';

/** A PostgreSQL database that several servers share. */
export interface PostgresLocation {
  /** `postgres://user:password@host:port/database?sslmode=…` */
  readonly url: string;
  /** Where its tables are; it is created if it does not exist. */
  readonly schema: string;
}

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
