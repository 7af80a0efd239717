import { openKeyFolder, placesFor } from '../src/access/key-folder.ts';
import { createKey, type KeyLimits, revokeKey } from '../src/access/keys.ts';
import type { KeyScope } from '../src/access/scopes.ts';
import { databaseOf } from './support/tested-database.ts';

/** A key as “tomaat keys create” makes it, in the data folder of a server or registry that runs. */
export async function makeKey(
  dataFolder: string,
  scopes: readonly KeyScope[],
  more: { label?: string; limits?: KeyLimits; expiresTime?: Date; madeMs?: number; revoked?: boolean } = {},
): Promise<{ id: string; key: string; headers: { authorization: string } }> {
  await using folder = await openKeyFolder(dataFolder, placesFor(dataFolder), {
    shared: await databaseOf(dataFolder),
  });
  const { label = scopes.join(' '), madeMs, revoked, ...options } = more;
  const made = await createKey(folder.databases, { label, scopes, ...options }, madeMs);
  if (revoked) for (const db of folder.databases) await revokeKey(db, made.id);
  return { id: made.id, key: made.key, headers: { authorization: `Bearer ${made.key}` } };
}
