import { statSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { TomaatError } from '@tomaat/core';
import { referencedDigests } from '../folder/database-copy.ts';
import { requireNotMoved } from '../store/database/moved.ts';
import { countPostgresRows } from '../store/database/postgres.ts';
import { withoutPassword } from '../store/database/postgres-address.ts';
import { serverDatabaseFile, sharedLocation } from '../store/database/server-database.ts';
import { ownBlobs } from './places.ts';
import { inFiles, notCopied } from './rows.ts';
import { requireKeys, requireNoData } from './to-folder.ts';
import { requireServerData } from './to-shared.ts';

/** What a migration would move, looked at without changing anything, whether or not servers run. */
export interface MigrationPlan {
  /** Rows by table, without empty ones. */
  tables: Record<string, number>;
  /** Files of jobs and uploads; of a shared store they are counted when they are moved. */
  files?: number;
  bytes?: number;
}

/** @throws as the migration would, as far as that can be seen beforehand */
export async function planToShared(dataFolder: string, url: string): Promise<MigrationPlan> {
  requireServerData(dataFolder);
  requireNotMoved(dataFolder);
  const there = await countPostgresRows(sharedLocation(url));
  const used = [...there]
    .filter(([name, rows]) => rows > (name === 'audit_head' ? 1 : 0))
    .map(([name]) => name);
  const isUsed = used.some((name) => name !== 'tomaat_migration');
  if (isUsed)
    throw new TomaatError(
      'CONFLICT',
      `${withoutPassword(url)} already has data of TOMAAT. Give an empty database.`,
      {
        field: 'to',
      },
    );
  const file = serverDatabaseFile(dataFolder);
  const digests = referencedDigests(file);
  let bytes = 0;
  for (const name of digests)
    bytes += statSync(join(ownBlobs(dataFolder), 'sha256', name), { throwIfNoEntry: false })?.size ?? 0;
  return { tables: countSqliteRows(file), files: digests.size, bytes };
}

export async function planToFolder(dataFolder: string, url: string): Promise<MigrationPlan> {
  requireKeys(dataFolder);
  requireNoData(dataFolder);
  const there = await countPostgresRows(sharedLocation(url));
  return { tables: Object.fromEntries([...there].filter(([name, rows]) => rows > 0 && isTold(name))) };
}

const isTold = (name: string) =>
  !notCopied.includes(name) || (inFiles.includes(name as never) && name !== 'audit_head');

function countSqliteRows(file: string): Record<string, number> {
  const db = new DatabaseSync(file, { readOnly: true, timeout: 10_000 });
  try {
    const tables = db
      .prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*' ORDER BY rowid",
      )
      .all() as { name: string }[];
    const counts: Record<string, number> = {};
    for (const { name } of tables.filter((table) => isTold(table.name))) {
      const row = db.prepare(`SELECT count(*) AS rows FROM "${name.replaceAll('"', '""')}"`).get();
      if (Number(row?.rows) > 0) counts[name] = Number(row?.rows);
    }
    return counts;
  } finally {
    db.close();
  }
}
