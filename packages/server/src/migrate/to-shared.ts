import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { type Kysely, sql, type Transaction } from 'kysely';
import { isMovedFrom, noteMovedFrom } from '../access/deployment.ts';
import { hideOwners, openPseudonyms } from '../access/pseudonyms.ts';
import { openBlobs } from '../store/blobs/blobs.ts';
import { lockDataFolder } from '../store/database/database.ts';
import type { DeploymentSchema } from '../store/database/deployment-schema.ts';
import { markMoved, movedFile, requireNotMoved } from '../store/database/moved.ts';
import { withoutPassword } from '../store/database/postgres-address.ts';
import { openRegistryDatabase, registryDatabaseFile } from '../store/database/registry-database.ts';
import {
  openServerDatabase,
  type ServerSchema,
  serverDatabaseFile,
} from '../store/database/server-database.ts';
import { fillAuditTable } from './audit-lines.ts';
import { copyBlobs, referencedBlobs, type Split, splitUploads } from './files.ts';
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
  continueNumbers,
  copyTables,
  queuedAgain,
  type Row,
  tablesOf,
  tablesToCopy,
  usedTables,
} from './rows.ts';

/**
 * Moves what is in a data folder to an empty shared database and store of files: files first, then all rows and the audit log in one
 * transaction, each table compared with what was written. If it is interrupted, the database is still empty, and it can be repeated. The
 * folder keeps what it had, and is marked, so that no server begins to work on it again by mistake.
 *
 * @throws TomaatError NOT_FOUND without a server's data, CONFLICT if the folder or the database is in use, was moved or is not empty,
 *   BAD_SIGNATURE if the audit log is broken, and what opening the database and the store throws
 */
export async function migrateToShared(options: MigrateOptions): Promise<Migrated> {
  const { dataFolder, database: url, signal, onProgress } = options;
  const place = options.blobs ?? ownBlobs(dataFolder);
  requireServerData(dataFolder);
  await using opened = new AsyncDisposableStack();
  opened.use(lockDataFolder(dataFolder));
  requireNotMoved(dataFolder);
  const own = opened.use(await openServerDatabase(dataFolder));
  await hideOwners(own.db as unknown as Kysely<unknown>, await openPseudonyms(dataFolder));
  const shared = opened.use(await openUnused(dataFolder, url));
  const finish = async () => {
    await checkKeys(shared, { dataFolder, blobs: place });
    await markMoved(dataFolder, url);
  };
  if (await isMovedFrom(deploymentOf(shared.db), resolve(dataFolder))) {
    await finish();
    return { tables: {}, files: 0, bytes: 0, lost: [], uploads: 0, auditLines: 0, isFinished: true };
  }
  const parts = [{ own: anyTables(own), of: (db: Kysely<AnyTables>) => db }];
  if (existsSync(registryDatabaseFile(dataFolder))) {
    parts.push({ own: anyTables(opened.use(await openRegistryDatabase(dataFolder))), of: ofRegistry });
    // Its tables are made by opening it.
    await (await openRegistryDatabase(dataFolder, url)).close();
  }
  await requireEmpty(parts, anyTables(shared), url);
  const from = opened.use(await openBlobs(ownBlobs(dataFolder)));
  const to = place === ownBlobs(dataFolder) ? from : opened.use(await openPlace(place, dataFolder));
  const refs = await referencedBlobs(anyTables(own));
  const copied = await copyBlobs(from, to, refs, {
    signal,
    onFile: (done) => onProgress('files', done, refs.length),
  });
  const uploads = await splitUploads(own.db, join(dataFolder, 'uploads'), to, signal);
  const moved = await shared.transaction(async (trx) => {
    // A server that starts meanwhile waits for its first line of the log until this has ended.
    await sql`SELECT 1 FROM audit_head FOR UPDATE`.execute(trx);
    await requireEmpty(parts, asTables(trx), url);
    const tables = await copyParts(parts, asTables(trx), options);
    await writeUploads(trx, uploads);
    const auditLines = await fillAuditTable(trx as never, dataFolder);
    await continueNumbers(asTables(trx));
    await noteMovedFrom(deploymentOf(trx), resolve(dataFolder));
    return { tables, auditLines };
  });
  await finish();
  return { ...moved, ...copied, uploads: uploads.length };
}

/** A database of the folder, and its tables in the shared one. */
interface Part {
  readonly own: Kysely<AnyTables>;
  of(shared: Kysely<AnyTables>): Kysely<AnyTables>;
}

/** The rows by table; of a table that a registry has too, the server’s. */
async function copyParts(
  parts: readonly Part[],
  to: Kysely<AnyTables>,
  report: CopyReport,
): Promise<Record<string, number>> {
  const rows: Record<string, number>[] = [];
  for (const { own, of } of parts) {
    const tables = await tablesToCopy(own);
    rows.unshift(await copyTables(own, of(to), tables, { ...report, copyOf: inOrderOfArrival() }));
  }
  return Object.assign({}, ...rows);
}

/** What is left in a folder after its data were moved, and may be deleted once the servers work: it has volumes and keys' labels. */
export const leftBehind = (dataFolder: string, blobs?: string): string[] =>
  [
    serverDatabaseFile(dataFolder),
    registryDatabaseFile(dataFolder),
    join(dataFolder, 'uploads'),
    ...(blobs === undefined ? [] : [join(ownBlobs(dataFolder), 'sha256')]),
  ].filter((path) => existsSync(path));

/** Removes the mark of a folder whose data are its own again. */
export const removeMark = (dataFolder: string): Promise<void> =>
  rm(join(dataFolder, movedFile), { force: true });

export function requireServerData(dataFolder: string): void {
  if (existsSync(serverDatabaseFile(dataFolder)) || existsSync(registryDatabaseFile(dataFolder))) return;
  throw new TomaatError(
    'NOT_FOUND',
    `There is no data of a server or registry in ${dataFolder}. Check --data.`,
    {
      field: 'data',
    },
  );
}

const asTables = (trx: Transaction<ServerSchema>) => trx as unknown as Kysely<AnyTables>;

const deploymentOf = (db: unknown) => db as Kysely<DeploymentSchema>;

async function requireEmpty(parts: readonly Part[], shared: Kysely<AnyTables>, url: string): Promise<void> {
  for (const { own, of } of parts) {
    const used = await usedTables(of(shared), await tablesOf(own));
    if (used.length === 0) continue;
    throw new TomaatError(
      'CONFLICT',
      `${withoutPassword(url)} already has data of TOMAAT (${used.join(', ')}). Give an empty database; to delete what is in this one: DROP SCHEMA tomaat, tomaat_registry CASCADE.`,
      { field: 'database' },
    );
  }
}

/** Arrival decides between jobs of one millisecond. */
function inOrderOfArrival(): CopyOf {
  let arrival = 0;
  const change = (row: Row): Row => ({ ...queuedAgain(row), arrival: ++arrival });
  return ({ name }) => (name === 'job' ? { orderBy: ['created_ms', 'rowid'], change } : {});
}

async function writeUploads(trx: Transaction<ServerSchema>, uploads: readonly Split[]): Promise<void> {
  for (const { upload, offsetBytes, parts } of uploads) {
    await trx.updateTable('upload').set({ offset_bytes: offsetBytes }).where('id', '=', upload).execute();
    for (const part of parts) await trx.insertInto('upload_part').values(part).execute();
  }
}
