import type { FastifyRequest } from 'fastify';
import type { KeyScope } from './keys.ts';

/**
 * Who sends a request: told once, by the hook of access.ts, before any route runs. `owner` is whose jobs, uploads and
 * results are seen; it stays the same over sessions and restarts.
 */
export interface Principal {
  /** `anonymous` without login, `key:<id>` for an API key and its sessions, `oidc:<issuer>|<subject>`, `legacy:<address>`. */
  readonly owner: string;
  readonly scopes: readonly KeyScope[];
  /** How the caller was recognised. */
  readonly via: 'open' | 'key' | 'session' | 'legacy';
  /** Of an API key or of the key that a session was opened with; it may be logged. */
  readonly keyId?: string;
}

/** Without login everything but a worker's and an announcer's work is open to this machine. */
export const openPrincipal: Principal = { owner: 'anonymous', scopes: ['predict'], via: 'open' };

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the access hook; undefined only where nobody has to be anybody. */
    principal?: Principal;
  }
}

export const ownerOf = (request: FastifyRequest): string => (request.principal ?? openPrincipal).owner;
