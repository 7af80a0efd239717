import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient } from '@tomaat/client';
import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openKeyFolder } from '../src/access/key-folder.ts';
import { createKey } from '../src/access/keys.ts';
import { type RunningRegistry, startRegistry } from '../src/registry/start.ts';
import { createBrowserLike } from './browser-like.ts';
import { settingsOf } from './login-app.ts';
import { type OidcProvider, openOidcProvider } from './oidc-provider.ts';
import { encode, phantom } from './phantom.ts';
import { databaseOf } from './support/tested-database.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

describe('a server and a registry with login', () => {
  let provider: OidcProvider;
  let server: TestServer;
  let registry: RunningRegistry;
  let key: string;
  beforeAll(async () => {
    provider = await openOidcProvider();
    const oidc = settingsOf(provider, { audience: 'tomaat-api' });
    const page = await temporaryFolder();
    await writeFile(join(page, 'index.html'), 'the page');
    server = await startTestServer(['threshold'], { login: true, oidc, page });
    const { dataFolder } = server;
    const common = { host: '127.0.0.1', port: 0, dataFolder, logger: false } as const;
    const database = await databaseOf(dataFolder);
    registry = await startRegistry({ ...common, database, login: true, oidc, page });
    await using keys = await openKeyFolder(dataFolder, ['server', 'registry'], {
      shared: database,
    });
    ({ key } = await createKey(keys.databases, { label: 'ward 3', scopes: ['predict'] }));
  }, 60_000);
  afterAll(async () => {
    await registry?.close();
    await server?.[Symbol.asyncDispose]();
    await provider?.[Symbol.asyncDispose]();
  });
  const local = (url: string) => url.replace('127.0.0.1', 'localhost');
  const login = (text: string) => ({
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ key: text }),
  });

  it('admit a browser by session, each with its own cookie, not other pages', async () => {
    const browser = createBrowserLike();
    for (const url of [server.url, registry.url].map(local)) {
      expect((await browser.fetch(`${url}/api/services`, url)).status).toBe(401);
      expect((await browser.fetch(`${url}/auth/session`, url, login(key))).status).toBe(204);
      expect((await browser.fetch(`${url}/api/services`, url)).status).toBe(200);
    }
    expect(browser.cookies.size).toBe(2);
    const [own, other] = [server.url, registry.url].map(local);
    // The registry's page is the same site to the browser, which sends the cookie; and another origin to the server.
    expect((await browser.fetch(`${own}/api/services`, other)).status).toBe(403);
    expect((await browser.fetch(`${own}/auth/session`, other, { method: 'DELETE' })).status).toBe(403);
    expect((await browser.fetch(`${own}/api/services`, own)).status).toBe(200);
    await browser.fetch(`${own}/auth/session`, own, { method: 'DELETE' });
    expect((await browser.fetch(`${own}/api/services`, own)).status).toBe(401);
    expect((await browser.fetch(`${other}/api/services`, other)).status).toBe(200);
  });

  it('show a session’s work only to the key that opened it', async () => {
    const browser = createBrowserLike();
    const url = local(server.url);
    await browser.fetch(`${url}/auth/session`, url, login(key));
    const sent = await browser.fetch(`${url}/api/services/threshold/predictions`, url, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream', prefer: 'wait=20' },
      body: (await encode(phantom(), 'nii')) as BodyInit,
    });
    expect(sent.status).toBe(200);
    const { id } = (await sent.json()) as { id: string };
    expect((await createClient({ baseUrl: server.url, apiKey: key }).job(id)).state).toBe('succeeded');
    const other = createBrowserLike();
    await other.open(`${url}/auth/oidc/login?return=/`, url);
    expect((await other.fetch(`${url}/api/services`, url)).status).toBe(200);
    expect((await other.fetch(`${url}/api/jobs/${id}`, url)).status).toBe(404);
  }, 60_000);

  it('log in by the issuer, and accept its tokens for the audience', async () => {
    const owners = new Set<string>();
    for (const url of [server.url, registry.url].map(local)) {
      const browser = createBrowserLike();
      const end = await browser.open(`${url}/auth/oidc/login?return=/jobs`, url);
      expect(end.address).toBe(`${url}/jobs`);
      expect(await end.text()).toBe('the page');
      expect((await browser.fetch(`${url}/api/services`, url)).status).toBe(200);
      expect((await browser.fetch(`${url}/metrics`, url)).status).toBe(403);
      const seconds = Math.floor(Date.now() / 1000);
      const claims = { iss: provider.issuer, aud: 'tomaat-api', exp: seconds + 60, sub: 'robot' };
      // Longer than any key.
      const token = await provider.sign({ ...claims, scope: 'a '.repeat(300) }, { typ: 'at+jwt' });
      const ask = (bearer: string) =>
        fetch(`${url}/api/services`, { headers: { authorization: `Bearer ${bearer}` } });
      expect((await ask(token)).status).toBe(200);
      const refused = await ask(await provider.sign({ ...claims, aud: 'other' }));
      expect(refused.status).toBe(401);
      expect(refused.headers.get('www-authenticate')).toMatch(/^Bearer realm=/);
      const me = await fetch(`${url}/auth/me`, { headers: { authorization: `Bearer ${token}` } });
      // The same on both, which share the key of the data folder; nothing in it tells who it is.
      const { who } = (await me.json()) as { who: { kind: string; owner: string } };
      expect(who.kind).toBe('oidc');
      expect(who.owner).toMatch(/^oidc:[\w-]{22}$/);
      owners.add(who.owner);
    }
    expect(owners.size).toBe(1);
  });

  it('report at start that the issuer requires a secret or is unreachable', async () => {
    const down = { ...settingsOf(provider), issuer: 'http://127.0.0.1:1' };
    for (const [oidc, words] of [
      [
        settingsOf(provider, { clientSecret: undefined }),
        /No client secret is set.*TOMAAT_OIDC_CLIENT_SECRET/,
      ],
      [down, /127\.0\.0\.1:1 is not responding correctly/],
    ] as const) {
      for (const kind of ['server', 'registry']) {
        const log: { level: number; msg: string }[] = [];
        const logger = pino({ level: 'warn' }, { write: (line: string) => log.push(JSON.parse(line)) });
        const dataFolder = await temporaryFolder();
        const common = { login: true, oidc, logger, dataFolder };
        const running =
          kind === 'server'
            ? await startTestServer(['threshold'], common)
            : await startRegistry({ ...common, host: '127.0.0.1', port: 0 });
        try {
          await expect.poll(() => log).toMatchObject([{ level: 40, msg: expect.stringMatching(words) }]);
        } finally {
          await running.close();
          await rm(dataFolder, { recursive: true, force: true });
        }
      }
    }
  });

  it('slow down wrong keys at the login, not right ones', async () => {
    const wrong = `tmt_aaaaaaaaaa_${'A'.repeat(43)}`;
    const statuses = new Set<number>();
    for (let i = 0; i < 70 && !statuses.has(429); i++) {
      const response = await fetch(`${server.url}/auth/session`, login(wrong));
      statuses.add(response.status);
      if (response.status === 429) expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
    }
    expect([...statuses]).toEqual([401, 429]);
    expect((await fetch(`${server.url}/auth/session`, login(key))).status).toBe(204);
  });
});
