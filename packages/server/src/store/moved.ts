import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';

/** Says in a data folder that its jobs, keys and audit log are in a shared database now; `migrate/` writes and removes it. */
export const movedFile = 'moved.json';

export interface Moved {
  /** The address of the database, without a password. */
  readonly to: string;
  readonly time: string;
}

/** Where the data of a folder were moved; undefined if they were not. */
export function movedTo(dataFolder: string): Moved | undefined {
  let text: string;
  try {
    text = readFileSync(join(dataFolder, movedFile), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { to, time } = JSON.parse(text) as Partial<Moved>;
    return { to: String(to), time: String(time) };
  } catch {
    return { to: 'another database', time: 'an unknown day' };
  }
}

/**
 * Refuses what would use the data that were left in a folder: two servers would have the same jobs.
 * @throws TomaatError CONFLICT
 */
export function requireNotMoved(dataFolder: string): void {
  const moved = movedTo(dataFolder);
  if (!moved) return;
  throw new TomaatError(
    'CONFLICT',
    `The data of ${dataFolder} were moved to ${moved.to} (${moved.time}). Name that database with --database. To use what was left here instead, delete ${join(dataFolder, movedFile)}.`,
    { field: 'database' },
  );
}
