import { join } from 'node:path';
import { type KeySchema, keyMigrations } from '../access/keys.ts';
import { type Database, openDatabase } from './database.ts';
import { type JobsSchema, jobMigrations, receiptMigrations } from './jobs.ts';
import { type UploadsSchema, uploadMigrations } from './uploads.ts';

export type ServerSchema = JobsSchema & UploadsSchema & KeySchema;

/** The server's database: jobs, uploads and the keys of its workers. New steps are added at the end, never between. */
export const serverMigrations = [
  ...jobMigrations,
  ...uploadMigrations,
  ...keyMigrations,
  ...receiptMigrations,
];

export const serverDatabaseFile = (dataFolder: string): string => join(dataFolder, 'server.db');

export function openServerDatabase(dataFolder: string): Promise<Database<ServerSchema>> {
  return openDatabase<ServerSchema>(serverDatabaseFile(dataFolder), serverMigrations);
}
