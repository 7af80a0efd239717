import type { Allocate, DecodedFrame, DecodeFrame } from './decoders.ts';
import { transferSyntaxes as syntax } from './transfer-syntaxes.ts';

/** The packages `@cornerstonejs/codec-…` that decode frames, and the class of each. */
const decoderClasses = {
  charls: 'JpegLSDecoder',
  openjpeg: 'J2KDecoder',
  openjph: 'HTJ2KDecoder',
  'libjpeg-turbo-8bit': 'JPEGDecoder',
} as const;
export type CodecName = keyof typeof decoderClasses;

const codecs: Readonly<Record<string, CodecName>> = {
  [syntax.jpegBaseline]: 'libjpeg-turbo-8bit',
  [syntax.jpegLsLossless]: 'charls',
  [syntax.jpegLsNearLossless]: 'charls',
  [syntax.jpeg2000Lossless]: 'openjpeg',
  [syntax.jpeg2000]: 'openjpeg',
  [syntax.htj2kLossless]: 'openjph',
  [syntax.htj2kLosslessRpcl]: 'openjph',
  [syntax.htj2k]: 'openjph',
};

/** A decoder from these packages. It occupies its module's memory until it is deleted. */
interface WasmDecoder {
  /** Memory of the module for the code stream. */
  getEncodedBuffer(length: number): Uint8Array;
  decode(): void;
  getFrameInfo(): { width: number; height: number; bitsPerSample: number; componentCount: number };
  /** A view of the module's memory. */
  getDecodedBuffer(): Uint8Array;
  delete(): void;
}
/** What such a package exports: classes by name, and the module's own functions. */
export interface CodecOptions {
  print(line: string): void;
  printErr(line: string): void;
}
/**
 * Options for the module factories: some print what they do. Created separately for each, since the module becomes
 * part of it.
 */
export const quietCodec = (): CodecOptions => ({ print() {}, printErr() {} });
export type CodecModule = Readonly<Partial<Record<string, new () => WasmDecoder>>>;

/**
 * Decodes frames by the WebAssembly codecs of `@cornerstonejs`, each loaded for its first frame.
 *
 * @param load returns the module of a codec: the location of its .wasm depends on the platform
 */
export function createFrameDecoder(load: (codec: CodecName) => Promise<CodecModule>): DecodeFrame {
  const loaded = new Map<CodecName, Promise<CodecModule>>();
  return async (transferSyntax, frame, _shape, allocate = newBytes) => {
    const codec = codecs[transferSyntax];
    if (!codec) throw new Error(`no codec for ${transferSyntax}`);
    let module = loaded.get(codec);
    if (!module) {
      module = load(codec);
      loaded.set(codec, module);
      // A later frame retries.
      module.catch(() => loaded.delete(codec));
    }
    const Decoder = (await module)[decoderClasses[codec]];
    if (!Decoder) throw new Error(`the codec ${codec} has no ${decoderClasses[codec]}`);
    return decode(new Decoder(), frame, allocate);
  };
}

const newBytes: Allocate = (length) => new Uint8Array(length);

function decode(decoder: WasmDecoder, frame: Uint8Array, allocate: Allocate): DecodedFrame {
  try {
    decoder.getEncodedBuffer(frame.length).set(frame);
    decoder.decode();
    const { width, height, bitsPerSample, componentCount } = decoder.getFrameInfo();
    const samples = decoder.getDecodedBuffer();
    const bytes = allocate(samples.length);
    bytes.set(samples);
    return {
      rows: height,
      columns: width,
      samplesPerPixel: componentCount,
      bytes,
      bytesPerSample: bitsPerSample <= 8 ? 1 : 2,
      bitsPerSample,
    };
  } finally {
    decoder.delete();
  }
}
