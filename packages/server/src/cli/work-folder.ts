import { existsSync } from 'node:fs';
import { lstat, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type FolderLock, lockDataFolder } from '../store/database/database.ts';

const folderPrefix = 'tomaat-worker-';
const abandonedMs = 60_000;

/** A folder of a worker for fetched inputs and computed outputs, removed at the end. Folders of killed workers are removed now. */
export async function openWorkFolder(opened: AsyncDisposableStack): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), folderPrefix));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  opened.use(lockDataFolder(folder));
  for (const name of await readdir(tmpdir())) {
    const other = join(tmpdir(), name);
    if (name.startsWith(folderPrefix) && other !== folder) await removeAbandoned(other, folder);
  }
  return folder;
}

/**
 * Removes the folder of a worker that is gone: callers' data must not remain there. Workers that start at the same moment all find it.
 * One gets the lock, and moves the folder into its own first, so that no other creates files in it meanwhile.
 */
async function removeAbandoned(folder: string, own: string): Promise<void> {
  using lock = await lockAbandoned(folder);
  if (!lock) return;
  const moved = join(own, 'abandoned');
  await rename(folder, moved);
  await rm(moved, { recursive: true, force: true });
}

/** Undefined if the folder is in use or being opened, belongs to another user, or was taken by another worker. */
async function lockAbandoned(folder: string): Promise<FolderLock | undefined> {
  try {
    const status = await lstat(folder);
    if (!status.isDirectory() || status.uid !== process.getuid?.()) return undefined;
    // A worker writes lock.pid once it has the lock, and deletes it before it deletes the folder.
    const wasLocked = existsSync(join(folder, 'lock.pid'));
    if (!wasLocked && Date.now() - status.mtimeMs < abandonedMs) return undefined;
    return lockDataFolder(folder);
  } catch (error) {
    if ((error as { code?: string }).code === 'CONFLICT' || !existsSync(folder)) return undefined;
    throw error;
  }
}
