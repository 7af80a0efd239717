import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3';
import { type Client, createClient, type FileRef, type Job } from '@tomaat/client';
import type { Volume } from '@tomaat/core';
import type { Kysely } from 'kysely';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isSlowWanted } from '../../../test/real-data.ts';
import { type MortalServer, openMortalServer, startWorkerProcess } from '../../../test/torture/harness.ts';
import { writeSeries } from '../../../test/write-series.ts';
import { createKey } from '../src/access/keys.ts';
import type { KeySchema } from '../src/store/database/key-schema.ts';
import { openServerDatabase } from '../src/store/database/server-database.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { decode } from './run-files.ts';
import { postgresBin, startPostgres, type TestPostgres } from './support/postgres.ts';
import { hasS3, startS3, type TestS3 } from './support/s3.ts';
import { temporaryFolder } from './test-server.ts';

/* Two servers and a worker, over one PostgreSQL and one bucket of a real S3. */

const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const tus = { 'tus-resumable': '1.0.0' };
const settled = { timeout: 60_000 };

describe.skipIf(!hasS3 || !postgresBin || !isSlowWanted())('servers over one bucket', () => {
  const opened = new AsyncDisposableStack();
  let folder: string;
  let s3: TestS3;
  let postgres: TestPostgres;
  let bucket: string;
  let address: string;
  let one: MortalServer;
  let two: MortalServer;
  let keys: Record<'anna' | 'ben', { id: string; key: string }>;

  beforeAll(async () => {
    folder = await temporaryFolder();
    opened.defer(() => rm(folder, { recursive: true, force: true }));
    s3 = opened.use(await startS3());
    postgres = opened.use(await startPostgres());
    bucket = await s3.bucket();
    address = await postgres.database();
    const apps = [
      await writeApp(folder, 'bright', { infer: inferBright }),
      await writeApp(folder, 'slow', { infer: `await sleep(4000); ${inferBright}` }),
    ];
    const start = async (name: string) => {
      const server = await openMortalServer(apps, {
        dataFolder: join(folder, name),
        database: address,
        blobs: `s3://${bucket}/volumes?endpoint=${s3.endpoint}`,
        login: true,
        workers: 0,
        sweepMs: 300,
        deleteAfterMs: 1500,
      });
      opened.defer(() => server.close());
      return server;
    };
    one = await start('one');
    await mkdir(join(folder, 'two'), { mode: 0o700 });
    for (const key of ['identity.key', 'pseudonym.key'])
      await copyFile(join(folder, 'one', key), join(folder, 'two', key));
    two = await start('two');
    await using database = await openServerDatabase(join(folder, 'one'), address);
    const make = (label: string, scope: 'predict' | 'worker') =>
      createKey(database.db as unknown as Kysely<KeySchema>, { label, scopes: [scope] });
    keys = { anna: await make('Anna', 'predict'), ben: await make('Ben', 'predict') };
    const worker = await startWorkerProcess(two.url, (await make('worker', 'worker')).key, apps);
    opened.defer(() => worker.kill());
  }, 180_000);
  afterAll(() => opened.disposeAsync(), 60_000);

  const clientOf = (server: MortalServer, who: 'anna' | 'ben' = 'anna'): Client =>
    createClient({ baseUrl: server.url, apiKey: keys[who].key });
  const ask = (server: MortalServer, path: string, init: RequestInit = {}) =>
    fetch(server.url + path, {
      ...init,
      headers: { authorization: `Bearer ${keys.anna.key}`, ...init.headers },
    });
  const outputAt = (server: MortalServer, { id }: Job, more = '', headers: Record<string, string> = {}) =>
    ask(server, `/api/jobs/${id}/outputs/segmentation${more}`, { headers });
  const bytesOf = async (answer: Response) => Buffer.from(await answer.arrayBuffer());
  const objects = async () => {
    const { Contents = [] } = await s3.client.send(new ListObjectsV2Command({ Bucket: bucket }));
    return Contents.map(({ Key }) => Key).sort();
  };
  const objectOf = (digest: string) => `volumes/sha256/${digest.slice('sha256:'.length)}`;
  /** A volume that no other test sends, and its file. */
  const own = async (mark: number): Promise<{ volume: Volume; bytes: Uint8Array<ArrayBuffer> }> => {
    const volume = phantom();
    (volume.voxels as Int16Array)[5] = mark;
    return { volume, bytes: Uint8Array.from(await encode(volume, 'nii')) };
  };
  const predict = (server: MortalServer, service: string, bytes: Uint8Array<ArrayBuffer>, who?: 'ben') =>
    clientOf(server, who).predict(service, {
      volumes: { volume: { name: 'scan.nii', bytes } },
      keepText: true,
    });
  const succeeded = async (server: MortalServer, { id }: Job, who?: 'ben'): Promise<Job> => {
    const job = await clientOf(server, who).wait(id);
    expect(job).toMatchObject({ state: 'succeeded' });
    return job;
  };
  const uploadOf = (ref: FileRef | undefined) => (ref as { upload: string }).upload;
  const valuesOf = ({ voxels }: Volume) => Array.from(voxels as Uint8Array);
  const brightOf = ({ voxels }: Volume) => Array.from(voxels as Int16Array, (value) => Number(value > 100));

  /** Where in the world what is marked lies: how many voxels, and the mean of their positions, mm. */
  function placeOf({ size, affine }: Volume, marked: readonly number[]) {
    const sum = [0, 0, 0];
    let count = 0;
    marked.forEach((value, index) => {
      if (value === 0) return;
      count++;
      const [x, y] = [index % size[0], Math.floor(index / size[0]) % size[1]];
      const z = Math.floor(index / (size[0] * size[1]));
      for (const row of [0, 1, 2])
        sum[row] +=
          affine[4 * row] * x + affine[4 * row + 1] * y + affine[4 * row + 2] * z + affine[4 * row + 3];
    });
    return { count, mm: sum.map((value) => value / count) };
  }

  it('an upload at one is computed anywhere, and its result read at the other', async () => {
    const { volume, bytes } = await own(900);
    const upload = await clientOf(one).upload({ name: 'scan.nii', bytes }, { keepText: true });
    const job = await clientOf(two).predict('bright', { volumes: { volume: upload! } });
    const done = await succeeded(one, job);
    const whole = await outputAt(two, done);
    const result = await bytesOf(whole);
    expect(sha256(result)).toBe(done.outputs[0].digest);
    const mask = await decode(result);
    expect(mask.size).toEqual(volume.size);
    expect(valuesOf(mask)).toEqual(brightOf(volume));
    mask.affine.forEach((value, i) => void expect(value).toBeCloseTo(volume.affine[i], 4));
    const part = await outputAt(one, done, '', { range: 'bytes=300-419' });
    expect(part.status).toBe(206);
    expect(await bytesOf(part)).toEqual(result.subarray(300, 420));
    const converted = await decode(await bytesOf(await outputAt(one, done, '?format=nrrd')));
    expect(valuesOf(converted)).toEqual(brightOf(volume));
  });

  it('a DICOM series of many files gives its mask at the right place', async () => {
    // Turned, of three spacings, and its slices run downwards.
    const [c, s] = [Math.cos(0.4), Math.sin(0.4)];
    const volume = phantom([-1.5 * c, 2 * s, 0, 30, 1.5 * s, 2 * c, 0, -40, 0, 0, -3, 12, 0, 0, 0, 1]);
    const file = join(folder, 'series.nii');
    await writeFile(file, await encode(volume, 'nii'));
    const series = join(folder, 'series');
    await writeSeries(file, series, [3]);
    const form = new FormData();
    for (let slice = 0; slice < volume.size[2]; slice++)
      form.append('volume', new Blob([await readFile(join(series, `IM3-${slice}`))]), `IM${slice}`);
    const created = await ask(one, '/api/services/bright/predictions', { method: 'POST', body: form });
    expect(created.status, await created.clone().text()).toBe(202);
    const job = await succeeded(two, await created.json());
    const mask = await decode(await bytesOf(await outputAt(one, job, '?format=nii.gz')));
    const found = placeOf(mask, valuesOf(mask));
    const expected = placeOf(volume, brightOf(volume));
    expect(found.count).toBe(expected.count);
    found.mm.forEach((value, i) => void expect(value).toBeCloseTo(expected.mm[i], 2));
  });

  it('a file that is stored again while it waits to be deleted stays, and others go', async () => {
    const { bytes } = await own(901);
    const digest = sha256(bytes);
    const first = await clientOf(one).upload({ name: 'a.nii', bytes }, { keepText: true });
    expect(await objects()).toContain(objectOf(digest));
    await clientOf(two).removeUpload(uploadOf(first));
    // Marked, and stored again at the other server before its time is over.
    const again = await clientOf(two).upload({ name: 'a.nii', bytes }, { keepText: true });
    const other = await own(902);
    const dropped = await clientOf(one).upload({ name: 'b.nii', bytes: other.bytes }, { keepText: true });
    await clientOf(one).removeUpload(uploadOf(dropped));
    await expect.poll(objects, settled).not.toContain(objectOf(sha256(other.bytes)));
    expect(await objects()).toContain(objectOf(digest));
    await succeeded(one, await clientOf(one).predict('bright', { volumes: { volume: again! } }));
  });

  it('while the store is away, requests can be repeated, and what runs is not lost', async () => {
    const { volume, bytes } = await own(903);
    const done = await succeeded(one, await predict(one, 'bright', bytes));
    const before = await objects();
    const running = await predict(two, 'slow', bytes);
    await expect.poll(async () => (await clientOf(one).job(running.id)).state, settled).toBe('running');
    await s3.kill();
    const sent = await ask(one, '/api/services/bright/predictions', {
      method: 'POST',
      body: (await own(904)).bytes,
      headers: { 'content-type': 'application/octet-stream' },
    });
    const read = await outputAt(two, done);
    for (const answer of [sent, read]) {
      expect(answer.status).toBe(503);
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
      expect(await answer.json()).toMatchObject({ code: 'BUSY' });
    }
    await s3.start();
    expect(await objects()).toEqual(before);
    const late = await succeeded(one, running);
    expect(valuesOf(await decode(await bytesOf(await outputAt(two, late))))).toEqual(brightOf(volume));
    expect(sha256(await bytesOf(await outputAt(two, done)))).toBe(done.outputs[0].digest);
  });

  it('an upload goes on at the other server when one is killed while it sends', async () => {
    const bytes = Buffer.alloc(40_000_000);
    for (let i = 0, x = 7; i < bytes.length; i += 4)
      bytes.writeUInt32LE((x = (Math.imul(x, 1664525) + 1013904223) >>> 0), i);
    const created = await ask(one, '/api/uploads', {
      method: 'POST',
      headers: { ...tus, 'upload-length': String(bytes.length) },
    });
    const path = created.headers.get('location')!;
    const offsetAt = async (server: MortalServer) =>
      Number((await ask(server, path, { method: 'HEAD', headers: tus })).headers.get('upload-offset'));
    const patch = (server: MortalServer, from: number) =>
      ask(server, path, {
        method: 'PATCH',
        headers: {
          ...tus,
          'upload-offset': String(from),
          'content-type': 'application/offset+octet-stream',
        },
        body: bytes.subarray(from),
      });
    const sending = patch(one, 0).catch(() => undefined);
    await expect.poll(() => offsetAt(two), { ...settled, interval: 20 }).toBeGreaterThan(0);
    await one.kill();
    await sending;
    // The writer of a killed server counts for some seconds.
    await expect
      .poll(async () => (await patch(two, await offsetAt(two))).status, { ...settled, interval: 500 })
      .toBe(204);
    expect(await offsetAt(two)).toBe(bytes.length);
    expect((await ask(two, `/api/blobs/${sha256(bytes)}`, { method: 'HEAD' })).status).toBe(200);
    await one.start();
    expect((await ask(one, `/api/blobs/${sha256(bytes)}`, { method: 'HEAD' })).status).toBe(200);
    await ask(one, path, { method: 'DELETE', headers: tus });
    await expect.poll(objects, settled).not.toContain(objectOf(sha256(bytes)));
  });

  it('wrong bytes in the bucket never pass for a result, at any server', async () => {
    const { bytes } = await own(905);
    const job = await succeeded(two, await predict(two, 'bright', bytes));
    const { digest } = job.outputs[0];
    const right = await bytesOf(await outputAt(one, job));
    const wrong = Buffer.from(right);
    wrong[wrong.length - 100] ^= 1;
    const plant = (Body: Buffer) =>
      s3.client.send(new PutObjectCommand({ Bucket: bucket, Key: objectOf(digest), Body }));
    await plant(wrong);
    for (const server of [one, two]) {
      for (const more of ['', '?format=nrrd']) {
        const answer = await outputAt(server, job, more);
        expect(await answer.json(), more).toMatchObject({ code: 'DAMAGED', status: 500 });
      }
    }
    await plant(right.subarray(0, -1));
    await one.kill();
    await one.start();
    const truncated = await outputAt(one, job);
    expect(await truncated.json()).toMatchObject({ code: 'DAMAGED', status: 500 });
  });

  it('after an erasure no object is left of its owner, and all of the others', async () => {
    const { bytes } = await own(906);
    const kept = await succeeded(one, await predict(one, 'bright', bytes, 'ben'), 'ben');
    await succeeded(two, await predict(two, 'bright', bytes));
    const place = ['--data', join(folder, 'two'), '--database', address];
    const erased = await tomaat(['erase', '--key', keys.anna.id, '--json', ...place]);
    expect(erased, erased.stderr).toMatchObject({ code: 0 });
    expect(JSON.parse(erased.stdout)).toMatchObject({ erased: true });
    await expect.poll(objects, settled).toEqual([objectOf(kept.outputs[0].digest)]);
    await clientOf(one, 'ben').remove(kept.id);
    await expect.poll(objects, settled).toEqual([]);
    const verified = await tomaat(['audit', 'verify', ...place]);
    expect(verified.stdout, verified.stderr).toContain('The audit log is intact');
  });
});
