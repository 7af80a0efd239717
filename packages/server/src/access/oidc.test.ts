import type { JWTPayload } from 'jose';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { settingsOf } from '../../test/login-app.ts';
import { type OidcProvider, openOidcProvider } from '../../test/oidc-provider.ts';
import type { OidcSettings } from './claims.ts';
import { createOidc, loginMs, type Oidc } from './oidc.ts';

const redirectUri = 'http://localhost:9000/auth/oidc/callback';
const returnTo = '/jobs/ab?x=1';
const audience = 'https://tomaat.example/api';
const ada = { sub: 'u-17', name: 'Ada Example', groups: ['radiology'] };

let provider: OidcProvider;
const clock = { ms: 0 };
const now = () => Date.now() + clock.ms;
beforeAll(async () => {
  provider = await openOidcProvider('ES256');
});
afterAll(() => provider[Symbol.asyncDispose]());
beforeEach(() => {
  clock.ms = 0;
  provider.claims = ada;
  provider.changeClaims = (claims) => claims;
  provider.changeToken = (token) => token;
  provider.refusal = undefined;
  provider.down = false;
  provider.metadata = {};
  provider.userinfo = undefined;
  provider.authentications.length = 0;
  provider.asked.length = 0;
});
afterEach(() => expect(provider.faults).toEqual([]));

const open = (change: Partial<OidcSettings> = {}) =>
  createOidc({ settings: settingsOf(provider, change), now, retryMs: 0 });

/** Begins a login and goes to the issuer: the query that it sends the browser back with, and the token. */
async function comeBack(oidc: Oidc): Promise<{ query: string; token: string }> {
  const { url, token } = await oidc.begin({ redirectUri, returnTo });
  const answer = await fetch(url, { redirect: 'manual' });
  return { query: new URL(answer.headers.get('location')!).search.slice(1), token };
}
async function logIn(change: Partial<OidcSettings> = {}) {
  const oidc = open(change);
  const { query, token } = await comeBack(oidc);
  return oidc.finish(query, token);
}
/** Refused, with this reason. */
const fault = (reason: string, code = 'UNAUTHORIZED') => ({ code, detail: { reason } });

describe('begin()', () => {
  it('sends the browser to the issuer with fresh PKCE, state and nonce', async () => {
    const oidc = open();
    expect(oidc.host).toBe(new URL(provider.issuer).host);
    const first = await oidc.begin({ redirectUri, returnTo });
    const second = await oidc.begin({ redirectUri, returnTo, again: true });
    expect(first.token).toMatch(/^[\w-]{43}$/);
    expect(second.token).not.toBe(first.token);
    const { origin, pathname, searchParams } = new URL(first.url);
    expect(origin + pathname).toBe(`${provider.issuer}/authorize`);
    const secret = expect.stringMatching(/^[\w-]{43}$/);
    expect(Object.fromEntries(searchParams)).toEqual({
      client_id: 'tomaat-test',
      redirect_uri: redirectUri,
      response_type: 'code',
      scope: 'openid profile email',
      state: secret,
      nonce: secret,
      code_challenge: secret,
      code_challenge_method: 'S256',
    });
    const again = new URL(second.url).searchParams;
    expect(again.get('prompt')).toBe('login');
    for (const name of ['state', 'nonce', 'code_challenge'])
      expect(again.get(name)).not.toBe(searchParams.get(name));
  });

  it('forgets logins that are over once another begins', async () => {
    const oidc = open();
    const { token } = await oidc.begin({ redirectUri, returnTo });
    expect(await oidc.returnOf(token)).toBe(returnTo);
    expect(await oidc.returnOf(`${token}x`)).toBeUndefined();
    // By a clock that stands still.
    const start = Date.now();
    const still = { ms: start };
    const held = createOidc({ settings: settingsOf(provider), now: () => still.ms });
    const first = await held.begin({ redirectUri, returnTo: '/first' });
    still.ms = start + loginMs - 1;
    const second = await held.begin({ redirectUri, returnTo: '/second' });
    expect(await held.returnOf(first.token)).toBe('/first');
    still.ms = start + loginMs;
    await held.begin({ redirectUri, returnTo: '/third' });
    expect(await held.returnOf(first.token)).toBeUndefined();
    expect(await held.returnOf(second.token)).toBe('/second');
    expect(loginMs).toBe(600_000);
  });

  it('asks an issuer that was down again after five seconds', async () => {
    const still = { ms: Date.now() };
    const oidc = createOidc({ settings: settingsOf(provider), now: () => still.ms });
    provider.down = true;
    await expect(oidc.begin({ redirectUri, returnTo })).rejects.toMatchObject({ code: 'UNREACHABLE' });
    provider.down = false;
    still.ms += 4_999;
    await expect(oidc.begin({ redirectUri, returnTo })).rejects.toMatchObject({ code: 'UNREACHABLE' });
    still.ms += 1;
    await expect(oidc.begin({ redirectUri, returnTo })).resolves.toBeDefined();
  });
});

describe('finish()', () => {
  it('reports who logged in, and keeps the ID token', async () => {
    const login = await logIn();
    expect(login).toEqual({
      owner: `oidc:${provider.issuer}|u-17`,
      label: 'Ada Example',
      scopes: ['predict'],
      idToken: expect.stringMatching(/^[\w-]+\.[\w-]+\.[\w-]+$/),
      warning: undefined,
    });
    const claims = JSON.parse(Buffer.from(login.idToken.split('.')[1], 'base64url').toString());
    expect(claims).toMatchObject({ sub: 'u-17', aud: 'tomaat-test' });
    expect(provider.authentications).toEqual(['basic']);
  });

  it('sends its secret by the issuer’s method, if it has one', async () => {
    provider.metadata = {
      token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
    };
    await logIn();
    provider.metadata = { token_endpoint_auth_methods_supported: ['client_secret_basic'] };
    await logIn();
    await expect(logIn({ clientSecret: undefined })).rejects.toMatchObject(fault('settings'));
    expect(provider.authentications).toEqual(['post', 'basic', 'none']);
  });

  it('accepts a return once, from the same browser, with its state', async () => {
    const oidc = open();
    const one = await comeBack(oidc);
    const two = await comeBack(oidc);
    const state = new URLSearchParams(one.query).get('state')!;
    const attempts: [string, string | undefined][] = [
      [one.query, undefined],
      [one.query, ''],
      [one.query, 'A'.repeat(43)],
    ];
    for (const [query, token] of attempts)
      await expect(oidc.finish(query, token)).rejects.toMatchObject(fault('expired'));
    await oidc.finish(one.query, one.token);
    await expect(oidc.finish(one.query, one.token)).rejects.toMatchObject(fault('expired'));
    // Each wrong state ends the login.
    await expect(oidc.finish(one.query, two.token)).rejects.toMatchObject(fault('expired'));
    await expect(oidc.finish(two.query, two.token)).rejects.toMatchObject(fault('expired'));
    for (const change of [
      (query: string) => `${query}&state=${state}`,
      (query: string) => query.replace('state=', 'x='),
    ]) {
      const { query, token } = await comeBack(oidc);
      await expect(oidc.finish(change(query), token)).rejects.toMatchObject({
        ...fault('expired'),
        report: { why: expect.stringContaining('ten minutes') },
      });
    }
  });

  it('takes a login until ten minutes are over, to the millisecond', async () => {
    const start = Date.now();
    const still = { ms: start };
    const oidc = createOidc({ settings: settingsOf(provider), now: () => still.ms });
    provider.changeClaims = (claims) => ({ ...claims, exp: claims.exp! + 3600 });
    const [one, two] = [await comeBack(oidc), await comeBack(oidc)];
    still.ms = start + loginMs - 1;
    await expect(oidc.finish(one.query, one.token)).resolves.toBeDefined();
    still.ms = start + loginMs;
    await expect(oidc.finish(two.query, two.token)).rejects.toMatchObject(fault('expired'));
  });

  it('goes by the clock that it is given, an hour from this one', async () => {
    clock.ms = 3_600_000;
    await expect(logIn()).rejects.toMatchObject(fault('clock'));
    provider.changeClaims = (claims) => ({ ...claims, iat: claims.iat! + 3600, exp: claims.exp! + 3600 });
    await expect(logIn()).resolves.toBeDefined();
    clock.ms = 0;
    provider.changeClaims = (claims) => ({ ...claims, nbf: claims.iat! + 120 });
    await expect(logIn()).rejects.toMatchObject(fault('clock'));
  });

  it.each([
    [{ aud: ['tomaat-test'] }, true],
    [{ aud: ['tomaat-test', 'other'], azp: 'tomaat-test' }, true],
    [{ azp: 'tomaat-test' }, true],
    [{ aud: ['tomaat-test', 'other'] }, false],
    [{ aud: ['tomaat-test', 'other'], azp: 'other' }, false],
    [{ azp: 'other' }, false],
    [{ aud: 'other' }, false],
    [{ iss: 'https://other.example' }, false],
    [{ nonce: 'another' }, false],
    [{ nonce: undefined }, false],
    [{ exp: undefined }, false],
    [{ sub: undefined }, false],
  ])('takes an ID token with %j: %s', async (change, expected) => {
    provider.changeClaims = (claims) => ({ ...claims, ...change });
    const login = logIn();
    if (expected) await expect(login).resolves.toMatchObject({ label: 'Ada Example' });
    else await expect(login).rejects.toMatchObject(fault('failed'));
  });

  it.each([
    ['a', true],
    ['~'.repeat(255), true],
    [' ', true],
    ['~'.repeat(256), false],
    ['', false],
    ['a\u007f', false],
    ['a\n', false],
    ['größe', false],
  ])('takes the subject %j: %s', async (sub, expected) => {
    provider.claims = { sub };
    const login = logIn();
    if (expected) await expect(login).resolves.toMatchObject({ owner: `oidc:${provider.issuer}|${sub}` });
    else await expect(login).rejects.toMatchObject({ code: 'UNAUTHORIZED' });
  });

  it.each([
    ['JWT', true],
    ['application/jwt', true],
    [undefined, true],
    ['at+jwt', false],
    ['logout+jwt', false],
  ])('takes an ID token of the type %s: %s', async (typ, expected) => {
    provider.changeToken = (_, claims) => provider.sign(claims, typ === undefined ? {} : { typ });
    const login = logIn();
    if (expected) await expect(login).resolves.toBeDefined();
    else await expect(login).rejects.toMatchObject(fault('failed'));
  });

  const rules = {
    allow: [{ claim: 'groups', value: 'radiology' }],
    admin: [{ claim: 'groups', value: 'heads' }],
  };
  it.each([
    [['radiology'], ['predict']],
    [['heads'], ['predict', 'admin']],
    [
      ['radiology', 'heads'],
      ['predict', 'admin'],
    ],
    [['other'], undefined],
    [undefined, undefined],
  ])('lets the groups %j have %j', async (groups, scopes) => {
    provider.claims = { sub: 'u-1', name: 'A', groups };
    const login = logIn(rules);
    if (scopes) await expect(login).resolves.toMatchObject({ scopes });
    else await expect(login).rejects.toMatchObject(fault('not-allowed', 'FORBIDDEN'));
  });

  it('lets everybody in where only administrators are named', async () => {
    await expect(logIn({ admin: rules.admin })).resolves.toMatchObject({ scopes: ['predict'] });
  });

  it('tells the operator which claims arrived and which are missing', async () => {
    const refused = await logIn({ ...rules, allow: [{ claim: 'ward', value: '3' }] }).catch((error) => error);
    const { why } = refused.report;
    expect(why).toContain('(ward=3, groups=heads)');
    expect(why).toMatch(/Claims received: iss, aud, .*sub, name, groups/);
    expect(why).toContain('Missing: ward. Configure');
    expect(why).not.toContain('Ada');
    provider.claims = { ...ada, ward: 4 };
    const other = await logIn({ allow: [{ claim: 'ward', value: '3' }] }).catch((error) => error);
    expect(other.report.why).not.toContain('Missing');
    // Each once, and no more names than a line holds.
    provider.claims = Object.fromEntries([...Array(60).keys()].map((i) => [`c${i}`, 1]));
    provider.claims.sub = 'x';
    const many = await logIn({ allow: [rules.allow[0], rules.allow[0]] }).catch((error) => error);
    expect(many.report.why).toContain('Missing: groups. ');
    // Five of the token's own claims come before.
    expect(many.report.why).toMatch(/ c44\. /);
  });

  it.each([
    [{ name: 'Ada', preferred_username: 'ada', email: 'a@b.example' }, 'Ada'],
    [{ preferred_username: 'ada', email: 'a@b.example' }, 'ada'],
    [{ email: 'a@b.example' }, 'a@b.example'],
    [{ name: ' \u202e', preferred_username: 7, email: ['x'] }, 'u-17'],
    [{ name: ' A\u0000d\u202ea ' }, 'Ada'],
    [{ name: '😀'.repeat(101) }, '😀'.repeat(100)],
    [{ sub: ' ' }, 'somebody'],
  ])('calls a user with %j %s', async (claims, label) => {
    provider.claims = { sub: 'u-17', ...claims } as JWTPayload;
    expect((await logIn()).label).toBe(label);
  });

  it('shows neither code nor secret, whatever the issuer writes', async () => {
    const oidc = open();
    const { query, token } = await comeBack(oidc);
    const words = new URLSearchParams(query);
    words.set('code', 'wrong-code');
    await expect(oidc.finish(words.toString(), token)).rejects.toMatchObject({
      ...fault('failed'),
      report: { issuerError: 'invalid_grant' },
    });
    const { query: second, token: secondToken } = await comeBack(oidc);
    const state = new URLSearchParams(second).get('state')!;
    const description = `code=the-code secret=${provider.clientSecret} token=${secondToken}`;
    const back = new URLSearchParams({
      state,
      code: 'the-code',
      error: 'access_denied',
      error_description: description,
    });
    await expect(oidc.finish(back.toString(), secondToken)).rejects.toMatchObject({
      ...fault('refused'),
      report: { issuerDescription: 'code=… secret=… token=…' },
    });
  });
});

describe('finish() and userinfo', () => {
  const withEndpoint = () => {
    provider.metadata = { userinfo_endpoint: `${provider.issuer}/userinfo` };
  };
  const askedUserinfo = () => provider.asked.includes('/userinfo');
  const rules = { allow: [{ claim: 'groups', value: 'radiology' }] };

  it('asks it for claims that matter, and for a name', async () => {
    withEndpoint();
    provider.claims = { sub: 'u-17', name: 'Ada' };
    provider.userinfo = { sub: 'u-17', name: 'Other', groups: ['radiology'] };
    expect(await logIn(rules)).toMatchObject({ label: 'Ada', warning: undefined });
    provider.claims = { sub: 'u-17', groups: ['radiology'] };
    expect(await logIn(rules)).toMatchObject({ label: 'Other' });
    provider.claims = { sub: 'u-17', name: 'Ada' };
    expect(await logIn({ admin: rules.allow })).toMatchObject({ scopes: ['predict', 'admin'] });
  });

  it('does not ask it where the token suffices or no endpoint exists', async () => {
    withEndpoint();
    provider.userinfo = { sub: 'u-17' };
    for (const claim of ['name', 'preferred_username']) {
      provider.claims = { sub: 'u-17', [claim]: 'ada', groups: ['radiology'] };
      await logIn(rules);
    }
    provider.claims = { sub: 'u-17', email: 'a@b.example', email_verified: false, groups: ['radiology'] };
    await logIn(rules);
    expect(askedUserinfo()).toBe(false);
    provider.metadata = {};
    provider.claims = { sub: 'u-17' };
    expect(await logIn()).toMatchObject({ label: 'u-17', warning: undefined });
    expect(askedUserinfo()).toBe(false);
  });

  it('continues without it, with a warning, unless access depends on it', async () => {
    withEndpoint();
    provider.claims = { sub: 'u-17' };
    expect(await logIn()).toMatchObject({ label: 'u-17', warning: expect.stringContaining('userinfo') });
    await expect(logIn(rules)).rejects.toMatchObject({ code: 'UNAUTHORIZED', detail: { reason: 'failed' } });
  });

  it('takes nothing of another subject', async () => {
    withEndpoint();
    provider.claims = { sub: 'u-17' };
    provider.userinfo = { sub: 'u-18', groups: ['radiology'], name: 'Other' };
    expect(await logIn()).toMatchObject({ label: 'u-17', warning: expect.any(String) });
    await expect(logIn(rules)).rejects.toMatchObject({ code: 'UNAUTHORIZED' });
  });
});

describe('recognise()', () => {
  const seconds = () => Math.floor(Date.now() / 1000);
  const tokenOf = (claims: JWTPayload = {}, header: Record<string, unknown> = {}) =>
    provider.sign(
      { iss: provider.issuer, aud: audience, sub: 'u-17', exp: seconds() + 300, ...claims },
      header,
    );
  const recognise = async (jwt: string | Promise<string>, change: Partial<OidcSettings> = {}) =>
    open({ audience, ...change }).recognise(await jwt);

  it('knows who sends a token for the audience, and nothing without one', async () => {
    expect(await recognise(tokenOf())).toEqual({
      owner: `oidc:${provider.issuer}|u-17`,
      scopes: ['predict'],
      via: 'session',
    });
    expect(await recognise(tokenOf(), { audience: undefined })).toBeUndefined();
    expect(await recognise(tokenOf({ aud: 'tomaat-test' }))).toBeUndefined();
    expect(await recognise(tokenOf({ aud: ['x', audience] }))).toBeDefined();
    const admin = [{ claim: 'groups', value: 'heads' }];
    expect((await recognise(tokenOf({ groups: 'heads' }), { admin }))?.scopes).toEqual(['predict', 'admin']);
    expect(await recognise(tokenOf(), { allow: admin })).toBeUndefined();
  });

  it.each([
    ['JWT', true],
    ['at+jwt', true],
    ['application/AT+JWT', true],
    [undefined, true],
    ['logout+jwt', false],
    ['', false],
  ])('takes the type %j: %s', async (typ, expected) => {
    expect((await recognise(tokenOf({}, typ === undefined ? {} : { typ }))) !== undefined).toBe(expected);
  });

  it('allows a minute between the clocks, and not a second more', async () => {
    const still = { ms: Math.ceil(Date.now() / 1000) * 1000 };
    const oidc = createOidc({ settings: settingsOf(provider, { audience }), now: () => still.ms });
    const at = still.ms / 1000;
    expect(await oidc.recognise(await tokenOf({ exp: at - 59 }))).toBeDefined();
    expect(await oidc.recognise(await tokenOf({ exp: at - 60 }))).toBeUndefined();
    expect(await oidc.recognise(await tokenOf({ nbf: at + 60 }))).toBeDefined();
    expect(await oidc.recognise(await tokenOf({ nbf: at + 61 }))).toBeUndefined();
  });

  it('reads 12,288 characters, and no more', async () => {
    const sized = async (size: number) => {
      const short = await tokenOf({ x: '' }, { y: '' });
      for (let y = 0; y < 4; y++) {
        const about = Math.floor(((size - short.length) * 3) / 4);
        for (let x = about - 8; x < about + 8; x++) {
          const token = await tokenOf({ x: 'x'.repeat(x) }, { y: 'y'.repeat(y) });
          if (token.length === size) return token;
        }
      }
      throw new Error('no token has that size');
    };
    expect(await recognise(sized(12_288))).toBeDefined();
    expect(await recognise(sized(12_289))).toBeUndefined();
  });

  it('makes no request for anything but a token', async () => {
    for (const text of ['', 'a', 'a.b', 'a.b.c.d', 'a..c', 'a.b.', '.b.c', 'a.b.c d', 'a.b.ü', 'tmt_a_b'])
      expect(await recognise(text), text).toBeUndefined();
    expect(provider.asked).toEqual([]);
    expect(await recognise('a.b.c')).toBeUndefined();
  });

  it('reports that the issuer is down, not that the token is wrong', async () => {
    const token = await tokenOf();
    provider.down = true;
    await expect(recognise(token)).rejects.toMatchObject({ code: 'UNREACHABLE' });
    provider.down = false;
    provider.metadata = { jwks_uri: `${provider.issuer}/nothing` };
    await expect(recognise(token)).resolves.toBeUndefined();
    provider.metadata = { jwks_uri: 'http://127.0.0.1:1/keys' };
    await expect(recognise(token)).rejects.toMatchObject(fault('unreachable', 'UNREACHABLE'));
  });
});

describe('logoutAddress()', () => {
  const end = { end_session_endpoint: 'https://login.example/end?a=b' };
  const logout = { returnTo: 'http://localhost:9000/' };

  it('is the issuer’s end-session endpoint, with the ID token unless too long', async () => {
    provider.metadata = end;
    const queryOf = async (idToken?: string) => {
      const url = new URL((await open().logoutAddress({ ...logout, idToken }))!);
      expect(url.origin + url.pathname).toBe('https://login.example/end');
      return Object.fromEntries(url.searchParams);
    };
    const query = {
      a: 'b',
      client_id: 'tomaat-test',
      post_logout_redirect_uri: logout.returnTo,
      state: 'logged-out',
    };
    expect(await queryOf()).toEqual(query);
    expect(await queryOf('x'.repeat(4_000))).toEqual({ ...query, id_token_hint: 'x'.repeat(4_000) });
    expect(await queryOf('x'.repeat(4_001))).toEqual(query);
  });

  it('is nowhere where the issuer offers none, or is down', async () => {
    expect(await open().logoutAddress(logout)).toBeUndefined();
    provider.metadata = end;
    provider.down = true;
    expect(await open().logoutAddress(logout)).toBeUndefined();
  });
});

describe('check()', () => {
  it('gives what does not fit, or why the issuer cannot be asked', async () => {
    expect(await open().check()).toEqual([]);
    expect(await open({ clientSecret: undefined }).check()).toEqual([
      expect.stringContaining('No client secret'),
    ]);
    provider.down = true;
    expect(await open().check()).toEqual([expect.stringContaining('503')]);
  });
});

describe('basis', () => {
  it('changes with issuer, client and rules, and with nothing else', () => {
    const rule = [{ claim: 'a', value: 'b' }];
    const basis = (change: Partial<OidcSettings> = {}) => open(change).basis;
    expect(basis()).toMatch(/^[\w-]{43}$/);
    for (const same of [{ clientSecret: 'x' }, { scopes: ['openid'] }, { audience: 'x' }])
      expect(basis(same)).toBe(basis());
    const others = [{ issuer: 'https://login.example' }, { clientId: 'x' }, { allow: rule }, { admin: rule }];
    expect(new Set([basis(), ...others.map(basis)]).size).toBe(5);
  });
});

describe('signatureAlgorithms', () => {
  it.each(['RS256', 'PS256', 'ES256', 'EdDSA', 'RS384', 'ES384'])('%s', async (alg) => {
    await using other = await openOidcProvider(alg);
    const oidc = createOidc({ settings: settingsOf(other, { audience }) });
    const claims = {
      iss: other.issuer,
      aud: audience,
      sub: 'u-17',
      exp: Math.floor(Date.now() / 1000) + 300,
    };
    const known = await oidc.recognise(await other.sign(claims));
    expect(known !== undefined).toBe(!alg.endsWith('384'));
  });
});
