import fastify from 'fastify';
import { afterEach, describe, expect, it } from 'vitest';
import { takeFaults } from './check-answers.ts';

/* What every other test of the API relies on: an answer that is not as the contract says is noticed. */

let app = fastify();
afterEach(() => app.close());

async function faultsOf(answer: unknown, status = 200, type = 'application/json'): Promise<string[]> {
  await app.close();
  app = fastify();
  app.get('/health/live', (_request, reply) => reply.code(status).type(type).send(answer));
  await app.inject('/health/live');
  return takeFaults();
}

describe('check-answers', () => {
  it('takes what the contract says', async () => {
    expect(await faultsOf({ status: 'live' })).toEqual([]);
  });

  it('notices a wrong value, a field too many, another type and another status', async () => {
    expect(await faultsOf({ status: 'dead' })).toEqual([
      expect.stringMatching(/^GET \/health\/live, 200: status: /),
    ]);
    expect(await faultsOf({ status: 'live', more: 1 })).toEqual([expect.stringContaining('does not have')]);
    expect(await faultsOf('live', 200, 'text/plain')).toEqual([expect.stringContaining('text/plain')]);
    expect(await faultsOf({ status: 'live' }, 202)).toEqual([expect.stringContaining('no such status')]);
  });

  it('notices an invalid Problem', async () => {
    const type = 'application/problem+json';
    expect(await faultsOf({ title: 'x' }, 500, type)).toEqual([expect.stringContaining('code: ')]);
  });
});
