import { exposedHeaders } from '@tomaat/client';
import { fastify } from 'fastify';
import { describe, expect, it } from 'vitest';
import { allowOrigin, answerPreflight, isPreflight } from './cors.ts';

function openApp() {
  const app = fastify();
  app.addHook('onRequest', async (request, reply) => {
    allowOrigin('https://viewer.example', reply);
    if (isPreflight(request)) return answerPreflight(request, reply);
  });
  app.route({ method: ['GET', 'OPTIONS'], url: '/', handler: async () => 'a route' });
  return app;
}
const ask = (method: 'GET' | 'OPTIONS', headers: Record<string, string> = {}) =>
  openApp().inject({ method, url: '/', headers });

describe('allowOrigin()', () => {
  it('lets one origin read the answer and our headers', async () => {
    const { headers } = await ask('GET');
    expect(headers).toMatchObject({
      'access-control-allow-origin': 'https://viewer.example',
      'access-control-expose-headers': exposedHeaders.join(', '),
      vary: 'Origin',
    });
    expect(headers['access-control-allow-methods']).toBeUndefined();
  });
});

describe('isPreflight()', () => {
  it('is OPTIONS that asks for a method, and nothing else', async () => {
    const asks = { 'access-control-request-method': 'PUT' };
    expect((await ask('OPTIONS', asks)).statusCode).toBe(204);
    expect((await ask('OPTIONS', { 'access-control-request-method': '' })).statusCode).toBe(204);
    expect((await ask('OPTIONS')).body).toBe('a route');
    expect((await ask('GET', asks)).body).toBe('a route');
  });
});

describe('answerPreflight()', () => {
  const allowedFor = async (asked?: string) => {
    const { statusCode, headers, body } = await ask('OPTIONS', {
      'access-control-request-method': 'PUT',
      ...(asked !== undefined && { 'access-control-request-headers': asked }),
    });
    expect([statusCode, body]).toEqual([204, '']);
    return headers;
  };

  it('allows all methods for ten minutes', async () => {
    expect(await allowedFor()).toMatchObject({
      'access-control-allow-origin': 'https://viewer.example',
      'access-control-allow-methods': 'GET, HEAD, POST, PUT, PATCH, DELETE',
      'access-control-max-age': '600',
    });
  });

  it.each([
    [undefined, 'authorization, content-type'],
    ['', ''],
    ['x-one', 'x-one'],
    ['x-one,  Upload-Offset ,authorization', 'x-one, Upload-Offset, authorization'],
    ["!#$%&'*+.^_`|~-09aZ", "!#$%&'*+.^_`|~-09aZ"],
    ['a b, x-one, ä, (c), "d", e:f, , x-two', 'x-one, x-two'],
    ['x'.repeat(100), 'x'.repeat(100)],
    [`${'x'.repeat(101)}, y`, 'y'],
  ])('of the headers %j it allows %j', async (asked, allowed) => {
    expect((await allowedFor(asked))['access-control-allow-headers']).toBe(allowed);
  });

  it('allows as many headers as fit into 1000 characters', async () => {
    // With comma and space, each has 100 characters.
    const names = Array.from({ length: 12 }, (_, i) => String(i).padStart(98, 'x'));
    const allowed = async (asked: string[]) =>
      String((await allowedFor(asked.join()))['access-control-allow-headers']).split(', ');
    expect(await allowed(names)).toEqual(names.slice(0, 10));
    const longer = [...names.slice(0, 9), `${names[9]}y`, 'z'];
    expect(await allowed(longer)).toEqual(names.slice(0, 9));
  });
});
