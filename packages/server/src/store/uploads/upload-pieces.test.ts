import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Kysely, sql } from 'kysely';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { onEachDatabase } from '../../../test/support/each-database.ts';
import { sender, sha256 } from '../../../test/uploads-fixture.ts';
import { type Blobs, openBlobs } from '../blobs/blobs.ts';
import type { Database } from '../database/database.ts';
import { openServerDatabase, type ServerSchema } from '../database/server-database.ts';
import { pieceBytesOf } from './upload-pieces.ts';
import { openUploads, type Uploads } from './uploads.ts';

/* Two servers with one database and one blob store; each has a folder of its own. */

const mib = 2 ** 20;
const owner = 'a';
let folder: string;
let database: Database<ServerSchema>;
let blobs: Blobs;
/** The same, as the second server has them. */
let blobsOfSecond: Blobs;
let servers: Uploads[];
const seen: string[] = [];
/** Called by the first server when it has counted a piece. */
let counted: () => Promise<void>;
let removed: (upload: { id: string }, trx: Kysely<ServerSchema>) => Promise<unknown>;

async function* body(...chunks: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* chunks;
}
const begin = (sizeBytes: number, expected?: string) =>
  servers[0].create({ owner, sizeBytes, expected, metadata: '', fileName: 'x.nii' });
const piecesOf = (id: string) =>
  database.db
    .selectFrom('upload_part')
    .selectAll()
    .where('upload', '=', id)
    .orderBy('offset_bytes')
    .execute();
async function blobsLeft(): Promise<string[]> {
  const digests: string[] = [];
  for await (const digest of blobs.digests()) digests.push(digest);
  return digests.sort();
}

onEachDatabase(({ newDatabase }) => {
  describe('uploads in pieces', () => {
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'tomaat-pieces-'));
      database = await openServerDatabase(folder, await newDatabase());
      blobs = await openBlobs(join(folder, 'blobs'));
      blobsOfSecond = await openBlobs(join(folder, 'blobs'));
    });
    afterAll(async () => {
      await blobs.close();
      await blobsOfSecond.close();
      await database.close();
      await rm(folder, { recursive: true, force: true });
    });
    beforeEach(async () => {
      seen.length = 0;
      counted = async () => {};
      removed = async () => {};
      servers = [];
      for (const [name, own] of [
        ['first', blobs],
        ['second', blobsOfSecond],
      ] as const)
        servers.push(
          await openUploads({
            database,
            blobs: own,
            folder: join(folder, name),
            shared: {
              hold: async () => {},
              release: () => (name === 'first' ? counted() : Promise.resolve()),
              async drop(digests) {
                for (const digest of digests) await own.delete(digest, () => servers[0].keeps(digest));
              },
            },
            maxBytes: 64 * mib,
            maxPerOwner: 10,
            isHeld: (digest) => servers[0].keeps(digest),
            witness: {
              received: async ({ digest }) => void seen.push(`received ${digest.slice(7, 15)}`),
              async removed(upload, why, trx) {
                seen.push(why);
                await removed(upload, trx as Kysely<ServerSchema>);
              },
            },
          }),
        );
    });
    afterEach(async () => {
      for (const server of servers) await server.close();
      for (const table of ['upload', 'upload_part', 'upload_writer'] as const)
        await database.db.deleteFrom(table).execute();
      for await (const digest of blobs.digests()) await blobs.delete(digest);
    });

    describe('create() at several servers at once', () => {
      it('begins no more for one owner than are allowed', async () => {
        const begun = await Promise.allSettled(
          Array.from({ length: 16 }, (_, i) => servers[i % 2].create({ owner, sizeBytes: 1, metadata: '' })),
        );
        const refused = begun.filter(({ status }) => status === 'rejected');
        expect(refused).toHaveLength(6);
        for (const one of refused) expect(one).toMatchObject({ reason: { code: 'BUSY' } });
        expect(await database.db.selectFrom('upload').select('id').execute()).toHaveLength(10);
      });
    });

    describe('groups.put() at several servers at once', () => {
      it('gives a name the files of one request alone', async () => {
        const put = async (server: Uploads, texts: readonly string[]) => {
          const files = await Promise.all(
            texts.map(async (text) => {
              await using writer = await blobs.create();
              await writer.write(Buffer.from(text));
              const file = await writer.commit();
              return { ...file, path: blobs.path(file.digest), fileName: text };
            }),
          );
          await server.groups.put({ owner, name: 'n', holder: 'h' }, files, () => {});
        };
        await put(servers[0], ['old']);
        await Promise.all(
          ['a', 'b', 'c', 'd', 'e', 'f'].map((of, i) => put(servers[i % 2], [`${of}1`, `${of}2`])),
        );
        const named = await database.db.selectFrom('upload').select(['file_name', 'name']).execute();
        const found = await servers[1].groups.find({ owner, name: 'n' });
        expect(found?.ids).toHaveLength(2);
        expect(new Set(named.map((row) => row.file_name?.[0]))).toHaveProperty('size', 1);
      });
    });

    describe('append() at several servers', () => {
      it('joins what each of them took, in turn, to the file that was sent', async () => {
        const file = randomBytes(2.5 * mib);
        const { id } = await begin(file.length, sha256(file));
        const cuts = [0, 100, 1.2 * mib, 1.2 * mib + 1, file.length].map(Math.floor);
        for (let at = 0; at + 1 < cuts.length; at++) {
          const server = servers[at % 2];
          const upload = await server.append(
            owner,
            id,
            cuts[at],
            body(file.subarray(cuts[at], cuts[at + 1])),
          );
          expect(upload.offsetBytes).toBe(cuts[at + 1]);
          if (at === 1) {
            const sizes = (await piecesOf(id)).map(({ offset_bytes, size_bytes }) => [
              offset_bytes,
              size_bytes,
            ]);
            expect(sizes).toEqual([
              [0, 100],
              [100, mib],
              [100 + mib, cuts[2] - 100 - mib],
            ]);
          }
        }
        expect(await servers[0].use(owner, id)).toMatchObject({
          digest: sha256(file),
          sizeBytes: file.length,
        });
        expect(seen).toEqual([`received ${sha256(file).slice(7, 15)}`]);
        expect(await piecesOf(id)).toEqual([]);
        expect(await blobsLeft()).toEqual([sha256(file)]);
        for (const name of ['first', 'second']) expect(await readdir(join(folder, name))).toEqual([]);
      });

      it('refuses another offset, and more than was announced, and keeps what came before', async () => {
        const { id } = await begin(10);
        await servers[0].append(owner, id, 0, body(Buffer.from('abc')));
        await expect(servers[1].append(owner, id, 2, body(Buffer.from('c')))).rejects.toMatchObject({
          code: 'CONFLICT',
          detail: { offsetBytes: 3 },
        });
        const tooMuch = servers[1].append(owner, id, 3, body(Buffer.from('de'), Buffer.from('123456')));
        await expect(tooMuch).rejects.toMatchObject({ code: 'BAD_REQUEST' });
        expect(await servers[0].find(owner, id)).toMatchObject({ offsetBytes: 5 });
      });

      it('deletes what has another SHA-256, with its pieces', async () => {
        const { id } = await begin(6, sha256('abcdef'));
        await servers[0].append(owner, id, 0, body(Buffer.from('abc')));
        const wrong = servers[1].append(owner, id, 3, body(Buffer.from('xyz')));
        await expect(wrong).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'sha256' });
        expect(await blobsLeft()).toEqual([]);
        await expect(servers[0].find(owner, id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
      });

      it('refuses to continue an upload that is in too many pieces', async () => {
        const { id } = await begin(20_000);
        await sql`WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
      INSERT INTO upload_part (upload, offset_bytes, size_bytes, digest) SELECT ${id}, i, 1, 'x' FROM n`.execute(
          database.db,
        );
        await database.db.updateTable('upload').set({ offset_bytes: 10_000 }).execute();
        await expect(servers[0].append(owner, id, 10_000, body(Buffer.from('x')))).rejects.toThrow(
          '10000 parts',
        );
      });
    });

    describe('append() while another server writes', () => {
      it('ends a silent request there, and continues after its last byte', async () => {
        const { id } = await begin(6, sha256('abcdef'));
        const { send, body: hanging } = sender();
        const first = servers[0].append(owner, id, 0, hanging());
        first.catch(() => {});
        send('abc');
        await expect
          .poll(() => database.db.selectFrom('upload_writer').selectAll().execute())
          .toMatchObject([{ upload: id }]);
        expect(await servers[1].find(owner, id)).toMatchObject({ offsetBytes: 3 });
        await expect(first).rejects.toMatchObject({ code: 'CONFLICT' });
        expect(await servers[1].append(owner, id, 3, body(Buffer.from('def')))).toMatchObject({
          digest: sha256('abcdef'),
        });
        expect(await database.db.selectFrom('upload_writer').selectAll().execute()).toEqual([]);
      });

      it('waits for the row of a killed server to end, and continues', async () => {
        const { id } = await begin(3);
        await sql`INSERT INTO upload_writer (upload, token, until_ms, is_wanted)
      VALUES (${id}, 'of a killed server', ${database.nowMs} + 300, 0)`.execute(database.db);
        const begunMs = performance.now();
        const upload = await servers[0].append(owner, id, 0, body(Buffer.from('abc')));
        expect(upload.digest).toBe(sha256('abc'));
        expect(performance.now() - begunMs).toBeGreaterThan(250);
      });

      it('lets no server count bytes that another one has counted', async () => {
        const { id } = await begin(6, sha256('abcdef'));
        const { send, end, body: paused } = sender();
        const first = servers[0].append(owner, id, 0, paused());
        first.catch(() => {});
        send('xyz');
        await expect
          .poll(() => database.db.selectFrom('upload_writer').selectAll().execute())
          .toMatchObject([{ upload: id }]);
        // As if this server had been stopped for longer than its row counts.
        await database.db.deleteFrom('upload_writer').execute();
        await servers[1].append(owner, id, 0, body(Buffer.from('abc')));
        end();
        await expect(first).rejects.toMatchObject({ code: 'CONFLICT' });
        expect(await blobsLeft()).toEqual([sha256('abc')]);
        const upload = await servers[1].append(owner, id, 3, body(Buffer.from('def')));
        expect(upload.digest).toBe(sha256('abcdef'));
      });
    });

    describe('find()', () => {
      it('completes what a killed server had received and not completed', async () => {
        const { id } = await begin(6, sha256('abcdef'));
        await servers[0].append(owner, id, 0, body(Buffer.from('abc')));
        const rest = await blobs.create();
        await rest.write(Buffer.from('def'));
        const { digest } = await rest.commit();
        await database.db
          .insertInto('upload_part')
          .values({ upload: id, offset_bytes: 3, size_bytes: 3, digest })
          .execute();
        await database.db.updateTable('upload').set({ offset_bytes: 6 }).execute();
        expect(await servers[1].find(owner, id)).toMatchObject({ digest: sha256('abcdef'), offsetBytes: 6 });
        expect(await blobsLeft()).toEqual([sha256('abcdef')]);
      });
    });

    describe('append() of a server that was paused at the end', () => {
      it.each(['', 'announced '])(
        'leaves an %supload as another server has completed it',
        async (isAnnounced) => {
          const { id } = await begin(6, isAnnounced ? sha256('abcdef') : undefined);
          await servers[0].append(owner, id, 0, body(Buffer.from('abc')));
          const paused = Promise.withResolvers<void>();
          const resumed = Promise.withResolvers<void>();
          counted = async () => {
            paused.resolve();
            await resumed.promise;
          };
          const first = servers[0].append(owner, id, 3, body(Buffer.from('def')));
          first.catch(() => {});
          await paused.promise;
          // The row of a server that is paused ends.
          await database.db.deleteFrom('upload_writer').execute();
          const whole = { digest: sha256('abcdef'), offsetBytes: 6 };
          const found = await servers[1].find(owner, id).finally(resumed.resolve);
          expect(found).toMatchObject(whole);
          expect(await first).toMatchObject(whole);
          expect(await servers[1].use(owner, id)).toMatchObject(whole);
          expect(seen).toEqual([`received ${whole.digest.slice(7, 15)}`]);
          expect(await blobsLeft()).toEqual([whole.digest]);
        },
      );
    });

    describe('remove() and sweep()', () => {
      it('leave a piece that another upload has too', async () => {
        const one = await begin(6);
        const two = await begin(6);
        for (const { id } of [one, two]) await servers[0].append(owner, id, 0, body(Buffer.from('abc')));
        await servers[1].remove(owner, one.id);
        expect(await blobsLeft()).toEqual([sha256('abc')]);
        await servers[1].remove(owner, two.id);
        expect(await blobsLeft()).toEqual([]);
        expect(seen).toEqual(['deleted', 'deleted']);
      });

      it('take away the pieces of uploads that no longer exist or are complete', async () => {
        const { id } = await begin(6);
        await servers[0].append(owner, id, 0, body(Buffer.from('abc')));
        await servers[0].sweep();
        expect(await piecesOf(id)).toHaveLength(1);
        await database.db.deleteFrom('upload').execute();
        await servers[1].sweep();
        expect(await piecesOf(id)).toEqual([]);
        expect(await blobsLeft()).toEqual([]);
      });

      it('leave what was used again while the sweep deleted another', async () => {
        const ids = [(await begin(6)).id, (await begin(6)).id];
        for (const id of ids) await servers[0].append(owner, id, 0, body(Buffer.from(`ab${id[0]}`)));
        await database.db.updateTable('upload').set({ expires_ms: 1 }).execute();
        removed = ({ id }, trx) =>
          trx
            .updateTable('upload')
            .set({ expires_ms: Date.now() + 60_000 })
            .where('id', '<>', id)
            .execute();
        expect(await servers[0].sweep()).toBe(1);
        const [{ id }] = await database.db.selectFrom('upload').select('id').execute();
        expect(await servers[1].find(owner, id)).toMatchObject({ offsetBytes: 3 });
        expect(await piecesOf(id)).toHaveLength(1);
        expect(await blobsLeft()).toHaveLength(1);
      });

      it('records once what two servers find expired', async () => {
        const { id } = await begin(6);
        await servers[0].append(owner, id, 0, body(Buffer.from('abc')));
        await database.db.updateTable('upload').set({ expires_ms: 1 }).execute();
        const counts = await Promise.all(servers.map((server) => server.sweep()));
        expect(counts.sort()).toEqual([0, 1]);
        expect(seen).toEqual(['expired']);
        expect(await blobsLeft()).toEqual([]);
      });
    });
  });
});

describe('pieceBytesOf()', () => {
  it('is a 64th of the upload, from 1 to 64 MiB', () => {
    expect([1, 64 * mib, 64 * mib + 1, 640 * mib, 2 ** 40].map(pieceBytesOf)).toEqual([
      mib,
      mib,
      mib + 1,
      10 * mib,
      64 * mib,
    ]);
  });
});
