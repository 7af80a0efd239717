import type { Compression, Platform } from '../platform.ts';
import { type ByteInput, crc32, endsEarly, inflateSource, unpackMember } from './inflate-members.ts';

/**
 * The platform of a browser (and of any runtime with the Compression Streams standard). It has one level of
 * compression: `level` has no effect. If the browser's own stream fails, as all do at a second gzip member, the library
 * pako is loaded and decompresses the data: about two thirds as fast, and on the calling thread.
 */
export const webPlatform: Platform = {
  inflate: (source, compression) =>
    inflateSource(source, compression, {
      fast: (input) => through(input, new DecompressionStream(streamName(compression))),
      exact: (input) =>
        compression === 'gzip'
          ? unpackMember(input, (rest) => unpackByPako(rest, 'deflate-raw'), crc32)
          : unpackByPako(input, compression),
    }),
  deflate: (source, compression) => through(inputOf(source), new CompressionStream(streamName(compression))),
};

/** The standard calls the zlib format (RFC 1950) "deflate". */
const streamName = (compression: Compression) => (compression === 'zlib' ? 'deflate' : compression);

interface ClosableInput extends Pick<ByteInput, 'next'> {
  close?(): void;
}

function inputOf(source: AsyncIterable<Uint8Array>): ClosableInput {
  const iterator = source[Symbol.asyncIterator]();
  return {
    async next() {
      const step = await iterator.next();
      return step.done ? undefined : step.value;
    },
    // Not awaited: a source that hangs must not block its reader.
    close: () => void Promise.resolve(iterator.return?.()).catch(() => undefined),
  };
}

/** The stream's output for the input, which is read no faster than the output is consumed. */
async function* through(input: ClosableInput, stream: GenericTransformStream): AsyncGenerator<Uint8Array> {
  const writer: WritableStreamDefaultWriter<Uint8Array> = stream.writable.getWriter();
  const reader: ReadableStreamDefaultReader<Uint8Array> = stream.readable.getReader();
  let stopped = false;
  let sourceFault: { error: unknown } | undefined;
  async function feed(): Promise<void> {
    while (!stopped) {
      const chunk = await input.next().catch((error: unknown) => {
        sourceFault = { error };
        throw error;
      });
      if (!chunk) return await writer.close();
      await writer.write(chunk);
    }
  }
  // An error of the source must reach the reader of the output.
  const feeding = feed().catch(async (error: unknown) => {
    await writer.abort(error).catch(() => undefined);
    throw error;
  });
  feeding.catch(() => undefined);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      yield value;
    }
    await feeding;
  } catch (error) {
    throw sourceFault ? (sourceFault as { error: unknown }).error : error;
  } finally {
    stopped = true;
    reader.cancel().catch(() => undefined);
    input.close?.();
  }
}

const pakoChunkBytes = 2 ** 16;

/** Unpacks one deflate or zlib stream piece by piece, so that no input makes more than a piece at a time. */
async function* unpackByPako(input: ByteInput, wrapper: 'deflate-raw' | 'zlib'): AsyncGenerator<Uint8Array> {
  const { ZStream, zlibInflate, zlibInflateInit2, Z_BUF_ERROR, Z_NO_FLUSH, Z_OK, Z_STREAM_END } =
    await import('pako');
  const stream = new ZStream();
  // A window of 32 KiB; negative: without a wrapper (zlib.h, inflateInit2).
  zlibInflateInit2(stream, wrapper === 'deflate-raw' ? -15 : 15);
  for (let isHungry = true; ; ) {
    if (isHungry && stream.avail_in === 0) {
      const chunk = await input.next();
      if (!chunk) throw new Error(endsEarly);
      stream.input = chunk;
      stream.next_in = 0;
      stream.avail_in = chunk.length;
    }
    stream.output = new Uint8Array(pakoChunkBytes);
    stream.next_out = 0;
    stream.avail_out = pakoChunkBytes;
    const status = zlibInflate(stream, Z_NO_FLUSH);
    if (status !== Z_OK && status !== Z_STREAM_END && status !== Z_BUF_ERROR)
      throw new Error(stream.msg || `zlib status ${status}`);
    if (stream.next_out > 0) yield stream.output.subarray(0, stream.next_out);
    if (status === Z_STREAM_END) {
      input.unread(stream.input.subarray(stream.next_in, stream.next_in + stream.avail_in));
      return;
    }
    // After a full output, more may follow without any input.
    isHungry = stream.avail_out > 0;
  }
}
