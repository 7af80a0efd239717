import { resolve } from 'node:path';
import { dataFolderFor } from '../config.ts';
import { type Stage, stageBackup } from '../folder/backup.ts';
import { checkDestination, publish } from '../folder/publish.ts';
import { actAsOwner } from '../store/files/folder-owner.ts';
import { createProgress, formatBytes, percentOf } from './console.ts';
import { openInterrupt } from './interrupt.ts';
import { requireOwnDatabase } from './shared-database.ts';

export interface BackupFlags {
  data?: string;
  jobs: boolean;
  force?: boolean;
  quiet?: boolean;
  json?: boolean;
}

/** `tomaat backup DIR|FILE`: a copy of the data folder, while the server runs or not. */
export async function backup(to: string, flags: BackupFlags): Promise<number> {
  requireOwnDatabase(
    flags,
    'Back up the database (pg_dump), the store of files, and identity.key, pseudonym.key and uid.key of the data folder.',
  );
  const dataFolder = resolve(dataFolderFor(flags));
  const force = Boolean(flags.force);
  const progress = await createProgress(Boolean(flags.quiet));
  using interrupt = openInterrupt();
  const { signal } = interrupt;
  const onProgress = percentOf(progress);
  try {
    const destination = await checkDestination(to, dataFolder, force);
    await using stage = await stageAsOwner(dataFolder, { jobs: flags.jobs, signal, onProgress });
    const { manifest, contents } = stage;
    await publish(stage, destination, { force, signal, onProgress });
    progress.clear();
    const sizeBytes = manifest.files.reduce((sum, file) => sum + file.sizeBytes, 0);
    const { createdTime, identity } = manifest;
    if (flags.json) {
      const facts = { to: destination.path, createdTime, identity, files: manifest.files.length, sizeBytes };
      console.log(JSON.stringify({ ...facts, ...contents }));
      return 0;
    }
    const { jobs, results, failed, removed } = contents;
    console.log(
      `${destination.path}: ${manifest.files.length} files, ${formatBytes(sizeBytes)}; ${jobs} jobs, ${results} results.`,
    );
    if (failed + removed > 0)
      console.log(
        `${failed + removed} jobs whose files were deleted meanwhile are missing from the backup or failed in it.`,
      );
    if (flags.jobs)
      console.log('It contains images of people and secrets: keep it as safe as the data folder.');
    return 0;
  } finally {
    progress.clear();
  }
}

/** Files created in the data folder belong to its owner; at the destination of the backup, root acts as root. */
async function stageAsOwner(dataFolder: string, options: Parameters<typeof stageBackup>[1]): Promise<Stage> {
  using _owner = actAsOwner(dataFolder);
  return await stageBackup(dataFolder, options);
}
