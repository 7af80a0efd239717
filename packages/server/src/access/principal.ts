import { TomaatError } from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import type { ApiKey, KeyLimits } from './keys.ts';
import type { KeyScope } from './scopes.ts';

/**
 * Who sends a request, determined once by the hook of access.ts before any route runs. `owner` is whose jobs, uploads and
 * results are visible; it stays the same across sessions and restarts.
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
  /** Of an API key or of the key that a session was opened with; it may be logged. */
  readonly keyId?: string;
  /** The limits of the key. */
  readonly limits?: KeyLimits;
}

/** Without login everything but a worker's and an announcer's work is open to this machine. */
export const openPrincipal: Principal = { owner: 'anonymous', scopes: ['predict'], via: 'open' };

/** Who a key is, also through a session that was opened with it. */
export function principalOf(key: ApiKey, via: 'key' | 'session' = 'key'): Principal {
  return { owner: `key:${key.id}`, scopes: key.scopes, via, keyId: key.id, limits: key.limits };
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the access hook; undefined only on public routes. */
    principal?: Principal;
  }
}

/** @throws TomaatError INTERNAL on a public route: nothing there may have an owner. */
export function ownerOf(request: FastifyRequest): string {
  if (request.principal) return request.principal.owner;
  throw new TomaatError('INTERNAL', `nobody is known at ${request.method} ${request.routeOptions.url}`);
}
