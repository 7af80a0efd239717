import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { RegistryAppOptions } from '../src/registry/start.ts';
import { checkToldAddress, createTargetPolicy } from '../src/registry/targets.ts';
import { createGuardedFetch } from '../src/trust/guarded-fetch.ts';
import { announce, announcementOf, createCleanup, openTestRegistry } from './registry-helpers.ts';

/*
 * Addresses that come from data lead to no connection where none may be made, however they are spelled.
 */

const cleanup = createCleanup();
const listeners: Server[] = [];
let port: number;
/** Connections that arrived at forbidden addresses of this machine. */
let arrived: string[] = [];
/** Connections that this process began, but for those of the test to the registry itself. */
let begun: string[] = [];
let ownPort = 0;
const count = (message: unknown) => {
  const { socket } = message as { socket: Socket };
  socket.on('connectionAttempt', (address, at) => at !== ownPort && begun.push(`${address}:${at}`));
};

beforeAll(async () => {
  const listen = async (host: string, at: number) => {
    const server = createServer((socket) => {
      arrived.push(`${socket.localAddress}`);
      socket.destroy();
    });
    server.listen(at, host);
    await once(server, 'listening');
    listeners.push(server);
    return (server.address() as AddressInfo).port;
  };
  port = await listen('127.0.0.1', 0);
  for (const host of ['127.0.0.2', '127.1.2.3', '127.255.255.254', '::1']) await listen(host, port);
  subscribe('net.client.socket', count);
});
afterAll(() => {
  unsubscribe('net.client.socket', count);
  for (const server of listeners) server.close();
});
afterEach(async () => {
  await cleanup.run();
  arrived = [];
});

/** Hosts that mean loopback, private, link-local, metadata, multicast, reserved or hidden addresses. */
const spellings = [
  ...['127.0.0.1', '127.1', '127.0.1', '0177.0.0.1', '0x7f.1', '0x7f000001', '2130706433', '017700000001'],
  ...['127.0.0.2', '127.1.2.3', '127.255.255.254', '127.000.000.001', '127.0.0.1.', '0x7F.0x0.0x0.0x1'],
  ...['localhost', 'LOCALHOST', 'localhost.', '１２７.0.0.1', '127。0。0。1', '⑫⑦.0.0.1', 'ｌocalhost'],
  ...['0', '0.0.0.0', '0x0', '00', '[::]', '[::1]', '[0:0:0:0:0:0:0:1]', '[0000::0001]'],
  ...['[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[0:0:0:0:0:ffff:127.0.0.1]', '[::127.0.0.1]', '[::7f00:1]'],
  ...['[::ffff:0:127.0.0.1]', '[64:ff9b::127.0.0.1]', '[64:ff9b::7f00:1]', '[64:ff9b:1::127.0.0.1]'],
  ...['[2002:7f00:1::]', '[2002:7f00:1::1]', '[2001:0:7f00:1::1]', '[::ffff:10.0.0.1]', '[::ffff:a9fe:a9fe]'],
  ...['169.254.169.254', '0xa9fea9fe', '2852039166', '0251.0376.0251.0376', '169.254.1', '[fe80::1]'],
  ...['100.100.100.200', '168.63.129.16', '[fd00:ec2::254]', '192.0.0.192', '[fec0::1]', '100.64.0.1'],
  ...['10.0.0.1', '10.1', '172.16.0.1', '192.168.1.1', '192.168.257', '[fd00::1]', '198.18.0.1'],
  ...['224.0.0.1', '239.255.255.250', '255.255.255.255', '240.0.0.1', '[ff02::1]', '[100::1]'],
];
/** Names of DNS, with what a hostile one answers. */
const names: Record<string, string[]> = {
  'loopback.example': ['127.0.0.1'],
  'loopback6.example': ['::1'],
  'mapped.example': ['::ffff:127.0.0.1'],
  'zero.example': ['0.0.0.0'],
  'metadata.example': ['169.254.169.254'],
  'private.example': ['10.0.0.1', '192.168.1.1'],
  'nat64.example': ['64:ff9b::7f00:1'],
  'compatible.example': ['::127.0.0.1'],
  'several.example': ['127.0.0.1', '169.254.169.254', '::1'],
};
const resolve = async (hostname: string) => {
  const found = names[hostname] ?? (hostname.replace(/\.$/, '') === 'localhost' ? ['127.0.0.1', '::1'] : []);
  if (found.length === 0) throw new Error('ENOTFOUND');
  return found.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
};
const hosts = [...new Set([...spellings, ...Object.keys(names)])];

async function openRegistry(options: Partial<RegistryAppOptions>) {
  const registry = await openTestRegistry(cleanup, { loopbackTargets: false, ...options });
  await registry.app.listen({ host: '127.0.0.1', port: 0 });
  ownPort = (registry.app.server.address() as AddressInfo).port;
  const post = (path: string) =>
    fetch(`http://127.0.0.1:${ownPort}${path}`, { method: 'POST', body: 'x' }).then(({ status }) => status);
  return { registry, post, key: await registry.key() };
}

describe('a registry beyond this machine', () => {
  it(`never connects for ${hosts.length} spellings: announcing, checking readiness or relaying`, async () => {
    expect(hosts.length).toBeGreaterThanOrEqual(60);
    const { registry, post, key } = await openRegistry({ resolve });
    const policy = createTargetPolicy([], resolve, undefined, false);
    begun = [];
    for (const [index, host] of hosts.entries()) {
      for (const scheme of ['http', 'https']) {
        const serverUrl = `${scheme}://${host}:${port}`;
        const anatomy = `${scheme}-${index}`;
        const answer = await announce(
          registry,
          key,
          'server',
          announcementOf(serverUrl, { anatomy, serviceId: anatomy }),
        );
        expect(answer.statusCode, serverUrl).toBeOneOf([200, 422]);
        await expect(policy.resolve(serverUrl), serverUrl).rejects.toMatchObject({
          code: expect.stringMatching(/FORBIDDEN|UNREACHABLE/),
        });
        expect(await post(`/segmentation/${anatomy}`), serverUrl).toBeOneOf([404, 503]);
      }
    }
    expect(begun).toEqual([]);
    expect(arrived).toEqual([]);
  });

  it('(the listeners and the record do notice a connection)', async () => {
    await expect(createGuardedFetch({})(`http://127.0.0.2:${port}/`)).rejects.toThrow();
    expect(arrived).toEqual(['127.0.0.2']);
    expect(begun).toContain(`127.0.0.2:${port}`);
  });

  it('connects to what --allow-net names, and follows none of five redirects from there', async () => {
    const asked: string[] = [];
    let status = 0;
    const server = createHttpServer((request, response) => {
      asked.push(request.url ?? '');
      if (request.url === '/health/ready' && status < 1000) return response.end('{}');
      response.writeHead(status % 1000, { location: `http://127.0.0.2:${port}/health/ready` }).end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanup.add(() => void server.close());
    const { registry, post, key } = await openRegistry({ allowNet: ['127.0.0.1'] });
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await announce(registry, key, 'server', announcementOf(url));
    // As an answer to the request, then as one to the question whether it is ready.
    for (const offset of [0, 1000]) {
      for (const code of [301, 302, 303, 307, 308]) {
        status = offset + code;
        expect(await post('/segmentation/prostate'), String(status)).toBe(offset === 0 ? 502 : 503);
      }
    }
    expect(asked.filter((path) => path === '/health/ready')).toHaveLength(10);
    expect(arrived).toEqual([]);
  });

  it('resolves a name once per request: a later change gains nothing', async () => {
    const server = createHttpServer((_request, response) => response.end('{}')).listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanup.add(() => void server.close());
    let asked = 0;
    const flipping = async () => [{ address: asked++ % 2 === 0 ? '127.0.0.1' : '127.0.0.2', family: 4 }];
    const { registry, post, key } = await openRegistry({ allowNet: ['127.0.0.1'], resolve: flipping });
    const { port: open } = server.address() as AddressInfo;
    const target = createServer((socket) => {
      arrived.push('flipped');
      socket.destroy();
    }).listen(open, '127.0.0.2');
    await once(target, 'listening');
    cleanup.add(() => void target.close());
    await announce(registry, key, 'server', announcementOf(`http://flip.example:${open}`));
    const answers: number[] = [];
    for (let i = 0; i < 10; i++) {
      answers.push(await post('/segmentation/prostate'));
    }
    expect(answers).toEqual([200, 503, 200, 503, 200, 503, 200, 503, 200, 503]);
    expect(arrived).toEqual([]);
  });
});

describe('a client', () => {
  it('refuses these addresses from a remote registry, except private networks', async () => {
    const permitted = /^(10\.|172\.16|192\.168|\[fd00::1|\[::ffff:10|100\.64|198\.18|private)/;
    const fetch = createGuardedFetch({
      checkAddress: (address) => checkToldAddress(address, false),
      resolve,
    });
    begun = [];
    for (const host of hosts.filter((name) => !permitted.test(name))) {
      for (const scheme of ['http', 'https']) {
        const url = `${scheme}://${host}:${port}/health/ready`;
        if (!URL.canParse(url)) continue;
        await expect(fetch(url), url).rejects.toThrow();
      }
    }
    expect(begun).toEqual([]);
    expect(arrived).toEqual([]);
    for (const address of [
      '10.0.0.1',
      '172.16.3.4',
      '192.168.1.1',
      'fd00::1',
      '100.64.0.1',
      '203.0.113.5',
      '2a00::1',
    ])
      expect(() => checkToldAddress(address, false), address).not.toThrow();
    for (const address of ['127.0.0.1', '::1', '0.0.0.0', '::ffff:127.0.0.1']) {
      expect(() => checkToldAddress(address, true), address).not.toThrow();
      expect(() => checkToldAddress(address, false), address).toThrow(/this machine itself/);
    }
    for (const address of [
      '169.254.169.254',
      '::ffff:169.254.169.254',
      'fe80::1',
      '64:ff9b::a00:1',
      '2002:a00:1::',
    ])
      expect(() => checkToldAddress(address, true), address).toThrow(/cannot be that of a server/);
  });

  it('uses the address that was checked, not the next DNS answer', async () => {
    let asked = 0;
    const flipping = async () => [{ address: asked++ === 0 ? '127.0.0.1' : '127.0.0.2', family: 4 }];
    const checkAddress = (address: string) => {
      if (address !== '127.0.0.1') throw new Error(`${address} is not permitted`);
    };
    const fetch = createGuardedFetch({ checkAddress, resolve: flipping });
    await expect(fetch(`http://flip.example:${port}/`)).rejects.not.toThrow(/permitted/);
    for (let i = 0; i < 3; i++)
      await expect(fetch(`http://flip.example:${port}/`)).rejects.toThrow(/is not permitted/);
    expect(arrived).toEqual(['127.0.0.1']);
    expect(asked).toBe(4);
  });
});
