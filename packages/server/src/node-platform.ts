import { once } from 'node:events';
import { createDeflate, createGunzip, createGzip, createInflate } from 'node:zlib';
import type { Platform } from '@tomaat/core';

/** Larger than zlib's 16 KiB: fewer turns of the event loop and of the thread pool per file. */
const chunkSize = 2 ** 18;

/** The platform of Node: zlib's streams, on its thread pool. */
export const nodePlatform: Platform = {
  inflate: (source, compression) =>
    through(
      source,
      compression === 'gzip' ? createGunzip({ chunkSize }) : createInflate({ chunkSize }),
      true,
    ),
  deflate: (source, compression, level) =>
    through(
      source,
      compression === 'gzip' ? createGzip({ level, chunkSize }) : createDeflate({ level, chunkSize }),
      false,
    ),
};

type ZlibStream = ReturnType<typeof createGunzip> | ReturnType<typeof createDeflate>;

/** What the stream makes of the source. The source is read no faster than the output is taken. */
async function* through(
  source: AsyncIterable<Uint8Array>,
  stream: ZlibStream,
  exact: boolean,
): AsyncIterable<Uint8Array> {
  const input = source[Symbol.asyncIterator]();
  let given = 0;
  let ended = false;
  async function feed(): Promise<void> {
    while (!stream.destroyed) {
      const step = await input.next();
      if (step.done) {
        ended = true;
        return void stream.end();
      }
      given += step.value.length;
      if (!stream.write(step.value)) await once(stream, 'drain', { signal: closing.signal });
    }
  }
  const closing = new AbortController();
  stream.once('close', () => closing.abort());
  // A fault of the source has to reach whoever waits for output.
  const feeding = feed().catch((error: unknown) => {
    if (!closing.signal.aborted) stream.destroy(error as Error);
  });
  try {
    for await (const chunk of stream) yield chunk as Uint8Array;
    await feeding;
    // zlib ends at the end of the compressed data and is silent about what follows.
    while (exact && !ended) {
      const step = await input.next();
      if (step.done) ended = true;
      else given += step.value.length;
    }
    if (exact && stream.bytesWritten !== given)
      throw new Error(`${given - stream.bytesWritten} bytes follow the compressed data`);
  } finally {
    stream.destroy();
    Promise.resolve(input.return?.()).catch(() => undefined);
  }
}
