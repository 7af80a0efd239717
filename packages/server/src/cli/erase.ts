import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { type Kysely, sql } from 'kysely';
import { openKeyFolder, revokeFolderKey, type SharedPlace } from '../access/key-folder.ts';
import { listKeys } from '../access/keys.ts';
import { hideOwners, openPseudonyms } from '../access/pseudonyms.ts';
import { openAudit } from '../audit/audit-log.ts';
import { leaveForAudit } from '../audit/pending.ts';
import { createWitness } from '../audit/receipts.ts';
import { dataFolderFor } from '../config.ts';
import { emptyLog, eraseOwner } from '../folder/erase.ts';
import { openIdentity } from '../identity.ts';
import { openBlobs } from '../store/blobs/blobs.ts';
import { doAsHolder } from '../store/control.ts';
import type { KeySchema } from '../store/database/key-schema.ts';
import { openServerDatabase, serverDatabaseFile } from '../store/database/server-database.ts';
import { actAsOwner } from '../store/files/folder-owner.ts';
import { createJobs } from '../store/jobs/jobs.ts';
import { openUploads } from '../store/uploads/uploads.ts';
import { plain } from './console.ts';
import { keyIdOf, type OwnerFlags, ownersOf } from './owners.ts';
import { databaseFor } from './shared-database.ts';
import { askOnTerminal } from './terminal.ts';

export interface EraseFlags extends OwnerFlags {
  database?: string;
  revoke?: boolean;
  dryRun?: boolean;
  yes?: boolean;
  json?: boolean;
}

interface Counts {
  jobs: number;
  uploads: number;
  sessions: number;
}

/** `tomaat erase`: deletes the data of a key or a person, through the running server or without one. */
export async function erase(flags: EraseFlags): Promise<number> {
  const folder = dataFolderFor(flags);
  if (!existsSync(folder))
    throw new TomaatError('NOT_FOUND', `There is no data folder ${folder}. Check --data.`);
  using _owner = actAsOwner(folder);
  const at = { shared: databaseFor(flags) };
  const owners = await ownersOf(flags);
  const keyId = flags.key === undefined ? undefined : keyIdOf(flags.key);
  if (flags.revoke && keyId === undefined)
    throw new TomaatError('BAD_REQUEST', '--revoke has no key to revoke. Name it with --key ID.');
  await hideAll(folder, at);
  const found = await count(folder, owners, at);
  const label = keyId === undefined ? undefined : await labelOf(folder, keyId, at);
  const isNothing = found.jobs + found.uploads + found.sessions === 0;
  if (keyId !== undefined && label === undefined && isNothing)
    throw new TomaatError(
      'NOT_FOUND',
      `There is no key ${keyId} and no data of it. “tomaat keys list” shows the keys.`,
    );
  const about = `${wordsOf(found)} of ${flags.key === undefined ? owners[0] : `the key ${keyId}`}`;
  if (flags.dryRun) {
    print(flags, { owners, erased: false, ...found }, `${about} would be erased.`);
    return 0;
  }
  const isAsked = process.stdin.isTTY && process.stderr.isTTY && !flags.yes;
  if (isAsked && !(await askOnTerminal(`Erase ${about}? This cannot be undone. [y/N] `))) {
    console.error('Nothing was erased.');
    return 1;
  }
  const erased: Counts = { jobs: 0, uploads: 0, sessions: 0 };
  if (flags.revoke && keyId !== undefined) await revokeFolderKey(folder, keyId, at);
  for (const owner of owners) {
    const ofServer = await eraseFiles(folder, { owner, keyId }, at);
    erased.jobs += ofServer.jobs;
    erased.uploads += ofServer.uploads;
    erased.sessions += await endSessions(folder, owner, keyId, at);
  }
  const isValid = label !== undefined && !flags.revoke;
  const advice = isValid
    ? ' The key itself still works if it did before: “tomaat keys revoke” revokes it.'
    : '';
  // The grace of files that another server may be storing again.
  const files = at.shared === undefined ? '' : ' Files that nobody else has are deleted within two minutes.';
  print(flags, { owners, erased: true, ...erased }, `${wordsOf(erased)} were erased.${files}${advice}`);
  return 0;
}

function print(flags: EraseFlags, facts: object, words: string): void {
  console.log(flags.json ? JSON.stringify(facts) : plain(words));
}

function wordsOf({ jobs, uploads, sessions }: Counts): string {
  const of = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`;
  return `${of(jobs, 'job')}, ${of(uploads, 'upload')} and ${of(sessions, 'session')}`;
}

/** Counts the data of these owners. */
async function count(folder: string, owners: readonly string[], at: SharedPlace): Promise<Counts> {
  const counts: Counts = { jobs: 0, uploads: 0, sessions: 0 };
  await using keys = await openKeyFolder(folder, undefined, at);
  for (const [index, db] of (keys.databases as unknown as readonly Kysely<unknown>[]).entries()) {
    for (const [field, table] of [
      ['jobs', 'job'],
      ['uploads', 'upload'],
      ['sessions', 'session'],
    ] as const) {
      // The others have sessions alone.
      if (table !== 'session' && keys.places[index] !== 'server') continue;
      const found = await sql<{
        count: number;
      }>`SELECT count(*) AS count FROM ${sql.table(table)} WHERE owner IN (${sql.join(owners)})`.execute(db);
      counts[field] += found.rows[0].count;
    }
  }
  return counts;
}

/** Owners that an earlier version stored in plain text, if no server has been started since. */
async function hideAll(folder: string, at: SharedPlace): Promise<void> {
  const pseudonyms = await openPseudonyms(folder);
  await using keys = await openKeyFolder(folder, undefined, at);
  // No earlier version stored any in a shared database.
  for (const [index, db] of keys.databases.entries())
    if (at.shared === undefined || keys.places[index] === 'gateway')
      await hideOwners(db as unknown as Kysely<unknown>, pseudonyms);
}

async function labelOf(folder: string, keyId: string, at: SharedPlace): Promise<string | undefined> {
  await using keys = await openKeyFolder(folder, undefined, at);
  for (const db of keys.databases) {
    const key = (await listKeys(db)).find(({ id }) => id === keyId);
    if (key) return key.label;
  }
  return undefined;
}

/** The label of a revoked key after it was erased. */
const erasedLabel = 'erased';

/**
 * Ends an owner's sessions with server and registry. The label of a revoked key is removed, because it may be a person's
 * name; its entries in the registry are removed too.
 */
async function endSessions(
  folder: string,
  owner: string,
  keyId: string | undefined,
  at: SharedPlace,
): Promise<number> {
  let ended = 0;
  await using keys = await openKeyFolder(folder, undefined, at);
  for (const [index, db] of keys.databases.entries()) {
    const result = await sql`DELETE FROM session WHERE owner = ${owner}`.execute(db);
    ended += Number(result.numAffectedRows ?? 0);
    const revoked = await (db as Kysely<KeySchema>)
      .updateTable('api_key')
      .set({ label: erasedLabel })
      .where('id', '=', keyId ?? '')
      .where('revoked_ms', 'is not', null)
      .executeTakeFirst();
    if (revoked.numUpdatedRows > 0n && keys.places[index] === 'registry')
      await sql`DELETE FROM entry WHERE key_id = ${keyId}`.execute(db);
    await emptyLog(keys.logs[index]);
  }
  return ended;
}

/** Erases jobs and uploads, in the server that holds the data folder or here. */
async function eraseFiles(folder: string, who: { owner: string; keyId?: string }, { shared }: SharedPlace) {
  if (shared !== undefined)
    return doAsHolder(folder, { type: 'eraseOwner', ...who }, async () => {
      throw new TomaatError(
        'CONFLICT',
        `No server runs on ${folder}. Where servers share a database, one of them erases: name the data folder of one that runs with --data.`,
      );
    });
  if (existsSync(serverDatabaseFile(folder)))
    return doAsHolder(folder, { type: 'eraseOwner', ...who }, () => eraseHere(folder, who));
  // A registry has only sessions.
  await leaveForAudit(folder, 'erasure.begun', { who: who.owner, keyId: who.keyId });
  return { jobs: 0, uploads: 0 };
}

/** Erases without a server; this process holds the data folder. */
async function eraseHere(folder: string, who: { owner: string; keyId?: string }) {
  await using opened = new AsyncDisposableStack();
  // A killed server left it; no server is using it.
  await rm(join(folder, 'work'), { recursive: true, force: true });
  const audit = opened.use(await openAudit(folder, { identity: await openIdentity(folder) }));
  const database = opened.use(await openServerDatabase(folder));
  const blobs = opened.use(await openBlobs(join(folder, 'blobs')));
  const jobs = createJobs({
    database,
    blobs,
    resultTtlMs: 0,
    maxQueued: 0,
    witness: createWitness([], audit),
  });
  const uploads = opened.use(
    await openUploads({
      database,
      blobs,
      folder: join(folder, 'uploads'),
      maxBytes: 0,
      isHeld: jobs.isHeld,
      witness: {
        async received() {},
        removed: ({ id }, _why, trx) => audit.recordIn(trx, 'upload.deleted', { who: who.owner, upload: id }),
      },
    }),
  );
  jobs.keepAlso(uploads.keeps);
  const erased = await eraseOwner(who, { audit, jobs, uploads, database, dataFolder: folder });
  // Files that a killed server had begun to receive belong to no owner.
  await blobs.sweepTemporary();
  for await (const digest of blobs.digests()) await blobs.delete(digest, () => jobs.isHeld(digest));
  return erased;
}
