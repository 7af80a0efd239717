import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { settingsOf } from '../../test/login-app.ts';
import { type OidcProvider, openOidcProvider } from '../../test/oidc-provider.ts';
import type { OidcSettings } from './claims.ts';
import { createDiscovery, findMisfits } from './oidc-issuer.ts';

const hour = 3_600_000;
let provider: OidcProvider;
const clock = { ms: 0 };
const now = () => clock.ms;
beforeEach(async () => {
  provider = await openOidcProvider('ES256');
  clock.ms = Date.parse('2026-01-02T03:04:05Z');
});
afterEach(async () => {
  vi.restoreAllMocks();
  await provider[Symbol.asyncDispose]();
});

describe('createDiscovery()', () => {
  const asked = () => provider.asked.filter((path) => path.startsWith('/.well-known')).length;

  it('asks once an hour, and once for all who wait', async () => {
    const find = createDiscovery(settingsOf(provider), now, 700);
    const [one, two] = await Promise.all([find(), find()]);
    expect(one).toBe(two);
    expect(one.metadata.token_endpoint).toBe(`${provider.issuer}/token`);
    clock.ms += hour - 1;
    expect(await find()).toBe(one);
    expect(asked()).toBe(1);
    provider.metadata = { token_endpoint: `${provider.issuer}/new` };
    clock.ms += 1;
    expect((await find()).metadata.token_endpoint).toBe(`${provider.issuer}/new`);
    expect(asked()).toBe(2);
    clock.ms += hour - 1;
    await find();
    expect(asked()).toBe(2);
  });

  it('after a failure asks again when the time has come, not before', async () => {
    const find = createDiscovery(settingsOf(provider), now, 700);
    provider.down = true;
    await expect(find()).rejects.toMatchObject({ code: 'UNREACHABLE', report: { why: /503/ } });
    provider.down = false;
    clock.ms += 699;
    await expect(find()).rejects.toMatchObject({ report: { why: expect.stringContaining('a moment ago') } });
    expect(asked()).toBe(1);
    clock.ms += 1;
    expect((await find()).metadata.issuer).toBe(provider.issuer);
    expect(asked()).toBe(2);
  });

  it('uses its cached data while the issuer is down', async () => {
    const find = createDiscovery(settingsOf(provider), now, 700);
    const known = await find();
    provider.down = true;
    clock.ms += hour;
    expect(await find()).toBe(known);
    clock.ms += 699;
    expect(await find()).toBe(known);
    expect(asked()).toBe(2);
    provider.down = false;
    clock.ms += 1;
    expect(await find()).not.toBe(known);
    expect(asked()).toBe(3);
  });

  it('refuses an issuer that names no keys, or another name', async () => {
    provider.metadata = { jwks_uri: null };
    await expect(createDiscovery(settingsOf(provider), now, 0)()).rejects.toMatchObject({
      report: { why: expect.stringContaining('jwks_uri') },
    });
    provider.metadata = { issuer: 'https://other.example' };
    await expect(createDiscovery(settingsOf(provider), now, 0)()).rejects.toMatchObject({
      report: { why: expect.stringContaining('Its issuer name is https://other.example') },
    });
  });

  it('refuses a remote unencrypted issuer without contacting it', async () => {
    const fetched = vi.spyOn(globalThis, 'fetch');
    const settings = settingsOf(provider, { issuer: 'http://192.0.2.1' });
    await expect(createDiscovery(settings, now, 0)()).rejects.toMatchObject({
      report: { why: expect.stringContaining('not encrypted') },
    });
    expect(fetched).not.toHaveBeenCalled();
  });

  it('waits ten seconds for an answer', async () => {
    const patience = new AbortController();
    const timeout = vi.spyOn(AbortSignal, 'timeout').mockReturnValue(patience.signal);
    patience.abort(new DOMException('too long', 'TimeoutError'));
    await expect(createDiscovery(settingsOf(provider), now, 0)()).rejects.toMatchObject({
      code: 'UNREACHABLE',
    });
    expect(timeout.mock.calls.flat()).toContain(10_000);
    expect(asked()).toBe(0);
  });
});

describe('createDiscovery() and answers', () => {
  /** An issuer whose metadata is answered as the test says. */
  async function answering(
    answer: (issuer: string) => { body: string | Buffer; headers?: Record<string, string>; status?: number },
  ) {
    const server = createServer((_, response) => {
      const { body, headers, status = 200 } = answer(issuer);
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      return (await createDiscovery(settingsOf({ ...provider, issuer }), now, 0)()).metadata;
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }
  const text = (issuer: string) => JSON.stringify({ issuer, jwks_uri: `${issuer}/keys` });

  it('takes up to 1 MiB, and no byte more', async () => {
    const padded = (issuer: string, size: number) => ({ body: text(issuer).padEnd(size) });
    await expect(answering((issuer) => padded(issuer, 1_048_576))).resolves.toMatchObject({
      issuer: expect.any(String),
    });
    await expect(answering((issuer) => padded(issuer, 1_048_577))).rejects.toMatchObject({
      report: { why: expect.stringContaining('more than 1048576 bytes') },
    });
  });

  it('unpacks, and counts what is unpacked', async () => {
    const packed = (content: string) => ({
      body: gzipSync(content),
      headers: { 'content-encoding': 'gzip' },
    });
    await expect(answering((issuer) => packed(text(issuer)))).resolves.toMatchObject({
      jwks_uri: expect.stringMatching(/keys$/),
    });
    await expect(answering((issuer) => packed(text(issuer).padEnd(1_048_577)))).rejects.toThrow();
  });

  it('follows no redirect, and takes no empty answer', async () => {
    const headers = { location: `${provider.issuer}/.well-known/openid-configuration` };
    await expect(answering(() => ({ status: 302, headers, body: '' }))).rejects.toMatchObject({
      report: { why: expect.stringContaining('302') },
    });
    await expect(answering(() => ({ body: '' }))).rejects.toMatchObject({ code: 'UNREACHABLE' });
    expect(provider.asked).toEqual([]);
  });
});

describe('findMisfits()', () => {
  const metadata = (change: object = {}) => ({ issuer: 'https://login.example', ...change }) as never;
  const settings = (change: Partial<OidcSettings> = {}): OidcSettings => ({
    issuer: 'https://login.example:8443/a',
    clientId: 'c',
    clientSecret: 's',
    scopes: [],
    allow: [],
    admin: [],
    ...change,
  });
  const methods = (...names: string[]) => metadata({ token_endpoint_auth_methods_supported: names });

  it.each([
    ['by default', settings(), metadata()],
    ['basic', settings(), methods('private_key_jwt', 'client_secret_basic')],
    ['post', settings(), methods('client_secret_post')],
    ['a public client', settings({ clientSecret: undefined }), methods('client_secret_basic', 'none')],
    [
      'one usable algorithm',
      settings(),
      metadata({ id_token_signing_alg_values_supported: ['HS256', 'RS256'] }),
    ],
    ['no list of algorithms', settings(), metadata({ id_token_signing_alg_values_supported: 'RS256' })],
  ])('finds nothing: %s', (_, given, found) => {
    expect(findMisfits(given, found)).toEqual([]);
  });

  it.each([
    [
      'a missing secret',
      settings({ clientSecret: undefined }),
      metadata(),
      /No client secret .* login\.example:8443 .*: client_secret_basic\)/,
    ],
    ['a secret in no form', settings(), methods('private_key_jwt', 'none'), /offers private_key_jwt, none;/],
    [
      'other algorithms',
      settings(),
      metadata({ id_token_signing_alg_values_supported: ['HS256', 'RS512'] }),
      /with HS256, RS512; supported are RS256, PS256, ES256, EdDSA, Ed25519\./,
    ],
  ])('names %s', (_, given, found, words) => {
    expect(findMisfits(given, found)).toEqual([expect.stringMatching(words)]);
  });

  it('names several at once', () => {
    const found = metadata({
      token_endpoint_auth_methods_supported: ['private_key_jwt'],
      id_token_signing_alg_values_supported: [],
    });
    expect(findMisfits(settings(), found)).toHaveLength(2);
  });
});
