import { TomaatError } from '@tomaat/core';

/** One named value of a request's body. It is not held in memory: `body` reads from the network. */
export interface BodyPart {
  /** Non-empty. */
  readonly name: string;
  /** Base name for display and for its extension, never a path; undefined for a plain field. */
  readonly fileName?: string;
  /** As sent. */
  readonly contentType?: string;
  /**
   * The value. Read it before requesting the next part, which skips the rest of it. A chunk is
   * valid until the next one is requested.
   */
  readonly body: AsyncIterable<Uint8Array>;
}

/** A parameter's value as text, 64 KiB at most by default; BAD_REQUEST beyond that, or if it is not UTF-8. */
export async function readText(part: BodyPart, maxBytes = 64 * 1024): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of part.body) {
    bytes += chunk.length;
    if (bytes > maxBytes) {
      throw new TomaatError(
        'BAD_REQUEST',
        `'${part.name}' is longer than the ${maxBytes} bytes a parameter may have`,
        {
          field: part.name,
        },
      );
    }
    chunks.push(Uint8Array.from(chunk));
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  } catch (error) {
    throw new TomaatError('BAD_REQUEST', `'${part.name}' is not UTF-8 text. Send it as UTF-8`, {
      field: part.name,
      cause: error,
    });
  }
}

/** The first `bytes` bytes of a source (fewer if it ends before), and the whole of it, those included. */
export async function peek(
  source: AsyncIterable<Uint8Array>,
  bytes: number,
): Promise<{ prefix: Uint8Array; body: AsyncIterable<Uint8Array> }> {
  const iterator = source[Symbol.asyncIterator]();
  const chunks: Uint8Array[] = [];
  let length = 0;
  while (length < bytes) {
    const { done, value } = await iterator.next();
    if (done) break;
    chunks.push(Uint8Array.from(value));
    length += value.length;
  }
  const prefix = Buffer.concat(chunks);
  return { prefix: prefix.subarray(0, bytes), body: chain(prefix, iterator) };
}

async function* chain(first: Uint8Array, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    if (first.length > 0) yield first;
    for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value;
  } finally {
    await rest.return?.();
  }
}
