import { statfs } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeKey } from './access-fixture.ts';
import { inferBright, writeApp } from './app-fixture.ts';
import { encode, phantom } from './phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* One owner takes all that there is of something; another one comes. */

type Headers = { authorization: string };

let server: TestServer;
let scan: Uint8Array<ArrayBuffer>;
let alice: Headers;
let bob: Headers;
const maxBodies = 6;
/** Bytes that uploads may take on the disk; other programs may take or free some meanwhile. */
let roomBytes: number;

beforeAll(async () => {
  const folder = await temporaryFolder();
  const { bavail, bsize } = await statfs(tmpdir());
  roomBytes = Math.min(8e9, Math.floor((bavail * bsize) / 2));
  server = await startTestServer(
    [
      await writeApp(folder, 'quick', { infer: inferBright }),
      await writeApp(folder, 'stuck', { infer: 'await sleep(600_000);' }),
    ],
    {
      login: true,
      minFreeBytes: bavail * bsize - roomBytes,
      maxUploadBytes: roomBytes,
      maxQueued: 4,
      maxBodies,
    },
  );
  scan = Uint8Array.from(await encode(phantom(), 'nii.gz'));
  alice = (await makeKey(server.dataFolder, ['predict'])).headers;
  bob = (await makeKey(server.dataFolder, ['predict'])).headers;
});
afterAll(() => server?.[Symbol.asyncDispose]());

const tus = { 'tus-resumable': '1.0.0' };

async function reserve(who: Headers, bytes: number): Promise<{ status: number; at: string }> {
  const response = await fetch(`${server.url}/api/uploads`, {
    method: 'POST',
    headers: { ...who, ...tus, 'upload-length': String(Math.floor(bytes)) },
  });
  await response.arrayBuffer();
  return { status: response.status, at: `${server.url}${response.headers.get('location')}` };
}
const statusOf = async (who: Headers, at: string) =>
  (await fetch(at, { method: 'HEAD', headers: { ...who, ...tus } })).status;
const remove = (who: Headers, at: string) => fetch(at, { method: 'DELETE', headers: { ...who, ...tus } });

const predict = async (who: Headers, service = 'quick', wait = 'wait=60') => {
  const response = await fetch(`${server.url}/api/services/${service}/predictions`, {
    method: 'POST',
    body: scan,
    headers: { ...who, prefer: wait, 'content-type': 'application/octet-stream' },
  });
  const { id } = (await response.json()) as { id?: string };
  return { status: response.status, id };
};

describe('reserved bytes of uploads', () => {
  it('make room for an owner who has less, the oldest first', async () => {
    const eighth = roomBytes / 8;
    const held: string[] = [];
    for (let one = await reserve(alice, eighth); one.status === 201; one = await reserve(alice, eighth))
      held.push(one.at);
    expect(held.length).toBeGreaterThanOrEqual(6);
    // Nobody has more than she has.
    expect((await reserve(alice, eighth)).status).toBe(507);
    const small = await reserve(bob, 10_000_000);
    const large = await reserve(bob, 2 * eighth);
    expect([small.status, large.status]).toEqual([201, 201]);
    const statuses = await Promise.all(held.map((at) => statusOf(alice, at)));
    expect(statuses[0]).toBe(404);
    const left = statuses.filter((status) => status === 200).length;
    expect(left).toBeGreaterThanOrEqual(3);
    expect(statuses).toEqual([...Array(held.length - left).fill(404), ...Array(left).fill(200)]);
    // Nor does he get more than a share.
    expect((await reserve(bob, roomBytes - eighth)).status).toBe(507);
    await Promise.all(held.map((at) => remove(alice, at)));
    await Promise.all([small, large].map(({ at }) => remove(bob, at)));
  });

  it('leave an upload alone that is being written', async () => {
    const { at } = await reserve(alice, roomBytes * 0.8);
    const started = await fetch(at, {
      method: 'PATCH',
      body: scan,
      headers: { ...alice, ...tus, 'upload-offset': '0', 'content-type': 'application/offset+octet-stream' },
    });
    expect(started.status).toBe(204);
    expect((await reserve(bob, roomBytes * 0.4)).status).toBe(507);
    expect(await statusOf(alice, at)).toBe(200);
    await remove(alice, at);
  });

  it('do not keep predictions out', async () => {
    const { at } = await reserve(alice, roomBytes * 0.9);
    expect((await predict(bob)).status).toBe(200);
    await remove(alice, at);
  });
});

describe('bodies on their way', () => {
  it('make room for an owner who has fewer, however quick they are', async () => {
    const ended = new Set<Socket>();
    // Quick all the time, so that nobody counts as slow.
    const head = Buffer.from(await encode(phantom(undefined, [3, 4, 5]), 'nii')).subarray(0, 352);
    for (const [i, n] of [1000, 500, 500].entries()) head.writeInt16LE(n, 42 + 2 * i);
    const lengthBytes = 352 + 1000 * 500 * 500 * 2;
    const { port } = new URL(server.url);
    let open = true;
    const sockets: Socket[] = [];
    const openOne = () => {
      const socket = connect(Number(port), '127.0.0.1');
      // Those too many are refused with words.
      let answered = false;
      socket.on('data', () => {
        answered = true;
      });
      socket.on('error', () => {}).on('close', () => answered || ended.add(socket));
      socket.write(
        `POST /api/services/quick/predictions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: ${alice.authorization}\r\n` +
          `Content-Type: application/octet-stream\r\nContent-Length: ${lengthBytes}\r\n\r\n`,
      );
      socket.write(head);
      sockets.push(socket);
    };
    for (let i = 0; i < maxBodies; i++) openOne();
    const feed = async () => {
      const zeros = Buffer.alloc(100_000);
      for (; open; await delay(200))
        for (const socket of sockets)
          if (socket.writableLength < 1e6 && !socket.destroyed) socket.write(zeros);
    };
    const feeding = feed();
    try {
      // All places are hers when one more is refused; a request of her own may have been before a socket.
      while ((await predict(alice)).status === 200) {
        openOne();
        // A new connection is slower than the one that predict() has.
        await delay(100);
      }
      expect(sockets.length).toBeLessThan(3 * maxBodies);
      expect(ended.size).toBe(0);
      expect((await predict(bob)).status).toBe(200);
      await expect.poll(() => ended.size, { timeout: 20_000 }).toBe(1);
    } finally {
      open = false;
      await feeding;
      for (const socket of sockets) socket.destroy();
    }
    await expect.poll(async () => (await predict(alice)).status, { timeout: 10_000 }).toBe(200);
  });
});

describe('a full queue', () => {
  it('takes jobs of an owner who has less than a fair share of it', async () => {
    const cancel = (who: Headers, id = '') =>
      fetch(`${server.url}/api/jobs/${id}`, { method: 'DELETE', headers: who });
    const ids: string[] = [];
    let refused = 0;
    for (let i = 0; i < 8 && refused === 0; i++) {
      const { status, id } = await predict(alice, 'stuck', 'wait=0');
      if (status === 202) ids.push(id!);
      else refused = status;
    }
    expect(refused).toBe(503);
    const his = [];
    for (let i = 0; i < 3; i++) his.push(await predict(bob, 'quick', 'wait=0'));
    // Of four places two are his.
    expect(his.map(({ status }) => status)).toEqual([202, 202, 503]);
    expect((await predict(alice, 'quick', 'wait=0')).status).toBe(503);
    await Promise.all([...ids.map((id) => cancel(alice, id)), ...his.map(({ id }) => cancel(bob, id))]);
  });
});
