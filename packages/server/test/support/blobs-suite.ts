import { createHash } from 'node:crypto';
import { linkSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { expect, it } from 'vitest';
import type { BlobRef } from '../../src/store/blobs/blob-writer.ts';
import type { Blobs } from '../../src/store/blobs/blobs.ts';

export const sha256 = (bytes: Uint8Array | string): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Bytes that differ everywhere, so that a piece at the wrong place shows. */
export function pattern(length: number, seed = 1): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let index = 0, x = seed; index < words.length; index++)
    words[index] = x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  return Buffer.from(words.buffer, 0, length);
}

export async function put(blobs: Blobs, bytes: Uint8Array): Promise<BlobRef> {
  await using writer = await blobs.create();
  await writer.write(bytes);
  return writer.commit();
}

export async function digestsOf(blobs: Blobs): Promise<string[]> {
  const found: string[] = [];
  for await (const digest of blobs.digests()) found.push(digest);
  return found.sort();
}

export interface BlobsPlace {
  /** Opens an empty store, whose files on this machine are in `blobs` of `folder()`. */
  open(): Promise<Blobs>;
  /** An empty folder, on the file system of the store's files. */
  folder(): string;
}

/** What holds of blobs wherever they are: in a folder, or in a bucket. */
export function testBlobs({ open, folder }: BlobsPlace): void {
  const temporaryFiles = () => readdirSync(join(folder(), 'blobs', 'tmp'));

  it('create() stores exactly the bytes, whatever their pieces, under their SHA-256', async () => {
    await using blobs = await open();
    for (const [length, piece] of [
      [0, 1],
      [1, 1],
      [70_001, 999],
      [524_288, 65_536],
      [1_300_007, 65_536],
      [2_000_000, 2_000_000],
    ]) {
      const bytes = pattern(length);
      const writer = await blobs.create();
      const reused = new Uint8Array(piece);
      for (let from = 0; from < length; from += piece) {
        const part = bytes.subarray(from, from + piece);
        reused.set(part);
        await writer.write(reused.subarray(0, part.length));
        reused.fill(0); // A chunk may be used again at once.
      }
      expect(Buffer.compare(writer.prefix, bytes.subarray(0, 65_536))).toBe(0);
      const ref = await writer.commit();
      expect(ref).toEqual({ digest: sha256(bytes), sizeBytes: length });
      const path = await blobs.fetch(ref);
      expect(Buffer.compare(readFileSync(path), bytes)).toBe(0);
      expect(await blobs.stat(ref.digest)).toEqual(ref);
      expect(statSync(path).mode & 0o077).toBe(0);
    }
    expect(temporaryFiles()).toEqual([]);
  });

  it('create() keeps several uploads at once apart', async () => {
    await using blobs = await open();
    await Promise.all(
      Array.from({ length: 6 }, async (_, index) => {
        const bytes = pattern(1_500_000 + index, index + 1);
        await using writer = await blobs.create();
        for (let from = 0; from < bytes.length; from += 50_000)
          await writer.write(bytes.subarray(from, from + 50_000));
        expect((await writer.commit()).digest).toBe(sha256(bytes));
      }),
    );
    const found = await digestsOf(blobs);
    expect(found).toHaveLength(6);
    for (const digest of found) expect(sha256(await buffer(blobs.open(digest)))).toBe(digest);
  });

  it('commit() of bytes that are there already keeps them once', async () => {
    await using blobs = await open();
    const refs = await Promise.all([1, 2, 3].map(() => put(blobs, pattern(1000))));
    expect(new Set(refs.map((ref) => ref.digest)).size).toBe(1);
    expect(await digestsOf(blobs)).toHaveLength(1);
    expect(temporaryFiles()).toEqual([]);
  });

  it('abort(), a limit and the end of scope leave nothing', async () => {
    await using blobs = await open();
    const writer = await blobs.create();
    await writer.write(pattern(600_000));
    await writer.abort();
    await writer.abort();
    {
      await using dropped = await blobs.create();
      await dropped.write(pattern(10));
    }
    await using limited = await blobs.create({ maxBytes: 100 });
    await limited.write(pattern(100));
    await expect(limited.write(pattern(1))).rejects.toMatchObject({ code: 'UPLOAD_TOO_LARGE' });
    await limited.abort();
    expect(temporaryFiles()).toEqual([]);
    expect(await digestsOf(blobs)).toEqual([]);
    await expect(blobs.create({ maxBytes: 100, expectedBytes: 101 })).rejects.toMatchObject({
      code: 'UPLOAD_TOO_LARGE',
    });
    expect(temporaryFiles()).toEqual([]);
  });

  it('delete() waits for a commit of the blob, then checks its use', async () => {
    await using blobs = await open();
    const bytes = pattern(5000);
    const { digest } = await put(blobs, bytes);
    const kept = new Set<string>();
    const writer = await blobs.create();
    await writer.write(bytes);
    let deleting: Promise<boolean> | undefined;
    await writer.commit(async (ref) => {
      deleting = blobs.delete(digest, () => kept.has(digest));
      await new Promise((resolve) => setTimeout(resolve, 20));
      kept.add(ref.digest);
    });
    expect(await deleting).toBe(false);
    expect(await blobs.stat(digest)).toBeDefined();
    kept.clear();
    expect(await blobs.delete(digest, () => kept.has(digest))).toBe(true);
    expect(await blobs.delete(digest)).toBe(false);
    expect(await blobs.stat(digest)).toBeUndefined();
  });

  it('open() reads all or a range', async () => {
    await using blobs = await open();
    const bytes = pattern(300_000);
    const { digest } = await put(blobs, bytes);
    const read = async (range?: { offsetBytes: number; lengthBytes?: number }) =>
      buffer(blobs.open(digest, range));
    expect((await read()).equals(bytes)).toBe(true);
    expect(await read({ offsetBytes: 7, lengthBytes: 5 })).toEqual(bytes.subarray(7, 12));
    expect(await read({ offsetBytes: 299_999 })).toEqual(bytes.subarray(299_999));
    expect(await read({ offsetBytes: 299_990, lengthBytes: 100 })).toEqual(bytes.subarray(299_990));
    expect((await read({ offsetBytes: 300_000 })).length).toBe(0);
    expect((await read({ offsetBytes: 5, lengthBytes: 0 })).length).toBe(0);
  });

  it('path() refuses anything but a digest: no name leaves the store', async () => {
    await using blobs = await open();
    const hex = 'a'.repeat(64);
    for (const digest of [
      '',
      hex,
      `sha256:${hex}0`,
      `sha256:${hex.toUpperCase()}`,
      `sha256:../${hex.slice(3)}`,
      `md5:${hex}`,
      `sha256:${hex}\n`,
    ]) {
      const refused = expect.objectContaining({ code: 'BAD_REQUEST' });
      expect(() => blobs.path(digest), digest).toThrow(refused);
      expect(() => blobs.open(digest), digest).toThrow(refused);
      await expect(blobs.stat(digest), digest).rejects.toEqual(refused);
    }
  });

  it('adopt() takes a file over, by its bytes or a trusted digest', async () => {
    await using blobs = await open();
    const path = join(folder(), 'result.nii');
    const bytes = pattern(700_000);
    for (const digest of [undefined, sha256(bytes)]) {
      writeFileSync(path, bytes);
      const ref = { digest: sha256(bytes), sizeBytes: bytes.length };
      expect(await blobs.adopt(path, { digest })).toEqual(ref);
      expect((await buffer(blobs.open(ref))).equals(bytes)).toBe(true);
      expect(readdirSync(folder())).toEqual(['blobs']);
    }
    await expect(blobs.adopt(path)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('adopt() follows no link, and a second hard link cannot alter it', async () => {
    await using blobs = await open();
    const secret = join(folder(), 'secret');
    writeFileSync(secret, 'abc');
    const path = join(folder(), 'output');
    symlinkSync(secret, path);
    await expect(blobs.adopt(path)).rejects.toMatchObject({ code: 'APP_OUTPUT' });
    rmSync(path);
    linkSync(secret, path);
    const ref = await blobs.adopt(path);
    writeFileSync(secret, 'xyz');
    expect(readFileSync(await blobs.fetch(ref), 'utf8')).toBe('abc');
    expect(readdirSync(folder()).sort()).toEqual(['blobs', 'secret']);
  });
}
