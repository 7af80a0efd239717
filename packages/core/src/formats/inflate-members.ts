import { TomaatError } from '../errors.ts';
import type { Compression } from '../platform.ts';

/** Bytes that are read in order and can be put back. */
export interface ByteInput {
  /** The next bytes, as many as are available; undefined at the end. */
  next(): Promise<Uint8Array | undefined>;
  /** Puts back bytes that were read last: they are read next. */
  unread(bytes: Uint8Array): void;
}

/**
 * Decompresses the start of the input, at least one gzip member or one zlib stream, and puts back the bytes read after it.
 * Throws any error on data that is damaged or cut off.
 */
export type Unpack = (input: ByteInput, compression: Compression) => AsyncIterable<Uint8Array>;

/** Decompresses a deflate stream without a wrapper (RFC 1951), otherwise as Unpack. */
export type UnpackRaw = (input: ByteInput) => AsyncIterable<Uint8Array>;

/** CRC-32 of RFC 1952, continued from `previous`. */
export type Crc32 = (bytes: Uint8Array, previous: number) => number;

let crcTables: Int32Array[] | undefined;

/** Table k has, for each byte, its part of the sum with k zero bytes behind it. */
function makeCrcTables(): Int32Array[] {
  const first = Int32Array.from({ length: 256 }, (_, n) => {
    let value = n;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value;
  });
  const tables = [first];
  while (tables.length < 8)
    tables.push(tables[tables.length - 1].map((value) => (value >>> 8) ^ first[value & 255]));
  return tables;
}

/** RFC 1952, 8: the polynomial 0xedb88320, eight bytes at a time (“slicing-by-8”): 1.7 times as fast as one. */
export const crc32: Crc32 = (bytes, previous) => {
  crcTables ??= makeCrcTables();
  const [t0, t1, t2, t3, t4, t5, t6, t7] = crcTables;
  let sum = ~previous;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    sum ^= bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24);
    sum =
      t7[sum & 255] ^
      t6[(sum >>> 8) & 255] ^
      t5[(sum >>> 16) & 255] ^
      t4[sum >>> 24] ^
      t3[bytes[i + 4]] ^
      t2[bytes[i + 5]] ^
      t1[bytes[i + 6]] ^
      t0[bytes[i + 7]];
  }
  for (; i < bytes.length; i++) sum = (sum >>> 8) ^ t0[(sum ^ bytes[i]) & 255];
  return ~sum >>> 0;
};

/** The most bytes of any kind that may follow complete data: a line end, or the padding of a writer's record. */
export const maxPaddingBytes = 15;

/**
 * Decompresses a whole source: gzip members in a row, as bgzip, pigz and `cat a.gz b.gz` make them (RFC 1952, 2.2), or one zlib
 * stream. Zeros before the next member and after the last are skipped (tapes and object stores pad with them), and so
 * are up to 15 other bytes at the end.
 *
 * `fast` is tried first. If it fails, the source is read again with `exact`, and the bytes already returned are skipped:
 * browsers reject everything after the first member, and zlib treats any byte except 0 as the start of another one. A
 * source that cannot be iterated twice, such as a generator, is read with `exact` only.
 *
 * @throws the source's own fault; TomaatError BAD_VOXELS when other data follows; any error on damaged data
 */
export async function* inflateSource(
  source: AsyncIterable<Uint8Array>,
  compression: Compression,
  { fast, exact }: { fast: Unpack; exact: Unpack },
): AsyncGenerator<Uint8Array> {
  const first = source[Symbol.asyncIterator]();
  if ((first as unknown) === source) return yield* inflateAll(openInput(first), compression, exact);
  let givenBytes = 0;
  let sourceFault: { error: unknown } | undefined;
  const input = openInput(first, (error) => {
    sourceFault = { error };
  });
  try {
    for await (const chunk of inflateAll(input, compression, fast)) {
      givenBytes += chunk.length;
      yield chunk;
    }
    return;
  } catch (error) {
    if (sourceFault) throw (sourceFault as { error: unknown }).error;
    if (error instanceof TomaatError) throw error;
  }
  for await (const chunk of inflateAll(openInput(source[Symbol.asyncIterator]()), compression, exact)) {
    if (givenBytes < chunk.length) yield givenBytes > 0 ? chunk.subarray(givenBytes) : chunk;
    givenBytes = Math.max(0, givenBytes - chunk.length);
  }
}

interface OpenInput extends ByteInput {
  close(): void;
}

function openInput(
  iterator: AsyncIterator<Uint8Array>,
  onFault: (error: unknown) => void = () => {},
): OpenInput {
  const back: Uint8Array[] = [];
  return {
    async next() {
      const bytes = back.pop();
      if (bytes) return bytes;
      const step = await iterator.next().catch((error: unknown) => {
        onFault(error);
        throw error;
      });
      return step.done ? undefined : step.value;
    },
    unread(bytes) {
      if (bytes.length > 0) back.push(bytes);
    },
    close() {
      // Not awaited: a source that hangs must not block its reader.
      Promise.resolve(iterator.return?.()).catch(() => undefined);
    },
  };
}

async function* inflateAll(
  input: OpenInput,
  compression: Compression,
  unpack: Unpack,
): AsyncGenerator<Uint8Array> {
  try {
    do yield* unpack(input, compression);
    while (await goToNext(input, compression));
  } finally {
    input.close();
  }
}

/** Moves to the next gzip member; false if there is none. Throws BAD_VOXELS if other data follows. */
async function goToNext(input: ByteInput, compression: Compression): Promise<boolean> {
  for (let chunk = await input.next(); chunk; chunk = await input.next()) {
    const at = chunk.findIndex((byte) => byte !== 0);
    if (at < 0) continue;
    input.unread(chunk.subarray(at));
    const rest = await take(input, maxPaddingBytes + 1);
    input.unread(rest);
    if (compression === 'gzip' && rest[0] === 0x1f && rest[1] === 0x8b) return true;
    if (rest.length <= maxPaddingBytes) return false;
    throw new TomaatError(
      'BAD_VOXELS',
      `Other data follows the complete ${compression} data. Write the file again without it${compression === 'gzip' ? ' (gunzip and gzip do that for a .nii.gz)' : ''}, and send that`,
    );
  }
  return false;
}

/** The next bytes, fewer than `count` only at the end. */
async function take(input: ByteInput, count: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(count);
  let length = 0;
  while (length < count) {
    const chunk = await input.next();
    if (!chunk) break;
    const used = chunk.subarray(0, count - length);
    bytes.set(used, length);
    length += used.length;
    input.unread(chunk.subarray(used.length));
  }
  return bytes.subarray(0, length);
}

async function takeAll(input: ByteInput, count: number): Promise<Uint8Array> {
  const bytes = await take(input, count);
  if (bytes.length < count) throw new Error(endsEarly);
  return bytes;
}

export const endsEarly = 'unexpected end of file';

/** Decompresses one gzip member through its deflate stream: wrapper, checksum and length are checked here. */
export async function* unpackMember(input: ByteInput, unpackRaw: UnpackRaw, crc32: Crc32) {
  await passGzipHeader(input);
  let sum = 0;
  let length = 0;
  for await (const chunk of unpackRaw(input)) {
    sum = crc32(chunk, sum);
    length = (length + chunk.length) % 2 ** 32;
    yield chunk;
  }
  const trailer = await takeAll(input, 8);
  const view = new DataView(trailer.buffer, trailer.byteOffset, 8);
  if (view.getUint32(0, true) !== sum) throw new Error('incorrect data check');
  if (view.getUint32(4, true) !== length) throw new Error('incorrect length check');
}

async function passGzipHeader(input: ByteInput): Promise<void> {
  const [id1, id2, method, flags] = await takeAll(input, 10);
  if (id1 !== 0x1f || id2 !== 0x8b) throw new Error('incorrect header check');
  if (method !== 8) throw new Error('unknown compression method');
  if (flags & 0xe0) throw new Error('unknown header flags set');
  if (flags & 4) {
    const [low, high] = await takeAll(input, 2);
    await takeAll(input, low | (high << 8));
  }
  if (flags & 8) await passText(input);
  if (flags & 16) await passText(input);
  if (flags & 2) await takeAll(input, 2);
}

/** Skips a text and the zero that ends it. */
async function passText(input: ByteInput): Promise<void> {
  for (;;) {
    const chunk = await input.next();
    if (!chunk) throw new Error(endsEarly);
    const end = chunk.indexOf(0);
    if (end < 0) continue;
    input.unread(chunk.subarray(end + 1));
    return;
  }
}
