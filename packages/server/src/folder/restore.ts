import { chownSync, constants, createReadStream, existsSync, statSync } from 'node:fs';
import { copyFile, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { TomaatError } from '@tomaat/core';
import { leaveForAudit } from '../audit/pending.ts';
import { verifyAudit } from '../audit/verify-audit.ts';
import { lockDataFolder } from '../store/database/database.ts';
import { gatewayFolder, openGatewayDatabase } from '../store/database/gateway-database.ts';
import { openRegistryDatabase } from '../store/database/registry-database.ts';
import { openServerDatabase } from '../store/database/server-database.ts';
import { diskError, makeFolder, syncFolder } from '../store/files/disk.ts';
import { ownerOf, requireOwner } from '../store/files/folder-owner.ts';
import { hashFile } from '../store/files/hash-file.ts';
import { countJobs, faultOf, removeUnreferenced, type Settled, settleMissing } from './database-copy.ts';
import {
  type BackupManifest,
  databaseFiles,
  digestIn,
  filesUnder,
  isBackupPath,
  readManifest,
} from './manifest.ts';
import { restoringName } from './stages.ts';

export interface RestoreOptions {
  /** Whether to move the contents of the data folder aside. */
  force: boolean;
  signal: AbortSignal;
  onProgress(step: string, done: number, of: number): void;
}

export interface Restored {
  readonly manifest: BackupManifest;
  readonly jobs: number;
  readonly results: number;
  /** Damaged or missing blobs; jobs without them are left out. */
  readonly damaged: number;
  readonly settled: Settled;
  /** Why the audit log in the backup is not intact; undefined if it is, or if there is none. */
  readonly auditFault?: string;
  /** Where the previous contents of the data folder are. */
  readonly movedTo?: string;
}

/** Lock files of a folder: they stay, and do not count as contents. */
const lockFiles: readonly string[] = ['lock.db', 'lock.db-journal', 'lock.pid'];

/**
 * Creates a data folder from a backup (a folder, or an archive). Everything is written to a folder inside it and checked
 * before anything is put in place. Files are readable only by the folder's owner; root gives them to that owner.
 * @throws TomaatError CONFLICT for a folder that is not empty or in use; BAD_INPUT for something other than a backup, or if more than results
 *   are damaged; INTERNAL for databases of a newer version.
 */
export async function restoreBackup(
  source: string,
  dataFolder: string,
  options: RestoreOptions,
): Promise<Restored> {
  if (!existsSync(source))
    throw new TomaatError('NOT_FOUND', `${source} does not exist. Check the spelling.`);
  requireOwner(dataFolder);
  const isNew = !existsSync(dataFolder);
  let isMoving = false;
  if (!isNew && !options.force && (await contentsOf(dataFolder)).length > 0) {
    throw new TomaatError(
      'CONFLICT',
      `${resolve(dataFolder)} is not empty. Choose another folder with --data, or move its contents aside with --force.`,
    );
  }
  await makeFolder(dataFolder);
  const owner = ownerOf(dataFolder);
  const part = join(dataFolder, restoringName);
  try {
    using _lock = lockDataFolder(dataFolder);
    using _gateway = existsSync(gatewayFolder(dataFolder))
      ? lockDataFolder(gatewayFolder(dataFolder))
      : undefined;
    await rm(part, { recursive: true, force: true });
    await mkdir(part, { mode: 0o700 });
    const manifest = await unpack(source, part, options);
    const damaged = await checkFiles(part, manifest, options);
    const checked = await checkContents(part);
    isMoving = true;
    const movedTo = await moveAside(dataFolder);
    for (const name of (await readdir(part)).sort(databasesLast))
      await rename(join(part, name), join(dataFolder, name));
    for (const log of [dataFolder, gatewayFolder(dataFolder)])
      if (existsSync(log)) await leaveForAudit(log, 'backup.restored', { outcome: manifest.createdTime });
    if (process.geteuid?.() === 0 && owner) await giveAll(dataFolder, owner);
    await syncFolder(dataFolder);
    // Last: while it exists, the folder is only partly restored.
    await rm(part, { recursive: true, force: true });
    await syncFolder(dataFolder);
    return { manifest, damaged, movedTo, ...checked };
  } catch (error) {
    if (!isMoving) await rm(isNew ? dataFolder : part, { recursive: true, force: true });
    throw diskError(error);
  }
}

const contentsOf = async (folder: string): Promise<string[]> =>
  (await readdir(folder)).filter((name) => !lockFiles.includes(name) && name !== 'lost+found');

/** A folder without its databases must not look complete. */
const databasesLast = (a: string, b: string): number =>
  Number(isDatabase(a)) - Number(isDatabase(b)) || a.localeCompare(b);
const isDatabase = (name: string): boolean => (databaseFiles as readonly string[]).includes(name);

/** Brings the files of a backup into a folder. Only names that a backup has, and plain files. */
async function unpack(source: string, part: string, options: RestoreOptions): Promise<BackupManifest> {
  if (!statSync(source).isDirectory()) {
    await unpackArchive(source, part, options);
    return readManifest(part);
  }
  const manifest = await readManifest(source);
  const folders = new Set(manifest.files.map(({ path }) => dirname(join(part, path))));
  for (const folder of folders) await mkdir(folder, { recursive: true, mode: 0o700 });
  for (const [done, { path }] of manifest.files.entries()) {
    options.signal.throwIfAborted();
    options.onProgress('copying', done, manifest.files.length);
    try {
      // Not a link: a change of one must not affect the other.
      await copyFile(
        join(source, path),
        join(part, path),
        constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL,
      );
    } catch (error) {
      // Reported when the files are checked.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return manifest;
}

async function unpackArchive(
  source: string,
  part: string,
  { signal, onProgress }: RestoreOptions,
): Promise<void> {
  const { unpackTar } = await import('modern-tar/fs');
  const { size } = await stat(source);
  const isPacked = await isGzip(source);
  const file = createReadStream(source, { highWaterMark: 1 << 20 });
  const count = new Transform({
    transform(chunk, _encoding, done) {
      onProgress('archive', file.bytesRead, size);
      done(null, chunk);
    },
  });
  const to = unpackTar(part, {
    filter: ({ name, type }) => type === 'file' && isBackupPath(name),
    fmode: 0o600,
    dmode: 0o700,
    maxDepth: 4,
  });
  try {
    if (isPacked) await pipeline(file, count, createGunzip(), to, { signal });
    else await pipeline(file, count, to, { signal });
  } catch (error) {
    if (signal.aborted || (error as NodeJS.ErrnoException).syscall) throw error;
    throw new TomaatError('BAD_INPUT', `${source} is not a complete archive: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

async function isGzip(path: string): Promise<boolean> {
  const handle = await open(path, 'r');
  try {
    const bytes = Buffer.alloc(2);
    await handle.read(bytes, 0, 2, 0);
    return bytes[0] === 0x1f && bytes[1] === 0x8b;
  } finally {
    await handle.close();
  }
}

/** Compares every file with the manifest; removes damaged blobs and returns their number. */
async function checkFiles(part: string, manifest: BackupManifest, options: RestoreOptions): Promise<number> {
  const known = new Set(manifest.files.map(({ path }) => path));
  // The archive may hold more than the manifest lists.
  for (const path of await filesUnder(part)) if (!known.has(path)) await rm(join(part, path));
  let damaged = 0;
  for (const [done, { path, sizeBytes, sha256 }] of manifest.files.entries()) {
    options.signal.throwIfAborted();
    options.onProgress('checking', done, manifest.files.length);
    const file = join(part, path);
    const found = await stat(file).catch(() => undefined); // A missing file also counts as damaged.
    const wanted = digestIn(path) ?? sha256;
    if (found?.size === sizeBytes && (await syncedSha256(file)) === wanted) continue;
    if (digestIn(path) === undefined)
      throw new TomaatError(
        'BAD_INPUT',
        `The backup is damaged: ${path} has changed since it was written. Use another backup.`,
      );
    await rm(file, { force: true });
    damaged++;
  }
  return damaged;
}

async function syncedSha256(file: string): Promise<string> {
  const handle = await open(file, 'r+');
  try {
    await handle.chmod(0o600);
    await handle.sync();
  } finally {
    await handle.close();
  }
  return hashFile(file);
}

const openers = {
  'server.db': openServerDatabase,
  'registry.db': (folder: string) => openRegistryDatabase(folder),
  'gateway.db': openGatewayDatabase,
} as const satisfies Record<
  (typeof databaseFiles)[number],
  (folder: string) => Promise<{ close(): Promise<void> }>
>;

/** Opens the databases, which brings them up to date, settles jobs without files, and checks the audit log. */
async function checkContents(
  part: string,
): Promise<Pick<Restored, 'jobs' | 'results' | 'settled' | 'auditFault'>> {
  let counts = { jobs: 0, results: 0 };
  let settled: Settled = { removed: 0, failed: 0 };
  const server = join(part, 'server.db');
  for (const name of databaseFiles) {
    const file = join(part, name);
    if (!existsSync(file)) continue;
    const fault = faultOf(file);
    if (fault !== undefined) throw new TomaatError('BAD_INPUT', `The backup is damaged: ${name}: ${fault}`);
    await openers[name](part).then((database) => database.close());
  }
  if (existsSync(server)) {
    settled = settleMissing(server, (sha256) => existsSync(join(part, 'blobs', 'sha256', sha256)));
    await removeUnreferenced(part);
    counts = countJobs(server);
  }
  const auditFault = (await auditFaultOf(part)) ?? (await auditFaultOf(gatewayFolder(part)));
  return { ...counts, settled, auditFault };
}

async function auditFaultOf(part: string): Promise<string | undefined> {
  if (!existsSync(part)) return undefined;
  try {
    await verifyAudit(part);
    return undefined;
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    return error.code === 'NOT_FOUND' ? undefined : error.message;
  }
}

/** Moves the contents of a data folder into a separate folder inside it; returns its path, undefined if it was empty. */
async function moveAside(dataFolder: string): Promise<string | undefined> {
  const contents = (await contentsOf(dataFolder)).filter(
    (name) => name !== restoringName && !name.startsWith('replaced-'),
  );
  if (contents.length === 0) return undefined;
  const stamp = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const to = await makeUnique(join(dataFolder, `replaced-${stamp}`));
  for (const name of contents) await rename(join(dataFolder, name), join(to, name));
  return to;
}

/** Makes a folder of this name, or of the next free one: `…-2`, `…-3`. Returns its path. */
async function makeUnique(path: string): Promise<string> {
  for (let number = 1; ; number++) {
    const unique = number === 1 ? path : `${path}-${number}`;
    try {
      await mkdir(unique, { mode: 0o700 });
      return unique;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

/** Gives everything created in a folder to its owner. */
async function giveAll(folder: string, { uid, gid }: { uid: number; gid: number }): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  for (const entry of entries) {
    if (!entry.isSymbolicLink()) chownSync(join(entry.parentPath, entry.name), uid, gid);
  }
}
