import type { DecodedFrame, DecodeFrame } from './decoders.ts';
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

/** A decoder of these packages. It lives in the memory of its module until it is deleted. */
interface WasmDecoder {
  /** Memory of the module to put the code stream into. */
  getEncodedBuffer(length: number): Uint8Array;
  decode(): void;
  getFrameInfo(): { width: number; height: number; bitsPerSample: number; componentCount: number };
  /** A view of the memory of the module. */
  getDecodedBuffer(): Uint8Array;
  delete(): void;
}
/** What such a package gives: classes by name, and the module's own functions. */
export interface CodecOptions {
  print(line: string): void;
  printErr(line: string): void;
}
/** For the functions that make such modules: some print what they do. New for each, since the module becomes part of it. */
export const quietCodec = (): CodecOptions => ({ print() {}, printErr() {} });
export type CodecModule = Readonly<Partial<Record<string, new () => WasmDecoder>>>;

/**
 * Decodes frames by the WebAssembly codecs of `@cornerstonejs`, each loaded when the first frame for it comes.
 *
 * @param load gives the module of a codec: where its .wasm lies depends on who runs core
 */
export function createFrameDecoder(load: (codec: CodecName) => Promise<CodecModule>): DecodeFrame {
  const loaded = new Map<CodecName, Promise<CodecModule>>();
  return async (transferSyntax, frame) => {
    const codec = codecs[transferSyntax];
    if (!codec) throw new Error(`no codec for ${transferSyntax}`);
    let module = loaded.get(codec);
    if (!module) {
      module = load(codec);
      loaded.set(codec, module);
      // A later frame tries again.
      module.catch(() => loaded.delete(codec));
    }
    const Decoder = (await module)[decoderClasses[codec]];
    if (!Decoder) throw new Error(`the codec ${codec} has no ${decoderClasses[codec]}`);
    return decode(new Decoder(), frame);
  };
}

function decode(decoder: WasmDecoder, frame: Uint8Array): DecodedFrame {
  try {
    decoder.getEncodedBuffer(frame.length).set(frame);
    decoder.decode();
    const { width, height, bitsPerSample, componentCount } = decoder.getFrameInfo();
    return {
      rows: height,
      columns: width,
      samplesPerPixel: componentCount,
      bytes: new Uint8Array(decoder.getDecodedBuffer()),
      bytesPerSample: bitsPerSample <= 8 ? 1 : 2,
      bitsPerSample,
    };
  } finally {
    decoder.delete();
  }
}
