import { spawnSync } from 'node:child_process';
import { chownSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:https';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { ListObjectsV2Command } from '@aws-sdk/client-s3';
import type { Job } from '@tomaat/client';
import { readVolume, sourceFromBytes } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openApp } from '../packages/server/src/local-app.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { postgresBin, startPostgres } from '../packages/server/test/support/postgres.ts';
import { hasS3, startS3 } from '../packages/server/test/support/s3.ts';
import { repository } from './documents.ts';
import { freePort } from './orthanc.ts';

/*
 * The image of deploy/container under podman: without root, read-only, without capabilities. TOMAAT_TEST_IMAGE is its name,
 * TOMAAT_TEST_PODMAN podman with the options that it needs here.
 */

const image = process.env.TOMAAT_TEST_IMAGE;
const [podman, ...options] = (process.env.TOMAAT_TEST_PODMAN ?? 'podman').split(' ');
const wait = { timeout: 120_000, interval: 300 };
const app = '/opt/tomaat/packages/server/apps/ct-lung';

function ask(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(podman, [...options, ...args], { encoding: 'utf8' });
  return { status, stdout: stdout.trim(), stderr };
}
function must(...args: string[]): string {
  const { status, stdout, stderr } = ask(...args);
  expect(status, `podman ${args.join(' ')}: ${stderr}`).toBe(0);
  return stdout;
}
const confined = [
  ...['--read-only', '--tmpfs', '/tmp', '--cap-drop', 'all'],
  ...['--security-opt', 'no-new-privileges', '--ulimit', 'nofile=4096:4096', '--ulimit', 'nproc=4096:4096'],
];

const onHost = ['--network', 'host', ...confined];

describe.skipIf(!image)('the image (TOMAAT_TEST_IMAGE)', { timeout: 300_000 }, () => {
  const names: string[] = [];
  let url: string;
  let volume: Uint8Array<ArrayBuffer>;
  /** Starts a server as a container in the background. */
  function serve(name: string, port: number, args: readonly string[], more: readonly string[] = []): void {
    names.push(name);
    must(
      ...['run', '--detach', '--name', name, ...onHost, ...more, '--env', `TOMAAT_PORT=${port}`, image!],
      ...['serve', app, ...args],
    );
  }
  const server = `tomaat-test-${process.pid}`;
  const untilReady = (at: string) =>
    expect
      .poll(async () => (await fetch(`${at}/health/ready`).catch(() => undefined))?.status, wait)
      .toBe(200);
  /** Gives a volume to a service at this address, and returns the job. */
  async function submit(at: string): Promise<Job> {
    const headers = { 'content-type': 'application/octet-stream' };
    const to = `${at}/api/services/ct-lung/predictions`;
    const response = await fetch(to, { method: 'POST', body: volume, headers });
    expect(response.status).toBe(202);
    return (await response.json()) as Job;
  }
  const look = async (at: string, { id }: Job) => (await (await fetch(`${at}/api/jobs/${id}`)).json()) as Job;

  beforeAll(async () => {
    volume = Uint8Array.from(readFileSync(join(repository, 'apps/ct-lung/sample.nii.gz')));
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    serve(server, port, ['--tls-port', '0', '--workers', '1']);
  }, 300_000);
  // With the driver vfs each container is a copy of the image.
  afterAll(() => void ask('rm', '--force', '--volumes', '--time', '1', ...names), 300_000);

  it('is no larger than 300 MB, has a user without rights and a health check', () => {
    const [about] = JSON.parse(must('image', 'inspect', image!));
    expect(about.Size).toBeLessThanOrEqual(300e6);
    expect(about.Config.User).toBe('10001:10001');
    expect(about.HealthCheck ?? about.Healthcheck).toBeTruthy();
    // The engine of this platform alone.
    const engines = must(
      ...[
        'run',
        '--rm',
        ...onHost,
        '--entrypoint',
        'sh',
        image!,
        '-c',
        'ls -d /opt/tomaat/node_modules/onnxruntime-node/bin/napi-v*/*/*',
      ],
    );
    expect(engines.split('\n')).toHaveLength(1);
  });

  it('computes without any network', () => {
    const args = ['run', app, '--volume', `${app}/sample.nii.gz`, '-o', '/tmp/lungs.nii.gz'];
    expect(must('run', '--rm', '--network', 'none', ...confined, image!, ...args)).toMatch(
      /^ {2}lung +\d+\.\d ml$/m,
    );
  });

  it('computes as one process of uid 10001, which can write to nothing but its folders', async () => {
    await untilReady(url);
    const form = new FormData();
    form.set('volume', new Blob([volume]), 'chest.nii.gz');
    const response = await fetch(`${url}/segmentation/lung`, { method: 'POST', body: form });
    expect(response.status).toBe(200);
    expect((await response.arrayBuffer()).byteLength).toBeGreaterThan(1000);
    const look = `const fs = require('fs'); const of = (name) => fs.readFileSync('/proc/1/' + name, 'utf8');
      const may = (file) => { try { fs.writeFileSync(file, ''); return true; } catch (error) { return error.code; } };
      console.log(JSON.stringify([of('cmdline').split('\\0')[0], /^Uid:\\s+(\\d+)/m.exec(of('status'))[1],
        /^CapEff:\\s+(\\S+)/m.exec(of('status'))[1], may('/opt/tomaat/x'), may('/etc/x'), may('/data/x')]))`;
    const seen = JSON.parse(must('exec', server, '/opt/tomaat/bin/node', '-e', look));
    expect(seen).toEqual(['/opt/tomaat/bin/node', '10001', '0000000000000000', 'EROFS', 'EROFS', true]);
    must('healthcheck', 'run', server);
  });

  it('a worker in it computes for that server, and ends when idle', async () => {
    const other = `${server}-queue`;
    const port = await freePort();
    const at = `http://127.0.0.1:${port}`;
    serve(other, port, ['--tls-port', '0', '--workers', '0']);
    await untilReady(at);
    const created = must('exec', other, 'tomaat', 'keys', 'create', '--label', 'worker', '--scope', 'worker');
    const [key] = /tmt_\S+/.exec(created)!;
    const sent = await submit(at);
    const worker = ['worker', at, app, '--idle-exit', '0', '--data', '/tmp/none'];
    must('run', '--rm', ...onHost, '--env', `TOMAAT_WORKER_TOKEN=${key}`, image!, ...worker);
    const job = await look(at, sent);
    expect([job.state, job.attempt]).toEqual(['succeeded', 1]);
  });

  it('beyond loopback it is healthy over HTTPS, and answers to its address', async () => {
    const open = `${server}-open`;
    const port = await freePort();
    serve(open, port, ['--workers', '0', '--host', '0.0.0.0', '--login', '--tls-self-made']);
    await expect.poll(() => ask('healthcheck', 'run', open).status, wait).toBe(0);
    const address = Object.values(networkInterfaces())
      .flat()
      .find((one) => one?.family === 'IPv4' && !one.internal)?.address;
    // As a probe of Kubernetes: by the address of the pod, without looking at the certificate.
    const status = await new Promise((resolve, reject) =>
      get(
        { host: address ?? '127.0.0.1', port, path: '/health/ready', rejectUnauthorized: false },
        (response) => resolve(response.resume().statusCode),
      ).on('error', reject),
    );
    expect(status).toBe(200);
  });

  it('SIGTERM ends it with 0', async () => {
    must('stop', '--time', '40', server);
    expect(must('inspect', '--format', '{{.State.ExitCode}}', server)).toBe('0');
    await expect(fetch(url)).rejects.toThrow();
  });

  it.skipIf(!postgresBin || !hasS3)('two servers in it share PostgreSQL and a bucket', async () => {
    await using opened = new AsyncDisposableStack();
    const postgres = opened.use(await startPostgres());
    const s3 = opened.use(await startS3());
    const [database, bucket] = [await postgres.database(), await s3.bucket()];
    const folder = mkdtempSync(join(tmpdir(), 'tomaat-image-'));
    opened.defer(() => rmSync(folder, { recursive: true, force: true }));
    makeKeys(folder, ['one', 'two']);
    const more = [
      ...['--env', `TOMAAT_DATABASE=${database}`],
      ...['--env', 'AWS_ACCESS_KEY_ID', '--env', 'AWS_SECRET_ACCESS_KEY', '--volume', `${folder}:/data`],
    ];
    const blobs = `s3://${bucket}/volumes?endpoint=${s3.endpoint}`;
    const start = async (name: string, workers: number) => {
      const port = await freePort();
      const args = [
        ...['--tls-port', '0', '--workers', `${workers}`],
        ...['--blobs', blobs, '--data', `/data/${name}`],
      ];
      serve(`${server}-${name}`, port, args, more);
      await untilReady(`http://127.0.0.1:${port}`);
      return `http://127.0.0.1:${port}`;
    };
    const one = await start('one', 0);
    const sent = await submit(one);
    // Another server computes it.
    const two = await start('two', 1);
    await expect.poll(async () => (await look(one, sent)).state, wait).toBe('succeeded');
    const [output] = (await look(two, sent)).outputs;
    await using local = await openApp(join(repository, 'apps/ct-lung'));
    const expected = await (await local.predict({ volumes: { volume } })).output().volume();
    expect(expected.voxels).toContain(1);
    for (const at of [one, two]) {
      const response = await fetch(`${at}/api/jobs/${sent.id}/outputs/${output.name}`);
      const file = sourceFromBytes('lung.nii.gz', new Uint8Array(await response.arrayBuffer()));
      const found = (await readVolume([file], nodePlatform)).volume;
      expect([found.size, found.affine]).toEqual([expected.size, expected.affine]);
      expect(found.voxels.findIndex((value, i) => value !== expected.voxels[i])).toBe(-1);
    }
    const { Contents: stored } = await s3.client.send(new ListObjectsV2Command({ Bucket: bucket }));
    const key = `volumes/${output.digest.replace(':', '/')}`;
    expect(stored).toContainEqual(expect.objectContaining({ Key: key }));
    must('stop', '--time', '40', `${server}-one`);
    expect((await look(two, sent)).state).toBe('succeeded');
    const verify = ['tomaat', 'audit', 'verify', '--data', '/data/two'];
    expect(must('exec', `${server}-two`, ...verify)).toContain('The audit log is intact');
  });
});

/** The keys of a deployment in the data folder of each server, made as README.md of deploy/container says. */
function makeKeys(folder: string, names: readonly string[]): void {
  const openssl = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync('openssl', args, { encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    return stdout;
  };
  const keys = {
    'identity.key': openssl('genpkey', '-algorithm', 'ed25519'),
    'pseudonym.key': openssl('rand', '-hex', '32'),
  };
  for (const name of names) {
    mkdirSync(join(folder, name), { mode: 0o700 });
    for (const [file, text] of Object.entries(keys))
      writeFileSync(join(folder, name, file), text, { mode: 0o600 });
  }
  const entries = readdirSync(folder, { recursive: true, encoding: 'utf8' });
  for (const entry of ['', ...entries]) chownSync(join(folder, entry), 10001, 10001);
}
