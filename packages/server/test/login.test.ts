import { request as httpsRequest } from 'node:https';
import { meSchema } from '@tomaat/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { revokeKey } from '../src/access/keys.ts';
import { localPath } from '../src/http/login.ts';
import { createBrowserLike } from './browser-like.ts';
import { type LoginApp, openLoginApp } from './login-app.ts';

describe('localPath()', () => {
  it('keeps a path of this server, with query and fragment', () => {
    for (const path of [
      '/',
      '/jobs',
      '/services/ct-lung?q=a%20b&x=1',
      '/jobs/ab12#result',
      '/a/../jobs?x=//y',
    ])
      expect(localPath(path)).toBe(path.replace('/a/../', '/'));
  });

  it('makes / of whatever leads elsewhere or nowhere, in 44 spellings', () => {
    const spellings = [
      undefined,
      '',
      'evil.example',
      'https://evil.example',
      'http:evil.example',
      'https:/evil.example',
      'javascript:alert(1)',
      'data:text/html,x',
      '//evil.example',
      '///evil.example',
      '////evil.example',
      '/\\evil.example',
      '\\\\evil.example',
      '\\/evil.example',
      '/\\/evil.example',
      '//\\evil.example',
      '/\t/evil.example',
      '\t//evil.example',
      '/\n/evil.example',
      '/\r/evil.example',
      '/\r\nset-cookie: a=b',
      '/\0/evil.example',
      ' //evil.example',
      '/ /evil.example',
      '/.//evil.example',
      '/..//evil.example',
      '/./..//evil.example',
      '/a/..//evil.example',
      '/%2e//evil.example',
      '/%2E%2e//evil.example',
      '/a/%2e%2e//evil.example',
      '//evil.example@server',
      '//server@evil.example',
      '//[::1]/x',
      '///../evil.example',
      '/ü',
      '/jobs/\u2028',
      '／／evil.example',
      '/auth',
      '/auth/oidc/login?return=/',
      '/AUTH/oidc/login',
      '/a/../auth/oidc/login',
      `/${'a'.repeat(2000)}`,
      '?x',
    ];
    expect(spellings).toHaveLength(44);
    for (const text of spellings) expect(localPath(text), JSON.stringify(text)).toBe('/');
  });

  it('never returns what a browser reads as another host, even encoded', () => {
    for (const text of ['/%2f%2fevil.example', '/%2Fevil.example', '/%5cevil.example', '/%09/evil.example']) {
      const from = 'https://server.example/auth/oidc/callback';
      expect(new URL(localPath(text), from).origin).toBe('https://server.example');
    }
  });
});

describe('the login with a key', () => {
  let site: LoginApp;
  beforeAll(async () => {
    site = await openLoginApp();
  });
  afterAll(() => site[Symbol.asyncDispose]());

  const body = (key: unknown) => ({
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ key }),
  });
  async function loggedIn() {
    const { key, id } = await site.key();
    const browser = createBrowserLike();
    const response = await browser.fetch(`${site.url}/auth/session`, site.url, body(key));
    expect(response.status).toBe(204);
    const me = async () =>
      meSchema.parse(await (await browser.fetch(`${site.url}/auth/me`, site.url)).json());
    return { browser, key, id, me };
  }

  it('gives a cookie without the key, hidden from scripts and other sites', async () => {
    const { browser, key, id, me } = await loggedIn();
    const [[name, cookie]] = [...browser.cookies];
    expect(name).toBe(`localhost tomaat-${site.port}`);
    expect(cookie.attributes).toBe('Path=/; HttpOnly; SameSite=Strict');
    expect(cookie.value).toMatch(/^[\w-]{43}$/);
    expect(key).not.toContain(cookie.value);
    expect(await me()).toMatchObject({
      login: 'required',
      who: { kind: 'key', owner: `key:${id}`, label: 'ward 3', scopes: ['predict'] },
      ways: { key: true },
    });
    expect((await browser.fetch(`${site.url}/who`, site.url)).status).toBe(200);
  });

  it('describes anonymous callers too, and forbids caching of /auth', async () => {
    const response = await fetch(`${site.url}/auth/me`);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(await response.json()).toEqual({ login: 'required', ways: { key: true } });
  });

  it('knows the sender of a key without a cookie', async () => {
    const { key, id } = await site.key(['admin'], 'boss');
    const response = await fetch(`${site.url}/auth/me`, { headers: { authorization: `Bearer ${key}` } });
    expect(await response.json()).toMatchObject({
      who: { kind: 'key', owner: `key:${id}`, label: 'boss', scopes: ['admin'] },
    });
  });

  it('ends on the server at logout: a kept cookie opens nothing', async () => {
    const { browser, me } = await loggedIn();
    const [[name, kept]] = [...browser.cookies];
    const out = await browser.fetch(`${site.url}/auth/session`, site.url, { method: 'DELETE' });
    expect(out.status).toBe(204);
    expect(browser.cookies.size).toBe(0);
    browser.cookies.set(name, kept);
    expect((await me()).who).toBeUndefined();
    expect((await browser.fetch(`${site.url}/who`, site.url)).status).toBe(401);
  });

  it('ends at once when its key is revoked', async () => {
    const { browser, id } = await loggedIn();
    expect((await browser.fetch(`${site.url}/who`, site.url)).status).toBe(200);
    await revokeKey(site.database.db, id);
    expect((await browser.fetch(`${site.url}/who`, site.url)).status).toBe(401);
  });

  it('opens another session at each login and ends the one before', async () => {
    const { browser, key } = await loggedIn();
    const [[name, first]] = [...browser.cookies];
    await browser.fetch(`${site.url}/auth/session`, site.url, body(key));
    const second = browser.cookies.get(name)!;
    expect(second.value).not.toBe(first.value);
    browser.cookies.set(name, first);
    expect((await browser.fetch(`${site.url}/who`, site.url)).status).toBe(401);
  });

  it('refuses wrong keys, other scopes and invalid logins, without a cookie', async () => {
    const worker = await site.key(['worker'], 'gpu');
    const revoked = await site.key();
    await revokeKey(site.database.db, revoked.id);
    const { key } = await site.key();
    const cases: [number, RequestInit][] = [
      [401, body('tmt_aaaaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA')],
      [401, body(`${key}x`)],
      [401, body('')],
      [401, body(revoked.key)],
      [403, body(worker.key)],
      [400, body(17)],
      [400, body('x'.repeat(201))],
      [400, { ...body(key), body: '{"key":' }],
      [400, { ...body(key), body: JSON.stringify({ key, more: 1 }) }],
      [413, { ...body(key), body: JSON.stringify({ key: 'x'.repeat(2000) }) }],
      [415, { ...body(key), headers: { 'content-type': 'text/plain' } }],
      [415, { ...body(key), headers: { 'content-type': 'application/x-www-form-urlencoded' } }],
    ];
    for (const [status, init] of cases) {
      const response = await fetch(`${site.url}/auth/session`, init);
      expect(response.status, JSON.stringify(init)).toBe(status);
      expect(response.headers.getSetCookie()).toEqual([]);
      expect(await response.text()).not.toContain(key);
    }
  });

  it('rejects cookies from another origin: port, host, null or false Host', async () => {
    const { browser } = await loggedIn();
    const [[, cookie]] = [...browser.cookies];
    const headers = { cookie: `tomaat-${site.port}=${cookie.value}` };
    const ask = (method: string, more: Record<string, string>) =>
      site.app.inject({
        method: method as 'GET',
        url: '/who',
        headers: { host: `localhost:${site.port}`, ...headers, ...more },
      });
    // inject() has no port: the name of its cookie has none either.
    headers.cookie = headers.cookie.replace(`-${site.port}=`, '-0=');
    const own = `http://localhost:${site.port}`;
    expect((await ask('DELETE', { origin: own })).statusCode).toBe(200);
    expect((await ask('DELETE', { 'sec-fetch-site': 'same-origin' })).statusCode).toBe(200);
    expect((await ask('GET', {})).statusCode).toBe(200);
    expect((await ask('GET', { 'sec-fetch-site': 'none' })).statusCode).toBe(200);
    const foreign = [
      { origin: `http://localhost:${site.port + 1}` },
      { origin: 'http://localhost' },
      { origin: `http://127.0.0.1:${site.port}` },
      { origin: `http://evil.example:${site.port}` },
      { origin: `${own}.evil.example` },
      { origin: `${own}/` },
      { origin: 'null' },
      { origin: '' },
      { 'sec-fetch-site': 'same-site' },
      { 'sec-fetch-site': 'cross-site' },
      { origin: own, 'sec-fetch-site': 'cross-site' },
    ];
    for (const more of foreign) {
      for (const method of ['GET', 'DELETE'])
        expect(
          (await ask(method, more as unknown as Record<string, string>)).statusCode,
          `${method} ${JSON.stringify(more)}`,
        ).toBe(401);
    }
    // A change that does not say where it comes from is none of the page's.
    expect((await ask('DELETE', {})).statusCode).toBe(401);
  });

  it('lets a page at another port neither log in nor log out', async () => {
    const { browser, key, me } = await loggedIn();
    const other = `http://localhost:${site.port + 1}`;
    const login = await browser.fetch(`${site.url}/auth/session`, other, body(key));
    expect(login.status).toBe(403);
    expect(login.headers.getSetCookie()).toEqual([]);
    const logout = await browser.fetch(`${site.url}/auth/session`, other, { method: 'DELETE' });
    expect(logout.headers.getSetCookie()).toEqual([]);
    expect((await me()).who).toBeDefined();
  });

  it('tells those without a login whom the operator names as contact', async () => {
    const contact = 'Ada Example, room 12 <ada@hospital.example>';
    await using named = await openLoginApp({ contact });
    expect(await (await fetch(`${named.url}/auth/me`)).json()).toEqual({
      login: 'required',
      ways: { key: true },
      contact,
    });
  });

  it('reports that login is off, or that no issuer is set', async () => {
    await using open = await openLoginApp({ required: false });
    expect(await (await fetch(`${open.url}/auth/me`)).json()).toEqual({
      login: 'off',
      ways: { key: false },
    });
    const { key } = await open.key();
    expect((await fetch(`${open.url}/auth/session`, body(key))).status).toBe(409);
    for (const path of ['/auth/oidc/login', '/auth/oidc/callback?code=a&state=b'])
      expect((await fetch(`${open.url}${path}`, { redirect: 'manual' })).status).toBe(404);
  });

  it('makes cookies Secure with TLS, also at a proxy', async () => {
    const lineOf = (cookies: string[] | undefined) => cookies?.[0].replace(/-\d+=[\w-]{43}/, '-PORT=TOKEN');
    const secure = '__Host-tomaat-PORT=TOKEN; Path=/; HttpOnly; SameSite=Strict; Secure';
    await using encrypted = await openLoginApp({ tls: true });
    const { key } = await encrypted.key();
    const cookies = await new Promise<string[] | undefined>((resolve, reject) => {
      const options = { method: 'POST', rejectUnauthorized: false, headers: body(key).headers };
      httpsRequest(`${encrypted.url}/auth/session`, options, (response) =>
        resolve(response.resume().headers['set-cookie']),
      )
        .on('error', reject)
        .end(body(key).body);
    });
    expect(lineOf(cookies)).toBe(secure);
    await using behind = await openLoginApp({ publicUrl: 'https://tomaat.example' });
    const other = await behind.key();
    const payload = body(other.key);
    const login = (headers: Record<string, string>) =>
      behind.app.inject({
        method: 'POST',
        url: '/auth/session',
        headers: { ...payload.headers, ...headers },
        payload: payload.body,
      });
    const answer = await login({ host: 'tomaat.example', origin: 'https://tomaat.example' });
    expect(lineOf([answer.headers['set-cookie']].flat() as string[])).toBe(secure);
    expect((await login({ host: 'tomaat.example', origin: 'http://tomaat.example' })).statusCode).toBe(403);
  });
});
