import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { Kysely } from 'kysely';
import type { Identity } from '../identity.ts';
import { isBucketAddress } from '../store/blobs/bucket.ts';
import type { DeploymentSchema } from '../store/database/deployment-schema.ts';
import { readOrMakeSecret } from '../store/files/secret-file.ts';
import type { Pseudonyms } from './pseudonyms.ts';

/** What has to be the same at all servers that share a database. */
export interface DeploymentFacts {
  /** Missing where nothing is signed. */
  readonly identity?: Pick<Identity, 'thumbprint'>;
  readonly pseudonyms: Pseudonyms;
  /** The key of UIDs (`--strip-inputs`), if it is used. */
  readonly uidKey?: string;
  /** The folder or bucket of volumes and results, if there are any. */
  readonly blobs?: string;
  readonly dataFolder: string;
}

/**
 * Compares what this server has with what the first server of the database had, and refuses a server that would sign, name or store
 * differently: its results could not be verified or found at the others.
 * @returns what the operator should look at, if anything
 * @throws TomaatError CONFLICT that names the file
 */
export async function checkDeployment(
  db: Kysely<DeploymentSchema>,
  { identity, pseudonyms, uidKey, blobs, dataFolder }: DeploymentFacts,
): Promise<string | undefined> {
  const store = blobs && (await storeOf(db, blobs));
  const copy = (file: string) =>
    `${join(dataFolder, file)} is not that of the other servers of this database. Copy it from the data folder of one of them.`;
  const all: readonly [name: string, value: string | undefined, fault: string][] = [
    ['identity', identity?.thumbprint, copy('identity.key')],
    // The pseudonym of somebody who does not exist shows whether the keys are equal, and no more.
    ['pseudonyms', pseudonyms.of('oidc:https://deployment.invalid|'), copy('pseudonym.key')],
    ['uids', uidKey && createHash('sha256').update(uidKey).digest('base64url'), copy('uid.key')],
    [
      'blobs',
      store,
      blobs && isBucketAddress(blobs)
        ? `${blobs} is not where the other servers of this database store volumes. Give all of them the same --blobs. After the volumes were copied there: tomaat migrate --relocate.`
        : `${blobs} is not the folder of volumes of the other servers of this database. Give all of them the same one with --blobs, and check that it is mounted.`,
    ],
  ];
  for (const [name, value, fault] of all) {
    if (value === undefined) continue;
    await db
      .insertInto('deployment')
      .values({ name, value })
      .onConflict((conflict) => conflict.column('name').doNothing())
      .execute();
    if ((await factOf(db, name)) !== value) throw new TomaatError('CONFLICT', fault);
  }
  // It may be turned off at one server after the other.
  const isStoredAsReceived = blobs !== undefined && uidKey === undefined;
  return isStoredAsReceived && (await factOf(db, 'uids')) !== undefined
    ? 'This server stores files as they are received, and another server of this database removes what identifies a patient. Give all of them --strip-inputs, or none.'
    : undefined;
}

/** What the database knows by this name. */
async function factOf(db: Kysely<DeploymentSchema>, name: string): Promise<string | undefined> {
  const row = await db.selectFrom('deployment').select('value').where('name', '=', name).executeTakeFirst();
  return row?.value;
}

/**
 * A bucket is named by its address, a folder by a file in it: it may be mounted at another path.
 * @throws TomaatError CONFLICT if the folder lacks the file, and the database knows one: an empty folder, where the right one is not
 * mounted, is not taken for it
 */
async function storeOf(db: Kysely<DeploymentSchema>, blobs: string): Promise<string> {
  if (isBucketAddress(blobs)) return blobs;
  const file = join(blobs, 'store.id');
  const known = await factOf(db, 'blobs');
  if (known !== undefined && !existsSync(file)) {
    if (isBucketAddress(known))
      throw new TomaatError(
        'CONFLICT',
        `The servers of this database store volumes in ${known}, not in ${blobs}. Give all of them the same --blobs.`,
      );
    throw new TomaatError(
      'CONFLICT',
      `${blobs} has no store.id, but the database knows one: the volumes are in another folder. Give all servers the same --blobs, and check that it is mounted. If it is the right folder and has lost the file, write ${known} into ${file}.`,
    );
  }
  return idOf(file);
}

const idOf = async (file: string): Promise<string> =>
  (await readOrMakeSecret(file, async () => randomBytes(16).toString('base64url'))).text.trim();

/** Notes that the servers of the database keep their files in this folder or bucket from now on. */
export async function useStore(db: Kysely<DeploymentSchema>, blobs: string): Promise<void> {
  const value = isBucketAddress(blobs) ? blobs : await idOf(join(blobs, 'store.id'));
  await noteFact(db, 'blobs', value);
}

async function noteFact(db: Kysely<DeploymentSchema>, name: string, value: string): Promise<void> {
  await db
    .insertInto('deployment')
    .values({ name, value })
    .onConflict((conflict) => conflict.column('name').doUpdateSet({ value }))
    .execute();
}

/** The name under which a database says that its data were moved to a data folder. */
const movedName = 'moved';

const movedFromName = 'moved from';

/** Notes, in the transaction that moves them, from which data folder the data came. */
export async function noteMovedFrom(db: Kysely<DeploymentSchema>, dataFolder: string): Promise<void> {
  await db.insertInto('deployment').values({ name: movedFromName, value: dataFolder }).execute();
}

/** Whether the data of the database came from this folder. */
export async function isMovedFrom(db: Kysely<DeploymentSchema>, dataFolder: string): Promise<boolean> {
  return (await factOf(db, movedFromName)) === dataFolder;
}

/** Says that the data were moved to a data folder: servers refuse the database from now on. */
export async function markMovedAway(db: Kysely<DeploymentSchema>, dataFolder: string): Promise<void> {
  await noteFact(db, movedName, `${dataFolder} (${new Date().toISOString()})`);
}

/** @throws TomaatError CONFLICT if the data of the database were moved to a data folder: two servers would have the same jobs */
export async function requireNotMovedAway(db: Kysely<DeploymentSchema>): Promise<void> {
  const moved = await factOf(db, movedName);
  if (moved === undefined) return;
  throw new TomaatError(
    'CONFLICT',
    `The data of the database were moved to the data folder ${moved}. Start the server on that one, without --database. To use what was left in the database instead: DELETE FROM tomaat.deployment WHERE name = '${movedName}'.`,
    { field: 'database' },
  );
}
