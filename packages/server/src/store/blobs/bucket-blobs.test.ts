import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { setImmediate } from 'node:timers/promises';
import {
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { digestsOf, pattern, put, sha256, testBlobs } from '../../../test/support/blobs-suite.ts';
import { hasS3, startS3, type TestS3 } from '../../../test/support/s3.ts';
import { copyBlobs } from '../../migrate/files.ts';
import { openPlace } from '../../migrate/places.ts';
import type { BlobRef } from './blob-writer.ts';
import { type Blobs, openBlobs } from './blobs.ts';
import { openBucket } from './bucket.ts';
import { openBucketBlobs } from './bucket-blobs.ts';

/** Between client and store: ends each connection after so many bytes of its answers. */
async function startCutter(port: number, cut: { afterBytes: number; connections: number }) {
  const sockets = new Set<Socket>();
  const server: Server = createServer((near) => {
    const far = connect(port, '127.0.0.1');
    sockets.add(near).add(far);
    let sent = 0;
    for (const [one, other] of [
      [near, far],
      [far, near],
    ])
      one.on('error', () => other.destroy()).on('close', () => other.destroy());
    near.pipe(far);
    far.on('data', (chunk) => {
      sent += chunk.length;
      near.write(chunk);
      if (sent <= cut.afterBytes) return;
      cut.connections++;
      near.destroySoon();
      far.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as { port: number }).port}`,
    [Symbol.dispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

describe.skipIf(!hasS3)('blobs in a bucket', () => {
  let s3: TestS3;
  let bucket: string;
  let dir: string;
  beforeAll(async () => {
    s3 = await startS3();
  }, 120_000);
  afterAll(() => s3?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'tomaat-bucket-'));
    bucket = await s3.bucket();
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const location = (endpoint = s3.endpoint) => `s3://${bucket}/a/b?endpoint=${endpoint}`;
  const openAt = (name: string, options = {}, endpoint?: string) =>
    openBucketBlobs(location(endpoint), { folder: join(dir, name), ...options });
  const objects = async () => {
    const { Contents = [] } = await s3.client.send(new ListObjectsV2Command({ Bucket: bucket }));
    return Contents.map(({ Key }) => Key);
  };
  const plant = (digest: string, bytes: Uint8Array) =>
    s3.client.send(
      new PutObjectCommand({ Bucket: bucket, Key: `a/b/sha256/${digest.slice(7)}`, Body: bytes }),
    );

  testBlobs({ open: () => openAt('blobs'), folder: () => dir });

  it('keeps the bytes of every length, whole and in ranges, for another machine', async () => {
    await using here = await openAt('here');
    await using there = await openAt('there');
    // Of the last, three parts are sent.
    for (const length of [0, 1, 300_000, 40_000_003]) {
      const bytes = pattern(length, length);
      const ref = await put(here, bytes);
      expect(ref).toEqual({ digest: sha256(bytes), sizeBytes: length });
      expect((await buffer(there.open(ref))).equals(bytes)).toBe(true);
      const range = { offsetBytes: length >> 1, lengthBytes: 5 };
      expect(await buffer(there.open(ref, range))).toEqual(bytes.subarray(length >> 1, (length >> 1) + 5));
      expect((await buffer(there.open(ref, { offsetBytes: length }))).length).toBe(0);
      expect(readFileSync(await there.fetch(ref)).equals(bytes)).toBe(true);
      expect(await digestsOf(there)).toContain(ref.digest);
    }
  });

  it('sends equal bytes once, deletes them everywhere but where they are kept', async () => {
    await using here = await openAt('here');
    await using there = await openAt('there');
    const bytes = pattern(1000);
    const ref = await put(here, bytes);
    const file = join(dir, 'output');
    writeFileSync(file, bytes);
    expect(await there.adopt(file)).toEqual(ref);
    expect(await objects()).toEqual([`a/b/sha256/${ref.digest.slice(7)}`]);
    expect(await there.delete(ref.digest, () => true)).toBe(false);
    expect(await here.stat(ref.digest)).toEqual(ref);
    expect(await there.delete(ref.digest)).toBe(true);
    expect(await there.delete(ref.digest)).toBe(false);
    expect(await objects()).toEqual([]);
    await expect(here.check(ref)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(buffer(here.open(ref))).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('gives no path of wrong or truncated bytes; equal ones stored again mend them', async () => {
    await using blobs = await openAt('here');
    const bytes = pattern(70_000);
    const ref = { digest: sha256(bytes), sizeBytes: bytes.length };
    await plant(ref.digest, pattern(70_000, 7));
    await expect(buffer(blobs.open(ref))).rejects.toMatchObject({ code: 'DAMAGED' });
    await expect(blobs.fetch(ref)).rejects.toMatchObject({ code: 'DAMAGED' });
    await put(blobs, bytes);
    expect((await buffer(blobs.open(ref))).equals(bytes)).toBe(true);

    await plant(ref.digest, bytes.subarray(0, 69_999));
    await using other = await openAt('other');
    await expect(other.fetch(ref)).rejects.toMatchObject({ code: 'DAMAGED' });
    await expect(other.check(ref)).rejects.toMatchObject({ code: 'DAMAGED' });
    await put(other, bytes);
    expect(readFileSync(await other.fetch(ref)).equals(bytes)).toBe(true);
    truncateSync(other.path(ref.digest), 5);
    expect(readFileSync(await other.fetch(ref)).equals(bytes)).toBe(true);
  });

  it('fetches once for many, keeps the copy after a restart, removes what is unused', async () => {
    let nowMs = Date.now();
    const options = { nowMs: () => nowMs, maxBytes: 150_000 };
    const bytes = [1, 2].map((seed) => pattern(100_000, seed));
    await using writer = await openAt('writer');
    const [first, second] = [await put(writer, bytes[0]), await put(writer, bytes[1])];
    const files = () => readdirSync(join(dir, 'cache', 'sha256')).map((hex) => `sha256:${hex}`);
    {
      await using cache = await openAt('cache', options);
      const paths = await Promise.all(Array.from({ length: 8 }, () => cache.fetch(first)));
      expect(new Set(paths).size).toBe(1);
      expect(readdirSync(join(dir, 'cache', 'tmp'))).toEqual([]);
    }
    await using cache = await openAt('cache', options);
    expect(files()).toEqual([first.digest]);
    nowMs += 700_000;
    await cache.fetch(second);
    await (cache as Blobs & { sweepCache(): Promise<void> }).sweepCache();
    expect(files()).toEqual([second.digest]);
    nowMs += 3_600_001;
    await (cache as Blobs & { sweepCache(): Promise<void> }).sweepCache();
    expect(files()).toEqual([]);
  });

  it('keeps its cache away from files of the data folder, which move there and back whole', async () => {
    const store = join(dir, 'blobs');
    const quiet = { signal: new AbortController().signal, onFile: () => {} };
    const refs: BlobRef[] = [];
    {
      await using own = await openBlobs(store);
      for (const seed of [1, 2]) refs.push(await put(own, pattern(5000, seed)));
      // Older than what a cache keeps.
      for (const { digest } of refs) utimesSync(own.path(digest), 1, 1);
    }
    for (const isBack of [false, true]) {
      await using own = await openBlobs(store);
      await using inBucket = await openPlace(location(), dir);
      const [from, to] = isBack ? [inBucket, own] : [own, inBucket];
      expect(await copyBlobs(from, to, refs, quiet)).toEqual({ files: 2, bytes: 10_000, lost: [] });
      for (const { digest } of refs) expect(existsSync(own.path(digest))).toBe(true);
    }
  });

  it('fetch() gives a file that stays, also if the cache is swept at that moment', async () => {
    let nowMs = Date.now();
    await using cache = await openAt('cache', { nowMs: () => nowMs });
    const sweep = () => (cache as Blobs & { sweepCache(): Promise<void> }).sweepCache();
    const bytes = pattern(5000);
    const ref = await put(cache, bytes);
    for (const first of ['sweep', 'fetch', 'sweep', 'fetch']) {
      nowMs += 3_600_001;
      const begun = first === 'sweep' ? [sweep(), cache.fetch(ref)] : [cache.fetch(ref), sweep()];
      const path = (await Promise.all(begun)).find((result) => result !== undefined)!;
      expect(readFileSync(path).equals(bytes), first).toBe(true);
    }
  });

  it('keeps less than the limit, the oldest leave first, and a larger file is fetched all the same', async () => {
    let nowMs = Date.now();
    await using writer = await openAt('writer');
    const refs = [];
    for (const length of [40_000, 40_001, 40_002, 200_000]) refs.push(await put(writer, pattern(length)));
    await using cache = await openAt('cache', { nowMs: () => nowMs, maxBytes: 100_000 });
    const sizes = () =>
      readdirSync(join(dir, 'cache', 'sha256'))
        .map((name) => statSync(join(dir, 'cache', 'sha256', name)).size)
        .sort((a, b) => a - b);
    for (const ref of refs.slice(0, 2)) await cache.fetch(ref);
    nowMs += 700_000;
    await cache.fetch(refs[0]);
    await cache.fetch(refs[2]);
    expect(sizes()).toEqual([40_000, 40_002]);
    expect(readFileSync(await cache.fetch(refs[3])).equals(pattern(200_000))).toBe(true);
    expect(sizes()).toEqual([40_000, 40_002, 200_000]);
    nowMs += 700_000;
    await cache.fetch(refs[1]);
    expect(sizes()).toEqual([40_001]);
  });

  it('deletes parts that were left a day ago, and none that are being sent or of others', async () => {
    let nowMs = Date.now();
    await using blobs = await openAt('here', { nowMs: () => nowMs });
    const begin = (Key: string) => s3.client.send(new CreateMultipartUploadCommand({ Bucket: bucket, Key }));
    const left = await begin('a/b/sha256/left');
    await begin('a/other');
    const { Key, UploadId } = left;
    await s3.client.send(
      new UploadPartCommand({ Bucket: bucket, Key, UploadId, PartNumber: 1, Body: pattern(100) }),
    );
    const keys = async () => {
      const { Uploads = [] } = await s3.client.send(new ListMultipartUploadsCommand({ Bucket: bucket }));
      return Uploads.map((upload) => upload.Key).sort();
    };
    expect(await blobs.sweepTemporary()).toBe(0);
    expect(await keys()).toEqual(['a/b/sha256/left', 'a/other']);
    nowMs += 25 * 3_600_000;
    expect(await blobs.sweepTemporary()).toBe(1);
    expect(await keys()).toEqual(['a/other']);
  });

  it('goes on reading where a connection broke', async () => {
    const cut = { afterBytes: Number.POSITIVE_INFINITY, connections: 0 };
    using cutter = await startCutter(Number(new URL(s3.endpoint).port), cut);
    await using blobs = await openAt('here', {}, cutter.endpoint);
    const bytes = pattern(3_000_001);
    const ref = await put(blobs, bytes);
    cut.afterBytes = 1_000_000;
    expect((await buffer(blobs.open(ref))).equals(bytes)).toBe(true);
    expect(cut.connections).toBeGreaterThan(1);
  });

  it('refuses to start without a bucket, access or a store, and says what to do', async () => {
    const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY } = process.env;
    const at = (place: string) => openBucketBlobs(place, { folder: join(dir, 'here') });
    await expect(at(`s3://missing?endpoint=${s3.endpoint}`)).rejects.toThrow(
      'There is no bucket missing. Create it, or correct --blobs.',
    );
    await expect(at('s3://b/c?region=x')).rejects.toMatchObject({ code: 'BAD_REQUEST', field: '--blobs' });
    await expect(at('s3://b?endpoint=http://127.0.0.1:9')).rejects.toMatchObject({ code: 'UNREACHABLE' });
    try {
      process.env.AWS_SECRET_ACCESS_KEY = 'wrong';
      await expect(at(location())).rejects.toThrow('Check AWS_SECRET_ACCESS_KEY.');
      process.env.AWS_ACCESS_KEY_ID = 'nobody';
      await expect(at(location())).rejects.toThrow('Check AWS_ACCESS_KEY_ID.');
    } finally {
      Object.assign(process.env, { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY });
    }
  });

  it('works with a clock that is an hour from that of the store', async () => {
    for (const byMs of [-3_600_000, 3_600_000]) {
      vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + byMs });
      try {
        await using blobs = await openAt('here');
        const bytes = pattern(2000, byMs);
        const ref = await put(blobs, bytes);
        expect((await buffer(blobs.open(ref))).equals(bytes)).toBe(true);
      } finally {
        vi.useRealTimers();
      }
    }
  });

  it.each([
    [301, 'PermanentRedirect', 'is in another region. Set AWS_REGION'],
    [400, 'AuthorizationHeaderMalformed', 'is in another region. Set AWS_REGION'],
    [403, 'RequestTimeTooSkewed', 'Correct the clock.'],
    [403, 'AccessDenied', 'Allow GetObject, PutObject'],
  ])('says what to do about %i %s of Amazon S3', async (status, code, remedy) => {
    // As in its documentation of error responses; a store here has but one region.
    const server = createHttpServer((request, answer) => {
      request.resume().on('end', () => {
        answer.writeHead(status, { 'content-type': 'application/xml' });
        answer.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>m</Message></Error>`);
      });
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      await expect(openAt('here', {}, endpoint)).rejects.toThrow(remedy);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  it('gives a deletion up that a store does not answer, within the time of its lock', async () => {
    const asked: string[] = [];
    const server = createHttpServer((request) => void asked.push(`${request.method} ${request.url}`));
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const silent = await openBucket({ bucket: 'b', prefix: 'p/', endpoint }, { removeMs: 300 });
    try {
      await expect(silent.remove('x')).rejects.toMatchObject({ code: 'BUSY' });
      expect(asked).toEqual([expect.stringContaining('DELETE /b/p/x')]);
    } finally {
      silent.close();
      server.closeAllConnections();
      server.close();
    }
  });

  // The last one: a store that was killed takes half a minute to make the next bucket.
  it('keeps nothing of what is sent or read while the store is killed', async () => {
    await using blobs = await openAt('here');
    await using other = await openAt('other');
    const stored = await put(blobs, pattern(60_000_000, 3));
    const bytes = pattern(60_000_000, 5);
    const writer = await blobs.create();
    await writer.write(bytes);
    const committed = writer.commit().catch((error) => error);
    for (let isBegun = false; !isBegun; ) {
      const { Uploads = [] } = await s3.client.send(new ListMultipartUploadsCommand({ Bucket: bucket }));
      isBegun = Uploads.length > 0;
    }
    const fetched = other.fetch(stored).catch((error) => error);
    while (readdirSync(join(dir, 'other', 'tmp')).length === 0) await setImmediate();
    await s3.kill();
    expect(await committed).toMatchObject({ code: 'BUSY' });
    expect(await fetched).toMatchObject({ code: 'BUSY' });
    await expect(blobs.check(stored)).rejects.toMatchObject({ code: 'BUSY' });
    expect(readdirSync(join(dir, 'other', 'sha256'))).toEqual([]);
    expect(readdirSync(join(dir, 'here', 'tmp'))).toEqual([]);
    await s3.start();
    expect(await blobs.stat(sha256(bytes))).toBeUndefined();
    await put(blobs, bytes);
    expect((await buffer(other.open({ digest: sha256(bytes), sizeBytes: bytes.length }))).equals(bytes)).toBe(
      true,
    );
    expect((await buffer(other.open(stored))).equals(pattern(60_000_000, 3))).toBe(true);
  }, 90_000);
});
