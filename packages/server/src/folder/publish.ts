import { constants, createWriteStream, existsSync, lstatSync } from 'node:fs';
import { copyFile, link, mkdir, readdir, realpath, rename, rm, rmdir, unlink } from 'node:fs/promises';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { TomaatError } from '@tomaat/core';
import { diskError, noHardLinks, syncFolder } from '../store/files/disk.ts';
import { partOf } from '../store/files/whole-file.ts';
import type { Stage } from './backup.ts';
import { filesUnder, manifestFile, readManifest } from './manifest.ts';

/** Where a backup goes: a folder, or an archive. */
export interface Destination {
  readonly path: string;
  readonly kind: 'folder' | 'tar' | 'tar.gz';
}

export interface PublishOptions {
  force: boolean;
  signal: AbortSignal;
  onProgress(step: string, done: number, of: number): void;
}

/**
 * Checks the destination of a backup before it is made.
 * @throws TomaatError BAD_REQUEST for a place inside the data folder or an archive of another kind, CONFLICT if it already
 *   exists, or is not a backup and `force` would replace it; NOT_FOUND if its folder is missing.
 */
export async function checkDestination(
  text: string,
  dataFolder: string,
  force: boolean,
): Promise<Destination> {
  const path = resolve(text);
  const kind = /\.(tgz|tar\.gz)$/i.test(path) ? 'tar.gz' : /\.tar$/i.test(path) ? 'tar' : 'folder';
  if (kind === 'folder' && /\.(zip|7z|rar|tar\.\w+|tbz2?|txz|gz|zst|xz|bz2)$/i.test(path))
    throw new TomaatError(
      'BAD_REQUEST',
      `Archives are written as .tar, .tar.gz or .tgz, not as ${basename(path)}. Choose one of these.`,
    );
  const parent = dirname(path);
  if (!existsSync(parent))
    throw new TomaatError('NOT_FOUND', `There is no folder ${parent}. Create it, or choose another place.`);
  const inside = `${await realpath(dataFolder)}${sep}`;
  if (`${join(await realpath(parent), basename(path))}${sep}`.startsWith(inside))
    throw new TomaatError(
      'BAD_REQUEST',
      'A backup inside the data folder would be lost with it. Choose a place outside it.',
    );
  await checkTaken(path, kind, force);
  return { path, kind };
}

async function checkTaken(path: string, kind: Destination['kind'], force: boolean): Promise<void> {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (!there) return;
  if (kind === 'folder' && there.isDirectory() && (await readdir(path)).length === 0) return;
  if (!force)
    throw new TomaatError(
      'CONFLICT',
      `${path} already exists. Choose another name, or replace it with --force.`,
    );
  if (kind !== 'folder' && there.isFile()) return;
  if (kind === 'folder' && there.isDirectory() && existsSync(join(path, manifestFile))) {
    await readManifest(path);
    return;
  }
  throw new TomaatError('CONFLICT', `${path} is not a backup, so it is not replaced. Choose another name.`);
}

/** Moves or copies a stage to its destination. Its name appears once it is complete and durable. */
export async function publish(
  stage: Stage,
  { path, kind }: Destination,
  options: PublishOptions,
): Promise<void> {
  const part = partOf(path);
  try {
    if (kind === 'folder') await publishFolder(stage, path, part, options);
    else await publishArchive(stage, path, part, kind, options);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(part, { recursive: true, force: true });
    throw diskError(error);
  }
}

async function publishFolder(
  stage: Stage,
  path: string,
  part: string,
  options: PublishOptions,
): Promise<void> {
  try {
    await rename(stage.folder, part);
  } catch (error) {
    // Another file system.
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    await copyFolder(stage.folder, part, options);
  }
  const before = `${path}.${process.pid}.old`;
  if (existsSync(path)) {
    if ((await readdir(path)).length === 0) await rmdir(path);
    else if (options.force) await rename(path, before);
  }
  await rename(part, path);
  await rm(before, { recursive: true, force: true });
}

async function copyFolder(from: string, to: string, { signal, onProgress }: PublishOptions): Promise<void> {
  const paths = await filesUnder(from);
  const folders = new Set([to, ...paths.map((path) => dirname(join(to, path)))]);
  for (const folder of folders) await mkdir(folder, { recursive: true, mode: 0o700 });
  for (const [done, path] of paths.entries()) {
    signal.throwIfAborted();
    onProgress('copying', done, paths.length);
    await copyFile(join(from, path), join(to, path), constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
    await syncFolder(join(to, path));
  }
  for (const folder of folders) await syncFolder(folder);
}

async function publishArchive(
  stage: Stage,
  path: string,
  part: string,
  kind: 'tar' | 'tar.gz',
  { force, signal, onProgress }: PublishOptions,
): Promise<void> {
  const { packTar } = await import('modern-tar/fs');
  const paths = [manifestFile, ...stage.manifest.files.map((file) => file.path)];
  const totalBytes = stage.manifest.files.reduce((sum, file) => sum + file.sizeBytes, 0);
  let bytes = 0;
  const count = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      onProgress('archive', bytes, Math.max(bytes, totalBytes));
      done(null, chunk);
    },
  });
  // File owners have no meaning on another machine.
  const sources = paths.map((target) => ({
    type: 'file' as const,
    source: join(stage.folder, target),
    target,
    mode: 0o600,
    uid: 0,
    gid: 0,
  }));
  const file = createWriteStream(part, { flags: 'wx', mode: 0o600, flush: true });
  const packed = packTar(sources);
  if (kind === 'tar') await pipeline(packed, count, file, { signal });
  else await pipeline(packed, count, createGzip({ level: 1 }), file, { signal });
  if (force) await rename(part, path);
  else await giveName(part, path);
}

/** Gives a file its name unless the name was taken meanwhile. */
async function giveName(part: string, path: string): Promise<void> {
  try {
    await link(part, path);
    await unlink(part);
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') throw new TomaatError('CONFLICT', `${path} already exists. Choose another name.`);
    if (!noHardLinks.has(code)) throw error;
    await rename(part, path);
  }
}
