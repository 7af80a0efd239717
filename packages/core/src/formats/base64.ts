import { TomaatError } from '../errors.ts';
import type { Bytes } from '../platform.ts';

/** Characters of a line, as Python's base64.encodebytes and MIME (RFC 2045) break them. */
const lineLength = 76;
const bytesPerLine = 57;

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
/** Two characters for each 12 bits. */
const firstOfPair = new Uint8Array(4096);
const secondOfPair = new Uint8Array(4096);
for (let i = 0; i < 4096; i++) {
  firstOfPair[i] = alphabet.charCodeAt(i >> 6);
  secondOfPair[i] = alphabet.charCodeAt(i & 63);
}
const bitsOf = new Uint8Array(256).fill(255);
for (let i = 0; i < 64; i++) bitsOf[alphabet.charCodeAt(i)] = i;
const skip = 254;
for (const blank of ' \t\r\n') bitsOf[blank.charCodeAt(0)] = skip;

/** Length of encodeBase64's output, bytes: 4 characters for 3, and a newline after each line, the last included. */
export function base64Length(bytes: number): number {
  const characters = 4 * Math.ceil(bytes / 3);
  return characters + Math.ceil(characters / lineLength);
}

/**
 * Encodes bytes in base64 (RFC 4648) with a newline after every 76 characters and at the end, as a
 * stream. The pieces may have any length; only an incomplete line is buffered.
 */
export async function* encodeBase64(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): AsyncGenerator<Bytes> {
  const rest = new Uint8Array(bytesPerLine);
  let restLength = 0;
  for await (const chunk of source) {
    let from = 0;
    if (restLength > 0) {
      from = Math.min(bytesPerLine - restLength, chunk.length);
      rest.set(chunk.subarray(0, from), restLength);
      restLength += from;
      if (restLength < bytesPerLine) continue;
      yield encodeLines(rest);
      restLength = 0;
    }
    const whole = Math.floor((chunk.length - from) / bytesPerLine) * bytesPerLine;
    if (whole > 0) yield encodeLines(chunk.subarray(from, from + whole));
    rest.set(chunk.subarray(from + whole));
    restLength = chunk.length - from - whole;
  }
  if (restLength > 0) yield encodeLines(rest.subarray(0, restLength));
}

/** Complete lines, and a padded last one if the bytes do not fill it. */
function encodeLines(bytes: Uint8Array): Bytes {
  const out = new Uint8Array(base64Length(bytes.length));
  let to = 0;
  for (let from = 0; from < bytes.length; from += bytesPerLine) {
    const end = Math.min(from + bytesPerLine, bytes.length);
    const triples = end - ((end - from) % 3);
    let i = from;
    for (; i < triples; i += 3, to += 4) {
      const bits = (bytes[i] << 16) | (bytes[i + 1] << 8) | bytes[i + 2];
      const high = bits >> 12;
      const low = bits & 4095;
      out[to] = firstOfPair[high];
      out[to + 1] = secondOfPair[high];
      out[to + 2] = firstOfPair[low];
      out[to + 3] = secondOfPair[low];
    }
    if (i < end) {
      const bits = (bytes[i] << 16) | (i + 1 < end ? bytes[i + 1] << 8 : 0);
      out[to] = firstOfPair[bits >> 12];
      out[to + 1] = secondOfPair[bits >> 12];
      out[to + 2] = i + 1 < end ? firstOfPair[bits & 4095] : 61;
      out[to + 3] = 61;
      to += 4;
    }
    out[to++] = 10;
  }
  return out;
}

/**
 * The bytes of a base64 text, all at once: for small files. Blanks and line breaks are skipped; any other
 * character, and wrong padding, is BAD_REQUEST.
 */
export function decodeBase64Text(text: string): Bytes {
  const out = new Uint8Array(Math.ceil(text.length / 4) * 3);
  let bits = 0;
  let held = 0;
  let length = 0;
  let padding = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    const value = code < 256 ? bitsOf[code] : 255;
    if (value === skip) continue;
    if (code === 61) {
      padding++;
      continue;
    }
    if (value === 255 || padding > 0) {
      throw badBase64(
        padding > 0
          ? `continues after its padding at character ${i}`
          : `has a character outside base64 at position ${i}`,
      );
    }
    bits = ((bits << 6) | value) & 0xffffff;
    if (++held === 4) {
      out[length] = bits >> 16;
      out[length + 1] = bits >> 8;
      out[length + 2] = bits;
      length += 3;
      held = 0;
    }
  }
  if (held === 1 || (held === 0 ? padding > 0 : held + padding !== 4)) throw badBase64('is cut off');
  if (held === 3) {
    out[length++] = bits >> 10;
    out[length++] = bits >> 2;
  } else if (held === 2) out[length++] = bits >> 4;
  return out.subarray(0, length);
}

function badBase64(fault: string): TomaatError {
  return new TomaatError(
    'BAD_REQUEST',
    `The base64 text ${fault}. Send the whole file encoded as in RFC 4648.`,
  );
}
