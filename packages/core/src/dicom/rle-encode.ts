/**
 * One frame in RLE Lossless (PS3.5 G): a header of 64 bytes, then one segment for each byte of a sample, the most
 * significant first. Runs end with their row, as G.3.1 requires.
 *
 * @param samples one byte, or two in little endian, for each pixel, x fastest
 */
export function encodeRleFrame(samples: Uint8Array, columns: number, bytesPerSample: 1 | 2): Uint8Array {
  const segments = bytesPerSample === 1 ? [samples] : [everyOther(samples, 1), everyOther(samples, 0)];
  const encoded = segments.map((segment) => packBits(segment, columns));
  const frame = new Uint8Array(headerBytes + encoded.reduce((total, { length }) => total + length, 0));
  const view = new DataView(frame.buffer);
  view.setUint32(0, segments.length, true);
  let at = headerBytes;
  for (const [i, segment] of encoded.entries()) {
    view.setUint32(4 + 4 * i, at, true);
    frame.set(segment, at);
    at += segment.length;
  }
  return frame;
}

const headerBytes = 64;
/** The longest run, and the longest sequence of literal bytes. */
const longestRun = 128;

const everyOther = (bytes: Uint8Array, first: 0 | 1) =>
  Uint8Array.from({ length: bytes.length / 2 }, (_, i) => bytes[2 * i + first]);

/**
 * PackBits, row by row: a run as its length and its byte, literal bytes as their number and the bytes. Padded to an
 * even length.
 */
function packBits(bytes: Uint8Array, columns: number): Uint8Array {
  // In the worst case each byte is a literal with its count before it.
  const out = new Uint8Array(2 * bytes.length + 1);
  let used = 0;
  for (let row = 0; row < bytes.length; row += columns) {
    const end = Math.min(row + columns, bytes.length);
    let at = row;
    while (at < end) {
      const value = bytes[at];
      let stop = at + 1;
      while (stop < end && stop - at < longestRun && bytes[stop] === value) stop++;
      if (stop - at > 1) {
        out[used++] = 257 - (stop - at);
        out[used++] = value;
      } else {
        // Two equal bytes end the literal sequence: as a run they take no more space than inside it.
        while (stop < end && stop - at < longestRun && !(stop + 1 < end && bytes[stop] === bytes[stop + 1]))
          stop++;
        out[used++] = stop - at - 1;
        out.set(bytes.subarray(at, stop), used);
        used += stop - at;
      }
      at = stop;
    }
  }
  if (used % 2 === 1) out[used++] = 0;
  return out.slice(0, used);
}
