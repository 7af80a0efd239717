import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type AuditSchema, auditMigrations } from './audit-schema.ts';
import { type Database, emptied, openDatabase, sizeOf } from './database.ts';
import { openDatabaseAt } from './database-at.ts';
import { type DeploymentSchema, deploymentMigrations } from './deployment-schema.ts';
import {
  geometryMigrations,
  type JobsSchema,
  jobLimitMigrations,
  jobMigrations,
  keptMigrations,
  receiptMigrations,
  sharedQueueMigrations,
} from './job-schema.ts';
import { type KeySchema, keyLimitMigrations, keyMigrations } from './key-schema.ts';
import { requireNotMoved } from './moved.ts';
import type { PostgresLocation } from './postgres.ts';
import {
  begunLoginMigrations,
  type SessionSchema,
  sessionLogoutMigrations,
  sessionMigrations,
} from './session-schema.ts';
import {
  type UploadsSchema,
  uploadMigrations,
  uploadNameMigrations,
  uploadPartMigrations,
} from './upload-schema.ts';

export type ServerSchema = JobsSchema &
  UploadsSchema &
  KeySchema &
  SessionSchema &
  AuditSchema &
  DeploymentSchema;

/** The server's database: jobs, uploads, keys and browser sessions. New steps are only added at the end. */
export const serverMigrations = [
  ...jobMigrations,
  ...uploadMigrations,
  ...keyMigrations,
  ...keyLimitMigrations,
  ...jobLimitMigrations,
  ...sessionMigrations,
  ...receiptMigrations,
  ...sessionLogoutMigrations,
  ...geometryMigrations,
  ...keptMigrations,
  ...uploadNameMigrations,
  ...auditMigrations,
  ...begunLoginMigrations,
  ...uploadPartMigrations,
  ...sharedQueueMigrations,
  ...deploymentMigrations,
];

export const serverDatabaseFile = (dataFolder: string): string => join(dataFolder, 'server.db');

/** Where the tables of several servers are. */
export const sharedLocation = (url: string): PostgresLocation => ({ url, schema: 'tomaat' });

/**
 * Opens the database of a data folder, or the PostgreSQL database `shared` of several servers.
 * @throws TomaatError INTERNAL if the database was emptied although uploads or results exist, CONFLICT if it was moved.
 */
export async function openServerDatabase(
  dataFolder: string,
  shared?: string,
): Promise<Database<ServerSchema>> {
  if (shared !== undefined) return openDatabaseAt<ServerSchema>(sharedLocation(shared), serverMigrations);
  requireNotMoved(dataFolder);
  const file = serverDatabaseFile(dataFolder);
  if (sizeOf(file) === 0) {
    for (const folder of [join(dataFolder, 'blobs', 'sha256'), join(dataFolder, 'uploads')])
      if (await hasFiles(folder)) throw emptied(file, `there are files in ${folder}`);
  }
  return openDatabase<ServerSchema>(file, serverMigrations);
}

async function hasFiles(folder: string): Promise<boolean> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  return names.length > 0;
}
