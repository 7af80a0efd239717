import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { writeWhole } from '../files/whole-file.ts';
import { withoutPassword } from './postgres-address.ts';

/** Says in a data folder that its jobs, keys and audit log are in a shared database; `migrate/` removes it. */
export const movedFile = 'moved.json';

export interface Moved {
  /** The address of the database, without a password. */
  readonly to: string;
  readonly time: string;
}

/** Where the data of a folder are; undefined if they are in it. */
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

/** Says in a data folder where its data are. `url`: the address of the database. */
export async function markMoved(dataFolder: string, url: string): Promise<void> {
  const moved: Moved = { to: withoutPassword(url), time: new Date().toISOString() };
  await writeWhole(join(dataFolder, movedFile), `${JSON.stringify(moved, null, 1)}\n`);
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
    `The data of ${dataFolder} are in ${moved.to} since ${moved.time}. Name that database with --database. To use the folder alone instead, delete ${join(dataFolder, movedFile)}.`,
    { field: 'database' },
  );
}
