import { type ChildProcess, spawn } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Entry } from '@tomaat/client';
import { collectBytes, writeVolume } from '@tomaat/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import { openCertificate } from '../src/tls.ts';
import { bin, deadAddress, temporaryFolder, tomaat } from './cli-fixture.ts';
import { databaseEnv } from './support/tested-database.ts';
import { appFolder, startTestServer } from './test-server.ts';

/*
 * Server and registry on other addresses than loopback.
 */

let folder: { path: string; remove(): void };
let children: ChildProcess[];
beforeEach(() => {
  folder = temporaryFolder();
  children = [];
});
afterEach(async () => {
  for (const child of children.reverse()) {
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await ended;
  }
  folder.remove();
});

/** A serving command, with the line of JSON that it prints when it is ready. */
async function start(...args: string[]) {
  const all = [...args, '--json', '--data', join(folder.path, 'data')];
  const child = spawn(process.execPath, [bin, ...all], {
    env: { ...process.env, ...(await databaseEnv(all)) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  let line = '';
  for await (const chunk of child.stdout!) {
    line += chunk;
    if (line.includes('\n')) break;
  }
  return JSON.parse(line) as { server?: string; serverTls: string; registry: string; adminKey: string };
}

function call(
  url: string,
  ca: string,
  key?: string,
  body?: Buffer,
): Promise<{ status?: number; bytes: Buffer }> {
  return new Promise((resolve, reject) => {
    const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
    const options = { ca, headers, method: body ? 'POST' : 'GET', agent: false as const };
    const sent = request(url, options, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('end', () => resolve({ status: answer.statusCode, bytes: Buffer.concat(chunks) }));
      answer.on('error', reject);
    });
    sent.on('error', reject);
    if (body) sent.setHeader('content-type', 'application/octet-stream');
    sent.end(body);
  });
}

const everywhere = ['--host', '0.0.0.0', '--login', '--tls-self-made'];
const local = (address: string) => `https://127.0.0.1:${new URL(address).port}`;

describe('beyond this machine', () => {
  it('up announces its server by name, and its relay reaches it', async () => {
    const { server, serverTls, registry, adminKey } = await start(
      'up',
      ...everywhere,
      ...['--port', '0', '--registry-port', '0'],
    );
    expect(server).toBeUndefined();
    expect(serverTls).toMatch(new RegExp(`^https://${hostname()}:\\d+$`, 'i'));
    const ca = readFileSync(join(folder.path, 'data', 'tomaat.pem'), 'utf8');
    const certificate = new X509Certificate(ca);
    expect(certificate.checkHost(hostname())).toBeDefined();
    expect((await call(`${local(registry)}/api/services`, ca)).status).toBe(401);
    const listed = await call(`${local(registry)}/api/services?task=threshold`, ca, adminKey);
    const { services } = JSON.parse(listed.bytes.toString()) as { services: Entry[] };
    expect(services).toMatchObject([{ serverUrl: serverTls, live: true }]);
    expect(services[0].predictionUrl).toBe(`${serverTls}/services/threshold/predict`);
    const volume = {
      voxels: Int16Array.from({ length: 60 }, (_, i) => (i % 3 === 0 ? 900 : 10)),
      size: [3, 4, 5] as [number, number, number],
      components: 1,
      affine: [0, -2, 0, 11, 0.8, 0, 0, -7, 0, 0, -3, 5, 0, 0, 0, 1],
    };
    const bytes = Buffer.from(await collectBytes(writeVolume(volume as never, 'nii.gz', nodePlatform)));
    expect((await call(`${local(registry)}/threshold/any`, ca, undefined, bytes)).status).toBe(401);
    const made = await call(`${local(registry)}/threshold/any`, ca, adminKey, bytes);
    expect({ status: made.status, start: made.bytes.subarray(0, 2) }).toEqual({
      status: 200,
      start: Buffer.from([0x1f, 0x8b]),
    });
  });

  it('announcements() name the public address', async () => {
    const publicUrl = 'https://server.example/tomaat';
    for (const host of ['127.0.0.1', '0.0.0.0']) {
      await using server = await startTestServer(['threshold'], {
        host,
        login: true,
        tlsSelfMade: true,
        publicUrl,
      });
      const [announced] = server.announcements();
      expect(announced).toMatchObject({
        predictionUrl: `${publicUrl}/services/threshold/predict`,
        interfaceUrl: `${publicUrl}/services/threshold/interface`,
        serverUrl: publicUrl,
      });
      expect(server.localUrl).toMatch(
        host === '0.0.0.0' ? /^https:\/\/127\.0\.0\.1:/ : /^http:\/\/127\.0\.0\.1:/,
      );
      const { cert } = server.certificate;
      expect(new X509Certificate(cert).checkHost('server.example')).toBe('server.example');
    }
  });

  it('refuses to announce all addresses to others, and a second HTTPS port', async () => {
    const serve = (...more: string[]) =>
      tomaat(
        ['serve', appFolder('threshold'), '--data', folder.path, ...everywhere, '--port', '0', ...more],
        { env: { TOMAAT_ANNOUNCE_KEY: 'tmt_k' } },
      );
    const announced = await serve('--announce', await deadAddress());
    expect(announced).toMatchObject({ code: 2, stdout: '' });
    expect(announced.stderr).toContain('--public-url');
    const twoPorts = await serve('--tls-port', '9555');
    expect(twoPorts).toMatchObject({ code: 2, stdout: '' });
    expect(twoPorts.stderr).toContain('Leave --tls-port');
    const noKey = await tomaat(
      ['serve', appFolder('threshold'), '--data', folder.path, '--announce', await deadAddress()],
      { env: { TOMAAT_API_KEY: 'tmt_client' } },
    );
    expect(noKey).toMatchObject({ code: 2 });
    expect(noKey.stderr).toContain('TOMAAT_ANNOUNCE_KEY');
  });

  it('registry shows the page, and serve --ca announces to it over HTTPS', async () => {
    const { registry, adminKey } = await start('registry', ...everywhere, '--port', '0');
    const data = join(folder.path, 'data');
    const pem = join(data, 'tomaat.pem');
    const ca = readFileSync(pem, 'utf8');
    const page = await call(`${local(registry)}/`, ca);
    expect(page.bytes.toString()).toContain('<html');
    const key = (await tomaat(['keys', 'create', '--label', 'x', '--data', data])).stdout.trim();
    const about = ['--announce', local(registry), '--ca', pem, '--announce-key', key];
    const ports = ['--port', '0', '--tls-port', '0'];
    const { server } = await start(
      'serve',
      appFolder('threshold'),
      ...ports,
      ...about,
      '--data',
      `${data}-2`,
    );
    await expect
      .poll(
        async () => {
          const { bytes } = await call(`${local(registry)}/api/services`, ca, adminKey);
          return (JSON.parse(bytes.toString()) as { services: Entry[] }).services.map((one) => one.serverUrl);
        },
        { timeout: 20_000 },
      )
      .toEqual([server]);
    const wrong = join(folder.path, 'wrong.pem');
    writeFileSync(wrong, 'no certificate');
    const refused = await tomaat(['registry', '--port', '0', '--data', `${data}-3`, '--ca', wrong]);
    expect(refused).toMatchObject({ code: 2 });
    expect(refused.stderr).toContain('contains no certificate');
  });
});

describe('openCertificate()', () => {
  it('keeps the self-signed certificate until it lacks a name, then reports that', async () => {
    const lines: string[] = [];
    const logger = { warn: (_about: object, line: string) => void lines.push(line) };
    const first = await openCertificate(folder.path, { host: '127.0.0.1', logger });
    for (const host of ['0.0.0.0', '::', '[::1]', 'localhost', hostname(), undefined])
      expect((await openCertificate(folder.path, { host, logger })).fingerprint, host).toBe(
        first.fingerprint,
      );
    expect(lines).toEqual([]);
    const second = await openCertificate(folder.path, { host: 'scanner.example', logger });
    expect(second.fingerprint).not.toBe(first.fingerprint);
    expect(lines).toEqual([expect.stringContaining('is not for scanner.example')]);
    const third = await openCertificate(folder.path, { host: '203.0.113.7', logger });
    const certificate = new X509Certificate(third.cert);
    expect(certificate.checkHost('scanner.example')).toBe('scanner.example');
    expect(certificate.checkIP('203.0.113.7')).toBe('203.0.113.7');
    expect(certificate.checkIP('127.0.0.1')).toBe('127.0.0.1');
    expect(certificate.checkIP('::1')).toBeDefined();
    expect((await openCertificate(folder.path, { host: 'scanner.example', logger })).fingerprint).toBe(
      third.fingerprint,
    );
  });
});
