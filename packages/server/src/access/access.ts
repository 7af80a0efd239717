import type { IncomingMessage } from 'node:http';
import { TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Kysely } from 'kysely';
import { unmapped } from '../addresses.ts';
import type { Audit } from '../audit/audit-log.ts';
import { queryWord } from '../intake/query.ts';
import { sendProblem } from '../problem/problem.ts';
import { type FaceName, faceTitles, settings } from '../settings.ts';
import type { KeySchema } from '../store/database/key-schema.ts';
import { allowOrigin, answerPreflight, isPreflight } from './cors.ts';
import { type HostPolicy, isNavigation } from './hosts.ts';
import { type ApiKey, bearerOf, findKey, hasScope } from './keys.ts';
import { openPrincipal, type Principal, principalOf } from './principal.ts';
import { addressKey, createRateLimit } from './rate-limit.ts';
import type { KeyScope } from './scopes.ts';
import { faceOf, isPageFile, type Need, needOf, scopeFor } from './table.ts';

/**
 * Access control: one hook before every route, including the fallback for unknown addresses and every method. It rejects
 * requests for another host name or from another site's page, identifies the caller, and compares the caller with the
 * table. Routes check none of this themselves.
 */

export interface AccessOptions {
  keys: Kysely<KeySchema>;
  hosts: HostPolicy;
  /** Whether callers must authenticate. */
  login?: boolean;
  /** The principal of a browser session or an issuer's token. */
  sessions?: FindSession;
  /** The faces of the legacy listener; TOMAAT v1 if missing. */
  legacyFaces?: readonly FaceName[];
  /** Requests per minute that one address may send to the legacy listener. */
  legacyPerMinute?: number;
  /** Records refusals; it must limit how many lines they produce. */
  audit?: Pick<Audit, 'record'>;
  /** Pseudonyms for owners that would identify a caller. */
  storedOwner?(owner: string): string;
  /** Sent with a 401 response. */
  realm: string;
  now?: () => number;
}

export type FindSession = (request: FastifyRequest) => Promise<Principal | undefined>;

export interface Access {
  /** Every route of the app with what it needs. */
  readonly routes: readonly { method: string; url: string; need: Need }[];
  /**
   * The valid key for a text, if any, for a protocol that does not carry the key in the header.
   * @throws TomaatError LIMIT_REACHED after too many wrong keys from this address.
   */
  recognise(key: string, request: FastifyRequest): Promise<ApiKey | undefined>;
}

/** How a key is passed to the command line. */
const flagsFor: Record<KeyScope, string> = {
  predict: '--api-key or TOMAAT_API_KEY',
  admin: '--api-key or TOMAAT_API_KEY',
  announce: '--announce-key or TOMAAT_ANNOUNCE_KEY',
  worker: '--token or TOMAAT_WORKER_TOKEN',
  metrics: '--api-key or TOMAAT_API_KEY',
};

/** Invalid keys per minute and address that are counted individually. */
const failuresPerMinute = 60;

/** Responses that refuse a caller, by their names in the audit log. */
const refusals: Readonly<Record<number, string>> = {
  401: 'UNAUTHORIZED',
  403: 'FORBIDDEN',
  421: 'MISDIRECTED',
};

const legacyRequests = new WeakSet<IncomingMessage>();
/** Marks a request that arrived through the legacy listener. */
export function markLegacy(request: IncomingMessage): void {
  legacyRequests.add(request);
}

/** Call it before the first route is registered. @throws (at a route) if the table has no row for it. */
export function registerAccess(app: FastifyInstance, options: AccessOptions): Access {
  const { keys, hosts, login = false, sessions, now = Date.now, storedOwner = (owner) => owner } = options;
  const { legacyFaces = ['v1'] } = options;
  const routes: { method: string; url: string; need: Need }[] = [];
  const failures = createRateLimit(failuresPerMinute);
  const legacyRate = createRateLimit(options.legacyPerMinute ?? settings.legacyPerMinute.default);
  /** Callers that are authenticated, but lack a scope. */
  const refused = new WeakMap<FastifyRequest, Principal>();
  const noted = new WeakSet<FastifyRequest>();

  app.addHook('onRoute', ({ method, url }) => {
    for (const one of [method].flat()) {
      const need = needOf(one, url);
      if (!need)
        throw new Error(`${one} ${url} has no row in access/table.ts. Add one that states what it needs.`);
      routes.push({ method: one, url, need });
    }
  });

  app.decorateRequest('principal', undefined);
  app.addHook('onRequest', async (request, reply) => {
    try {
      const need = needAt(request);
      hosts.checkHost(request.raw);
      if (!isPageFile(request.routeOptions.url)) hosts.checkOrigin(request.raw, need === 'page');
      if (request.routeOptions.url === '/auth/me') checkPage(request);
      if (reply.hasHeader('access-control-allow-origin') && isPreflight(request))
        return answerPreflight(request, reply);
      request.principal = await findPrincipal(request, need);
    } catch (error) {
      // Not thrown: a route's own error handling starts after this hook.
      if (error instanceof TomaatError && error.code === 'UNAUTHORIZED')
        reply.header('www-authenticate', `Bearer realm="${options.realm}"`);
      return sendProblem(error, request, reply);
    }
  });

  app.letRead = (request, reply) => {
    const origin = hosts.allowedOrigin(request.raw);
    if (origin !== undefined) allowOrigin(origin, reply);
  };

  /** The page states its address: a browser sends no Origin with same-origin requests. */
  function checkPage(request: FastifyRequest): void {
    const page = queryWord(request, 'page');
    if (page !== undefined) hosts.checkPage(request.raw, page);
  }

  // Based on the response, so that no refusal is missed, whichever route decides it.
  app.addHook('onResponse', async (request, reply) => {
    const outcome = refusals[reply.statusCode];
    const isLimit = reply.statusCode === 429 && request.principal === undefined;
    if (outcome !== undefined || isLimit) note(request, outcome ?? 'LIMIT_REACHED');
  });

  /** Records that a request was refused, once. */
  function note(request: FastifyRequest, outcome: string): void {
    if (noted.has(request)) return;
    noted.add(request);
    const caller = request.principal ?? refused.get(request);
    options.audit?.record('access.denied', {
      who: caller?.owner,
      keyId: caller?.keyId,
      route: `${request.method} ${request.routeOptions.url ?? '(none)'}`,
      outcome,
    });
  }

  /** Undefined if there is no route: callers must authenticate, but need no scope. */
  function needAt(request: FastifyRequest): Need | undefined {
    const { url } = request.routeOptions;
    if (!request.is404 && url !== undefined) return needOf(request.method, url);
    // A wrong link is reported as wrong, whether or not the caller is logged in.
    return isNavigation(request.raw) ? 'page' : undefined;
  }

  async function findPrincipal(
    request: FastifyRequest,
    need: Need | undefined,
  ): Promise<Principal | undefined> {
    if (legacyRequests.has(request.raw)) return legacyPrincipal(request);
    if (need === 'public' || need === 'page') return undefined;
    const scope = need && scopeFor[need];
    if (!login && scope !== 'worker' && scope !== 'announce') return openPrincipal;
    const principal = await authenticate(request, scope);
    if (scope && !hasScope(principal, scope)) {
      refused.set(request, principal);
      const who = principal.keyId ? `The API key ${principal.keyId}` : 'Your login';
      throw new TomaatError(
        'FORBIDDEN',
        `${who} lacks the scope ${scope}, which this request requires. Use a key or login that has it.`,
      );
    }
    return principal;
  }

  async function authenticate(request: FastifyRequest, scope: KeyScope | undefined): Promise<Principal> {
    const { authorization } = request.headers;
    const token = bearerOf(authorization);
    // An issuer's token is not one of our keys; a request with our key in the header is not identified by its cookie.
    if (authorization === undefined || !token?.startsWith('tmt_')) {
      const session = await sessions?.(request);
      if (session) return session;
    }
    if (token !== undefined) {
      const key = await recognise(token, request);
      if (key) return principalOf(key);
    }
    const inCode = scope === 'announce' || scope === 'worker' ? '' : 'createClient takes it as apiKey, ';
    const use = `${inCode}commands of tomaat as ${flagsFor[scope ?? 'predict']}`;
    throw new TomaatError(
      'UNAUTHORIZED',
      token === undefined
        ? `An API key${scope ? ` with the scope ${scope}` : ''} is required: send the header 'Authorization: Bearer tmt_…' (${use}). The operator creates one with 'tomaat keys create${scope ? ` --scope ${scope}` : ''}'.`
        : `The API key is unknown, expired or revoked. The operator creates a new one with 'tomaat keys create'; ${use}.`,
    );
  }

  async function recognise(text: string, request: FastifyRequest): Promise<ApiKey | undefined> {
    const key = await findKey(keys, text, now());
    if (key) return key;
    // Keys have 256 random bits, so they cannot be guessed. The limit saves work and log lines; a valid key passes
    // whatever others behind the same proxy tried.
    const waitSeconds = failures.take(addressKey(request.raw.socket.remoteAddress));
    if (waitSeconds === 0) {
      // A protocol with its own responses may hide this one.
      note(request, 'UNAUTHORIZED');
      return undefined;
    }
    throw new TomaatError(
      'LIMIT_REACHED',
      `Too many invalid API keys from this address. Use a valid one, or try again in ${waitSeconds} s.`,
      { detail: { retryAfterSeconds: waitSeconds } },
    );
  }

  function legacyPrincipal(request: FastifyRequest): Principal {
    const address = request.raw.socket.remoteAddress ?? 'unknown';
    const waitSeconds = legacyRate.take(addressKey(address));
    if (waitSeconds > 0) {
      throw new TomaatError(
        'LIMIT_REACHED',
        `Rate limit exceeded: too many unauthenticated requests from this address. Try again in ${waitSeconds} s.`,
        { detail: { retryAfterSeconds: waitSeconds } },
      );
    }
    const { url } = request.routeOptions;
    const face = request.is404 || url === undefined ? undefined : faceOf(url);
    if (face === undefined || !legacyFaces.includes(face)) {
      const titles = legacyFaces.map((name) => faceTitles[name]).join(' and ');
      throw new TomaatError(
        'NOT_FOUND',
        `There is nothing at this address: this port serves only ${titles}. Use another port for everything else.`,
      );
    }
    return {
      owner: storedOwner(`legacy:${unmapped(address)}`),
      scopes: ['predict'],
      via: 'legacy',
    };
  }

  return { routes, recognise };
}
