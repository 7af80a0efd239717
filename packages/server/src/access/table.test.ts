import { describe, expect, it } from 'vitest';
import { type Expected, gatewayNeeds, registryNeeds, serverNeeds } from '../../test/route-needs.ts';
import { keyScopes } from './scopes.ts';
import { faceOf, isPageFile, needOf, scopeFor } from './table.ts';

/** The hand-written table of the same facts, in the words of this one. */
const needs: Record<Expected, string> = {
  nothing: 'public',
  'a page': 'page',
  predict: 'predict',
  announce: 'announce',
  worker: 'worker',
  metrics: 'metrics',
  admin: 'admin',
};
const rows = [...new Map([...serverNeeds, ...registryNeeds, ...gatewayNeeds])].map(
  ([route, { need, legacy }]) => {
    const [method, url] = route.split(' ');
    return { method, url, need: needs[need], legacy };
  },
);

describe('needOf()', () => {
  it.each(rows)('$method $url needs: $need', ({ method, url, need }) => {
    expect(needOf(method, url)).toBe(need);
  });

  it('is the same for server, registry and gateway', () => {
    for (const [route, { need }] of [...registryNeeds, ...gatewayNeeds])
      expect(serverNeeds.get(route)?.need ?? need, route).toBe(need);
  });

  it.each([
    ['GET', '/auth/anything/below', 'page'],
    ['HEAD', '/auth/me', 'page'],
    ['POST', '/auth/session', 'public'],
    ['DELETE', '/auth/session', 'public'],
    ['GET', '/assets/*', 'public'],
    ['HEAD', '/assets/a.js', 'public'],
    ['OPTIONS', '/services/:id/responses', 'predict'],
  ])('%s %s: %s, by the first part of the address', (method, url, need) => {
    expect(needOf(method, url)).toBe(need);
  });

  it.each([
    ['GET', '/unknown'],
    ['GET', ''],
    ['GET', '/auth'],
    ['GET', '/assets'],
    ['PUT', '/auth/session'],
    ['POST', '/assets/a.js'],
    ['POST', '/'],
    ['OPTIONS', '/api/services'],
    // HEAD is no reason for GET.
    ['GET', '/api/uploads/:id'],
    ['GET', '/api/blobs/:digest'],
    ['HEAD', '/api/worker/claim'],
    ['get', '/jobs'],
    ['constructor', ''],
    ['__proto__', ''],
  ])('%s %s has no row', (method, url) => {
    expect(needOf(method, url)).toBeUndefined();
  });
});

describe('scopeFor', () => {
  it('names a scope of keys for each need but those of everybody', () => {
    for (const [need, scope] of Object.entries(scopeFor)) {
      expect(scope).toBe(need);
      expect(keyScopes).toContain(scope);
    }
    expect(Object.keys(scopeFor).sort()).toEqual(['admin', 'announce', 'metrics', 'predict', 'worker']);
  });
});

describe('faceOf()', () => {
  it('is the face of the table, and none for everything else', () => {
    const v1 = rows.filter(({ legacy }) => legacy === 'v1').map(({ url }) => url);
    expect(new Set(v1).size).toBeGreaterThanOrEqual(8);
    for (const { url, legacy } of rows) expect(faceOf(url), url).toBe(legacy);
    for (const url of ['/services/:id/interface/', '/x/predict', '/services/:id/discover', '/announce/x', ''])
      expect(faceOf(url), url).toBeUndefined();
    for (const url of ['/monailabel', '/monailabelx/info', '/x/monailabel/info', '/:task/:anatomy'])
      expect(faceOf(url), url).toBeUndefined();
  });
});

describe('isPageFile()', () => {
  it('is the route of scripts and styles alone', () => {
    expect(isPageFile('/assets/*')).toBe(true);
    for (const route of [undefined, '', '/', '/assets', '/assets/a.js', '/auth/*'])
      expect(isPageFile(route), route).toBe(false);
  });
});
