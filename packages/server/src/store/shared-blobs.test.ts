import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Kysely, sql } from 'kysely';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { postgresBin, startPostgres } from '../../test/support/postgres.ts';
import { sha256 } from '../../test/uploads-fixture.ts';
import { type Blobs, openBlobs } from './blobs/blobs.ts';
import type { Database } from './database/database.ts';
import type { JobsSchema } from './database/job-schema.ts';
import { openServerDatabase, type ServerSchema } from './database/server-database.ts';
import { createBlobHolds } from './jobs/blob-holds.ts';
import { createSharedHolds } from './jobs/shared-holds.ts';
import { openUploads } from './uploads/uploads.ts';

/* Two servers, one PostgreSQL database, one blob store: what one of them deletes while the other begins to refer to it. */

describe.skipIf(!postgresBin)('a blob that several servers share', () => {
  let folder: string;
  let database: Database<ServerSchema>;
  let blobs: Blobs;
  /** The same store at another server. */
  let elsewhere: Blobs;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-shared-blobs-'));
    database = await openServerDatabase(folder, await (await startPostgres()).database());
    blobs = await openBlobs(join(folder, 'blobs'), { isShared: true });
    elsewhere = await openBlobs(join(folder, 'blobs'), { isShared: true });
  });
  afterAll(async () => {
    await blobs?.close();
    await elsewhere?.close();
    await database?.close();
    await rm(folder, { recursive: true, force: true });
  });
  beforeEach(async () => {
    for (const table of ['upload', 'upload_part', 'blob_hold', 'blob_mark'] as const)
      await database.db.deleteFrom(table).execute();
  });

  /** The holds of a server, whose transactions are those of `at`. */
  const holdsOf = (server: string, at: Database<ServerSchema> = database) => {
    const jobsAt = at as unknown as Database<JobsSchema>;
    return createSharedHolds({ database: jobsAt, blobs, server, graceMs: 0 });
  };
  async function store(text: string): Promise<string> {
    await using writer = await blobs.create();
    await writer.write(Buffer.from(text));
    return (await writer.commit()).digest;
  }
  /** Resolves when a transaction of this database waits for a lock that another has. */
  const untilOneWaits = () =>
    expect
      .poll(
        async () =>
          (
            await sql`SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
              WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted`.execute(
              database.db,
            )
          ).rows.length,
        { interval: 5 },
      )
      .toBe(1);

  it('stays where it is held before another server has finished looking', async () => {
    const digest = await store('held');
    const written = Promise.withResolvers<void>();
    const commit = Promise.withResolvers<void>();
    // A server that is slow to commit its hold.
    const slow = holdsOf('slow', {
      ...database,
      transaction: (work) =>
        database.transaction(async (trx) => {
          const result = await work(trx);
          written.resolve();
          await commit.promise;
          return result;
        }),
    });
    const other = holdsOf('other');
    const held = slow.hold(digest, '');
    held.catch(() => {});
    await written.promise;
    await other.mark([digest]);
    const swept = other.sweep((one, within) => elsewhere.delete(one, () => other.isHeld(one), within));
    await Promise.race([swept, untilOneWaits()]);
    commit.resolve();
    await held;
    await swept;
    expect(await blobs.stat(digest)).toBeDefined();
  });

  it('stays where an upload counts a piece that was to be deleted', async () => {
    const digest = await store('abc');
    expect(digest).toBe(sha256('abc'));
    const db = database.db as unknown as Kysely<JobsSchema>;
    const other = createBlobHolds(db, elsewhere, holdsOf('other'));
    await other.drop([digest]);
    const own = createBlobHolds(db, blobs, holdsOf('own'));
    let isAboutToCount = false;
    await using uploads = await openUploads({
      // The other server sweeps at the last moment: before the transaction that counts the piece.
      database: {
        ...database,
        async transaction(work) {
          if (isAboutToCount) await other.sweep();
          isAboutToCount = false;
          return database.transaction(work);
        },
      },
      blobs,
      folder: join(folder, 'uploads'),
      shared: own,
      maxBytes: 1000,
      isHeld: own.isHeld,
    });
    other.keepAlso(uploads.keeps);
    const { id } = await uploads.create({ owner: 'a', sizeBytes: 6, metadata: '' });
    isAboutToCount = true;
    async function* body(text: string) {
      yield Buffer.from(text);
    }
    await uploads.append('a', id, 0, body('abc'));
    expect(isAboutToCount).toBe(false);
    const whole = await uploads.append('a', id, 3, body('def'));
    expect(whole.digest).toBe(sha256('abcdef'));
  });
});
