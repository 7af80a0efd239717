import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Access, markLegacy } from '../src/access/access.ts';
import type { KeyScope } from '../src/access/scopes.ts';
import { makeKey } from './access-fixture.ts';
import { startTestGateway } from './gateway-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { createCleanup, openTestRegistry } from './registry-helpers.ts';
import {
  type Expected,
  gatewayNeeds,
  legacyFaces,
  registryNeeds,
  scopesFor,
  serverNeeds,
} from './route-needs.ts';
import { routesOf } from './routes-of.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/*
 * Every route × method × caller of the server, the registry and the gateway as they are, against the table in route-needs.ts; and what
 * a page of another site may do, which is nothing.
 */

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const;
const cleanup = createCleanup();
let folder: string;
let page: string;
let closed: TestServer;
let open: TestServer;
let apps: { name: string; login: boolean; app: FastifyInstance; access: Access }[];

beforeAll(async () => {
  folder = await temporaryFolder();
  page = join(folder, 'page');
  await mkdir(join(page, 'assets'), { recursive: true });
  for (const name of ['index.html', 'gateway.html'])
    await writeFile(join(page, name), '<!doctype html><title>TOMAAT</title>');
  await writeFile(join(page, 'assets', 'a.js'), '1');
  const common = { workers: 0, page, legacyPerMinute: 10_000, faces: [...legacyFaces] };
  closed = await startTestServer(['threshold', 'ct-bone'], {
    ...common,
    dataFolder: join(folder, 'closed'),
    login: true,
  });
  open = await startTestServer(['threshold', 'ct-bone'], { ...common, dataFolder: join(folder, 'open') });
  // Beside its server, so that they have the same keys.
  const registry = { now: Date.now, page };
  const closedRegistry = await openTestRegistry(cleanup, {
    ...registry,
    dataFolder: closed.dataFolder,
    login: true,
  });
  const openRegistry = await openTestRegistry(cleanup, { ...registry, dataFolder: open.dataFolder });
  const closedGateway = await startTestGateway({ page, dataFolder: closed.dataFolder, login: true });
  const openGateway = await startTestGateway({ page, dataFolder: open.dataFolder });
  for (const gateway of [closedGateway, openGateway]) cleanup.add(() => gateway.close());
  apps = [
    { name: 'server', login: true, app: closed.app, access: closed.access },
    { name: 'registry', login: true, app: closedRegistry.app, access: closedRegistry.access },
    { name: 'gateway', login: true, app: closedGateway.app, access: closedGateway.access },
    { name: 'server', login: false, app: open.app, access: open.access },
    { name: 'registry', login: false, app: openRegistry.app, access: openRegistry.access },
    { name: 'gateway', login: false, app: openGateway.app, access: openGateway.access },
  ];
  for (const { app } of apps) await app.ready();
}, 60_000);
afterAll(async () => {
  await cleanup.run();
  await closed?.close();
  await open?.close();
  await rm(folder, { recursive: true, force: true });
});

/** An address of a route, with ids that nobody has. */
const addressOf = (url: string) =>
  url
    // A service whose models may leave.
    .replace(/services\/:id(?=\/(manifest|model)$)/, 'services/ct-bone')
    .replace('/services/:id', '/services/threshold')
    .replace(':digest', `sha256:${'0'.repeat(64)}`)
    .replace('/:task/:anatomy', '/segmentation/nothing')
    .replace(':name', 'segmentation')
    .replace(':id', 'AAAAAAAAAAAAAAAAAAAAAA')
    .replace(':model', 'threshold')
    .replace(':strategy', 'random')
    .replace(':source', 'door')
    .replace('*', 'a.js');

/** A request as the listener of the legacy port gives it to the app. */
async function injectLegacy(
  app: FastifyInstance,
  method: string,
  path: string,
): Promise<{ status: number; text: string }> {
  const server = createServer((request, response) => {
    markLegacy(request);
    app.routing(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const { port } = server.address() as AddressInfo;
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method });
    return { status: response.status, text: await response.text() };
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

/** Routes that look at a secret themselves, and refuse a wrong one as the table does. */
const isLogin = (url: string | undefined) =>
  url !== undefined && /^\/(auth\/|monailabel\/auth\/token$|hooks\/)/.test(url);

/** By one address many wrong keys would be refused for another reason. */
let callers = 0;
const someAddress = () => `10.${(callers >> 16) & 255}.${(callers >> 8) & 255}.${callers++ & 255}`;

interface Caller {
  name: string;
  headers: Record<string, string>;
  scopes: readonly KeyScope[];
}

async function callersOf(dataFolder: string): Promise<Caller[]> {
  const valid = (['predict', 'announce', 'worker', 'metrics', 'admin'] as const).map(async (scope) => ({
    name: scope,
    scopes: [scope],
    headers: (await makeKey(dataFolder, [scope])).headers,
  }));
  const every = ['predict', 'announce', 'worker', 'admin'] as const;
  const past = { madeMs: Date.now() - 10_000, expiresTime: new Date(Date.now() - 5_000) };
  const { key } = await makeKey(dataFolder, ['admin']);
  const bearer = (text: string) => ({ authorization: `Bearer ${text}` });
  const tampered = `${key.slice(0, -2)}${key.endsWith('AA') ? 'BB' : 'AA'}`;
  return [
    { name: 'anonymous', headers: {}, scopes: [] },
    ...(await Promise.all(valid)),
    {
      name: 'another tenant',
      headers: (await makeKey(dataFolder, ['predict'])).headers,
      scopes: ['predict'],
    },
    { name: 'expired', headers: (await makeKey(dataFolder, every, past)).headers, scopes: [] },
    { name: 'revoked', headers: (await makeKey(dataFolder, every, { revoked: true })).headers, scopes: [] },
    { name: 'another secret', headers: bearer(tampered), scopes: [] },
    { name: 'malformed', headers: bearer('admin'), scopes: [] },
    { name: 'another scheme', headers: { authorization: `Basic ${key}` }, scopes: [] },
  ];
}

/** What a need lets in; where there is no route, everybody who has a valid key. */
function expected(need: Expected | undefined, { scopes }: Caller): 'in' | 401 | 403 {
  if (need === 'nothing' || need === 'a page') return 'in';
  if (scopes.length === 0) return 401;
  return need === undefined || scopes.some((scope) => scopesFor[need]?.includes(scope)) ? 'in' : 403;
}

const needsOf = (name: string) =>
  name === 'server' ? serverNeeds : name === 'registry' ? registryNeeds : gatewayNeeds;

describe('registerAccess()', () => {
  it('has exactly the routes of the table, with their needs', () => {
    for (const { name, app, access } of apps) {
      const text = ({ method, url }: { method: string; url: string }) => `${method} ${url}`;
      const printed = new Set(routesOf(app).map(text));
      // Of an address that ends with * the router prints no more than that.
      const known = [...needsOf(name).keys()].map((row) => row.replace(/ .+\/\*$/, ' /*'));
      expect([...printed].sort()).toEqual([...new Set(known)].sort());
      expect(access.routes.map(text).sort()).toEqual([...needsOf(name).keys()].sort());
      const words: Record<string, Expected> = { public: 'nothing', page: 'a page' };
      const found = access.routes.map((route) => [text(route), words[route.need] ?? route.need]);
      expect(Object.fromEntries(found)).toEqual(
        Object.fromEntries([...needsOf(name)].map(([row, { need }]) => [row, need])),
      );
    }
  });

  it('has exactly the routes that the API description names', async () => {
    for (const { name, app } of apps.filter((one) => one.login)) {
      const { paths } = (await app.inject('/api/openapi.json')).json() as {
        paths: Record<string, Record<string, unknown>>;
      };
      const described = Object.entries(paths).flatMap(([path, operations]) =>
        Object.keys(operations).map(
          (method) => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`,
        ),
      );
      const isFile = (row: string) =>
        /^\w+ \/(services\/:id|services\/:id\/batch|jobs|jobs\/:id|compare|docs|assets\/\*)?$/.test(row);
      const isOfOneService = (row: string) => / \/services\/:id\/(interface|predict|responses)$/.test(row);
      const routes = [...needsOf(name).keys()].filter((row) => {
        const [method, url] = row.split(' ');
        const isPreflight = method === 'OPTIONS' && url !== '/api/uploads'; // tus: what the server can do
        const isImplied = isPreflight || (method === 'HEAD' && needsOf(name).has(`GET ${url}`));
        return !isImplied && !isFile(row) && !isOfOneService(row);
      });
      expect(described.sort()).toEqual(routes.sort());
    }
  });

  it('answers every route × method × caller as the table says', async () => {
    let cells = 0;
    const wrong: string[] = [];
    for (const { name, login, app } of apps) {
      const dataFolder = login ? closed.dataFolder : open.dataFolder;
      const all = login ? await callersOf(dataFolder) : [{ name: 'anonymous', headers: {}, scopes: [] }];
      const urls = new Set([...needsOf(name).keys()].map((row) => row.split(' ')[1]));
      for (const url of ['/no/such/address', '/favicon.ico']) urls.add(url);
      for (const url of urls) {
        for (const method of methods) {
          // Two words after POST are the promise, whatever words they are.
          const isPromise = method === 'POST' && /^\/[^/]+\/[^/]+$/.test(addressOf(url));
          const known = needsOf(name).has(`${method} ${url}`);
          const at = known ? url : isPromise ? '/:task/:anatomy' : undefined;
          const need = needsOf(name).get(`${method} ${at}`)?.need;
          for (const caller of all) {
            const answer = await app.inject({
              method,
              url: addressOf(url),
              headers: { 'tus-resumable': '1.0.0', ...caller.headers },
              remoteAddress: someAddress(),
            });
            const openly = need === 'worker' || need === 'announce' ? 401 : 'in';
            const wanted = login ? expected(need, caller) : openly;
            // The login itself answers so, too, to a key that is not valid.
            const isRefused = [401, 403, 421, 429].includes(answer.statusCode) && !isLogin(at);
            const got = isRefused ? answer.statusCode : 'in';
            const isWhole =
              got !== 401 || String(answer.headers['www-authenticate']).startsWith('Bearer realm=');
            const isNowhere = at !== undefined || isRefused || [404, 405].includes(answer.statusCode);
            // The relay cannot speak without a socket, which nobody has here.
            const isBroken = answer.statusCode >= 500 && at !== '/:task/:anatomy';
            if (got !== wanted || !isWhole || !isNowhere || isBroken)
              wrong.push(
                `${name} ${login} ${method} ${url} ${caller.name}: ${answer.statusCode}, not ${wanted}`,
              );
            cells++;
          }
        }
      }
    }
    expect(wrong).toEqual([]);
    expect(cells).toBeGreaterThan(4000);
  }, 300_000);

  it('lets the legacy port have the routes of its faces in the table and no others', async () => {
    const wrong: string[] = [];
    const common = { workers: 0, login: true, legacyPerMinute: 10_000 };
    await using old = await startTestServer(['threshold'], common);
    await using own = await startTestServer(['threshold'], { ...common, faces: ['monailabel'] });
    const servers = [
      ...apps.filter((one) => one.login).map((one) => ({ ...one, faces: legacyFaces as readonly string[] })),
      // Without --faces, v1 alone; with it, what it names and nothing else.
      { name: 'server', app: old.app, faces: ['v1'] },
      { name: 'server', app: own.app, faces: ['monailabel'] },
    ];
    for (const { name, app, faces } of servers) {
      await app.ready();
      for (const [row, { legacy }] of needsOf(name)) {
        const [method, url] = row.split(' ');
        const answer = await injectLegacy(app, method, addressOf(url));
        const isHidden = answer.status === 404 && answer.text.includes('this port serves only');
        // The answer to HEAD has no text.
        const isIn = method === 'HEAD' ? answer.status === 200 : !isHidden && answer.status !== 401;
        const isOpen = legacy !== undefined && faces.includes(legacy);
        // The login itself answers 401 to a password that is no key.
        const isLoginOnly = url === '/monailabel/auth/token' && !isHidden && isOpen;
        if (isIn !== isOpen && !isLoginOnly) wrong.push(`${name} ${faces} ${row}: ${answer.status}`);
      }
    }
    expect(wrong).toEqual([]);
  }, 120_000);

  it('refuses a route that has no row', async () => {
    const { app } = await openTestRegistry(cleanup);
    expect(() => app.get('/api/open-door', async () => 'come in')).toThrow('no row in access/table.ts');
    expect(() => app.put('/health/live', async () => 'come in')).toThrow('PUT /health/live');
  });

  it('states what is missing, and how to get it', async () => {
    const without = await closed.app.inject({ url: '/api/services' });
    expect(without.headers['content-type']).toBe('application/problem+json');
    expect(without.json()).toMatchObject({ code: 'UNAUTHORIZED', status: 401 });
    expect(without.json().detail).toMatch(
      /Authorization: Bearer tmt_.*TOMAAT_API_KEY.*tomaat keys create --scope predict/,
    );
    const { headers, id } = await makeKey(closed.dataFolder, ['worker']);
    const lacks = await closed.app.inject({ url: '/api/services', headers });
    expect(lacks.json()).toMatchObject({ code: 'FORBIDDEN', status: 403 });
    expect(lacks.json().detail).toContain(`${id} lacks the scope predict`);
    // v1's own way of answering errors begins behind the door.
    const v1 = await closed.app.inject({ method: 'POST', url: '/predict' });
    expect({ status: v1.statusCode, type: v1.headers['content-type'] }).toEqual({
      status: 401,
      type: 'application/problem+json',
    });
  });

  it('limits wrong keys of an address, and lets the right one through', async () => {
    const right = await makeKey(closed.dataFolder, ['predict']);
    const statuses = new Map<number, number>();
    const remoteAddress = '192.0.2.7';
    for (let i = 0; i < 100; i++) {
      const { statusCode } = await closed.app.inject({
        url: '/api/services',
        headers: { authorization: `Bearer tmt_aaaaaaaaaa_${'A'.repeat(43)}` },
        remoteAddress,
      });
      statuses.set(statusCode, (statuses.get(statusCode) ?? 0) + 1);
    }
    expect([...statuses.keys()].sort()).toEqual([401, 429]);
    expect(statuses.get(401)).toBeGreaterThanOrEqual(60);
    const late = await closed.app.inject({
      url: '/api/services',
      headers: { authorization: 'Bearer x' },
      remoteAddress,
    });
    expect({ status: late.statusCode, code: late.json().code }).toEqual({
      status: 429,
      code: 'LIMIT_REACHED',
    });
    expect(Number(late.headers['retry-after'])).toBeGreaterThan(0);
    const fine = await closed.app.inject({ url: '/api/services', headers: right.headers, remoteAddress });
    expect(fine.statusCode).toBe(200);
    const elsewhere = { url: '/api/services', headers: { authorization: 'Bearer x' } };
    expect((await closed.app.inject({ ...elsewhere, remoteAddress: '192.0.2.8' })).statusCode).toBe(401);
  });
});

describe('owners', () => {
  it('another tenant gets the answer of an unknown address for any id', async () => {
    const [mine, other] = [
      await makeKey(closed.dataFolder, ['predict']),
      await makeKey(closed.dataFolder, ['predict', 'announce', 'worker']),
    ];
    const volume = Buffer.from(await encode(phantom(), 'nii.gz'));
    const inject = (method: string, url: string, headers: object, payload?: Buffer | string) =>
      closed.app.inject({
        method: method as 'GET',
        url,
        headers: { ...(headers as Record<string, string>) },
        payload,
      });
    const octets = { 'content-type': 'application/octet-stream', 'idempotency-key': 'same' };
    const sent = await inject(
      'POST',
      '/api/services/threshold/predictions',
      { ...mine.headers, ...octets },
      volume,
    );
    expect(sent.statusCode, sent.payload).toBe(202);
    const { id } = sent.json();
    const tus = { 'tus-resumable': '1.0.0' };
    const begun = await inject('POST', '/api/uploads', {
      ...mine.headers,
      ...tus,
      'upload-length': String(volume.length),
    });
    const upload = String(begun.headers.location);
    const patched = { ...tus, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' };
    expect((await inject('PATCH', upload, { ...mine.headers, ...patched }, volume)).statusCode).toBe(204);
    const digest = `sha256:${createHash('sha256').update(volume).digest('hex')}`;

    const nobodys = 'AAAAAAAAAAAAAAAAAAAAAA';
    const pairs: [method: string, mine: string, nothing: string, headers: object, payload?: Buffer][] = [
      ['GET', `/api/jobs/${id}`, `/api/jobs/${nobodys}`, {}],
      ['HEAD', `/api/jobs/${id}`, `/api/jobs/${nobodys}`, {}],
      ['GET', `/api/jobs/${id}/events`, `/api/jobs/${nobodys}/events`, {}],
      ['GET', `/api/jobs/${id}/outputs/segmentation`, `/api/jobs/${nobodys}/outputs/segmentation`, {}],
      ['POST', `/api/jobs/${id}/cancel`, `/api/jobs/${nobodys}/cancel`, {}],
      ['POST', `/api/jobs/${id}/keep`, `/api/jobs/${nobodys}/keep`, {}],
      ['DELETE', `/api/jobs/${id}`, `/api/jobs/${nobodys}`, {}],
      ['HEAD', upload, `/api/uploads/${nobodys}`, tus],
      ['PATCH', upload, `/api/uploads/${nobodys}`, patched, volume],
      ['DELETE', upload, `/api/uploads/${nobodys}`, tus],
      ['HEAD', `/api/blobs/${digest}`, `/api/blobs/sha256:${'0'.repeat(64)}`, {}],
    ];
    for (const [method, there, nothing, headers, payload] of pairs) {
      const [hidden, absent] = [
        await inject(method, there, { ...other.headers, ...headers }, payload),
        await inject(method, nothing, { ...other.headers, ...headers }, payload),
      ];
      const of = ({ statusCode, payload: body, headers: all }: typeof hidden) => ({
        statusCode,
        body: body && { ...JSON.parse(body), requestId: undefined },
        names: Object.keys(all).sort(),
      });
      expect({ method, there, ...of(hidden) }).toEqual({ method, there, ...of(absent) });
      expect(hidden.statusCode, `${method} ${there}`).toBe(404);
    }
    const json = { 'content-type': 'application/json' };
    for (const ref of [{ upload: upload.split('/').at(-1) }, { blob: digest }]) {
      const body = JSON.stringify({ inputs: { volume: ref } });
      const named = (headers: object) =>
        inject('POST', '/api/services/threshold/predictions', { ...headers, ...json }, body);
      expect((await named(other.headers)).statusCode, JSON.stringify(ref)).toBe(404);
      expect((await named(mine.headers)).statusCode, JSON.stringify(ref)).toBe(202);
    }
    const asked = await inject(
      'POST',
      '/responses',
      { ...other.headers, 'content-type': 'application/x-www-form-urlencoded' },
      `request_id=${id}`,
    );
    expect(asked.json()).toMatchObject([
      { label: 'Error!', content: expect.stringContaining('cannot be retrieved') },
    ]);
    // The same idempotency key of two owners means two jobs.
    const own = await inject(
      'POST',
      '/api/services/threshold/predictions',
      { ...other.headers, ...octets },
      volume,
    );
    expect(own.statusCode).toBe(202);
    expect(own.json().id).not.toBe(id);
    // Nothing of the owner's was touched.
    expect((await inject('GET', `/api/jobs/${id}`, mine.headers)).json()).toMatchObject({ state: 'queued' });
    expect((await inject('HEAD', upload, { ...mine.headers, ...tus })).statusCode).toBe(200);
    expect((await inject('HEAD', `/api/blobs/${digest}`, mine.headers)).statusCode).toBe(200);
  });
});

describe('key limits', () => {
  it('--max-jobs refuses the next prediction before its body is read, until one is settled', async () => {
    const { headers } = await makeKey(closed.dataFolder, ['predict'], { limits: { maxJobs: 2 } });
    const volume = Buffer.from(await encode(phantom(), 'nii.gz'));
    const send = (payload: Buffer, more = {}) =>
      closed.app.inject({
        method: 'POST',
        url: '/api/services/threshold/predictions',
        headers: { ...headers, 'content-type': 'application/octet-stream', ...more },
        payload,
      });
    const first = await send(volume, { 'idempotency-key': 'a' });
    expect(first.statusCode).toBe(202);
    expect((await send(volume)).statusCode).toBe(202);
    // What is no volume would be refused as such if it were read.
    const third = await send(Buffer.from('no volume'));
    expect(third.json()).toMatchObject({ code: 'LIMIT_REACHED', status: 429 });
    expect(Number(third.headers['retry-after'])).toBeGreaterThan(0);
    expect((await send(volume, { 'idempotency-key': 'a' })).json().id).toBe(first.json().id);
    await closed.app.inject({ method: 'DELETE', url: `/api/jobs/${first.json().id}`, headers });
    expect((await send(volume)).statusCode).toBe(202);
    const crowd = await makeKey(closed.dataFolder, ['predict'], { limits: { maxJobs: 3 } });
    const together = await Promise.all(
      Array.from({ length: 12 }, () => send(volume, crowd.headers).then(({ statusCode }) => statusCode)),
    );
    expect(together.filter((status) => status === 202)).toHaveLength(3);
    expect(together.filter((status) => status === 429)).toHaveLength(9);
  });

  it('--per-day counts those that were deleted, too', async () => {
    const { headers } = await makeKey(closed.dataFolder, ['predict'], { limits: { perDay: 2 } });
    const payload = Buffer.from(await encode(phantom(), 'nii.gz'));
    const request = {
      method: 'POST',
      url: '/api/services/threshold/predictions',
      headers: { ...headers, 'content-type': 'application/octet-stream' },
      payload,
    } as const;
    for (let i = 0; i < 2; i++) {
      const { id } = (await closed.app.inject(request)).json();
      await closed.app.inject({ method: 'DELETE', url: `/api/jobs/${id}`, headers });
      await closed.app.inject({ method: 'DELETE', url: `/api/jobs/${id}`, headers });
    }
    const third = await closed.app.inject(request);
    expect(third.json()).toMatchObject({ code: 'LIMIT_REACHED', facts: { perDay: 2 } });
    const seconds = Number(third.headers['retry-after']);
    expect(seconds).toBeGreaterThan(0);
    expect(seconds).toBeLessThanOrEqual(86_400);
  });
});

// ---- Pages of other sites ----

const foreignHosts = [
  ...['evil.example', 'evil.example:9000', 'EVIL.EXAMPLE', '127.0.0.1.evil.example', '127.0.0.1.nip.io:9000'],
  ...[
    'localhost.evil.example',
    'localhost.',
    '127.0.0.1.',
    'a.localhost',
    'localhost.localdomain',
    'xlocalhost',
  ],
  ...['0.0.0.0', '0.0.0.0:9000', '0', '[::]', '[::]:9000', '127.1', '2130706433', '0x7f.0.0.1', '0177.0.0.1'],
  ...['10.0.0.1', '192.168.1.5:9000', '169.254.169.254', '[fe80::1]', '[::ffff:10.0.0.1]', '128.0.0.1'],
  ...['localhost@evil.example', 'evil.example#localhost', 'evil.example/localhost', 'localhost,evil.example'],
  ...['localhost:9000:80', ' ', 'localhost:port', '[::1', '::1', '1270.0.1', '%6cocalhost'],
];
const foreignPages: Record<string, string>[] = [
  ...[
    'https://evil.example',
    'http://localhost:8000',
    'http://localhost:81',
    'https://localhost:80',
    'null',
  ].map((origin) => ({ origin })),
  ...['http://127.0.0.1:80', 'http://localhost.:80', 'http://evil.localhost', 'file://', ''].map(
    (origin) => ({ origin }),
  ),
  { 'sec-fetch-site': 'cross-site' },
  { 'sec-fetch-site': 'same-site' },
  { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'iframe' },
  { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' },
  { 'sec-fetch-site': 'same-origin', origin: 'https://evil.example' },
  { 'sec-fetch-site': 'none', origin: 'https://evil.example' },
  { 'sec-fetch-site': 'something-new' },
];
/** What a page may send without being asked whether it may. */
const simpleTypes = ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x'];

describe('requests of other sites', () => {
  it('are refused on changing routes by any method, name or origin', async () => {
    let tried = 0;
    const passed: string[] = [];
    const attempts = [
      ...foreignHosts.map((host) => ({ headers: { host }, status: 421 })),
      ...foreignPages.map((headers) => ({ headers: { host: 'localhost:80', ...headers }, status: 403 })),
    ];
    expect(foreignHosts.length).toBeGreaterThanOrEqual(30);
    for (const { app, name, login } of apps.filter((one) => !one.login)) {
      const isUnsafe = (method: string) => !['GET', 'HEAD', 'OPTIONS'].includes(method);
      const routes = [...needsOf(name).keys()]
        .map((row) => row.split(' '))
        .map(([method, url]) => ({ method, url }))
        .filter(({ method }) => isUnsafe(method));
      for (const url of new Set(routes.map((route) => route.url))) {
        for (const method of methods.filter(isUnsafe)) {
          // Every type where something would be done, one where the method is none.
          const isRoute = routes.some((route) => route.url === url && route.method === method);
          for (const { headers, status } of attempts) {
            for (const type of isRoute ? simpleTypes : simpleTypes.slice(0, 1)) {
              const answer = await app.inject({
                method: method as 'POST',
                url: addressOf(url),
                headers: { ...headers, 'content-type': type, 'tus-resumable': '1.0.0', 'upload-length': '9' },
                payload: 'x=1',
              });
              tried++;
              if (answer.statusCode !== status)
                passed.push(
                  `${name} ${login} ${method} ${url} ${JSON.stringify(headers)}: ${answer.statusCode}`,
                );
            }
          }
        }
      }
    }
    expect(passed).toEqual([]);
    expect(tried).toBeGreaterThan(5000);
  }, 300_000);

  it('are refused on reading routes, except links to pages and their scripts', async () => {
    const passed: string[] = [];
    for (const { app, name } of apps.filter((one) => !one.login)) {
      for (const [row, { need }] of needsOf(name)) {
        const [method, url] = row.split(' ');
        if (!['GET', 'HEAD', 'OPTIONS'].includes(method)) continue;
        for (const headers of [...foreignPages, ...foreignHosts.slice(0, 3).map((host) => ({ host }))]) {
          const answer = await app.inject({ method: method as 'GET', url: addressOf(url), headers });
          const isLink =
            !('origin' in headers) && (headers as Record<string, string>)['sec-fetch-dest'] === 'document';
          const isOpen = (isLink && need === 'a page' && method === 'GET') || url === '/assets/*';
          const wanted = 'host' in headers ? 421 : isOpen ? 200 : 403;
          const isFine =
            wanted === 200 && isLogin(url)
              ? ![403, 421].includes(answer.statusCode)
              : answer.statusCode === wanted;
          if (!isFine)
            passed.push(
              `${name} ${method} ${url} ${JSON.stringify(headers)}: ${answer.statusCode}, not ${wanted}`,
            );
          const { 'access-control-allow-origin': cors } = answer.headers;
          const isReadable = cors !== undefined && (answer.statusCode >= 400 || url === '/assets/*');
          if (isReadable) passed.push(`${method} ${url}: CORS ${cors}`);
        }
      }
    }
    expect(passed).toEqual([]);
  }, 300_000);

  it('pass from the page itself, from programs, and by the names of this machine', async () => {
    const names = [
      'localhost',
      'LOCALHOST:1',
      '127.0.0.1',
      '127.0.0.1:9000',
      '127.8.9.1',
      '[::1]',
      '[::1]:9443',
    ];
    for (const host of names)
      expect((await open.app.inject({ url: '/api/services', headers: { host } })).statusCode, host).toBe(200);
    const own: Record<string, string>[] = [
      { origin: 'http://localhost' },
      { origin: 'http://localhost', 'sec-fetch-site': 'same-origin' },
      { 'sec-fetch-site': 'same-origin' },
      { 'sec-fetch-site': 'none' },
      {},
    ];
    for (const headers of own) {
      const answer = await open.app.inject({
        url: '/interface',
        headers: { host: 'localhost:80', ...headers },
      });
      expect({ status: answer.statusCode, cors: answer.headers['access-control-allow-origin'] }).toEqual({
        status: 200,
        cors: '*',
      });
    }
  });

  it('pass from the origins that the operator names, with the question before', async () => {
    await using server = await startTestServer(['threshold'], {
      workers: 0,
      allowOrigin: ['https://viewer.example'],
      allowHost: ['scanner'],
      publicUrl: 'https://server.example/tomaat',
      login: true,
    });
    const origin = 'https://viewer.example';
    const asked = await server.app.inject({
      method: 'OPTIONS',
      url: '/api/services/threshold/predictions',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization',
      },
    });
    expect(asked.statusCode).toBe(204);
    expect(asked.headers).toMatchObject({
      'access-control-allow-origin': origin,
      'access-control-allow-headers': 'authorization',
      // Ten minutes: what the operator takes back ends soon.
      'access-control-max-age': '600',
    });
    const { headers } = await makeKey(server.dataFolder, ['predict']);
    for (const more of [
      { origin },
      { origin: 'https://server.example', host: 'server.example' },
      { host: 'SCANNER:9000' },
    ]) {
      const answer = await server.app.inject({ url: '/api/services', headers: { ...headers, ...more } });
      expect(answer.statusCode, JSON.stringify(more)).toBe(200);
    }
    // Being allowed to ask is not being somebody.
    expect((await server.app.inject({ url: '/api/services', headers: { origin } })).statusCode).toBe(401);
    const other = { origin: 'https://viewer.example.evil.example', 'access-control-request-method': 'POST' };
    expect((await server.app.inject({ method: 'OPTIONS', url: '/predict', headers: other })).statusCode).toBe(
      403,
    );
  });

  it('an absolute address in the request line does not bypass Host', async () => {
    for (const url of ['http://evil.example/api/services', 'http://evil.example:80@localhost/api/services'])
      expect(
        await statusOf(open, `GET ${url} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`),
        url,
      ).toBe(421);
    expect(
      await statusOf(
        open,
        'GET http://localhost/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
      ),
    ).toBe(200);
    expect(await statusOf(open, 'GET /health/live HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n')).toBe(421);
    // HTTP/1.0 needs no Host header; a whole address is asked for all the same.
    expect(await statusOf(open, 'GET /health/live HTTP/1.0\r\n\r\n')).toBe(200);
    for (const target of [
      'http://evil.example/api/services',
      'http://evil.example:80/',
      'HTTP://EVIL.EXAMPLE/',
    ])
      expect(await statusOf(open, `GET ${target} HTTP/1.0\r\n\r\n`), target).toBe(421);
  });
});

async function statusOf(server: TestServer, text: string): Promise<number | undefined> {
  const { sendRaw } = await import('./real-server.ts');
  return (await sendRaw(Number(new URL(server.url).port), Buffer.from(text)))?.status;
}
