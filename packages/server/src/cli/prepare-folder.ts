import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { Logger } from 'pino';
import { isRestoring, isStage } from '../folder/stages.ts';
import { becomeOwner, userName } from '../store/folder-owner.ts';

/**
 * What a server does with its data folder before anything is opened in it: root becomes the folder's owner, what an
 * interrupted backup left is removed, and a folder that is half restored is refused.
 * @throws TomaatError FORBIDDEN for a user who is neither root nor the owner, CONFLICT for a folder that is half restored.
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
