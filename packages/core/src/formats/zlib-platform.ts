import type { Compression, Platform } from '../platform.ts';
import { type ByteInput, type Crc32, crc32, inflateSource, unpackMember } from './inflate-members.ts';

/** The part of node:zlib in use. Core does not import it: callers in Node pass it in. */
export interface Zlib {
  createGzip(options: ZlibOptions): ZlibStream;
  createDeflate(options: ZlibOptions): ZlibStream;
  createDeflateRaw(options: ZlibOptions): ZlibStream;
  createGunzip(options: ZlibOptions): ZlibStream;
  createInflate(options: ZlibOptions): ZlibStream;
  createInflateRaw(options: ZlibOptions): ZlibStream;
  /** Node has it since 22.2; earlier versions use a slower one. */
  crc32?: Crc32;
}
interface ZlibOptions {
  level?: number;
  chunkSize?: number;
}
interface ZlibStream extends AsyncIterable<Uint8Array> {
  readonly destroyed: boolean;
  readonly bytesWritten: number;
  write(chunk: Uint8Array): boolean;
  end(): unknown;
  destroy(error?: Error): unknown;
  once(event: 'drain' | 'close', listener: () => void): unknown;
  once(event: 'error', listener: (error: Error) => void): unknown;
}

/**
 * Bytes that zlib returns at once: the more, the fewer turns of the event loop and of the thread pool per file; but for
 * small files the buffer itself is most of the cost. Two chunks identify them: the first may be only a header.
 */
const chunkSizeFor = (bytes: number) => Math.min(2 ** 18, Math.max(2 ** 15, 8 * bytes));

/** The platform of Node: zlib's streams, on its thread pool. */
export function zlibPlatform(zlib: Zlib): Platform {
  const raw = (input: ByteInput) => through(input, zlib.createInflateRaw, {});
  const inflate = (input: ByteInput, compression: Compression) =>
    compression === 'zlib' ? through(input, zlib.createInflate, {}) : raw(input);
  return {
    inflate: (source, compression) =>
      inflateSource(source, compression, {
        fast: (input) =>
          compression === 'gzip' ? through(input, zlib.createGunzip, {}) : inflate(input, compression),
        exact: (input) =>
          compression === 'gzip'
            ? unpackMember(input, raw, zlib.crc32 ?? crc32)
            : inflate(input, compression),
      }),
    deflate: (source, compression, level) => deflate(zlib, source, compression, level),
  };
}

const packers = ({ createGzip, createDeflate, createDeflateRaw }: Zlib) => ({
  gzip: createGzip,
  zlib: createDeflate,
  'deflate-raw': createDeflateRaw,
});

async function* deflate(
  zlib: Zlib,
  source: AsyncIterable<Uint8Array>,
  compression: Compression,
  level: number,
): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]();
  const input: ByteInput = {
    async next() {
      const step = await iterator.next();
      return step.done ? undefined : step.value;
    },
    unread() {},
  };
  try {
    yield* through(input, packers(zlib)[compression], { level });
  } finally {
    Promise.resolve(iterator.return?.()).catch(() => undefined);
  }
}

/**
 * The stream's output for the input, which is read no faster than the output is consumed. If the stream ends before the
 * input, the unused bytes are put back.
 */
async function* through(
  input: ByteInput,
  create: (options: ZlibOptions) => ZlibStream,
  options: ZlibOptions,
): AsyncGenerator<Uint8Array> {
  const start: Uint8Array[] = [];
  /** Chunks that the stream may not have used completely, each with the count of bytes up to its end. */
  const fed: { bytes: Uint8Array; end: number }[] = [];
  let given = 0;
  let ended = false;
  while (start.length < 2) {
    const chunk = await input.next();
    if (!chunk) {
      ended = true;
      break;
    }
    start.push(chunk);
  }
  const stream = create({
    ...options,
    chunkSize: chunkSizeFor(start.reduce((sum, chunk) => sum + chunk.length, 0)),
  });
  // After its last output the stream may still fail on input given meanwhile, when nobody reads it any longer.
  let lateFault: Error | undefined;
  stream.once('error', (error) => {
    lateFault = error;
  });
  let wake = () => {};
  stream.once('close', () => wake());
  const drained = () =>
    new Promise<void>((resolve) => {
      wake = resolve;
      stream.once('drain', resolve);
    });
  async function feed(): Promise<void> {
    while (!stream.destroyed) {
      const chunk = start.shift() ?? (ended ? undefined : await input.next());
      if (!chunk) return void stream.end();
      given += chunk.length;
      while (fed.length > 0 && fed[0].end <= stream.bytesWritten) fed.shift();
      fed.push({ bytes: chunk, end: given });
      if (stream.destroyed) return;
      if (!stream.write(chunk)) await drained();
    }
  }
  // An error of the source must reach the reader of the output.
  const feeding = feed().catch((error: unknown) => {
    stream.destroy(error as Error);
  });
  try {
    for await (const chunk of stream) yield chunk;
    await feeding;
    if (lateFault) throw lateFault;
    const taken = stream.bytesWritten;
    for (const chunk of start.reverse()) input.unread(chunk);
    for (const { bytes, end } of fed.reverse())
      if (end > taken) input.unread(bytes.subarray(Math.max(0, bytes.length - (end - taken))));
  } finally {
    stream.destroy();
  }
}
