import { open } from 'node:fs/promises';
import { TomaatError } from '@tomaat/core';

/* The picture of an app's card: a result of it, for pages. It is recognised by its bytes, and never decoded here. */

export interface AppPicture {
  readonly bytes: Buffer;
  readonly mediaType: 'image/png' | 'image/jpeg' | 'image/webp';
  readonly width: number;
  readonly height: number;
}

const mostBytes = 200_000;
const mostPixels = 1024;

/**
 * Reads a picture.
 * @param name by which the manifest names it
 * @throws TomaatError BAD_MANIFEST for one that is too large, or neither PNG nor JPEG nor WebP
 */
export async function readPicture(path: string, name: string): Promise<AppPicture> {
  const refuse = (fault: string) =>
    new TomaatError('BAD_MANIFEST', `The picture ${name} ${fault}`, { field: 'picture' });
  const bytes = await readUpTo(path, mostBytes + 1);
  if (bytes.length > mostBytes)
    throw refuse(`has more than ${mostBytes / 1000} kB. Make it smaller, or store it as WebP.`);
  const found = pngFacts(bytes) ?? jpegFacts(bytes) ?? webpFacts(bytes);
  if (!found) throw refuse('is no PNG, JPEG or WebP image. Store it as one of these.');
  const { width, height } = found;
  if (width < 1 || height < 1 || width > mostPixels || height > mostPixels)
    throw refuse(`has ${width} × ${height} pixels. Scale it to at most ${mostPixels} × ${mostPixels}.`);
  return { bytes, ...found };
}

async function readUpTo(path: string, most: number): Promise<Buffer> {
  await using file = await open(path);
  const bytes = Buffer.alloc(most);
  let length = 0;
  for (let read = -1; read !== 0 && length < most; length += read)
    ({ bytesRead: read } = await file.read(bytes, length, most - length));
  return bytes.subarray(0, length);
}

type Facts = Omit<AppPicture, 'bytes'>;

/** PNG (ISO/IEC 15948, 5.2 and 11.2.1): the signature, then IHDR. */
function pngFacts(bytes: Buffer): Facts | undefined {
  if (bytes.length < 24 || bytes.toString('latin1', 0, 8) !== '\x89PNG\r\n\x1a\n') return undefined;
  if (bytes.toString('latin1', 12, 16) !== 'IHDR') return undefined;
  return { mediaType: 'image/png', width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) };
}

/** JPEG (ITU-T T.81, B.1.1.3 and B.2.2): segments up to the first frame header, SOF0 to SOF15 but for DHT, JPG and DAC. */
function jpegFacts(bytes: Buffer): Facts | undefined {
  if (bytes.length < 4 || bytes.readUInt16BE(0) !== 0xffd8) return undefined;
  for (let at = 2; at + 9 <= bytes.length; ) {
    if (bytes[at] !== 0xff) return undefined;
    const marker = bytes[at + 1];
    // Fill bytes may precede a marker.
    if (marker === 0xff) {
      at++;
      continue;
    }
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker))
      return {
        mediaType: 'image/jpeg',
        height: bytes.readUInt16BE(at + 5),
        width: bytes.readUInt16BE(at + 7),
      };
    at += 2 + Math.max(2, bytes.readUInt16BE(at + 2));
  }
  return undefined;
}

/** WebP (RFC 9649, 2.3 to 2.7): VP8, VP8L, or the canvas of VP8X. */
function webpFacts(bytes: Buffer): Facts | undefined {
  if (bytes.length < 30) return undefined;
  if (bytes.toString('latin1', 0, 4) !== 'RIFF' || bytes.toString('latin1', 8, 12) !== 'WEBP')
    return undefined;
  const size = (width: number, height: number): Facts => ({ mediaType: 'image/webp', width, height });
  switch (bytes.toString('latin1', 12, 16)) {
    case 'VP8 ':
      if (bytes.readUIntBE(23, 3) !== 0x9d012a) return undefined;
      return size(bytes.readUInt16LE(26) & 0x3fff, bytes.readUInt16LE(28) & 0x3fff);
    case 'VP8L': {
      if (bytes[20] !== 0x2f) return undefined;
      const bits = bytes.readUInt32LE(21);
      return size((bits & 0x3fff) + 1, ((bits >>> 14) & 0x3fff) + 1);
    }
    case 'VP8X':
      return size(bytes.readUIntLE(24, 3) + 1, bytes.readUIntLE(27, 3) + 1);
    default:
      return undefined;
  }
}
