import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ownNodeOptions } from '../src/source.ts';
import type { Database } from '../src/store/database/database.ts';
import { openServerDatabase, type ServerSchema } from '../src/store/database/server-database.ts';
import { postgresBin, startPostgres, type TestPostgres } from './support/postgres.ts';
import { temporaryFolder } from './test-server.ts';
import { sha256 } from './uploads-fixture.ts';

/* Two processes that take the same uploads, over one database and one folder of files. */

interface Replica {
  readonly url: string;
  readonly child: ChildProcess;
}

const mib = 2 ** 20;
const script = fileURLToPath(new URL('upload-replica.ts', import.meta.url));
let postgres: TestPostgres;
let folder: string;
let url: string;
let database: Database<ServerSchema>;
let replicas: Replica[] = [];

async function start(name: string): Promise<Replica> {
  const args = [...ownNodeOptions, script, url, join(folder, 'blobs'), join(folder, name)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return { url: line, child };
}

const tus = { 'tus-resumable': '1.0.0' };

/**
 * Sends bytes in a PATCH, 256 KiB at a time. After `killAfter` bytes, when the system's buffers are empty but for the last piece, it kills the
 * server. Resolves with the status, or 0.
 */
async function patch(
  { url: base, child }: Replica,
  path: string,
  file: Buffer,
  { from, to, killAfter = Number.POSITIVE_INFINITY }: { from: number; to: number; killAfter?: number },
  onSent: (bytes: number) => void,
): Promise<number> {
  const request = httpRequest(`${base}${path}`, {
    method: 'PATCH',
    headers: {
      ...tus,
      'upload-offset': from,
      'content-type': 'application/offset+octet-stream',
      'content-length': to - from,
    },
  });
  const answered = new Promise<number>((resolve) => {
    request.on('response', (response) => {
      response.resume();
      resolve(response.statusCode!);
    });
    request.on('error', () => resolve(0));
  });
  const closed = new Promise<void>((resolve) => request.on('close', () => resolve()));
  for (let at = from; at < to && !request.destroyed; at += mib / 4) {
    const chunk = file.subarray(at, Math.min(at + mib / 4, to));
    const isTaken = new Promise<void>((resolve) => request.write(chunk, () => resolve()));
    await Promise.race([isTaken, closed]);
    onSent(chunk.length);
    if (at - from < killAfter) continue;
    const counted = () => database.db.selectFrom('upload').select('offset_bytes').executeTakeFirstOrThrow();
    await expect
      .poll(async () => (await counted()).offset_bytes, { timeout: 20_000 })
      .toBeGreaterThan(at - mib);
    child.kill('SIGKILL');
    break;
  }
  request.end();
  return answered;
}

describe.skipIf(!postgresBin)('uploads at two servers', () => {
  beforeAll(async () => {
    folder = await temporaryFolder();
    postgres = await startPostgres();
    url = await postgres.database();
    database = await openServerDatabase(folder, url);
    replicas = await Promise.all([start('one'), start('two')]);
  });
  afterAll(async () => {
    for (const { child } of replicas) child.kill('SIGKILL');
    await database?.close();
    await postgres?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  it('a file sent to both in turn is whole, though one is killed', async () => {
    const [one, two] = replicas;
    const file = randomBytes(48 * mib);
    let sentBytes = 0;
    const count = (bytes: number) => {
      sentBytes += bytes;
    };
    const created = await fetch(`${one.url}/api/uploads`, {
      method: 'POST',
      headers: { ...tus, 'upload-length': String(file.length) },
    });
    const path = new URL(created.headers.get('location')!, one.url).pathname;
    const offsetAt = async (replica: Replica) => {
      const response = await fetch(`${replica.url}${path}`, { method: 'HEAD', headers: tus });
      return Number(response.headers.get('upload-offset'));
    };
    expect(await patch(one, path, file, { from: 0, to: 8 * mib }, count)).toBe(204);
    expect(await patch(two, path, file, { from: 8 * mib, to: 16 * mib }, count)).toBe(204);
    const killed = { from: 16 * mib, to: 32 * mib, killAfter: 9.5 * mib };
    expect(await patch(one, path, file, killed, count)).toBe(0);
    const reached = await offsetAt(two);
    expect(reached).toBeGreaterThanOrEqual(24 * mib);
    const last = await fetch(`${two.url}${path}`, {
      method: 'PATCH',
      headers: {
        ...tus,
        'upload-offset': String(reached),
        'content-type': 'application/offset+octet-stream',
      },
      body: file.subarray(reached),
    });
    count(file.length - reached);
    expect([last.status, last.headers.get('tomaat-digest')]).toEqual([204, sha256(file)]);
    expect(sentBytes / file.length).toBeLessThanOrEqual(1.05);
    const found = await fetch(`${two.url}/api/blobs/${sha256(file)}`, { method: 'HEAD' });
    expect(found.headers.get('content-length')).toBe(String(file.length));
  }, 60_000);
});
