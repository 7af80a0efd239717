import { parseHeaderValue } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import type { BodyPart } from './body-part.ts';

/** The limits of a multipart body. Its bytes are counted before it comes here (byte-counter.ts). */
export interface PartLimits {
  /** Default 64. */
  readonly maxParts?: number;
  /** Parts with a file name are counted by themselves, up to this number; with all others if missing. */
  readonly maxFiles?: number;
  /** Bytes of one part's header or of one name; default 8 KiB. */
  readonly maxHeaderBytes?: number;
}

export const defaultPartLimits = { maxParts: 64, maxHeaderBytes: 8192 } as const satisfies PartLimits;

/**
 * The parts of a multipart/form-data body (RFC 7578, RFC 2046 section 5.1), one after the other, each as a stream
 * whether it has a file name or not. Strict: a body that is malformed, or ends before the closing boundary, is
 * BAD_REQUEST, which names the part. `contentType` is the request's header.
 */
export async function* readMultipart(
  source: AsyncIterable<Uint8Array>,
  contentType: string,
  limits: PartLimits = {},
): AsyncGenerator<BodyPart> {
  const { maxParts, maxFiles, maxHeaderBytes } = { maxFiles: undefined, ...defaultPartLimits, ...limits };
  const scanner = new Scanner(source, boundaryOf(contentType));
  try {
    let parts = 0;
    let files = 0;
    let where = 'before the first part';
    let preambleBytes = 0;
    for await (const chunk of scanner.untilDelimiter(where)) {
      preambleBytes += chunk.length;
      if (preambleBytes > maxHeaderBytes) throw malformed('has no boundary line at its beginning');
    }
    while (await scanner.opensPart(where)) {
      if (++parts > maxParts + (maxFiles ?? 0)) throw malformed(`has more than ${maxParts} parts`);
      where = `in the header of part ${parts}`;
      const header = parsePartHeader(await scanner.header(where, maxHeaderBytes), parts);
      if (maxFiles !== undefined) {
        if (header.fileName !== undefined) files++;
        if (files > maxFiles)
          throw malformed(`has more than ${maxFiles} files. Send them as one zip archive`);
        if (parts - files > maxParts) throw malformed(`has more than ${maxParts} parts that are not files`);
      }
      // Never by its name, which is untrusted.
      where = `in part ${parts}`;
      const body = scanner.untilDelimiter(where);
      yield { ...header, body };
      // The rest that the caller did not read.
      while (!(await body.next()).done);
      if (!scanner.isAtDelimiter) for await (const _ of scanner.untilDelimiter(where));
    }
    await scanner.skipEpilogue();
  } finally {
    await scanner.close();
  }
}

const cr = 13;
const lf = 10;
const dash = 45;

/** Cuts the chunks of a body at its boundary lines. */
class Scanner {
  readonly #iterator: AsyncIterator<Uint8Array>;
  /** CR LF, two dashes, the boundary: what ends a part. */
  readonly #delimiter: Buffer;
  /** Read but not yet returned. Starts with the line break that must precede a boundary line. */
  #held: Buffer = Buffer.from('\r\n');
  isAtDelimiter = false;

  constructor(source: AsyncIterable<Uint8Array>, boundary: string) {
    this.#iterator = source[Symbol.asyncIterator]();
    this.#delimiter = Buffer.from(`\r\n--${boundary}`, 'utf8');
  }

  /** Everything before the next boundary line; afterwards the scanner is past that line's boundary. */
  async *untilDelimiter(where: string): AsyncGenerator<Uint8Array> {
    this.isAtDelimiter = false;
    for (;;) {
      const chunk = this.#held;
      const found = chunk.indexOf(this.#delimiter);
      if (found >= 0) {
        this.#held = chunk.subarray(found + this.#delimiter.length);
        this.isAtDelimiter = true;
        if (found > 0) yield chunk.subarray(0, found);
        return;
      }
      const keep = this.#delimiterPrefixAtEnd(chunk);
      this.#held = Buffer.from(chunk.subarray(chunk.length - keep));
      if (keep < chunk.length) yield chunk.subarray(0, chunk.length - keep);
      await this.#readMore(where);
    }
  }

  /** What follows the boundary: true for a line's end, before a part; false for the two dashes of the last one. */
  async opensPart(where: string): Promise<boolean> {
    await this.#require(2, where);
    if (this.#held[0] === dash && this.#held[1] === dash) {
      this.#held = this.#held.subarray(2);
      return false;
    }
    for (let padding = 0; ; padding++) {
      await this.#require(padding + 2, where);
      if (this.#held[padding] === cr && this.#held[padding + 1] === lf) {
        this.#held = this.#held.subarray(padding + 2);
        return true;
      }
      const isBlank = this.#held[padding] === 32 || this.#held[padding] === 9;
      if (!isBlank || padding > 64)
        throw malformed(`has text after the boundary in a boundary line, ${where}`);
    }
  }

  /** A part's header, without the empty line at its end. */
  async header(where: string, maxBytes: number): Promise<Buffer> {
    // An empty header is the empty line alone.
    await this.#require(2, where);
    if (this.#held[0] === cr && this.#held[1] === lf) {
      this.#held = this.#held.subarray(2);
      return Buffer.alloc(0);
    }
    for (;;) {
      const end = this.#held.indexOf('\r\n\r\n');
      if (end > maxBytes || (end < 0 && this.#held.length > maxBytes + 4)) {
        throw malformed(`has more than ${maxBytes} bytes ${where}`);
      }
      if (end >= 0) {
        const header = this.#held.subarray(0, end);
        this.#held = this.#held.subarray(end + 4);
        return header;
      }
      await this.#readMore(where);
    }
  }

  async skipEpilogue(): Promise<void> {
    while (!(await this.#iterator.next()).done);
  }

  async close(): Promise<void> {
    await this.#iterator.return?.();
  }

  async #require(bytes: number, where: string): Promise<void> {
    while (this.#held.length < bytes) await this.#readMore(where);
  }

  async #readMore(where: string): Promise<void> {
    // A copy: the chunk is no longer ours when the next one is requested.
    const held = Buffer.from(this.#held);
    const { done, value } = await this.#iterator.next();
    if (done) throw malformed(`ends ${where}, before its closing boundary. Send all of it`);
    const chunk = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    this.#held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
  }

  /** How many bytes at the end of a chunk may be the beginning of the delimiter. */
  #delimiterPrefixAtEnd(chunk: Buffer): number {
    const from = Math.max(0, chunk.length - this.#delimiter.length + 1);
    for (let at = chunk.indexOf(cr, from); at >= 0; at = chunk.indexOf(cr, at + 1)) {
      const length = chunk.length - at;
      if (this.#delimiter.compare(chunk, at, chunk.length, 0, length) === 0) return length;
    }
    return 0;
  }
}

const tokenPattern = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

function parsePartHeader(bytes: Buffer, number: number): Omit<BodyPart, 'body'> {
  const at = `part ${number}`;
  const fields = new Map<string, string>();
  for (const line of bytes.length === 0 ? [] : decodeHeader(bytes).split('\r\n')) {
    const colon = line.indexOf(':');
    const key = line.slice(0, colon).toLowerCase();
    if (colon < 1 || !tokenPattern.test(key) || /[\0\r\n]/.test(line)) {
      throw malformed(`has a line in the header of ${at} that is not 'Name: value'`);
    }
    if (fields.has(key)) throw malformed(`has a field twice in the header of ${at}`);
    fields.set(key, line.slice(colon + 1).trim());
  }
  const disposition = fields.get('content-disposition');
  if (disposition === undefined) throw malformed(`has no Content-Disposition in the header of ${at}`);
  const { value, parameters } = parseParameters(disposition, `Content-Disposition of ${at}`);
  if (value.toLowerCase() !== 'form-data') throw malformed(`has ${at} that is not 'form-data'`);
  const name = parameters.get('name');
  if (!name) throw malformed(`has no name in the Content-Disposition of ${at}`);
  if (parameters.has('name*'))
    throw malformed(`has 'name*' in ${at}, which is not allowed in forms (RFC 7578)`);
  const encoding = fields.get('content-transfer-encoding')?.toLowerCase() ?? 'binary';
  if (!['binary', '8bit', '7bit'].includes(encoding)) {
    throw malformed(
      `has ${at} in a Content-Transfer-Encoding other than binary. Send it unencoded (RFC 7578)`,
    );
  }
  const extended = parameters.get('filename*');
  const fileName =
    extended === undefined ? unescapeFormName(parameters.get('filename')) : decodeExtended(extended, at);
  return { name, fileName: toDisplayName(fileName), contentType: fields.get('content-type') };
}

/** UTF-8 as RFC 7578 section 5.1 says, otherwise Latin-1 as old browsers sent it. */
function decodeHeader(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return bytes.toString('latin1');
  }
}

/** The grammar of Content-Type and Content-Disposition, each parameter once. */
function parseParameters(text: string, where: string): { value: string; parameters: Map<string, string> } {
  const read = parseHeaderValue(text);
  if (!read) throw malformed(`has a parameter that cannot be read in the ${where}`);
  const parameters = new Map(read.parameters);
  if (parameters.size < read.parameters.length) throw malformed(`has a parameter twice in the ${where}`);
  return { value: read.value, parameters };
}

function boundaryOf(contentType: string): string {
  const { value, parameters } = parseParameters(contentType, 'Content-Type of the request');
  const boundary = parameters.get('boundary');
  if (value.toLowerCase() !== 'multipart/form-data' || !boundary) {
    throw new TomaatError(
      'BAD_REQUEST',
      'A multipart form needs the Content-Type multipart/form-data with a boundary. Let the HTTP library set the header',
      { field: 'Content-Type' },
    );
  }
  if (boundary.length > 200 || !/^[\x20-\x7e]*[\x21-\x7e]$/.test(boundary)) {
    throw new TomaatError(
      'BAD_REQUEST',
      'The boundary in Content-Type is malformed. Send 1 to 70 letters and digits',
      {
        field: 'Content-Type',
      },
    );
  }
  return boundary;
}

/** How browsers write a quote and line breaks in names (HTML, "multipart form data"). */
function unescapeFormName(name: string | undefined): string | undefined {
  return name?.replace(/%22/g, '"').replace(/%0D/gi, '\r').replace(/%0A/gi, '\n');
}

/** The form of RFC 5987: charset'language'percent-encoded bytes. */
function decodeExtended(text: string, part: string): string {
  const [charset, language, encoded, ...more] = text.split("'");
  const isUtf8 = charset.toLowerCase() === 'utf-8';
  const isKnown = isUtf8 || charset.toLowerCase() === 'iso-8859-1';
  const isEncoded = /^(?:[^%\s";\\]|%[0-9a-f]{2})*$/i.test(encoded ?? '%');
  if (!isKnown || language === undefined || !isEncoded || more.length > 0)
    throw malformed(`has a malformed 'filename*' in ${part}`);
  const latin1 = encoded.replace(/%([0-9a-f]{2})/gi, (_, hex) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return isUtf8 ? decodeHeader(Buffer.from(latin1, 'latin1')) : latin1;
}

/**
 * A client's file name, made safe to display and to take the extension from: no folders, no control or
 * direction-changing characters, none that a file system refuses, at most the last 200 characters.
 */
export function toDisplayName(name: string | undefined): string | undefined {
  if (name === undefined) return undefined;
  const base = name.slice(Math.max(name.lastIndexOf('/'), name.lastIndexOf('\\')) + 1);
  const clean = base
    .toWellFormed()
    .replace(/[\p{Cc}\p{Cf}]/gu, '')
    .replace(/[<>:"|?*]/g, '_')
    .trim();
  const short = Array.from(clean).slice(-200).join('');
  return /^\.*$/.test(short) ? undefined : short;
}

function malformed(what: string): TomaatError {
  const remedy = what.includes('. ')
    ? ''
    : '. Let the HTTP library write the form, or write it as RFC 7578 requires';
  return new TomaatError('BAD_REQUEST', `The multipart body ${what}${remedy}`);
}
