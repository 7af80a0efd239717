/** What the data set says about a frame; a decoder must return exactly this many samples. */
export interface FrameShape {
  readonly rows: number;
  readonly columns: number;
  readonly samplesPerPixel: number;
  readonly bitsAllocated: number;
  readonly bitsStored: number;
  /** Whether the stored values are two's complement (PixelRepresentation 1). */
  readonly isSigned: boolean;
}

/** What a code stream says about itself, and its samples. */
export interface DecodedFrame {
  readonly rows: number;
  readonly columns: number;
  readonly samplesPerPixel: number;
  /** Samples in native byte order. */
  readonly bytes: Uint8Array;
  readonly bytesPerSample: 1 | 2 | 4;
  /** The precision given in the code stream. */
  readonly bitsPerSample: number;
}

/** Memory for the samples of a frame, of this length in bytes and any content, aligned for numbers of 8 bytes. */
export type Allocate = (length: number) => Uint8Array<ArrayBuffer>;

/**
 * Decodes one compressed frame of a transfer syntax that core does not decode itself. Supplied by the platform, as
 * inflate is (Platform.decodeFrame): the codecs are WebAssembly, and are loaded for the first such frame.
 *
 * @param allocate where the samples may be put
 * @throws any error for a code stream that is damaged
 */
export type DecodeFrame = (
  transferSyntax: string,
  frame: Uint8Array,
  shape: FrameShape,
  allocate?: Allocate,
) => Promise<DecodedFrame>;
