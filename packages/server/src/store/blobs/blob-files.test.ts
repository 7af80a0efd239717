import { createHash } from 'node:crypto';
import {
  chmodSync,
  constants,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { type FileHandle, mkdir, mkdtemp, open, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { TomaatError } from '@tomaat/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { diskError, makeFolder, noHardLinks, syncFolder, writeAll } from '../files/disk.ts';
import { type Blobs, openBlobs } from './blobs.ts';

let dir: string;
let blobs: Blobs;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'tomaat-blob-files-'));
  blobs = await openBlobs(join(dir, 'blobs'));
});
afterEach(async () => {
  await blobs.close();
  await rm(dir, { recursive: true, force: true });
});

const sha256 = (bytes: Uint8Array | string) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const put = async (text: string | Uint8Array) => {
  await using writer = await blobs.create();
  await writer.write(Buffer.from(text));
  return writer.commit();
};
const names = (folder: string) => readdirSync(join(dir, 'blobs', folder));
const modeOf = (path: string) => statSync(path).mode & 0o777;

describe('openBlobs()', () => {
  it('makes its folders and files for their owner alone', async () => {
    const before = process.umask(0);
    try {
      await using own = await openBlobs(join(dir, 'own'));
      for (const name of ['', 'sha256', 'tmp']) expect(modeOf(join(dir, 'own', name)), name).toBe(0o700);
      await using writer = await own.create();
      const [part] = readdirSync(join(dir, 'own', 'tmp'));
      expect(modeOf(join(dir, 'own', 'tmp', part))).toBe(0o600);
      const { digest } = await writer.commit();
      expect(modeOf(own.path(digest))).toBe(0o600);
      expect(own.path(digest)).toBe(join(dir, 'own', 'sha256', digest.slice(7)));
    } finally {
      process.umask(before);
    }
  });

  it('leaves a floor of free space alone', async () => {
    const floorBytes = 1e15;
    await using all = await openBlobs(join(dir, 'all'), { minFreeBytes: 0 });
    await using none = await openBlobs(join(dir, 'none'), { minFreeBytes: floorBytes });
    const { bavail, bsize } = await statfs(dir);
    // Others write to the disk, too.
    expect((await all.spareBytes()) / (bavail * bsize)).toBeCloseTo(1, 1);
    expect(((await all.spareBytes()) - (await none.spareBytes())) / floorBytes).toBeCloseTo(1, 2);
    await expect(none.create()).rejects.toMatchObject({ code: 'DISK_FULL' });
    await all.create().then((writer) => writer.abort());
  });

  it('explains why a folder cannot be created', async () => {
    writeFileSync(join(dir, 'file'), '');
    await expect(openBlobs(join(dir, 'file', 'blobs'))).rejects.toMatchObject({
      code: 'INTERNAL',
      message: expect.stringContaining('ENOTDIR at mkdir'),
    });
  });
});

describe('create()', () => {
  it('takes what there is room for, to the byte', async () => {
    blobs.spareBytes = async () => 10;
    await blobs.requireSpace(10);
    await expect(blobs.requireSpace(11)).rejects.toMatchObject({ code: 'DISK_FULL' });
    await blobs.create({ expectedBytes: 10 }).then((writer) => writer.abort());
    await expect(blobs.create({ expectedBytes: 11 })).rejects.toMatchObject({ code: 'DISK_FULL' });
    await blobs.create({ expectedBytes: 5, maxBytes: 5 }).then((writer) => writer.abort());
    await expect(blobs.create({ expectedBytes: 6, maxBytes: 5 })).rejects.toMatchObject({
      code: 'UPLOAD_TOO_LARGE',
      message: expect.stringContaining('5 bytes'),
    });
    expect(names('tmp')).toEqual([]);
  });

  it('keeps the first 64 KiB at hand, whatever the pieces', async () => {
    const bytes = Uint8Array.from({ length: 70_000 }, (_, at) => at % 251);
    for (const pieces of [[65_535, 1, 1], [65_536, 4000], [65_537], [1, 2, 3]]) {
      await using writer = await blobs.create();
      expect(writer.prefix).toEqual(new Uint8Array(0));
      let from = 0;
      for (const length of pieces) {
        await writer.write(bytes.subarray(from, from + length));
        from += length;
        expect(writer.bytes).toBe(from);
        const prefix = writer.prefix;
        expect(prefix.length).toBe(Math.min(from, 65_536));
        expect(Buffer.compare(prefix, bytes.subarray(0, prefix.length))).toBe(0);
      }
    }
  });

  it('takes nothing more once it is ended', async () => {
    const writer = await blobs.create();
    await writer.write(Buffer.from('abc'));
    const { digest } = await writer.commit();
    await expect(writer.write(Buffer.from('d'))).rejects.toThrow('not open');
    await expect(writer.commit()).rejects.toThrow('not open');
    await writer.abort();
    expect(await blobs.stat(digest)).toEqual({ digest, sizeBytes: 3 });
    const aborted = await blobs.create();
    await aborted.abort();
    await expect(aborted.write(Buffer.from('d'))).rejects.toThrow('not open');
    await expect(aborted.commit()).rejects.toThrow('not open');
  });

  it('says that it was aborted while it was written', async () => {
    const writer = await blobs.create();
    const writing = expect(writer.write(new Uint8Array(3 * 512 * 1024))).rejects.toThrow('aborted');
    await writer.abort();
    await writing;
    expect(names('tmp')).toEqual([]);
  });

  it('waits for a commit under way at the end of its scope', async () => {
    let digest = '';
    let isKept = false;
    {
      await using writer = await blobs.create();
      await writer.write(Buffer.from('abc'));
      void writer.commit(async (ref) => {
        digest = ref.digest;
        await new Promise((resolve) => setTimeout(resolve, 20));
        isKept = true;
      });
    }
    expect(isKept).toBe(true);
    expect(await blobs.stat(digest)).toBeDefined();
  });

  it('writes more than thirty concurrently', async () => {
    const all = await Promise.all(
      Array.from({ length: 32 }, async (_, at) => {
        const bytes = Uint8Array.from({ length: 100_000 + at }, (_, index) => (index * 7 + at) % 253);
        await using writer = await blobs.create();
        for (let from = 0; from < bytes.length; from += 9999)
          await writer.write(bytes.subarray(from, from + 9999));
        const { digest } = await writer.commit();
        return digest === sha256(bytes) && Buffer.compare(readFileSync(blobs.path(digest)), bytes) === 0;
      }),
    );
    expect(all).toEqual(Array(32).fill(true));
  });

  it('is aborted by close()', async () => {
    const writer = await blobs.create();
    await writer.write(Buffer.from('abc'));
    await blobs.close();
    expect(names('tmp')).toEqual([]);
    await expect(writer.commit()).rejects.toThrow('not open');
    blobs = await openBlobs(join(dir, 'blobs'));
  });
});

describe('adopt()', () => {
  const file = () => join(dir, 'output');

  it('accepts a trusted digest unchecked, and notifies the keeper', async () => {
    const digest = sha256('not its bytes');
    for (const isSynced of [true, false]) {
      writeFileSync(file(), 'abc', { mode: 0o644 });
      const kept: unknown[] = [];
      const ref = await blobs.adopt(file(), { digest, isSynced, keep: (one) => void kept.push(one) });
      expect(ref).toEqual({ digest, sizeBytes: 3 });
      expect(kept).toEqual([ref]);
      expect(modeOf(blobs.path(digest))).toBe(0o600);
      expect(readFileSync(blobs.path(digest), 'utf8')).toBe('abc');
      expect(readdirSync(dir)).toEqual(['blobs']);
    }
    // Without a digest nothing is trusted.
    writeFileSync(file(), 'abc');
    expect((await blobs.adopt(file(), { isSynced: true })).digest).toBe(sha256('abc'));
    writeFileSync(file(), 'abc');
    chmodSync(file(), 0o640);
    for (const digest of ['abc', sha256('abc').replace('sha256', 'sha512'), sha256('abc').slice(1)])
      await expect(blobs.adopt(file(), { digest }), digest).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    // Refused before the file is touched.
    expect(modeOf(file())).toBe(0o640);
  });

  it('refuses anything but a file', async () => {
    await mkdir(file());
    await expect(blobs.adopt(file())).rejects.toMatchObject({ code: 'APP_OUTPUT' });
    await expect(blobs.adopt(join(dir, 'none'))).rejects.toMatchObject({ code: 'NOT_FOUND' });
    writeFileSync(join(dir, 'x'), '');
    await expect(blobs.adopt(join(dir, 'x', 'y'))).rejects.toMatchObject({ code: 'INTERNAL' });
  });

  it('leaves no blob where the keeper fails', async () => {
    writeFileSync(file(), 'abc');
    await expect(blobs.adopt(file(), { keep: () => Promise.reject(new Error('no row')) })).rejects.toThrow(
      'no row',
    );
    expect(names('sha256')).toEqual([]);
  });
});

describe('open() with a size', () => {
  const spoil = (digest: string, text: string) => {
    const path = blobs.path(digest);
    writeFileSync(path, text);
    return path;
  };

  it('gives whole blobs, and errs before the last bytes of others', async () => {
    const ref = await put('abcdef');
    expect(String(await buffer(blobs.open(ref)))).toBe('abcdef');
    await blobs.check(ref);
    spoil(ref.digest, 'abcdeX');
    await blobs.check(ref);
    // A part, or a blob whose size nobody knows, cannot be checked.
    expect(String(await buffer(blobs.open(ref, { offsetBytes: 4 })))).toBe('eX');
    expect(String(await buffer(blobs.open(ref.digest)))).toBe('abcdeX');
    await expect(buffer(blobs.open(ref))).rejects.toMatchObject({ code: 'DAMAGED' });
    await expect(blobs.check(ref)).rejects.toMatchObject({ code: 'DAMAGED' });
    expect(() => blobs.open(ref)).toThrow(expect.objectContaining({ code: 'DAMAGED' }));
    expect(() => blobs.open(ref, { offsetBytes: 4 })).toThrow(expect.objectContaining({ code: 'DAMAGED' }));
    // The next equal one takes its place.
    expect(await put('abcdef')).toEqual(ref);
    await blobs.check(ref);
    expect(readFileSync(blobs.path(ref.digest), 'utf8')).toBe('abcdef');
    expect(names('tmp')).toEqual([]);
  });

  it('refuses at once a blob of another size', async () => {
    const ref = await put('abcdef');
    const path = spoil(ref.digest, 'abcde');
    expect(() => blobs.open(ref)).toThrow(expect.objectContaining({ code: 'DAMAGED' }));
    await expect(blobs.check(ref)).rejects.toMatchObject({
      code: 'DAMAGED',
      cause: expect.objectContaining({ message: expect.stringContaining(`${path} is damaged`) }),
    });
    expect(await blobs.stat(ref.digest)).toEqual({ ...ref, sizeBytes: 5 });
    rmSync(path);
    await expect(blobs.check(ref)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(() => blobs.open(ref)).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
  });

  it('remembers what markDamaged() says, of the file that was there', async () => {
    const ref = await put('abcdef');
    await blobs.markDamaged(ref.digest);
    await blobs.markDamaged(sha256('none'));
    await expect(blobs.check(ref)).rejects.toMatchObject({ code: 'DAMAGED' });
    utimesSync(blobs.path(ref.digest), 1000, 1000);
    await blobs.check(ref);
  });

  it('opens no folder that has the name of a blob', async () => {
    const digest = sha256('folder');
    await mkdir(blobs.path(digest));
    await expect(buffer(blobs.open(digest))).rejects.toMatchObject({ code: 'EISDIR' });
    await expect(blobs.delete(digest)).rejects.toMatchObject({ code: 'INTERNAL' });
    rmSync(blobs.path(digest), { recursive: true });
  });
});

describe('sweepTemporary()', () => {
  it('removes folders, too, and counts what it removed', async () => {
    await mkdir(join(dir, 'blobs', 'tmp', 'folder', 'deep'), { recursive: true });
    writeFileSync(join(dir, 'blobs', 'tmp', 'file'), '');
    expect(await blobs.sweepTemporary()).toBe(2);
    expect(await blobs.sweepTemporary()).toBe(0);
  });
});

describe('writeAll()', () => {
  it('continues after a short write', async () => {
    await using handle = await open(join(dir, 'x'), constants.O_RDWR | constants.O_CREAT);
    const calls: number[][] = [];
    const slow = {
      async write(bytes: Uint8Array, from: number, length: number, at: number) {
        calls.push([from, length, at]);
        return handle.write(bytes, from, Math.min(length, 3), at);
      },
    } as unknown as FileHandle;
    await writeAll(slow, Buffer.from('abcdefgh'), 2);
    expect(readFileSync(join(dir, 'x'), 'latin1')).toBe('\0\0abcdefgh');
    expect(calls).toEqual([
      [0, 8, 2],
      [3, 5, 5],
      [6, 2, 8],
    ]);
  });
});

describe('makeFolder()', () => {
  it('makes parent folders for the owner alone, and keeps existing ones', async () => {
    const before = process.umask(0);
    try {
      await mkdir(join(dir, 'open'), { mode: 0o755 });
      await makeFolder(join(dir, 'open', 'a', 'b'));
      await makeFolder(join(dir, 'open'));
      expect(['open', 'open/a', 'open/a/b'].map((name) => modeOf(join(dir, name)))).toEqual([
        ...[0o755, 0o700, 0o700],
      ]);
    } finally {
      process.umask(before);
    }
    await expect(syncFolder(join(dir, 'none'))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe('diskError()', () => {
  const fault = (code: string | undefined, syscall: string | undefined = 'write') =>
    Object.assign(new Error('x'), { code, syscall });

  it.each([
    ['ENOSPC', 'DISK_FULL', 'is full'],
    ['EDQUOT', 'DISK_FULL', 'is full'],
    ['EFBIG', 'DISK_FULL', 'is full'],
    ['EROFS', 'DISK_FULL', 'is read-only'],
    ['EMFILE', 'BUSY', 'too many files open'],
    ['ENFILE', 'BUSY', 'too many files open'],
    ['EIO', 'INTERNAL', 'is failing (EIO at write)'],
    [undefined, 'INTERNAL', 'is failing (unknown at write)'],
  ])('translates %s to %s', (code, expected, message) => {
    const cause = fault(code);
    const error = diskError(cause);
    expect(error).toBeInstanceOf(TomaatError);
    expect(error).toMatchObject({ code: expected, cause, message: expect.stringContaining(message) });
  });

  it('leaves all other errors as they are', () => {
    const known = Object.assign(new TomaatError('CONFLICT', ''), { syscall: 'write' });
    for (const error of [known, new Error('x'), Object.assign(new Error('x'), { code: 'ENOSPC' })])
      expect(diskError(error)).toBe(error);
  });
});

describe('noHardLinks', () => {
  it('has what file systems without hard links answer', () => {
    expect([...noHardLinks].sort()).toEqual(['EMLINK', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP', 'EPERM']);
  });
});
