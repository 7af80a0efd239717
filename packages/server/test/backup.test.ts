import { createHash } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';
import { createClient } from '@tomaat/client';
import { packTar, type TarSource } from 'modern-tar/fs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { makeKey as makeFolderKey } from '../src/access/key-folder.ts';
import { verifyAudit } from '../src/audit/verify-audit.ts';
import { stageBackup } from '../src/folder/backup.ts';
import { restoreBackup } from '../src/folder/restore.ts';
import { makeKey } from './access-fixture.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { startRealServer } from './real-server.ts';
import { startServing } from './serving.ts';
import { appFolder, startTestServer } from './test-server.ts';

/* `tomaat backup` and `tomaat restore`: copies of a data folder, whatever happens in it meanwhile. */

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-backup-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** A volume that nobody else sends. */
async function ownVolume(mark: number): Promise<Uint8Array<ArrayBuffer>> {
  const own = phantom();
  (own.voxels as Int16Array)[0] = mark % 90;
  (own.voxels as Int16Array)[1] = Math.floor(mark / 90);
  return Uint8Array.from(await encode(own, 'nii'));
}

/** Stops this process for so long, and no other one. */
const pause = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

interface Row {
  id: string;
  state: string;
}

/** What must hold of every data folder that was restored. */
async function checkFolder(data: string, identity: string): Promise<{ jobs: Row[]; outputs: number }> {
  for (const name of ['server.db', 'registry.db']) {
    const db = new DatabaseSync(join(data, name));
    expect(db.prepare('PRAGMA integrity_check').all()).toEqual([{ integrity_check: 'ok' }]);
    expect(db.prepare('PRAGMA foreign_key_check').all()).toEqual([]);
    db.close();
  }
  const db = new DatabaseSync(join(data, 'server.db'));
  const rows = (text: string) => db.prepare(text).all() as unknown[];
  const jobs = rows('SELECT id, state FROM job') as Row[];
  const outputs = rows('SELECT job, digest, size_bytes FROM job_output') as {
    job: string;
    digest: string;
    size_bytes: number;
  }[];
  const inputs = rows('SELECT digest, size_bytes FROM job_input') as typeof outputs;
  const receipts = rows("SELECT receipt FROM job WHERE state = 'succeeded' AND receipt IS NOT NULL") as {
    receipt: string;
  }[];
  for (const { id } of jobs.filter(({ state }) => state === 'succeeded'))
    expect(
      outputs.some(({ job }) => job === id),
      `outputs of ${id}`,
    ).toBe(true);
  db.close();
  for (const { digest, size_bytes } of [...outputs, ...inputs]) {
    const bytes = readFileSync(join(data, 'blobs', 'sha256', digest.slice(7)));
    expect(bytes.length).toBe(size_bytes);
    expect(`sha256:${sha256(bytes)}`).toBe(digest);
  }
  const held = new Set([...outputs, ...inputs].map(({ digest }) => digest.slice(7)));
  // The first copy may be older than the first result.
  const folder = join(data, 'blobs', 'sha256');
  const stored = existsSync(folder) ? readdirSync(folder) : [];
  expect(stored.filter((name) => !held.has(name))).toEqual([]);
  // The log has every line that a receipt refers to.
  const anchors = receipts.map(({ receipt }) => JSON.parse(receipt).audit);
  await verifyAudit(data, { signers: [identity], anchors });
  return { jobs, outputs: outputs.length };
}

/** Whether others may get at what a backup wrote. */
function open(path: string): string[] {
  const all = statSync(path).isDirectory() ? readdirSync(path, { recursive: true, encoding: 'utf8' }) : [];
  return ['.', ...all].filter((name) => (lstatSync(join(path, name)).mode & 0o077) !== 0);
}

const run = async (...args: string[]) => {
  const ended = await tomaat(args);
  expect(ended.code, `${args.join(' ')}: ${ended.stderr}`).toBe(0);
  return ended.stdout;
};

/** Each takes seconds: the first four are also restored. */
const rounds = process.env.TOMAAT_SLOW ? 20 : 6;

describe('tomaat backup', () => {
  it(`makes ${rounds} whole copies while jobs, results and keys come and go`, async () => {
    const app = await writeApp(folder, 'quick', { infer: `await sleep(Math.random() * 80); ${inferBright}` });
    await using server = await startRealServer([app], { login: true, workers: 2 });
    const { dataFolder } = server;
    const first = await makeFolderKey(dataFolder, { label: 'load', scopes: ['predict'] });
    const client = createClient({ baseUrl: server.url, apiKey: first.key, retries: 0 });
    const identity = JSON.parse(await run('audit', 'verify', '--data', dataFolder, '--json')).thumbprint;
    const done = new AbortController();
    let sent = 0;
    const kept: { id: string; digest: string; name: string }[] = [];
    /** Sends jobs, and deletes three of four when they are done. */
    const load = Array.from({ length: 3 }, async () => {
      while (!done.signal.aborted) {
        const mark = sent++;
        const job = await client.predict('quick', {
          volumes: { volume: new Blob([await ownVolume(mark)]) },
          keepText: true,
        });
        if (mark % 5 === 4) {
          // Before or after its end.
          await client.cancel(job.id).catch(() => {});
          continue;
        }
        const settled = await client.wait(job.id);
        if (settled.state !== 'succeeded') continue;
        if (mark % 4 !== 0) await client.remove(job.id);
        else kept.push({ id: job.id, digest: settled.outputs[0].digest, name: settled.outputs[0].name });
      }
    });
    const makeKeys = (async () => {
      while (!done.signal.aborted) {
        await makeFolderKey(dataFolder, { label: 'made under load', scopes: ['predict'] });
        await delay(150);
      }
    })();
    const endings = ['', '.tar', '.tar.gz', '.tgz'];
    let results = 0;
    try {
      for (let round = 0; round < rounds; round++) {
        const before = await makeFolderKey(dataFolder, { label: `round ${round}`, scopes: ['predict'] });
        const keptBefore = [...kept];
        const to = join(folder, `load-${round}${endings[round % endings.length]}`);
        const said = JSON.parse(await run('backup', to, '--data', dataFolder, '--json'));
        const data = join(folder, `restored-${round}`);
        const restored =
          round < endings.length
            ? JSON.parse(await run('restore', to, '--data', data, '--json'))
            : await restoreBackup(to, data, { force: false, signal: done.signal, onProgress() {} });
        expect(restored).toMatchObject({ jobs: said.jobs, results: said.results, damaged: 0 });
        expect(restored.auditFault).toBeUndefined();
        const { jobs, outputs } = await checkFolder(data, identity);
        expect({ jobs: jobs.length, outputs }).toEqual({ jobs: said.jobs, outputs: said.results });
        for (const { id } of keptBefore) expect(jobs).toContainEqual({ id, state: 'succeeded' });
        results += outputs;
        if (round % 7 !== 6) {
          await rm(data, { recursive: true });
          continue;
        }
        await using again = await startTestServer([app], { login: true, dataFolder: data, workers: 0 });
        expect(again.identity).toBe(identity);
        for (const { key } of [first, before]) {
          const headers = { authorization: `Bearer ${key}` };
          expect((await fetch(`${again.url}/api/services`, { headers })).status).toBe(200);
        }
        const headers = { authorization: `Bearer ${first.key}` };
        for (const { id, digest, name } of keptBefore.slice(0, 3)) {
          const response = await fetch(`${again.url}/api/jobs/${id}/outputs/${name}`, { headers });
          expect(response.status).toBe(200);
          expect(`sha256:${sha256(new Uint8Array(await response.arrayBuffer()))}`).toBe(digest);
        }
      }
      // As slow as on a large folder: predictions end between two steps.
      await using stage = await stageBackup(dataFolder, {
        jobs: true,
        signal: done.signal,
        onProgress: (step) => void (step === 'databases' && pause(1500)),
      });
      expect((await checkFolder(stage.folder, identity)).outputs).toBeGreaterThan(0);
    } finally {
      done.abort();
      await Promise.all([...load, makeKeys]);
    }
    expect(results).toBeGreaterThan(5 * rounds);
    expect(readdirSync(dataFolder).filter((name) => name.endsWith('.part'))).toEqual([]);
    await run('audit', 'verify', '--data', dataFolder);
  }, 300_000);

  it('keeps results as owner-only hard links after the server deletes them', async () => {
    await using server = await startTestServer(['threshold'], { login: true });
    const { dataFolder } = server;
    const { key } = await makeKey(dataFolder, ['predict']);
    const client = createClient({ baseUrl: server.url, apiKey: key });
    const job = await client.predict('threshold', { volumes: { volume: new Blob([await ownVolume(7)]) } });
    const settled = await client.wait(job.id);
    const to = join(folder, 'linked');
    const words = await run('backup', to, '--data', dataFolder);
    expect(words).toContain(`${settled.outputs.length} results`);
    const name = settled.outputs[0].digest.slice(7);
    const ofServer = join(dataFolder, 'blobs', 'sha256', name);
    const ofBackup = join(to, 'blobs', 'sha256', name);
    expect(statSync(ofBackup).ino).toBe(statSync(ofServer).ino);
    await client.remove(job.id);
    expect(existsSync(ofServer)).toBe(false);
    expect(sha256(readFileSync(ofBackup))).toBe(name);
    for (const archive of ['a.tar', 'a.tar.gz']) {
      await run('backup', join(folder, archive), '--data', dataFolder);
      expect(open(join(folder, archive))).toEqual([]);
    }
    expect(open(to)).toEqual([]);
    const data = join(folder, 'linked-restored');
    await run('restore', to, '--data', data);
    expect(open(data)).toEqual([]);
    // A copy of its own: the backup can go.
    expect(statSync(join(data, 'blobs', 'sha256', name)).ino).not.toBe(statSync(ofBackup).ino);
    const lines = readFileSync(join(dataFolder, 'audit.jsonl'), 'utf8');
    await expect.poll(() => readFileSync(join(dataFolder, 'audit.jsonl'), 'utf8')).toContain('backup.made');
    expect(lines).toContain('"event":"job.deleted"');
    await using again = await startTestServer(['threshold'], { login: true, dataFolder: data });
    const found = await createClient({ baseUrl: again.url, apiKey: key }).job(job.id);
    expect(found).toMatchObject({ state: 'succeeded' });
    expect(readFileSync(join(data, 'audit.jsonl'), 'utf8')).toContain('"event":"backup.restored"');
    await run('audit', 'verify', '--data', data);
  }, 60_000);

  it('copies where hard links cannot reach: to another file system', async ({ skip }) => {
    const memory = '/dev/shm';
    if (!existsSync(memory) || statSync(memory).dev === statSync(folder).dev)
      return skip('this machine has no other file system for temporary files');
    await using server = await startTestServer(['threshold'], {});
    const client = createClient({ baseUrl: server.url });
    const job = await client.predict('threshold', { volumes: { volume: new Blob([await ownVolume(8)]) } });
    await client.wait(job.id);
    const other = await mkdtemp(join(memory, 'tomaat-backup-'));
    try {
      for (const name of ['folder', 'archive.tar']) {
        await run('backup', join(other, name), '--data', server.dataFolder);
        expect(open(join(other, name))).toEqual([]);
        const data = join(folder, `from-${name}`);
        await run('restore', join(other, name), '--data', data);
        expect((await checkFolder(data, server.identity)).jobs).toEqual([{ id: job.id, state: 'succeeded' }]);
      }
      expect(readdirSync(other).sort()).toEqual(['archive.tar', 'folder']);
    } finally {
      await rm(other, { recursive: true });
    }
  }, 60_000);

  it('omits jobs, results and uploads with all their bytes for --no-jobs', async () => {
    await using server = await startTestServer(['threshold'], { login: true });
    const { dataFolder } = server;
    const { key } = await makeKey(dataFolder, ['predict']);
    const client = createClient({ baseUrl: server.url, apiKey: key });
    const job = await client.predict('threshold', {
      volumes: { volume: new File([await ownVolume(9)], 'ROE_JANE.nii') },
      keepText: true,
    });
    await client.wait(job.id);
    const to = join(folder, 'without-jobs');
    const said = JSON.parse(await run('backup', to, '--data', dataFolder, '--no-jobs', '--json'));
    expect(said).toMatchObject({ jobs: 0, results: 0 });
    expect(existsSync(join(to, 'blobs'))).toBe(false);
    expect(readFileSync(join(to, 'server.db'), 'latin1')).not.toMatch(/ROE_JANE|segmentation/);
    const data = join(folder, 'without-jobs-restored');
    await run('restore', to, '--data', data);
    await using again = await startTestServer(['threshold'], { login: true, dataFolder: data });
    const headers = { authorization: `Bearer ${key}` };
    expect((await fetch(`${again.url}/api/services`, { headers })).status).toBe(200);
    expect((await fetch(`${again.url}/api/jobs/${job.id}`, { headers })).status).toBe(404);
  }, 60_000);

  it('brings settings, certificate, pins and identity, and leaves locks and work out', async () => {
    const dataFolder = join(folder, 'settings');
    {
      await using _serving = await startServing(['up', '--data', dataFolder]);
    }
    writeFileSync(join(dataFolder, 'tomaat.config.yaml'), 'keepMinutes: 7\n', { mode: 0o600 });
    writeFileSync(join(dataFolder, 'known_hosts'), '# nobody\n', { mode: 0o600 });
    mkdirSync(join(dataFolder, 'work', 'x'), { recursive: true });
    // Without a server.
    await run('backup', join(folder, 'settings.tar'), '--data', dataFolder);
    const data = join(folder, 'settings-restored');
    await run('restore', join(folder, 'settings.tar'), '--data', data);
    const same = ['identity.key', 'pseudonym.key', 'announcement-epoch', 'tomaat.pem', 'tomaat.key'];
    for (const name of [...same, 'tomaat.config.yaml', 'known_hosts'])
      expect(readFileSync(join(data, name)), name).toEqual(readFileSync(join(dataFolder, name)));
    const names = readdirSync(data).filter((name) => !/^audit|\.db$/.test(name));
    expect(names.sort()).toEqual([...same, 'tomaat.config.yaml', 'known_hosts'].sort());
  }, 60_000);

  it('never overwrites without --force, and with it replaces nothing but a backup', async () => {
    await using server = await startTestServer(['threshold'], { workers: 0 });
    const backup = (to: string, ...more: string[]) =>
      tomaat(['backup', to, '--data', server.dataFolder, ...more]);
    const [dir, tar] = [join(folder, 'there'), join(folder, 'there.tar')];
    for (const to of [dir, tar]) {
      await run('backup', to, '--data', server.dataFolder);
      const before = statSync(to).mtimeMs;
      const refused = await backup(to);
      expect(refused).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('--force') });
      expect(statSync(to).mtimeMs).toBe(before);
      await run('backup', to, '--data', server.dataFolder, '--force');
      expect(statSync(to).mtimeMs).not.toBe(before);
    }
    const precious = join(folder, 'precious');
    mkdirSync(precious);
    writeFileSync(join(precious, 'thesis.txt'), 'years of work');
    for (const [to, words] of [
      [precious, 'is not a backup'],
      [join(precious, 'thesis.txt'), 'is not a backup'],
      [join(server.dataFolder, 'inside'), 'inside the data folder'],
      [join(folder, 'a.zip'), '.tar, .tar.gz or .tgz'],
      [join(folder, 'missing', 'a.tar'), 'There is no folder'],
    ]) {
      const refused = await backup(to, '--force');
      expect(refused, to).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(words) });
    }
    expect(readdirSync(precious)).toEqual(['thesis.txt']);
    const nothing = await tomaat(['backup', join(folder, 'n.tar'), '--data', precious]);
    expect(nothing).toMatchObject({ code: 2, stderr: expect.stringContaining('No data of a server') });
    expect(readdirSync(server.dataFolder).filter((name) => name.endsWith('.part'))).toEqual([]);
    expect(readdirSync(folder).filter((name) => name.endsWith('.part'))).toEqual([]);
  }, 120_000);

  it('settles jobs whose files vanished, and adds a key missing in one database', async () => {
    const dataFolder = join(folder, 'between');
    {
      await using server = await startTestServer(['threshold'], { dataFolder });
      const client = createClient({ baseUrl: server.url });
      const volume = new Blob([await ownVolume(31)]);
      await client.wait((await client.predict('threshold', { volumes: { volume } })).id);
    }
    const { id: keyId } = await makeFolderKey(dataFolder, { label: 'both', scopes: ['predict'] });
    const server = new DatabaseSync(join(dataFolder, 'server.db'));
    const gone = `sha256:${'0'.repeat(64)}`;
    const insert = server.prepare(
      `INSERT INTO job (id, service, state, attempt, owner, request, created_ms, worker)
       VALUES (?, 'threshold', ?, 1, 'anonymous', '{"parameters":{},"stem":"a"}', 1, ?)`,
    );
    for (const state of ['succeeded', 'queued', 'running']) insert.run(`gone-${state}`, state, 'gpu-1');
    server
      .prepare(
        `INSERT INTO job_output VALUES ('gone-succeeded', 1, 0, 'a', 'LabelVolume', 'a', 1, 'nii', ?, 9, NULL, NULL)`,
      )
      .run(gone);
    for (const state of ['queued', 'running'])
      server
        .prepare(
          'INSERT INTO job_input (job, position, name, file_name, digest, size_bytes) VALUES (?, 0, ?, ?, ?, 9)',
        )
        .run(`gone-${state}`, 'volume', 'a.nii', gone);
    const upload = server.prepare(
      "INSERT INTO upload VALUES (?, 'anonymous', 9, 9, NULL, ?, NULL, '', 9999999999999, NULL, NULL, 0)",
    );
    upload.run('gone-upload', gone);
    upload.run('half-upload', null);
    server.prepare('DELETE FROM api_key WHERE id = ?').run(keyId);
    server.close();
    const to = join(folder, 'between-backup');
    const said = JSON.parse(await run('backup', to, '--data', dataFolder, '--json'));
    expect(said).toMatchObject({ jobs: 3, removed: 1, failed: 2 });
    const copy = new DatabaseSync(join(to, 'server.db'));
    const rows = (text: string) => copy.prepare(text).all();
    expect(
      rows(
        "SELECT id, state, worker, settled_ms > 1 AS settled, expires_ms > settled_ms AS kept FROM job WHERE id LIKE 'gone-%' ORDER BY id",
      ),
    ).toEqual([
      { id: 'gone-queued', state: 'failed', worker: null, settled: 1, kept: 1 },
      { id: 'gone-running', state: 'failed', worker: null, settled: 1, kept: 1 },
    ]);
    expect(rows('SELECT job FROM job_input')).toEqual([]);
    expect(rows('SELECT id FROM upload')).toEqual([]);
    expect(rows('SELECT id FROM api_key')).toContainEqual({ id: keyId });
    copy.close();
    const data = join(folder, 'between-restored');
    await run('restore', to, '--data', data);
    await using again = await startTestServer(['threshold'], { dataFolder: data });
    const client = createClient({ baseUrl: again.url });
    expect(await client.job('gone-queued')).toMatchObject({
      state: 'failed',
      error: { detail: expect.stringContaining('Send the prediction again') },
    });
    await expect(client.job('gone-succeeded')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  }, 60_000);

  it('leaves nothing when interrupted, and removes what a killed backup left', async () => {
    await using server = await startTestServer(['threshold'], { workers: 0 });
    const parts = () => readdirSync(server.dataFolder).filter((name) => name.endsWith('.part'));
    const stop = new AbortController();
    const staging = stageBackup(server.dataFolder, {
      jobs: true,
      signal: stop.signal,
      onProgress: () => stop.abort(new Error('stopped')),
    });
    await expect(staging).rejects.toThrow('stopped');
    expect(parts()).toEqual([]);
    // Of a process that is no longer running.
    mkdirSync(join(server.dataFolder, 'backup-4194303.part'));
    await run('backup', join(folder, 'after-kill'), '--data', server.dataFolder);
    expect(parts()).toEqual([]);
    mkdirSync(join(folder, 'left', 'backup-4194303.part'), { recursive: true });
    await using _serving = await startServing([
      'serve',
      appFolder('threshold'),
      '--data',
      join(folder, 'left'),
    ]);
    expect(readdirSync(join(folder, 'left')).filter((name) => name.endsWith('.part'))).toEqual([]);
  }, 60_000);
});

describe('tomaat restore', () => {
  let backup: string;
  let digests: string[];
  beforeAll(async () => {
    await using server = await startTestServer(['threshold'], {});
    const client = createClient({ baseUrl: server.url });
    for (const mark of [21, 22])
      await client.wait(
        (await client.predict('threshold', { volumes: { volume: new Blob([await ownVolume(mark)]) } })).id,
      );
    backup = join(folder, 'good');
    await run('backup', backup, '--data', server.dataFolder);
    digests = readdirSync(join(backup, 'blobs', 'sha256'));
  }, 60_000);

  async function changed(name: string, change: (path: string) => void): Promise<string> {
    const copy = join(folder, name);
    await cp(backup, copy, { recursive: true });
    change(copy);
    return copy;
  }

  it('refuses non-empty or used folders; --force moves existing files aside', async () => {
    const data = join(folder, 'taken');
    {
      await using server = await startTestServer(['threshold'], { dataFolder: data, workers: 0 });
      const inUse = await tomaat(['restore', backup, '--data', data, '--force']);
      expect(inUse).toMatchObject({ code: 2, stderr: expect.stringContaining('is in use by') });
      expect((await fetch(`${server.url}/health/ready`)).status).toBe(200);
    }
    const before = readdirSync(data).sort();
    const identity = readFileSync(join(data, 'identity.key'));
    const refused = await tomaat(['restore', backup, '--data', data]);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('is not empty') });
    expect(readdirSync(data).sort()).toEqual(before);
    const { movedTo } = JSON.parse(await run('restore', backup, '--data', data, '--force', '--json'));
    expect(readFileSync(join(movedTo, 'identity.key'))).toEqual(identity);
    expect(readFileSync(join(data, 'identity.key'))).toEqual(readFileSync(join(backup, 'identity.key')));
    await using server = await startTestServer(['threshold'], { dataFolder: data, workers: 0 });
    expect((await fetch(`${server.url}/health/ready`)).status).toBe(200);
  }, 60_000);

  it('moves aside repeatedly within a second, each time to another folder', async () => {
    const data = join(folder, 'again');
    vi.useFakeTimers({ toFake: ['Date'], now: new Date('2026-02-03T04:05:06Z') });
    try {
      const moved: (string | undefined)[] = [];
      for (let round = 0; round < 4; round++) {
        const options = { force: true, signal: new AbortController().signal, onProgress() {} };
        moved.push((await restoreBackup(backup, data, options)).movedTo);
        expect(readFileSync(join(data, 'identity.key'))).toEqual(readFileSync(join(backup, 'identity.key')));
      }
      const names = ['', '-2', '-3'].map((end) => join(data, `replaced-20260203T040506Z${end}`));
      expect(moved).toEqual([undefined, ...names]);
      for (const name of names) expect(readdirSync(name)).toContain('server.db');
    } finally {
      vi.useRealTimers();
    }
  });

  it('leaves out damaged results, reports them, and exits with 1', async () => {
    const copy = await changed('damaged-results', (path) => {
      appendFileSync(join(path, 'blobs', 'sha256', digests[0]), 'x');
      rmSync(join(path, 'blobs', 'sha256', digests[1]));
    });
    const data = join(folder, 'damaged-results-restored');
    const ended = await tomaat(['restore', copy, '--data', data, '--json']);
    expect(ended.code).toBe(1);
    const said = JSON.parse(ended.stdout);
    expect(said).toMatchObject({ ok: false, damaged: 2 });
    expect(said.removed).toBeGreaterThan(0);
    await checkFolder(data, said.identity);
  });

  it('refuses a backup with other damage or an invalid one, leaving nothing', async () => {
    const copies = [
      await changed('damaged-db', (path) => appendFileSync(join(path, 'server.db'), 'x')),
      await changed('missing-identity', (path) => rmSync(join(path, 'identity.key'))),
      await changed('damaged-log', (path) => appendFileSync(join(path, 'audit.jsonl'), '\n')),
      await changed('no-manifest', (path) => rmSync(join(path, 'backup.json'))),
      await changed('half-manifest', (path) => {
        const text = readFileSync(join(path, 'backup.json'), 'utf8');
        writeFileSync(join(path, 'backup.json'), text.slice(0, text.length / 2));
      }),
      await changed('newer', (path) => {
        const text = readFileSync(join(path, 'backup.json'), 'utf8');
        writeFileSync(join(path, 'backup.json'), text.replace('tomaat-backup/1', 'tomaat-backup/2'));
      }),
      await changed('climbing', (path) => {
        const text = readFileSync(join(path, 'backup.json'), 'utf8');
        writeFileSync(join(path, 'backup.json'), text.replace('"tomaat.pem"', '"../climbed.pem"'));
      }),
    ];
    const half = join(folder, 'half.tar');
    await run('backup', join(folder, 'whole.tar'), '--data', join(folder, 'taken'));
    const whole = readFileSync(join(folder, 'whole.tar'));
    writeFileSync(half, whole.subarray(0, whole.length / 2));
    const noTar = join(folder, 'no.tar');
    writeFileSync(noTar, Buffer.alloc(5000, 'not an archive'));
    for (const from of [...copies, half, noTar, join(folder, 'nothing.tar')]) {
      const data = join(folder, 'refused');
      const ended = await tomaat(['restore', from, '--data', data]);
      expect({ from, code: ended.code, out: ended.stdout }).toEqual({ from, code: 2, out: '' });
      expect(ended.stderr).toMatch(/^Error: \S/);
      expect(existsSync(data), from).toBe(false);
    }
    expect(existsSync(join(folder, 'climbed.pem'))).toBe(false);
  }, 120_000);

  it('takes nothing out of an archive but the files of a backup', async () => {
    const manifest = join(backup, 'backup.json');
    const { files } = JSON.parse(readFileSync(manifest, 'utf8')) as { files: { path: string }[] };
    const good: TarSource[] = ['backup.json', ...files.map(({ path }) => path)].map((path) => ({
      type: 'file',
      source: join(backup, path),
      target: path,
    }));
    const evil = (target: string): TarSource => ({ type: 'content', content: 'evil', target });
    const archive = join(folder, 'evil.tar');
    const sources = [evil('tomaat.config.yaml.d'), evil('blobs/sha256/../../x'), evil('lock.db'), ...good];
    const strange = [evil('known_hosts'), evil(`blobs/sha256/${'0'.repeat(64)}`)];
    for (const list of [[...sources.filter(({ target }) => !target.includes('..')), ...strange], sources]) {
      const chunks: Buffer[] = [];
      try {
        for await (const chunk of packTar(list)) chunks.push(chunk as Buffer);
      } catch {
        continue; // The packer itself refuses to climb.
      }
      writeFileSync(archive, Buffer.concat(chunks));
      const data = join(folder, 'from-evil');
      await run('restore', archive, '--data', data);
      const names = readdirSync(data, { recursive: true, encoding: 'utf8' });
      const wanted = new Set(files.map(({ path }) => path));
      const more = names.filter((name) => statSync(join(data, name)).isFile() && !wanted.has(name));
      expect(more.filter((name) => !/^audit\.pending\/|^lock\.db$|-(wal|shm)$/.test(name))).toEqual([]);
      expect(existsSync(join(data, 'known_hosts'))).toBe(wanted.has('known_hosts'));
      await rm(data, { recursive: true });
    }
  }, 60_000);

  it('that was interrupted prevents the server’s start until it is repeated', async () => {
    const data = join(folder, 'half-restored');
    mkdirSync(join(data, 'restore.part'), { recursive: true });
    const refused = await tomaat([
      'serve',
      appFolder('threshold'),
      '--data',
      data,
      '--port',
      '0',
      '--tls-port',
      '0',
    ]);
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('tomaat restore') });
    expect(readdirSync(data)).toEqual(['restore.part']);
    await run('restore', backup, '--data', data, '--force');
    await using serving = await startServing(['serve', appFolder('threshold'), '--data', data]);
    expect((await fetch(`${serving.addresses.server}/health/ready`)).status).toBe(200);
  }, 60_000);
});
