import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import { markMovedAway } from '../access/deployment.ts';
import { leaveForAudit } from '../audit/pending.ts';
import { openBlobs } from '../store/blobs/blobs.ts';
import type { AuditSchema } from '../store/database/audit-schema.ts';
import { lockDataFolder } from '../store/database/database.ts';
import { movedTo } from '../store/database/moved.ts';
import { openRegistryDatabase, registryDatabaseFile } from '../store/database/registry-database.ts';
import { openServerDatabase, serverDatabaseFile } from '../store/database/server-database.ts';
import { syncFolder } from '../store/files/disk.ts';
import { continueAuditFiles } from './audit-lines.ts';
import { copyBlobs, joinUploads, referencedBlobs } from './files.ts';
import {
  anyTables,
  checkKeys,
  type Migrated,
  type MigrateOptions,
  ofRegistry,
  openPlace,
  openUnused,
  ownBlobs,
} from './places.ts';
import {
  type AnyTables,
  type CopyOf,
  type CopyReport,
  copyTables,
  queuedAgain,
  type Row,
  tablesToCopy,
} from './rows.ts';
import { removeMark } from './to-shared.ts';

/** What is built before it takes its place in the data folder. */
const stageName = 'migrate.part';

/**
 * Moves what is in a shared database and store of files to a data folder that has the keys of its servers, and no data of its own (or those
 * that were moved away). The database takes its place in the folder last: if this is interrupted, it can be repeated. The shared
 * database keeps what it had, and is marked, so that no server begins to work on it again by mistake.
 *
 * @throws TomaatError CONFLICT if servers use the database, or the folder is in use, has data of its own or other keys, and what opening the
 *   database and the store throws
 */
export async function migrateToFolder(options: MigrateOptions): Promise<Migrated> {
  const { dataFolder, database: url, signal, onProgress } = options;
  requireKeys(dataFolder);
  await using opened = new AsyncDisposableStack();
  opened.use(lockDataFolder(dataFolder));
  requireNoData(dataFolder);
  const shared = opened.use(await openUnused(dataFolder, url));
  await checkKeys(shared, options);
  const place = options.blobs ?? ownBlobs(dataFolder);
  const to = opened.use(await openBlobs(ownBlobs(dataFolder)));
  const from = place === ownBlobs(dataFolder) ? to : opened.use(await openPlace(place, dataFolder));
  const refs = await referencedBlobs(anyTables(shared));
  const copied = await copyBlobs(from, to, refs, {
    signal,
    onFile: (done) => onProgress('files', done, refs.length),
  });
  const stage = join(dataFolder, stageName);
  await rm(stage, { recursive: true, force: true });
  await mkdir(stage, { mode: 0o700 });
  // Its tables are made by opening it, where no registry has.
  await (await openRegistryDatabase(dataFolder, url)).close();
  const tables = await buildDatabases(anyTables(shared), stage, options);
  const uploads = await joinUploads(shared.db, from, join(stage, 'uploads'), signal);
  const auditLines = await continueAuditFiles(shared.db as unknown as Kysely<AuditSchema>, dataFolder);
  signal.throwIfAborted();
  await markMovedAway(shared.db as never, dataFolder);
  await publish(stage, dataFolder);
  await leaveForAudit(dataFolder, 'data.moved', { outcome: 'data folder' });
  return { tables, ...copied, uploads, auditLines };
}

export function requireKeys(dataFolder: string): void {
  const missing = ['identity.key', 'pseudonym.key'].filter((name) => !existsSync(join(dataFolder, name)));
  if (missing.length === 0) return;
  throw new TomaatError(
    'NOT_FOUND',
    `${dataFolder} has no ${missing.join(' and no ')}. Copy identity.key, pseudonym.key and, if there is one, uid.key from the data folder of one of the servers first.`,
    { field: 'data' },
  );
}

export function requireNoData(dataFolder: string): void {
  if (!existsSync(serverDatabaseFile(dataFolder)) || movedTo(dataFolder)) return;
  throw new TomaatError(
    'CONFLICT',
    `${dataFolder} has data of its own. Give a folder that has the keys of the servers and no server.db.`,
    { field: 'data' },
  );
}

/** SQLite keeps the order in which jobs are inserted. */
const alone: CopyOf = ({ name }) =>
  name === 'job'
    ? {
        orderBy: ['created_ms', 'arrival', 'id'],
        change: (row: Row) => ({ ...queuedAgain(row), arrival: 0 }),
      }
    : {};

async function buildDatabases(
  shared: Kysely<AnyTables>,
  stage: string,
  report: CopyReport,
): Promise<Record<string, number>> {
  const registry = await openRegistryDatabase(stage);
  const server = await openServerDatabase(stage);
  const rows: Record<string, number>[] = [];
  for (const [own, from] of [
    [registry, ofRegistry(shared)],
    [server, shared],
  ] as const) {
    await using closed = own;
    const tables = await tablesToCopy(anyTables(closed));
    rows.push(await copyTables(from, anyTables(closed), tables, { ...report, copyOf: alone }));
    await closed.truncateWal();
  }
  return { ...rows[0], ...rows[1] };
}

/** The database last: with it the folder is whole. */
async function publish(stage: string, dataFolder: string): Promise<void> {
  await rm(join(dataFolder, 'uploads'), { recursive: true, force: true });
  await rename(join(stage, 'uploads'), join(dataFolder, 'uploads'));
  for (const file of [registryDatabaseFile, serverDatabaseFile]) {
    for (const beside of ['-wal', '-shm']) await rm(`${file(dataFolder)}${beside}`, { force: true });
    await rename(file(stage), file(dataFolder));
  }
  await syncFolder(dataFolder);
  await removeMark(dataFolder);
  await rm(stage, { recursive: true, force: true });
}
