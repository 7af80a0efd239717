import { TomaatError } from '@tomaat/core';
import { errors } from 'jose';
import { AuthorizationResponseError, ResponseBodyError, WWWAuthenticateChallengeError } from 'openid-client';
import { describe, expect, it } from 'vitest';
import type { OidcSettings } from './claims.ts';
import { cleanWords, explainFault, LoginError, unreachable } from './oidc-faults.ts';

const settings: OidcSettings = {
  issuer: 'https://login.example:8443/realms/a',
  clientId: 'tomaat-7',
  clientSecret: 'the-client-secret',
  scopes: ['openid', 'groups'],
  allow: [],
  admin: [],
};
const host = 'login.example:8443';
const nowSeconds = 1_800_000_000;

const explain = async (error: unknown, change: Partial<OidcSettings> = {}, secrets: string[] = []) =>
  (await explainFault(error, { ...settings, ...change }, secrets, nowSeconds)) as LoginError;

/** Errors as openid-client throws them. */
const sentBack = (error: string, error_description?: string) =>
  new AuthorizationResponseError('authorization response from the issuer is an error', {
    cause: new URLSearchParams({ error, ...(error_description && { error_description }) }),
  });
const answered = (body: Record<string, string>, status = 400) =>
  new ResponseBodyError('server responded with an error', {
    cause: body as never,
    response: new Response(null, { status }),
  });
const challenged = (status: number, body: string) =>
  new WWWAuthenticateChallengeError('server responded with a challenge', {
    cause: [],
    response: new Response(body, { status }),
  });
const failedFetch = (cause?: unknown) => new TypeError('fetch failed', { cause });
const wrapped = (error: Error, times: number): Error =>
  times === 0 ? error : wrapped(new Error('around it', { cause: error }), times - 1);

describe('explainFault()', () => {
  it('leaves errors of ours as they are', async () => {
    const error = new TomaatError('FORBIDDEN', 'no');
    expect(await explainFault(error, settings, [], nowSeconds)).toBe(error);
  });

  it.each([
    'access_denied',
    'login_required',
    'interaction_required',
    'consent_required',
    'account_selection_required',
  ])('takes %s, sent back, as a no to this user', async (word) => {
    const cause = sentBack(word, 'The user said no');
    const fault = await explain(cause);
    expect(fault).toBeInstanceOf(LoginError);
    expect(fault).toMatchObject({
      name: 'LoginError',
      code: 'UNAUTHORIZED',
      detail: { reason: 'refused' },
      cause,
      report: {
        why: `${host} did not log the user in (${word}: The user said no).`,
        issuerError: word,
        issuerDescription: 'The user said no',
      },
    });
    expect(fault.message).toContain(host);
    // At the token endpoint the same word says nothing of the user.
    expect((await explain(answered({ error: word }))).detail).toEqual({ reason: 'failed' });
  });

  it.each(['temporarily_unavailable', 'server_error'])('takes %s as an issuer that is down', async (word) => {
    for (const error of [sentBack(word), answered({ error: word })])
      expect(await explain(error)).toMatchObject({
        code: 'UNREACHABLE',
        detail: { reason: 'unreachable' },
        message: expect.stringContaining('API key'),
        report: { why: `${host} cannot log in now (${word}).`, issuerError: word },
      });
  });

  it.each<[string, Error]>([
    ['a fetch that failed', failedFetch()],
    ['an answer that broke off', new TypeError('terminated')],
    ['a time limit', new DOMException('too long', 'TimeoutError')],
    ['a time limit of the library', Object.assign(new Error('x'), { code: 'OAUTH_TIMEOUT' })],
    ['keys that do not come', new errors.JWKSTimeout()],
    ['an answer 500', new Error('unexpected', { cause: new Response(null, { status: 500 }) })],
    ['an answer 503', new Error('unexpected', { cause: new Response(null, { status: 503 }) })],
    ['a failed fetch three errors deep', wrapped(failedFetch(), 3)],
    [
      'an answer 502 three errors deep',
      wrapped(new Error('x', { cause: new Response(null, { status: 502 }) }), 3),
    ],
  ])('takes %s as an issuer that is down', async (_, error) => {
    const fault = await explain(error);
    expect(fault).toMatchObject({ code: 'UNREACHABLE', detail: { reason: 'unreachable' }, cause: error });
    expect(fault.report.why).toContain(`${host} is not responding correctly: `);
  });

  it.each<[string, unknown]>([
    ['an answer 499', new Error('unexpected', { cause: new Response(null, { status: 499 }) })],
    ['another TypeError', new TypeError('x is not a function')],
    ['another Error of that text', new Error('fetch failed')],
    ['a failed fetch four errors deep', wrapped(failedFetch(), 4)],
    ['a text', 'fetch failed'],
  ])('takes %s as an answer that is not valid', async (_, error) => {
    expect(await explain(error)).toMatchObject({ code: 'UNAUTHORIZED', detail: { reason: 'failed' } });
  });

  it.each<[string, Error]>([
    ['invalid_client', answered({ error: 'invalid_client' }, 401)],
    ['unauthorized_client', answered({ error: 'unauthorized_client' })],
    ['unauthorized_client, sent back', sentBack('unauthorized_client')],
    ['a challenge without words', challenged(401, '')],
  ])('names the client and its secret for %s', async (_, error) => {
    const fault = await explain(error);
    expect(fault).toMatchObject({ code: 'UNAUTHORIZED', detail: { reason: 'settings' } });
    expect(fault.report.why).toMatch(/'tomaat-7' exists .* TOMAAT_OIDC_CLIENT_SECRET is its current/);
    const without = await explain(error, { clientSecret: undefined });
    expect(without.report.why).toMatch(/No client secret is set\. .*'tomaat-7'/);
  });

  it('reads a challenge’s text from its body if that is JSON', async () => {
    const fault = await explain(
      challenged(401, '{"error":"invalid_client","error_description":"bad secret"}'),
    );
    expect(fault.report).toMatchObject({ issuerError: 'invalid_client', issuerDescription: 'bad secret' });
    expect(fault.report.why).toContain(' (invalid_client: bad secret). Check');
    for (const body of ['null', '"invalid_client"', '7', '[]', '<html>'])
      expect((await explain(challenged(401, body))).report).toMatchObject({
        why: expect.stringContaining(`${host} rejects this server's request. Check`),
        issuerError: undefined,
        issuerDescription: undefined,
      });
    // 403: it knows who we are.
    expect((await explain(challenged(403, ''))).detail).toEqual({ reason: 'failed' });
  });

  it('names the scopes for invalid_scope', async () => {
    for (const error of [sentBack('invalid_scope'), answered({ error: 'invalid_scope' })])
      expect((await explain(error)).report.why).toContain("'tomaat-7' asks for openid groups.");
  });

  it.each<[string, Error]>([
    ['invalid_request', answered({ error: 'invalid_request' })],
    ['unsupported_grant_type', answered({ error: 'unsupported_grant_type' })],
    ['any other word that is sent back', sentBack('strange_word')],
  ])('names flow and redirect address for %s', async (_, error) => {
    const fault = await explain(error);
    expect(fault.detail).toEqual({ reason: 'settings' });
    expect(fault.report.why).toMatch(/PKCE \(S256\), and that the redirect address/);
  });

  const expired = (exp: unknown) =>
    new errors.JWTExpired('"exp" claim timestamp check failed', { exp } as never, 'exp', 'check_failed');
  const early = (claim: string, time: number) =>
    new errors.JWTClaimValidationFailed('check failed', { [claim]: time, exp: 1 }, claim, 'check_failed');
  /** How openid-client wraps what oauth4webapi throws. */
  const library = (claim: string, claims: unknown) =>
    Object.assign(
      new Error('JWT timestamp claim value failed validation', {
        cause: new Error('unexpected', { cause: { claim, claims } }),
      }),
      { code: 'OAUTH_JWT_TIMESTAMP_CHECK_FAILED' },
    );
  const direct = Object.assign(
    new Error('check failed', { cause: { claim: 'exp', claims: { exp: nowSeconds - 61 } } }),
    {
      code: 'OAUTH_JWT_TIMESTAMP_CHECK_FAILED',
    },
  );

  it.each<[string, Error, string]>([
    ['exp', expired(nowSeconds - 90), 'expired 90 s ago'],
    ['nbf', early('nbf', nowSeconds + 3600), 'is not valid for another 3600 s'],
    ['iat', early('iat', nowSeconds + 61.4), 'is not valid for another 61 s'],
    ['exp, found by the library', library('exp', { exp: nowSeconds - 120 }), 'expired 120 s ago'],
    [
      'nbf, found by the library',
      library('nbf', { nbf: nowSeconds + 100.6 }),
      'is not valid for another 101 s',
    ],
    ['exp, not wrapped', direct, 'expired 61 s ago'],
    ['a text as exp', expired('soon'), 'has an invalid time'],
    ['an endless exp', expired(Number.POSITIVE_INFINITY), 'has an invalid time'],
    ['nothing as claims', library('exp', undefined), 'has an invalid time'],
  ])('says how far the clocks are apart: %s', async (_, error, words) => {
    expect(await explain(error)).toMatchObject({
      code: 'UNAUTHORIZED',
      detail: { reason: 'clock' },
      report: {
        why: `The ID token of ${host} ${words}. Compare both clocks; they may differ by a minute at most.`,
      },
    });
  });

  it('reports unexpected claims as an invalid response with the library’s reasons', async () => {
    const audience = new errors.JWTClaimValidationFailed(
      'unexpected "aud" claim value',
      {},
      'aud',
      'check_failed',
    );
    const fault = await explain(audience);
    expect(fault.detail).toEqual({ reason: 'failed' });
    expect(fault.report.why).toBe(`${host} sent an invalid response: unexpected "aud" claim value.`);
    // Three errors deep, each text once, without secrets.
    const deep = new Error('one', {
      cause: new Error('two the-code', {
        cause: new Error('one', { cause: new Error('four') }),
      }),
    });
    expect((await explain(deep, {}, ['the-code'])).report.why).toBe(
      `${host} sent an invalid response: one; two ….`,
    );
    const third = new Error('one', { cause: new Error('two', { cause: new Error('three') }) });
    expect((await explain(third)).report.why).toContain(': one; two; three.');
    expect((await explain('a text')).report.why).toContain(': unknown reason.');
  });

  it('quotes the issuer instead, where it gave a reason', async () => {
    const fault = await explain(
      answered({ error: 'invalid_grant', error_description: 'code the-code is old' }),
      {},
      ['the-code'],
    );
    expect(fault.detail).toEqual({ reason: 'failed' });
    expect(fault.report).toEqual({
      why: `${host} sent an invalid response (invalid_grant: code … is old).`,
      issuerError: 'invalid_grant',
      issuerDescription: 'code … is old',
    });
  });
});

describe('unreachable()', () => {
  it.each<[string, unknown, RegExp]>([
    ['a moment ago', undefined, /^login\.example:8443 did not respond correctly a moment ago\.$/],
    ['no network', failedFetch(), /: fetch failed\. The next login tries again\.$/],
    [
      'an answer',
      new Error('unexpected', { cause: new Response(null, { status: 404 }) }),
      /: unexpected\. It answered with 404\. Check oidcIssuer/,
    ],
    [
      'another name',
      new Error('x', { cause: { attribute: 'issuer', body: { issuer: 'https://other.example' } } }),
      /Its issuer name is https:\/\/other\.example\. Set oidcIssuer to exactly that\.$/,
    ],
    [
      'another attribute',
      new Error('x', { cause: { attribute: 'jwks_uri', body: { issuer: 'https://other.example' } } }),
      /The next login tries again/,
    ],
    ['its certificate', failedFetch({ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }), /with --ca\.$/],
    ['an expired certificate', failedFetch({ code: 'CERT_HAS_EXPIRED' }), /with --ca\.$/],
    ['its signature', failedFetch({ code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' }), /with --ca\.$/],
    ['a closed port', failedFetch({ code: 'ECONNREFUSED' }), /The next login tries again/],
    ['a number', failedFetch({ code: 7 }), /The next login tries again/],
  ])('says what to do about %s', (_, cause, why) => {
    const fault = unreachable(settings.issuer, cause);
    expect(fault).toMatchObject({ code: 'UNREACHABLE', detail: { reason: 'unreachable' } });
    expect(fault.cause).toBe(cause);
    expect(fault.message).toContain(`The login server ${host} is not responding correctly`);
    expect(fault.report.why).toMatch(why);
  });
});

describe('cleanWords()', () => {
  it.each<[unknown, string | undefined]>([
    ['as it is', 'as it is'],
    ['  two\t words \r\n', 'two words'],
    ['a\u0000b\u001b[31mc\u202ed', 'a b [31mc d'],
    ['', undefined],
    [' \n', undefined],
    [undefined, undefined],
    [7, undefined],
    [{ toString: () => 'x' }, undefined],
    ['x'.repeat(60), 'x'.repeat(60)],
    [`12345678${'x'.repeat(53)} y`, '12345678… y'],
    ['a the-secret b other c', 'a … b … c'],
    ['athe-secretb', 'a…b'],
  ])('makes of %j %j', (text, words) => {
    expect(cleanWords(text, ['the-secret', undefined, '', 'other'])).toBe(words);
  });

  it('gives 400 characters of the first 1600', () => {
    const words = `${'123456789 '.repeat(50)}`;
    expect(cleanWords(words, [])).toBe(words.slice(0, 400));
    expect(cleanWords(`${' '.repeat(1599)}ab`, [])).toBe('a');
    expect(cleanWords(`${' '.repeat(1600)}b`, [])).toBeUndefined();
  });
});
