import { existsSync, statSync } from 'node:fs';
import { readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import {
  begin,
  blobs,
  body,
  clock,
  database,
  kept,
  leaseMs,
  parts,
  reopen,
  rowOf,
  seen,
  sender,
  sha256,
  uploads,
  useUploads,
  whole,
} from '../../../test/uploads-fixture.ts';
import type { Upload } from '../database/upload-schema.ts';

useUploads();

describe('remove()', () => {
  it('deletes part and blob of its owner, and leaves a blob that something keeps', async () => {
    const { id } = await begin(3);
    await uploads.append('a', id, 0, body('ab'));
    await expect(uploads.remove('b', id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await uploads.remove('a', id);
    expect(existsSync(join(parts(), id))).toBe(false);
    for (const isKept of [true, false]) {
      const { id: stored, digest = '' } = await whole('abc');
      if (isKept) kept.add(digest);
      else kept.clear();
      await uploads.remove('a', stored);
      expect((await blobs.stat(digest)) !== undefined).toBe(isKept);
    }
    expect(seen.filter((line) => !line.startsWith('received'))).toEqual([
      ...['refused b', 'deleted a', 'deleted a', 'deleted a'],
    ]);
  });

  it('removeAll() takes those of one owner, and says how many', async () => {
    await begin(3);
    await whole('abc');
    const other = await begin(3, { owner: 'b' });
    seen.length = 0;
    expect(await uploads.removeAll('a')).toBe(2);
    expect(seen).toEqual(['deleted a', 'deleted a']);
    expect(await uploads.removeAll('a')).toBe(0);
    expect(await readdir(parts())).toEqual([other.id]);
    expect(await blobs.stat(sha256('abc'))).toBeUndefined();
  });
});

describe('use()', () => {
  it('renews the lease once a sixtieth of it is over', async () => {
    const { id, expiresMs } = await whole('abc');
    expect(await uploads.use('a', id)).toMatchObject({ id, digest: sha256('abc'), sizeBytes: 3 });
    clock.nowMs += 1000;
    await uploads.use('a', id);
    expect((await rowOf(id)).expires_ms).toBe(expiresMs);
    clock.nowMs += 1;
    await uploads.use('a', id);
    expect((await rowOf(id)).expires_ms).toBe(expiresMs + 1001);
  });

  it('refuses one that is not whole, with the bytes that are here', async () => {
    const { id } = await begin(5);
    await uploads.append('a', id, 0, body('ab'));
    await expect(uploads.use('a', id)).rejects.toMatchObject({
      code: 'NOT_READY',
      field: 'upload',
      message: expect.stringContaining('2 of its 5 bytes'),
    });
  });
});

describe('findBlob()', () => {
  it('finds whole uploads, inputs and outputs of an owner', async () => {
    const { digest = '' } = await whole('abc');
    expect(await uploads.findBlob('a', digest)).toEqual({ digest, sizeBytes: 3 });
    expect(await uploads.findBlob('b', digest)).toBeUndefined();
    expect(await uploads.findBlob('a', sha256('none'))).toBeUndefined();
    const job = { service: 's', state: 'queued', attempt: 0, request: '{}', created_ms: 1 } as const;
    const { db } = database;
    await db
      .insertInto('job')
      .values([
        { ...job, id: 'in', owner: 'reader' },
        { ...job, id: 'out', owner: 'maker' },
      ])
      .execute();
    const row = { position: 0, name: 'x', digest, size_bytes: 3 };
    await db
      .insertInto('job_input')
      .values({ ...row, job: 'in', file_name: 'x.nii' })
      .execute();
    await db
      .insertInto('job_output')
      .values({ ...row, job: 'out', attempt: 1, type: 'T', label: '', is_primary: 1, format: 'nii' })
      .execute();
    for (const owner of ['reader', 'maker'])
      expect(await uploads.findBlob(owner, digest)).toEqual({ digest, sizeBytes: 3 });
    clock.nowMs += leaseMs;
    expect(await uploads.findBlob('a', digest)).toBeUndefined();
  });

  it('says DAMAGED of a file that has another size than it should', async () => {
    const { digest = '' } = await whole('abc');
    await truncate(blobs.path(digest), 2);
    await expect(uploads.findBlob('a', digest)).rejects.toMatchObject({ code: 'DAMAGED' });
    await rm(blobs.path(digest));
    expect(await uploads.findBlob('a', digest)).toBeUndefined();
  });

  it('does not know the size of what text was taken out of', async () => {
    await reopen({
      async strip(_, keep) {
        await using writer = await blobs.create();
        await writer.write(Buffer.from('a_'));
        await writer.commit(keep);
        return true;
      },
    });
    const { digest = '' } = await whole('abc');
    expect(await uploads.findBlob('a', digest)).toEqual({
      digest: sha256('a_'),
      sizeBytes: 2,
      received: sha256('abc'),
    });
  });
});

describe('sweep()', () => {
  it('deletes at the end of the lease what is no longer written', async () => {
    const written = await begin(6);
    const { digest = '' } = await whole('abc', { owner: 'b' });
    const silent = sender();
    silent.send('a');
    const ended = uploads.append('a', written.id, 0, silent.body());
    await expect.poll(() => statSync(join(parts(), written.id)).size).toBe(1);
    clock.nowMs += leaseMs - 1;
    expect(await uploads.sweep()).toBe(0);
    clock.nowMs += 1;
    seen.length = 0;
    expect(await uploads.sweep()).toBe(1);
    expect(seen).toEqual(['expired b']);
    expect(await blobs.stat(digest)).toBeUndefined();
    expect(await uploads.keeps(digest)).toBe(false);
    silent.send('b');
    silent.end();
    // What was written to is as if new.
    await expect(ended).resolves.toMatchObject({ offsetBytes: 2, expiresMs: clock.nowMs + leaseMs });
    expect(await uploads.sweep()).toBe(0);
  });

  it('leaves a blob that another upload has too', async () => {
    const { digest = '' } = await whole('abc');
    clock.nowMs += 1;
    await whole('abc', { owner: 'b' });
    clock.nowMs += leaseMs - 1;
    expect(await uploads.sweep()).toBe(1);
    expect(await uploads.keeps(digest)).toBe(true);
    expect(await blobs.stat(digest)).toBeDefined();
  });
});

describe('recover()', () => {
  const setRow = (id: string, row: object) =>
    database.db.updateTable('upload').set(row).where('id', '=', id).execute();

  it('removes files of no upload, and rows whose bytes are nowhere', async () => {
    const { id } = await begin(5);
    await uploads.append('a', id, 0, body('ab'));
    const lost = await begin(5);
    const wrong = await begin(5, { expected: sha256('none') });
    for (const one of [lost, wrong]) await rm(join(parts(), one.id));
    await writeFile(join(parts(), 'stray'), 'x');
    await reopen();
    await uploads.recover();
    expect(await readdir(parts())).toEqual([id]);
    expect(await uploads.find('a', id)).toMatchObject({ offsetBytes: 2 });
    for (const one of [lost, wrong])
      await expect(uploads.find('a', one.id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('finishes complete uploads, and deletes those with another SHA-256', async () => {
    const [good, bad, more] = [
      await begin(3, { expected: sha256('abc') }),
      await begin(3, { expected: sha256('abc') }),
      await begin(3),
    ];
    for (const [upload, text] of [
      [good, 'abc'],
      [bad, 'abd'],
      [more, 'abcd'],
    ] as [Upload, string][]) {
      await writeFile(join(parts(), upload.id), text);
      await setRow(upload.id, { offset_bytes: 3 });
    }
    await uploads.recover();
    expect(await uploads.use('a', good.id)).toMatchObject({ digest: sha256('abc'), offsetBytes: 3 });
    await expect(uploads.find('a', bad.id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    // What lies behind its end was never safe.
    expect(await uploads.find('a', more.id)).toMatchObject({ offsetBytes: 3, digest: undefined });
    expect(await uploads.append('a', more.id, 3, body())).toMatchObject({ digest: sha256('abc') });
  });

  it('finds the blob of one that was put down before a crash', async () => {
    const { id, digest = '' } = await whole('abc');
    await setRow(id, { digest: null, offset_bytes: 0 });
    await uploads.recover();
    expect(await uploads.use('a', id)).toMatchObject({ digest, offsetBytes: 3 });
    // A blob of another size is none of it.
    await setRow(id, { digest: null, size_bytes: 4 });
    await uploads.recover();
    await expect(uploads.find('a', id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('says how much is left where the disk has lost some', async () => {
    const { id } = await begin(6);
    await uploads.append('a', id, 0, body('abcd'));
    await truncate(join(parts(), id), 3);
    await uploads.recover();
    expect(await uploads.find('a', id)).toMatchObject({ offsetBytes: 3 });
    // More than was promised is no loss.
    await writeFile(join(parts(), id), 'abcde');
    await uploads.recover();
    expect(await uploads.find('a', id)).toMatchObject({ offsetBytes: 3 });
  });

  /** An upload whose bytes have all arrived. */
  const arrived = async (text = 'abc') => {
    const { id } = await begin(text.length);
    await writeFile(join(parts(), id), text);
    await setRow(id, { offset_bytes: text.length });
    return id;
  };

  it.each<[string, unknown]>([
    ['of no kind', new RangeError('The value of "data" is out of range.')],
    ['of the server', new TomaatError('INTERNAL', 'It is failing.')],
    ['of the sender', new TomaatError('BAD_HEADER', 'It is damaged.')],
  ])('deletes an upload at an error %s, and completes the others', async (_, error) => {
    const [bad, good] = [await arrived('bad'), await arrived('good')];
    await reopen({
      async strip({ sizeBytes }) {
        if (sizeBytes === 3) throw error;
        return false;
      },
    });
    const lost: unknown[] = [];
    await uploads.recover((...one) => lost.push(one));
    expect(lost).toEqual([[bad, error]]);
    await expect(uploads.find('a', bad)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(await uploads.use('a', good)).toMatchObject({ digest: sha256('good') });
    expect(await readdir(parts())).toEqual([]);
  });

  it('leaves an upload for later while the disk is full', async () => {
    const id = await arrived();
    await reopen({ strip: () => Promise.reject(new TomaatError('DISK_FULL', '')) });
    for (let start = 0; start < 2; start++) {
      await uploads.recover(() => expect.unreachable());
      expect(await readdir(parts())).toEqual([id]);
    }
    await reopen();
    expect(await uploads.append('a', id, 3, body())).toMatchObject({ digest: sha256('abc') });
  });

  it('deletes an upload that ended the process at the last start', async () => {
    const id = await arrived();
    let starts = 0;
    // The end of the process: nothing after it happens.
    await reopen({ strip: () => new Promise(() => starts++) });
    void uploads.recover();
    await expect.poll(() => starts).toBe(1);
    await reopen({ strip: async () => starts++ < 0 });
    const lost: string[] = [];
    await uploads.recover((one) => lost.push(one));
    expect(lost).toEqual([id]);
    expect(starts).toBe(1);
    await expect(uploads.find('a', id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(await readdir(parts())).toEqual([]);
  });
});
