import { type Bytes, TomaatError } from '@tomaat/core';
import { parseHeaderValue } from './header-value.ts';
import { randomHex } from './upload.ts';

/*
 * multipart/related (RFC 2387; its framing is RFC 2046, section 5.1) as used by DICOMweb (PS3.18, section 8.6.1.2).
 * Read part by part from a stream, in linear time and with bounded memory for any bytes and any chunk sizes; written
 * as one body of known length.
 */

export interface RelatedPart {
  /** By name in lower case; the first of those with the same name. */
  readonly headers: ReadonlyMap<string, string>;
  /** Separate memory of the part. */
  readonly bytes: Bytes;
}

export interface RelatedOptions {
  /** The sender, at the start of messages: “pacs.example:8042”. */
  from: string;
  /** Maximum length of a part, in bytes. */
  maxPartBytes: number;
  /** Called for every chunk that arrives, with its length in bytes. */
  onBytes?(count: number): void;
}

/** For all headers of one part together. */
const maxHeaderBytes = 16_384;
/** RFC 2046: 1 to 70 characters. */
const maxBoundaryLength = 70;
/** Text before the first boundary or after the last one, which is skipped. */
const maxAroundBytes = 65_536;
/** Whitespace that may follow a boundary on its line. */
const maxPadding = 32;
/** The most memory that is allocated on the strength of a part's own Content-Length. */
const maxTrustedBytes = 2 ** 24;

const CR = 13;
const LF = 10;
const dash = 45;
const isBlank = (byte: number) => byte === 32 || byte === 9;

/**
 * The boundary of a Content-Type, and the media type of the parts.
 * @returns undefined if it is not multipart/related with a boundary as RFC 2046 allows
 */
export function parseRelatedType(contentType: string): { boundary: string; type?: string } | undefined {
  const header = parseHeaderValue(contentType);
  if (header?.value.toLowerCase() !== 'multipart/related') return undefined;
  const parameters = new Map(header.parameters);
  const boundary = parameters.get('boundary') ?? '';
  if (boundary.length > maxBoundaryLength || !/^[\x20-\x7e]*[\x21-\x7e]$/.test(boundary)) return undefined;
  return { boundary, type: parameters.get('type')?.toLowerCase() };
}

/**
 * The parts of a multipart/related body, one after the other; the next chunk is read only when the next part is
 * requested. Chunks may be split anywhere. Header lines may end with LF alone; a boundary must be preceded by CRLF,
 * because LF may belong to the bytes of the part. Everything before the first and after the last boundary is skipped.
 * @throws {TomaatError} UNREACHABLE if the body ends before its closing boundary; UPSTREAM for a part longer than
 *   allowed, headers that cannot be read, and a part whose length is not its Content-Length
 */
export async function* readRelated(
  chunks: AsyncIterable<Uint8Array>,
  boundary: string,
  options: RelatedOptions,
): AsyncGenerator<RelatedPart> {
  const delimiter = latin1Bytes(`\r\n--${boundary}`);
  // The first boundary may be at the very start, as if a line ended before it.
  const input = createInput(chunks, Uint8Array.of(CR, LF), options.onBytes);
  try {
    const preamble = createSink(maxAroundBytes, 0, () =>
      malformed(options, `has no boundary within its first ${maxAroundBytes} bytes`),
    );
    let { closes } = await readBody(input, delimiter, preamble, () =>
      cut(options, 'before its first boundary'),
    );
    for (let number = 1; !closes; number++) {
      const headers = await readHeaders(input, number, options);
      const stated = lengthOf(headers);
      if (stated !== undefined && stated > options.maxPartBytes) throw tooLong(options, number);
      const sink = createSink(options.maxPartBytes, stated ?? 0, () => tooLong(options, number));
      ({ closes } = await readBody(input, delimiter, sink, () => cut(options, `inside part ${number}`)));
      const bytes = sink.take();
      if (stated !== undefined && bytes.length !== stated) {
        throw malformed(
          options,
          `states ${stated} bytes for part ${number}, which has ${bytes.length} up to the next boundary`,
        );
      }
      yield { headers, bytes };
    }
    await input.drain(maxAroundBytes);
  } finally {
    await input.close();
  }
}

/** A multipart/related body with one part for each file, all of the media type `type`. The Blob knows its length. */
export function writeRelated(
  type: string,
  files: readonly (Blob | Bytes)[],
): { contentType: string; body: Blob } {
  const boundary = `tomaat-${randomHex(16)}`;
  const pieces: (Blob | Bytes | string)[] = [];
  for (const file of files) pieces.push(`--${boundary}\r\nContent-Type: ${type}\r\n\r\n`, file, '\r\n');
  pieces.push(`--${boundary}--\r\n`);
  return {
    contentType: `multipart/related; type="${type}"; boundary=${boundary}`,
    body: new Blob(pieces),
  };
}

interface Input {
  /** Bytes that have arrived and are not consumed yet. */
  held: Uint8Array;
  /** Appends the next chunk to the buffer; returns false at the end. */
  more(): Promise<boolean>;
  /** Reads the remaining data, up to a number of bytes; errors are ignored here. */
  drain(maxBytes: number): Promise<void>;
  close(): Promise<void>;
}

function createInput(
  chunks: AsyncIterable<Uint8Array>,
  start: Uint8Array,
  onBytes: (count: number) => void = () => {},
): Input {
  const iterator = chunks[Symbol.asyncIterator]();
  const input: Input = {
    held: start,
    async more() {
      const { done, value } = await iterator.next();
      if (done) return false;
      onBytes(value.length);
      if (input.held.length === 0) {
        input.held = value;
      } else {
        const joined = new Uint8Array(input.held.length + value.length);
        joined.set(input.held);
        joined.set(value, input.held.length);
        input.held = joined;
      }
      return true;
    },
    async drain(maxBytes) {
      try {
        for (let left = maxBytes; left > 0; ) {
          const { done, value } = await iterator.next();
          if (done) return;
          left -= value.length;
        }
      } catch {
        // The parts are complete: the closing boundary has been read.
      }
    },
    close: async () => void (await iterator.return?.()),
  };
  return input;
}

interface Sink {
  add(bytes: Uint8Array): void;
  /** All bytes added so far. */
  take(): Bytes;
}

/** Collects bytes in memory that doubles when it is full; `refuse` creates the error for more than `maxBytes`. */
function createSink(maxBytes: number, expectedBytes: number, refuse: () => TomaatError): Sink {
  let buffer = new Uint8Array(Math.min(expectedBytes, maxTrustedBytes));
  let length = 0;
  return {
    add(bytes) {
      const needed = length + bytes.length;
      if (needed > maxBytes) throw refuse();
      if (needed > buffer.length) {
        const exact = expectedBytes >= needed ? expectedBytes : maxBytes;
        const larger = new Uint8Array(Math.min(exact, Math.max(needed, 2 * buffer.length)));
        larger.set(buffer.subarray(0, length));
        buffer = larger;
      }
      buffer.set(bytes, length);
      length = needed;
    },
    take: () => (length === buffer.length ? buffer : buffer.slice(0, length)),
  };
}

/** Moves bytes to the sink up to the next boundary and consumes that; `closes` says whether it is the closing one. */
async function readBody(
  input: Input,
  delimiter: Uint8Array,
  sink: Sink,
  ended: () => TomaatError,
): Promise<{ closes: boolean }> {
  let isAtEnd = false;
  for (let from = 0; ; ) {
    const at = input.held.indexOf(CR, from);
    if (at < 0) {
      sink.add(input.held);
      input.held = input.held.subarray(input.held.length);
    } else {
      const found = matchDelimiter(input.held, at, delimiter, isAtEnd);
      if (found === 'none') {
        // A delimiter contains no CR, so the next candidate cannot begin within the compared bytes.
        from = at + 1;
        continue;
      }
      sink.add(input.held.subarray(0, at));
      if (found !== 'unfinished') {
        input.held = input.held.subarray(found.end);
        return { closes: found.closes };
      }
      input.held = input.held.subarray(at);
    }
    from = 0;
    if (await input.more()) continue;
    if (isAtEnd) throw ended();
    isAtEnd = true;
  }
}

/**
 * Whether a boundary line begins at `at`: CRLF, two dashes, the boundary, two more dashes if it is the closing one,
 * whitespace, and the end of the line or body. Anything else is part of the data, such as a longer boundary with the
 * same prefix.
 */
function matchDelimiter(
  held: Uint8Array,
  at: number,
  delimiter: Uint8Array,
  isAtEnd: boolean,
): 'none' | 'unfinished' | { end: number; closes: boolean } {
  const unfinished = isAtEnd ? 'none' : 'unfinished';
  const compared = Math.min(delimiter.length, held.length - at);
  for (let i = 1; i < compared; i++) if (held[at + i] !== delimiter[i]) return 'none';
  let end = at + delimiter.length;
  if (end >= held.length) return unfinished;
  const closes = held[end] === dash;
  if (closes) {
    if (end + 1 === held.length) return unfinished;
    if (held[end + 1] !== dash) return 'none';
    end += 2;
  }
  const padding = end;
  while (end < held.length && isBlank(held[end])) if (++end - padding > maxPadding) return 'none';
  if (end === held.length) return isAtEnd && closes ? { end, closes } : unfinished;
  if (held[end] === LF) return { end: end + 1, closes };
  if (held[end] !== CR) return 'none';
  if (end + 1 === held.length) return isAtEnd && closes ? { end: end + 1, closes } : unfinished;
  return held[end + 1] === LF ? { end: end + 2, closes } : 'none';
}

/**
 * The headers of a part, up to the empty line. A line that begins with whitespace continues the previous one (RFC
 * 5322, 2.2.3).
 */
async function readHeaders(
  input: Input,
  number: number,
  options: RelatedOptions,
): Promise<Map<string, string>> {
  const headers = new Map<string, string>();
  let last: string | undefined;
  for (let usedBytes = 0; ; ) {
    const line = await readLine(input, maxHeaderBytes - usedBytes, (isCut) =>
      isCut
        ? cut(options, `in the headers of part ${number}`)
        : malformed(options, `has headers of more than ${maxHeaderBytes} bytes in part ${number}`),
    );
    usedBytes += line.length + 1;
    const text = line.trim();
    if (text === '') return headers;
    const colon = line.indexOf(':');
    if (isBlank(line.charCodeAt(0)) && last !== undefined) {
      headers.set(last, `${headers.get(last)} ${text}`);
    } else if (colon > 0) {
      last = line.slice(0, colon).trim().toLowerCase();
      if (!headers.has(last)) headers.set(last, line.slice(colon + 1).trim());
    } else {
      throw malformed(options, `has a header without a colon in part ${number}`);
    }
  }
}

/** The next line without its CRLF or LF. `refuse` creates the error for one that is truncated or too long. */
async function readLine(
  input: Input,
  maxBytes: number,
  refuse: (isCut: boolean) => TomaatError,
): Promise<string> {
  for (let from = 0; ; ) {
    const at = input.held.indexOf(LF, from);
    if ((at < 0 ? input.held.length : at + 1) > maxBytes) throw refuse(false);
    if (at >= 0) {
      const end = at > 0 && input.held[at - 1] === CR ? at - 1 : at;
      const line = latin1Text(input.held.subarray(0, end));
      input.held = input.held.subarray(at + 1);
      return line;
    }
    from = input.held.length;
    if (!(await input.more())) throw refuse(true);
  }
}

/** The Content-Length of a part, which some servers send. */
function lengthOf(headers: ReadonlyMap<string, string>): number | undefined {
  const text = headers.get('content-length') ?? '';
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

const latin1Bytes = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const latin1Text = (bytes: Uint8Array) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');

const cut = ({ from }: RelatedOptions, where: string) =>
  new TomaatError(
    'UNREACHABLE',
    `The answer of ${from} ended ${where} and is incomplete. Check the network and the server's log, then try again.`,
  );
const malformed = ({ from }: RelatedOptions, what: string) =>
  new TomaatError(
    'UPSTREAM',
    `The multipart answer of ${from} ${what}. Check the server's log, and whether a proxy changes its answers.`,
  );
const tooLong = ({ from, maxPartBytes }: RelatedOptions, number: number) =>
  new TomaatError(
    'UPSTREAM',
    `Part ${number} of the answer of ${from} is longer than ${maxPartBytes} bytes. If it is the right file, allow more by maxInstanceBytes.`,
  );
