import { join } from 'node:path';
import { type KeySchema, keyLimitMigrations, keyMigrations } from '../access/keys.ts';
import { type SessionSchema, sessionMigrations } from '../access/sessions.ts';
import { type Database, openDatabase } from './database.ts';
import { type JobsSchema, jobLimitMigrations, jobMigrations, receiptMigrations } from './jobs.ts';
import { type UploadsSchema, uploadMigrations } from './uploads.ts';

export type ServerSchema = JobsSchema & UploadsSchema & KeySchema & SessionSchema;

/** The server's database: jobs, uploads, keys and browser sessions. New steps are added at the end, never between. */
export const serverMigrations = [
  ...jobMigrations,
  ...uploadMigrations,
  ...keyMigrations,
  ...keyLimitMigrations,
  ...jobLimitMigrations,
  ...sessionMigrations,
  ...receiptMigrations,
];

export const serverDatabaseFile = (dataFolder: string): string => join(dataFolder, 'server.db');

export function openServerDatabase(dataFolder: string): Promise<Database<ServerSchema>> {
  return openDatabase<ServerSchema>(serverDatabaseFile(dataFolder), serverMigrations);
}
