import { once } from 'node:events';
import { Agent, get, type IncomingMessage } from 'node:http';
import fastify, { type FastifyInstance } from 'fastify';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type OpenRequests, trackRequests } from './open-requests.ts';

let app: FastifyInstance;
let requests: OpenRequests;
let answer: () => void;
let arrived: Promise<void>;
let url: string;
beforeEach(async () => {
  app = fastify({ forceCloseConnections: true });
  requests = trackRequests(app);
  const until = new Promise<void>((resolve) => {
    answer = resolve;
  });
  let arrive = () => {};
  arrived = new Promise((resolve) => {
    arrive = resolve;
  });
  app.get('/slow', async () => {
    arrive();
    await until;
    return 'done';
  });
  app.get('/quick', async () => 'done');
  url = await app.listen({ port: 0 });
});
afterEach(() => app.close());

describe('answered()', () => {
  it('waits for the answer of each open request', async () => {
    await requests.answered(60_000);
    const responses = Promise.all([fetch(`${url}/slow`), fetch(`${url}/slow`)]);
    await arrived;
    let isAnswered = false;
    const waiting = requests.answered(60_000).then(() => {
      isAnswered = true;
    });
    expect(await (await fetch(`${url}/quick`)).text()).toBe('done');
    expect(isAnswered).toBe(false);
    answer();
    for (const response of await responses) expect(await response.text()).toBe('done');
    await waiting;
  });

  it('does not wait for a client that has gone, nor longer than the limit', async () => {
    const leaving = new AbortController();
    const gone = fetch(`${url}/slow`, { signal: leaving.signal });
    gone.catch(() => {});
    await arrived;
    const begunMs = performance.now();
    await requests.answered(50);
    expect(performance.now() - begunMs).toBeGreaterThan(40);
    const waiting = requests.answered(60_000);
    leaving.abort();
    await waiting;
  });
});

describe('leave()', () => {
  it('ends a kept connection with its next answer', async () => {
    const agent = new Agent({ keepAlive: true });
    const ask = async () => {
      const [response] = (await once(get(`${url}/quick`, { agent }), 'response')) as [IncomingMessage];
      response.resume();
      await once(response, 'end');
      return response.headers.connection;
    };
    expect(await ask()).toBe('keep-alive');
    requests.leave();
    expect(await ask()).toBe('close');
    agent.destroy();
  });
});
