import { createHmac, createSign } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { meSchema } from '@tomaat/client';
import {
  exportJWK,
  exportPKCS8,
  exportSPKI,
  generateKeyPair,
  importJWK,
  type JWTPayload,
  SignJWT,
} from 'jose';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { fulfils, isIssuerAddress, mergeClaims, parseClaimRule } from '../src/access/claims.ts';
import { createOidc } from '../src/access/oidc.ts';
import { type BrowserLike, createBrowserLike } from './browser-like.ts';
import { type LoginApp, openLoginApp, settingsOf } from './login-app.ts';
import { keyId, type OidcProvider, openOidcProvider } from './oidc-provider.ts';

const audience = 'tomaat-api';

describe('the login by an issuer', () => {
  let provider: OidcProvider;
  let site: LoginApp;
  beforeAll(async () => {
    provider = await openOidcProvider();
    site = await openLoginApp({ oidc: settingsOf(provider, { audience }) });
  });
  afterAll(async () => {
    await site[Symbol.asyncDispose]();
    await provider[Symbol.asyncDispose]();
  });
  const ada = { sub: 'u-17', name: 'Ada Example', groups: ['radiology'] };
  beforeEach(() => {
    provider.claims = ada;
    provider.changeClaims = (claims) => claims;
    provider.changeToken = (token) => token;
    provider.refusal = undefined;
    provider.down = false;
    site.clock.ms = 0;
  });

  const start = (path = '/jobs/ab?x=1%20y', at = site) =>
    `${at.url}/auth/oidc/login?return=${encodeURIComponent(path)}`;
  const meOf = async (browser: BrowserLike, at = site) =>
    meSchema.parse(await (await browser.fetch(`${at.url}/auth/me`, at.url)).json());
  /** Goes to the issuer and stops before the way back: the address of the callback. */
  async function goToIssuer(browser: BrowserLike, at = site): Promise<string> {
    const toIssuer = await browser.step(start(undefined, at), at.url);
    expect(toIssuer.status).toBe(303);
    const back = await browser.step(toIssuer.headers.get('location')!, at.url);
    return back.headers.get('location')!;
  }
  const problemAt = async (browser: BrowserLike, address: string) => {
    const response = await browser.step(address, provider.issuer);
    expect(response.status).toBe(303);
    const location = new URL(response.headers.get('location')!, site.url);
    expect(location.origin).toBe(new URL(site.url).origin);
    expect((await meOf(browser)).who).toBeUndefined();
    return location.searchParams.get('login-fault');
  };

  it('goes to the issuer and returns logged in, with a clean address', async () => {
    const browser = createBrowserLike();
    const end = await browser.open(start(), site.url);
    expect(end.address).toBe(`${site.url}/jobs/ab?x=1%20y`);
    expect(await end.text()).toBe('a job');
    expect(await meOf(browser)).toMatchObject({
      login: 'required',
      who: {
        kind: 'oidc',
        owner: `oidc:${provider.issuer}|u-17`,
        label: 'Ada Example',
        scopes: ['predict'],
      },
      ways: { key: true, oidc: { host: new URL(provider.issuer).host, address: '/auth/oidc/login' } },
    });
    const who = await browser.fetch(`${site.url}/who`, site.url);
    expect(await who.json()).toMatchObject({ owner: `oidc:${provider.issuer}|u-17`, via: 'session' });
    expect([...browser.cookies.keys()]).toEqual([`localhost tomaat-${site.port}`]);
    const [cookie] = browser.cookies.values();
    expect(cookie.attributes).toBe('Path=/; HttpOnly; SameSite=Strict');
  });

  it('sends PKCE, state and nonce, and binds the login to a Lax cookie', async () => {
    const browser = createBrowserLike();
    const first = await browser.step(start(), site.url);
    const query = new URL(first.headers.get('location')!).searchParams;
    expect(Object.fromEntries(query)).toMatchObject({
      response_type: 'code',
      client_id: 'tomaat-test',
      redirect_uri: `${site.url}/auth/oidc/callback`,
      scope: 'openid profile email',
      code_challenge_method: 'S256',
    });
    for (const name of ['state', 'nonce', 'code_challenge']) expect(query.get(name)).toMatch(/^[\w-]{43}$/);
    const [cookie] = browser.cookies.values();
    expect(cookie.attributes).toBe('Path=/; HttpOnly; SameSite=Lax; Max-Age=600');
    const second = await browser.step(start(), site.url);
    const other = new URL(second.headers.get('location')!).searchParams;
    for (const name of ['state', 'nonce', 'code_challenge'])
      expect(other.get(name)).not.toBe(query.get(name));
  });

  it('refuses a way back that was used before', async () => {
    const browser = createBrowserLike();
    const callback = await goToIssuer(browser);
    const cookies = new Map(browser.cookies);
    expect((await browser.open(callback, provider.issuer)).status).toBe(200);
    const again = createBrowserLike();
    for (const [name, cookie] of cookies) again.cookies.set(name, cookie);
    expect(await problemAt(again, callback)).toBe('expired');
  });

  it('refuses a return from another browser, and a foreign, missing or duplicate state', async () => {
    const victim = createBrowserLike();
    const attacker = createBrowserLike();
    expect(await problemAt(victim, await goToIssuer(attacker))).toBe('expired');

    const change = async (edit: (query: URLSearchParams) => void) => {
      const browser = createBrowserLike();
      const callback = new URL(await goToIssuer(browser));
      edit(callback.searchParams);
      return problemAt(browser, callback.href);
    };
    const foreign = new URL(await goToIssuer(attacker)).searchParams;
    expect(await change((query) => query.set('state', foreign.get('state')!))).toBe('expired');
    expect(await change((query) => query.delete('state'))).toBe('expired');
    expect(await change((query) => query.append('state', 'x'))).toBe('expired');
    expect(await change((query) => query.set('state', ''))).toBe('expired');
    // A code that the issuer gave for another login does not fit this one's PKCE verifier.
    expect(await change((query) => query.set('code', foreign.get('code')!))).toBe('failed');
    expect(await change((query) => query.set('code', 'made-up'))).toBe('failed');
    expect(await change((query) => query.delete('code'))).toBe('failed');
    // RFC 9207: an answer that says it is another issuer's.
    expect(await change((query) => query.set('iss', 'https://evil.example'))).toBe('failed');
    expect(provider.asked).toContain('/token');
  });

  it('refuses a login that took more than ten minutes', async () => {
    const browser = createBrowserLike();
    const callback = await goToIssuer(browser);
    // Ten minutes, as the message and SECURITY.md say.
    site.clock.ms = 600_000;
    expect(await problemAt(browser, callback)).toBe('expired');
  });

  it('says that the issuer refused, and never shows what it wrote', async () => {
    provider.refusal = 'access_denied';
    const browser = createBrowserLike();
    const callback = await goToIssuer(browser);
    const response = await browser.step(`${callback}&error_description=%3Cscript%3E`, provider.issuer);
    expect(response.headers.get('location')).toBe('/jobs/ab?x=1+y&login-fault=refused');
    // A program gets the Problem.
    const other = createBrowserLike();
    const address = await goToIssuer(other);
    const cookie = [...other.cookies].map(([name, { value }]) => `${name.split(' ')[1]}=${value}`)[0];
    const problem = await fetch(`${address}&error_description=%3Cscript%3E`, { headers: { cookie } });
    expect(problem.status).toBe(401);
    expect(await problem.text()).not.toContain('script');
  });

  it('reports that the issuer does not answer, and recovers afterwards', async () => {
    await using other = await openLoginApp({ oidc: settingsOf(provider) });
    provider.down = true;
    const browser = createBrowserLike();
    const response = await browser.step(start('/jobs/a', other), other.url);
    expect(response.headers.get('location')).toBe('/jobs/a?login-fault=unreachable');
    const problem = await fetch(start('/jobs/a', other), { redirect: 'manual' });
    expect(problem.status).toBe(503);
    provider.down = false;
    await browser.open(start('/jobs/a', other), other.url);
    expect((await meOf(browser, other)).who?.label).toBe('Ada Example');
  });

  it('serves whom the rules allow, and makes administrators of whom they say', async () => {
    const rules = {
      allow: [{ claim: 'groups', value: 'radiology' }],
      admin: [{ claim: 'sub', value: 'boss' }],
    };
    await using strict = await openLoginApp({ oidc: settingsOf(provider, rules) });
    const logIn = async (claims: JWTPayload) => {
      provider.claims = claims;
      const browser = createBrowserLike();
      const end = await browser.open(start('/', strict), strict.url);
      return (
        (await meOf(browser, strict)).who?.scopes ?? new URL(end.address).searchParams.get('login-fault')
      );
    };
    expect(await logIn(ada)).toEqual(['predict']);
    expect(await logIn({ sub: 'boss' })).toEqual(['predict', 'admin']);
    expect(await logIn({ sub: 'x', groups: ['radiologyX', 'cardiology'] })).toBe('not-allowed');
    expect(await logIn({ sub: 'x' })).toBe('not-allowed');
  });

  it('refuses the issuer’s redirects, endless answers and unencrypted remote addresses', async () => {
    let answer: 'redirect' | 'endless' | 'elsewhere' = 'redirect';
    const server = createServer((_request, response) => {
      if (answer === 'redirect') {
        response.writeHead(302, { location: `${provider.issuer}/.well-known/openid-configuration` });
        response.end();
      } else if (answer === 'elsewhere') {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.end(
          JSON.stringify({
            issuer,
            jwks_uri: `${issuer}/keys`,
            token_endpoint: 'http://192.0.2.1/token',
            authorization_endpoint: `${issuer}/a`,
          }),
        );
      } else {
        response.writeHead(200, { 'content-type': 'application/json' });
        const send = () => {
          while (!response.destroyed && response.write('x'.repeat(65_536)));
          if (!response.destroyed) response.once('drain', send);
        };
        send();
      }
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      for (answer of ['redirect', 'endless'] as const) {
        const oidc = createOidc({ settings: settingsOf(provider, { issuer }) });
        await expect(oidc.begin({ redirectUri: 'http://localhost/cb', returnTo: '/' })).rejects.toMatchObject(
          {
            code: 'UNREACHABLE',
          },
        );
      }
      answer = 'elsewhere';
      const oidc = createOidc({ settings: settingsOf(provider, { issuer }) });
      const { url, token } = await oidc.begin({ redirectUri: 'http://localhost/cb', returnTo: '/' });
      const state = new URL(url).searchParams.get('state');
      await expect(oidc.finish(`code=a&state=${state}`, token)).rejects.toMatchObject({
        code: 'UNAUTHORIZED',
        detail: { reason: 'failed' },
      });
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  // ---- Tokens that are not good ----

  const seconds = () => Math.floor(Date.now() / 1000);
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

  /** Each makes of good claims a token that must not be taken; `for` which of the two uses it is bad. */
  type Bad = (claims: JWTPayload) => Promise<string> | string;
  const sign =
    (header: Record<string, unknown> = {}): Bad =>
    (claims) =>
      provider.sign(claims, header);
  const signed =
    (change: JWTPayload): Bad =>
    (claims) =>
      provider.sign({ ...claims, ...change });
  const without =
    (name: string): Bad =>
    (claims) => {
      const { [name]: _gone, ...rest } = claims;
      return provider.sign(rest);
    };
  const edited =
    (edit: (parts: string[]) => string[]): Bad =>
    async (claims) =>
      edit((await provider.sign(claims)).split('.')).join('.');
  const hmac =
    (secretOf: () => Promise<string | Buffer> | string | Buffer, header: object = {}): Bad =>
    async (claims) => {
      const input = `${part({ alg: 'HS256', kid: keyId, ...header })}.${part(claims)}`;
      return `${input}.${createHmac('sha256', await secretOf())
        .update(input)
        .digest('base64url')}`;
    };
  const byOther =
    (header: (jwk: Record<string, unknown>) => Record<string, unknown>, alg = 'RS256'): Bad =>
    async (claims) => {
      const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
      const jwk = (await exportJWK(publicKey)) as Record<string, unknown>;
      return new SignJWT(claims).setProtectedHeader({ alg, kid: keyId, ...header(jwk) }).sign(privateKey);
    };
  const publicKey = async () =>
    (await importJWK(provider.publicJwk, 'RS256', { extractable: true })) as CryptoKey;
  const bad: Record<string, Bad> = {
    'alg none, no signature': (claims) => `${part({ alg: 'none' })}.${part(claims)}.`,
    'alg None': (claims) => `${part({ alg: 'None', kid: keyId })}.${part(claims)}.`,
    'alg none with a signature': (claims) => `${part({ alg: 'none' })}.${part(claims)}.AAAA`,
    'alg missing': (claims) => `${part({ kid: keyId })}.${part(claims)}.AAAA`,
    'alg empty': (claims) => `${part({ alg: '', kid: keyId })}.${part(claims)}.AAAA`,
    'alg a list': (claims) => `${part({ alg: ['RS256'], kid: keyId })}.${part(claims)}.AAAA`,
    'good signature, header changed to none': edited(([, claims, signature]) => [
      part({ alg: 'none' }),
      claims,
      signature,
    ]),
    'HS256 with the public key as PEM': hmac(async () => exportSPKI(await publicKey())),
    'HS256 with the public key as JWK': hmac(() => JSON.stringify(provider.publicJwk)),
    'HS256 with the modulus': hmac(() => Buffer.from(provider.publicJwk.n!, 'base64url')),
    'HS256 with the client secret': hmac(() => provider.clientSecret),
    'HS256 with an empty secret': hmac(() => ''),
    'HS256 without a key id': hmac(() => provider.clientSecret, { kid: undefined }),
    'wrong algorithm for the key: PS256': edited(([, claims, signature]) => [
      part({ alg: 'PS256', kid: keyId }),
      claims,
      signature,
    ]),
    'wrong algorithm for the key: ES256': edited(([, claims, signature]) => [
      part({ alg: 'ES256', kid: keyId }),
      claims,
      signature,
    ]),
    'an algorithm that is not allowed: RS512': async (claims) => {
      const pem = await exportPKCS8(provider.privateKey);
      const input = `${part({ alg: 'RS512', kid: keyId })}.${part(claims)}`;
      return `${input}.${createSign('sha512').update(input).sign(pem, 'base64url')}`;
    },
    'signed by another key': byOther(() => ({})),
    'signed by another key without a key id': byOther(() => ({ kid: undefined })),
    'another key in the header (jwk)': byOther((jwk) => ({ jwk })),
    'another key in the header, no kid': byOther((jwk) => ({ jwk, kid: undefined })),
    'another key by address (jku)': byOther(() => ({ jku: `${trap.url}/keys` })),
    'another key by certificate address (x5u)': byOther(() => ({ x5u: `${trap.url}/cert` })),
    'another key by certificate (x5c)': byOther(() => ({ x5c: ['MIIB'] })),
    'another key of another kind (ES256)': byOther(() => ({}), 'ES256'),
    'another key of another kind (EdDSA)': byOther(() => ({}), 'EdDSA'),
    'unknown kid': byOther(() => ({ kid: 'key-2' })),
    'kid as a path': byOther(() => ({ kid: '../../../../dev/null' })),
    'kid as SQL': byOther(() => ({ kid: "x' UNION SELECT 'a" })),
    'kid as an address': byOther(() => ({ kid: `${trap.url}/keys` })),
    'kid a number': byOther(() => ({ kid: 1 })),
    // jose itself would not sign it.
    'crit that nobody knows': async (claims) => {
      const input = `${part({ alg: 'RS256', kid: keyId, crit: ['exp2'], exp2: 1 })}.${part(claims)}`;
      const pem = await exportPKCS8(provider.privateKey);
      return `${input}.${createSign('sha256').update(input).sign(pem, 'base64url')}`;
    },
    'unencoded payload (b64: false)': (claims) =>
      `${part({ alg: 'RS256', kid: keyId, b64: false, crit: ['b64'] })}.${part(claims)}.AAAA`,
    'typ of a logout token': sign({ typ: 'logout+jwt' }),
    'typ of an announcement': sign({ typ: 'tomaat-announcement+jws' }),
    'typ of a DPoP proof': sign({ typ: 'dpop+jwt' }),
    'wrong audience': signed({ aud: 'another-client' }),
    'audience that begins like ours': signed({ aud: 'tomaat' }),
    'audience in other letters': signed({ aud: 'TOMAAT-TEST' }),
    'no audience': without('aud'),
    'audience an empty list': signed({ aud: [] }),
    'wrong issuer': signed({ iss: 'https://evil.example' }),
    'issuer with a slash more': (claims) => provider.sign({ ...claims, iss: `${claims.iss}/` }),
    'issuer with more behind it': (claims) => provider.sign({ ...claims, iss: `${claims.iss}.evil.example` }),
    'no issuer': without('iss'),
    expired: (claims) => provider.sign({ ...claims, exp: seconds() - 120 }),
    'no time of expiry': without('exp'),
    'expiry as text': (claims) =>
      provider.sign({ ...claims, exp: String(seconds() + 300) as unknown as number }),
    'not valid yet': (claims) => provider.sign({ ...claims, nbf: seconds() + 300 }),
    'nbf as text': (claims) => provider.sign({ ...claims, nbf: 'now' as unknown as number }),
    'no subject': without('sub'),
    'empty subject': signed({ sub: '' }),
    'subject with control characters': signed({ sub: 'u\n17' }),
    'subject too long': signed({ sub: 'u'.repeat(256) }),
    'subject a number': signed({ sub: 17 as unknown as string }),
    'claims changed': edited(([header, claims, signature]) => [
      header,
      part({ ...JSON.parse(Buffer.from(claims, 'base64url').toString()), sub: 'boss' }),
      signature,
    ]),
    'signature truncated': edited(([header, claims, signature]) => [header, claims, signature.slice(0, -8)]),
    'signature empty': edited(([header, claims]) => [header, claims, '']),
    'one bit of the signature': edited(([header, claims, signature]) => {
      const bytes = Buffer.from(signature, 'base64url');
      bytes[40] ^= 1;
      return [header, claims, bytes.toString('base64url')];
    }),
    'two parts': edited(([header, claims]) => [header, claims]),
    'four parts': edited((parts) => [...parts, 'AAAA']),
    'five parts (encrypted)': edited((parts) => [...parts, 'AAAA', 'AAAA']),
    'claims no object': (_claims) => edited(([header, , signature]) => [header, part([1]), signature])({}),
    'a megabyte': signed({ padding: 'x'.repeat(750_000) }),
    'just too long': signed({ padding: 'x'.repeat(9_500) }),
    'not a token': () => 'token',
    empty: () => '',
  };
  // What is wrong of an ID token alone.
  const badIdTokens: Record<string, Bad> = {
    'another nonce': signed({ nonce: 'another' }),
    'no nonce': without('nonce'),
    'for others too, without azp': (claims) =>
      provider.sign({ ...claims, aud: [String(claims.aud), 'other'] }),
    'for others too, azp another': (claims) =>
      provider.sign({ ...claims, aud: [String(claims.aud), 'other'], azp: 'other' }),
    'azp another': signed({ azp: 'other' }),
    'typ of an access token': sign({ typ: 'at+jwt' }),
    'of the audience of programs': signed({ aud: audience }),
  };

  const trap = { url: '', asked: 0 };
  beforeAll(async () => {
    const server = createServer((_request, response) => {
      trap.asked++;
      response.end('{}');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    trap.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return () => server.close();
  });

  it(`rejects each of ${Object.keys({ ...bad, ...badIdTokens }).length} bad ID tokens`, async () => {
    for (const [name, make] of Object.entries({ ...bad, ...badIdTokens })) {
      provider.changeToken = (_good, claims) => make(claims);
      const browser = createBrowserLike();
      const reason = ['expired', 'not valid yet'].includes(name) ? 'clock' : 'failed';
      expect(await problemAt(browser, await goToIssuer(browser)), name).toBe(reason);
    }
    provider.changeToken = (token) => token;
    const browser = createBrowserLike();
    await browser.open(await goToIssuer(browser), provider.issuer);
    expect((await meOf(browser)).who?.label).toBe('Ada Example');
    expect(trap.asked).toBe(0);
    expect(provider.faults).toEqual([]);
  }, 120_000);

  const bearer = (token: string, at = site) =>
    at.app.inject({ method: 'GET', url: '/who', headers: { authorization: `Bearer ${token}` } });
  const good = (): JWTPayload => ({
    iss: provider.issuer,
    aud: audience,
    exp: seconds() + 300,
    iat: seconds(),
    sub: 'robot',
  });

  it('accepts a program only by an issuer’s token for the audience', async () => {
    const token = await provider.sign(good(), { typ: 'at+jwt' });
    const answer = await bearer(token);
    expect(answer.json()).toEqual({
      owner: `oidc:${provider.issuer}|robot`,
      scopes: ['predict'],
      via: 'session',
    });
    expect((await bearer(await provider.sign({ ...good(), aud: ['other', audience] }))).statusCode).toBe(200);
    // An ID token for the page is no key for programs.
    expect((await bearer(await provider.sign({ ...good(), aud: provider.clientId }))).statusCode).toBe(401);
    await using without = await openLoginApp({ oidc: settingsOf(provider) });
    expect((await bearer(token, without)).statusCode).toBe(401);
    await using strict = await openLoginApp({
      oidc: settingsOf(provider, { audience, allow: [{ claim: 'groups', value: 'radiology' }] }),
    });
    expect((await bearer(token, strict)).statusCode).toBe(401);
    site.clock.ms = 400_000;
    expect((await bearer(token)).statusCode).toBe(401);
  });

  it(`refuses ${Object.keys(bad).length} bad tokens of programs, and asks no address that they name`, async () => {
    for (const [name, make] of Object.entries(bad)) {
      const token = await make(good());
      const answer = await bearer(token);
      expect(answer.statusCode, name).toBe(401);
    }
    expect((await bearer(await provider.sign(good()))).statusCode).toBe(200);
    expect(trap.asked).toBe(0);
  }, 60_000);

  for (const alg of ['ES256', 'PS256', 'EdDSA']) {
    it(`takes an issuer that signs with ${alg}`, async () => {
      await using other = await openOidcProvider(alg);
      await using app = await openLoginApp({ oidc: settingsOf(other) });
      const browser = createBrowserLike();
      await browser.open(start('/', app), app.url);
      expect((await meOf(browser, app)).who?.label).toBe('Ada Example');
    });
  }
});

describe('fulfils()', () => {
  const yes = (claims: JWTPayload, rule: string) => fulfils(claims, parseClaimRule(rule)!);

  it('compares whole values, of lists and of claims in claims', () => {
    expect(yes({ groups: ['a', 'radiology'] }, 'groups=radiology')).toBe(true);
    expect(yes({ groups: 'radiology' }, 'groups=radiology')).toBe(true);
    expect(yes({ realm_access: { roles: ['radiology'] } }, 'realm_access.roles=radiology')).toBe(true);
    expect(yes({ 'https://x.example/roles': ['a=b'] }, 'https://x.example/roles=a=b')).toBe(true);
    expect(yes({ staff: true }, 'staff=true')).toBe(true);
    for (const groups of [
      'radiology2',
      'Radiology',
      ['x radiology'],
      { radiology: true },
      [['radiology']],
      null,
      undefined,
    ])
      expect(yes({ groups }, 'groups=radiology'), JSON.stringify(groups)).toBe(false);
    for (const rule of ['constructor=x', '__proto__.x=y', 'toString.name=toString'])
      expect(yes({}, rule)).toBe(false);
  });

  it('accepts only verified e-mail addresses, and whole domains', () => {
    const verified = (email: unknown) => ({ email, email_verified: true });
    expect(yes(verified('Ada@Hospital.example'), 'email=@hospital.example')).toBe(true);
    expect(yes(verified('ada@hospital.example'), 'email=ada@hospital.example')).toBe(true);
    expect(yes({ email: 'ada@hospital.example' }, 'email=@hospital.example')).toBe(false);
    expect(yes({ email: 'ada@hospital.example', email_verified: 'true' }, 'email=@hospital.example')).toBe(
      false,
    );
    for (const email of [
      'ada@evilhospital.example',
      'ada@hospital.example.evil',
      'a@hospital.example@evil',
      'a@evil@hospital.example',
      '@hospital.example',
    ])
      expect(yes(verified(email), 'email=@hospital.example'), email).toBe(false);
  });
});

describe('mergeClaims()', () => {
  it('adds what the token lacks, and changes nothing that it has', () => {
    expect(
      mergeClaims({ sub: 'u', name: 'Ada' }, { sub: 'u', name: 'Eve', groups: ['radiology'] }),
    ).toMatchObject({ sub: 'u', name: 'Ada', groups: ['radiology'] });
  });

  it('never calls an address verified that the other source verified', () => {
    const boss = 'boss@hospital.example';
    const ada = 'ada@hospital.example';
    const isBoss = (token: JWTPayload, userinfo: JWTPayload) =>
      fulfils(mergeClaims(token, userinfo), { claim: 'email', value: boss });
    expect(isBoss({ email: boss }, { email: ada, email_verified: true })).toBe(false);
    expect(isBoss({ email: boss }, { email_verified: true })).toBe(false);
    expect(isBoss({ email_verified: true }, { email: boss })).toBe(false);
    expect(isBoss({ email: boss, email_verified: false }, { email: boss, email_verified: true })).toBe(false);
    expect(isBoss({}, { email: boss, email_verified: true })).toBe(true);
    expect(isBoss({ email: boss }, { email: boss, email_verified: true })).toBe(true);
  });
});

describe('isIssuerAddress()', () => {
  it('takes https, and http on this machine alone', () => {
    for (const address of [
      'https://login.example',
      'https://login.example/realms/x',
      'http://127.0.0.1:8080',
      'http://localhost/x',
      'http://[::1]:1',
    ])
      expect(isIssuerAddress(address), address).toBe(true);
    for (const address of [
      'http://login.example',
      'http://127.0.0.1.evil.example',
      'http://localhost.evil.example',
      'ftp://login.example',
      'login.example',
      'https://login.example?x',
      'https://login.example/#x',
      'https://a:b@login.example',
      'https://login.example/a|b',
      '',
    ])
      expect(isIssuerAddress(address), address).toBe(false);
  });
});
