import { once } from 'node:events';
import { createDeflate, createGunzip, createGzip, createInflate, type ZlibOptions } from 'node:zlib';
import type { Platform } from '@tomaat/core';

/**
 * Bytes that zlib gives at a time: the more, the fewer turns of the event loop and of the thread pool per file; but for
 * small files the buffer itself is most of the cost. Two chunks tell them: the first may be a header alone.
 */
const chunkSizeFor = (bytes: number) => Math.min(2 ** 18, Math.max(2 ** 15, 8 * bytes));

/** The platform of Node: zlib's streams, on its thread pool. */
export const nodePlatform: Platform = {
  inflate: (source, compression) =>
    through(source, compression === 'gzip' ? createGunzip : createInflate, {}, true),
  deflate: (source, compression, level) =>
    through(source, compression === 'gzip' ? createGzip : createDeflate, { level }, false),
};

type ZlibStream = ReturnType<typeof createGunzip> | ReturnType<typeof createDeflate>;

/** What the stream makes of the source. The source is read no faster than the output is taken. */
async function* through(
  source: AsyncIterable<Uint8Array>,
  create: (options: ZlibOptions) => ZlibStream,
  options: ZlibOptions,
  exact: boolean,
): AsyncIterable<Uint8Array> {
  const input = source[Symbol.asyncIterator]();
  const start: Uint8Array[] = [];
  let given = 0;
  let ended = false;
  async function next(): Promise<Uint8Array | undefined> {
    const step = await input.next();
    if (step.done) {
      ended = true;
      return undefined;
    }
    given += step.value.length;
    return step.value;
  }
  while (start.length < 2) {
    const chunk = await next();
    if (!chunk) break;
    start.push(chunk);
  }
  const stream = create({ ...options, chunkSize: chunkSizeFor(given) });
  async function feed(): Promise<void> {
    while (!stream.destroyed) {
      const chunk = start.shift() ?? (ended ? undefined : await next());
      if (!chunk) return void stream.end();
      if (!stream.write(chunk)) await once(stream, 'drain', { signal: closing.signal });
    }
  }
  const closing = new AbortController();
  stream.once('close', () => closing.abort('closed')); // A reason of its own saves an error with its stack.
  // A fault of the source has to reach whoever waits for output.
  const feeding = feed().catch((error: unknown) => {
    if (!closing.signal.aborted) stream.destroy(error as Error);
  });
  try {
    for await (const chunk of stream) yield chunk as Uint8Array;
    await feeding;
    // zlib ends at the end of the compressed data and is silent about what follows.
    while (exact && !ended) await next();
    if (exact && stream.bytesWritten !== given)
      throw new Error(`${given - stream.bytesWritten} bytes follow the compressed data`);
  } finally {
    stream.destroy();
    Promise.resolve(input.return?.()).catch(() => undefined);
  }
}
