import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { formatUidKey, TomaatError } from '@tomaat/core';
import { type Kysely, sql } from 'kysely';
import { checkDeployment } from '../access/deployment.ts';
import { openPseudonyms } from '../access/pseudonyms.ts';
import { openIdentity } from '../identity.ts';
import { type Blobs, openBlobs } from '../store/blobs/blobs.ts';
import { isBucketAddress } from '../store/blobs/bucket.ts';
import { cacheFolder, openBucketBlobs } from '../store/blobs/bucket-blobs.ts';
import type { Database } from '../store/database/database.ts';
import type { DeploymentSchema } from '../store/database/deployment-schema.ts';
import { registrySchema } from '../store/database/registry-database.ts';
import { openServerDatabase, type ServerSchema } from '../store/database/server-database.ts';
import { openUidKey } from '../store/files/uid-key.ts';
import type { AnyTables, CopyReport } from './rows.ts';

/** The shared database and store of files, as `tomaat migrate` opens them. */

export interface MigrateOptions extends CopyReport {
  readonly dataFolder: string;
  /** The address of the shared database. */
  readonly database: string;
  /** The shared folder or bucket of files; those of the data folder by default. */
  readonly blobs?: string;
}

export interface Migrated {
  /** Rows by table, without empty ones. */
  tables: Record<string, number>;
  files: number;
  bytes: number;
  /** Digests of files that were missing or damaged before: their jobs were moved without them. */
  lost: string[];
  uploads: number;
  auditLines: number;
  /** All had been moved before, by a migration that was killed after its last step in the database. */
  isFinished?: boolean;
}

/** The files of the data folder itself. */
export const ownBlobs = (dataFolder: string): string => join(dataFolder, 'blobs');

/** Opens where files are to be: a bucket by way of the folder's own cache. */
export const openPlace = (place: string, dataFolder: string): Promise<Blobs> =>
  isBucketAddress(place)
    ? openBucketBlobs(place, { folder: cacheFolder(dataFolder) })
    : openBlobs(place, { isShared: place !== ownBlobs(dataFolder) });

/** Refuses a database that a server works on. @throws TomaatError CONFLICT */
export async function openUnused(dataFolder: string, url: string): Promise<Database<ServerSchema>> {
  const database = await openServerDatabase(dataFolder, url);
  try {
    const { rows } = await sql<{ servers: number }>`SELECT count(*) AS servers FROM pg_stat_activity
      WHERE datname = current_database() AND application_name = 'tomaat server'`.execute(database.db);
    if (rows[0].servers > 0)
      throw new TomaatError('CONFLICT', `${rows[0].servers} servers use the database. Stop them first.`, {
        field: 'database',
      });
    return database;
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** Checks, or notes in a database without servers, that it is that of this folder’s keys and of this store of files. */
export async function checkKeys(
  database: Pick<Database<ServerSchema>, 'db'>,
  { dataFolder, blobs = ownBlobs(dataFolder) }: Pick<MigrateOptions, 'dataFolder' | 'blobs'>,
): Promise<void> {
  const uidKey = existsSync(join(dataFolder, 'uid.key'))
    ? formatUidKey(await openUidKey(dataFolder))
    : undefined;
  await checkDeployment(database.db as unknown as Kysely<DeploymentSchema>, {
    identity: await openIdentity(dataFolder),
    pseudonyms: await openPseudonyms(dataFolder),
    uidKey,
    blobs,
    dataFolder,
  });
}

/** Any table of a database by its name. */
export const anyTables = ({ db }: { readonly db: unknown }) => db as Kysely<AnyTables>;

/** The tables of registries in the same PostgreSQL database, also within a transaction of the others. */
export const ofRegistry = (db: Kysely<AnyTables>): Kysely<AnyTables> => db.withSchema(registrySchema);
