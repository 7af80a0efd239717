import { constants, existsSync, statSync } from 'node:fs';
import { copyFile, link, mkdir, open, readdir, readFile, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import { anchorFile, auditFile, auditFiles, isAuditFile } from '../audit/audit-files.ts';
import { leaveForAudit, pendingFolder, pendingNames } from '../audit/pending.ts';
import { thumbprintOf } from '../identity.ts';
import { gatewayFolder } from '../store/database/gateway-database.ts';
import { requireNotMoved } from '../store/database/moved.ts';
import { diskError, syncFolder } from '../store/files/disk.ts';
import { writeWhole } from '../store/files/whole-file.ts';
import { version } from '../version.ts';
import {
  copyDatabase,
  countJobs,
  faultOf,
  referencedDigests,
  removeJobs,
  removeSeries,
  removeUnreferenced,
  type Settled,
  settleMissing,
  unifyKeys,
} from './database-copy.ts';
import {
  type BackupManifest,
  backupKind,
  databaseFiles,
  describeFile,
  filesUnder,
  manifestFile,
  plainFiles,
} from './manifest.ts';
import { isStage, stageName } from './stages.ts';

export interface StageOptions {
  /** Whether to include jobs with their files. */
  jobs: boolean;
  signal: AbortSignal;
  /** The current step and its progress. */
  onProgress(step: string, done: number, of: number): void;
}

/** A complete backup in its own folder inside the data folder; disposing of it removes it. */
export interface Stage extends AsyncDisposable {
  readonly folder: string;
  readonly manifest: BackupManifest;
  readonly contents: { jobs: number; results: number } & Settled;
}

/** How many times the audit log is copied again if it changes meanwhile. */
const maxTries = 100;

/**
 * Copies a data folder as it is at one moment, whether or not a server runs in it. The files of jobs are kept by hard links
 * before the databases are copied, so that files that the server deletes meanwhile remain; if a file is missing anyway,
 * its job is left out. The audit log is copied last, and has every line that a receipt in the copy refers to.
 * @throws TomaatError NOT_FOUND for a folder without databases, CONFLICT if its data were moved, DISK_FULL, INTERNAL for a damaged database.
 */
export async function stageBackup(dataFolder: string, options: StageOptions): Promise<Stage> {
  const { jobs, signal, onProgress } = options;
  requireNotMoved(dataFolder);
  const present = databaseFiles.filter((name) => existsSync(join(dataFolder, name)));
  if (present.length === 0)
    throw new TomaatError(
      'NOT_FOUND',
      `No data of a server, registry or gateway was found in ${dataFolder}. Check --data.`,
    );
  for (const name of await readdir(dataFolder))
    if (isStage(name)) await rm(join(dataFolder, name), { recursive: true, force: true });
  const logs = present.includes('gateway.db') ? ['', gatewayFolder('')] : [''];
  for (const log of logs)
    await leaveForAudit(join(dataFolder, log), 'backup.made', { outcome: jobs ? 'whole' : 'without jobs' });
  const folder = join(dataFolder, stageName());
  const stage = (name: string) => join(folder, name);
  await using cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(folder, { recursive: true, force: true }));
  try {
    await mkdir(folder, { mode: 0o700 });
    const contents = { jobs: 0, results: 0, removed: 0, failed: 0 };
    const early = jobs ? await holdAll(dataFolder, folder, options) : [];
    onProgress('databases', 0, present.length);
    for (const name of present) copyDatabase(join(dataFolder, name), stage(name));
    unifyKeys(present.map(stage));
    if (present.includes('server.db')) {
      if (jobs) Object.assign(contents, await keepReferenced(dataFolder, folder, early, options));
      else removeJobs(stage('server.db'));
      Object.assign(contents, countJobs(stage('server.db')));
    }
    if (!jobs && present.includes('gateway.db')) removeSeries(stage('gateway.db'));
    for (const name of present) {
      const fault = faultOf(stage(name));
      if (fault !== undefined)
        throw new TomaatError(
          'INTERNAL',
          `${join(dataFolder, name)} is damaged (${fault}). Restore it from an earlier backup`,
        );
      await syncFile(stage(name));
    }
    for (const name of plainFiles) await copyIfThere(join(dataFolder, name), stage(name));
    for (const log of logs) await copyAudit(join(dataFolder, log), join(folder, log));
    signal.throwIfAborted();
    const files: BackupManifest['files'] = [];
    for (const path of await filesUnder(folder)) files.push(await describeFile(folder, path));
    const manifest: BackupManifest = {
      kind: backupKind,
      version,
      createdTime: new Date().toISOString(),
      identity: (await thumbprintOf(folder)).thumbprint,
      jobs,
      files,
    };
    await writeWhole(stage(manifestFile), `${JSON.stringify(manifest, null, 1)}\n`);
    await syncFolder(folder);
    const kept = cleanup.move();
    return { folder, manifest, contents, [Symbol.asyncDispose]: () => kept.disposeAsync() };
  } catch (error) {
    throw diskError(error);
  }
}

/** Keeps every blob by a hard link; returns their SHA-256. None if the file system has no hard links. */
async function holdAll(
  dataFolder: string,
  folder: string,
  { signal, onProgress }: StageOptions,
): Promise<string[]> {
  const named = join(dataFolder, 'blobs', 'sha256');
  await mkdir(join(folder, 'blobs', 'sha256'), { recursive: true, mode: 0o700 });
  const held: string[] = [];
  const names = existsSync(named) ? await readdir(named) : [];
  for (const [done, name] of names.entries()) {
    signal.throwIfAborted();
    onProgress('files of jobs', done, names.length);
    if (!/^[0-9a-f]{64}$/.test(name)) continue;
    const outcome = await tryLink(join(named, name), join(folder, 'blobs', 'sha256', name));
    if (outcome === 'unsupported') return held;
    if (outcome === 'linked') held.push(name);
  }
  return held;
}

/** Keeps the blobs that the copied database refers to, adds those that arrived since, and settles jobs without files. */
async function keepReferenced(
  dataFolder: string,
  folder: string,
  early: readonly string[],
  { signal, onProgress }: StageOptions,
): Promise<Settled> {
  const wanted = referencedDigests(join(folder, 'server.db'));
  const kept = new Set<string>();
  const at = (root: string, name: string) => join(root, 'blobs', 'sha256', name);
  for (const name of early) {
    if (wanted.has(name)) kept.add(name);
    else await rm(at(folder, name), { force: true });
  }
  const late = [...wanted].filter((name) => !kept.has(name));
  for (const [done, name] of late.entries()) {
    signal.throwIfAborted();
    onProgress('files of jobs', done, late.length);
    if (await linkOrCopy(at(dataFolder, name), at(folder, name))) kept.add(name);
  }
  const settled = settleMissing(join(folder, 'server.db'), (name) => kept.has(name));
  await removeUnreferenced(folder);
  await syncFolder(join(folder, 'blobs', 'sha256'));
  return settled;
}

/**
 * Copies the log and the lines that the server has not taken yet, as of one moment: if a file was renamed or a line
 * taken meanwhile, it copies again.
 */
async function copyAudit(dataFolder: string, folder: string): Promise<void> {
  const pending = join(folder, pendingFolder);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  for (let left = maxTries; ; left--) {
    const before = await listing(dataFolder);
    const isWhole = await copyAuditOnce(dataFolder, folder);
    if (isWhole && before === (await listing(dataFolder))) return;
    for (const path of [...(await auditFiles(folder)), join(folder, anchorFile), pending])
      await rm(path, { recursive: true, force: true });
    if (left === 0)
      throw new TomaatError(
        'BUSY',
        'The audit log was renamed repeatedly while it was being copied. Try again.',
      );
    await delay(20);
  }
}

async function listing(folder: string): Promise<string> {
  const names = (await readdir(folder)).filter(isAuditFile).map((name) => join(folder, name));
  const inodes = names.map((path) => statSync(path, { throwIfNoEntry: false })?.ino);
  return JSON.stringify([names, inodes, await pendingNames(folder)]);
}

/** False if a file was renamed meanwhile. */
async function copyAuditOnce(dataFolder: string, folder: string): Promise<boolean> {
  // First, because the log may have more lines than are signed, but never fewer.
  await copyIfThere(join(dataFolder, anchorFile), join(folder, anchorFile));
  for (const path of await auditFiles(dataFolder)) {
    const to = join(folder, path.slice(dataFolder.length + 1));
    if (!(await copyIfThere(path, to))) return false;
    if (path === join(dataFolder, auditFile)) await cutTornLine(to);
  }
  for (const name of await pendingNames(dataFolder)) {
    await mkdir(join(folder, pendingFolder), { recursive: true, mode: 0o700 });
    if (!(await copyIfThere(join(dataFolder, pendingFolder, name), join(folder, pendingFolder, name))))
      return false;
  }
  return true;
}

/** A line that was being written when it was copied. */
async function cutTornLine(file: string): Promise<void> {
  const bytes = await readFile(file);
  const end = bytes.lastIndexOf(10) + 1;
  if (end < bytes.length) await truncate(file, end);
}

async function copyIfThere(from: string, to: string): Promise<boolean> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return false;
  }
  const handle = await open(to, 'r+');
  try {
    await handle.chmod(0o600);
    await handle.sync();
  } finally {
    await handle.close();
  }
  return true;
}

async function linkOrCopy(from: string, to: string): Promise<boolean> {
  const outcome = await tryLink(from, to);
  return outcome === 'unsupported' ? copyIfThere(from, to) : outcome === 'linked';
}

async function tryLink(from: string, to: string): Promise<'linked' | 'missing' | 'unsupported'> {
  try {
    await link(from, to);
    return 'linked';
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return 'missing';
    // A file system without hard links, a file with too many links, or a blob of another user.
    if (['EPERM', 'EACCES', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK', 'EXDEV'].includes(code))
      return 'unsupported';
    throw error;
  }
}

async function syncFile(file: string): Promise<void> {
  const handle = await open(file, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
