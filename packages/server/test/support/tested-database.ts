import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { openServerDatabase } from '../../src/store/database/server-database.ts';
import { postgresBin, startPostgres, type TestPostgres } from './postgres.ts';

const run = promisify(execFile);

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

/** All that the database of a data folder holds, to be searched: its files, or what PostgreSQL writes of its tables. */
export async function databaseBytes(
  dataFolder: string,
  file: 'server.db' | 'registry.db' = 'server.db',
): Promise<Buffer> {
  const url = await knownDatabaseOf(dataFolder);
  if (url === undefined) {
    const names = (await readdir(dataFolder)).filter((name) => name.startsWith(file));
    return Buffer.concat(await Promise.all(names.map((name) => readFile(join(dataFolder, name)))));
  }
  const { stdout: text } = await run(join(postgresBin!, 'pg_dump'), ['--dbname', url], {
    maxBuffer: 2 ** 28,
  });
  // Columns of bytes are written in hexadecimal.
  const columns = [...text.matchAll(/\\\\x([0-9a-f]+)/g)].map(([, digits]) => Buffer.from(digits, 'hex'));
  return Buffer.concat([Buffer.from(text), ...columns]);
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
