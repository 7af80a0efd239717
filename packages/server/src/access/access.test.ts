import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FastifyInstance, InjectOptions } from 'fastify';
import type { Kysely } from 'kysely';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createApp } from '../http/app.ts';
import { type Database, openDatabase } from '../store/database/database.ts';
import type { KeySchema } from '../store/database/key-schema.ts';
import { type ServerSchema, serverMigrations } from '../store/database/server-database.ts';
import { type Access, type AccessOptions, markLegacy, registerAccess } from './access.ts';
import { createHostPolicy } from './hosts.ts';
import { createKey } from './keys.ts';
import type { Principal } from './principal.ts';
import type { KeyScope } from './scopes.ts';

let folder: string;
let database: Database<ServerSchema>;
let keys: Kysely<KeySchema>;
const made: Partial<Record<KeyScope, { id: string; key: string }>> = {};
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-access-'));
  database = await openDatabase<ServerSchema>(join(folder, 'server.db'), serverMigrations);
  keys = database.db as unknown as Kysely<KeySchema>;
  for (const scope of ['predict', 'announce', 'worker', 'metrics', 'admin'] as const)
    made[scope] = await createKey(keys, { label: scope, scopes: [scope] });
});
afterAll(async () => {
  await database.close();
  await rm(folder, { recursive: true, force: true });
});

interface Line {
  event: string;
  [fact: string]: unknown;
}
let audit: Line[];
const apps: FastifyInstance[] = [];
beforeEach(() => {
  audit = [];
});
afterEach(async () => {
  for (const app of apps.splice(0)) await app.close();
});

/** An app with a route of each need, which answers who asks. */
function openApp(options: Partial<AccessOptions> & { legacy?: boolean } = {}) {
  const app = createApp(false);
  apps.push(app);
  const { legacy, ...more } = options;
  // As the listener for old clients does it.
  if (legacy) app.addHook('onRequest', async (request) => markLegacy(request.raw));
  const access: Access = registerAccess(app, {
    keys,
    hosts: createHostPolicy({ allowOrigin: ['https://viewer.example'] }),
    realm: 'tomaat-test',
    audit: { record: (event, facts) => void audit.push({ event, ...facts }) } as AccessOptions['audit'],
    ...more,
  });
  const who = async (request: { principal?: Principal }) => request.principal ?? { owner: 'nobody' };
  for (const url of ['/health/live', '/', '/auth/me', '/assets/*', '/metrics', '/api/services', '/interface'])
    app.get(url, who);
  app.get('/api/worker', who);
  app.put('/api/announcements/:id', who);
  app.post('/announce', async (request) => {
    const key = await access.recognise(String(request.headers['x-key']), request);
    return { id: key?.id };
  });
  return { app, access };
}

const ask = (
  app: FastifyInstance,
  url: string,
  headers: Record<string, string> = {},
  more: InjectOptions = {},
) => app.inject({ method: 'GET', url, headers: { host: 'localhost', ...headers }, ...more });
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const unknownKey = `tmt_${'a'.repeat(10)}_${'A'.repeat(43)}`;

describe('registerAccess() and routes', () => {
  it('lists each route with its need, and refuses one without a row', async () => {
    const { app, access } = openApp();
    expect(access.routes).toContainEqual({ method: 'GET', url: '/metrics', need: 'metrics' });
    expect(access.routes).toContainEqual({ method: 'PUT', url: '/api/announcements/:id', need: 'announce' });
    expect(access.routes).toContainEqual({ method: 'HEAD', url: '/', need: 'page' });
    expect(() => app.get('/forgotten', async () => '')).toThrow('GET /forgotten has no row');
  });
});

describe('registerAccess() without login', () => {
  it('lets this machine do all but a worker’s and an announcer’s work', async () => {
    const { app } = openApp();
    for (const url of ['/metrics', '/api/services', '/interface'])
      expect((await ask(app, url)).json(), url).toEqual({
        owner: 'anonymous',
        scopes: ['predict'],
        via: 'open',
      });
    for (const url of ['/health/live', '/', '/auth/me'])
      expect((await ask(app, url)).json(), url).toEqual({ owner: 'nobody' });
    expect((await ask(app, '/api/worker')).statusCode).toBe(401);
    expect((await ask(app, '/api/announcements/a', {}, { method: 'PUT' })).statusCode).toBe(401);
    expect((await ask(app, '/api/worker', bearer(made.worker!.key))).json()).toMatchObject({ via: 'key' });
    expect((await ask(app, '/nothing')).statusCode).toBe(404);
  });
});

describe('registerAccess() with login', () => {
  it.each([
    ['/api/services', 'predict', '--api-key', 'createClient takes it as apiKey, '],
    ['/metrics', 'metrics', '--api-key', 'createClient takes it as apiKey, '],
    ['/api/worker', 'worker', '--token or', ''],
  ])('asks at %s for a key with the scope %s', async (url, scope, flag, code) => {
    const { app } = openApp({ login: true });
    const answer = await ask(app, url);
    expect(answer.statusCode).toBe(401);
    expect(answer.headers['www-authenticate']).toBe('Bearer realm="tomaat-test"');
    const { detail } = answer.json();
    expect(detail).toContain(`with the scope ${scope} is required`);
    expect(detail).toContain(`(${code}commands of tomaat as ${flag}`);
    expect(audit).toEqual([
      {
        event: 'access.denied',
        who: undefined,
        keyId: undefined,
        route: `GET ${url}`,
        outcome: 'UNAUTHORIZED',
      },
    ]);
  });

  it('asks an announcer for its own flag', async () => {
    const { app } = openApp({ login: true });
    const { detail } = (await ask(app, '/api/announcements/a', {}, { method: 'PUT' })).json();
    expect(detail).toContain('(commands of tomaat as --announce-key or');
  });

  it.each(['predict', 'announce', 'worker', 'metrics', 'admin'] as const)(
    'lets a key with %s do that',
    async (own) => {
      const { app } = openApp({ login: true });
      const { id, key } = made[own]!;
      for (const [url, scope] of [
        ['/api/services', 'predict'],
        ['/metrics', 'metrics'],
        ['/api/worker', 'worker'],
      ]) {
        const answer = await ask(app, url, bearer(key));
        if (own === scope || own === 'admin') {
          expect(answer.json(), url).toMatchObject({ owner: `key:${id}`, via: 'key', keyId: id });
          continue;
        }
        expect(answer.statusCode, url).toBe(403);
        expect(answer.headers['www-authenticate']).toBeUndefined();
        expect(answer.json().detail).toContain(
          `The API key ${id} lacks the scope ${scope}, which this request requires.`,
        );
        expect(audit.at(-1)).toEqual({
          event: 'access.denied',
          who: `key:${id}`,
          keyId: id,
          route: `GET ${url}`,
          outcome: 'FORBIDDEN',
        });
      }
    },
  );

  it('requires a key before it answers 404, except for a followed link', async () => {
    const { app } = openApp({ login: true });
    expect((await ask(app, '/nothing')).statusCode).toBe(401);
    expect((await ask(app, '/nothing')).json().detail).toMatch(
      /^An API key is required: .* 'tomaat keys create'\.$/,
    );
    // Any scope will do.
    expect((await ask(app, '/nothing', bearer(made.metrics!.key))).statusCode).toBe(404);
    const link = {
      'sec-fetch-mode': 'navigate',
      'sec-fetch-dest': 'document',
      'sec-fetch-site': 'cross-site',
    };
    expect((await ask(app, '/nothing', link)).statusCode).toBe(404);
    expect(audit.map(({ route }) => route)).toEqual(['GET (none)', 'GET (none)']);
  });

  it('knows a session, unless a key is sent', async () => {
    const session: Principal = { owner: 'oidc:x', scopes: ['predict'], via: 'session' };
    let asked = 0;
    let found: Principal | undefined = session;
    const sessions = async () => {
      asked++;
      return found;
    };
    const { app } = openApp({ login: true, sessions });
    expect((await ask(app, '/api/services')).json()).toEqual(session);
    // An issuer's token.
    expect((await ask(app, '/api/services', bearer('a.b.c'))).json()).toEqual(session);
    expect(asked).toBe(2);
    expect((await ask(app, '/api/services', bearer(made.predict!.key))).json()).toMatchObject({ via: 'key' });
    expect((await ask(app, '/api/services', bearer(unknownKey))).statusCode).toBe(401);
    expect(asked).toBe(2);
    const refused = await ask(app, '/metrics');
    expect(refused.statusCode).toBe(403);
    expect(refused.json().detail).toContain('Your login lacks the scope');
    expect(audit.at(-1)).toMatchObject({ who: 'oidc:x', keyId: undefined, outcome: 'FORBIDDEN' });
    found = undefined;
    expect((await ask(app, '/api/services')).statusCode).toBe(401);
    expect((await ask(app, '/api/services', { authorization: 'Basic x' })).statusCode).toBe(401);
    expect(asked).toBe(5);
  });

  it('goes by the clock that it is given for keys that expire', async () => {
    const clock = { ms: Date.now() };
    const expiresTime = new Date(clock.ms + 1000);
    const { key } = await createKey(keys, { label: 'short', scopes: ['predict'], expiresTime });
    const { app } = openApp({ login: true, now: () => clock.ms });
    clock.ms = expiresTime.getTime() - 1;
    expect((await ask(app, '/api/services', bearer(key))).statusCode).toBe(200);
    clock.ms += 1;
    const refused = await ask(app, '/api/services', bearer(key));
    expect(refused.statusCode).toBe(401);
    expect(refused.json().detail).toMatch(/unknown, expired or revoked/);
  });

  it('allows 60 wrong keys a minute per address, and right ones always', async () => {
    const { app } = openApp({ login: true });
    const statusOf = async (key: string, remoteAddress?: string) =>
      (await ask(app, '/api/services', bearer(key), { remoteAddress })).statusCode;
    for (let i = 0; i < 60; i++) expect(await statusOf(unknownKey)).toBe(401);
    const limited = await ask(app, '/api/services', bearer(unknownKey));
    expect(limited.statusCode).toBe(429);
    expect(limited.headers['retry-after']).toBe('1');
    expect(limited.json().detail).toMatch(/Too many invalid API keys .* in 1 s\./);
    expect(audit).toHaveLength(61);
    expect(audit.at(-1)).toMatchObject({ outcome: 'LIMIT_REACHED', route: 'GET /api/services' });
    expect(await statusOf(unknownKey, '192.0.2.9')).toBe(401);
    expect(await statusOf(made.predict!.key)).toBe(200);
  });
});

describe('recognise()', () => {
  it('recognizes a key in a body, and records an invalid one once', async () => {
    const { app } = openApp({ login: true });
    const announce = (key: string) => ask(app, '/announce', { 'x-key': key }, { method: 'POST' });
    expect((await announce(made.announce!.key)).json()).toEqual({ id: made.announce!.id });
    expect(audit).toEqual([]);
    const wrong = await announce(unknownKey);
    expect([wrong.statusCode, wrong.json()]).toEqual([200, {}]);
    expect(audit).toMatchObject([{ outcome: 'UNAUTHORIZED', route: 'POST /announce' }]);
  });
});

describe('registerAccess() and other sites', () => {
  it('refuses other host names and sites before it identifies the caller', async () => {
    const { app } = openApp({ login: true });
    expect((await ask(app, '/health/live', { host: 'evil.example' })).statusCode).toBe(421);
    expect(audit.at(-1)).toMatchObject({ outcome: 'MISDIRECTED' });
    const evil = { origin: 'https://evil.example' };
    expect((await ask(app, '/health/live', evil)).statusCode).toBe(403);
    expect(audit.at(-1)).toMatchObject({ outcome: 'FORBIDDEN', route: 'GET /health/live' });
    // Scripts of the page itself.
    expect((await ask(app, '/assets/a.js', evil)).statusCode).toBe(200);
    const link = {
      'sec-fetch-mode': 'navigate',
      'sec-fetch-dest': 'document',
      'sec-fetch-site': 'cross-site',
    };
    expect((await ask(app, '/', link)).statusCode).toBe(200);
    expect((await ask(app, '/api/services', link)).statusCode).toBe(403);
  });

  it('lets an allowed page read errors, and answers preflights without a key', async () => {
    const { app } = openApp({ login: true });
    const origin = { origin: 'https://viewer.example' };
    const answer = await ask(app, '/api/services', origin);
    expect(answer.statusCode).toBe(401);
    expect(answer.headers['access-control-allow-origin']).toBe('https://viewer.example');
    expect((await ask(app, '/api/services')).headers['access-control-allow-origin']).toBeUndefined();
    const preflight = { 'access-control-request-method': 'GET' };
    const options = { method: 'OPTIONS' as const };
    expect((await ask(app, '/api/services', { ...origin, ...preflight }, options)).statusCode).toBe(204);
    // No page asks: it is a request like any other.
    expect((await ask(app, '/api/services', preflight, options)).statusCode).toBe(401);
    expect((await ask(app, '/api/services', origin, options)).statusCode).toBe(401);
  });

  it('compares where the page says it is with where it may be', async () => {
    const { app } = openApp();
    const statusAt = async (url: string, page: string) =>
      (await ask(app, `${url}?page=${encodeURIComponent(page)}`)).statusCode;
    expect(await statusAt('/auth/me', 'http://localhost/jobs')).toBe(200);
    expect(await statusAt('/auth/me', 'https://viewer.example/x')).toBe(200);
    expect(await statusAt('/auth/me', 'https://proxy.example/')).toBe(403);
    expect(await statusAt('/api/services', 'https://proxy.example/')).toBe(200);
  });
});

describe('the legacy listener', () => {
  const legacy = (more: Partial<AccessOptions> = {}) => openApp({ login: true, legacy: true, ...more }).app;

  it('takes TOMAAT v1 without login, each address as an owner', async () => {
    const app = legacy({ storedOwner: (owner) => `stored ${owner}` });
    const from = (remoteAddress: string) => ask(app, '/interface', {}, { remoteAddress });
    expect((await from('192.0.2.9')).json()).toEqual({
      owner: 'stored legacy:192.0.2.9',
      scopes: ['predict'],
      via: 'legacy',
    });
    expect((await from('::ffff:192.0.2.9')).json().owner).toBe('stored legacy:192.0.2.9');
    expect((await ask(legacy(), '/interface', {}, { remoteAddress: '::1' })).json().owner).toBe('legacy:::1');
    for (const url of ['/api/services', '/', '/health/live', '/nothing']) {
      const answer = await ask(app, url, bearer(made.admin!.key));
      expect([answer.statusCode, answer.json().detail], url).toEqual([
        404,
        expect.stringContaining('serves only TOMAAT v1'),
      ]);
    }
  });

  it.each([
    [undefined, 60],
    [2, 2],
  ])('at %s requests a minute takes %i from an address', async (legacyPerMinute, count) => {
    const app = legacy({ legacyPerMinute });
    for (let i = 0; i < count; i++) expect((await ask(app, '/interface')).statusCode).toBe(200);
    const limited = await ask(app, '/interface');
    expect(limited.statusCode).toBe(429);
    expect(limited.headers['retry-after']).toBe(String(60 / count));
    expect((await ask(app, '/interface', {}, { remoteAddress: '192.0.2.9' })).statusCode).toBe(200);
    expect(audit).toMatchObject([{ outcome: 'LIMIT_REACHED' }]);
  });
});
