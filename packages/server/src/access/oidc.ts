import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { TomaatError } from '@tomaat/core';
import { errors, type JWTPayload, jwtVerify } from 'jose';
import {
  authorizationCodeGrant,
  buildAuthorizationUrl,
  buildEndSessionUrl,
  calculatePKCECodeChallenge,
  fetchUserInfo,
  randomNonce,
  randomPKCECodeVerifier,
  randomState,
} from 'openid-client';
import { type BegunLogin, type BegunLogins, rememberLogins } from './begun-logins.ts';
import { fulfils, hasClaim, mergeClaims, type OidcSettings } from './claims.ts';
import { cleanWords, explainFault, LoginError, unreachable } from './oidc-faults.ts';
import {
  clockToleranceSeconds,
  createDiscovery,
  findMisfits,
  type Issuer,
  signatureAlgorithms,
} from './oidc-issuer.ts';
import type { Principal } from './principal.ts';
import type { KeyScope } from './scopes.ts';

/**
 * Login by an OpenID Connect issuer: authorization code with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 7636,
 * RFC 9700). openid-client speaks the protocol; every token's signature and claims are checked here with jose against
 * the issuer's keys, in one place for ID tokens and for tokens that programs send.
 */

export interface OidcLogin {
  readonly owner: string;
  readonly label: string;
  readonly scopes: readonly KeyScope[];
  /** For the logout at the issuer. */
  readonly idToken: string;
  /** Problems that did not block the login, for the log. */
  readonly warning?: string;
}

export interface Oidc {
  /** The issuer's host, for people. */
  readonly host: string;
  /** Digest of the settings: sessions that were opened under different ones end. */
  readonly basis: string;
  /** Begins a login: returns where to send the browser, and the token that identifies the browser when it returns. */
  begin(login: {
    redirectUri: string;
    returnTo: string;
    again?: boolean;
  }): Promise<{ url: string; token: string }>;
  /** The address to which a started login should return; undefined if there is none. */
  returnOf(token: string): Promise<string | undefined>;
  /**
   * Ends a login, once, with the query of the issuer's redirect.
   * @throws TomaatError UNAUTHORIZED, FORBIDDEN or UNREACHABLE, with a `LoginFault` as `detail.reason`.
   */
  finish(query: string, token: string | undefined): Promise<OidcLogin>;
  /**
   * The sender of this token (an access or ID token for the audience of the settings); undefined if it is not a token of
   * the issuer that is currently valid for this server.
   * @throws TomaatError UNREACHABLE if the issuer's keys are unavailable.
   */
  recognise(jwt: string): Promise<Principal | undefined>;
  /**
   * Where to send a browser so that the issuer's session ends too (OpenID Connect RP-Initiated Logout 1.0); undefined
   * if the issuer does not support that, or does not answer.
   */
  logoutAddress(logout: { idToken?: string; returnTo: string }): Promise<string | undefined>;
  /** Asks the issuer, and returns what is currently wrong with the settings or the issuer, for the operator. */
  check(): Promise<string[]>;
}

export interface OidcOptions {
  readonly settings: OidcSettings;
  /** Where begun logins are kept; in the memory of this process if missing. */
  readonly logins?: BegunLogins;
  readonly now?: () => number;
  /** How long after a failure the issuer is asked again; 5 s if missing. */
  readonly retryMs?: number;
}

/** How long a user may take at the issuer. */
export const loginMs = 600_000;
/** Longest token; a header of a request holds 16 kB in all. */
const maxTokenLength = 12_288;
/** Longest ID token that is sent with a logout, as part of an address. */
const maxHintLength = 4_000;

export function createOidc({
  settings,
  now = Date.now,
  retryMs = 5_000,
  logins = rememberLogins(now),
}: OidcOptions): Oidc {
  const { issuer, clientId, audience } = settings;
  const { host } = new URL(issuer);
  const find = createDiscovery(settings, now, retryMs);

  /** Checks signature, issuer, audience and times; returns the claims. Throws a JOSEError for an invalid token. */
  async function verify(token: string, forWhom: string, types: readonly (string | undefined)[]) {
    if (token.length > maxTokenLength) throw new errors.JWTInvalid('the token is too long');
    const { metadata, keys } = await find();
    const { payload, protectedHeader } = await jwtVerify(token, keys, {
      issuer: metadata.issuer,
      audience: forWhom,
      algorithms: signatureAlgorithms,
      clockTolerance: clockToleranceSeconds,
      requiredClaims: ['iss', 'aud', 'exp', 'sub'],
      currentDate: new Date(now()),
    });
    const type = protectedHeader.typ?.toLowerCase().replace(/^application\//, '');
    if (!types.includes(type)) throw new errors.JWTInvalid('the token has the wrong type');
    if (typeof payload.sub !== 'string' || !/^[\x20-\x7e]{1,255}$/.test(payload.sub))
      throw new errors.JWTInvalid('the subject is not plain text');
    return payload as JWTPayload & { sub: string };
  }

  function loginOf(claims: JWTPayload & { sub: string }, issuerName: string) {
    const isAdmin = settings.admin.some((rule) => fulfils(claims, rule));
    const isAllowed = settings.allow.length === 0 || settings.allow.some((rule) => fulfils(claims, rule));
    if (!isAdmin && !isAllowed) return undefined;
    return {
      owner: `oidc:${issuerName}|${claims.sub}`,
      label: labelOf(claims),
      scopes: (isAdmin ? ['predict', 'admin'] : ['predict']) as readonly KeyScope[],
    };
  }

  /** Exchanges the code for tokens, and checks the ID token. */
  async function redeem(query: string, login: BegunLogin, config: ReturnType<Issuer['configure']>) {
    const tokens = await authorizationCodeGrant(config, new URL(`${login.redirectUri}?${query}`), {
      pkceCodeVerifier: login.codeVerifier,
      expectedState: login.state,
      expectedNonce: login.nonce,
      idTokenExpected: true,
    });
    const idToken = tokens.id_token ?? '';
    const claims = await verify(idToken, clientId, ['jwt', undefined]);
    if (claims.nonce !== login.nonce) throw new errors.JWTInvalid('the nonce does not match');
    const isForOthers = Array.isArray(claims.aud) && claims.aud.length > 1;
    if ((isForOthers || claims.azp !== undefined) && claims.azp !== clientId)
      throw new errors.JWTInvalid('the token was issued for another client');
    return { idToken, claims, accessToken: tokens.access_token };
  }

  /**
   * The claims with those of the userinfo endpoint (OpenID Connect Core 1.0, 5.3), if the ID token lacks some
   * that matter here: many issuers put the claims of scopes only there. It is requested over TLS with the access token
   * that came with the ID token, and counts only for the same subject.
   */
  async function withUserinfo(
    claims: JWTPayload & { sub: string },
    accessToken: string,
    { metadata, configure }: Issuer,
  ): Promise<{ claims: JWTPayload & { sub: string }; fault?: unknown }> {
    const isWhole = [...settings.allow, ...settings.admin].every((rule) => hasClaim(claims, rule.claim));
    if ((isWhole && hasLabel(claims)) || metadata.userinfo_endpoint === undefined) return { claims };
    try {
      const more = await fetchUserInfo(configure(), accessToken, claims.sub);
      return { claims: mergeClaims(claims, more as JWTPayload) as typeof claims };
    } catch (fault) {
      return { claims, fault };
    }
  }

  return {
    host,
    basis: hashOf(JSON.stringify([issuer, clientId, settings.allow, settings.admin])),

    async begin({ redirectUri, returnTo, again }) {
      const config = (await find()).configure();
      const token = randomBytes(32).toString('base64url');
      const codeVerifier = randomPKCECodeVerifier();
      const login = {
        state: randomState(),
        nonce: randomNonce(),
        codeVerifier,
        redirectUri,
        returnTo,
        expiresMs: now() + loginMs,
      };
      await logins.add(token, login);
      const url = buildAuthorizationUrl(config, {
        redirect_uri: redirectUri,
        response_type: 'code',
        scope: settings.scopes.join(' '),
        state: login.state,
        nonce: login.nonce,
        code_challenge: await calculatePKCECodeChallenge(codeVerifier),
        code_challenge_method: 'S256',
        ...(again && { prompt: 'login' }),
      });
      return { url: url.href, token };
    },

    returnOf: async (token) => (await logins.find(token))?.returnTo,

    async finish(query, token) {
      const login = token === undefined ? undefined : await logins.take(token);
      const given = new URLSearchParams(query);
      const state = given.getAll('state');
      if (!login || state.length !== 1 || !isSame(state[0], login.state)) {
        throw new LoginError(
          'UNAUTHORIZED',
          'expired',
          'This login took too long, was already used, or was started in another browser. Log in again.',
          { why: 'The browser returned without a login that was started here within ten minutes.' },
        );
      }
      try {
        const found = await find();
        const { idToken, claims: own, accessToken } = await redeem(query, login, found.configure());
        const { claims, fault } = await withUserinfo(own, accessToken, found);
        const known = loginOf(claims, found.metadata.issuer);
        // Access depends on claims that could not be fetched.
        if (!known && fault !== undefined) throw fault;
        if (!known) throw notAllowed(host, claims, settings);
        const warning =
          fault === undefined
            ? undefined
            : `The userinfo endpoint of ${host} failed; the login continued with only the claims of the ID token.`;
        return { ...known, idToken, warning };
      } catch (error) {
        const secrets = [settings.clientSecret, given.get('code') ?? undefined, login.codeVerifier, token];
        throw await explainFault(error, settings, secrets, now() / 1000);
      }
    },

    async recognise(jwt) {
      if (audience === undefined || jwt.length > maxTokenLength || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(jwt))
        return undefined;
      try {
        const claims = await verify(jwt, audience, ['jwt', 'at+jwt', undefined]);
        const known = loginOf(claims, (await find()).metadata.issuer);
        return known && { owner: known.owner, scopes: known.scopes, via: 'session' };
      } catch (error) {
        if (error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout)) return undefined;
        if (error instanceof TomaatError) throw error;
        throw unreachable(issuer, error);
      }
    },

    async logoutAddress({ idToken, returnTo }) {
      try {
        const { metadata, configure } = await find();
        if (metadata.end_session_endpoint === undefined) return undefined;
        const hint = idToken !== undefined && idToken.length <= maxHintLength ? idToken : undefined;
        return buildEndSessionUrl(configure(), {
          ...(hint && { id_token_hint: hint }),
          post_logout_redirect_uri: returnTo,
          state: 'logged-out',
        }).href;
      } catch (error) {
        if (error instanceof LoginError) return undefined;
        throw error;
      }
    },

    async check() {
      try {
        return findMisfits(settings, (await find()).metadata);
      } catch (error) {
        if (error instanceof LoginError) return [error.report.why];
        throw error;
      }
    },
  };
}

const labelClaims = ['name', 'preferred_username', 'email'];
const hasLabel = (claims: JWTPayload) => labelClaims.some((name) => hasClaim(claims, name));

/** Names the received claims for the operator, who otherwise cannot see why logins fail. */
function notAllowed(host: string, claims: JWTPayload, { allow, admin }: OidcSettings): LoginError {
  const rules = [...allow, ...admin].map(({ claim, value }) => `${claim}=${value}`).join(', ');
  const names = cleanWords(Object.keys(claims).slice(0, 50).join(' '), [])?.replaceAll(' ', ', ');
  const missing = [...new Set([...allow, ...admin].map(({ claim }) => claim))].filter(
    (claim) => !hasClaim(claims, claim),
  );
  const hint =
    missing.length === 0
      ? ''
      : ` Missing: ${missing.join(', ')}. Configure ${host} to send it to this client, or request the scope that contains it (oidcScopes).`;
  return new LoginError(
    'FORBIDDEN',
    'not-allowed',
    `${host} knows you, but this server does not serve your account. Ask the operator of this server.`,
    {
      why: `An account of ${host} matches none of the rules of oidcAllow and oidcAdmin (${rules}). Claims received: ${names}.${hint}`,
    },
  );
}

function labelOf(claims: JWTPayload & { sub: string }): string {
  for (const name of [...labelClaims, 'sub']) {
    const text = claims[name];
    // Without control characters and those that change the direction of text.
    const plain = typeof text === 'string' ? text.replace(/\p{C}/gu, '').trim() : '';
    if (plain !== '') return [...plain].slice(0, 100).join('');
  }
  return 'somebody';
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('base64url');
}

function isSame(a: string, b: string): boolean {
  return timingSafeEqual(Buffer.from(hashOf(a)), Buffer.from(hashOf(b)));
}
