/** An encoder of lossless JPEG (ITU-T T.81 annex H) of one component, for tests: plain, and of every kind that there is. */
export interface LosslessJpeg {
  rows: number;
  columns: number;
  precision: number;
  /** 1 to 7. */
  predictor: number;
  pointTransform?: number;
  /** Lines between restart markers. */
  restartLines?: number;
  /** Every category has a code of so many bits, in the order of the categories: none is of ones alone. 5 by default. */
  codeBits?: number;
}

export function encodeJpegLossless(samples: ArrayLike<number>, jpeg: LosslessJpeg): Uint8Array {
  const { rows, columns, precision, predictor, pointTransform = 0, restartLines = 0, codeBits = 5 } = jpeg;
  const bytes: number[] = [0xff, 0xd8];
  const word = (value: number) => [(value >> 8) & 255, value & 255];
  const segment = (kind: number, content: number[]) =>
    void bytes.push(0xff, kind, ...word(content.length + 2), ...content);
  // A comment and a table that nothing uses come first, as other programs write them.
  segment(0xfe, [65, 66]);
  segment(0xc4, [0, ...counts(codeBits, 17), ...Array.from({ length: 17 }, (_, i) => i)]);
  segment(0xc3, [precision, ...word(rows), ...word(columns), 1, 1, 0x11, 0]);
  if (restartLines > 0) segment(0xdd, word(restartLines * columns));
  segment(0xda, [1, 1, 0, predictor, 0, pointTransform]);
  const reduced = Array.from({ length: rows * columns }, (_, i) => samples[i] >> pointTransform);
  const at = (x: number, y: number) => reduced[y * columns + x];
  let bits: number[] = [];
  const flush = () => {
    while (bits.length % 8 !== 0) bits.push(1);
    for (let i = 0; i < bits.length; i += 8) {
      const byte = bits.slice(i, i + 8).reduce((sum, bit) => sum * 2 + bit, 0);
      bytes.push(byte);
      if (byte === 0xff) bytes.push(0);
    }
    bits = [];
  };
  for (let y = 0; y < rows; y++) {
    const isStart = y === 0 || (restartLines > 0 && y % restartLines === 0);
    if (isStart && y > 0) {
      flush();
      bytes.push(0xff, 0xd0 + ((y / restartLines - 1) % 8));
    }
    for (let x = 0; x < columns; x++) {
      const predicted = isStart
        ? x === 0
          ? 2 ** (precision - pointTransform - 1)
          : at(x - 1, y)
        : x === 0
          ? at(x, y - 1)
          : predict(predictor, at(x - 1, y), at(x, y - 1), at(x - 1, y - 1));
      put(bits, at(x, y) - predicted, codeBits);
    }
  }
  flush();
  return Uint8Array.from([...bytes, 0xff, 0xd9]);
}

const counts = (length: number, count: number) =>
  Array.from({ length: 16 }, (_, i) => (i === length - 1 ? count : 0));

/** T.81 table H.1. */
function predict(predictor: number, a: number, b: number, c: number): number {
  return [0, a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1][predictor];
}

/** T.81 H.1.2.2: the difference modulo 2^16, its category, and the bits that tell it from others of it. */
function put(bits: number[], exact: number, codeBits: number): void {
  const difference = ((exact + 32_768) & 0xffff) - 32_768;
  const value = difference === -32_768 ? 32_768 : difference;
  const category = value === 0 ? 0 : Math.floor(Math.log2(Math.abs(value))) + 1;
  const push = (number: number, length: number) => {
    for (let i = length - 1; i >= 0; i--) bits.push((number >> i) & 1);
  };
  push(category, codeBits);
  if (category < 16) push(value < 0 ? value + 2 ** category - 1 : value, category);
}
