import { startPostgres, type TestPostgres } from './postgres.ts';

let postgres: Promise<TestPostgres> | undefined;
const databases = new Map<string, Promise<string>>();

/**
 * With TOMAAT_TEST_DATABASE=postgres: the address of the database of the servers and registries of one data folder; undefined otherwise. Its
 * PostgreSQL ends with the process.
 */
export async function wantedDatabase(dataFolder: string): Promise<string | undefined> {
  if (process.env.TOMAAT_TEST_DATABASE !== 'postgres') return undefined;
  postgres ??= startPostgres();
  const started = await postgres;
  const known = databases.get(dataFolder) ?? started.database();
  databases.set(dataFolder, known);
  return known;
}
