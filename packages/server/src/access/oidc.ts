import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { TomaatError } from '@tomaat/core';
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify, customFetch as keySetFetch } from 'jose';
import {
  AuthorizationResponseError,
  allowInsecureRequests,
  authorizationCodeGrant,
  buildAuthorizationUrl,
  ClientSecretBasic,
  ClientSecretPost,
  Configuration,
  calculatePKCECodeChallenge,
  customFetch,
  discovery,
  None,
  randomNonce,
  randomPKCECodeVerifier,
  randomState,
} from 'openid-client';
import { isLoopback } from '../registry/targets.ts';
import { fulfils, type OidcSettings } from './claims.ts';
import type { KeyScope } from './keys.ts';
import type { Principal } from './principal.ts';

/**
 * Login by an OpenID Connect issuer: authorization code with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 7636,
 * RFC 9700). openid-client speaks the protocol; every token's signature and claims are checked here with jose against
 * the issuer's keys, in one place for ID tokens and for tokens that programs send.
 */

export interface OidcLogin {
  readonly owner: string;
  readonly label: string;
  readonly scopes: readonly KeyScope[];
}

/** Why a login came to nothing, for the page; the log has more. */
export type LoginFault = 'expired' | 'refused' | 'failed' | 'not-allowed' | 'unreachable';

export interface Oidc {
  /** The issuer's host, for people. */
  readonly host: string;
  /** Digest of the settings: sessions that were opened under others end. */
  readonly basis: string;
  /** Begins a login: where to send the browser, and the token by which the same browser is known when it comes back. */
  begin(login: { redirectUri: string; returnTo: string }): Promise<{ url: string; token: string }>;
  /** Where a login that was begun wanted to go; undefined when there is none. */
  returnOf(token: string): string | undefined;
  /**
   * Ends a login, once, with the query that the issuer sent the browser back with.
   * @throws TomaatError UNAUTHORIZED, FORBIDDEN or UNREACHABLE, with a `LoginFault` as `detail.reason`.
   */
  finish(query: string, token: string | undefined): Promise<OidcLogin>;
  /**
   * Who sends this token (an access or ID token for the audience of the settings); undefined when it is not one of the
   * issuer's that is valid now and for this server.
   * @throws TomaatError UNREACHABLE when the issuer's keys cannot be had.
   */
  recognise(jwt: string): Promise<Principal | undefined>;
}

export interface OidcOptions {
  readonly settings: OidcSettings;
  readonly now?: () => number;
  /** How long after a vain attempt the issuer is asked again; 5 s if missing. */
  readonly retryMs?: number;
}

interface Begun {
  readonly state: string;
  readonly nonce: string;
  readonly codeVerifier: string;
  readonly redirectUri: string;
  readonly returnTo: string;
  readonly expiresMs: number;
}

/** How long somebody may take at the issuer. */
export const loginMs = 600_000;
/** Logins that are begun and not ended; the oldest goes. */
const maxBegun = 10_000;
/** Longest token; a header of a request holds 16 kB in all. */
const maxTokenLength = 12_288;
const maxAnswerBytes = 1_048_576;
const patienceMs = 10_000;
const clockToleranceSeconds = 60;
/** Signatures by a public key alone: a secret that both sides know (HS256) would let the client forge. */
const algorithms = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'];

export function createOidc({ settings, now = Date.now, retryMs = 5_000 }: OidcOptions): Oidc {
  const { issuer, clientId, audience } = settings;
  const begun = new Map<string, Begun>();
  const find = createDiscovery(settings, now, retryMs);

  /** Checks signature, issuer, audience and times; gives the claims. Throws a JOSEError for a token that is not good. */
  async function verify(token: string, forWhom: string, types: readonly (string | undefined)[]) {
    if (token.length > maxTokenLength) throw new errors.JWTInvalid('the token is too long');
    const { config, keys } = await find();
    const { payload, protectedHeader } = await jwtVerify(token, keys, {
      issuer: config.serverMetadata().issuer,
      audience: forWhom,
      algorithms,
      clockTolerance: clockToleranceSeconds,
      requiredClaims: ['iss', 'aud', 'exp', 'sub'],
      currentDate: new Date(now()),
    });
    const type = protectedHeader.typ?.toLowerCase().replace(/^application\//, '');
    if (!types.includes(type)) throw new errors.JWTInvalid('the token is of another type');
    if (typeof payload.sub !== 'string' || !/^[\x20-\x7e]{1,255}$/.test(payload.sub))
      throw new errors.JWTInvalid('the subject is no plain text');
    return payload as JWTPayload & { sub: string };
  }

  function loginOf(claims: JWTPayload & { sub: string }, issuerName: string): OidcLogin | undefined {
    const isAdmin = settings.admin.some((rule) => fulfils(claims, rule));
    const isAllowed = settings.allow.length === 0 || settings.allow.some((rule) => fulfils(claims, rule));
    if (!isAdmin && !isAllowed) return undefined;
    return {
      owner: `oidc:${issuerName}|${claims.sub}`,
      label: labelOf(claims),
      scopes: isAdmin ? ['predict', 'admin'] : ['predict'],
    };
  }

  function take(token: string | undefined): Begun | undefined {
    const key = token === undefined ? '' : hashOf(token);
    const found = begun.get(key);
    begun.delete(key);
    return found && found.expiresMs > now() ? found : undefined;
  }

  return {
    host: new URL(issuer).host,
    basis: hashOf(JSON.stringify([issuer, clientId, settings.allow, settings.admin])),

    async begin({ redirectUri, returnTo }) {
      const { config } = await find();
      for (const [key, { expiresMs }] of begun) {
        if (expiresMs > now() && begun.size < maxBegun) break;
        begun.delete(key);
      }
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
      begun.set(hashOf(token), login);
      const url = buildAuthorizationUrl(config, {
        redirect_uri: redirectUri,
        response_type: 'code',
        scope: settings.scopes.join(' '),
        state: login.state,
        nonce: login.nonce,
        code_challenge: await calculatePKCECodeChallenge(codeVerifier),
        code_challenge_method: 'S256',
      });
      return { url: url.href, token };
    },

    returnOf: (token) => begun.get(hashOf(token))?.returnTo,

    async finish(query, token) {
      const login = take(token);
      const state = new URLSearchParams(query).getAll('state');
      if (!login || state.length !== 1 || !isSame(state[0], login.state)) {
        throw fault(
          'UNAUTHORIZED',
          'expired',
          'This login took too long, was used already, or was begun in another browser. Log in again.',
        );
      }
      try {
        const { config } = await find();
        const tokens = await authorizationCodeGrant(config, new URL(`${login.redirectUri}?${query}`), {
          pkceCodeVerifier: login.codeVerifier,
          expectedState: login.state,
          expectedNonce: login.nonce,
          idTokenExpected: true,
        });
        const claims = await verify(tokens.id_token ?? '', clientId, ['jwt', undefined]);
        if (claims.nonce !== login.nonce) throw new errors.JWTInvalid('the nonce is another');
        const isForOthers = Array.isArray(claims.aud) && claims.aud.length > 1;
        if ((isForOthers || claims.azp !== undefined) && claims.azp !== clientId)
          throw new errors.JWTInvalid('the token was made for another client');
        const known = loginOf(claims, config.serverMetadata().issuer);
        if (known) return known;
      } catch (error) {
        if (error instanceof TomaatError) throw error;
        if (error instanceof AuthorizationResponseError) {
          throw fault(
            'UNAUTHORIZED',
            'refused',
            `${new URL(issuer).host} did not log you in. Try again, or ask whoever runs it.`,
            error,
          );
        }
        throw fault(
          'UNAUTHORIZED',
          'failed',
          `What ${new URL(issuer).host} answered does not hold. Log in again; if it stays so, whoever runs this server finds the reason in its log.`,
          error,
        );
      }
      throw fault(
        'FORBIDDEN',
        'not-allowed',
        `${new URL(issuer).host} knows you, but this server does not serve your account. Ask whoever runs this server.`,
      );
    },

    async recognise(jwt) {
      if (audience === undefined || jwt.length > maxTokenLength || !/^[\w-]+\.[\w-]+\.[\w-]+$/.test(jwt))
        return undefined;
      try {
        const claims = await verify(jwt, audience, ['jwt', 'at+jwt', undefined]);
        const known = loginOf(claims, (await find()).config.serverMetadata().issuer);
        return known && { owner: known.owner, scopes: known.scopes, via: 'session' };
      } catch (error) {
        if (error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout)) return undefined;
        if (error instanceof TomaatError) throw error;
        throw unreachable(issuer, error);
      }
    },
  };
}

interface Discovered {
  readonly config: Configuration;
  readonly keys: ReturnType<typeof createRemoteJWKSet>;
}

/** Asks the issuer once what it offers; after a vain attempt again, but not at every request. */
function createDiscovery(settings: OidcSettings, now: () => number, retryMs: number) {
  const { issuer, clientId, clientSecret } = settings;
  let asked: Promise<Discovered> | undefined;
  let failedMs: number | undefined;

  async function ask(): Promise<Discovered> {
    const isLocal = new URL(issuer).protocol === 'http:';
    const execute = isLocal ? [allowInsecureRequests] : [];
    const found = await discovery(new URL(issuer), clientId, undefined, None(), {
      execute,
      [customFetch]: boundedFetch,
    });
    const server = found.serverMetadata();
    const methods = server.token_endpoint_auth_methods_supported ?? ['client_secret_basic'];
    const authentication =
      clientSecret === undefined
        ? None()
        : methods.includes('client_secret_post')
          ? ClientSecretPost(clientSecret)
          : ClientSecretBasic(clientSecret);
    const config = new Configuration(server, clientId, undefined, authentication);
    config[customFetch] = boundedFetch;
    for (const extend of execute) extend(config);
    if (server.jwks_uri === undefined) throw new Error('the issuer names no keys (jwks_uri)');
    const keys = createRemoteJWKSet(new URL(server.jwks_uri), {
      timeoutDuration: patienceMs,
      [keySetFetch]: boundedFetch,
    });
    return { config, keys };
  }

  return async (): Promise<Discovered> => {
    if (failedMs !== undefined && now() - failedMs < retryMs) throw unreachable(issuer);
    asked ??= ask();
    try {
      const found = await asked;
      failedMs = undefined;
      return found;
    } catch (error) {
      asked = undefined;
      failedMs = now();
      throw unreachable(issuer, error);
    }
  };
}

/** fetch for what an issuer answers: encrypted unless it is on this machine, no redirect, bounded in time and size. */
async function boundedFetch(address: string, init: object = {}): Promise<Response> {
  const url = new URL(address);
  if (url.protocol !== 'https:' && !isLoopback(url.hostname))
    throw new Error(`${url.origin} is not asked: it is not encrypted`);
  const given = init as RequestInit;
  const patience = AbortSignal.timeout(patienceMs);
  const response = await fetch(url, {
    ...given,
    redirect: 'manual',
    signal: given.signal ? AbortSignal.any([given.signal, patience]) : patience,
  });
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of response.body ?? []) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > maxAnswerBytes)
      throw new Error(`${url.origin} answered with more than ${maxAnswerBytes} bytes`);
    chunks.push(chunk);
  }
  const body = sizeBytes === 0 ? null : Buffer.concat(chunks);
  // The body is unpacked already, and has another length.
  const headers = new Headers(response.headers);
  headers.delete('content-encoding');
  headers.delete('content-length');
  return new Response(body, { status: response.status, headers });
}

function labelOf(claims: JWTPayload & { sub: string }): string {
  for (const name of ['name', 'preferred_username', 'email', 'sub']) {
    const text = claims[name];
    // Without control characters and those that turn the direction of writing.
    const plain = typeof text === 'string' ? text.replace(/\p{C}/gu, '').trim() : '';
    if (plain !== '') return [...plain].slice(0, 100).join('');
  }
  return 'somebody';
}

function fault(
  code: 'UNAUTHORIZED' | 'FORBIDDEN',
  reason: LoginFault,
  message: string,
  cause?: unknown,
): TomaatError {
  return new TomaatError(code, message, { detail: { reason }, cause });
}

function unreachable(issuer: string, cause?: unknown): TomaatError {
  return new TomaatError(
    'UNREACHABLE',
    `${new URL(issuer).host}, which logs people in here, does not answer as it should. Try again soon, or log in with an API key.`,
    { detail: { reason: 'unreachable' satisfies LoginFault }, cause },
  );
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('base64url');
}

function isSame(a: string, b: string): boolean {
  return timingSafeEqual(Buffer.from(hashOf(a)), Buffer.from(hashOf(b)));
}
