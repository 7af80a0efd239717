import { meSchema } from '@tomaat/client';
import { afterEach, describe, expect, it } from 'vitest';
import type { OidcSettings } from '../src/access/claims.ts';
import { createOidc } from '../src/access/oidc.ts';
import { oidcSessionMs } from '../src/access/sessions.ts';
import { type BrowserLike, createBrowserLike } from './browser-like.ts';
import { type LoginApp, openLoginApp, settingsOf } from './login-app.ts';
import { openRealIssuer, type RealIssuer, type RealIssuerOptions, robotSeconds } from './real-issuer.ts';

const radiology = { claim: 'groups', value: 'radiology' };
const ada = {
  name: 'Ada Example',
  groups: ['radiology'],
  email: 'ada@hospital.example',
  email_verified: true,
};

describe('createOidc() with the certified issuer', () => {
  const opened: AsyncDisposable[] = [];
  afterEach(async () => {
    for (const one of opened.splice(0).reverse()) await one[Symbol.asyncDispose]();
  });

  /** An issuer where Ada is the user, and a site that is registered there. */
  async function openSite(
    options: RealIssuerOptions & { settings?: Partial<OidcSettings> } = {},
  ): Promise<{ issuer: RealIssuer; site: LoginApp }> {
    const issuer = await openRealIssuer(options);
    opened.push(issuer);
    issuer.accounts.set('ada', ada);
    issuer.user = 'ada';
    const site = await openLoginApp({
      oidc: settingsOf(issuer, { audience: issuer.audience, ...options.settings }),
    });
    opened.push(site);
    await issuer.register(site.url);
    return { issuer, site };
  }

  const loginAddress = (site: LoginApp, more = '') => `${site.url}/auth/oidc/login?return=/jobs/a${more}`;
  const logIn = (browser: BrowserLike, site: LoginApp, more?: string) =>
    browser.open(loginAddress(site, more), site.url);
  const faultOf = ({ address }: { address: string }) => new URL(address).searchParams.get('login-fault');
  async function whoIs(browser: BrowserLike, site: LoginApp) {
    const response = await browser.fetch(`${site.url}/auth/me`, site.url);
    return meSchema.parse(await response.json()).who;
  }
  const logOut = async (browser: BrowserLike, site: LoginApp) =>
    browser.fetch(`${site.url}/auth/session`, site.url, { method: 'DELETE' });
  /** Answers the issuer's question whether its session shall end. */
  async function pressYes(browser: BrowserLike, question: Response & { address: string }) {
    const form = await question.text();
    const action = /action="([^"]+)"/.exec(form)![1];
    const xsrf = /name="xsrf" value="([^"]+)"/.exec(form)![1];
    return browser.submit(action, question.address, { xsrf, logout: 'yes' });
  }
  const warningsOf = (site: LoginApp) => site.log.filter(({ level }) => level >= 40);
  const asRobot = (site: LoginApp, token: string) =>
    site.app.inject({ method: 'GET', url: '/who', headers: { authorization: `Bearer ${token}` } });

  it('takes name, groups and e-mail from userinfo, where the ID token has none', async () => {
    const admin = [{ claim: 'email', value: 'boss@hospital.example' }];
    const { issuer, site } = await openSite({ settings: { allow: [radiology], admin } });
    const browser = createBrowserLike();
    const end = await logIn(browser, site);
    expect(end.address).toBe(`${site.url}/jobs/a`);
    expect(await whoIs(browser, site)).toMatchObject({ label: 'Ada Example', scopes: ['predict'] });
    expect(issuer.asked).toContain('/me');

    issuer.accounts.set('boss', { ...ada, name: 'Boss', email: 'boss@hospital.example' });
    issuer.accounts.set('eve', { ...ada, groups: [], email: 'boss@hospital.example', email_verified: false });
    issuer.user = 'boss';
    const other = createBrowserLike();
    await logIn(other, site);
    expect(await whoIs(other, site)).toMatchObject({ label: 'Boss', scopes: ['predict', 'admin'] });
    issuer.user = 'eve';
    expect(faultOf(await logIn(createBrowserLike(), site))).toBe('not-allowed');
    expect(issuer.faults).toEqual([]);
  });

  it('does not ask userinfo where the ID token has all claims', async () => {
    const { issuer, site } = await openSite({
      conformIdTokenClaims: false,
      settings: { allow: [radiology] },
    });
    const browser = createBrowserLike();
    await logIn(browser, site);
    expect(await whoIs(browser, site)).toMatchObject({ label: 'Ada Example' });
    expect(issuer.asked).not.toContain('/me');
  });

  it('refuses an account without the group, and logs the rule and which claims came', async () => {
    const { issuer, site } = await openSite({ settings: { allow: [radiology] } });
    issuer.accounts.set('eve', { name: 'Eve Secretname', groups: ['billing'] });
    issuer.user = 'eve';
    const browser = createBrowserLike();
    expect(faultOf(await logIn(browser, site))).toBe('not-allowed');
    expect(await whoIs(browser, site)).toBeUndefined();
    const [{ msg }] = warningsOf(site);
    expect(msg).toContain('groups=radiology');
    expect(msg).toMatch(/Claims received: .*\bgroups\b/);
    expect(msg).not.toMatch(/Secretname|billing/);
  });

  it('logs which claim the issuer does not send', async () => {
    const { issuer, site } = await openSite({ settings: { allow: [radiology] } });
    issuer.accounts.set('ada', { name: 'Ada Example' });
    expect(faultOf(await logIn(createBrowserLike(), site))).toBe('not-allowed');
    expect(warningsOf(site)[0].msg).toMatch(/Missing: groups\. Configure 127\.0\.0\.1:\d+ to send it/);
  });

  it('bears a userinfo that fails, unless that decides who may come in', async () => {
    const open = await openSite();
    open.issuer.userinfoFails = true;
    const browser = createBrowserLike();
    await logIn(browser, open.site);
    expect(await whoIs(browser, open.site)).toMatchObject({ label: 'ada' });
    expect(warningsOf(open.site)[0].msg).toMatch(/userinfo/);

    const strict = await openSite({ settings: { allow: [radiology] } });
    strict.issuer.userinfoFails = true;
    expect(faultOf(await logIn(createBrowserLike(), strict.site))).toBe('unreachable');
  });

  it('takes a JWT of client_credentials as Bearer, until it expires', async () => {
    const { issuer, site } = await openSite();
    const token = await issuer.tokenOfRobot();
    const answer = await asRobot(site, token);
    expect(answer.json()).toMatchObject({ owner: `oidc:${issuer.issuer}|${issuer.robot.clientId}` });
    site.clock.ms = (robotSeconds + 50) * 1000;
    expect((await asRobot(site, token)).statusCode).toBe(200);
    site.clock.ms = (robotSeconds + 70) * 1000;
    expect((await asRobot(site, token)).statusCode).toBe(401);
  });

  it('fails when PKCE, nonce or code are not those of this login', async () => {
    const { issuer, site } = await openSite();
    const changed = async (edit: (query: URLSearchParams) => void) => {
      const browser = createBrowserLike();
      const first = await browser.step(loginAddress(site), site.url);
      const address = new URL(first.headers.get('location')!);
      edit(address.searchParams);
      return faultOf(await browser.open(address.href, site.url));
    };
    expect(await changed(() => {})).toBeNull();
    expect(await changed((query) => query.set('code_challenge', 'A'.repeat(43)))).toBe('failed');
    expect(warningsOf(site).at(-1)).toMatchObject({ issuerError: 'invalid_grant' });
    expect(await changed((query) => query.set('nonce', 'B'.repeat(43)))).toBe('failed');
    expect(warningsOf(site).at(-1)!.msg).toMatch(/nonce/);
    // The issuer itself refuses a request without PKCE.
    expect(await changed((query) => query.delete('code_challenge'))).toBe('settings');
    expect(issuer.faults).toEqual([]);
  });

  it('logs the issuer’s message when the user cancels', async () => {
    const { issuer, site } = await openSite();
    issuer.user = undefined;
    expect(faultOf(await logIn(createBrowserLike(), site))).toBe('refused');
    expect(warningsOf(site)).toMatchObject([
      { reason: 'refused', issuerError: 'access_denied', issuerDescription: 'the user pressed Cancel' },
    ]);
  });

  it('warns of a missing secret at start and when a login fails', async () => {
    const { issuer, site } = await openSite({ settings: { clientSecret: undefined } });
    await site.login.checkIssuer(site.logger);
    expect(warningsOf(site)[0].msg).toMatch(/No client secret is set.*TOMAAT_OIDC_CLIENT_SECRET/);
    expect(faultOf(await logIn(createBrowserLike(), site))).toBe('settings');
    expect(warningsOf(site)[1]).toMatchObject({ reason: 'settings', issuerError: 'invalid_client' });
    expect(warningsOf(site)[1].msg).toMatch(/No client secret is set/);

    const wrong = await openLoginApp({ oidc: settingsOf(issuer, { clientSecret: 'yesterdays-secret' }) });
    opened.push(wrong);
    await issuer.register(wrong.url);
    await wrong.login.checkIssuer(wrong.logger);
    expect(warningsOf(wrong)).toEqual([]);
    expect(faultOf(await logIn(createBrowserLike(), wrong))).toBe('settings');
    expect(warningsOf(wrong)[0].msg).toMatch(
      /invalid_client.*TOMAAT_OIDC_CLIENT_SECRET is its current secret/,
    );
  });

  it('logs in as a public client without a secret, and without a warning', async () => {
    const { site } = await openSite({ authentication: 'none', settings: { clientSecret: undefined } });
    await site.login.checkIssuer(site.logger);
    const browser = createBrowserLike();
    await logIn(browser, site);
    expect(await whoIs(browser, site)).toMatchObject({ label: 'Ada Example' });
    expect(warningsOf(site)).toEqual([]);
  });

  it('sends the secret in the body where the client is set up so', async () => {
    const { site } = await openSite({ authentication: 'client_secret_post' });
    const browser = createBrowserLike();
    await logIn(browser, site);
    expect(await whoIs(browser, site)).toMatchObject({ label: 'Ada Example' });
  });

  it('never logs a secret, a code or a token', async () => {
    const { issuer, site } = await openSite();
    const browser = createBrowserLike();
    let code = '';
    for (let at = loginAddress(site); code === ''; ) {
      const step = await browser.step(at, site.url);
      at = new URL(step.headers.get('location')!, at).href;
      code = new URL(at).searchParams.get('code') ?? '';
      if (code) await browser.open(at.replace(code, `${code}x`), issuer.issuer);
    }
    expect(warningsOf(site)).toMatchObject([{ reason: 'failed', issuerError: 'invalid_grant' }]);
    await logIn(browser, site);
    await asRobot(site, await issuer.tokenOfRobot());
    const text = JSON.stringify(site.log);
    expect(text).not.toContain(issuer.clientSecret);
    expect(text).not.toContain(code);
    expect(text).not.toMatch(/eyJ|code=/);
    expect(text).not.toContain(ada.email);
  });

  it('follows a rotation of keys, and refuses what the old one signed', async () => {
    const { issuer, site } = await openSite();
    await logIn(createBrowserLike(), site);
    const old = await issuer.tokenOfRobot();
    expect((await asRobot(site, old)).statusCode).toBe(200);
    await issuer.rotateKeys();
    const browser = createBrowserLike();
    await logIn(browser, site);
    expect(await whoIs(browser, site)).toMatchObject({ label: 'Ada Example' });
    expect((await asRobot(site, await issuer.tokenOfRobot())).statusCode).toBe(200);
    expect((await asRobot(site, old)).statusCode).toBe(401);
  });

  it('starts with a warning while the issuer is down, and recovers', async () => {
    const { issuer, site } = await openSite();
    await issuer.stop();
    await site.login.checkIssuer(site.logger);
    expect(warningsOf(site)[0].msg).toMatch(/is not responding correctly: .*ECONNREFUSED/);
    expect(faultOf(await logIn(createBrowserLike(), site))).toBe('unreachable');
    await issuer.start();
    const browser = createBrowserLike();
    await logIn(browser, site);
    expect(await whoIs(browser, site)).toMatchObject({ label: 'Ada Example' });
  });

  it('keeps sessions while the issuer is down, and reports that at logout', async () => {
    const { issuer, site } = await openSite();
    const browser = createBrowserLike();
    await logIn(browser, site);
    const late = createBrowserLike();
    const first = await late.step(loginAddress(site), site.url);
    let at = first.headers.get('location')!;
    while (new URL(at).origin === issuer.issuer) {
      const step = await late.step(at, site.url);
      at = new URL(step.headers.get('location')!, at).href;
    }
    await issuer.stop();
    expect(faultOf(await late.open(at, issuer.issuer))).toBe('unreachable');
    expect(await whoIs(browser, site)).toMatchObject({ label: 'Ada Example' });
    await issuer.start();
    await logIn(late, site);
    expect(await whoIs(late, site)).toMatchObject({ label: 'Ada Example' });
  });

  it('tolerates clock differences of a minute, and reports larger ones', async () => {
    const { site } = await openSite({ idTokenSeconds: 10 });
    site.clock.ms = 55_000;
    const browser = createBrowserLike();
    await logIn(browser, site);
    expect(await whoIs(browser, site)).toMatchObject({ label: 'Ada Example' });
    site.clock.ms = 100_000;
    expect(faultOf(await logIn(createBrowserLike(), site))).toBe('clock');
    expect(warningsOf(site)[0].msg).toMatch(/expired 9\d s ago\. Compare both clocks/);
  });

  it('ends a session after a day, and notices changes at next login', async () => {
    const { issuer, site } = await openSite({ settings: { allow: [radiology] } });
    const browser = createBrowserLike();
    await logIn(browser, site);
    const day = oidcSessionMs / 3_600_000;
    for (let hour = 1; hour < day; hour++) {
      site.clock.ms = hour * 3_600_000;
      await whoIs(browser, site);
    }
    expect(await whoIs(browser, site)).toBeDefined();
    site.clock.ms = oidcSessionMs;
    expect(await whoIs(browser, site)).toBeUndefined();
    site.clock.ms = 0;
    issuer.accounts.set('ada', { ...ada, groups: ['billing'] });
    expect(faultOf(await logIn(browser, site))).toBe('not-allowed');
  });

  it('ends the session of the issuer at a logout', async () => {
    const { issuer, site } = await openSite();
    const browser = createBrowserLike();
    await logIn(browser, site);
    const answer = await logOut(browser, site);
    expect(answer.status).toBe(200);
    const { issuer: left } = (await answer.json()) as { issuer: { host: string; address: string } };
    expect(left.host).toBe(new URL(issuer.issuer).host);
    expect(await whoIs(browser, site)).toBeUndefined();
    // Until then the issuer lets the same user in without asking.
    issuer.user = undefined;
    expect(faultOf(await logIn(browser, site))).toBeNull();
    await logOut(browser, site);

    const query = new URL(left.address).searchParams;
    expect(query.get('id_token_hint')).toMatch(/^eyJ/);
    expect(query.get('client_id')).toBe(issuer.clientId);
    expect(query.get('post_logout_redirect_uri')).toBe(`${site.url}/`);
    const question = await browser.open(left.address, site.url);
    expect(question.status).toBe(200);
    const end = await pressYes(browser, question);
    expect(end.address).toBe(`${site.url}/?state=logged-out`);
    expect(faultOf(await logIn(browser, site))).toBe('refused');
    expect(issuer.faults).toEqual([]);
  });

  it('ends it without the ID token too, for sessions that kept none', async () => {
    const { issuer, site } = await openSite();
    const browser = createBrowserLike();
    await logIn(browser, site);
    await site.database.db.updateTable('session').set({ id_token: null }).execute();
    const { issuer: left } = (await (await logOut(browser, site)).json()) as { issuer: { address: string } };
    expect(new URL(left.address).searchParams.has('id_token_hint')).toBe(false);
    expect((await browser.open(left.address, site.url)).status).toBe(200);
    expect(issuer.faults).toEqual([]);
  });

  it('reports that the issuer’s session stays, where it offers no logout', async () => {
    const { issuer, site } = await openSite({ endsSessions: false });
    const browser = createBrowserLike();
    await logIn(browser, site);
    expect(await (await logOut(browser, site)).json()).toEqual({
      issuer: { host: new URL(issuer.issuer).host },
    });
    expect(await whoIs(browser, site)).toBeUndefined();
  });

  it('returns to the public address and path after login and logout', async () => {
    const issuer = await openRealIssuer();
    opened.push(issuer);
    const oidc = settingsOf(issuer);
    const site = await openLoginApp({ oidc, publicUrl: 'https://hospital.example/tomaat' });
    opened.push(site);
    await issuer.register('https://hospital.example/tomaat');
    const host = 'hospital.example';
    const begun = await site.app.inject({ url: '/auth/oidc/login', headers: { host } });
    const toIssuer = new URL(begun.headers.location as string);
    expect(toIssuer.searchParams.get('redirect_uri')).toBe(
      'https://hospital.example/tomaat/auth/oidc/callback',
    );
    // The issuer knows it, and asks who it is.
    expect((await fetch(toIssuer, { redirect: 'manual' })).headers.get('location')).toMatch(
      /^\/interaction\//,
    );

    const session = { owner: 'oidc:i|ada', label: 'Ada', scopes: ['predict'] } as const;
    const token = await site.login.sessions.open({ ...session, basis: createOidc({ settings: oidc }).basis });
    const ended = await site.app.inject({
      method: 'DELETE',
      url: '/auth/session',
      headers: { host, origin: 'https://hospital.example', cookie: `__Host-tomaat-0=${token}` },
    });
    const { address } = (ended.json() as { issuer: { address: string } }).issuer;
    expect(new URL(address).searchParams.get('post_logout_redirect_uri')).toBe(
      'https://hospital.example/tomaat/',
    );
    expect((await fetch(address)).status).toBe(200);
  });

  it('logs in as another user on demand, though the issuer knows the first', async () => {
    const { issuer, site } = await openSite();
    issuer.accounts.set('eve', { name: 'Eve' });
    const browser = createBrowserLike();
    await logIn(browser, site);
    issuer.user = 'eve';
    await logIn(browser, site);
    expect(await whoIs(browser, site)).toMatchObject({ label: 'Ada Example' });
    // The issuer ends the session of the other user first, by a form that sends itself.
    await pressYes(browser, await logIn(browser, site, '&again=1'));
    expect(await whoIs(browser, site)).toMatchObject({ label: 'Eve' });
  });
});
