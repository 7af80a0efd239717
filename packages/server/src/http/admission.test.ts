import { once } from 'node:events';
import { createServer, type Server, request as send } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import type { FastifyRequest } from 'fastify';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Jobs } from '../store/jobs/jobs.ts';
import { createAdmission } from './admission.ts';

const body = Buffer.alloc(1000, 7);
const principal = { owner: 'ward' } as FastifyRequest['principal'];

describe('createAdmission()', () => {
  let server: Server;
  let port: number;
  /** Of the requests that were admitted. */
  let bodies: Disposable[];

  beforeEach(async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    bodies = [];
    const room = async () => {};
    const jobs = { requireRoom: room, requireLimits: room } as unknown as Jobs;
    const admission = createAdmission(jobs, { maxBodies: 2 });
    server = createServer(async (raw, response) => {
      try {
        bodies.push(await admission.enter({ raw, headers: raw.headers, principal } as FastifyRequest));
        raw.resume();
        response.write('admitted');
      } catch {
        response.writeHead(503).end();
      }
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    port = (server.address() as AddressInfo).port;
  });
  afterEach(() => {
    vi.useRealTimers();
    server.closeAllConnections();
    server.close();
  });

  /** Sends all of a body: the status, and whether the connection was ended since. */
  async function post() {
    const sent = send({ port, method: 'POST' }).end(body);
    const [response] = await once(sent, 'response');
    response.on('error', () => {});
    if (response.statusCode === 200) await once(response, 'data');
    return { status: response.statusCode as number, isEnded: () => response.destroyed as boolean };
  }
  async function drip() {
    const socket = connect(port, '127.0.0.1').on('error', () => {});
    socket.write(
      `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body.subarray(0, 10)}`,
    );
    await once(socket, 'data');
    return socket;
  }

  it('disconnects a slow sender for another, and nobody who has sent all', async () => {
    const first = await post();
    const slow = await drip();
    vi.advanceTimersByTime(10_000);
    const second = await post();
    await once(slow, 'close');
    vi.advanceTimersByTime(10_000);
    const third = await post();
    expect([first, second, third].map(({ status }) => status)).toEqual([200, 200, 503]);
    expect([first.isEnded(), second.isEnded()]).toEqual([false, false]);
    bodies.at(-1)![Symbol.dispose]();
    expect((await post()).status).toBe(200);
  });
});
