import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { openServerDatabase } from '../../src/store/database/server-database.ts';
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
  const folder = resolve(dataFolder);
  const known = databases.get(folder) ?? started.database();
  databases.set(folder, known);
  return known;
}

/** The same, if a server of the data folder has asked for it: others work on the folder alone. */
export async function knownDatabaseOf(dataFolder: string): Promise<string | undefined> {
  return databases.get(resolve(dataFolder));
}

/** The text of the audit log of a server's data folder, in either database. */
export async function readAudit(dataFolder: string): Promise<string> {
  const url = await knownDatabaseOf(dataFolder);
  if (url === undefined) return readFile(join(dataFolder, 'audit.jsonl'), 'utf8');
  await using database = await openServerDatabase(dataFolder, url);
  const rows = await database.db.selectFrom('audit_line').select('line').orderBy('sequence').execute();
  return rows.map(({ line }) => `${line}\n`).join('');
}

/** With TOMAAT_TEST_DATABASE=postgres the options of a server on it; files are deleted soon after nothing refers to them. */
export async function sharedOptions(dataFolder: string) {
  if (!onPostgres) return {};
  return { database: await databaseOf(dataFolder), deleteAfterMs: 0, sweepMs: 500 };
}

/** Commands that make what is in a database; others find what a server made. */
const makers = ['erase', 'gateway', 'keys', 'registry', 'serve', 'up'];

/** With TOMAAT_TEST_DATABASE=postgres the variable with which a command finds the database of its `--data`. */
export async function databaseEnv(args: readonly string[]): Promise<{ TOMAAT_DATABASE?: string }> {
  const folder = args[args.indexOf('--data') + 1];
  if (!onPostgres || !args.includes('--data') || args.includes('--database')) return {};
  if (!makers.includes(args[0]) && !databases.has(resolve(folder))) return {};
  return { TOMAAT_DATABASE: await databaseOf(folder) };
}
