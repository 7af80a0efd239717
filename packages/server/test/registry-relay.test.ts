import { fork } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  type ClientRequest,
  request as httpRequest,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Announcement, announcementType, entrySchema, problemSchema } from '@tomaat/client';
import { afterEach, describe, expect, it } from 'vitest';
import { findKey } from '../src/access/keys.ts';
import { isLoopback } from '../src/addresses.ts';
import { createApp } from '../src/http/app.ts';
import { createRelay } from '../src/registry/relay.ts';
import type { RegistryAppOptions } from '../src/registry/start.ts';
import { createTargetPolicy } from '../src/registry/targets.ts';
import { openCertificate } from '../src/tls.ts';
import {
  announce,
  announcementOf,
  certificateOf,
  createCleanup,
  identityOf,
  idOf,
  openFolder,
  openServer,
  openTestRegistry,
  payloadOf,
  signerOf,
  type TestRegistry,
} from './registry-helpers.ts';

const cleanup = createCleanup();
afterEach(() => cleanup.run());

interface Got {
  path: string;
  headers: IncomingMessage['headers'];
  bytes: number;
  sha256: string;
}

/** A TOMAAT server as the relay sees one: ready, and answering the digest of what it got. */
function serverOf(got: Got[], answer?: RequestListener): RequestListener {
  return (request, response) => {
    if (request.url === '/health/ready') return response.end('{"status":"ready","services":1}');
    if (answer) return answer(request, response);
    const hash = createHash('sha256');
    let bytes = 0;
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      hash.update(chunk);
    });
    request.on('end', () => {
      const sha256 = hash.digest('hex');
      got.push({ path: request.url ?? '', headers: request.headers, bytes, sha256 });
      const text = `segmentation of ${sha256}`;
      response.writeHead(200, {
        'content-type': 'application/gzip',
        'content-length': Buffer.byteLength(text),
        'content-disposition': 'attachment; filename="x_segmentation.nii.gz"',
        'tomaat-service': 'prostate-net',
        'set-cookie': 'no=thing',
        'x-powered-by': 'nothing',
      });
      response.end(text);
    });
  };
}

interface Opened {
  registry: TestRegistry;
  url: string;
  key: string;
  offer(id: string, serverUrl: string, change?: Partial<Announcement>): Promise<string>;
}

async function openRelay(options: Partial<RegistryAppOptions> = {}): Promise<Opened> {
  const registry = await openTestRegistry(cleanup, options);
  await registry.app.listen({ host: '127.0.0.1', port: 0 });
  const key = await registry.key();
  return {
    registry,
    key,
    url: `http://127.0.0.1:${(registry.app.server.address() as AddressInfo).port}`,
    async offer(id, serverUrl, change = {}) {
      const answer = await announce(registry, key, id, announcementOf(serverUrl, change));
      expect(answer.statusCode, answer.payload).toBe(200);
      registry.clock.ms += 1;
      return entrySchema.parse(answer.json()).sid;
    },
  };
}

const post = (
  url: string,
  body: Uint8Array<ArrayBuffer> | string = 'volume',
  headers: Record<string, string> = {},
) => fetch(url, { method: 'POST', body, headers });

async function problemOf(answer: Response) {
  expect(answer.headers.get('content-type')).toContain('application/problem+json');
  return problemSchema.parse(await answer.json());
}

/** A port of 127.0.0.1 where nothing listens. */
async function deadUrl(): Promise<string> {
  const { url, server } = await openServer(cleanup, () => {});
  server.close();
  await once(server, 'close');
  return url;
}

describe('POST /{task}/{anatomy} on the registry', () => {
  it('drops a server’s policy, origins, cookies and redirects from relayed answers', async () => {
    const header = {
      'content-type': 'text/html',
      'content-security-policy': "default-src *; script-src * 'unsafe-inline'",
      'x-content-type-options': 'sniff',
      'access-control-allow-origin': 'https://evil.example',
      'access-control-allow-credentials': 'true',
      'set-cookie': 'tomaat=stolen',
      'clear-site-data': '"*"',
      'strict-transport-security': 'max-age=99999999',
      location: 'https://evil.example/',
      refresh: '0; url=https://evil.example/',
      link: '<https://evil.example/x.css>; rel=stylesheet',
      'service-worker-allowed': '/',
    };
    for (const status of [200, 422, 500]) {
      const relay = await openRelay();
      const { url } = await openServer(
        cleanup,
        serverOf([], (request, response) => {
          request
            .resume()
            .on('end', () => response.writeHead(status, header).end('<script>alert(1)</script>'));
        }),
      );
      await relay.offer('a', url);
      const answer = await post(`${relay.url}/segmentation/prostate`);
      const got = Object.fromEntries(answer.headers);
      expect(got).toMatchObject({
        'content-security-policy': "default-src 'none'; sandbox",
        'x-content-type-options': 'nosniff',
      });
      const own = ['content-security-policy', 'x-content-type-options', 'content-type'];
      for (const name of Object.keys(header).filter((name) => !own.includes(name)))
        expect(got, `${status} ${name}`).not.toHaveProperty(name);
    }
  });

  it('relays 256 concurrent requests, and refuses the next with that limit', async () => {
    const held: ServerResponse[] = [];
    const { url } = await openServer(
      cleanup,
      serverOf([], (request, response) => {
        request.resume();
        held.push(response);
      }),
    );
    const relay = await openRelay();
    await relay.offer('a', url);
    const sent: Promise<Response>[] = [];
    for (let i = 0; i < 256; i += 32) {
      for (let n = 0; n < 32; n++) sent.push(post(`${relay.url}/segmentation/prostate`));
      await expect.poll(() => held.length, { timeout: 20_000 }).toBe(i + 32);
    }
    const refused = await post(`${relay.url}/segmentation/prostate`);
    expect(await problemOf(refused)).toMatchObject({ status: 503, code: 'BUSY' });
    held[0].end('done');
    expect((await sent[0]).status).toBe(200);
    const next = post(`${relay.url}/segmentation/prostate`);
    await expect.poll(() => held.length, { timeout: 20_000 }).toBe(257);
    for (const response of held.slice(1)) response.end('done');
    for (const answer of [...sent, next]) expect((await answer).status).toBe(200);
  }, 60_000);

  it('passes body, types, length and query on, and the answer back, byte for byte', async () => {
    const got: Got[] = [];
    const { url } = await openServer(cleanup, serverOf(got));
    const relay = await openRelay();
    await relay.offer('a', url);
    const body = randomBytes(5_000_001);
    const answer = await post(`${relay.url}/segmentation/prostate?frame=2&threshold=0.5`, body, {
      'content-type': 'application/octet-stream',
      authorization: 'Bearer secret',
      cookie: 'session=secret',
    });
    const sha256 = createHash('sha256').update(body).digest('hex');
    expect(answer.status).toBe(200);
    expect(await answer.text()).toBe(`segmentation of ${sha256}`);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'content-type': 'application/gzip',
      'content-length': String(`segmentation of ${sha256}`.length),
      'content-disposition': 'attachment; filename="x_segmentation.nii.gz"',
      'tomaat-service': 'prostate-net',
      'tomaat-server': url,
      'x-content-type-options': 'nosniff',
    });
    expect(answer.headers.get('set-cookie')).toBeNull();
    expect(answer.headers.get('x-powered-by')).toBeNull();
    // It may not act as a page of the registry.
    expect(answer.headers.get('content-security-policy')).toBe("default-src 'none'; sandbox");
    expect(got).toMatchObject([
      {
        path: '/segmentation/prostate?frame=2&threshold=0.5&service=prostate-net',
        bytes: body.length,
        sha256,
      },
    ]);
    expect(got[0].headers).toMatchObject({
      host: new URL(url).host,
      'content-type': 'application/octet-stream',
      'content-length': String(body.length),
    });
    // Any user of this machine may listen here: a key is for the server beside the registry alone.
    expect(got[0].headers.authorization).toBeUndefined();
    expect(got[0].headers.cookie).toBeUndefined();
  });

  it('names the server when it requires a key, and withholds the caller’s', async () => {
    const seen: (string | undefined)[] = [];
    const { url } = await openServer(cleanup, (request, response) => {
      if (request.method === 'POST') seen.push(request.headers.authorization);
      request.resume().on('end', () => response.writeHead(request.method === 'POST' ? 401 : 200).end());
    });
    const relay = await openRelay();
    await relay.offer('a', url);
    const answer = await post(`${relay.url}/segmentation/prostate`, 'volume', {
      authorization: 'Bearer secret',
    });
    expect(answer.status).toBe(403);
    const { code, detail } = await problemOf(answer);
    expect(code).toBe('FORBIDDEN');
    expect(detail).toContain(`Send the request directly to the server: ${url}`);
    expect(seen).toEqual([undefined]);
  });

  it('finds the address whatever its case, under the path prefix of the server', async () => {
    const got: Got[] = [];
    const { url } = await openServer(cleanup, (request, response) => {
      const { url: path = '' } = request;
      expect(path).toMatch(/^\/tomaat\//);
      request.url = path.slice('/tomaat'.length);
      serverOf(got)(request, response);
    });
    const relay = await openRelay();
    await relay.offer('a', `${url}/tomaat/`);
    expect((await post(`${relay.url}/Segmentation/PROSTATE`)).status).toBe(200);
    expect(got.map(({ path }) => path)).toEqual(['/segmentation/prostate?service=prostate-net']);
  });

  it('prefers the default, then the oldest, or what ?service= names', async () => {
    const relay = await openRelay();
    const names = ['old', 'newer', 'default'];
    const got = new Map<string, Got[]>();
    const sids = new Map<string, string>();
    for (const name of names) {
      got.set(name, []);
      const { url } = await openServer(cleanup, serverOf(got.get(name)!));
      sids.set(
        name,
        await relay.offer(name, url, {
          serviceId: name,
          name: `The ${name} net`,
          default: name === 'default',
        }),
      );
    }
    const hits = () => names.map((name) => got.get(name)!.length).join();
    await post(`${relay.url}/segmentation/prostate`);
    expect(hits()).toBe('0,0,1');
    await post(`${relay.url}/segmentation/prostate?service=newer`);
    await post(`${relay.url}/segmentation/prostate?service=${sids.get('newer')}`);
    await post(`${relay.url}/segmentation/prostate?service=the%20NEWER%20net`);
    expect(hits()).toBe('0,3,1');
    expect(got.get('newer')!.every(({ path }) => path.endsWith('?service=newer'))).toBe(true);
    const problem = await problemOf(await post(`${relay.url}/segmentation/prostate?service=none`));
    expect(problem).toMatchObject({ status: 404, field: 'service' });
    for (const name of names) expect(problem.detail).toContain(name);
    await relay.registry.app.inject({
      method: 'DELETE',
      url: `/api/announcements/${await idOf('default', 'default')}`,
      headers: { authorization: `Bearer ${relay.key}` },
    });
    await post(`${relay.url}/segmentation/prostate`);
    expect(hits()).toBe('1,3,1');
  });

  it('tries the next server when one is dead, unready or silent', async () => {
    const relay = await openRelay();
    const busy: Got[] = [];
    const notReady = await openServer(cleanup, (request, response) => {
      if (request.method === 'POST')
        busy.push({ path: request.url ?? '', headers: {}, bytes: 0, sha256: '' });
      response.writeHead(503).end();
    });
    const silent = createTcpServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    cleanup.add(() => silent.close());
    const got: Got[] = [];
    const { url } = await openServer(cleanup, serverOf(got));
    await relay.offer('dead', await deadUrl(), { serviceId: 'dead' });
    await relay.offer('busy', notReady.url, { serviceId: 'busy' });
    await relay.offer('silent', `http://127.0.0.1:${(silent.address() as AddressInfo).port}`, {
      serviceId: 'silent',
    });
    await relay.offer('good', url);
    const start = performance.now();
    const answer = await post(`${relay.url}/segmentation/prostate`, 'volume');
    expect(answer.status).toBe(200);
    expect(performance.now() - start).toBeGreaterThan(1900);
    expect(performance.now() - start).toBeLessThan(3500);
    expect(got).toHaveLength(1);
    expect(busy).toHaveLength(0);
  });

  it('answers 503 with what was tried when all are down', async () => {
    const relay = await openRelay();
    const dead = await deadUrl();
    await relay.offer('one', dead, { name: 'First' });
    await relay.offer('two', 'http://10.1.2.3:9000', { name: 'Second', serviceId: 'two' });
    const problem = await problemOf(await post(`${relay.url}/segmentation/prostate`));
    expect(problem).toMatchObject({ status: 503, code: 'UNREACHABLE', retryable: true });
    expect(problem.facts?.tried).toMatchObject([
      { name: 'First', server: dead, reason: 'nothing is listening there' },
      { name: 'Second', reason: expect.stringContaining('--allow-net') },
    ]);
  });

  it('answers 404 with the available services, even before reading the body', async () => {
    const relay = await openRelay();
    await relay.offer('a', await deadUrl());
    await relay.offer('b', await deadUrl(), { serviceId: 'lung', anatomy: 'lung' });
    const v1 = {
      ...announcementOf('https://old.example'),
      api_key: relay.key,
      prediction_url: 'https://old.example/predict',
      interface_url: 'https://old.example/interface',
      anatomy: 'knee',
    };
    expect(
      (
        await relay.registry.app.inject({ method: 'POST', url: '/announce', payload: JSON.stringify(v1) })
      ).json(),
    ).toMatchObject({ status: 0 });
    for (const path of ['/segmentation/knee', '/segmentation/nothing']) {
      const problem = await problemOf(await post(`${relay.url}${path}`, randomBytes(30_000_000)));
      expect(problem).toMatchObject({
        status: 404,
        facts: { available: ['segmentation/lung', 'segmentation/prostate'] },
      });
      expect(problem.detail).toContain('segmentation/lung, segmentation/prostate');
    }
    relay.registry.clock.ms += 90_000;
    expect((await problemOf(await post(`${relay.url}/segmentation/prostate`))).facts).toEqual({
      available: [],
    });
  });

  it('keeps the reserved words to itself', async () => {
    const relay = await openRelay();
    for (const path of ['/api/services', '/Health/ready', '/predict/x', '/dicom-web/x']) {
      expect((await post(`${relay.url}${path}`)).status).toBe(404);
    }
    expect(relay.registry.metrics.registry).toBeDefined();
    expect(await relay.registry.metrics.registry.metrics()).not.toContain('outcome="unknown"');
  });

  it('answers 502 without retry when the server fails after the first byte', async () => {
    const relay = await openRelay();
    const got: Got[] = [];
    const first = await openServer(
      cleanup,
      serverOf([], (request) => request.once('data', () => request.socket.destroy())),
    );
    const second = await openServer(cleanup, serverOf(got));
    await relay.offer('a', first.url, { default: true });
    await relay.offer('b', second.url, { serviceId: 'second' });
    const problem = await problemOf(await post(`${relay.url}/segmentation/prostate`, randomBytes(3_000_000)));
    expect(problem).toMatchObject({ status: 502, code: 'UPSTREAM' });
    expect(problem.detail).toContain('not sent again');
    expect(got).toHaveLength(0);
  });

  it('breaks the caller’s connection when a server dies in mid-answer, chunked too', async () => {
    for (const headers of [{ 'content-length': '1000000' }, {}]) {
      const { url } = await openServer(
        cleanup,
        serverOf([], (request, response) => {
          request.resume().on('end', () => {
            response.writeHead(200, headers);
            response.write(randomBytes(100_000), () => setTimeout(() => request.socket.destroy(), 50));
          });
        }),
      );
      const relay = await openRelay();
      await relay.offer('a', url);
      const answer = await post(`${relay.url}/segmentation/prostate`);
      expect(answer.status).toBe(200);
      await expect(answer.arrayBuffer()).rejects.toThrow();
      await expect.poll(() => relay.registry.metrics.registry.metrics()).toContain('outcome="broken"} 1');
    }
  });

  it.each(['while the server computes', 'in mid-upload', 'in mid-answer'])(
    'hangs up at the server when the caller goes away %s',
    async (when) => {
      let arrived = () => {};
      let closed = () => {};
      const isThere = new Promise<void>((resolve) => (arrived = resolve));
      const isClosed = new Promise<void>((resolve) => (closed = resolve));
      const { url } = await openServer(
        cleanup,
        serverOf([], (request, response) => {
          request.on('error', () => {});
          response.on('close', closed);
          if (when === 'in mid-upload') request.once('data', arrived);
          else request.resume().on('end', arrived);
          if (when === 'in mid-answer')
            request.on('end', () => response.writeHead(200, { 'content-length': '10' }).write('12345'));
        }),
      );
      const relay = await openRelay();
      await relay.offer('a', url);
      const caller: ClientRequest = httpRequest(`${relay.url}/segmentation/prostate`, {
        method: 'POST',
        headers: { 'content-length': '100' },
      });
      caller.on('error', () => {});
      if (when === 'in mid-upload') caller.write('x'.repeat(50));
      else caller.end('x'.repeat(100));
      await isThere;
      if (when === 'in mid-answer') await once(caller, 'response');
      const start = performance.now();
      caller.destroy();
      await isClosed;
      expect(performance.now() - start).toBeLessThan(10_000);
      await expect
        .poll(() => relay.registry.metrics.registry.metrics())
        .toContain('outcome="caller-left"} 1');
    },
  );

  it.each([
    { sent: 3, agent: 'python-requests/2.32', passed: 3 },
    { sent: 9, agent: 'curl/8.0', passed: 4 },
    { sent: 9, agent: 'curl/8.0\r\nVia: 1.1 proxy', passed: 0 },
    { sent: 9, agent: 'my-lab-client/1.0', passed: 0 },
  ])('passes $passed of $sent interim answers on to $agent', async ({ sent, agent, passed }) => {
    const { url } = await openServer(
      cleanup,
      serverOf([], (request, response) => {
        request.resume().on('end', async () => {
          for (let i = 0; i < sent; i++) {
            response.writeContinue();
            await sleep(20);
          }
          response.end('done');
        });
      }),
    );
    const relay = await openRelay();
    await relay.offer('a', url);
    const socket = connect(Number(new URL(relay.url).port), '127.0.0.1');
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.write(
      `POST /segmentation/prostate HTTP/1.1\r\nHost: localhost\r\nUser-Agent: ${agent}\r\nContent-Length: 6\r\nConnection: close\r\n\r\nvolume`,
    );
    await once(socket, 'close');
    expect(text.split('HTTP/1.1 100 Continue\r\n\r\n').length - 1).toBe(passed);
    expect(text).toMatch(/HTTP\/1\.1 200 OK[\s\S]*done/);
  });

  it('reports interim answers of the server to a listener', async () => {
    const { url } = await openServer(
      cleanup,
      serverOf([], (request, response) => {
        request.resume().on('end', () => {
          for (let i = 0; i < 3; i++) response.writeContinue();
          response.end('done');
        });
      }),
    );
    const calls: string[] = [];
    const silent = await openRelay({ keepAlive: (request) => calls.push(request.url) });
    await silent.offer('a', url);
    expect(await (await post(`${silent.url}/segmentation/prostate`)).text()).toBe('done');
    expect(calls).toEqual(Array(3).fill('/segmentation/prostate'));
  });

  it('passes an early refusal on to a caller that is still writing', async () => {
    const { url } = await openServer(
      cleanup,
      serverOf([], (request, response) => {
        request.once('data', () => {
          response
            .writeHead(413, { 'content-type': 'application/problem+json' })
            .end('{"code":"UPLOAD_TOO_LARGE"}');
          request.resume();
        });
      }),
    );
    const relay = await openRelay();
    await relay.offer('a', url);
    const answer = await post(`${relay.url}/segmentation/prostate`, randomBytes(20_000_000));
    expect(answer.status).toBe(413);
    expect(await answer.json()).toEqual({ code: 'UPLOAD_TOO_LARGE' });
  });

  it('follows no redirect', async () => {
    const got: Got[] = [];
    const other = await openServer(cleanup, serverOf(got));
    for (const status of [301, 302, 303, 307, 308]) {
      const { url } = await openServer(
        cleanup,
        serverOf([], (request, response) => {
          request.resume();
          response.writeHead(status, { location: `${other.url}/segmentation/prostate` }).end();
        }),
      );
      const relay = await openRelay();
      await relay.offer('a', url);
      const answer = await fetch(`${relay.url}/segmentation/prostate`, {
        method: 'POST',
        body: 'x',
        redirect: 'manual',
      });
      expect((await problemOf(answer)).status).toBe(502);
    }
    expect(got).toHaveLength(0);
  });

  it('detects a loop when a registry is announced as a server', async () => {
    const relay = await openRelay();
    // Ready like a server, but what it gets goes to the registry.
    const { url } = await openServer(
      cleanup,
      serverOf([], async (request, response) => {
        request.resume();
        const marked = { 'tomaat-relayed': String(request.headers['tomaat-relayed']) };
        const answer = await post(`${relay.url}${request.url}`, 'x', marked);
        response
          .writeHead(answer.status, { 'content-type': 'application/problem+json' })
          .end(await answer.text());
      }),
    );
    await relay.offer('a', url);
    const problem = await problemOf(await post(`${relay.url}/segmentation/prostate`));
    expect(problem).toMatchObject({
      status: 502,
      detail: expect.stringContaining('came from another registry'),
    });
  });

  it('speaks HTTPS with a self-signed certificate on this machine', async () => {
    const certificate = await openCertificate(await openFolder(cleanup));
    const got: Got[] = [];
    const server = createHttpsServer({ key: certificate.key, cert: certificate.cert }, serverOf(got)).listen(
      0,
      '127.0.0.1',
    );
    await once(server, 'listening');
    cleanup.add(() => {
      server.closeAllConnections();
      server.close();
    });
    const relay = await openRelay();
    await relay.offer('a', `https://localhost:${(server.address() as AddressInfo).port}`);
    expect((await post(`${relay.url}/segmentation/prostate`)).status).toBe(200);
    expect(got).toHaveLength(1);
  });

  it('trusts beyond loopback only the certificate that the server announced', async () => {
    const certificate = await openCertificate(await openFolder(cleanup));
    const got: Got[] = [];
    const server = createHttpsServer({ key: certificate.key, cert: certificate.cert }, serverOf(got));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanup.add(() => {
      server.closeAllConnections();
      server.close();
    });
    const serverUrl = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const identity = await identityOf('a');
    const answers: number[] = [];
    for (const announced of [certificate.fingerprint, certificateOf(7)]) {
      const payload = payloadOf(announcementOf(serverUrl), identity, Date.now());
      const signed = await identity.sign(announcementType, { ...payload, certificate: announced });
      const { registry } = await openRelay();
      const apiKey = (await findKey(registry.entries.db, await registry.key(), registry.clock.ms))!;
      const entry = await registry.entries.announce(apiKey, payload, signed);
      const target = {
        url: new URL(serverUrl),
        address: '127.0.0.1',
        family: 4 as const,
        loopback: false,
        own: false,
      };
      const relay = createRelay({
        entries: { candidates: async () => [entry], addresses: async () => [] },
        policy: { resolve: async () => [target] },
      });
      const app = createApp(false);
      app.post('/:task/:anatomy', async (request, reply) => {
        await relay(request, reply, { task: 'segmentation', anatomy: 'prostate' });
        return reply;
      });
      cleanup.add(() => app.close());
      const url = await app.listen({ host: '127.0.0.1', port: 0 });
      const answer = await post(`${url}/segmentation/prostate`);
      answers.push(answer.status);
      if (answer.status !== 200)
        expect((await problemOf(answer)).detail).toContain('certificate is not trusted');
    }
    expect(answers).toEqual([200, 503]);
    expect(got).toHaveLength(1);
    expect(got[0].headers.authorization).toBeUndefined();
  });

  it('streams 200 MB up in under 40 MB, and down without buffering', async () => {
    const folder = await openFolder(cleanup);
    const child = fork(join(import.meta.dirname, 'registry-process.ts'), [folder], {
      execArgv: ['--conditions=tomaat-source'],
    });
    cleanup.add(async () => {
      child.kill('SIGKILL');
      await once(child, 'exit');
    });
    const ask = async <T>() => (await once(child, 'message'))[0] as T;
    const { url, key } = await ask<{ url: string; key: string }>();
    const rssMb = async () => {
      child.send('rss');
      return (await ask<{ rssBytes: number }>()).rssBytes / 1e6;
    };
    const total = 200_000_000;
    const block = randomBytes(50_000);
    const hash = createHash('sha256');
    for (let at = 0; at < total; at += block.length) hash.update(block);
    const expected = hash.digest('hex');
    /** Writes the 200 MB, and looks at the memory of the registry every 20 MB. */
    const write = async (to: ClientRequest | ServerResponse) => {
      let highest = 0;
      for (let at = 0; at < total; at += block.length) {
        if (!to.write(block)) await once(to, 'drain');
        if (at % 20_000_000 === 0) highest = Math.max(highest, await rssMb());
      }
      to.end();
      return highest;
    };
    const digest = async (from: IncomingMessage) => {
      const hash = createHash('sha256');
      for await (const chunk of from) hash.update(chunk as Buffer);
      return hash.digest('hex');
    };
    let down = 0;
    let arrived = '';
    const server = await openServer(
      cleanup,
      serverOf([], async (request, response) => {
        arrived = await digest(request);
        response.writeHead(200, { 'content-length': total });
        down = await write(response);
      }),
    );
    const announcement = announcementOf(server.url);
    const signed = await signerOf('a', Date.now).sign(announcement, url);
    const put = await fetch(`${url}/api/announcements/${await idOf('a')}`, {
      method: 'PUT',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify({ signed }),
    });
    expect(put.status).toBe(200);
    const before = await rssMb();
    const caller = httpRequest(`${url}/segmentation/prostate`, {
      method: 'POST',
      headers: { 'content-length': total },
    });
    const answered = once(caller, 'response') as Promise<[IncomingMessage]>;
    const up = await write(caller);
    const [answer] = await answered;
    expect(await digest(answer)).toBe(expected);
    expect(arrived).toBe(expected);
    console.info(
      `registry: ${before.toFixed()} MB before, ${up.toFixed()} MB while 200 MB went up, ${down.toFixed()} MB while 200 MB came down`,
    );
    expect(up - before).toBeLessThan(40);
    expect(down - before).toBeLessThan(120);
  });
});

describe('createTargetPolicy()', () => {
  const refusedAddresses = [
    // Private, shared, link-local, reserved, multicast, "this network".
    '10.0.0.1',
    '10.255.255.255',
    '172.16.0.1',
    '172.31.255.254',
    '192.168.0.1',
    '192.168.255.255',
    '169.254.169.254',
    '169.254.0.1',
    '100.64.0.1',
    '100.127.255.254',
    '192.0.0.1',
    '192.0.2.1',
    '198.18.0.1',
    '198.51.100.7',
    '203.0.113.9',
    '224.0.0.1',
    '239.255.255.255',
    '240.0.0.1',
    '255.255.255.255',
    '0.0.0.0',
    '0.1.2.3',
    '8.8.8.8',
    '126.255.255.255',
    '128.0.0.1',
    // The same in other spellings: decimal, octal, hexadecimal, short, full-width, other dots, trailing dot.
    '167772161',
    '0xa000001',
    '0x0a.0.0.1',
    '012.0.0.1',
    '10.1',
    '10.0.1',
    '２８５２０３９１６６',
    '2852039166',
    '0xa9fea9fe',
    '0xA9.0xFE.0xA9.0xFE',
    '0251.0376.0251.0376',
    '169.254.43518',
    '169。254。169。254',
    '１６９.254.169.254',
    '10.0.0.1.',
    '0',
    '0x0',
    '00000000000',
    '0.0',
    '%31%30.0.0.1',
    // IPv6: unspecified, private, link-local, multicast, and IPv4 inside of it in every form.
    '[::]',
    '[0:0:0:0:0:0:0:0]',
    '[fc00::1]',
    '[fd12:3456::1]',
    '[fe80::1]',
    '[fec0::1]',
    '[ff02::1]',
    '[2001:db8::1]',
    '[::ffff:10.0.0.1]',
    '[::ffff:a00:1]',
    '[0:0:0:0:0:ffff:10.0.0.1]',
    '[::ffff:169.254.169.254]',
    '[::ffff:0.0.0.0]',
    '[::10.0.0.1]',
    '[::127.0.0.1]',
    '[::ffff:0:127.0.0.1]',
    '[64:ff9b::7f00:1]',
    '[64:ff9b::a00:1]',
    '[2002:7f00:1::]',
    '[2002:a00:1::]',
    '[::2]',
    '[2001:4860:4860::8888]',
  ];

  it(`refuses ${refusedAddresses.length} spellings of addresses that are not allowed, without asking DNS`, async () => {
    let asked = 0;
    const policy = createTargetPolicy([], async () => {
      asked++;
      return [];
    });
    expect(refusedAddresses.length).toBeGreaterThan(60);
    for (const address of refusedAddresses) {
      for (const url of [`http://${address}:9000`, `https://${address}/`]) {
        await expect(policy.resolve(url), url).rejects.toMatchObject({ code: 'FORBIDDEN' });
      }
    }
    expect(asked).toBe(0);
  });

  it('refuses other schemes, credentials and fragments', async () => {
    const policy = createTargetPolicy(['0.0.0.0/0', '::/0']);
    const wrong = [
      'ftp://127.0.0.1/',
      'file:///etc/passwd',
      'gopher://127.0.0.1:70/',
      'unix:/var/run/docker.sock',
      'javascript:alert(1)',
      'data:,x',
      'http://user@127.0.0.1/',
      'http://user:pw@127.0.0.1/',
      'http://:pw@127.0.0.1/',
      'http://127.0.0.1/#x',
      'http://',
      '127.0.0.1:9000',
      '',
      '//127.0.0.1/',
    ];
    for (const url of wrong)
      await expect(policy.resolve(url), url).rejects.toMatchObject({ code: 'FORBIDDEN' });
    expect(await policy.resolve('http://8.8.8.8/')).toMatchObject([{ address: '8.8.8.8', loopback: false }]);
  });

  it('permits loopback in every spelling, and the ranges given, to their edges', async () => {
    const policy = createTargetPolicy(['10.1.0.0/16', '192.168.7.9', 'fd00:1::/32']);
    for (const host of [
      '127.0.0.1',
      '127.1',
      '2130706433',
      '127.255.255.254',
      '[::1]',
      '[::ffff:127.0.0.1]',
      '0x7f.1',
    ]) {
      expect(await policy.resolve(`http://${host}:9000`), host).toMatchObject([{ loopback: true }]);
    }
    for (const host of ['10.1.0.0', '10.1.255.255', '192.168.7.9', '[fd00:1::5]', '[::ffff:10.1.2.3]']) {
      expect(await policy.resolve(`http://${host}:9000`), host).toMatchObject([{ loopback: false }]);
    }
    for (const host of ['10.0.255.255', '10.2.0.0', '192.168.7.8', '192.168.7.10', '[fd00:2::1]']) {
      await expect(policy.resolve(`http://${host}:9000`), host).rejects.toMatchObject({ code: 'FORBIDDEN' });
    }
    for (const range of [
      '10.0.0.0/33',
      '10.0.0/8',
      'example.org',
      '::/129',
      '10.0.0.0/8/8',
      '10.0.0.0/',
      '10.0.0.0/-1',
      '',
    ]) {
      expect(() => createTargetPolicy([range]), range).toThrow(/network range/);
    }
  });

  it('judges a name by its addresses and drops those that are not allowed', async () => {
    const resolve = async (name: string) => {
      if (name === 'unknown.example') throw new Error('ENOTFOUND');
      return name === 'mixed.example'
        ? [
            { address: '169.254.169.254', family: 4 },
            { address: '::ffff:10.0.0.1', family: 6 },
            { address: '127.0.0.1', family: 4 },
          ]
        : [
            { address: '10.0.0.5', family: 4 },
            { address: 'fe80::1%eth0', family: 6 },
          ];
    };
    const policy = createTargetPolicy([], resolve);
    expect(await policy.resolve('http://mixed.example')).toMatchObject([{ address: '127.0.0.1' }]);
    await expect(policy.resolve('http://inside.example')).rejects.toMatchObject({ code: 'FORBIDDEN' });
    await expect(policy.resolve('http://unknown.example')).rejects.toMatchObject({ code: 'UNREACHABLE' });
  });

  it('connects to the address that was checked, though the name changes meanwhile', async () => {
    const got: Got[] = [];
    const { url } = await openServer(cleanup, serverOf(got));
    const port = new URL(url).port;
    let asked = 0;
    const relay = await openRelay({
      resolve: async () => [{ address: asked++ === 0 ? '127.0.0.1' : '10.0.0.1', family: 4 }],
    });
    await relay.offer('a', `http://flip.example:${port}`);
    expect((await post(`${relay.url}/segmentation/prostate`)).status).toBe(200);
    expect(got[0].headers.host).toBe(`flip.example:${port}`);
    expect(asked).toBe(1);
    expect((await post(`${relay.url}/segmentation/prostate`)).status).toBe(503);
    expect(got).toHaveLength(1);
  });

  it('reaches only its own server at the local address', async () => {
    const own = { announced: 'https://server.example/tomaat', local: 'https://10.2.3.4:9000' };
    const policy = createTargetPolicy([], async () => [{ address: '203.0.113.9', family: 4 }], own);
    expect(await policy.resolve(own.announced)).toEqual([
      { url: new URL(own.local), address: '10.2.3.4', family: 4, loopback: true, own: true },
    ]);
    for (const other of [own.local, 'https://server.example', 'https://server.example/tomaat2'])
      await expect(policy.resolve(other)).rejects.toMatchObject({ code: 'FORBIDDEN' });
  });

  it('isLoopback() knows this machine from others', () => {
    for (const host of ['localhost', 'LOCALHOST', '127.0.0.1', '127.9.9.9', '::1', '[::1]'])
      expect(isLoopback(host), host).toBe(true);
    for (const host of ['0.0.0.0', '::', '10.0.0.1', 'localhost.example', 'a.localhost', 'example.org', ''])
      expect(isLoopback(host), host).toBe(false);
  });
});
