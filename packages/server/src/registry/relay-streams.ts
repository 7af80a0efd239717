import type { IncomingMessage } from 'node:http';
import type { Readable, Writable } from 'node:stream';

/** How the relay forwards bodies, and what it does with the rest of a body that is not forwarded. */

/** How long the rest of a body is read after an early answer, so that callers that write everything before they read receive it. */
const drainMs = 30_000;
const maxReadRestBytes = 2 ** 28;
const maxReadRestMs = 10_000;

/**
 * Copies a stream to another at the pace of the slower one, and ends it where the first ends; returns a function that stops
 * it. Each chunk is the stream's own copy, and its memory is freed as soon as the system has the bytes: left to the
 * garbage collector, which sees only the small objects around them, 100 MB of chunks would accumulate.
 */
export function pump(from: Readable, to: Writable): () => void {
  const onData = (chunk: Buffer) => {
    const whole = chunk.byteOffset === 0 && chunk.length === chunk.buffer.byteLength;
    if (!to.write(chunk, () => whole && (chunk.buffer as ArrayBuffer).transfer(0))) from.pause();
  };
  const onDrain = () => from.resume();
  const onEnd = () => to.end();
  const stop = () => {
    from.off('data', onData).off('end', onEnd).pause();
    to.off('drain', onDrain);
  };
  from.on('data', onData).once('end', onEnd);
  to.on('drain', onDrain);
  return stop;
}

/** Reads and discards for a while, then disconnects. */
export function drain(body: IncomingMessage): void {
  const timer = setTimeout(() => body.destroy(), drainMs);
  timer.unref();
  body.once('close', () => clearTimeout(timer));
  body.once('end', () => clearTimeout(timer));
  body.resume();
}

/**
 * Reads a body of moderate length to its end before an error is answered: most clients write all before they read,
 * and would see a broken connection instead of the reason.
 */
export function readRest(body: IncomingMessage): Promise<void> {
  if (body.complete || body.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    let left = maxReadRestBytes;
    const finish = () => {
      clearTimeout(timer);
      body.off('data', count).off('end', finish).off('close', finish).pause();
      resolve();
    };
    const count = (chunk: Buffer) => {
      if ((left -= chunk.length) < 0) finish();
    };
    const timer = setTimeout(finish, maxReadRestMs);
    body.on('data', count).once('end', finish).once('close', finish).resume();
  });
}
