import { createHash } from 'node:crypto';
import { closeSync, createReadStream, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { open, readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type Duplex, pipeline } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { verifySigned } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';

/**
 * The files of the audit log: `audit.jsonl`, the current one, and older ones. Those are named `audit-0000000123.jsonl`
 * after their last line, or as logrotate names them (`audit.jsonl.1`, `audit.jsonl-20260131.gz`), and may be compressed.
 */

export const auditFile = 'audit.jsonl';
export const anchorFile = 'audit.head';

/** The number and the SHA-256 of a line. */
export interface AuditHead {
  readonly sequence: number;
  /** Hexadecimal; 64 zeros before the first line. */
  readonly sha256: string;
}

export const firstHead: AuditHead = { sequence: 0, sha256: '0'.repeat(64) };

/** Our lines are far shorter; a damaged or hostile file without newlines is not buffered. */
const maxLineBytes = 2 ** 22;

export const hashOf = (text: string): string => createHash('sha256').update(text).digest('hex');

const endLength = `,"hash":"${'0'.repeat(64)}"}`.length;
const prevLength = `"prev":"${'0'.repeat(64)}"`.length;

/** The number and hashes of a line; undefined for a line that does not match its own hash. */
export function headOfLine(line: string): (AuditHead & { prev: string }) | undefined {
  // The end has a fixed length.
  const body = line.slice(0, Math.max(line.length - endLength, 0));
  const hash = /^,"hash":"([0-9a-f]{64})"\}$/.exec(line.slice(body.length))?.[1];
  const prev = /^"prev":"([0-9a-f]{64})"$/.exec(body.slice(-prevLength))?.[1];
  const sequence = sequenceOf(line);
  if (hash === undefined || prev === undefined || sequence === undefined || hashOf(`${body}}`) !== hash)
    return undefined;
  return { sequence, prev, sha256: hash };
}

/** The number that a line states, whether or not its hash holds; undefined for anything else. */
export function sequenceOf(line: string): number | undefined {
  const digits = /^\{"seq":(\d{1,15}),/.exec(line)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Paths of the files of the log in a folder, in no order. */
export async function auditFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder);
  return names.filter(isAuditFile).map((name) => join(folder, name));
}

export const isAuditFile = (name: string): boolean =>
  /^audit[-.]/.test(name) && name.includes('.jsonl') && !name.endsWith('.part');

/**
 * The files in the order of their lines, without empty ones. If two begin with the same line, as while
 * logrotate compresses one, the uncompressed one counts.
 */
export async function inOrder(paths: readonly string[]): Promise<string[]> {
  const known = new Map<number, { path: string; packed: boolean }>();
  const unknown: string[] = [];
  const all = new Set(paths);
  for (const path of paths) {
    const packed = (await formatOf(path)) !== undefined;
    // It may contain only half of the lines so far.
    if (packed && all.has(path.replace(/\.\w+$/, ''))) continue;
    const first = await firstLineOf(path, packed);
    if (first === undefined) continue;
    // The first line was changed: a file of ours is named after its last one.
    const sequence = sequenceOf(first) ?? numberIn(path);
    const other = sequence === undefined ? undefined : known.get(sequence);
    if (sequence === undefined) unknown.push(path);
    else if (!other || other.packed) known.set(sequence, { path, packed });
    else if (!packed)
      throw new TomaatError(
        'BAD_REQUEST',
        `${other.path} and ${path} begin with the same line. Give only one of them.`,
      );
  }
  const sorted = [...known].sort(([a], [b]) => a - b).map(([, { path }]) => path);
  return [...sorted, ...unknown];
}

const numberIn = (path: string): number | undefined => {
  const digits = /^audit-(\d{10})\.jsonl/.exec(basename(path))?.[1];
  return digits === undefined ? undefined : Number(digits);
};

/** The first line of a file; undefined if it is empty. A file that cannot be decompressed is found when all of it is read. */
async function firstLineOf(path: string, packed: boolean): Promise<string | undefined> {
  try {
    for await (const { text } of linesOf(path)) return text;
    return undefined;
  } catch (error) {
    if (packed && !(error instanceof TomaatError)) return '';
    throw error;
  }
}

/** The newest line by the signature of a folder and its files, for a log whose current file is still empty. */
export async function newestHead(
  folder: string,
  signed: AuditHead | undefined,
): Promise<AuditHead | undefined> {
  const signedMs = signed && statSync(join(folder, anchorFile)).mtimeMs;
  let newest: AuditHead | undefined = signed && { sequence: signed.sequence, sha256: signed.sha256 };
  for (const path of await auditFiles(folder)) {
    // Decompression takes time: only files written after the signature can hold a newer line.
    const packed = (await formatOf(path)) !== undefined;
    if (packed && signedMs !== undefined && statSync(path).mtimeMs < signedMs) continue;
    const last = packed ? await lastLineUnpacked(path) : lastLineAt(path);
    const head = last === undefined ? undefined : lastHeadOf(last);
    if (head && head.sequence > (newest?.sequence ?? 0)) newest = head;
  }
  return newest;
}

async function lastLineUnpacked(path: string): Promise<string | undefined> {
  let last: string | undefined;
  for await (const { text, torn } of linesOf(path)) if (!torn) last = text;
  return last;
}

function lastLineAt(path: string): string | undefined {
  const fd = openSync(path, 'r');
  try {
    return lastLine(fd, lastLineEnd(fd, fstatSync(fd).size));
  } finally {
    closeSync(fd);
  }
}

/** Where the last whole line of a file ends: bytes from its start. */
export function lastLineEnd(fd: number, sizeBytes: number): number {
  const tail = tailOf(fd, sizeBytes);
  return sizeBytes - tail.length + tail.lastIndexOf(10) + 1;
}

/** The last line of the first `sizeBytes` of a file, which end with a newline; undefined if there is none. */
export function lastLine(fd: number, sizeBytes: number): string | undefined {
  if (sizeBytes === 0) return undefined;
  const tail = tailOf(fd, sizeBytes).subarray(0, -1);
  return tail.toString('utf8', tail.lastIndexOf(10) + 1);
}

function tailOf(fd: number, sizeBytes: number): Buffer {
  const tail = Buffer.alloc(Math.min(sizeBytes, 2 ** 20));
  readSync(fd, tail, 0, tail.length, sizeBytes - tail.length);
  return tail;
}

/** A broken chain continues from the existing line: `tomaat audit verify` shows where it is broken. */
export const lastHeadOf = (line: string): AuditHead =>
  headOfLine(line) ?? { sequence: sequenceOf(line) ?? 0, sha256: hashOf(line) };

/**
 * The signature of the newest line, checked against the key that it names; undefined if the file is missing.
 * @throws TomaatError BAD_SIGNATURE if it is invalid.
 */
export async function readAnchor(file: string): Promise<(AuditHead & { thumbprint: string }) | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
  return headOfSignature(text.replace(/\n$/, ''), file);
}

/** What a signature of a line states, checked against the key that it names. @throws TomaatError BAD_SIGNATURE if it is invalid. */
export async function headOfSignature(
  text: string,
  source: string,
): Promise<AuditHead & { thumbprint: string }> {
  const { payload, thumbprint } = await verifySigned(text, 'tomaat-audit+jws');
  const { sequence, sha256 } = payload as AuditHead;
  if (!Number.isSafeInteger(sequence) || !/^[0-9a-f]{64}$/.test(String(sha256)))
    throw new TomaatError('BAD_SIGNATURE', `${source} does not contain the number and hash of a line.`);
  return { sequence, sha256, thumbprint };
}

/** The lines of a file, decompressed if necessary; the last one is `torn` if it does not end with a newline. */
export async function* linesOf(path: string): AsyncGenerator<{ text: string; torn: boolean }> {
  const file = createReadStream(path, { highWaterMark: 1 << 20 });
  // A reader gets the error; without one, it must not end the process.
  file.on('error', () => {});
  const unpack = await unpackerOf(path).catch((error: unknown) => {
    file.destroy();
    throw error;
  });
  const source = unpack ? pipeline(file, unpack, () => {}) : file;
  let rest = Buffer.alloc(0);
  for await (const chunk of source) {
    let bytes = Buffer.concat([rest, chunk as Buffer]);
    for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10)) {
      // As bytes: a line that is not UTF-8 must count as a different one.
      yield { text: bytes.toString('latin1', 0, at), torn: false };
      bytes = bytes.subarray(at + 1);
    }
    if (bytes.length > maxLineBytes)
      throw new TomaatError(
        'BAD_SIGNATURE',
        `The audit log is broken: ${basename(path)} has a line of more than ${maxLineBytes} bytes.`,
      );
    rest = bytes;
  }
  if (rest.length > 0) yield { text: rest.toString('latin1'), torn: true };
}

const magics = [
  ['gzip', [0x1f, 0x8b]],
  ['zstd', [0x28, 0xb5, 0x2f, 0xfd]],
  ['xz', [0xfd, 0x37, 0x7a, 0x58, 0x5a]],
  ['bzip2', [0x42, 0x5a, 0x68]],
] as const;
type Packing = (typeof magics)[number][0];

/** How a file is compressed, by its first bytes; undefined if it is not. */
async function formatOf(path: string): Promise<Packing | undefined> {
  const handle = await open(path, 'r');
  try {
    const bytes = Buffer.alloc(6);
    await handle.read(bytes, 0, bytes.length, 0);
    return magics.find(([, magic]) => magic.every((byte, at) => bytes[at] === byte))?.[0];
  } finally {
    await handle.close();
  }
}

async function unpackerOf(path: string): Promise<Duplex | undefined> {
  const format = await formatOf(path);
  if (format === undefined) return undefined;
  if (format === 'gzip') return createGunzip();
  if (format === 'zstd') return createZstdDecompress();
  throw new TomaatError(
    'UNSUPPORTED_FORMAT',
    `${path} is compressed with ${format}. Decompress it first; only gzip and zstd can be read directly.`,
  );
}
