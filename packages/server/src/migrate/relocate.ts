import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import { requireNotMovedAway, useStore } from '../access/deployment.ts';
import type { BlobRef } from '../store/blobs/blob-writer.ts';
import { isBucketAddress } from '../store/blobs/bucket.ts';
import { lockDataFolder } from '../store/database/database.ts';
import type { DeploymentSchema } from '../store/database/deployment-schema.ts';
import type { ServerSchema } from '../store/database/server-database.ts';
import { referencedBlobs } from './files.ts';
import { anyTables, checkKeys, type MigrateOptions, openPlace, openUnused, requireUnused } from './places.ts';
import { requireKeys } from './to-folder.ts';

/** What of a copied store of files was compared. */
export interface Relocated {
  files: number;
  bytes: number;
}

/**
 * Makes the servers of a shared database keep their files at another place, to which they have been copied. Each file that the database refers
 * to must be there in its size; its SHA-256 is compared whenever a server fetches it. The old place is not touched.
 *
 * @throws TomaatError CONFLICT if files are missing, servers use the database, its data were moved to a data folder, or the folder has other
 *   keys, and what opening the database and the store throws
 */
export async function relocateFiles(options: MigrateOptions): Promise<Relocated> {
  const { dataFolder, database: url, blobs: place, signal, onProgress } = options;
  if (place === undefined)
    throw new TomaatError('BAD_REQUEST', 'Say with --blobs where the files are now.', { field: 'blobs' });
  requireKeys(dataFolder);
  if (!isBucketAddress(place) && !existsSync(join(place, 'sha256')))
    throw new TomaatError(
      'NOT_FOUND',
      `${place} has no folder sha256, which a copy of the files has. Check --blobs, and that it is mounted.`,
      { field: 'blobs' },
    );
  await using opened = new AsyncDisposableStack();
  opened.use(lockDataFolder(dataFolder));
  const shared = opened.use(await openUnused(dataFolder, url));
  const deployment = shared.db as unknown as Kysely<DeploymentSchema>;
  await requireNotMovedAway(deployment);
  await checkKeys(shared, { dataFolder, blobs: null });
  const store = opened.use(await openPlace(place, dataFolder));
  const refs = [...(await referencedBlobs(anyTables(shared))), ...(await pieces(shared.db))];
  const missing: string[] = [];
  for (const [done, { digest, sizeBytes }] of refs.entries()) {
    signal.throwIfAborted();
    onProgress('files', done, refs.length);
    if ((await store.stat(digest))?.sizeBytes !== sizeBytes) missing.push(digest);
  }
  if (missing.length > 0)
    throw new TomaatError(
      'CONFLICT',
      `${missing.length} of ${refs.length} files are not in ${place}, or have another size; the first is ${missing[0]}. Copy all of sha256 there, and repeat this. If files were lost before, delete their jobs at a server first. Nothing was changed.`,
      { field: 'blobs' },
    );
  // One that started meanwhile has the old place.
  await requireUnused(shared);
  await useStore(deployment, place);
  return { files: refs.length, bytes: refs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) };
}

/** Those of uploads that have not arrived whole. */
async function pieces(db: Kysely<ServerSchema>): Promise<BlobRef[]> {
  const rows = await db.selectFrom('upload_part').select(['digest', 'size_bytes']).execute();
  return rows.map(({ digest, size_bytes: sizeBytes }) => ({ digest, sizeBytes }));
}
