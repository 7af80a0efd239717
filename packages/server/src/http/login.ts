import type { LoggedOut, Me } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import type { FastifyBaseLogger, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Kysely } from 'kysely';
import { z } from 'zod';
import { storeLogins } from '../access/begun-logins.ts';
import type { OidcSettings } from '../access/claims.ts';
import { type ApiKey, findKey, hasScope } from '../access/keys.ts';
import type { Oidc } from '../access/oidc.ts';
import type { LoginError } from '../access/oidc-faults.ts';
import type { Principal } from '../access/principal.ts';
import type { KeyScope } from '../access/scopes.ts';
import { createSessions, type NewSession, type Sessions } from '../access/sessions.ts';
import type { Audit } from '../audit/audit-log.ts';
import { queryWord } from '../intake/query.ts';
import { readJson } from '../intake/read-json.ts';
import type { Database } from '../store/database/database.ts';
import type { KeySchema } from '../store/database/key-schema.ts';
import type { SessionSchema } from '../store/database/session-schema.ts';
import { openPublicAddress, type PublicAddress } from './public-address.ts';

/**
 * Logging in with a browser: a key or an issuer's ID token becomes a session, whose token is in a cookie that scripts
 * cannot read. Cookies are not kept apart by port, so their names hold the port: a server and a registry on one host have
 * two sessions.
 */

export interface LoginOptions {
  readonly db: Kysely<SessionSchema & KeySchema>;
  /** Whether callers must authenticate. If not, there is nothing to log in to. */
  readonly required: boolean;
  /** Who gives access, for those who have none. */
  readonly contact?: string;
  /** The scope that a key needs for a session; any scope if missing. */
  readonly scope?: KeyScope;
  readonly oidc?: Oidc;
  /** The address at which others reach the server. */
  readonly address?: PublicAddress;
  /** Records logins. */
  readonly audit?: Pick<Audit, 'record'>;
  /** Records a login in the transaction of its session; if missing, `audit` does so afterwards. */
  readonly within?: Pick<Database<SessionSchema & KeySchema>, 'transaction'> & Pick<Audit, 'recordIn'>;
  /** Of sessions and keys, ms since 1970; several servers of one database have the same. */
  readonly now?: () => number;
}

export interface Login {
  readonly sessions: Sessions;
  /** Checks the settings against the issuer and logs what does not match; it may take seconds. */
  checkIssuer(logger: Pick<FastifyBaseLogger, 'warn'>): Promise<void>;
  /** Who sends a request, by the cookie of a session or by a token of the issuer. */
  principalOf(request: FastifyRequest): Promise<Principal | undefined>;
  /** @param recognise finds the key for a text, and counts wrong ones. */
  register(app: FastifyInstance, recognise: Recognise): void;
}
type Recognise = (key: string, request: FastifyRequest) => Promise<ApiKey | undefined>;

/**
 * The issuer of these settings; the library that talks to it is loaded only if one is set. `shared`: the database that several
 * servers share, and the clock of all of them.
 */
export async function openOidc(
  settings: OidcSettings | undefined,
  shared?: { readonly db: Kysely<SessionSchema>; now(): number },
): Promise<Oidc | undefined> {
  if (!settings) return undefined;
  const logins = shared && storeLogins(shared.db, shared.now);
  return (await import('../access/oidc.ts')).createOidc({ settings, logins, now: shared?.now });
}

const keySchema = z.strictObject({ key: z.string().max(200) });

export function createLogin(options: LoginOptions): Login {
  const { db, required, contact, scope, oidc, address = openPublicAddress(), now = Date.now } = options;
  const sessions = createSessions({ db, basis: oidc?.basis, now });

  /** Whether the browser speaks TLS, to this server or to a proxy in front of it. */
  function isSecure(request: FastifyRequest): boolean {
    if ((request.raw.socket as { encrypted?: boolean }).encrypted) return true;
    const isPublic = address.url?.startsWith('https:') && address.isUsedBy(request.raw);
    return isPublic || request.headers.origin === `https://${request.headers.host}`;
  }

  const originOf = (request: FastifyRequest) =>
    address.url !== undefined && address.isUsedBy(request.raw)
      ? new URL(address.url).origin
      : `${isSecure(request) ? 'https' : 'http'}://${request.headers.host}`;

  /** The base address by which the browser knows this server. */
  const baseOf = (request: FastifyRequest) =>
    address.url !== undefined && address.isUsedBy(request.raw) ? address.url : originOf(request);

  /** The path to which the browser returns a cookie: a shared host has other programs at other paths. */
  const scopeOf = (request: FastifyRequest): CookieScope => ({
    secure: isSecure(request),
    path: address.isUsedBy(request.raw) ? address.basePath : '',
  });

  /** Whether a page of another origin sends it; another port of this host is another origin, although the same site. */
  function isForeign(request: FastifyRequest): boolean {
    const { origin, 'sec-fetch-site': site } = request.headers;
    if (origin !== undefined && origin !== originOf(request)) return true;
    return site !== undefined && site !== 'same-origin' && site !== 'none';
  }

  /** Whether a cookie counts: only for this server's own page, and a change must declare that it comes from there. */
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

  /** The caller may be unauthenticated: this route checks it, because the access table admits everybody. */
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
    const type = (request.headers['content-type'] ?? '').split(';', 1)[0];
    if (type.trim().toLowerCase() !== 'application/json') {
      throw new TomaatError('UNSUPPORTED_MEDIA', 'A login is JSON: {"key": "tmt_…"}. Send it as such.', {
        field: 'Content-Type',
      });
    }
    if (isForeign(request)) {
      throw new TomaatError(
        'FORBIDDEN',
        'A page of another origin cannot log in here. Open the page of this server itself.',
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
        'This key is unknown, expired or revoked. Check that it was copied completely, or ask the operator of the server for a new one.',
        { field: 'key' },
      );
    }
    if (scope !== undefined && !hasScope(found, scope)) {
      options.audit?.record('login.failed', { keyId: found.id, outcome: 'FORBIDDEN' });
      throw new TomaatError(
        'FORBIDDEN',
        `This key has only the scope ${found.scopes.join(' and ')}, not ${scope}. Use a key with the scope ${scope}.`,
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
    session: NewSession,
  ): Promise<void> {
    const old = sessionToken(request);
    if (old !== undefined) await sessions.close(old);
    const token = await openRecorded(session);
    // Without Max-Age the browser deletes it when it is closed; the server ends the session in any case.
    setCookie(reply, request, sessionCookie, scopeOf(request), token, 'SameSite=Strict');
  }

  async function openRecorded(session: NewSession): Promise<string> {
    const { within } = options;
    const facts = { who: session.owner };
    if (within)
      return within.transaction(async (trx) => {
        const token = await sessions.open(session, trx);
        await within.recordIn(trx, 'login.succeeded', facts);
        return token;
      });
    const token = await sessions.open(session);
    options.audit?.record('login.succeeded', facts);
    return token;
  }

  async function beginOidc(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const returnTo = localPath(queryWord(request, 'return'));
    try {
      const { url, token } = await need(oidc).begin({
        redirectUri: `${baseOf(request)}/auth/oidc/callback`,
        returnTo,
        again: queryWord(request, 'again') !== undefined,
      });
      setCookie(reply, request, loginCookie, scopeOf(request), token, 'SameSite=Lax; Max-Age=600');
      return reply.redirect(url, 303);
    } catch (error) {
      return sendBack(request, reply, returnTo, error);
    }
  }

  async function endOidc(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const token = readCookie(request, loginCookie, isSecure(request));
    const returnTo = (token && (await need(oidc).returnOf(token))) ?? '/';
    setCookie(reply, request, loginCookie, scopeOf(request), '', 'SameSite=Lax; Max-Age=0');
    try {
      const at = request.url.indexOf('?');
      const who = await need(oidc).finish(at < 0 ? '' : request.url.slice(at + 1), token);
      await replaceSession(request, reply, { ...who, basis: need(oidc).basis });
      if (who.warning) request.log.warn(who.warning);
      request.log.info('logged in by the issuer');
    } catch (error) {
      return sendBack(request, reply, returnTo, error);
    }
    return reply.redirect(address.pathOf(returnTo), 303);
  }

  /** A browser gets the page, which says what went wrong; a program gets the Problem. */
  function sendBack(
    request: FastifyRequest,
    reply: FastifyReply,
    returnTo: string,
    error: unknown,
  ): FastifyReply {
    // Recognised by its shape: the class belongs to the library, which is loaded only if an issuer is set.
    const { report, detail } = error as Partial<LoginError>;
    if (report === undefined) throw error;
    const reason = String(detail?.reason);
    const { why, ...said } = report;
    request.log.warn({ reason, ...said }, `a login failed: ${why}`);
    options.audit?.record('login.failed', { outcome: reason });
    if (!/\btext\/html\b/.test(request.headers.accept ?? '')) throw error;
    const url = new URL(returnTo, 'http://page.invalid');
    url.searchParams.set('login-fault', reason);
    return reply.redirect(address.pathOf(localPath(url.pathname + url.search + url.hash)), 303);
  }

  /** Ends the session here, and returns how to end the one at the issuer. */
  async function logOut(request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const token = sessionToken(request);
    const ended = token === undefined ? undefined : await sessions.close(token);
    if (!isForeign(request))
      setCookie(reply, request, sessionCookie, scopeOf(request), '', 'SameSite=Strict; Max-Age=0');
    if (ended?.kind !== 'oidc' || !oidc) return reply.code(204).send();
    const { idToken } = ended;
    const next = await oidc.logoutAddress({ idToken, returnTo: `${baseOf(request)}/` });
    return reply.send({ issuer: { host: oidc.host, address: next } } satisfies LoggedOut);
  }

  return {
    sessions,
    principalOf,
    async checkIssuer(logger) {
      for (const misfit of (await oidc?.check()) ?? []) logger.warn({ issuer: oidc?.host }, misfit);
    },
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
            oidc:
              required && oidc ? { host: oidc.host, address: address.pathOf('/auth/oidc/login') } : undefined,
          },
          contact: required ? contact : undefined,
        };
      });
      app.post('/auth/session', route, async (request, reply) => {
        needLogin(required);
        await logInByKey(request, reply, recognise);
        return reply.code(204).send();
      });
      app.delete('/auth/session', route, logOut);
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
    throw new TomaatError('CONFLICT', 'Login is off here: everything is already open to this machine.');
}

function need(oidc: Oidc | undefined): Oidc {
  if (oidc) return oidc;
  throw new TomaatError(
    'NOT_FOUND',
    'No issuer of logins is set here (--oidc-issuer). Log in with an API key: POST /auth/session.',
  );
}

/**
 * The address to go on to after a login if it is a path of this server, else `/`. An address that a browser reads as another
 * host (`//host`, `/\host`, and anything that resolves to one) does not count.
 */
export function localPath(text: string | undefined): string {
  if (text === undefined || text.length > 2000 || !/^\/[\x21-\x5b\x5d-\x7e]*$/.test(text)) return '/';
  const base = 'http://page.invalid';
  const url = URL.parse(text, base);
  if (!url || url.origin !== base) return '/';
  const path = url.pathname + url.search + url.hash;
  // Never back to a login.
  return /^\/[/\\]/.test(path) || /^\/auth(\/|$)/i.test(path) ? '/' : path;
}

// ---- Cookies ----

const sessionCookie = 'tomaat';
const loginCookie = 'tomaat-login';

interface CookieScope {
  readonly secure: boolean;
  /** The base path of our addresses; empty for the whole host. */
  readonly path: string;
}

const nameOf = (request: FastifyRequest, name: string) => `${name}-${request.raw.socket.localPort ?? 0}`;

/**
 * The prefix of the name under TLS. With `__Host-`, browsers let no page without TLS and no other host set it; a cookie with a
 * path can only use `__Secure-`, which excludes pages without TLS.
 */
const prefixOf = ({ secure, path }: CookieScope) => (!secure ? '' : path === '' ? '__Host-' : '__Secure-');
const prefixes = ['__Host-', '__Secure-', ''];

/** The value of the best protected cookie of that name: not every proxy reports whether the browser uses TLS. */
function readCookie(request: FastifyRequest, name: string, secure: boolean): string | undefined {
  const values = new Map<string, string>();
  for (const pair of (request.headers.cookie ?? '').split(';')) {
    const at = pair.indexOf('=');
    const key = pair.slice(0, at).trim();
    // Browsers send the cookie with the longest path first.
    if (!values.has(key)) values.set(key, pair.slice(at + 1).trim());
  }
  for (const prefix of secure ? prefixes.slice(0, 2) : prefixes) {
    const value = values.get(prefix + nameOf(request, name));
    if (value) return value;
  }
  return undefined;
}

function setCookie(
  reply: FastifyReply,
  request: FastifyRequest,
  name: string,
  scope: CookieScope,
  value: string,
  rest: string,
): void {
  const key = prefixOf(scope) + nameOf(request, name);
  const cookie = `${key}=${value}; Path=${scope.path || '/'}; HttpOnly; ${rest}${scope.secure ? '; Secure' : ''}`;
  reply.header('set-cookie', cookie);
}
