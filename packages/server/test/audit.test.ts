import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findProgram } from '../../../test/programs.ts';
import { makeKey } from './access-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { forgeAudit } from './forge-audit.ts';
import { encode, phantom } from './phantom.ts';
import { startServing } from './serving.ts';
import { appFolder, startTestServer } from './test-server.ts';

/* The audit log of a server that runs: what is in it, how it is checked, and how its files change. */

let folder: string;
let volume: Uint8Array<ArrayBuffer>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-audit-'));
  volume = Uint8Array.from(await encode(phantom(), 'nii.gz'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Line extends Record<string, unknown> {
  seq: number;
  event: string;
}

/** The lines of all files of a log, in order. */
async function linesIn(dataFolder: string): Promise<Line[]> {
  const names = (await readdir(dataFolder)).filter((name) => /^audit.*\.jsonl/.test(name));
  const texts = await Promise.all(names.map((name) => readFile(join(dataFolder, name), 'utf8')));
  const lines = texts.flatMap((text) => text.split('\n').filter(Boolean));
  return lines.map((line) => JSON.parse(line) as Line).sort((a, b) => a.seq - b.seq);
}

const verify = (dataFolder: string, ...args: string[]) =>
  tomaat(['audit', 'verify', '--data', dataFolder, ...args]);

describe('tomaat audit verify', () => {
  let genuine: string;
  let identity: string;
  let receipt: string;
  beforeAll(async () => {
    genuine = join(folder, 'genuine');
    await using server = await startTestServer(['threshold'], { dataFolder: genuine });
    identity = server.identity;
    const client = createClient({ baseUrl: server.url });
    for (let i = 0; i < 2; i++) {
      const job = await client.predict('threshold', { volumes: { volume: new Blob([volume]) } });
      await client.wait(job.id);
      receipt = join(folder, 'receipt.jws');
      await writeFile(receipt, await client.receipt(job.id));
    }
  }, 60_000);

  /** A copy of the folder in which the first prediction is taken out of the log. */
  async function forged(name: string): Promise<string> {
    const copy = join(folder, name);
    await cp(genuine, copy, { recursive: true });
    const victim = (await linesIn(copy)).find((line) => line.event === 'prediction.accepted');
    await forgeAudit(copy, (line) => line.job === victim?.job);
    return copy;
  }

  it('refuses a log that was signed by another key than that of its folder', async () => {
    const { code, stdout, stderr } = await verify(await forged('beside-identity'));
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toContain(`not by ${identity}`);
  });

  it('reports an unchecked signer and fails without anything to compare with', async () => {
    const copy = await forged('without-identity');
    await rm(join(copy, 'identity.key'));
    const { code, stdout } = await verify(copy);
    expect(code).toBe(1);
    expect(stdout).toContain(`The signer was not checked: ${join(copy, 'identity.key')} is missing`);
    expect(stdout).not.toContain('is whole');
    const json = await verify(copy, '--json');
    expect(json.code).toBe(1);
    expect(JSON.parse(json.stdout)).toMatchObject({ ok: false, signerChecked: false });
    for (const flags of [
      ['--key', identity],
      ['--receipt', receipt],
    ])
      expect((await verify(copy, ...flags)).code, flags[0]).toBe(1);
    // The same folder without a forger: either of the two is enough.
    const whole = join(folder, 'whole-without-identity');
    await cp(genuine, whole, { recursive: true });
    await rm(join(whole, 'identity.key'));
    expect((await verify(whole)).code).toBe(1);
    for (const flags of [
      ['--key', identity],
      ['--receipt', receipt],
      ['--key', 'another', '--key', identity],
    ]) {
      const checked = await verify(whole, ...flags);
      expect(checked.code, checked.stderr).toBe(0);
      expect(checked.stdout).toContain('The audit log is intact');
    }
  });

  it('prefers --key to the folder’s key, which a forger may have placed', async () => {
    const copy = await forged('own-identity');
    const other = join(folder, 'other');
    await mkdir(other);
    const { openIdentity } = await import('../src/identity.ts');
    await openIdentity(other);
    await cp(join(other, 'identity.key'), join(copy, 'identity.key'));
    expect((await verify(copy, '--key', identity)).code).toBe(1);
    expect((await verify(genuine, '--key', identity)).code).toBe(0);
    expect((await verify(genuine, '--key', 'another')).code).toBe(1);
  });
});

describe('the audit log', () => {
  it('has a line for every result read, by every face, with its source', async () => {
    await using server = await startTestServer(['threshold']);
    const client = createClient({ baseUrl: server.url });
    const job = await client.predict('threshold', { volumes: { volume: new Blob([volume]) } });
    const done = await client.wait(job.id);
    const [primary] = done.outputs;
    const read = await fetch(server.url + primary.url);
    const digestOf = async (response: Response) =>
      `sha256:${createHash('sha256')
        .update(Buffer.from(await response.arrayBuffer()))
        .digest('hex')}`;
    expect(await digestOf(read)).toBe(primary.digest);
    await (await fetch(`${server.url}${primary.url}?format=nrrd`)).arrayBuffer();
    const { task, anatomy } = await client.service('threshold');
    const form = new FormData();
    form.set('volume', new Blob([volume]), 'a.nii.gz');
    const promised = await fetch(`${server.url}/${task}/${anatomy}`, { method: 'POST', body: form });
    expect(await digestOf(promised)).toBe(primary.digest);
    const v1 = new FormData();
    v1.set('volume', Buffer.from(await encode(phantom(), 'mha')).toString('base64'));
    const answered = await fetch(`${server.url}/predict`, { method: 'POST', body: v1 });
    expect(JSON.stringify(await answered.json())).toContain('LabelVolume');
    await expect
      .poll(
        async () => (await linesIn(server.dataFolder)).filter(({ event }) => event === 'result.read').length,
      )
      .toBeGreaterThanOrEqual(4);
    const lines = await linesIn(server.dataFolder);
    const reads = lines.filter(({ event }) => event === 'result.read');
    const common = { who: 'anonymous', service: 'threshold', output: primary.name, outcome: 'whole' };
    expect(reads[0]).toMatchObject({ ...common, job: job.id, digest: primary.digest, format: 'nii.gz' });
    expect(reads[1]).toMatchObject({ ...common, job: job.id, digest: primary.digest, format: 'nrrd' });
    expect(reads[2]).toMatchObject({ ...common, digest: primary.digest, format: 'nii.gz' });
    expect(reads[2].job).not.toBe(job.id);
    expect(reads[3]).toMatchObject({ ...common, format: 'mha' });
    const input = { name: 'volume', digest: `sha256:${createHash('sha256').update(volume).digest('hex')}` };
    expect(lines.find(({ event }) => event === 'prediction.accepted')).toMatchObject({
      who: 'anonymous',
      job: job.id,
      inputs: [input],
    });
    expect(lines.find(({ event }) => event === 'prediction.succeeded')).toMatchObject({
      job: job.id,
      outcome: 'succeeded',
      outputs: done.outputs.map(({ name, digest }) => ({ name, digest })),
    });
  });

  it('says that a reader went away before the end', async () => {
    await using server = await startTestServer(['threshold']);
    const client = createClient({ baseUrl: server.url });
    // Larger than what sockets hold.
    const large = phantom(undefined, [256, 200, 160]);
    const job = await client.predict('threshold', {
      volumes: { volume: new Blob([Uint8Array.from(await encode(large, 'nii'))]) },
    });
    const done = await client.wait(job.id);
    await new Promise<void>((resolve, reject) => {
      const asked = httpRequest(server.url + done.outputs[0].url, (response) => {
        response.once('data', () => asked.destroy());
        response.on('error', () => resolve());
        response.on('close', () => resolve());
      });
      asked.on('error', reject);
      asked.end();
    });
    await expect
      .poll(async () => (await linesIn(server.dataFolder)).find(({ event }) => event === 'result.read'))
      .toMatchObject({ job: job.id, outcome: 'broken off' });
  }, 30_000);

  it('has the first administrator’s key and those of programs before they work', async () => {
    const data = join(folder, 'first-keys');
    await using serving = await startServing(['up', '--login', '--data', data]);
    const id = /^tmt_([a-z2-7]{10})_/.exec(serving.addresses.adminKey!)![1];
    await expect
      .poll(async () => (await linesIn(data)).filter(({ event }) => event.startsWith('key.')), {
        timeout: 20_000,
      })
      .toEqual([
        expect.objectContaining({ event: 'key.renewed', scopes: ['announce'] }),
        expect.objectContaining({ event: 'key.created', keyId: id, scopes: ['admin'] }),
      ]);
    // Registry and server have the same log.
    for (const url of [serving.addresses.registry!, serving.addresses.server])
      expect((await fetch(`${url}/api/services`)).status).toBe(401);
    await serving.stop();
    const refused = (await linesIn(data)).filter(({ event }) => event === 'access.denied');
    expect(refused).toEqual([
      expect.objectContaining({ outcome: 'UNAUTHORIZED', route: 'GET /api/services' }),
      expect.objectContaining({ outcome: 'UNAUTHORIZED', count: 1 }),
    ]);
    const { events } = JSON.parse((await verify(data, '--json')).stdout);
    expect(events).toMatchObject({ 'key.created': 1, 'key.renewed': 1 });
  }, 60_000);

  it('summarizes a flood of refusals in a few lines, by caller and outcome', async () => {
    await using server = await startTestServer(['threshold'], { login: true, workers: 0 });
    const [mine, other, worker] = [
      await makeKey(server.dataFolder, ['predict']),
      await makeKey(server.dataFolder, ['predict']),
      await makeKey(server.dataFolder, ['worker']),
    ];
    const octets = { 'content-type': 'application/octet-stream' };
    const sent = await server.app.inject({
      method: 'POST',
      url: '/api/services/threshold/predictions',
      headers: { ...mine.headers, ...octets },
      payload: Buffer.from(volume),
    });
    const job = sent.json().id as string;
    const tus = { 'tus-resumable': '1.0.0' };
    const begun = await server.app.inject({
      method: 'POST',
      url: '/api/uploads',
      headers: { ...mine.headers, ...tus, 'upload-length': '9' },
    });
    const upload = String(begun.headers.location);
    const ask = (url: string, headers: object = {}) =>
      server.app.inject({ url, headers: headers as Record<string, string> });
    for (let i = 0; i < 40; i++) {
      expect((await ask('/api/services')).statusCode).toBe(401);
      expect((await ask('/api/services', worker.headers)).statusCode).toBe(403);
      expect((await ask('/metrics', mine.headers)).statusCode).toBe(403);
      expect((await ask('/api/services', { host: 'evil.example' })).statusCode).toBe(421);
      expect((await ask('/api/services', { origin: 'https://evil.example' })).statusCode).toBe(403);
      expect((await ask(`/api/jobs/${job}`, other.headers)).statusCode).toBe(404);
      // What is nobody's is not a refusal.
      expect((await ask('/api/jobs/AAAAAAAAAAAAAAAAAAAAAA', other.headers)).statusCode).toBe(404);
    }
    await server.app.inject({ method: 'HEAD', url: upload, headers: { ...other.headers, ...tus } });
    const form = { ...other.headers, 'content-type': 'application/x-www-form-urlencoded' };
    await server.app.inject({
      method: 'POST',
      url: '/responses',
      headers: form,
      payload: `request_id=${job}`,
    });
    const digest = `sha256:${createHash('sha256').update(volume).digest('hex')}`;
    await server.app.inject({
      method: 'POST',
      url: '/api/services/threshold/predictions',
      headers: { ...other.headers, 'content-type': 'application/json' },
      payload: JSON.stringify({ inputs: { volume: { blob: digest } } }),
    });
    const { dataFolder } = server;
    await server.close();
    const refused = (await linesIn(dataFolder)).filter(({ event }) => event === 'access.denied');
    const sums: Record<string, number> = {};
    for (const { who, outcome, count } of refused) {
      const kind = `${who} ${outcome}`;
      sums[kind] = (sums[kind] ?? 0) + Number(count ?? 1);
    }
    expect(sums).toEqual({
      'undefined UNAUTHORIZED': 40,
      [`key:${worker.id} FORBIDDEN`]: 40,
      [`key:${mine.id} FORBIDDEN`]: 40,
      'undefined MISDIRECTED': 40,
      'undefined FORBIDDEN': 40,
      [`key:${other.id} NOT_FOUND`]: 43,
    });
    expect(refused.length).toBeLessThanOrEqual(2 * Object.keys(sums).length);
    expect(refused.find(({ outcome }) => outcome === 'NOT_FOUND')).toMatchObject({ job, keyId: other.id });
  }, 60_000);

  it('has a line, counted, for each failed login', async () => {
    await using server = await startTestServer(['threshold'], { login: true, workers: 0 });
    const { key, id } = await makeKey(server.dataFolder, ['announce']);
    for (let i = 0; i < 30; i++) {
      const { statusCode } = await server.app.inject({
        method: 'POST',
        url: '/auth/session',
        headers: { 'content-type': 'application/json' },
        payload: JSON.stringify({ key }),
      });
      expect(statusCode).toBe(403);
    }
    const { dataFolder } = server;
    await server.close();
    const failed = (await linesIn(dataFolder)).filter(({ event }) => event === 'login.failed');
    expect(failed).toEqual([
      expect.objectContaining({ keyId: id, outcome: 'FORBIDDEN' }),
      expect.objectContaining({ keyId: id, outcome: 'FORBIDDEN', count: 29 }),
    ]);
  });
});

describe('tomaat audit rotate', () => {
  it('begins a new file while the server runs, and without one', async () => {
    const dataFolder = join(folder, 'rotated');
    {
      await using _server = await startTestServer(['threshold'], { dataFolder, workers: 0 });
      const rotated = await tomaat(['audit', 'rotate', '--data', dataFolder, '--json']);
      expect(rotated.stderr).toBe('');
      expect(JSON.parse(rotated.stdout)).toEqual({ closed: join(dataFolder, 'audit-0000000001.jsonl') });
      expect((await verify(dataFolder)).code).toBe(0);
    }
    const again = await tomaat(['audit', 'rotate', '--data', dataFolder]);
    expect(again).toMatchObject({ code: 0, stdout: expect.stringContaining('audit-0000000003.jsonl') });
    expect((await linesIn(dataFolder)).map(({ event }) => event)).toEqual([
      'server.started',
      'log.continued',
      'server.stopped',
      'log.continued',
    ]);
    const archive = join(folder, 'archive');
    await mkdir(archive);
    const closed = (await readdir(dataFolder)).filter((name) => /^audit-\d/.test(name));
    for (const name of closed) await rename(join(dataFolder, name), join(archive, name));
    expect((await verify(dataFolder)).stderr).toContain('--from 4');
    const whole = await verify(dataFolder, ...closed.map((name) => join(archive, name)));
    expect(whole).toMatchObject({ code: 0, stdout: expect.stringContaining('4 lines in 3 files') });
    expect((await verify(dataFolder, '--from', '4')).code).toBe(0);
    for (const name of await readdir(dataFolder)) {
      if (process.platform === 'win32' || !name.startsWith('audit')) continue;
      expect((await stat(join(dataFolder, name))).mode & 0o077, name).toBe(0);
    }
  }, 60_000);

  it('names the place of a missing log', async () => {
    const missing = await tomaat(['audit', 'rotate', '--data', join(folder, 'missing')]);
    expect(missing).toMatchObject({ code: 2, stderr: expect.stringContaining('There is no audit log') });
    expect(await stat(join(folder, 'missing')).catch(() => 'nothing')).toBe('nothing');
  });
});

const logrotate = findProgram('logrotate', ['--version']);

describe.skipIf(process.platform === 'win32')('SIGHUP', () => {
  it('does not end a server, a registry, or both', async () => {
    for (const args of [
      ['serve', appFolder('threshold'), '--data', join(folder, 'hangup')],
      ['up', '--data', join(folder, 'hangup-up')],
    ]) {
      await using serving = await startServing(args);
      for (let i = 0; i < 3; i++) serving.child.kill('SIGHUP');
      const { server } = serving.addresses;
      expect((await fetch(`${server}/health/ready`)).status).toBe(200);
      for (let i = 0; i < 3; i++) serving.child.kill('SIGHUP');
      expect((await fetch(`${server}/health/ready`)).status).toBe(200);
      expect(await serving.stop()).toBe(0);
    }
  }, 60_000);

  it.skipIf(!logrotate)(
    'and logrotate by rename: the log continues intact in a new file',
    async () => {
      const data = join(folder, 'logrotated');
      await using serving = await startServing(['serve', appFolder('threshold'), '--data', data]);
      const client = createClient({ baseUrl: serving.addresses.server });
      const config = join(folder, 'logrotate.conf');
      const user = process.getuid?.() === 0 ? 'su root root\n' : '';
      await writeFile(
        config,
        `${data}/audit.jsonl {\n${user}rotate 9\nmissingok\nnotifempty\ncompress\ndelaycompress\npostrotate\nkill -HUP ${serving.child.pid}\nendscript\n}\n`,
        { mode: 0o600 },
      );
      for (let round = 1; round <= 4; round++) {
        const job = await client.predict('threshold', { volumes: { volume: new Blob([volume]) } });
        await client.wait(job.id);
        const ended = spawnSync(logrotate!, ['--force', '--state', join(folder, 'state'), config], {
          encoding: 'utf8',
        });
        expect(ended.stderr).toBe('');
        await expect
          .poll(() => readFile(join(data, 'audit.jsonl'), 'utf8').catch(() => ''))
          .toContain('log.continued');
        const checked = await verify(data);
        expect(checked.code, checked.stderr).toBe(0);
        expect(checked.stdout).toContain(`in ${round + 1} files`);
      }
      expect((await readdir(data)).filter((name) => name.endsWith('.gz'))).toHaveLength(3);
      await serving.stop();
      const { ok, events } = JSON.parse((await verify(data, '--json')).stdout);
      expect(ok).toBe(true);
      expect(events).toMatchObject({ 'prediction.succeeded': 4, 'log.continued': 4, 'server.stopped': 1 });
    },
    120_000,
  );
});
