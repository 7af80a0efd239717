import { opendir, realpath, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { type LeftOut, maxZipEntries, TomaatError } from '@tomaat/core';
import { type DiskFile, openedLater } from '../store/files/disk-file.ts';

/** As many as of a zip archive. */
const mostFiles = maxZipEntries;
const mostLevels = 16;

export interface FolderFiles {
  readonly files: readonly DiskFile[];
  /** Links out of the folder and archives, by their paths below it. */
  readonly leftOut: readonly LeftOut[];
}

/**
 * The files of a folder and of the folders in it, in the order of their names; hidden ones are passed over. Links to folders are not
 * followed, and links to files only within the folder.
 *
 * @throws TomaatError BAD_INPUT for more than 20,000 files or 16 levels of folders
 */
export async function filesBelow(folder: string, signal?: AbortSignal): Promise<FolderFiles> {
  const files: DiskFile[] = [];
  const leftOut: LeftOut[] = [];
  const root = await realpath(folder);
  const visit = async (at: string, level: number): Promise<void> => {
    if (level > mostLevels) {
      throw new TomaatError(
        'BAD_INPUT',
        `${at} lies more than ${mostLevels} folders deep. Give --volume a folder closer to the files.`,
      );
    }
    for (const entry of await entriesOf(at, files.length, folder)) {
      signal?.throwIfAborted();
      const path = join(at, entry.name);
      const name = relative(folder, path);
      if (entry.isDirectory()) {
        await visit(path, level + 1);
        continue;
      }
      if (entry.isSymbolicLink()) {
        const reason = await reasonOfLink(path, root);
        if (reason !== undefined) {
          leftOut.push({ name, reason });
          continue;
        }
      } else if (!entry.isFile()) continue;
      if (/\.zip$/i.test(entry.name)) {
        leftOut.push({ name, reason: 'is an archive: give it to --volume by itself' });
        continue;
      }
      files.push(openedLater(path, (await stat(path)).size));
      if (files.length > mostFiles) throw tooMany(folder);
    }
  };
  await visit(folder, 0);
  return { files, leftOut };
}

async function entriesOf(folder: string, before: number, root: string) {
  const entries = [];
  for await (const entry of await opendir(folder)) {
    if (entry.name.startsWith('.')) continue;
    entries.push(entry);
    if (before + entries.length > mostFiles) throw tooMany(root);
  }
  return entries.sort((a, b) => Number(a.name > b.name) - Number(a.name < b.name));
}

const tooMany = (folder: string) =>
  new TomaatError(
    'BAD_INPUT',
    `${folder} has more than ${mostFiles} files. Give --volume the folder of one study or series.`,
  );

/** Why a link is not followed; undefined for one to a file within the folder. */
async function reasonOfLink(path: string, root: string): Promise<string | undefined> {
  const target = await realpath(path).catch(() => undefined);
  if (target === undefined) return 'is a link to what is not there';
  if (!target.startsWith(root.endsWith(sep) ? root : root + sep)) return 'is a link out of the folder';
  return (await stat(target)).isFile() ? undefined : 'is a link to a folder';
}
