import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { z } from 'zod';
import { hashFile } from '../store/files/hash-file.ts';

/**
 * The description of a backup, in `backup.json`. A backup is a folder (or an archive of one) with the same names as a data
 * folder: `server.db`, `registry.db`, `gateway.db`, `blobs/sha256/…`, the audit logs, keys, certificate and settings.
 */

export const manifestFile = 'backup.json';
export const backupKind = 'tomaat-backup/1';

const manifestSchema = z.object({
  kind: z.literal(backupKind),
  /** Of TOMAAT. */
  version: z.string(),
  createdTime: z.string(),
  /** Thumbprint of the identity; missing where a registry has none. */
  identity: z.string().optional(),
  /** Whether jobs, results, inputs and uploads are in it. */
  jobs: z.boolean(),
  /** A blob has its SHA-256 as its name. */
  files: z.array(z.object({ path: z.string(), sizeBytes: z.number(), sha256: z.string().optional() })),
});
export type BackupManifest = z.infer<typeof manifestSchema>;

/** Files of a data folder that a backup includes if they exist, in addition to the databases, the blobs and the audit log. */
export const plainFiles = [
  'identity.key',
  'pseudonym.key',
  'announcement-epoch',
  'tomaat.pem',
  'tomaat.key',
  'tomaat.config.yaml',
  'known_hosts',
  'uid.key',
] as const;
export const databaseFiles = ['server.db', 'registry.db', 'gateway.db'] as const;

const blobPath = /^blobs\/sha256\/([0-9a-f]{64})$/;

/** The SHA-256 that a path in a backup names; undefined if it is not that of a blob. */
export const digestIn = (path: string): string | undefined => blobPath.exec(path)?.[1];

/** Whether a path may be in a backup: nothing else is extracted from an archive. */
export function isBackupPath(path: string): boolean {
  if (blobPath.test(path)) return true;
  if (path.startsWith('gateway/')) return isLogPath(path.slice('gateway/'.length));
  const known: readonly string[] = [manifestFile, ...plainFiles, ...databaseFiles];
  return known.includes(path) || isLogPath(path);
}

/** Whether a path belongs to an audit log, by its place in the folder of the log. */
function isLogPath(path: string): boolean {
  const name = path.startsWith('audit.pending/') ? path.slice('audit.pending/'.length) : path;
  if (!/^[\w.-]{1,200}$/.test(name) || name.startsWith('.')) return false;
  return name === path ? /^audit[-.]/.test(name) : name.endsWith('.json');
}

/**
 * Reads the description of a backup.
 * @throws TomaatError BAD_INPUT if it is not a backup, or not one that this version reads.
 */
export async function readManifest(folder: string): Promise<BackupManifest> {
  let text: string;
  try {
    text = await readFile(join(folder, manifestFile), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new TomaatError(
      'BAD_INPUT',
      `The backup has no ${manifestFile}. Give a backup made by “tomaat backup”.`,
    );
  }
  const refuse = (why: string, cause?: unknown) =>
    new TomaatError('BAD_INPUT', `Its ${manifestFile} ${why}.`, { cause });
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw refuse('is not JSON: it is damaged', error);
  }
  const kind = (data as { kind?: unknown } | null)?.kind;
  if (typeof kind === 'string' && kind !== backupKind && kind.startsWith('tomaat-backup/'))
    throw refuse(
      `is of the kind ${kind.slice(0, 40)}, but this version reads ${backupKind}. Use the version that wrote it`,
    );
  const parsed = manifestSchema.safeParse(data);
  if (!parsed.success) throw refuse('does not describe a backup: it is damaged');
  const strange = parsed.data.files.find(({ path }) => !isBackupPath(path));
  if (strange)
    throw refuse(`names ${JSON.stringify(strange.path.slice(0, 100))}, which is not a file of a data folder`);
  return parsed.data;
}

/** All files under a folder, as paths with `/`, sorted. */
export async function filesUnder(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) =>
      join(entry.parentPath, entry.name)
        .slice(folder.length + 1)
        .replaceAll('\\', '/'),
    )
    .sort();
}

/** A file as the manifest lists it. */
export async function describeFile(folder: string, path: string): Promise<BackupManifest['files'][number]> {
  const { size } = await stat(join(folder, path));
  const isBlob = digestIn(path) !== undefined;
  return { path, sizeBytes: size, ...(!isBlob && { sha256: await hashFile(join(folder, path)) }) };
}
