import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { get } from 'node:https';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import type { Job } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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
  function serve(name: string, port: number, ...args: string[]): string {
    names.push(name);
    must(
      ...['run', '--detach', '--name', name, ...onHost, '--env', `TOMAAT_PORT=${port}`, image!],
      ...['serve', app, ...args],
    );
    return name;
  }
  const server = `tomaat-test-${process.pid}`;
  const isReady = async () => (await fetch(`${url}/health/ready`).catch(() => undefined))?.status;

  beforeAll(async () => {
    volume = Uint8Array.from(readFileSync(join(repository, 'apps/ct-lung/sample.nii.gz')));
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    serve(server, port, '--tls-port', '0', '--workers', '1');
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
    await expect.poll(isReady, wait).toBe(200);
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
    serve(other, port, '--tls-port', '0', '--workers', '0');
    await expect
      .poll(async () => (await fetch(`${at}/health/ready`).catch(() => undefined))?.status, wait)
      .toBe(200);
    const created = must('exec', other, 'tomaat', 'keys', 'create', '--label', 'worker', '--scope', 'worker');
    const [key] = /tmt_\S+/.exec(created)!;
    const sent = await fetch(`${at}/api/services/ct-lung/predictions`, {
      method: 'POST',
      body: volume,
      headers: { 'content-type': 'application/octet-stream' },
    });
    const { id } = (await sent.json()) as Job;
    const worker = ['worker', at, app, '--idle-exit', '0', '--data', '/tmp/none'];
    must('run', '--rm', ...onHost, '--env', `TOMAAT_WORKER_TOKEN=${key}`, image!, ...worker);
    const job = (await (await fetch(`${at}/api/jobs/${id}`)).json()) as Job;
    expect([job.state, job.attempt]).toEqual(['succeeded', 1]);
  });

  it('beyond loopback it is healthy over HTTPS, and answers to its address', async () => {
    const open = `${server}-open`;
    const port = await freePort();
    serve(open, port, '--workers', '0', '--host', '0.0.0.0', '--login', '--tls-self-made');
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
});
