import { chmodSync, existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { TomaatError } from '@tomaat/core';

/** Copies the databases of a data folder and makes the copies consistent with the copied files. */

/**
 * Writes a database as it is at one moment into a new file, while others read and write it
 * (https://sqlite.org/lang_vacuum.html#vacuuminto). Deleted rows are not in the copy.
 */
export function copyDatabase(file: string, to: string): void {
  using source = open(file);
  source.db.prepare('VACUUM INTO ?').run(to);
  chmodSync(to, 0o600);
}

/** What is wrong with a database; undefined if it is sound. */
export function faultOf(file: string): string | undefined {
  using copy = open(file);
  const [row] = copy.db.prepare('PRAGMA integrity_check(1)').all() as { integrity_check: string }[];
  return row.integrity_check === 'ok' ? undefined : row.integrity_check;
}

/** The digests that rows of a server's database refer to: hexadecimal, of outputs, inputs and complete uploads. */
export function referencedDigests(file: string): Set<string> {
  using copy = open(file);
  const rows = copy.db
    .prepare(
      'SELECT digest FROM job_output UNION SELECT digest FROM job_input UNION SELECT digest FROM upload WHERE digest IS NOT NULL',
    )
    .all() as { digest: string }[];
  return new Set(rows.map(({ digest }) => digest.replace('sha256:', '')));
}

/** Deletes the blobs of a folder that its database does not refer to. */
export async function removeUnreferenced(folder: string): Promise<void> {
  const blobs = join(folder, 'blobs', 'sha256');
  if (!existsSync(blobs)) return;
  const wanted = referencedDigests(join(folder, 'server.db'));
  for (const name of await readdir(blobs)) if (!wanted.has(name)) await rm(join(blobs, name));
}

/** What happened to rows whose files are missing. */
export interface Settled {
  /** Jobs left out because their results are missing. */
  removed: number;
  /** Unfinished jobs that failed because their inputs are missing. */
  failed: number;
}

const goneMessage = 'Its input was deleted while a backup was being made. Send the prediction again.';
/** How long such a job is kept. */
const failedForMs = 3_600_000;

/** Removes rows whose files are missing, and incomplete uploads, from a server's database. */
export function settleMissing(file: string, has: (sha256: string) => boolean, now = Date.now()): Settled {
  using copy = open(file);
  const { db } = copy;
  const missing = [...referencedDigests(file)]
    .filter((sha256) => !has(sha256))
    .map((sha256) => `sha256:${sha256}`);
  db.exec('PRAGMA secure_delete = ON; BEGIN');
  db.exec('CREATE TEMP TABLE gone (digest TEXT PRIMARY KEY)');
  const insert = db.prepare('INSERT INTO gone VALUES (?)');
  for (const digest of missing) insert.run(digest);
  const removed = db
    .prepare('DELETE FROM job WHERE id IN (SELECT job FROM job_output WHERE digest IN gone)')
    .run();
  const failed = db
    .prepare(
      `UPDATE job SET state = 'failed', settled_ms = ?, expires_ms = ?, worker = NULL, error = ?
       WHERE state IN ('queued', 'running') AND id IN (SELECT job FROM job_input WHERE digest IN gone)`,
    )
    .run(now, now + failedForMs, JSON.stringify({ code: 'WORKER_DIED', message: goneMessage }));
  db.exec(`DELETE FROM job_input WHERE job IN (SELECT id FROM job WHERE state NOT IN ('queued', 'running'))`);
  db.exec('DELETE FROM upload WHERE digest IS NULL OR digest IN gone');
  db.exec('DROP TABLE gone; COMMIT');
  return { removed: Number(removed.changes), failed: Number(failed.changes) };
}

/** Removes all jobs and uploads from a server's database. */
export function removeJobs(file: string): void {
  using copy = open(file);
  copy.db.exec(
    'PRAGMA secure_delete = ON; BEGIN; DELETE FROM job; DELETE FROM upload; DELETE FROM created_on; COMMIT; VACUUM',
  );
}

/** What a gateway's database holds besides series. */
const notSeries = ['api_key', 'session', 'tomaat_migration'];

/** Removes all series from a gateway's database. */
export function removeSeries(file: string): void {
  using copy = open(file);
  const { db } = copy;
  const tables = db
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    .all();
  db.exec('PRAGMA secure_delete = ON; PRAGMA foreign_keys = OFF; BEGIN');
  for (const { name } of tables as { name: string }[])
    if (!notSeries.includes(name)) db.exec(`DELETE FROM "${name.replaceAll('"', '""')}"`);
  db.exec('COMMIT; VACUUM');
}

/** The number of jobs and results in a server's database. */
export function countJobs(file: string): { jobs: number; results: number } {
  using copy = open(file);
  const count = (table: string) =>
    Number((copy.db.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n);
  return { jobs: count('job'), results: count('job_output') };
}

/** Synchronises the keys of databases that were copied one after the other: a key created in between ends up in all. */
export function unifyKeys(files: readonly string[]): void {
  for (const [at, file] of files.entries()) for (const other of files.slice(at + 1)) unifyTwo(file, other);
}

function unifyTwo(file: string, other: string): void {
  if (!existsSync(file) || !existsSync(other)) return;
  using copy = open(file);
  const { db } = copy;
  db.prepare('ATTACH ? AS other').run(other);
  const columns = (schema: string) =>
    JSON.stringify(db.prepare(`PRAGMA ${schema}.table_info(api_key)`).all());
  // One of the two was not opened since an upgrade.
  if (columns('main') !== columns('other')) return;
  db.exec(`BEGIN;
    INSERT OR IGNORE INTO main.api_key SELECT * FROM other.api_key;
    INSERT OR IGNORE INTO other.api_key SELECT * FROM main.api_key;
    UPDATE main.api_key SET revoked_ms = (SELECT o.revoked_ms FROM other.api_key o WHERE o.id = main.api_key.id) WHERE revoked_ms IS NULL;
    UPDATE other.api_key SET revoked_ms = (SELECT m.revoked_ms FROM main.api_key m WHERE m.id = other.api_key.id) WHERE revoked_ms IS NULL;
    COMMIT; DETACH other`);
}

function open(file: string): Disposable & { db: DatabaseSync } {
  try {
    const db = new DatabaseSync(file, { timeout: 10_000, enableForeignKeyConstraints: true });
    return { db, [Symbol.dispose]: () => db.close() };
  } catch (error) {
    throw new TomaatError('INTERNAL', `${file} cannot be opened. It is damaged, or not a database`, {
      cause: error,
    });
  }
}
