import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { Logger } from 'pino';
import { isRestoring, isStage } from '../folder/stages.ts';
import { becomeOwner, userName } from '../store/files/folder-owner.ts';

/**
 * Prepares a server's data folder before anything in it is opened: root becomes the folder's owner, the remains of an
 * interrupted backup are removed, and a half-restored folder is refused.
 * @throws TomaatError FORBIDDEN for a user who is neither root nor the owner, CONFLICT for a half-restored folder.
 */
export async function prepareFolder(dataFolder: string, logger: Pick<Logger, 'warn'>): Promise<void> {
  const owner = becomeOwner(dataFolder);
  if (owner) {
    const user = userName(owner.uid) ?? `#${owner.uid}`;
    logger.warn(
      { uid: owner.uid, gid: owner.gid },
      `started by root: continuing as the owner of the data folder, ${user}`,
    );
  }
  for (const name of await namesIn(dataFolder)) {
    if (isRestoring(name)) {
      throw new TomaatError(
        'CONFLICT',
        `A restore into ${dataFolder} was interrupted, and some of its files are missing. Run “tomaat restore” again, with --force.`,
      );
    }
    if (isStage(name)) await rm(join(dataFolder, name), { recursive: true, force: true });
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return [];
  }
}
