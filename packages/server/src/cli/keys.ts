import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import Table from 'cli-table3';
import { defaultDataFolder } from '../config.ts';
import { type ApiKey, createKey, type KeySchema, type KeyScope, keyMigrations, keyScopes, listKeys, revokeKey } from '../registry/keys.ts';
import { openDatabase } from '../store/database.ts';
