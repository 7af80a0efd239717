import { createRequire } from 'node:module';
import * as zlib from 'node:zlib';
import {
  type CodecModule,
  type CodecOptions,
  createFrameDecoder,
  type Platform,
  quietCodec,
  zlibPlatform,
} from '@tomaat/core';

/** The entries that decode alone; that of openjph has no such. Each finds its .wasm beside itself. */
const entries = {
  charls: 'codec-charls/decodewasmjs',
  openjpeg: 'codec-openjpeg/decodewasmjs',
  openjph: 'codec-openjph/wasmjs',
  'libjpeg-turbo-8bit': 'codec-libjpeg-turbo-8bit/decodewasmjs',
} as const;

/** The platform that core runs on in Node. */
export const nodePlatform: Platform = {
  ...zlibPlatform(zlib),
  decodeFrame: createFrameDecoder((codec) => {
    const require = createRequire(import.meta.url);
    const create: (options: CodecOptions) => Promise<CodecModule> = require(
      `@cornerstonejs/${entries[codec]}`,
    );
    return create(quietCodec());
  }),
};
