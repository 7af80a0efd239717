import { deflateRawSync } from 'node:zlib';
import { crc32 } from '../src/formats/inflate-members.ts';

/** Zip archives byte by byte (PKWARE APPNOTE 6.3.10, 4.3), good ones and those that nobody should send. */

export interface ZipEntry {
  readonly name: string;
  readonly data?: Uint8Array;
  /** What is stored instead of the data packed by `method`. */
  readonly packed?: Uint8Array;
  /** 0 stored, 8 deflate. */
  readonly method?: number;
  readonly flags?: number;
  readonly crc?: number;
  /** What the directory states; the true ones if missing. */
  readonly sizes?: { readonly packed?: number; readonly unpacked?: number };
  /** Where the directory says that the entry begins. */
  readonly offset?: number;
  /** Unix mode with the type of file, such as 0o120777 of a link. */
  readonly mode?: number;
  readonly localName?: string;
  readonly extra?: Uint8Array;
  /** Sizes and checksum after the data, zeros before it (4.3.9). */
  readonly descriptor?: boolean;
  /** Sizes and place in 64 bits in the directory (4.5.3). */
  readonly zip64?: boolean;
  /** Whether only the directory has it. */
  readonly inDirectoryAlone?: boolean;
}

export interface ZipEnd {
  readonly disk?: number;
  readonly count?: number;
  readonly directoryBytes?: number;
  readonly directoryOffset?: number;
  readonly comment?: Uint8Array;
}

export function zipOf(entries: readonly ZipEntry[], end: ZipEnd = {}): Uint8Array {
  const body: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const entry of entries) {
    const { data = new Uint8Array(0), method = 8 } = entry;
    const packed = entry.packed ?? (method === 8 ? deflateRawSync(data) : data);
    const facts = {
      entry,
      method,
      flags: (entry.flags ?? 0x800) | (entry.descriptor ? 8 : 0),
      crc: entry.crc ?? crc32(data, 0),
      packed: entry.sizes?.packed ?? packed.length,
      unpacked: entry.sizes?.unpacked ?? data.length,
      offset: entry.offset ?? at,
    };
    directory.push(directoryRecord(facts));
    if (entry.inDirectoryAlone) continue;
    const pieces = [localRecord(facts), packed, ...(entry.descriptor ? [descriptorOf(facts)] : [])];
    body.push(...pieces);
    for (const { length } of pieces) at += length;
  }
  const records = joined(directory);
  return joined([...body, records, endRecord(entries.length, records.length, at, end)]);
}

interface Facts {
  readonly entry: ZipEntry;
  readonly method: number;
  readonly flags: number;
  readonly crc: number;
  readonly packed: number;
  readonly unpacked: number;
  readonly offset: number;
}

const text = (value: string) => new TextEncoder().encode(value);
const full = 0xffffffff;

/** Numbers of two or four bytes, little endian. */
function numbers(...values: readonly [bytes: 2 | 4 | 8, value: number][]): Uint8Array {
  const view = new DataView(new ArrayBuffer(values.reduce((sum, [bytes]) => sum + bytes, 0)));
  let at = 0;
  for (const [bytes, value] of values) {
    if (bytes === 2) view.setUint16(at, value, true);
    else if (bytes === 4) view.setUint32(at, value, true);
    else view.setBigUint64(at, BigInt(value), true);
    at += bytes;
  }
  return new Uint8Array(view.buffer);
}

function localRecord({ entry, method, flags, crc, packed, unpacked }: Facts): Uint8Array {
  const name = text(entry.localName ?? entry.name);
  const extra = entry.extra ?? new Uint8Array(0);
  const later = entry.descriptor === true;
  return joined([
    numbers([4, 0x04034b50], [2, 20], [2, flags], [2, method], [2, 0], [2, 0x21]),
    numbers([4, later ? 0 : crc], [4, later ? 0 : packed], [4, later ? 0 : unpacked]),
    numbers([2, name.length], [2, extra.length]),
    name,
    extra,
  ]);
}

const descriptorOf = ({ crc, packed, unpacked }: Facts) =>
  numbers([4, 0x08074b50], [4, crc], [4, packed], [4, unpacked]);

function directoryRecord({ entry, method, flags, crc, packed, unpacked, offset }: Facts): Uint8Array {
  const name = text(entry.name);
  const wide = entry.zip64 === true;
  const extra = wide ? numbers([2, 1], [2, 24], [8, unpacked], [8, packed], [8, offset]) : new Uint8Array(0);
  return joined([
    numbers([4, 0x02014b50], [2, (3 << 8) | 45], [2, 20], [2, flags], [2, method], [2, 0], [2, 0x21]),
    numbers([4, crc], [4, wide ? full : packed], [4, wide ? full : unpacked]),
    numbers([2, name.length], [2, extra.length], [2, 0], [2, 0], [2, 0]),
    numbers([4, (entry.mode ?? 0) * 65536], [4, wide ? full : offset]),
    name,
    extra,
  ]);
}

function endRecord(count: number, bytes: number, offset: number, end: ZipEnd): Uint8Array {
  const comment = end.comment ?? new Uint8Array(0);
  const { disk = 0, count: stated = count } = end;
  return joined([
    numbers([4, 0x06054b50], [2, disk], [2, disk], [2, stated], [2, stated]),
    numbers([4, end.directoryBytes ?? bytes], [4, end.directoryOffset ?? offset], [2, comment.length]),
    comment,
  ]);
}

export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}
