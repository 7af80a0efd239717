import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import type { TomaatError } from '@tomaat/core';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { findStrace } from '../../../../test/programs.ts';
import type { BlobRef } from './blob-writer.ts';
import { openBlobs } from './blobs.ts';
import { openDatabase } from './database.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'tomaat-blobs-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const here = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);
const node = ['--conditions=tomaat-source', '--input-type=module', '--eval'];
const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
/** Bytes that differ everywhere, so that a piece at the wrong place shows. */
const pattern = (length: number, seed = 1) => {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let index = 0, x = seed; index < words.length; index++)
    words[index] = x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  return new Uint8Array(words.buffer).subarray(0, length);
};
const temporaryFiles = () => readdirSync(join(dir, 'tmp'));
const codeOf = (error: unknown) => (error as TomaatError).code;

it('create() stores exactly the bytes, whatever their pieces, under their SHA-256', async () => {
  await using blobs = await openBlobs(dir);
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
    expect(Buffer.compare(readFileSync(blobs.path(ref.digest)), bytes)).toBe(0);
    expect(await blobs.stat(ref.digest)).toEqual(ref);
    expect(statSync(blobs.path(ref.digest)).mode & 0o077).toBe(0);
  }
  expect(temporaryFiles()).toEqual([]);
});

async function put(blobs: Awaited<ReturnType<typeof openBlobs>>, bytes: Uint8Array): Promise<BlobRef> {
  await using writer = await blobs.create();
  await writer.write(bytes);
  return writer.commit();
}

it('create() keeps several uploads at once apart', async () => {
  await using blobs = await openBlobs(dir);
  await Promise.all(
    Array.from({ length: 6 }, async (_, index) => {
      const bytes = pattern(1_500_000 + index, index + 1);
      await using writer = await blobs.create();
      for (let from = 0; from < bytes.length; from += 50_000)
        await writer.write(bytes.subarray(from, from + 50_000));
      expect((await writer.commit()).digest).toBe(sha256(bytes));
    }),
  );
  for await (const digest of blobs.digests()) expect(sha256(readFileSync(blobs.path(digest)))).toBe(digest);
});

it('commit() of bytes that are there already keeps one file', async () => {
  await using blobs = await openBlobs(dir);
  const refs = await Promise.all([1, 2, 3].map(() => put(blobs, pattern(1000))));
  expect(new Set(refs.map((ref) => ref.digest)).size).toBe(1);
  expect(readdirSync(join(dir, 'sha256'))).toHaveLength(1);
  expect(temporaryFiles()).toEqual([]);
});

it('abort(), a limit and the end of scope leave nothing', async () => {
  await using blobs = await openBlobs(dir);
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
  const error = await limited.write(pattern(1)).catch((caught) => caught);
  expect(codeOf(error)).toBe('UPLOAD_TOO_LARGE');
  await limited.abort();
  expect(temporaryFiles()).toEqual([]);
  expect(readdirSync(join(dir, 'sha256'))).toEqual([]);
  await expect(blobs.create({ maxBytes: 100, expectedBytes: 101 })).rejects.toMatchObject({
    code: 'UPLOAD_TOO_LARGE',
  });
  expect(temporaryFiles()).toEqual([]);
});

it('commit() whose keeper fails leaves no blob, unless it was there before', async () => {
  await using blobs = await openBlobs(dir);
  const fail = () => Promise.reject(new Error('no row'));
  for (const before of [false, true]) {
    const bytes = pattern(5000, before ? 2 : 1);
    if (before) await put(blobs, bytes);
    const writer = await blobs.create();
    await writer.write(bytes);
    await expect(writer.commit(fail)).rejects.toThrow('no row');
    expect((await blobs.stat(sha256(bytes))) !== undefined).toBe(before);
  }
  expect(temporaryFiles()).toEqual([]);
});

it('delete() waits for a commit of the blob, then checks its use', async () => {
  await using blobs = await openBlobs(dir);
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

it('open() reads all or a range, and says NOT_FOUND at once', async () => {
  await using blobs = await openBlobs(dir);
  const bytes = Buffer.from(pattern(300_000));
  const { digest } = await put(blobs, bytes);
  const read = async (range?: { offsetBytes: number; lengthBytes?: number }) =>
    buffer(blobs.open(digest, range));
  expect((await read()).equals(bytes)).toBe(true);
  expect(await read({ offsetBytes: 7, lengthBytes: 5 })).toEqual(bytes.subarray(7, 12));
  expect(await read({ offsetBytes: 299_999 })).toEqual(bytes.subarray(299_999));
  expect(await read({ offsetBytes: 299_990, lengthBytes: 100 })).toEqual(bytes.subarray(299_990));
  expect((await read({ offsetBytes: 300_000 })).length).toBe(0);
  expect((await read({ offsetBytes: 5, lengthBytes: 0 })).length).toBe(0);
  expect(() => blobs.open(sha256(pattern(1)))).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
});

it('path() refuses anything but a digest: no name leaves the folder', async () => {
  await using blobs = await openBlobs(dir);
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
    expect(() => blobs.path(digest), digest).toThrow(expect.objectContaining({ code: 'BAD_REQUEST' }));
  }
});

it('adopt() takes a file over, by its bytes or a trusted digest', async () => {
  await using blobs = await openBlobs(join(dir, 'blobs'));
  const path = join(dir, 'result.nii');
  const bytes = pattern(700_000);
  for (const digest of [undefined, sha256(bytes)]) {
    writeFileSync(path, bytes);
    expect(await blobs.adopt(path, { digest })).toEqual({ digest: sha256(bytes), sizeBytes: bytes.length });
    expect(Buffer.compare(readFileSync(blobs.path(sha256(bytes))), bytes)).toBe(0);
    expect(readdirSync(dir)).toEqual(['blobs']);
  }
  await expect(blobs.adopt(path)).rejects.toMatchObject({ code: 'NOT_FOUND' });
});

it('adopt() follows no link, and a second hard link cannot alter it', async () => {
  await using blobs = await openBlobs(join(dir, 'blobs'));
  const secret = join(dir, 'secret');
  writeFileSync(secret, 'abc');
  const path = join(dir, 'output');
  symlinkSync(secret, path);
  await expect(blobs.adopt(path)).rejects.toMatchObject({ code: 'APP_OUTPUT' });
  rmSync(path);
  linkSync(secret, path);
  const { digest } = await blobs.adopt(path);
  writeFileSync(secret, 'xyz');
  expect(readFileSync(blobs.path(digest), 'utf8')).toBe('abc');
  expect(readdirSync(dir).sort()).toEqual(['blobs', 'secret']);
});

it('adopt() takes a file from another file system', async (context) => {
  let elsewhere: string;
  try {
    elsewhere = mkdtempSync('/dev/shm/tomaat-blobs-');
  } catch {
    return context.skip('no /dev/shm');
  }
  if (statSync(elsewhere).dev === statSync(dir).dev) return context.skip('/dev/shm is the same file system');
  try {
    await using blobs = await openBlobs(dir);
    writeFileSync(join(elsewhere, 'x'), 'abc');
    const { digest } = await blobs.adopt(join(elsewhere, 'x'));
    expect(readFileSync(blobs.path(digest), 'utf8')).toBe('abc');
    expect(readdirSync(elsewhere)).toEqual([]);
  } finally {
    rmSync(elsewhere, { recursive: true });
  }
});

it('digests() finds every blob and nothing else', async () => {
  await using blobs = await openBlobs(dir);
  writeFileSync(join(dir, 'sha256', '.nfs0001'), '');
  const refs = [await put(blobs, pattern(10)), await put(blobs, pattern(20))];
  const found: string[] = [];
  for await (const digest of blobs.digests()) found.push(digest);
  expect(found.sort()).toEqual(refs.map(({ digest }) => digest).sort());
});

it('sweepTemporary() removes what earlier processes began, not what is being written', async () => {
  await using blobs = await openBlobs(dir);
  writeFileSync(join(dir, 'tmp', 'orphan'), 'x');
  writeFileSync(blobs.temporaryPath(), 'what a thread wrote');
  const writer = await blobs.create();
  await writer.write(pattern(600_000));
  expect(await blobs.sweepTemporary()).toBe(2);
  expect((await writer.commit()).sizeBytes).toBe(600_000);
});

it('commit() and a row survive kill -9: none lost, torn or left over', {
  timeout: 180_000,
}, async () => {
  const file = join(dir, 'jobs.db');
  const migrations = [{ name: 'jobs', up: async () => undefined }];
  await (await openDatabase(file, migrations)).close();
  const program = `
    import { sql } from 'kysely';
    import { openBlobs } from ${here('./blobs.ts')};
    import { openDatabase } from ${here('./database.ts')};
    const { db } = await openDatabase(${JSON.stringify(file)}, [{ name: 'jobs', up: async () => undefined }]);
    await sql\`CREATE TABLE IF NOT EXISTS job (id INTEGER PRIMARY KEY, digest TEXT NOT NULL)\`.execute(db);
    const blobs = await openBlobs(${JSON.stringify(dir)});
    console.log('ready');
    for (;;) {
      const writer = await blobs.create();
      const bytes = crypto.getRandomValues(new Uint8Array(65536));
      const pieces = 1 + bytes[0] % 24;
      for (let piece = 0; piece < pieces; piece++) await writer.write(bytes);
      const { digest } = await writer.commit();
      const { insertId } = await sql\`INSERT INTO job (digest) VALUES (\${digest})\`.execute(db);
      process.stdout.write(insertId + ' ' + digest + '\\n');
    }`;
  const acknowledged = new Map<number, string>();
  let orphans = 0;
  for (let kill = 0; kill < 20; kill++) {
    const child = spawn(process.execPath, [...node, program], {
      cwd: import.meta.dirname,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    const ready = new Promise<void>((resolve, reject) => {
      child.once('exit', () => reject(new Error('the writer ended by itself')));
      child.stdout.on('data', (chunk) => {
        output += chunk;
        if (output.startsWith('ready')) resolve();
      });
    });
    await ready;
    // Not a wait for a state: the moment of the kill is what varies.
    await new Promise((resolve) => setTimeout(resolve, 20 + ((kill * 37) % 150)));
    const closed = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGKILL');
    await closed;
    for (const line of output.split('\n').slice(1, -1)) {
      const [id, digest] = line.split(' ');
      acknowledged.set(Number(id), digest);
    }
    await using blobs = await openBlobs(dir);
    orphans += await blobs.sweepTemporary();
    expect(temporaryFiles()).toEqual([]);
  }
  await using blobs = await openBlobs(dir);
  await using database = await openDatabase<{ job: { id: number; digest: string } }>(file, migrations);
  const rows = new Map(
    (await database.db.selectFrom('job').selectAll().execute()).map((row) => [row.id, row.digest]),
  );
  expect(acknowledged.size).toBeGreaterThan(20);
  for (const [id, digest] of acknowledged) expect(rows.get(id)).toBe(digest);
  for (const digest of rows.values()) expect(await blobs.stat(digest)).toBeDefined();
  for await (const digest of blobs.digests()) expect(sha256(readFileSync(blobs.path(digest)))).toBe(digest);
  expect(orphans).toBeGreaterThan(0);
});

const strace = findStrace();

it.skipIf(!strace)('commit() syncs the file before naming it, and the folder before acknowledging', () => {
  const trace = join(dir, 'trace');
  const program = `
    import { writeSync } from 'node:fs';
    import { openBlobs } from ${here('./blobs.ts')};
    const blobs = await openBlobs(${JSON.stringify(dir)});
    writeSync(1, 'begin');
    const writer = await blobs.create();
    await writer.write(new Uint8Array(700000));
    await writer.commit();
    writeSync(1, 'acknowledged');`;
  const calls = 'trace=fsync,fdatasync,link,linkat,unlink,write,pwrite64';
  const run = spawnSync(
    'strace',
    ['-f', '-y', '-s', '20', '-o', trace, '-e', calls, process.execPath, ...node, program],
    { timeout: 50_000 },
  );
  expect(run.status, String(run.stderr)).toBe(0);
  const lines = readFileSync(trace, 'utf8').split('\n');
  lines.splice(
    0,
    lines.findIndex((line) => line.includes('"begin"')),
  );
  const at = (pattern: RegExp) => lines.findIndex((line) => pattern.test(line));
  const lastWrite = lines.findLastIndex((line) => /write.*\/tmp\/[0-9a-f-]{36}>/.test(line));
  const order = [
    lastWrite,
    at(/fdatasync\(.*\/tmp\//),
    at(/link(at)?\(/),
    at(/fsync\(.*\/sha256>/),
    at(/"acknowledged"/),
  ];
  expect(order).toEqual([...order].sort((a, b) => a - b));
  expect(order[0]).toBeGreaterThan(0);
});

it.skipIf(!strace)(
  'write() and commit() report a full or failing disk and leave nothing',
  { timeout: 120_000 },
  () => {
    for (const [fault, code] of [
      ['pwrite64,write:error=ENOSPC:when=1+', 'DISK_FULL'],
      ['pwrite64,write:error=EIO:when=1+', 'INTERNAL'],
      ['fdatasync:error=EIO', 'INTERNAL'],
      ['link,linkat:error=ENOSPC', 'DISK_FULL'],
      ['openat:error=EMFILE', 'BUSY'],
    ]) {
      const name = '00000000-0000-4000-8000-000000000000';
      const program = `
      import crypto from 'node:crypto';
      import { syncBuiltinESMExports } from 'node:module';
      crypto.randomUUID = () => '${name}'; // The trace looks at this path alone.
      syncBuiltinESMExports();
      const { openBlobs } = await import(${here('./blobs.ts')});
      const blobs = await openBlobs(${JSON.stringify(dir)});
      try {
        await using writer = await blobs.create();
        for (let piece = 0; piece < 20; piece++) await writer.write(new Uint8Array(65536));
        await writer.commit();
        console.log('none');
      } catch (error) {
        console.log(error.code);
      }`;
      const path = join(dir, 'tmp', name);
      const run = spawnSync(
        'strace',
        ['-f', '-o', '/dev/null', '-P', path, '-e', `inject=${fault}`, process.execPath, ...node, program],
        { encoding: 'utf8', timeout: 50_000 },
      );
      expect(`${fault} ${run.stdout.trim()}`, run.stderr).toBe(`${fault} ${code}`);
      expect(temporaryFiles()).toEqual([]);
      expect(readdirSync(join(dir, 'sha256'))).toEqual([]);
    }
  },
);
