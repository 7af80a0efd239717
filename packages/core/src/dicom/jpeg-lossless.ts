import { TomaatError } from '../errors.ts';
import type { Allocate, DecodedFrame } from './decoders.ts';

/*
 * Decodes lossless JPEG (ITU-T T.81, process 14: SOF3, Huffman) with one component: all seven predictors, restart
 * intervals, point transforms, 2 to 16 bits. Written here because jpeg-lossless-decoder-js returns 0 for the last
 * pixel of some images.
 */

const marker = {
  startOfImage: 0xd8,
  losslessFrame: 0xc3,
  huffmanTables: 0xc4,
  restartInterval: 0xdd,
  startOfScan: 0xda,
} as const;

const damaged = (why: string) =>
  new TomaatError(
    'BAD_VOXELS',
    `The lossless JPEG data of an image is damaged (${why}): send the file again`,
  );

interface Frame {
  readonly precision: number;
  readonly rows: number;
  readonly columns: number;
}

/** Codes of at most 10 bits have a table of their own. */
const longCodeBits = 6;

interface Scan extends Frame {
  /**
   * For each possible next 16 bits: the length of the code that they begin with × 256, and its value; 0 if they begin
   * with no code.
   */
  readonly codes: Uint16Array;
  /** The same for the next 10 bits, small enough for the fastest cache; 0 for a longer code, too. */
  readonly shortCodes: Uint16Array;
  readonly predictor: number;
  readonly pointTransform: number;
  /** Samples between restart markers; 0 if there are no markers. */
  readonly restartInterval: number;
}

/**
 * @param allocate memory for the samples; new memory if missing
 * @returns 16-bit samples in native byte order, with the precision given in the stream
 * @throws TomaatError BAD_VOXELS, if the stream is damaged, ends early, or is another kind of JPEG
 */
export function decodeJpegLossless(
  bytes: Uint8Array,
  expected: { readonly rows: number; readonly columns: number },
  allocate: Allocate = (length) => new Uint8Array(length),
): DecodedFrame {
  const { scan, start } = readHeaders(bytes, expected);
  const { rows, columns, precision } = scan;
  const samples = allocate(2 * rows * columns);
  readScan(bytes, start, scan, new Uint16Array(samples.buffer, samples.byteOffset, rows * columns));
  return {
    rows,
    columns,
    samplesPerPixel: 1,
    bytes: samples,
    bytesPerSample: 2,
    bitsPerSample: precision,
  };
}

/** The segments up to the first byte of the scan's data. */
function readHeaders(
  bytes: Uint8Array,
  expected: { readonly rows: number; readonly columns: number },
): { scan: Scan; start: number } {
  const word = (at: number) => (bytes[at] << 8) | bytes[at + 1];
  if (bytes[0] !== 0xff || bytes[1] !== marker.startOfImage) throw damaged('it does not begin like a JPEG');
  const tables: (Uint16Array | undefined)[] = [];
  let frame: Frame | undefined;
  let restartInterval = 0;
  let at = 2;
  for (;;) {
    while (bytes[at] === 0xff && bytes[at + 1] === 0xff) at++;
    const end = at + 2 + word(at + 2);
    if (bytes[at] !== 0xff || at + 4 > bytes.length || end > bytes.length || end < at + 4)
      throw damaged('its header is cut off');
    const kind = bytes[at + 1];
    const content = bytes.subarray(at + 4, end);
    if (kind === marker.losslessFrame) {
      frame = readFrame(content);
      if (frame.rows !== expected.rows || frame.columns !== expected.columns) {
        throw damaged(
          `it has ${frame.columns} × ${frame.rows} pixels instead of ${expected.columns} × ${expected.rows}`,
        );
      }
    } else if (kind === marker.huffmanTables) readTables(content, tables);
    else if (kind === marker.restartInterval && content.length >= 2)
      restartInterval = (content[0] << 8) | content[1];
    else if (kind === marker.startOfScan)
      return { scan: readScanHeader(content, frame, tables, restartInterval), start: end };
    else if (kind >= 0xc0 && kind <= 0xcf && kind !== 0xc8 && kind !== 0xcc)
      throw damaged('it is another kind of JPEG');
    at = end;
  }
}

function readFrame(content: Uint8Array): Frame {
  const precision = content[0];
  const rows = (content[1] << 8) | content[2];
  const columns = (content[3] << 8) | content[4];
  if (content.length < 9 || content[5] !== 1) throw damaged('it has several components');
  if (precision < 2 || precision > 16) throw damaged(`it has ${precision} bits a sample`);
  return { precision, rows, columns };
}

/** T.81 C.2: codes of each length are numbered in order; stored here as a table indexed by the next 16 bits. */
function readTables(content: Uint8Array, tables: (Uint16Array | undefined)[]): void {
  for (let at = 0; at < content.length; ) {
    const id = content[at] & 15;
    const counts = content.subarray(at + 1, at + 17);
    const total = counts.reduce((sum, count) => sum + count, 0);
    const values = content.subarray(at + 17, at + 17 + total);
    if (counts.length < 16 || values.length < total) throw damaged('a Huffman table is cut off');
    const codes = new Uint16Array(65_536);
    let next = 0;
    let used = 0;
    for (let length = 1; length <= 16; length++) {
      const span = 2 ** (16 - length);
      for (let i = 0; i < counts[length - 1]; i++) {
        const value = values[used++];
        if (next + span > 65_536 || value > 16) throw damaged('a Huffman table is invalid');
        codes.fill((length << 8) | value, next, next + span);
        next += span;
      }
    }
    tables[id] = codes;
    at += 17 + total;
  }
}

function readScanHeader(
  content: Uint8Array,
  frame: Frame | undefined,
  tables: readonly (Uint16Array | undefined)[],
  restartInterval: number,
): Scan {
  const codes = tables[content[2] >> 4];
  const predictor = content[3];
  const pointTransform = content[5] & 15;
  if (
    content.length < 6 ||
    content[0] !== 1 ||
    !frame ||
    !codes ||
    predictor < 1 ||
    predictor > 7 ||
    pointTransform >= frame.precision
  ) {
    throw damaged('the header of its scan is invalid');
  }
  // T.81 H.1.1: the interval is a multiple of the samples of a line.
  if (restartInterval % frame.columns !== 0) throw damaged('its restart interval is not a number of lines');
  const shortCodes = Uint16Array.from({ length: 2 ** (16 - longCodeBits) }, (_, next) => {
    const code = codes[next << longCodeBits];
    return code >> 8 <= 16 - longCodeBits ? code : 0;
  });
  return { ...frame, codes, shortCodes, predictor, pointTransform, restartInterval };
}

/** Decodes all samples of the scan to `out`. */
function readScan(bytes: Uint8Array, start: number, scan: Scan, out: Uint16Array): void {
  const { rows, columns, precision, pointTransform, restartInterval } = scan;
  const intervalLines = restartInterval === 0 ? rows : restartInterval / columns;
  let at = start;
  for (let line = 0; line < rows; line += intervalLines) {
    if (line > 0) at = behindRestartMarker(bytes, at);
    const lines = Math.min(intervalLines, rows - line);
    const part = out.subarray(line * columns, (line + lines) * columns);
    at = readLines(bytes, at, scan, part, 2 ** (precision - pointTransform - 1));
  }
  if (pointTransform > 0) for (let i = 0; i < out.length; i++) out[i] <<= pointTransform;
}

function behindRestartMarker(bytes: Uint8Array, from: number): number {
  for (let at = from; at + 1 < bytes.length; at++) {
    if (bytes[at] === 0xff && bytes[at + 1] >= 0xd0 && bytes[at + 1] <= 0xd7) return at + 2;
  }
  throw damaged('a restart marker is missing');
}

/**
 * Decodes the lines between two restart markers. In the first line a sample is predicted by the previous one, and the
 * very first by `middle`; in the other lines the first is predicted by the one above, and the rest by the scan's
 * predictor (T.81 H.1.2.1). Sums are modulo 2^16.
 *
 * @returns the first byte after the consumed data
 */
function readLines(bytes: Uint8Array, start: number, scan: Scan, out: Uint16Array, middle: number): number {
  const { columns, codes, shortCodes, predictor } = scan;
  const last = bytes.length - 1;
  let at = start;
  let window = 0;
  let bits = 0;
  let missing = 0;
  let i = 0;
  while (i < out.length) {
    const lineEnd = i + columns;
    // In the first line, every sample is predicted by the one to its left.
    const rule = i === 0 ? 1 : predictor;
    let predicted = i === 0 ? middle : out[i - columns];
    for (;;) {
      if (bits <= 16) {
        // Two bytes at once, unless one of them may be stuffed or belong to a marker.
        if (at < last && bytes[at] !== 0xff && bytes[at + 1] !== 0xff) {
          window = (window << 16) | (bytes[at] << 8) | bytes[at + 1];
          at += 2;
          bits += 16;
        } else {
          while (bits <= 24) {
            const byte = at <= last ? bytes[at] : 0xff;
            window <<= 8;
            if (byte !== 0xff) {
              window |= byte;
              at++;
            } else if (bytes[at + 1] === 0) {
              window |= 0xff;
              at += 2;
            } else missing += 8;
            bits += 8;
          }
        }
      }
      const next = (window >>> (bits - 16)) & 0xffff;
      const code = shortCodes[next >>> longCodeBits] || codes[next];
      if (code === 0) throw damaged('it contains a code that its table lacks');
      const category = code & 0xff;
      bits -= code >> 8;
      let difference = 0;
      if (category === 16) difference = 32_768;
      else if (category > 0) {
        while (bits < category) {
          const byte = at <= last ? bytes[at] : 0xff;
          window <<= 8;
          if (byte !== 0xff) {
            window |= byte;
            at++;
          } else if (bytes[at + 1] === 0) {
            window |= 0xff;
            at += 2;
          } else missing += 8;
          bits += 8;
        }
        bits -= category;
        difference = (window >>> bits) & ((1 << category) - 1);
        if (difference < 1 << (category - 1)) difference -= (1 << category) - 1;
      }
      const left = (predicted + difference) & 0xffff;
      out[i] = left;
      if (++i === lineEnd) break;
      if (rule === 1) {
        predicted = left;
        continue;
      }
      const above = out[i - columns];
      switch (rule) {
        case 2:
          predicted = above;
          break;
        case 3:
          predicted = out[i - columns - 1];
          break;
        case 4:
          predicted = left + above - out[i - columns - 1];
          break;
        case 5:
          predicted = left + ((above - out[i - columns - 1]) >> 1);
          break;
        case 6:
          predicted = above + ((left - out[i - columns - 1]) >> 1);
          break;
        default:
          predicted = (left + above) >> 1;
      }
    }
    // More bits were consumed than the stream contains.
    if (missing > bits) throw damaged('it is cut off');
  }
  return at;
}
