import { readdirSync, statSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Blobs, openBlobs } from '../blobs/blobs.ts';
import type { Database } from '../database/database.ts';
import { openServerDatabase, type ServerSchema } from '../database/server-database.ts';
import { openUploads, type Uploads } from './uploads.ts';

/* What uploads do on a disk of 100 bytes, of which files take what they have. */

const diskBytes = 100;
let folder: string;
let database: Database<ServerSchema>;
let blobs: Blobs;
let uploads: Uploads;
let nowMs: number;
let removed: string[];

const bytesIn = (path: string) =>
  readdirSync(path).reduce((sum, name) => sum + statSync(join(path, name)).size, 0);

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-room-'));
  database = await openServerDatabase(folder);
  blobs = await openBlobs(join(folder, 'blobs'));
  blobs.spareBytes = async () =>
    diskBytes - bytesIn(join(folder, 'blobs', 'sha256')) - bytesIn(join(folder, 'uploads'));
  nowMs = 10_000_000;
  removed = [];
  uploads = await openUploads({
    database,
    blobs,
    folder: join(folder, 'uploads'),
    maxBytes: 1000,
    isHeld: (digest) => uploads.keeps(digest),
    witness: {
      received() {},
      removed: ({ owner, id }, why) => void removed.push(`${why} ${owner} ${id}`),
    },
    now: () => nowMs,
  });
});
afterEach(async () => {
  await uploads.close();
  await blobs.close();
  await database.close();
  await rm(folder, { recursive: true, force: true });
});

const begin = async (owner: string, sizeBytes: number) =>
  (await uploads.create({ owner, sizeBytes, metadata: '' })).id;
async function* body(bytes: number, value: number) {
  yield new Uint8Array(bytes).fill(value);
}
let value = 0;
/** An upload of so many bytes that are all here. */
async function store(owner: string, bytes: number): Promise<string> {
  const id = await begin(owner, bytes);
  await uploads.append(owner, id, 0, body(bytes, ++value));
  return id;
}
const ids = async () =>
  (await database.db.selectFrom('upload').select('id').execute()).map(({ id }) => id).sort();

describe('makeRoom()', () => {
  it('deletes nothing where there is room to the last byte', async () => {
    const id = await store('a', 60);
    // It could be deleted: its owner has more, and has not used it lately.
    nowMs += 100_000;
    await begin('b', 40);
    expect(await ids()).toHaveLength(2);
    await uploads.makeRoom('c', 40);
    expect(await ids()).toHaveLength(2);
    expect((await uploads.find('a', id)).offsetBytes).toBe(60);
    await expect(uploads.makeRoom('a', 41)).rejects.toMatchObject({ code: 'DISK_FULL' });
    expect(removed).toEqual([]);
  });

  it('counts the remaining bytes of unfinished uploads', async () => {
    const id = await begin('a', 60);
    await uploads.append('a', id, 0, body(20, 1));
    await expect(begin('a', 41)).rejects.toMatchObject({ code: 'DISK_FULL' });
    await begin('a', 40);
    // What a job writes is not promised to anybody.
    await uploads.makeRoom('a', 80);
    await expect(uploads.makeRoom('a', 81)).rejects.toMatchObject({ code: 'DISK_FULL' });
    expect(removed).toEqual([]);
  });

  it('deletes a larger owner’s least recently used files, no more than needed', async () => {
    nowMs += 1000;
    const newer = await store('a', 30);
    nowMs -= 1000;
    const older = await store('a', 30);
    const busiest = await store('a', 35);
    nowMs += 100_000;
    const id = await begin('b', 30);
    expect(removed).toEqual([`expired a ${older}`]);
    expect(await ids()).toEqual([id, newer, busiest].sort());
    expect(await readdir(join(folder, 'blobs', 'sha256'))).toHaveLength(2);
  });

  it('leaves what its owner used in the last minute', async () => {
    const id = await store('a', 80);
    nowMs += 59_999;
    await expect(begin('b', 30)).rejects.toMatchObject({ code: 'DISK_FULL' });
    nowMs += 1;
    await begin('b', 30);
    expect(removed).toEqual([`expired a ${id}`]);
  });

  it('deletes nothing that a job reads', async () => {
    const id = await store('a', 80);
    const { digest } = await uploads.use('a', id);
    const job = { id: 'j', service: 's', state: 'queued', attempt: 0, owner: 'a' } as const;
    await database.db
      .insertInto('job')
      .values({ ...job, request: '{}', created_ms: 1 })
      .execute();
    await database.db
      .insertInto('job_input')
      .values({ job: 'j', position: 0, name: 'x', file_name: 'x.nii', digest, size_bytes: 80 })
      .execute();
    nowMs += 100_000;
    await expect(begin('b', 30)).rejects.toMatchObject({ code: 'DISK_FULL' });
    expect(await ids()).toEqual([id]);
  });

  it('ends a request that writes to a deleted upload, with the reason', async () => {
    const kept = await begin('a', 60);
    await uploads.append('a', kept, 0, body(20, 1));
    const id = await begin('a', 40);
    let wake = () => {};
    const silence = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const writing = uploads
      .append(
        'a',
        id,
        0,
        (async function* () {
          yield new Uint8Array(5);
          await silence;
        })(),
      )
      .catch((error: unknown) => error);
    await expect.poll(() => statSync(join(folder, 'uploads', id)).size).toBe(5);
    await begin('b', 10);
    expect(await writing).toBeInstanceOf(TomaatError);
    expect(await writing).toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining('The disk is full'),
    });
    wake();
    expect(removed).toEqual([`expired a ${id}`]);
  });
});
