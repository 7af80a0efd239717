import { chmodSync, lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo, Server } from 'node:net';
import { join } from 'node:path';
import { connect, createServer as createTlsServer, type SecureVersion } from 'node:tls';
import { createClient } from '@tomaat/client';
import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openCertificate } from '../src/tls.ts';
import { createGuardedFetch } from '../src/trust/guarded-fetch.ts';
import { addPin, knownHostsFile } from '../src/trust/known-hosts.ts';
import { makeKey } from './access-fixture.ts';
import { tomaat } from './cli-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { createCleanup, openTestRegistry } from './registry-helpers.ts';
import { startServing } from './serving.ts';
import { appFolder, startTestServer, temporaryFolder } from './test-server.ts';

/* What a server shows to others: which TLS it speaks, who may read its files, how deep a body may go. */

let folder: string;
const cleanup = createCleanup();
beforeAll(async () => {
  folder = await temporaryFolder();
});
afterAll(async () => {
  await cleanup.run();
  await rm(folder, { recursive: true, force: true });
});

async function portOf(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanup.add(() => void server.close());
  return (server.address() as AddressInfo).port;
}

describe('TLS', () => {
  /** What comes of a handshake with no other version than this. */
  function handshake(port: number, version: SecureVersion): Promise<string> {
    return new Promise((resolve) => {
      const socket = connect({
        port,
        host: '127.0.0.1',
        rejectUnauthorized: false,
        minVersion: version,
        maxVersion: version,
        // Else this side would not speak the old ones.
        ciphers: 'DEFAULT:@SECLEVEL=0',
      });
      socket.once('secureConnect', () => {
        resolve(String(socket.getProtocol()));
        socket.destroy();
      });
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(String(error.code)));
    });
  }

  it('is accepted from 1.2 on; older versions are refused on every port', async () => {
    const { key, cert } = await openCertificate(folder);
    const old = createTlsServer({ key, cert, minVersion: 'TLSv1', ciphers: 'DEFAULT:@SECLEVEL=0' });
    const oldPort = await portOf(old);
    // This side does speak them, to any client that does.
    for (const version of ['TLSv1', 'TLSv1.1'] as const)
      expect(await handshake(oldPort, version)).toBe(version);
    // Node's own list of ciphers forbids the old versions, too: without it, what the server says of versions decides.
    const env = { NODE_OPTIONS: '--tls-cipher-list=DEFAULT:@SECLEVEL=0' };
    const legacy = ['--legacy-port', '0', '--registry-legacy-port', '0'];
    await using serving = await startServing(['up', '--data', join(folder, 'tls'), ...legacy], { env });
    const { serverTls, legacyUrl, registryLegacyUrl } = serving.addresses;
    for (const url of [serverTls, legacyUrl!, registryLegacyUrl!]) {
      const port = Number(new URL(url).port);
      for (const version of ['TLSv1', 'TLSv1.1'] as const)
        expect(await handshake(port, version), `${url} ${version}`).toBe(
          'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
        );
      for (const version of ['TLSv1.2', 'TLSv1.3'] as const)
        expect(await handshake(port, version)).toBe(version);
    }
  }, 60_000);
});

describe.skipIf(process.platform === 'win32')('the data folder', () => {
  it('and all in it is for its owner alone, whatever the umask is', async () => {
    const data = join(folder, 'data');
    const earlier = process.umask(0);
    try {
      await using serving = await startServing(['up', '--login', '--data', data]);
      const { server } = serving.addresses;
      const { key } = await makeKey(data, ['predict']);
      const client = createClient({ baseUrl: server, apiKey: key });
      const bytes = Uint8Array.from(await encode(phantom(), 'nii'));
      const job = await client.predict('threshold', {
        volumes: { volume: new Blob([bytes]) },
        resumableAboveBytes: 1,
      });
      await client.wait(job.id);
      await tomaat(['keys', 'create', '--label', 'a', '--data', data]);
      await tomaat(['audit', 'rotate', '--data', data]);
      await addPin(knownHostsFile(data), 'a.example:443', Array(32).fill('AB').join(':'));
      const begun = await fetch(`${server}/api/uploads`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'tus-resumable': '1.0.0', 'upload-length': '9' },
      });
      expect(begun.status).toBe(201);
      const modesOf = () =>
        Object.fromEntries(
          ['.', ...readdirSync(data, { recursive: true, encoding: 'utf8' })].flatMap((name) => {
            const stat = lstatSync(join(data, name), { throwIfNoEntry: false });
            return stat ? [[name, stat.mode & 0o777]] : [];
          }),
        );
      const modes = modesOf();
      const wanted = [
        'server.db',
        'server.db-wal',
        'registry.db',
        'registry.db-wal',
        'identity.key',
        'tomaat.key',
      ];
      const more = [
        'pseudonym.key',
        'audit.jsonl',
        'audit-',
        'audit.head',
        'announcement-epoch',
        'known_hosts',
      ];
      const folders = ['blobs/sha256/', 'uploads/', 'lock.db', 'lock.pid', 'audit.pending'];
      for (const name of [...wanted, ...more, ...folders])
        expect(
          Object.keys(modes).some((path) => path.startsWith(name)),
          name,
        ).toBe(true);
      // The certificate is for everybody.
      const open = Object.entries(modes).filter(
        ([name, mode]) => name !== 'tomaat.pem' && (mode & 0o077) !== 0,
      );
      expect(open).toEqual([]);
      await serving.stop();
      expect(
        Object.entries(modesOf()).filter(([name, mode]) => name !== 'tomaat.pem' && mode & 0o077),
      ).toEqual([]);
    } finally {
      process.umask(earlier);
    }
  }, 60_000);

  it('of the operator’s own keeps its mode', async () => {
    const data = await temporaryFolder();
    chmodSync(data, 0o750);
    await using _serving = await startServing(['serve', appFolder('threshold'), '--data', data]);
    expect(lstatSync(data).mode & 0o777).toBe(0o750);
    cleanup.add(() => rm(data, { recursive: true, force: true }));
  });
});

describe('the page', () => {
  it('has a policy that forbids other hosts and framing', async () => {
    const page = join(folder, 'page');
    mkdirSync(join(page, 'assets'), { recursive: true });
    writeFileSync(join(page, 'index.html'), '<!doctype html>');
    writeFileSync(join(page, 'assets', 'a.js'), '1');
    await using server = await startTestServer(['threshold'], { workers: 0, page });
    const registry = await openTestRegistry(cleanup, { page });
    // By hand: a source that is added here has to be thought about.
    const policy = {
      'default-src': "'none'",
      'script-src': "'self' 'wasm-unsafe-eval'",
      'style-src': "'self'",
      'img-src': "'self' data: blob:",
      'font-src': "'self'",
      'connect-src': "'self' blob:",
      'worker-src': "'self' blob:",
      'base-uri': "'none'",
      'form-action': "'none'",
      'frame-ancestors': "'none'",
    };
    for (const app of [server.app, registry.app]) {
      for (const url of ['/', '/services/x', '/jobs', '/jobs/x']) {
        const { headers } = await app.inject({ url });
        const parts = String(headers['content-security-policy']).split(/; */);
        const found = parts.map((part) => [
          part.slice(0, part.indexOf(' ')),
          part.slice(part.indexOf(' ') + 1),
        ]);
        expect(Object.fromEntries(found), url).toEqual(policy);
        expect(headers['x-content-type-options']).toBe('nosniff');
      }
      expect((await app.inject({ url: '/assets/a.js' })).headers['x-content-type-options']).toBe('nosniff');
    }
  });
});

describe('createGuardedFetch()', () => {
  it('refuses a redirect, and names its target without terminal control characters', async () => {
    let [status, location]: [number, string | undefined] = [302, undefined];
    const asked: string[] = [];
    const answer: RequestListener = (request, response) => {
      asked.push(request.url ?? '');
      response.writeHead(status, location === undefined ? {} : { location }).end('never mind');
    };
    const port = await portOf(createServer(answer));
    const fetch = createGuardedFetch({});
    for (status of [300, 301, 302, 303, 305, 307, 308]) {
      for (location of ['http://127.0.0.1:1/x', '/elsewhere', undefined]) {
        await expect(fetch(`http://127.0.0.1:${port}/a`), String(status)).rejects.toMatchObject({
          code: 'UPSTREAM',
          message: `http://127.0.0.1:${port}/a redirects to ${location ?? 'nowhere'}, which is not followed. If you trust that address, give it instead.`,
        });
      }
    }
    expect(new Set(asked)).toEqual(new Set(['/a']));
    [status, location] = [302, `http://a/\u009b31m${'x'.repeat(500)}`];
    const error = await fetch(`http://127.0.0.1:${port}/a`).catch((caught: Error) => caught as Error);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: none of these may be left
    expect((error as Error).message).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
    expect((error as Error).message.length).toBeLessThan(500);
    // Neither is an answer that nothing has changed, nor any other one.
    for (status of [200, 204, 304, 404, 503])
      expect((await fetch(`http://127.0.0.1:${port}/a`)).status).toBe(status);
  });
});

describe('JSON bodies', () => {
  it('of 65 levels are refused on every route that reads one', async () => {
    await using server = await startTestServer(['threshold'], { login: true, workers: 0 });
    const registry = await openTestRegistry(cleanup, {
      dataFolder: server.dataFolder,
      login: true,
      now: Date.now,
    });
    const { headers } = await makeKey(server.dataFolder, ['admin']);
    const id = 'AAAAAAAAAAAAAAAAAAAAAA';
    const routes: [FastifyInstance, 'POST' | 'PUT', string][] = [
      [server.app, 'POST', '/auth/session'],
      [server.app, 'POST', '/api/services/threshold/fit'],
      [server.app, 'POST', '/api/services/threshold/predictions'],
      [server.app, 'POST', '/threshold/any'],
      [server.app, 'POST', '/api/worker/claim'],
      ...['touch', 'complete', 'fail', 'hand-back'].map((what): [FastifyInstance, 'POST', string] => [
        server.app,
        'POST',
        `/api/worker/jobs/${id}/${what}`,
      ]),
      [registry.app, 'POST', '/auth/session'],
      [registry.app, 'PUT', `/api/announcements/${'A'.repeat(43)}.service`],
      [registry.app, 'POST', '/announce'],
    ];
    for (const [app, method, url] of routes) {
      const send = (depth: number) =>
        app.inject({
          method,
          url,
          headers: { ...headers, 'content-type': 'application/json' },
          payload: '['.repeat(depth) + ']'.repeat(depth),
        });
      const deep = await send(65);
      expect(deep.payload, url).toContain('nested more than 64 levels');
      // TOMAAT v1 answers 200 with an error in it.
      expect(deep.statusCode, url).toBe(url === '/announce' ? 200 : 400);
      expect((await send(64)).payload, url).not.toContain('deeper');
    }
  }, 60_000);
});
