/**
 * Random changes of bytes that follow the structure of files and headers: numbers, words, lines, runs. Repeatable by
 * seed.
 */

/** An integer from 0 up to, but not including, `end`. */
export type Random = (end: number) => number;

/** Mulberry32: the same numbers for the same seed on every machine. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  return (end) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4294967296) * end);
  };
}

const integers = [
  0n,
  1n,
  -1n,
  2n,
  7n,
  8n,
  127n,
  128n,
  255n,
  256n,
  348n,
  540n,
  1024n,
  32767n,
  32768n,
  65535n,
  65536n,
  2n ** 31n - 1n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 32n,
  2n ** 53n,
  2n ** 53n + 1n,
  2n ** 62n,
  2n ** 63n - 1n,
  -(2n ** 31n),
  -(2n ** 63n),
];
const floats = [
  0,
  -0,
  1,
  -1,
  0.5,
  352,
  544,
  1e-45,
  1e-12,
  1e6,
  1e9,
  3e38,
  1e300,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  2 ** 24 + 1,
];
const numbers = [
  '0',
  '-1',
  '1',
  '2',
  '3',
  '4',
  '32767',
  '65536',
  '2147483647',
  '4294967296',
  '9007199254740993',
  '1e999',
  '-1e999',
  'nan',
  'inf',
  '1e-400',
  '0x10',
  '00',
  '1.5',
  '.5',
  '5.',
  '+3',
  '1e5',
  '',
  '9'.repeat(400),
];

export interface Mutator {
  /** The maximum size of an input in bytes. */
  readonly maxBytes: number;
  /** What a change may insert: the words of the format. */
  readonly words: readonly string[];
}

/** A changed copy: one to six changes of `input`, some of which copy a piece of `other`. */
export function mutate(
  input: Uint8Array,
  other: Uint8Array,
  random: Random,
  { words, maxBytes }: Mutator,
): Uint8Array {
  let bytes: Buffer = Buffer.from(input);
  // Some changes find nothing to change: an output equal to the input is changed again.
  for (let tries = 0; tries < 10; tries++) {
    for (let left = 1 + random(random(3) === 0 ? 6 : 2); left > 0; left--) {
      bytes = changes[random(changes.length)](bytes, random, words, other);
      if (bytes.length > maxBytes) bytes = bytes.subarray(0, maxBytes);
    }
    if (!bytes.equals(input)) break;
  }
  return bytes;
}

type Change = (bytes: Buffer, random: Random, words: readonly string[], other: Uint8Array) => Buffer;

/** A position, usually where headers are. */
function place(length: number, random: Random): number {
  return random(Math.max(1, random(3) === 0 ? length : Math.min(length, 600)));
}

/** A position and a length, usually short. */
function range(length: number, random: Random): [at: number, end: number] {
  const at = place(length + 1, random);
  const longest = random(4) === 0 ? length : 16;
  return [at, Math.min(length, at + 1 + random(longest))];
}

const splice = (bytes: Buffer, at: number, end: number, put: Uint8Array) =>
  Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(end)]);

function write(bytes: Buffer, at: number, width: number, little: boolean, value: bigint | number): Buffer {
  if (at + width > bytes.length) return bytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (typeof value === 'number') {
    if (width === 4) view.setFloat32(at, value, little);
    else view.setFloat64(at, value, little);
  } else if (width === 1) view.setUint8(at, Number(BigInt.asUintN(8, value)));
  else if (width === 2) view.setUint16(at, Number(BigInt.asUintN(16, value)), little);
  else if (width === 4) view.setUint32(at, Number(BigInt.asUintN(32, value)), little);
  else view.setBigUint64(at, BigInt.asUintN(64, value), little);
  return bytes;
}

/** Replaces one match of a pattern in the first 2 KiB. */
function replaceOne(bytes: Buffer, pattern: RegExp, random: Random, put: (found: string) => string): Buffer {
  const text = bytes.toString('latin1', 0, 2048);
  const found = [...text.matchAll(pattern)];
  if (found.length === 0) return bytes;
  const { index, 0: old } = found[random(found.length)];
  return splice(bytes, index, index + old.length, Buffer.from(put(old), 'latin1'));
}

const word = (random: Random, words: readonly string[]) =>
  Buffer.from(words.length === 0 ? numbers[random(numbers.length)] : words[random(words.length)], 'latin1');

const changes: readonly Change[] = [
  (bytes, random) => {
    if (bytes.length > 0) bytes[place(bytes.length, random)] ^= 1 << random(8);
    return bytes;
  },
  (bytes, random) => {
    if (bytes.length > 0) bytes[place(bytes.length, random)] = random(256);
    return bytes;
  },
  (bytes, random) => {
    const width = [1, 2, 4, 8][random(4)];
    const at = place(bytes.length, random);
    const aligned = random(4) === 0 ? at : at - (at % width);
    return write(bytes, aligned, width, random(4) !== 0, integers[random(integers.length)]);
  },
  (bytes, random) => {
    const width = [4, 8][random(2)];
    const at = place(bytes.length, random);
    return write(bytes, at - (at % 4), width, random(4) !== 0, floats[random(floats.length)]);
  },
  (bytes, random) => {
    const [at, end] = range(bytes.length, random);
    return splice(bytes, at, end, Buffer.alloc(0));
  },
  (bytes, random) => {
    const [at, end] = range(bytes.length, random);
    return splice(bytes, at, at, bytes.subarray(at, end));
  },
  (bytes, random) => {
    const [at] = range(bytes.length, random);
    return splice(bytes, at, at, Buffer.from(Array.from({ length: 1 + random(8) }, () => random(256))));
  },
  (bytes, random) => bytes.subarray(0, random(bytes.length + 1)),
  (bytes, random, _words, other) => {
    const [at, end] = range(other.length, random);
    const [to, until] = range(bytes.length, random);
    return splice(bytes, to, random(2) === 0 ? to : until, other.subarray(at, end));
  },
  (bytes, random, words) => {
    const [at, end] = range(bytes.length, random);
    return splice(bytes, at, random(2) === 0 ? at : end, word(random, words));
  },
  (bytes, random) => replaceOne(bytes, /[+-]?\d[\d.]*/g, random, () => numbers[random(numbers.length)]),
  (bytes, random, words) =>
    replaceOne(bytes, /[A-Za-z_][\w-]*/g, random, () => word(random, words).toString('latin1')),
  (bytes, random) =>
    replaceOne(bytes, /^[^\r\n]*\r?\n/gm, random, (line) => (random(2) === 0 ? '' : line + line)),
  // Depth and length: one word repeated many times.
  (bytes, random, words) => {
    if (random(20) !== 0) return bytes;
    const [at] = range(bytes.length, random);
    const one = random(2) === 0 ? word(random, words).subarray(0, 4) : bytes.subarray(at, at + 1 + random(4));
    return one.length === 0
      ? bytes
      : splice(bytes, at, at, Buffer.alloc(one.length * 2 ** random(random(8) === 0 ? 14 : 8), one));
  },
];

/**
 * A smaller input that still fails: pieces are removed, smaller and smaller ones, for as long as `fails` returns true
 * and `tries` are left.
 */
export async function minimise(
  input: Uint8Array,
  fails: (smaller: Uint8Array) => Promise<boolean>,
  tries = 1000,
): Promise<Uint8Array> {
  let best = Buffer.from(input);
  for (let size = best.length >> 1; size >= 1; size = size >> 1) {
    for (let at = 0; at < best.length; ) {
      if (tries-- <= 0) return best;
      const smaller = Buffer.concat([best.subarray(0, at), best.subarray(at + size)]);
      if (await fails(smaller)) best = smaller;
      else at += size;
    }
  }
  return best;
}
