import {
  type CodecModule,
  type CodecName,
  type CodecOptions,
  createFrameDecoder,
  type Platform,
  quietCodec,
  webPlatform,
} from '@tomaat/core';

/** The exports of a codec module. */
export type CreateCodec = (options: CodecOptions & { locateFile(): string }) => Promise<CodecModule>;

interface CodecFiles {
  script(): Promise<{ default: CreateCodec }>;
  /** Address of its .wasm. */
  wasm(): Promise<{ default: string }>;
}

/** Each codec is a separate file, fetched from this server for the first frame that needs it. */
const codecs: Readonly<Record<CodecName, CodecFiles>> = {
  charls: {
    script: () => import('@cornerstonejs/codec-charls/decodewasmjs'),
    wasm: () => import('@cornerstonejs/codec-charls/decodewasm?url'),
  },
  openjpeg: {
    script: () => import('@cornerstonejs/codec-openjpeg/decodewasmjs'),
    wasm: () => import('@cornerstonejs/codec-openjpeg/decodewasm?url'),
  },
  openjph: {
    script: () => import('@cornerstonejs/codec-openjph/wasmjs'),
    wasm: () => import('@cornerstonejs/codec-openjph/wasm?url'),
  },
  'libjpeg-turbo-8bit': {
    script: () => import('@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasmjs'),
    wasm: () => import('@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasm?url'),
  },
};

/** The platform of the worker: that of a browser, plus the DICOM codecs. */
export const dicomPlatform: Platform = {
  ...webPlatform,
  decodeFrame: createFrameDecoder(async (codec) => {
    const { script, wasm } = codecs[codec];
    const [{ default: create }, { default: address }] = await Promise.all([script(), wasm()]);
    return create({ ...quietCodec(), locateFile: () => address });
  }),
};
