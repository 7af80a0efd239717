import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Job } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { sql } from 'kysely';
import pg from 'pg';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openPostgres } from '../src/store/database/postgres.ts';
import { openServerDatabase } from '../src/store/database/server-database.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { makeCertificate } from './certificate-fixture.ts';
import { deadAddress, tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { createCuttableLink } from './support/cuttable-link.ts';
import { type OwnPostgres, postgresBin, startOwnPostgres } from './support/postgres.ts';
import { startTestServer } from './test-server.ts';

/* A database that cannot be opened: each fault says what to do, and nothing says the password. */

const password = 'p@s%s:w/rd';
const encoded = encodeURIComponent(password);

describe.skipIf(!postgresBin)('a PostgreSQL database', () => {
  let postgres: OwnPostgres;
  let root: string;
  let folder: string;
  let certificate: string;

  /** The address of the database for another user, with other parts. */
  const addressOf = (user: string, change: (url: URL) => void = () => {}) => {
    const url = new URL(root);
    url.username = user;
    url.password = encoded;
    change(url);
    return url.href;
  };
  async function query(...texts: string[]): Promise<void> {
    const client = new pg.Client({ connectionString: root });
    await client.connect();
    for (const text of texts) await client.query(text);
    await client.end();
  }
  const open = async (url: string) => {
    await using database = await openServerDatabase(folder, url);
    return database.dialect;
  };
  const faultOf = (url: string): Promise<TomaatError> =>
    open(url).then(
      () => expect.unreachable('it was opened'),
      (error: TomaatError) => {
        expect(error).toBeInstanceOf(TomaatError);
        for (const secret of [password, encoded]) expect(error.message).not.toContain(secret);
        return error;
      },
    );

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-faults-'));
    const made = await makeCertificate(folder, { names: ['127.0.0.1'] });
    certificate = made.cert;
    postgres = await startOwnPostgres();
    root = await postgres.database();
    const name = new URL(root).pathname.slice(1);
    const put = (text: string, file: string) =>
      `COPY (SELECT unnest(string_to_array($$${text.trim()}$$, E'\\n'))) TO PROGRAM 'umask 077; cat > ${file}'`;
    await query(
      put(made.pem, 'server.crt'),
      put(made.keyPem, 'server.key'),
      'ALTER SYSTEM SET ssl = on',
      put(
        'host all postgres 127.0.0.1/32 trust\nhostssl all strict 127.0.0.1/32 scram-sha-256\nhost all guest,owner,reader 127.0.0.1/32 scram-sha-256',
        'pg_hba.conf',
      ),
      'SELECT pg_reload_conf()',
      ...['guest', 'owner', 'reader', 'strict'].map(
        (user) => `CREATE ROLE ${user} LOGIN PASSWORD '${password}'`,
      ),
      `GRANT CREATE ON DATABASE ${name} TO owner, strict`,
      'ALTER ROLE reader SET default_transaction_read_only = on',
    );
  });
  afterAll(async () => {
    await postgres?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  it('whose user may not create anything is refused, and nothing is left', async () => {
    expect((await faultOf(addressOf('guest'))).message).toMatch(/lacks a right: .*Make it the owner/);
    expect((await faultOf(addressOf('reader'))).message).toMatch(/is read-only: .*primary/);
    expect(await open(addressOf('owner'))).toBe('postgres');
    const later = await faultOf(addressOf('guest'));
    expect([later.code, later.message]).toEqual(['BAD_REQUEST', expect.stringContaining('lacks a right')]);
  });

  it.each<[string, (url: URL) => void, string, RegExp]>([
    ['a wrong password', (url) => (url.password = 'no%40'), 'UNAUTHORIZED', /refuses the user: .*Check user/],
    ['a database that does not exist', (url) => (url.pathname = '/none'), 'BAD_REQUEST', /createdb/],
    ['a host that does not exist', (url) => (url.hostname = 'none.invalid'), 'UNREACHABLE', /none\.invalid/],
    [
      'a parameter that TOMAAT sets',
      (url) => (url.search = '?options=-csearch_path%3Dpublic'),
      'BAD_REQUEST',
      /has the parameter options/,
    ],
    [
      'a certificate file that does not exist',
      (url) => (url.search = '?sslmode=verify-full&sslrootcert=/none.pem'),
      'BAD_REQUEST',
      /sslrootcert .*\(ENOENT\).*\/none\.pem/,
    ],
    [
      'a self-signed certificate',
      (url) => (url.search = '?sslmode=require'),
      'BAD_REQUEST',
      /not trusted: .*sslrootcert=FILE/,
    ],
    ['a name of 9,000 characters', (url) => (url.pathname = `/${'x'.repeat(9000)}`), 'BAD_REQUEST', /8192/],
  ])('with %s says what to do, without the password', async (_what, change, code, message) => {
    const fault = await faultOf(addressOf('owner', change));
    expect([fault.code, fault.message]).toEqual([code, expect.stringMatching(message)]);
    expect(fault.message.length).toBeLessThan(600);
  });

  it('with a % that begins no code says how to write it', async () => {
    const fault = await faultOf(root.replace('postgres@', `owner:100%@`));
    expect([fault.code, fault.message]).toEqual(['BAD_REQUEST', expect.stringContaining('Write % as %25')]);
    expect(fault.message).not.toContain('100%');
  });

  it('that demands TLS is opened with the certificate of its authority', async () => {
    const plain = await faultOf(addressOf('strict'));
    expect([plain.code, plain.message]).toEqual(['UNAUTHORIZED', expect.stringContaining('sslmode')]);
    const url = addressOf('owner', ({ searchParams }) => {
      searchParams.set('sslmode', 'require');
      searchParams.set('sslrootcert', certificate);
    });
    expect(await open(url)).toBe('postgres');
  });

  it('is a fault of the command line with its exit code, never with the password', async () => {
    const port = new URL(await deadAddress()).port;
    const file = join(folder, 'address');
    const run = async (address: string) => {
      await writeFile(file, address);
      const { code, stdout, stderr } = await tomaat(['keys', 'list', '--data', folder, '--database', file]);
      for (const secret of [password, encoded]) expect(stdout + stderr).not.toContain(secret);
      return { code, stderr };
    };
    const wrong = addressOf('owner', (url) => {
      url.pathname = '/none';
      url.searchParams.set('sslmode', 'require');
      url.searchParams.set('sslrootcert', certificate);
    });
    expect(await run(wrong)).toEqual({
      code: 2,
      stderr: expect.stringMatching(/^Error: .* does not exist\./),
    });
    const away = await run(addressOf('owner', (url) => (url.port = port)));
    expect(away).toEqual({ code: 1, stderr: expect.stringMatching(/^Error: .*ECONNREFUSED.*Check that/) });
    const long = await tomaat(['keys', 'list', '--data', folder, '--database', 'x'.repeat(100_000)]);
    expect(long).toMatchObject({ code: 2, stderr: expect.stringContaining('ENAMETOOLONG') });
    expect(long.stderr.length).toBeLessThan(600);
  });

  it('that is away for a moment ends no stream of events', async () => {
    const app = await writeApp(folder, 'app', { infer: inferBright });
    const lines: string[] = [];
    const logger = pino({ level: 'error' }, { write: (line: string) => void lines.push(line) });
    await using server = await startTestServer([app], { workers: 0, database: addressOf('owner'), logger });
    const created = await fetch(`${server.url}/api/services/app/predictions`, {
      method: 'POST',
      body: Uint8Array.from(await encode(phantom(), 'nii.gz')),
      headers: { 'content-type': 'application/octet-stream', prefer: 'wait=0' },
    });
    const { id } = (await created.json()) as Job;
    const address = `${server.url}/api/jobs/${id}`;
    const stream = await fetch(`${address}/events`);
    const text = stream.text();
    await postgres.kill();
    const away = await fetch(address);
    expect([away.status, await away.json()]).toEqual([
      503,
      expect.objectContaining({ code: 'BUSY', detail: expect.stringContaining('database does not answer') }),
    ]);
    // The leases are looked at each second.
    const lastMs = performance.now() + 2500;
    while (performance.now() < lastMs) expect((await fetch(address)).status).toBe(503);
    expect(lines.filter((line) => line.includes('leases could not be checked'))).toHaveLength(1);
    await postgres.start();
    await expect.poll(async () => (await fetch(address, { method: 'DELETE' })).status).toBeLessThan(300);
    const events = [...(await text).matchAll(/^id: (\d+)\nevent: (job|gone)\ndata: (.*)$/gm)];
    expect(events.map(([, number]) => Number(number))).toEqual(events.map((_, i) => i + 1));
    expect(events.length).toBeGreaterThan(1);
    const [, , kind, data] = events.at(-1)!;
    expect(kind === 'gone' ? 'canceled' : (JSON.parse(data) as Job).state).toBe('canceled');
  });

  it('that is away while a prediction ends costs neither its result nor a second run', async () => {
    const [gate, done] = ['gate', 'done'].map((name) => join(folder, name));
    const infer = `const { existsSync, writeFileSync } = await import('node:fs');
      while (!existsSync(${JSON.stringify(gate)})) await sleep(20);
      writeFileSync(${JSON.stringify(done)}, '');
      ${inferBright}`;
    const app = await writeApp(folder, 'waits', { infer });
    await using server = await startTestServer([app], { workers: 1, database: await postgres.database() });
    const created = await fetch(`${server.url}/api/services/waits/predictions`, {
      method: 'POST',
      body: Uint8Array.from(await encode(phantom(), 'nii.gz')),
      headers: { 'content-type': 'application/octet-stream', prefer: 'wait=0' },
    });
    const { id } = (await created.json()) as Job;
    const address = `${server.url}/api/jobs/${id}`;
    const job = async () => (await (await fetch(address)).json()) as Job;
    await expect.poll(async () => (await job()).state).toBe('running');
    await postgres.kill();
    await writeFile(gate, '');
    await expect.poll(() => existsSync(done)).toBe(true);
    // Its files are being taken over.
    await expect.poll(async () => (await readdir(join(server.dataFolder, 'blobs', 'sha256'))).length).toBe(2);
    await postgres.start();
    await expect.poll(async () => (await job()).state).not.toBe('running');
    expect(await job()).toMatchObject({ state: 'succeeded', attempt: 1 });
    expect((await fetch(`${address}/outputs/segmentation`)).status).toBe(200);
  });

  it('that vanishes without a word is given up, and is used again when it is back', async () => {
    await using link = await createCuttableLink(Number(new URL(root).port));
    const url = addressOf('owner', (address) => (address.port = String(link.port)));
    await using database = await openPostgres({ url, schema: 'vanishes', answerMs: 500 }, []);
    const one = sql<{ one: number }>`SELECT 1 AS one`;
    const ask = () => database.transaction((trx) => one.execute(trx));
    const away = { code: 'BUSY', message: expect.stringContaining('does not answer') };
    const changed = database.transaction(async (trx) => {
      await one.execute(trx);
      link.cut();
      await one.execute(trx);
    });
    await expect(changed).rejects.toMatchObject(away);
    link.mend();
    expect((await ask()).rows).toEqual([{ one: 1 }]);
  });
});
