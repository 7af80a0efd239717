import { TomaatError } from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import type { ApiKey, KeyLimits } from './keys.ts';
import type { KeyScope } from './scopes.ts';

/**
 * The caller of a request, determined once by the hook of access.ts before any route runs. The jobs, uploads and results
 * of `owner` are visible to it; the owner stays the same across sessions and restarts.
 */
export interface Principal {
  /**
   * `anonymous` without login, `key:<id>` for an API key and its sessions, `oidc:` and `legacy:` with a pseudonym
   * (access/pseudonyms.ts).
   */
  readonly owner: string;
  readonly scopes: readonly KeyScope[];
  /** How the caller was recognised. */
  readonly via: 'open' | 'key' | 'session' | 'legacy';
  /** The id of the API key, or of the key that the session was opened with; it may be logged. */
  readonly keyId?: string;
  /** The limits of the key. */
  readonly limits?: KeyLimits;
}

/** Without login everything except a worker's and an announcer's work is open to this machine. */
export const openPrincipal: Principal = { owner: 'anonymous', scopes: ['predict'], via: 'open' };

/** The principal of a key, or of a session that was opened with it. */
export function principalOf(key: ApiKey, via: 'key' | 'session' = 'key'): Principal {
  return { owner: `key:${key.id}`, scopes: key.scopes, via, keyId: key.id, limits: key.limits };
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the access hook; undefined only on public routes. */
    principal?: Principal;
  }
}

/** @throws TomaatError INTERNAL on a public route, which must not use an owner. */
export function ownerOf(request: FastifyRequest): string {
  if (request.principal) return request.principal.owner;
  throw new TomaatError(
    'INTERNAL',
    `the route ${request.method} ${request.routeOptions.url} is public and has no owner`,
  );
}
