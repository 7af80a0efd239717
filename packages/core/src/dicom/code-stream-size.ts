/** What the header of a code stream says about its image. */
export interface CodeStreamSize {
  readonly rows: number;
  readonly columns: number;
  readonly samplesPerPixel: number;
}

/**
 * The image size in the header of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K code stream, so that it can be checked before a
 * decoder allocates memory for it; undefined if none is found.
 */
export function codeStreamSize(bytes: Uint8Array): CodeStreamSize | undefined {
  if (bytes[0] !== 0xff) return sizeInBoxes(bytes);
  if (bytes[1] === 0xd8) return jpegSize(bytes);
  return bytes[1] === 0x4f ? jpeg2000Size(bytes, 0) : undefined;
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The start of a frame: FFC0 to FFCF except for tables (T.81 B.2.2), FFF7 of JPEG-LS (T.87 C.2.2). */
function jpegSize(bytes: Uint8Array): CodeStreamSize | undefined {
  const view = viewOf(bytes);
  for (let at = 2; at + 10 <= bytes.length; ) {
    if (bytes[at] !== 0xff) return undefined;
    const kind = bytes[at + 1];
    if (kind === 0xff) {
      at++;
      continue;
    }
    const isFrame = kind === 0xf7 || (kind >= 0xc0 && kind <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(kind));
    if (isFrame)
      return {
        rows: view.getUint16(at + 5),
        columns: view.getUint16(at + 7),
        samplesPerPixel: bytes[at + 9],
      };
    // The scan has begun.
    if (kind === 0xda) return undefined;
    at += 2 + view.getUint16(at + 2);
  }
  return undefined;
}

/** The segment SIZ, which follows the first marker (T.800 A.5.1). */
function jpeg2000Size(bytes: Uint8Array, start: number): CodeStreamSize | undefined {
  if (start + 42 > bytes.length) return undefined;
  const view = viewOf(bytes);
  if (view.getUint32(start) !== 0xff4fff51) return undefined;
  const at = start + 8;
  return {
    columns: view.getUint32(at) - view.getUint32(at + 8),
    rows: view.getUint32(at + 4) - view.getUint32(at + 12),
    samplesPerPixel: view.getUint16(at + 32),
  };
}

const codeStreamBox = 0x6a703263;

/** A JP2 file around the code stream, which PS3.5 A.4.4 forbids but some programs write: boxes of length and type. */
function sizeInBoxes(bytes: Uint8Array): CodeStreamSize | undefined {
  const view = viewOf(bytes);
  for (let at = 0; at + 8 <= bytes.length; ) {
    const length = view.getUint32(at);
    if (view.getUint32(at + 4) === codeStreamBox) return jpeg2000Size(bytes, at + 8);
    if (length < 8) return undefined;
    at += length;
  }
  return undefined;
}
