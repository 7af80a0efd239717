import { TomaatError } from '../errors.ts';
import type { Platform } from '../platform.ts';
import { type CodeStreamSize, codeStreamSize } from './code-stream-size.ts';
import type { Allocate, DecodedFrame, FrameShape } from './decoders.ts';
import { decodeJpegLossless } from './jpeg-lossless.ts';
import { decodeRle } from './rle.ts';
import { transferSyntaxes as syntax } from './transfer-syntaxes.ts';

/** What decodes the frames of a file. */
export interface Decoders extends Pick<Platform, 'decodeFrame'> {
  /** Memory for the samples of a frame, perhaps that of the frame before. */
  readonly allocate?: Allocate;
}

const native: ReadonlySet<string> = new Set([
  syntax.implicitLittleEndian,
  syntax.explicitLittleEndian,
  syntax.deflated,
  syntax.explicitBigEndian,
]);

/** What the platform decodes, with the program that extracts such pixels where it cannot. */
const delegated: Readonly<Record<string, string>> = {
  [syntax.jpegBaseline]: 'dcmdjpeg',
  [syntax.jpegLsLossless]: 'dcmdjpls',
  [syntax.jpegLsNearLossless]: 'dcmdjpls',
  [syntax.jpeg2000Lossless]: 'gdcmconv --raw',
  [syntax.jpeg2000]: 'gdcmconv --raw',
  [syntax.htj2kLossless]: 'a program that reads HTJ2K',
  [syntax.htj2kLosslessRpcl]: 'a program that reads HTJ2K',
  [syntax.htj2k]: 'a program that reads HTJ2K',
};

/** 12-bit JPEG, which no decoder for browsers and Node reads. */
const twelveBits: ReadonlySet<string> = new Set([
  syntax.jpegExtended,
  syntax.jpegSpectralSelection,
  syntax.jpegFullProgression,
]);

/**
 * Why pixels of a transfer syntax cannot be read; undefined if they can.
 *
 * @param isEncapsulated whether the pixels are a sequence of fragments
 */
export function syntaxFault(
  transferSyntax: string,
  isEncapsulated: boolean,
  platform: Pick<Platform, 'decodeFrame'>,
): TomaatError | undefined {
  if (native.has(transferSyntax) !== isEncapsulated && isKnown(transferSyntax)) {
    const program = delegated[transferSyntax];
    return program && !platform.decodeFrame
      ? unsupported(transferSyntax, `unpack it first, for instance with ${program}`)
      : undefined;
  }
  if (isKnown(transferSyntax)) {
    return new TomaatError(
      'BAD_VOXELS',
      `The pixels are ${isEncapsulated ? 'in fragments' : 'not in fragments'}, which the transfer syntax ${transferSyntax} does not have: export the series again from the system that made it`,
    );
  }
  if (twelveBits.has(transferSyntax)) {
    return unsupported(transferSyntax, 'JPEG of 12 bits: unpack it first, with dcmdjpeg of DCMTK');
  }
  return unsupported(transferSyntax, 'export the series uncompressed, or in JPEG 2000, JPEG-LS or RLE');
}

const isKnown = (uid: string) =>
  native.has(uid) ||
  uid === syntax.rleLossless ||
  uid === syntax.jpegLossless ||
  uid === syntax.jpegLosslessFirstOrder ||
  Object.hasOwn(delegated, uid);

const unsupported = (uid: string, advice: string) =>
  new TomaatError(
    'UNSUPPORTED_FORMAT',
    `The transfer syntax ${/^[\d.]{1,64}$/.test(uid) ? uid : 'of the file'} is not read: ${advice}`,
  );

/**
 * Decodes a compressed frame, and checks that its size matches the header.
 *
 * @throws TomaatError BAD_VOXELS, if it is damaged or has another size; UNSUPPORTED_FORMAT (see syntaxFault)
 */
export async function decodeFrame(
  transferSyntax: string,
  frame: Uint8Array,
  shape: FrameShape,
  decoders: Decoders,
): Promise<DecodedFrame> {
  const fault = syntaxFault(transferSyntax, true, decoders);
  if (fault) throw fault;
  const { rows, columns, samplesPerPixel } = shape;
  if (transferSyntax === syntax.rleLossless) {
    return { ...decodeRle(frame, shape, decoders.allocate), rows, columns, samplesPerPixel };
  }
  if (transferSyntax === syntax.jpegLossless || transferSyntax === syntax.jpegLosslessFirstOrder) {
    return decodeJpegLossless(frame, shape, decoders.allocate);
  }
  checkSize(codeStreamSize(frame), shape);
  const decoded = await delegate(transferSyntax, frame, shape, decoders);
  checkSize(decoded, shape);
  const needed = rows * columns * decoded.bytesPerSample;
  if (decoded.bytes.length < needed)
    throw damaged(`${decoded.bytes.length} of ${needed} bytes came out of it`);
  return decoded;
}

/** Rejects a code stream whose size differs from the header's before a decoder allocates memory for it. */
function checkSize(stated: CodeStreamSize | undefined, shape: CodeStreamSize): void {
  if (!stated) throw damaged('it does not state the size of its image');
  const show = ({ columns, rows, samplesPerPixel }: CodeStreamSize) =>
    `${columns} × ${rows} pixels of ${samplesPerPixel} samples`;
  if (show(stated) === show(shape)) return;
  throw new TomaatError(
    'BAD_VOXELS',
    `The compressed data of an image has ${show(stated)}, but its header says ${show(shape)}: export the series again from the system that made it`,
  );
}

async function delegate(
  transferSyntax: string,
  frame: Uint8Array,
  shape: FrameShape,
  { decodeFrame, allocate }: Decoders,
): Promise<DecodedFrame> {
  try {
    return await decodeFrame!(transferSyntax, frame, shape, allocate);
  } catch (cause) {
    if (cause instanceof TomaatError) throw cause;
    // WebAssembly throws numbers: addresses of exceptions.
    throw damaged(cause instanceof Error ? cause.message.slice(0, 100) : 'the decoder failed', cause);
  }
}

const damaged = (why: string, cause?: unknown) =>
  new TomaatError('BAD_VOXELS', `The compressed data of an image is damaged (${why}): send the file again`, {
    cause,
  });
