import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { dataFolderFor } from '../config.ts';
import { restoreBackup } from '../folder/restore.ts';
import { createProgress, percentOf } from './console.ts';
import { openInterrupt } from './interrupt.ts';

export interface RestoreFlags {
  data?: string;
  force?: boolean;
  quiet?: boolean;
  json?: boolean;
}

/** `tomaat restore DIR|FILE`: exit code 0 if complete, 1 if results were damaged and their jobs left out. */
export async function restore(from: string, flags: RestoreFlags): Promise<number> {
  const dataFolder = resolve(dataFolderFor(flags));
  const isNew = !existsSync(dataFolder);
  const progress = await createProgress(Boolean(flags.quiet));
  using interrupt = openInterrupt();
  const restored = await restoreBackup(resolve(from), dataFolder, {
    force: Boolean(flags.force),
    signal: interrupt.signal,
    onProgress: percentOf(progress),
  }).finally(() => progress.clear());
  const { manifest, jobs, results, damaged, settled, auditFault, movedTo } = restored;
  const { createdTime, identity } = manifest;
  const isWhole = damaged === 0;
  if (flags.json) {
    const facts = { ok: isWhole, data: dataFolder, createdTime, identity, jobs, results };
    console.log(JSON.stringify({ ...facts, damaged, ...settled, auditFault, movedTo }));
    return isWhole ? 0 : 1;
  }
  console.log(`${dataFolder} was restored as of ${createdTime}: ${jobs} jobs, ${results} results.`);
  if (identity !== undefined) console.log(`Identity  ${identity}`);
  if (movedTo !== undefined)
    console.log(`The previous contents are in ${movedTo}. Delete them when they are no longer needed.`);
  if (auditFault !== undefined) console.log(`The audit log in the backup is not intact. ${auditFault}`);
  if (!isWhole)
    console.log(
      `${damaged} files are damaged or missing in the backup; ${settled.removed + settled.failed} jobs that used them are left out or failed.`,
    );
  console.log('Keys revoked and data erased since then are back. Revoke and erase them again.');
  if (isNew && process.geteuid?.() === 0)
    console.log('The folder belongs to root. Give it to the user who runs the server: chown -R USER');
  return isWhole ? 0 : 1;
}
