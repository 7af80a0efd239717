import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findStrace } from '../../../../../test/programs.ts';
import { pattern, put, sha256, testBlobs } from '../../../test/support/blobs-suite.ts';
import { openDatabase } from '../database/database.ts';
import { openBlobs } from './blobs.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'tomaat-blobs-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const here = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);
const node = ['--conditions=tomaat-source', '--input-type=module', '--eval'];
const temporaryFiles = () => readdirSync(join(dir, 'tmp'));

describe('in a folder', () => {
  testBlobs({ open: () => openBlobs(join(dir, 'blobs')), folder: () => dir });
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

it('open() says NOT_FOUND at once', async () => {
  await using blobs = await openBlobs(dir);
  expect(() => blobs.open(sha256(pattern(1)))).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
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
    import { openDatabase } from ${here('../database/database.ts')};
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
