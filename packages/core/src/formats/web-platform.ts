import type { Compression, Platform } from '../platform.ts';

/**
 * The platform of a browser (and of any runtime with the Compression Streams standard). It knows one level of
 * compression: `level` has no effect. Several gzip members in a row, as bgzip writes, are refused by some browsers.
 */
export const webPlatform: Platform = {
  inflate: (source, compression) => through(source, new DecompressionStream(streamName(compression))),
  deflate: (source, compression) => through(source, new CompressionStream(streamName(compression))),
};

/** The standard calls the zlib format (RFC 1950) "deflate". */
const streamName = (compression: Compression) => (compression === 'zlib' ? 'deflate' : 'gzip');

/** What the stream makes of the source. The source is read no faster than the output is taken. */
async function* through(
  source: AsyncIterable<Uint8Array>,
  stream: GenericTransformStream,
): AsyncIterable<Uint8Array> {
  const writer: WritableStreamDefaultWriter<Uint8Array> = stream.writable.getWriter();
  const reader: ReadableStreamDefaultReader<Uint8Array> = stream.readable.getReader();
  const input = source[Symbol.asyncIterator]();
  let stopped = false;
  let sourceFault: { error: unknown } | undefined;
  async function feed(): Promise<void> {
    while (!stopped) {
      const step = await input.next().catch((error: unknown) => {
        sourceFault = { error };
        throw error;
      });
      if (step.done) return await writer.close();
      await writer.write(step.value);
    }
  }
  // A fault of the source has to reach whoever waits for output.
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
    // Nobody waits for these: a source that hangs must not hold up its reader.
    reader.cancel().catch(() => undefined);
    Promise.resolve(input.return?.()).catch(() => undefined);
  }
}
