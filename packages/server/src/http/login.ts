import type { Me } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Kysely } from 'kysely';
import { z } from 'zod';
import type { OidcSettings } from '../access/claims.ts';
import { type ApiKey, findKey, hasScope, type KeySchema, type KeyScope } from '../access/keys.ts';
import type { LoginFault, Oidc } from '../access/oidc.ts';
import type { Principal } from '../access/principal.ts';
import { createSessions, type SessionSchema, type Sessions } from '../access/sessions.ts';
import type { Audit } from '../audit/audit-log.ts';
import { readJson } from '../intake/read-json.ts';
import { queryWord } from './query.ts';

/**
 * Logging in with a browser: a key or the word of an issuer becomes a session, whose token is in a cookie that scripts
 * cannot read. Cookies are not kept apart by port, so their names hold the port: a server and a registry on one host have
 * two sessions.
 */

export interface LoginOptions {
  readonly db: Kysely<SessionSchema & KeySchema>;
  /** Whether callers have to be somebody. Without, nothing can be logged in to. */
  readonly required: boolean;
  /** The scope that a key needs for a session; missing: any will do. */
  readonly scope?: KeyScope;
  readonly oidc?: Oidc;
  /** The address at which others reach the server, such as that of a proxy with TLS in front of it. */
  readonly publicUrl?: string;
  /** Is told of logins. */
  readonly audit?: Pick<Audit, 'record'>;
  readonly now?: () => number;
}

export interface Login {
  readonly sessions: Sessions;
  /** Who sends a request, by the cookie of a session or by a token of the issuer. */
  principalOf(request: FastifyRequest): Promise<Principal | undefined>;
  /** @param recognise finds the key that a text is, and counts wrong ones. */
  register(app: FastifyInstance, recognise: Recognise): void;
}
type Recognise = (key: string, request: FastifyRequest) => Promise<ApiKey | undefined>;

/** The issuer of these settings; the library that talks to it is loaded where there is one. */
export async function openOidc(settings: OidcSettings | undefined): Promise<Oidc | undefined> {
  return settings && (await import('../access/oidc.ts')).createOidc({ settings });
}

const keySchema = z.strictObject({ key: z.string().max(200) });

export function createLogin(options: LoginOptions): Login {
  const { db, required, scope, oidc, now = Date.now } = options;
  const publicUrl = options.publicUrl === undefined ? undefined : new URL(options.publicUrl);
  const sessions = createSessions({ db, basis: oidc?.basis, now });

  /** Whether the browser speaks TLS, to this server or to a proxy in front of it. */
  function isSecure(request: FastifyRequest): boolean {
    if ((request.raw.socket as { encrypted?: boolean }).encrypted) return true;
    const isPublic = publicUrl?.protocol === 'https:' && request.headers.host === publicUrl.host;
    return isPublic || request.headers.origin === `https://${request.headers.host}`;
  }

  const originOf = (request: FastifyRequest) =>
    `${isSecure(request) ? 'https' : 'http'}://${request.headers.host}`;

  /** Whether a page of another origin sends it; one at another port of this host is another, though it is the same site. */
  function isForeign(request: FastifyRequest): boolean {
    const { origin, 'sec-fetch-site': site } = request.headers;
    if (origin !== undefined && origin !== originOf(request)) return true;
    return site !== undefined && site !== 'same-origin' && site !== 'none';
  }

  /** Whether a cookie counts: only for this server's own page, and a change has to say that it comes from there. */
  function isOwnPage(request: FastifyRequest): boolean {
    if (isForeign(request)) return false;
    if (request.method === 'GET' || request.method === 'HEAD') return true;
    return request.headers.origin !== undefined || request.headers['sec-fetch-site'] === 'same-origin';
  }

  const sessionToken = (request: FastifyRequest) =>
    isOwnPage(request) ? readCookie(request, sessionCookie, isSecure(request)) : undefined;

  async function findSession(request: FastifyRequest) {
    const token = sessionToken(request);
    return token === undefined ? undefined : sessions.find(token);
  }

  async function principalOf(request: FastifyRequest): Promise<Principal | undefined> {
    if (request.headers.authorization !== undefined) return oidc?.recognise(tokenOf(request) ?? '');
    return (await findSession(request))?.principal;
  }

  /** Whoever asks may be nobody: this is found out here, for the door lets everybody in. */
  async function describe(request: FastifyRequest): Promise<Me['who']> {
    const token = tokenOf(request);
    const key = token === undefined ? undefined : await findKey(db, token, now());
    if (key) {
      const { id, label, scopes, expiresTime } = key;
      return { kind: 'key', owner: `key:${id}`, label, scopes, expiresTime };
    }
    const session = request.headers.authorization === undefined ? await findSession(request) : undefined;
    const principal = session?.principal ?? (await principalOf(request));
    if (!principal) return undefined;
    const { keyId, owner, scopes } = principal;
    return {
      kind: keyId === undefined ? 'oidc' : 'key',
      owner,
      label: session?.label ?? owner,
      scopes: [...scopes],
      expiresTime: session?.expiresTime,
    };
  }

  async function logInByKey(
    request: FastifyRequest,
    reply: FastifyReply,
    recognise: Recognise,
  ): Promise<void> {
    if (!/^application\/json *(;|$)/i.test(request.headers['content-type'] ?? '')) {
      throw new TomaatError('UNSUPPORTED_MEDIA', 'A login is JSON: {"key": "tmt_…"}. Send it as such.', {
        field: 'Content-Type',
      });
    }
    if (isForeign(request)) {
      throw new TomaatError(
        'FORBIDDEN',
        'A page of another address may not log anybody in here. Open the page of this server itself.',
        { field: 'Origin' },
      );
    }
    const { key } = await readJson(request, keySchema, {
      maxBytes: 1000,
      hint: 'Send {"key": "tmt_…"}.',
    });
    const found = await recognise(key.trim(), request);
    if (!found) {
      options.audit?.record('login.failed', { outcome: 'UNAUTHORIZED' });
      throw new TomaatError(
        'UNAUTHORIZED',
        'This key is unknown here, expired or revoked. Check that all of it was copied, or ask whoever runs the server for a new one.',
        { field: 'key' },
      );
    }
    if (scope !== undefined && !hasScope(found, scope)) {
      options.audit?.record('login.failed', { keyId: found.id, outcome: 'FORBIDDEN' });
      throw new TomaatError(
        'FORBIDDEN',
        `This key is for programs that ${found.scopes.join(' and ')}: it lacks the scope ${scope}. Use one that has it.`,
        { field: 'key' },
      );
    }
    await replaceSession(request, reply, {
      owner: `key:${found.id}`,
      label: found.label,
      keyId: found.id,
    });
    request.log.info({ key: found.id }, 'logged in with a key');
  }

  async function replaceSession(
    request: FastifyRequest,
    reply: FastifyReply,
    session: Parameters<Sessions['open']>[0],
  ): Promise<void> {
    const old = sessionToken(request);
    if (old !== undefined) await sessions.close(old);
    const token = await sessions.open(session);
    options.audit?.record('login.succeeded', { who: session.owner });
    // Without Max-Age the browser forgets it when it is closed; the server ends it in any case.
    setCookie(reply, request, sessionCookie, isSecure(request), token, 'SameSite=Strict');
  }

  async function beginOidc(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const returnTo = localPath(queryWord(request, 'return'));
    try {
      const { url, token } = await need(oidc).begin({
        redirectUri: `${originOf(request)}/auth/oidc/callback`,
        returnTo,
      });
      setCookie(reply, request, loginCookie, isSecure(request), token, 'SameSite=Lax; Max-Age=600');
      return reply.redirect(url, 303);
    } catch (error) {
      return sendBack(request, reply, returnTo, error);
    }
  }

  async function endOidc(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const token = readCookie(request, loginCookie, isSecure(request));
    const returnTo = (token && need(oidc).returnOf(token)) ?? '/';
    setCookie(reply, request, loginCookie, isSecure(request), '', 'SameSite=Lax; Max-Age=0');
    try {
      const at = request.url.indexOf('?');
      const who = await need(oidc).finish(at < 0 ? '' : request.url.slice(at + 1), token);
      await replaceSession(request, reply, { ...who, basis: need(oidc).basis });
      request.log.info('logged in by the issuer');
    } catch (error) {
      return sendBack(request, reply, returnTo, error);
    }
    return reply.redirect(returnTo, 303);
  }

  /** A browser gets its page, which says what went wrong; a program the Problem. */
  function sendBack(
    request: FastifyRequest,
    reply: FastifyReply,
    returnTo: string,
    error: unknown,
  ): FastifyReply {
    const reason =
      error instanceof TomaatError ? (error.detail?.reason as LoginFault | undefined) : undefined;
    if (reason === undefined) throw error;
    // What stands in it came from the issuer: the names of the faults alone.
    const { cause } = error as TomaatError;
    request.log.warn({ reason, fault: faultNames(cause) }, 'a login by the issuer came to nothing');
    options.audit?.record('login.failed', { outcome: reason });
    if (!/\btext\/html\b/.test(request.headers.accept ?? '')) throw error;
    const url = new URL(returnTo, 'http://page.invalid');
    url.searchParams.set('login-fault', reason);
    return reply.redirect(localPath(url.pathname + url.search + url.hash), 303);
  }

  return {
    sessions,
    principalOf,
    register(app, recognise) {
      const noStore = async (_request: FastifyRequest, reply: FastifyReply) => {
        reply.header('cache-control', 'no-store').header('referrer-policy', 'no-referrer');
      };
      const route = { onRequest: noStore, exposeHeadRoute: false };
      app.get('/auth/me', route, async (request): Promise<Me> => {
        return {
          login: required ? 'required' : 'off',
          who: required ? await describe(request) : undefined,
          ways: {
            key: required,
            oidc: required && oidc ? { host: oidc.host, address: '/auth/oidc/login' } : undefined,
          },
        };
      });
      app.post('/auth/session', route, async (request, reply) => {
        needLogin(required);
        await logInByKey(request, reply, recognise);
        return reply.code(204).send();
      });
      app.delete('/auth/session', route, async (request, reply) => {
        const token = sessionToken(request);
        if (token !== undefined) await sessions.close(token);
        if (!isForeign(request))
          setCookie(reply, request, sessionCookie, isSecure(request), '', 'SameSite=Strict; Max-Age=0');
        return reply.code(204).send();
      });
      app.get('/auth/oidc/login', route, beginOidc);
      app.get('/auth/oidc/callback', route, endOidc);
    },
  };
}

function tokenOf(request: FastifyRequest): string | undefined {
  return /^bearer +(\S+) *$/i.exec(request.headers.authorization ?? '')?.[1];
}

function needLogin(required: boolean): void {
  if (!required)
    throw new TomaatError('CONFLICT', 'There is no login here: everything is open to this machine already.');
}

function need(oidc: Oidc | undefined): Oidc {
  if (oidc) return oidc;
  throw new TomaatError(
    'NOT_FOUND',
    'No issuer of logins is set here (--oidc-issuer). Log in with an API key: POST /auth/session.',
  );
}

/** Names of errors and codes, which hold no text of others. */
function faultNames(error: unknown): string[] {
  const names: string[] = [];
  for (let at = error, depth = 0; at instanceof Error && depth < 4; at = at.cause, depth++) {
    const code = (at as { code?: unknown }).code;
    names.push(typeof code === 'string' && /^\w{1,60}$/.test(code) ? code : at.name);
  }
  return names;
}

/**
 * The address to go on to after a login if it is a path of this server, else `/`. What a browser would take for another
 * host (`//host`, `/\host`, and what becomes that when dots are resolved) is none.
 */
export function localPath(text: string | undefined): string {
  if (text === undefined || text.length > 2000 || !/^\/[\x21-\x5b\x5d-\x7e]*$/.test(text)) return '/';
  const base = 'http://page.invalid';
  const url = URL.parse(text, base);
  if (!url || url.origin !== base) return '/';
  const path = url.pathname + url.search + url.hash;
  // Back to a login there is nothing to go back from.
  return /^\/[/\\]/.test(path) || /^\/auth(\/|$)/i.test(path) ? '/' : path;
}

// ---- Cookies ----

const sessionCookie = 'tomaat';
const loginCookie = 'tomaat-login';

/** With TLS the prefix by which browsers let no page without TLS, and no other host, set it. */
const nameOf = (request: FastifyRequest, name: string, secure: boolean) =>
  `${secure ? '__Host-' : ''}${name}-${request.raw.socket.localPort ?? 0}`;

function readCookie(request: FastifyRequest, name: string, secure: boolean): string | undefined {
  const wanted = nameOf(request, name, secure);
  for (const pair of (request.headers.cookie ?? '').split(';')) {
    const at = pair.indexOf('=');
    if (pair.slice(0, at).trim() === wanted) return pair.slice(at + 1).trim() || undefined;
  }
  return undefined;
}

function setCookie(
  reply: FastifyReply,
  request: FastifyRequest,
  name: string,
  secure: boolean,
  value: string,
  rest: string,
): void {
  const cookie = `${nameOf(request, name, secure)}=${value}; Path=/; HttpOnly; ${rest}${secure ? '; Secure' : ''}`;
  reply.header('set-cookie', cookie);
}
