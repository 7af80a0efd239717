import type { DecodeFrame } from './dicom/decoders.ts';

/** Bytes in memory of their own, as Blob, Response and WebCrypto take them. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** Compressions that occur inside volume formats: gzip members, zlib streams (RFC 1950), and deflate streams without a wrapper (RFC 1951). */
export type Compression = 'gzip' | 'zlib' | 'deflate-raw';

/**
 * What core needs from its platform: node:zlib in the server, CompressionStream in a browser. Both stream.
 * `inflate` takes any number of gzip members in a row, and zeros or less than 16 bytes after the last (see inflateSource). It
 * fails (any error) on corrupt, truncated or other surplus input; the reader stops at the length that the header
 * promises, so that a bomb costs no more than an honest file. `source` may be iterated a second time.
 */
export interface Platform {
  inflate(source: AsyncIterable<Uint8Array>, compression: Compression): AsyncIterable<Uint8Array>;
  deflate(
    source: AsyncIterable<Uint8Array>,
    compression: Compression,
    level: number,
  ): AsyncIterable<Uint8Array>;
  /** Decodes compressed frames of DICOM images (JPEG, JPEG-LS, JPEG 2000, HTJ2K); without it they are refused. */
  decodeFrame?: DecodeFrame;
}
