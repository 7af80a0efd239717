import { statSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import {
  begin,
  blobs,
  body,
  clock,
  database,
  leaseMs,
  partOf,
  parts,
  reopen,
  rowOf,
  seen,
  sender,
  sha256,
  startMs,
  uploads,
  useUploads,
  whole,
} from '../../../test/uploads-fixture.ts';

useUploads();

describe('create()', () => {
  it('begins an empty part that its owner finds for the time of a lease', async () => {
    const upload = await begin(7, { fileName: 'x.nii', metadata: 'filename eA==' });
    expect(upload).toEqual({
      id: expect.stringMatching(/^[\w-]{22}$/),
      sizeBytes: 7,
      offsetBytes: 0,
      digest: undefined,
      received: undefined,
      fileName: 'x.nii',
      metadata: 'filename eA==',
      expiresMs: startMs + leaseMs,
    });
    const file = statSync(join(parts(), upload.id));
    expect([file.size, file.mode & 0o777]).toEqual([0, 0o600]);
    clock.nowMs += leaseMs - 1;
    expect(await uploads.find('a', upload.id)).toEqual(upload);
    clock.nowMs += 1;
    await expect(uploads.find('a', upload.id)).rejects.toMatchObject({ code: 'NOT_FOUND', field: 'upload' });
    expect(seen).toEqual([]);
  });

  it('refuses more than the largest size, and takes that', async () => {
    await expect(begin(10_000_001)).rejects.toMatchObject({
      code: 'UPLOAD_TOO_LARGE',
      detail: { maxUploadBytes: 10_000_000 },
    });
    await begin(10_000_000);
    expect(await readdir(parts())).toHaveLength(1);
  });

  it('refuses one more than an owner may have, and no other owner', async () => {
    await reopen({ maxPerOwner: 2 });
    await begin(1);
    const { id } = await begin(1);
    await expect(begin(1)).rejects.toMatchObject({
      code: 'BUSY',
      message: expect.stringContaining('You already have 2 uploads'),
    });
    await begin(1, { owner: 'b' });
    await uploads.remove('a', id);
    await begin(1);
  });

  it('allows an owner 200, each for an hour, by default', async () => {
    await reopen({ maxPerOwner: undefined, leaseMs: undefined, now: undefined });
    expect(uploads.leaseMs).toBe(3_600_000);
    const beforeMs = Date.now();
    const { id, expiresMs } = await begin(1);
    expect(expiresMs - beforeMs).toBeGreaterThanOrEqual(3_600_000);
    expect(expiresMs - beforeMs).toBeLessThan(3_660_000);
    const row = await rowOf(id);
    const rows = Array.from({ length: 198 }, (_, at) => ({ ...row, id: `other-${at}` }));
    await database.db.insertInto('upload').values(rows).execute();
    await begin(1);
    await expect(begin(1)).rejects.toMatchObject({ code: 'BUSY' });
  });

  it('leaves no file where the row cannot be written', async () => {
    await expect(begin(1, { metadata: null as never })).rejects.toThrow('NOT NULL');
    expect(await readdir(parts())).toEqual([]);
  });
});

describe('find()', () => {
  it('knows uploads of their owner alone, and says who asked for another’s', async () => {
    const { id } = await begin(1);
    const other = await uploads.find('b', id).catch((error: TomaatError) => error);
    const none = await uploads.find('b', 'none').catch((error: TomaatError) => error);
    expect(other).toMatchObject({ code: 'NOT_FOUND', field: 'upload' });
    // The same answer as for one that is not there.
    expect((other as TomaatError).message).toBe((none as TomaatError).message);
    expect(seen).toEqual(['refused b']);
    await reopen({ witness: undefined });
    await expect(uploads.find('b', id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});

describe('append()', () => {
  it('joins the bytes of several requests into a blob, renewing the lease', async () => {
    const { id } = await begin(9);
    clock.nowMs += 100;
    expect(await uploads.append('a', id, 0, body('abc', 'd'))).toMatchObject({
      offsetBytes: 4,
      digest: undefined,
      expiresMs: startMs + 100 + leaseMs,
    });
    expect(await partOf(id)).toBe('abcd');
    expect(seen).toEqual([]);
    clock.nowMs += 100;
    const upload = await uploads.append('a', id, 4, body('efgh', 'i'));
    expect(upload).toMatchObject({
      offsetBytes: 9,
      digest: sha256('abcdefghi'),
      received: undefined,
      expiresMs: startMs + 200 + leaseMs,
    });
    expect(await readFile(blobs.path(sha256('abcdefghi')), 'utf8')).toBe('abcdefghi');
    expect(await readdir(parts())).toEqual([]);
    expect(seen).toEqual([`received a ${sha256('abcdefghi').slice(7, 11)}`]);
    // Whole as it is, it takes nothing more, and says so.
    expect(await uploads.append('a', id, 9, body())).toEqual(upload);
    expect(seen).toHaveLength(1);
  });

  it('finds the SHA-256 of what another process began', async () => {
    const { id } = await begin(6, { expected: sha256('abcdef') });
    await uploads.append('a', id, 0, body('abc'));
    await reopen();
    await uploads.append('a', id, 3, body('d'));
    expect(await uploads.append('a', id, 4, body('ef'))).toMatchObject({ digest: sha256('abcdef') });
  });

  it('makes an empty upload whole with an empty request', async () => {
    const { id } = await begin(0);
    expect(await uploads.append('a', id, 0, body())).toMatchObject({ digest: sha256('') });
  });

  it('refuses another offset than that where it is', async () => {
    const { id } = await begin(9);
    await uploads.append('a', id, 0, body('abcd'));
    for (const offset of [0, 3, 5, 9])
      await expect(uploads.append('a', id, offset, body('xxxxx'))).rejects.toMatchObject({
        code: 'CONFLICT',
        field: 'Upload-Offset',
        detail: { offsetBytes: 4 },
      });
    expect(await partOf(id)).toBe('abcd');
    expect(await uploads.append('a', id, 4, body('efghi'))).toMatchObject({ digest: sha256('abcdefghi') });
  });

  it('refuses one byte more than was announced, and keeps what came before', async () => {
    const { id } = await begin(4);
    await expect(uploads.append('a', id, 0, body('abc', 'de'))).rejects.toMatchObject({
      code: 'BAD_REQUEST',
      message: expect.stringContaining('4 bytes'),
    });
    expect(await uploads.find('a', id)).toMatchObject({ offsetBytes: 3 });
    expect(await uploads.append('a', id, 3, body('d'))).toMatchObject({ digest: sha256('abcd') });
  });

  it('keeps what came before a connection broke', async () => {
    const { id } = await begin(8);
    const cut = sender();
    cut.send('abc');
    cut.end(new Error('cut'));
    await expect(uploads.append('a', id, 0, cut.body())).rejects.toThrow('cut');
    expect(await uploads.find('a', id)).toMatchObject({ offsetBytes: 3 });
    expect(await uploads.append('a', id, 3, body('defgh'))).toMatchObject({ digest: sha256('abcdefgh') });
  });

  it('truncates what an earlier process wrote without syncing', async () => {
    const { id } = await begin(6);
    await uploads.append('a', id, 0, body('abc'));
    await writeFile(join(parts(), id), 'abcXYZ');
    await uploads.append('a', id, 3, body('d'));
    expect(await partOf(id)).toBe('abcd');
  });

  it('counts every 2 MiB as safe while more comes', async () => {
    const mebibyte = new Uint8Array(2 ** 20).fill(7);
    const { id } = await begin(5 * 2 ** 20);
    const slow = sender();
    const ended = uploads.append('a', id, 0, slow.body());
    const size = () => statSync(join(parts(), id)).size;
    slow.send(mebibyte);
    slow.send(mebibyte.subarray(1));
    await expect.poll(size).toBe(2 ** 21 - 1);
    expect((await rowOf(id)).offset_bytes).toBe(0);
    slow.send(mebibyte.subarray(0, 1));
    await expect.poll(async () => (await rowOf(id)).offset_bytes).toBe(2 ** 21);
    slow.send(mebibyte);
    await expect.poll(size).toBe(3 * 2 ** 20);
    expect((await rowOf(id)).offset_bytes).toBe(2 ** 21);
    slow.end();
    expect(await ended).toMatchObject({ offsetBytes: 3 * 2 ** 20 });
  });

  it('deletes what has another SHA-256 than was announced', async () => {
    const { id } = await begin(3, { expected: sha256('abc') });
    await expect(uploads.append('a', id, 0, body('abd'))).rejects.toMatchObject({
      code: 'BAD_INPUT',
      field: 'sha256',
      message: expect.stringContaining(sha256('abd').slice(7)),
    });
    await expect(uploads.find('a', id)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(await readdir(parts())).toEqual([]);
    expect(await blobs.stat(sha256('abd'))).toBeUndefined();
    expect(seen).toEqual([]);
  });

  it('stores the file without its identifying text', async () => {
    const asked: unknown[] = [];
    await reopen({
      async strip({ path, name, sizeBytes }, keep) {
        asked.push([await readFile(path, 'utf8'), name, sizeBytes]);
        if (name !== 'x.nii') return false;
        await using writer = await blobs.create();
        await writer.write(Buffer.from('ab__'));
        await writer.commit(keep);
        return true;
      },
    });
    const upload = await whole('abcd', { fileName: 'x.nii', expected: sha256('abcd') });
    expect(upload).toMatchObject({ digest: sha256('ab__'), received: sha256('abcd'), offsetBytes: 4 });
    expect(await readdir(parts())).toEqual([]);
    expect(await blobs.stat(sha256('abcd'))).toBeUndefined();
    expect(seen).toEqual([`received a ${sha256('abcd').slice(7, 11)}`]);
    expect(await whole('efg')).toMatchObject({ digest: sha256('efg'), received: undefined });
    expect(asked).toEqual([
      ['abcd', 'x.nii', 4],
      ['efg', '', 3],
    ]);
  });
});

it('create() stores what is left of a name that is hidden, and no metadata', async () => {
  const asked: string[] = [];
  await reopen({
    strip: async ({ name }) => asked.push(name) < 0,
    hideName: (name) => name.slice(-4),
  });
  const begun = await begin(3, { fileName: 'Meyer.nii', metadata: 'filename TWV5ZXI=' });
  expect(begun).toMatchObject({ fileName: '.nii', metadata: '' });
  expect(await rowOf(begun.id)).toMatchObject({ file_name: '.nii', metadata: '' });
  expect(await uploads.append('a', begun.id, 0, body('abc'))).toMatchObject({ fileName: '.nii' });
  expect(asked).toEqual(['.nii']);
  expect(await begin(3)).toMatchObject({ fileName: undefined });
});

describe('append() of a file that is refused when it is complete', () => {
  it('deletes it if its sender is at fault, and keeps it otherwise', async () => {
    let code: 'BAD_VOXELS' | 'DISK_FULL' = 'BAD_VOXELS';
    await reopen({
      async strip() {
        throw new TomaatError(code, 'It names a patient.');
      },
    });
    await expect(whole('abcd')).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    expect(await readdir(parts())).toEqual([]);
    code = 'DISK_FULL';
    await expect(whole('abcd')).rejects.toMatchObject({ code: 'DISK_FULL' });
    expect(await readdir(parts())).toHaveLength(1);
    // At the next start the sender is at fault: the server starts without the file.
    code = 'BAD_VOXELS';
    await uploads.recover();
    expect(await readdir(parts())).toEqual([]);
  });
});

describe('append() while another request writes', () => {
  it('ends a silent one, and continues after its last byte', async () => {
    const { id } = await begin(6);
    const silent = sender();
    silent.send('abc');
    const first = uploads.append('a', id, 0, silent.body()).catch((error: unknown) => error);
    await expect.poll(() => statSync(join(parts(), id)).size).toBe(3);
    expect(await uploads.find('a', id)).toMatchObject({ offsetBytes: 3 });
    expect(await first).toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining('already continuing'),
    });
    expect(await uploads.append('a', id, 3, body('def'))).toMatchObject({ digest: sha256('abcdef') });
  });

  it('waits for one that still sends', async () => {
    const rest = 'bcdefghijklmnopqrstuvwxyz'.repeat(2);
    const { id } = await begin(1 + rest.length);
    const busy = sender();
    busy.send('a');
    const first = uploads.append('a', id, 0, busy.body());
    await expect.poll(() => statSync(join(parts(), id)).size).toBe(1);
    const found = uploads.find('a', id);
    let isFound = false;
    void found.then(() => {
      isFound = true;
    });
    for (const letter of rest) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      expect(isFound).toBe(false);
      busy.send(letter);
    }
    busy.end();
    expect(await first).toMatchObject({ digest: sha256(`a${rest}`) });
    expect(await found).toMatchObject({ offsetBytes: 1 + rest.length, digest: sha256(`a${rest}`) });
  });

  it('keeps two that wait for it from writing at once', async () => {
    const { id } = await begin(6);
    const silent = sender();
    silent.send('a');
    const first = uploads.append('a', id, 0, silent.body()).catch(() => undefined);
    await expect.poll(() => statSync(join(parts(), id)).size).toBe(1);
    let writing = 0;
    let most = 0;
    async function* counted(text: string) {
      most = Math.max(most, ++writing);
      try {
        for (const letter of text) {
          yield Buffer.from(letter);
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      } finally {
        writing--;
      }
    }
    const next = await Promise.allSettled(
      ['bcdef', 'BCDEF'].map((text) => uploads.append('a', id, 1, counted(text))),
    );
    await first;
    expect(most).toBe(1);
    expect(next).toMatchObject([
      { status: 'fulfilled', value: { digest: sha256('abcdef') } },
      { status: 'rejected', reason: { code: 'CONFLICT', detail: { offsetBytes: 6 } } },
    ]);
  });

  it('is ended at once by close() and by removeAll()', async () => {
    for (const end of [() => uploads.close(), () => uploads.removeAll('a')]) {
      const { id } = await begin(6);
      const silent = sender();
      silent.send('abc');
      const first = uploads.append('a', id, 0, silent.body()).catch((error: unknown) => error);
      await expect.poll(() => statSync(join(parts(), id)).size).toBe(3);
      await end();
      expect(await first).toMatchObject({ code: 'CONFLICT' });
    }
    expect(seen.filter((line) => line === 'deleted a')).toHaveLength(2);
    expect(await readdir(parts())).toEqual([]);
  });
});
