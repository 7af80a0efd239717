/**
 * The first decompressed bytes of consecutive gzip members, from the available part of them (RFC 1951, RFC 1952). The
 * platform's streams cannot provide these: if the input is cut off, they may drop decompressed bytes
 * with the error. Nothing is verified here; the members are verified when the voxels are read.
 */
export function inflatePrefix(gzip: Uint8Array, maxBytes: number): Uint8Array {
  const out = new Uint8Array(maxBytes);
  const state: State = { input: gzip, at: 0, bits: 0, bitCount: 0, out, length: 0 };
  try {
    do {
      skipGzipHeader(state);
      while (!inflateBlock(state));
    } while (skipToMember(state));
  } catch (error) {
    // The input's end, a fault in it, or enough output: the bytes so far are valid.
    if (!(error instanceof Stop)) throw error;
  }
  return out.subarray(0, state.length);
}

export const isGzip = (bytes: Uint8Array): boolean =>
  bytes.length >= 3 && bytes[0] === 0x1f && bytes[1] === 0x8b && bytes[2] === 8;

class Stop extends Error {}

interface State {
  input: Uint8Array;
  at: number;
  bits: number;
  bitCount: number;
  out: Uint8Array;
  length: number;
}

/** A canonical prefix code: how many codes have each length, and the symbols in the order of their codes. */
interface Code {
  counts: Uint16Array;
  symbols: Uint16Array;
}

function byte(s: State): number {
  if (s.at >= s.input.length) throw new Stop();
  return s.input[s.at++];
}

function bits(s: State, count: number): number {
  while (s.bitCount < count) {
    s.bits |= byte(s) << s.bitCount;
    s.bitCount += 8;
  }
  const value = s.bits & ((1 << count) - 1);
  s.bits >>>= count;
  s.bitCount -= count;
  return value;
}

function emit(s: State, value: number): void {
  if (s.length === s.out.length) throw new Stop();
  s.out[s.length++] = value;
}

function skipGzipHeader(s: State): void {
  s.at += 3;
  const flags = byte(s);
  s.at += 6;
  if (flags & 4) {
    const low = byte(s);
    const length = low | (byte(s) << 8);
    s.at += length;
  }
  if (flags & 8) while (byte(s) !== 0);
  if (flags & 16) while (byte(s) !== 0);
  if (flags & 2) s.at += 2;
}

/** Skips checksum, length and zeros after a member; returns whether another one begins there. */
function skipToMember(s: State): boolean {
  s.bits = 0;
  s.bitCount = 0;
  s.at += 8;
  while (s.input[s.at] === 0) s.at++;
  return isGzip(s.input.subarray(s.at));
}

function codeOf(lengths: Uint8Array): Code {
  const counts = new Uint16Array(16);
  for (const length of lengths) counts[length]++;
  const next = new Uint16Array(17);
  for (let i = 1; i < 16; i++) next[i + 1] = next[i] + counts[i];
  const symbols = new Uint16Array(lengths.length);
  lengths.forEach((length, symbol) => {
    if (length) symbols[next[length]++] = symbol;
  });
  return { counts, symbols };
}

function symbol(s: State, { counts, symbols }: Code): number {
  let code = 0;
  let first = 0;
  let index = 0;
  for (let length = 1; length < 16; length++) {
    code |= bits(s, 1);
    if (code - first < counts[length]) return symbols[index + code - first];
    index += counts[length];
    first = (first + counts[length]) << 1;
    code <<= 1;
  }
  throw new Stop();
}

const lengthBase = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
  227, 258,
];
const lengthExtra = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const codeLengthOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

function fixedCodes(): [Code, Code] {
  const lengths = new Uint8Array(288).fill(8).fill(9, 144, 256).fill(7, 256, 280);
  return [codeOf(lengths), codeOf(new Uint8Array(30).fill(5))];
}

function dynamicCodes(s: State): [Code, Code] {
  const literals = bits(s, 5) + 257;
  const distances = bits(s, 5) + 1;
  const lengthCount = bits(s, 4) + 4;
  const lengthLengths = new Uint8Array(19);
  for (let i = 0; i < lengthCount; i++) lengthLengths[codeLengthOrder[i]] = bits(s, 3);
  const lengthCode = codeOf(lengthLengths);
  const lengths = new Uint8Array(literals + distances);
  for (let i = 0; i < lengths.length; ) {
    const value = symbol(s, lengthCode);
    if (value < 16) lengths[i++] = value;
    else {
      if (value === 16 && i === 0) throw new Stop();
      const repeated = value === 16 ? lengths[i - 1] : 0;
      const times = value === 16 ? 3 + bits(s, 2) : value === 17 ? 3 + bits(s, 3) : 11 + bits(s, 7);
      if (i + times > lengths.length) throw new Stop();
      lengths.fill(repeated, i, (i += times));
    }
  }
  return [codeOf(lengths.subarray(0, literals)), codeOf(lengths.subarray(literals))];
}

/** Decompresses one block; true after the last. */
function inflateBlock(s: State): boolean {
  const last = bits(s, 1) === 1;
  const kind = bits(s, 2);
  if (kind === 3) throw new Stop();
  if (kind === 0) {
    s.bits = 0;
    s.bitCount = 0;
    const low = byte(s);
    const length = low | (byte(s) << 8);
    s.at += 2;
    for (let i = 0; i < length; i++) emit(s, byte(s));
    return last;
  }
  const [literalCode, distanceCode] = kind === 1 ? fixedCodes() : dynamicCodes(s);
  for (;;) {
    const value = symbol(s, literalCode);
    if (value < 256) emit(s, value);
    else if (value === 256) return last;
    else if (value > 285) throw new Stop();
    else {
      const length = lengthBase[value - 257] + bits(s, lengthExtra[value - 257]);
      const d = symbol(s, distanceCode);
      if (d > 29) throw new Stop();
      const extra = d < 2 ? 0 : (d >> 1) - 1;
      const distance = (d < 2 ? d + 1 : ((2 + (d & 1)) << extra) + 1) + bits(s, extra);
      if (distance > s.length) throw new Stop();
      for (let i = 0; i < length; i++) emit(s, s.out[s.length - distance]);
    }
  }
}
