import { isVolumeUnlikeBase64, TomaatError } from '@tomaat/core';

/**
 * Decodes base64 (RFC 4648 section 4) while it arrives, in constant memory. Line breaks are skipped anywhere;
 * any other character outside the alphabet, missing or misplaced padding, and text after the padding are BAD_REQUEST,
 * which names the offset in the encoded text. `spaceIsPlus` repairs the output of a form encoder that did not escape '+'.
 * A returned chunk is valid until the next one is requested.
 */
export async function* decodeBase64(
  source: AsyncIterable<Uint8Array>,
  options: { spaceIsPlus?: boolean } = {},
): AsyncGenerator<Uint8Array> {
  const decoder = new Decoder(options.spaceIsPlus ?? false);
  for await (const chunk of source) {
    for (let from = 0; from < chunk.length; from += pieceBytes) {
      const decoded = decoder.decode(chunk.subarray(from, from + pieceBytes));
      if (decoded.length > 0) yield decoded;
    }
  }
  decoder.end();
}

/**
 * Whether the first bytes of a value show the raw file where base64 was expected: gzip, or a volume of
 * any format. No base64 text begins with such bytes.
 */
export function isRawVolume(prefix: Uint8Array): boolean {
  const head = Buffer.from(prefix.buffer, prefix.byteOffset, Math.min(prefix.length, 256));
  const isGzip = head.length >= 2 && head[0] === 0x1f && head[1] === 0x8b;
  return isGzip || isVolumeUnlikeBase64(head);
}

const pieceBytes = 64 * 1024;
const cr = 13;
const lf = 10;
const space = 32;
const plus = 43;
const equals = 61;

/** 1 for the 64 characters of the alphabet, 2 for a line break, 0 for anything else. */
const kinds = new Uint8Array(256);
for (const character of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/') {
  kinds[character.charCodeAt(0)] = 1;
}
kinds[cr] = 2;
kinds[lf] = 2;

/**
 * Node decodes base64 with vector instructions and skips line breaks, but also any other unknown character. A
 * piece whose line breaks are predictable (lines of one length) is therefore passed to it unchanged: the
 * number of decoded bytes then shows whether anything else was skipped. Other pieces are first checked and
 * stripped byte by byte.
 */
class Decoder {
  readonly #spaceIsPlus: boolean;
  readonly #output = Buffer.allocUnsafeSlow((pieceBytes / 4) * 3 + 3);
  #stripped: Buffer | undefined;
  /** The characters, up to 3, that wait for the rest of their group of four. */
  #carry = '';
  /** Characters per line and bytes of a line break; 0 while unknown, Infinity where no break has been seen. */
  #lineLength = 0;
  #breakLength: 1 | 2 = 1;
  /** Bytes since the beginning of the line, its break included. */
  #column = 0;
  #isAfterCr = false;
  #offset = 0;
  /** Padding still to come; undefined before the padding. */
  #paddingDue: number | undefined;

  constructor(spaceIsPlus: boolean) {
    this.#spaceIsPlus = spaceIsPlus;
  }

  decode(piece: Uint8Array): Uint8Array {
    const bytes = Buffer.from(piece.buffer, piece.byteOffset, piece.length);
    const decoded = this.#decodeRegular(bytes) ?? this.#decodeChecked(bytes);
    this.#offset += bytes.length;
    return decoded;
  }

  end(): void {
    if (this.#carry.length === 0 && !this.#paddingDue) return;
    throw new TomaatError(
      'BAD_REQUEST',
      `The base64 text ends at offset ${this.#offset} in the middle of a group of four characters: it was cut off, or its padding is missing. Send it again`,
    );
  }

  /** The decoded piece if its lines are as predicted; otherwise undefined, and nothing has changed. */
  #decodeRegular(bytes: Buffer): Uint8Array | undefined {
    if (this.#paddingDue !== undefined || bytes.length < 64) return undefined;
    // Node accepts these two characters of base64url.
    if (bytes.includes('-') || bytes.includes('_')) return undefined;
    if (this.#lineLength === 0) this.#learnLines(bytes);
    const breakBytes = this.#countBreakBytes(bytes);
    if (breakBytes === undefined) return undefined;

    const characters = this.#carry.length + bytes.length - breakBytes;
    const left = characters % 4;
    let cut = bytes.length;
    for (let missing = left; missing > 0 && cut > 0; ) if (kinds[bytes[--cut]] !== 2) missing--;
    const carry = bytes.toString('latin1', cut).replace(/[\r\n]/g, '');
    if (carry.length !== left || !/^[A-Za-z0-9+/]*$/.test(carry)) return undefined;
    const length = ((characters - left) / 4) * 3;
    if (this.#output.write(this.#carry + bytes.toString('latin1', 0, cut), 0, 'base64') !== length)
      return undefined;
    this.#carry = carry;
    this.#column = (this.#column + bytes.length) % (this.#lineLength + this.#breakLength);
    this.#isAfterCr = this.#breakLength === 2 && this.#column === this.#lineLength + 1;
    return this.#output.subarray(0, length);
  }

  #learnLines(bytes: Buffer): void {
    const at = bytes.indexOf(lf);
    const hasCr = at > 0 ? bytes[at - 1] === cr : this.#isAfterCr;
    this.#breakLength = hasCr ? 2 : 1;
    this.#lineLength = at < 0 ? Number.POSITIVE_INFINITY : this.#column + at + 1 - this.#breakLength;
  }

  /** How many bytes of a piece are line breaks, if there is one wherever a line should end. */
  #countBreakBytes(bytes: Buffer): number | undefined {
    const hasCr = this.#breakLength === 2;
    let count = 0;
    // A break may have begun in the previous piece (at = -1) or continue in the next one.
    let at = this.#lineLength - this.#column;
    if (at < 1 - this.#breakLength) return undefined;
    for (; at < bytes.length; at += this.#lineLength + this.#breakLength) {
      if (hasCr && at >= 0) {
        if (bytes[at] !== cr) return undefined;
        count++;
      }
      const last = at + this.#breakLength - 1;
      if (last >= bytes.length) break;
      if (bytes[last] !== lf) return undefined;
      count++;
    }
    return count;
  }

  /** The piece checked byte by byte, and decoded. */
  #decodeChecked(bytes: Buffer): Uint8Array {
    this.#stripped ??= Buffer.allocUnsafeSlow(pieceBytes + 3);
    const stripped = this.#stripped;
    let count = stripped.write(this.#carry, 0, 'latin1');
    for (let index = 0; index < bytes.length; index++) {
      let code = bytes[index];
      if (code === space && this.#spaceIsPlus) code = plus;
      const kind = kinds[code];
      this.#followLine(code);
      if (kind === 2) continue;
      if (code === equals) {
        const due = this.#paddingDue ?? [0, 0, 2, 1][count % 4];
        if (due === 0) throw misplaced(this.#offset + index, 'unexpected padding');
        this.#paddingDue = due - 1;
      } else if (kind === 0) {
        throw misplaced(this.#offset + index, nameOf(code));
      } else if (this.#paddingDue !== undefined) {
        throw misplaced(this.#offset + index, 'more text after the padding');
      } else stripped[count++] = code;
    }
    const left = this.#paddingDue === undefined ? count % 4 : 0;
    const decodable = count - left;
    this.#carry = stripped.toString('latin1', decodable, count);
    const length = this.#output.write(stripped.toString('latin1', 0, decodable), 0, 'base64');
    return this.#output.subarray(0, length);
  }

  /** Predicts the length of the next line from each whole line. */
  #followLine(code: number): void {
    if (code !== lf) {
      this.#column++;
      this.#isAfterCr = code === cr;
      return;
    }
    const characters = this.#column - (this.#isAfterCr ? 1 : 0);
    if (characters > 0) {
      this.#lineLength = characters;
      this.#breakLength = this.#isAfterCr ? 2 : 1;
    }
    this.#column = 0;
    this.#isAfterCr = false;
  }
}

function misplaced(offset: number, what: string): TomaatError {
  return new TomaatError(
    'BAD_REQUEST',
    `The base64 text has ${what} at offset ${offset}. Send the file in base64 as RFC 4648 defines it`,
    {
      detail: { offset },
    },
  );
}

function nameOf(code: number): string {
  if (code === space) return "a space (a '+' that was not escaped?)";
  if (code === 45 || code === 95) return `'${String.fromCharCode(code)}', which belongs to base64url,`;
  return code > space && code < 127
    ? `'${String.fromCharCode(code)}'`
    : `the byte 0x${code.toString(16).padStart(2, '0')}`;
}
