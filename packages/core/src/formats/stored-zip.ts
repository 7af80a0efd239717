import { TomaatError } from '../errors.ts';
import type { Bytes } from '../platform.ts';
import { ownedBytes } from './header.ts';
import { crc32 } from './inflate-members.ts';

/*
 * A zip archive of uncompressed files (PKWARE APPNOTE 6.3.10): as a file any part of which can be read again, or
 * written once. A resumable upload needs the first: the same bytes from an offset in the middle, without the files
 * before it. Libraries write an archive once, from beginning to end, and cannot start elsewhere; for stored files the
 * positions of all bytes follow from their lengths.
 */

/** A file in the archive. */
export interface ZipMember {
  /** Printable ASCII. */
  readonly name: string;
  /** All of its bytes, identical at every call. */
  read(signal?: AbortSignal): AsyncIterable<Uint8Array>;
}

/** An archive of known length, whose bytes can be read several times. */
export interface StoredZip {
  readonly name: string;
  readonly sizeBytes: number;
  stream(): AsyncIterable<Uint8Array>;
  /** The bytes from `from` up to `to`, exclusive. */
  slice(from: number, to: number): AsyncIterable<Uint8Array>;
}

export interface StoredZipOptions {
  signal?: AbortSignal;
  /** Maximum size of the archive in bytes; the limit of the format, 4 GiB, if missing. */
  maxBytes?: number;
  /** Called after each file whose length and checksum have been computed. */
  onProgress?(done: number, total: number): void;
}

/** Lengths and offsets in an archive without the 64-bit extension. */
const largestNumber = 2 ** 32 - 2;
const mostMembers = 65_534;

/** Bytes passed on in one chunk: a file may arrive as a single chunk. */
const pieceBytes = 2 ** 20;

/** A range of bytes in the archive. */
interface Run {
  readonly start: number;
  readonly sizeBytes: number;
  read(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/**
 * The archive as a file of known length. Each member is read once for its length and checksum, and again whenever its
 * bytes are sent; a member that has changed by then is refused.
 *
 * @throws TomaatError UPLOAD_TOO_LARGE for more than `maxBytes`; BAD_INPUT, while it is read, if a member has changed
 */
export async function createStoredZip(
  name: string,
  members: readonly ZipMember[],
  { signal, maxBytes = largestNumber, onProgress }: StoredZipOptions = {},
): Promise<StoredZip> {
  const runs: Run[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  const add = (sizeBytes: number, read: Run['read']) => {
    runs.push({ start: at, sizeBytes, read });
    at += sizeBytes;
  };
  for (const [i, member] of members.entries()) {
    const facts = { name: member.name, offset: at, ...(await measure(member, signal)) };
    if (facts.offset + facts.sizeBytes > maxBytes || i >= mostMembers) throw tooLarge(maxBytes);
    const local = localHeader(facts);
    add(local.length, () => [local]);
    add(facts.sizeBytes, () => unchanged(member, facts));
    directory.push(directoryHeader(facts));
    onProgress?.(i + 1, members.length);
  }
  const directoryStart = at;
  for (const header of directory) add(header.length, () => [header]);
  if (at > maxBytes) throw tooLarge(maxBytes);
  const end = endOfDirectory(members.length, at - directoryStart, directoryStart);
  add(end.length, () => [end]);
  const sizeBytes = at;
  const slice = (from: number, to: number) => bytesOf(runs, from, to);
  return { name, sizeBytes, stream: () => slice(0, sizeBytes), slice };
}

/**
 * The bytes of an archive whose members come one after the other: only one of them is needed at any time. Each is read
 * twice, for its length and checksum and for its bytes.
 *
 * @throws TomaatError UPLOAD_TOO_LARGE for 4 GiB or more; BAD_INPUT if a member differs when it is read again
 */
export async function* writeStoredZip(
  members: AsyncIterable<ZipMember> | Iterable<ZipMember>,
): AsyncGenerator<Bytes> {
  const directory: Uint8Array[] = [];
  let at = 0;
  for await (const member of members) {
    const facts = { name: member.name, offset: at, ...(await measure(member, undefined)) };
    if (facts.offset + facts.sizeBytes > largestNumber || directory.length >= mostMembers)
      throw tooLarge(largestNumber);
    const local = localHeader(facts);
    yield ownedBytes(local);
    for await (const chunk of unchanged(member, facts)) yield ownedBytes(chunk);
    at += local.length + facts.sizeBytes;
    directory.push(directoryHeader(facts));
  }
  const directoryBytes = directory.reduce((sum, { length }) => sum + length, 0);
  if (at + directoryBytes > largestNumber) throw tooLarge(largestNumber);
  for (const header of directory) yield ownedBytes(header);
  yield ownedBytes(endOfDirectory(directory.length, directoryBytes, at));
}

async function* bytesOf(runs: readonly Run[], from: number, to: number): AsyncGenerator<Uint8Array> {
  for (const { start, sizeBytes, read } of runs) {
    if (start + sizeBytes <= from || start >= to || sizeBytes === 0) continue;
    let at = start;
    for await (const chunk of read()) {
      const first = Math.max(0, from - at);
      const last = Math.min(chunk.length, to - at);
      at += chunk.length;
      for (let i = first; i < last; i += pieceBytes) yield chunk.subarray(i, Math.min(last, i + pieceBytes));
      if (at >= to) return;
    }
  }
}

interface Facts {
  readonly name: string;
  readonly offset: number;
  readonly sizeBytes: number;
  readonly crc: number;
}

async function measure(
  member: ZipMember,
  signal: AbortSignal | undefined,
): Promise<Pick<Facts, 'sizeBytes' | 'crc'>> {
  let sizeBytes = 0;
  let crc = 0;
  for await (const chunk of member.read(signal)) {
    signal?.throwIfAborted();
    sizeBytes += chunk.length;
    crc = crc32(chunk, crc);
  }
  return { sizeBytes, crc };
}

/** The bytes of a member, as long as they match the measured ones. */
async function* unchanged(member: ZipMember, { sizeBytes, crc }: Facts): AsyncGenerator<Uint8Array> {
  let seen = 0;
  let sum = 0;
  // The last chunk is held back until it is known to be the last.
  let waiting: Uint8Array | undefined;
  for await (const chunk of member.read()) {
    if (waiting) yield waiting;
    seen += chunk.length;
    if (seen > sizeBytes) break;
    sum = crc32(chunk, sum);
    waiting = chunk;
  }
  if (seen !== sizeBytes || sum !== crc) {
    throw new TomaatError('BAD_INPUT', 'A file changed while it was being sent. Send it again.');
  }
  if (waiting) yield waiting;
}

const tooLarge = (maxBytes: number) =>
  new TomaatError(
    'UPLOAD_TOO_LARGE',
    `The files take more than ${maxBytes} bytes, or are more than ${mostMembers}: send the images of one series`,
  );

/** Version 1.0: stored files only. */
const version = 10;
/** 1980-01-01, the earliest date in the format: archives of the same files are identical. */
const firstDay = 0x0021;

function localHeader({ name, sizeBytes, crc }: Facts): Uint8Array {
  return record(0x04034b50, name, [
    [2, version],
    [2, 0], // flags
    [2, 0], // stored
    [2, 0], // time
    [2, firstDay],
    [4, crc],
    [4, sizeBytes],
    [4, sizeBytes],
    [2, name.length],
    [2, 0], // extra fields
  ]);
}

function directoryHeader({ name, sizeBytes, crc, offset }: Facts): Uint8Array {
  return record(0x02014b50, name, [
    [2, version],
    [2, version],
    [2, 0],
    [2, 0],
    [2, 0],
    [2, firstDay],
    [4, crc],
    [4, sizeBytes],
    [4, sizeBytes],
    [2, name.length],
    [2, 0], // extra fields
    [2, 0], // comment
    [2, 0], // disk
    [2, 0], // internal attributes
    [4, 0], // external attributes
    [4, offset],
  ]);
}

function endOfDirectory(count: number, sizeBytes: number, offset: number): Uint8Array {
  return record(0x06054b50, '', [
    [2, 0],
    [2, 0],
    [2, count],
    [2, count],
    [4, sizeBytes],
    [4, offset],
    [2, 0], // comment
  ]);
}

/** A record of the format: signature, little-endian numbers of the given widths in bytes, and a name. */
function record(
  signature: number,
  name: string,
  numbers: readonly (readonly [bytes: 2 | 4, value: number])[],
): Uint8Array {
  const length = 4 + numbers.reduce((sum, [bytes]) => sum + bytes, 0);
  const record = new Uint8Array(length + name.length);
  const view = new DataView(record.buffer);
  view.setUint32(0, signature, true);
  let at = 4;
  for (const [bytes, value] of numbers) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  for (let i = 0; i < name.length; i++) record[length + i] = name.charCodeAt(i);
  return record;
}
