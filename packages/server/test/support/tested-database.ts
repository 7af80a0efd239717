import { startPostgres, type TestPostgres } from './postgres.ts';

/** Whether the servers of all tests store their data in PostgreSQL. */
export const onPostgres = process.env.TOMAAT_TEST_DATABASE === 'postgres';

let postgres: Promise<TestPostgres> | undefined;
const databases = new Map<string, Promise<string>>();

/** With TOMAAT_TEST_DATABASE=postgres the address of the database of a data folder, which is created when it is first asked for. */
export async function databaseOf(dataFolder: string): Promise<string | undefined> {
  if (!onPostgres) return undefined;
  postgres ??= startPostgres();
  const started = await postgres;
  const known = databases.get(dataFolder) ?? started.database();
  databases.set(dataFolder, known);
  return known;
}
