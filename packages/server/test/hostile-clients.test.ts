import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { goodFile } from '../../core/test/bad-files.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { watchMemory } from './hostile.ts';
import { type RealServer, startRealServer } from './real-server.ts';
import { temporaryFolder } from './test-server.ts';

/*
 * Clients that take their time on purpose: 200 that drip a header and 200 that drip a body, then 100 that ask for a large
 * result and do not take it. Each is hung up on; meanwhile the server says that it lives, and predicts for others.
 */

const patienceMs = 4000;
const headersMs = 15_000;

let server: RealServer;
let volume: Buffer;
beforeAll(async () => {
  volume = Buffer.from(await goodFile('nii.gz'));
  const folder = await temporaryFolder();
  const apps = [
    await writeApp(folder, 'bright', { infer: inferBright }),
    // 24 MB of labels that pack badly, as text of a report: more than any socket's buffer holds.
    await writeApp(folder, 'large', {
      infer: "return { report: require('node:crypto').randomBytes(12e6).toString('hex') };".replace(
        "require('node:crypto')",
        "(await import('node:crypto'))",
      ),
      outputs: { report: { type: 'PlainText' } },
    }),
  ];
  server = await startRealServer(apps, { patienceMs, minBytesPerSecond: 8192, workers: 2 });
});
afterAll(() => server?.[Symbol.asyncDispose]());

const headers = { 'content-type': 'application/octet-stream' };
const predict = async () => {
  const answer = await fetch(`${server.url}/bright/any`, {
    method: 'POST',
    headers,
    body: Uint8Array.from(volume),
  });
  await answer.arrayBuffer();
  return answer.status;
};

interface Attacker {
  socket: Socket;
  /** ms until the server hung up; undefined while it has not. */
  closedMs?: number;
  text: string;
}

/** Connects, sends what it is given, then a byte a second, and reads what comes unless it is told not to. */
function attack(first: string | Buffer, drip: string | undefined, reads = true): Attacker {
  const start = performance.now();
  const socket = connect(server.port, '127.0.0.1');
  const attacker: Attacker = { socket, text: '' };
  const timer =
    drip === undefined ? undefined : setInterval(() => socket.writable && socket.write(drip), 1000);
  if (reads) {
    socket.on('data', (chunk) => {
      attacker.text += chunk.toString('latin1');
    });
  } else socket.pause();
  const closed = () => {
    attacker.closedMs ??= performance.now() - start;
    clearInterval(timer);
  };
  socket.on('end', () => {
    closed();
    socket.destroy();
  });
  socket.on('error', closed).on('close', closed);
  socket.write(first);
  return attacker;
}

it('hundreds of slow clients are disconnected while the server serves others', {
  timeout: 90_000,
}, async () => {
  expect(await predict()).toBe(200);
  const created = await fetch(`${server.url}/api/services/large/predictions`, {
    method: 'POST',
    headers: { ...headers, prefer: 'wait=30' },
    body: Uint8Array.from(volume),
  });
  const job = (await created.json()) as { id: string; state: string };
  expect(job.state).toBe('succeeded');
  const calm: number[] = [];
  for (let i = 0; i < 10; i++) {
    const asked = performance.now();
    await (await fetch(`${server.url}/health/live`)).arrayBuffer();
    calm.push(performance.now() - asked);
  }
  // A heap that has seen some work, so that what grows is what the clients hold.
  for (let i = 0; i < 150; i++) await predict();
  const memory = watchMemory(server.pid);

  const head = `POST /bright/any HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n`;
  const dripHeaders = Array.from({ length: 200 }, () => attack(head, 'X'));
  const dripBodies = Array.from({ length: 200 }, () =>
    attack(
      Buffer.concat([
        Buffer.from(`${head}Content-Length: ${volume.length + 1000}\r\n\r\n`),
        volume.subarray(0, 300),
      ]),
      'x',
    ),
  );

  const alive: number[] = [];
  const predictions: { atMs: number; status: number }[] = [];
  const start = performance.now();
  while (
    performance.now() - start < headersMs + 8000 &&
    [...dripHeaders, ...dripBodies].some((a) => a.closedMs === undefined)
  ) {
    const asked = performance.now();
    const answer = await fetch(`${server.url}/health/live`);
    await answer.arrayBuffer();
    expect(answer.status).toBe(200);
    alive.push(performance.now() - asked);
    predictions.push({ atMs: performance.now() - start, status: await predict() });
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  alive.sort((a, b) => a - b);
  // While all bodies are young, nobody is the slow one who has to make room: then, and then only, the answer is to come again.
  const refused = predictions.filter(({ status }) => status !== 200);
  expect(refused.filter(({ atMs, status }) => status !== 503 || atMs > 3000)).toEqual([]);
  expect(predictions.length).toBeGreaterThan(2 * refused.length + 2);
  // Generous: the attackers run in this process, on the same cores, of a machine that may be busy with much else.
  expect(alive[Math.floor(alive.length * 0.9)]).toBeLessThan(Math.max(1000, 20 * Math.max(...calm)));
  for (const { closedMs, text } of dripHeaders) {
    expect(closedMs).toBeLessThan(headersMs + 5000);
    expect(text).toMatch(/^HTTP\/1\.1 408|^$/);
  }
  // Told so after the patience; then their rest is taken in for a while, so that they get round to reading it.
  for (const { closedMs } of dripBodies) expect(closedMs).toBeLessThan(patienceMs + 25_000);
  expect(memory.growthBytes(), 'growth of the memory').toBeLessThan(64e6);

  const stalled = Array.from({ length: 100 }, () =>
    attack(`GET /api/jobs/${job.id}/outputs/report HTTP/1.1\r\nHost: localhost\r\n\r\n`, undefined, false),
  );
  const openFiles = async () =>
    Number(/^process_open_fds (\d+)/m.exec(await (await fetch(`${server.url}/metrics`)).text())?.[1]);
  await expect.poll(openFiles, { timeout: 20_000, interval: 20 }).toBeGreaterThan(100);
  expect(await predict()).toBe(200);
  // Who does not read does not see that the connection was ended: the server's side tells.
  await expect.poll(openFiles, { timeout: 15_000, interval: 200 }).toBeLessThan(100);
  // The system takes in megabytes for each before any of them is slow; that much is read and let go of.
  expect(memory.growthBytes(), 'growth of the memory').toBeLessThan(160e6);
  for (const { socket } of [...dripHeaders, ...dripBodies, ...stalled]) socket.destroy();
  await fetch(`${server.url}/api/jobs/${job.id}`, { method: 'DELETE' });
  await expect.poll(() => server.files(), { timeout: 20_000, interval: 20 }).toEqual([]);
});

it('a slow reader that keeps the minimum pace gets the whole result', async () => {
  const created = await fetch(`${server.url}/api/services/large/predictions`, {
    method: 'POST',
    headers: { ...headers, prefer: 'wait=30' },
    body: Uint8Array.from(volume),
  });
  const job = (await created.json()) as { id: string };
  const socket = connect(server.port, '127.0.0.1');
  socket.write(
    `GET /api/jobs/${job.id}/outputs/report HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`,
  );
  let bytes = 0;
  // A pause longer than the patience altogether, in steps shorter than it; about 4 MB/s in between.
  const ended = new Promise<void>((resolve) => socket.on('close', () => resolve()));
  socket.on('data', (chunk) => {
    bytes += chunk.length;
    socket.pause();
    setTimeout(() => socket.resume(), 15);
  });
  await ended;
  expect(bytes).toBeGreaterThan(24e6);
  await fetch(`${server.url}/api/jobs/${job.id}`, { method: 'DELETE' });
});
