import { join } from 'node:path';
import { type Database, openDatabase } from './database.ts';
import { type KeySchema, keyLimitMigrations, keyMigrations } from './key-schema.ts';
import { type SeriesSchema, seriesMigrations } from './series-schema.ts';
import { type SessionSchema, sessionLogoutMigrations, sessionMigrations } from './session-schema.ts';

export type GatewaySchema = KeySchema & SessionSchema & SeriesSchema;

/** The gateway's database: series, keys and browser sessions. New steps are only added at the end. */
export const gatewayMigrations = [
  ...keyMigrations,
  ...keyLimitMigrations,
  ...sessionMigrations,
  ...sessionLogoutMigrations,
  ...seriesMigrations,
];

export const gatewayDatabaseFile = (dataFolder: string): string => join(dataFolder, 'gateway.db');

/** The gateway's own part of a data folder: its lock, audit log and work. A server may hold the data folder at the same time. */
export const gatewayFolder = (dataFolder: string): string => join(dataFolder, 'gateway');

export const openGatewayDatabase = (dataFolder: string): Promise<Database<GatewaySchema>> =>
  openDatabase<GatewaySchema>(gatewayDatabaseFile(dataFolder), gatewayMigrations);
