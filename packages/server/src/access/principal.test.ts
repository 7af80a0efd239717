import { fastify } from 'fastify';
import { describe, expect, it } from 'vitest';
import type { ApiKey } from './keys.ts';
import { openPrincipal, ownerOf, principalOf } from './principal.ts';

const key: ApiKey = {
  id: 'abcdefghij',
  label: 'ward 3',
  scopes: ['announce', 'worker'],
  createdTime: '2026-01-02T03:04:05.000Z',
  limits: { maxJobs: 3, perDay: 7 },
};

describe('principalOf()', () => {
  it('is the same owner by the key and by its sessions', () => {
    const principal = {
      owner: 'key:abcdefghij',
      scopes: key.scopes,
      keyId: 'abcdefghij',
      limits: key.limits,
    };
    expect(principalOf(key)).toEqual({ ...principal, via: 'key' });
    expect(principalOf(key, 'session')).toEqual({ ...principal, via: 'session' });
    expect(principalOf({ ...key, limits: undefined }).limits).toBeUndefined();
  });
});

describe('openPrincipal', () => {
  it('may predict, and nothing that needs a key', () => {
    expect(openPrincipal).toEqual({ owner: 'anonymous', scopes: ['predict'], via: 'open' });
  });
});

describe('ownerOf()', () => {
  it('is the owner, or an internal error on a route without one', async () => {
    const app = fastify();
    app.addHook('onRequest', async (request) => {
      if (request.url === '/somebody') request.principal = principalOf(key);
    });
    const owner = async (request: Parameters<typeof ownerOf>[0]) => {
      try {
        return ownerOf(request);
      } catch (error) {
        return (error as { code: string }).code + (error as Error).message;
      }
    };
    app.get('/somebody', owner);
    app.get('/nobody', owner);
    expect((await app.inject('/somebody')).body).toBe('key:abcdefghij');
    expect((await app.inject('/nobody')).body).toMatch(/^INTERNAL.*GET \/nobody/);
  });
});
