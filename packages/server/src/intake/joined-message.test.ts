import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { expect, it } from 'vitest';
import { JoinedMessage } from './joined-message.ts';

/** Sends the chunks, in writes of many, to a server that reads when `read` says so, and what it then got. */
async function receive(
  chunks: readonly Buffer[],
  read: (message: JoinedMessage) => Promise<void> = async () => {},
): Promise<{ message: JoinedMessage; pieces: Buffer[] }> {
  const server = createServer({ IncomingMessage: JoinedMessage }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  try {
    socket.write('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
    const framed = chunks.flatMap((chunk) => [
      Buffer.from(`${chunk.length.toString(16)}\r\n`),
      chunk,
      Buffer.from('\r\n'),
    ]);
    socket.write(Buffer.concat([...framed, Buffer.from('0\r\n\r\n')]));
    const [message] = (await once(server, 'request')) as [JoinedMessage];
    await read(message);
    const pieces: Buffer[] = [];
    message.on('data', (piece) => pieces.push(piece));
    await expect.poll(() => message.readableEnded || message.isInCrumbs, { interval: 5 }).toBe(true);
    return { message, pieces };
  } finally {
    socket.destroy();
    server.closeAllConnections();
    server.close();
  }
}

it('JoinedMessage gives every byte in its place, whatever the chunks', async () => {
  const sizes = [1, 3, 255, 256, 257, 1, 20_000, 2, 2, 70_000, 5, ...Array(400).fill(100), 300_000, 1];
  const chunks = sizes.map((size, at) => Buffer.alloc(size, at + 1));
  const { message, pieces } = await receive(chunks);
  expect(Buffer.concat(pieces).equals(Buffer.concat(chunks))).toBe(true);
  expect(message.isInCrumbs).toBe(false);
  // 400 chunks of 100 bytes came as pieces of up to 16 KiB.
  expect(pieces.length).toBeLessThan(60);
});

it('JoinedMessage lets thousands of crumbs wait for a reader as a few pieces', async () => {
  const chunks = Array.from({ length: 8000 }, (_, at) => Buffer.from([at & 255]));
  const { pieces } = await receive(chunks, async (message) => {
    await expect.poll(() => message.readableLength, { interval: 5 }).toBe(8000);
  });
  expect(Buffer.concat(pieces).equals(Buffer.concat(chunks))).toBe(true);
  expect(pieces.length).toBeLessThan(20);
});

it('JoinedMessage reads no more of a body that is all crumbs', async () => {
  const chunks = Array<Buffer>(200_000).fill(Buffer.from('x'));
  const { message, pieces } = await receive(chunks);
  expect(message.isInCrumbs).toBe(true);
  // What one read from the network brought is there, and then no more.
  expect(Buffer.concat(pieces).length).toBeLessThan(20_000);
  expect(message.readableEnded).toBe(false);
});
