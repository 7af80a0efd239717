import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Where a server puts files of requests: inputs, results, work in progress, parts of uploads. */
const foldersOfRequests = ['blobs', 'work', 'converted', 'uploads'];

/**
 * The paths of the files that requests have left in a data folder, sorted. What names the folder to servers that share a database
 * (`blobs/store.id`) is none of them.
 */
export function leftFiles(dataFolder: string, folders: readonly string[] = foldersOfRequests): string[] {
  return folders
    .flatMap((folder) =>
      readdirSync(join(dataFolder, folder), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && entry.name !== 'store.id')
        .map((entry) => join(entry.parentPath, entry.name)),
    )
    .sort();
}
