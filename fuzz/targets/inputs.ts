/** What the tables of targets share: small files, bytes in chunks, synchronous zlib. */
import { gunzipSync, inflateRawSync, inflateSync } from 'node:zlib';
import { collectBytes, type Platform, type Volume, type VolumeExtension, writeVolume } from '@tomaat/core';
import { nodePlatform } from '../../packages/server/src/node-platform.ts';

/**
 * Synchronous zlib: for a small file, the thread pool behind the server's streams takes longer than the work. Every
 * 16th input does go through the streams.
 */
const atOnce: Platform = {
  async *inflate(source, compression) {
    const bytes = await collectBytes(source);
    const unpack = { gzip: gunzipSync, zlib: inflateSync, 'deflate-raw': inflateRawSync }[compression];
    const options = { info: true, chunkSize: 4096, maxOutputLength: 2 ** 24 };
    const { buffer, engine } = unpack(bytes, options) as unknown as {
      buffer: Buffer;
      engine: { bytesWritten: number };
    };
    if (engine.bytesWritten !== bytes.length) throw new Error('bytes follow the compressed data');
    yield buffer;
  },
  deflate: nodePlatform.deflate,
};
export const sumOf = (bytes: Uint8Array) => {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) sum += bytes[i];
  return sum;
};
export const platformFor = (input: Uint8Array) => ((sumOf(input) >> 3) % 16 === 0 ? nodePlatform : atOnce);

/** Limits on the volumes of a target. */
export const limits = { maxVoxels: 2 ** 14 };

/** Magic bytes of files, to be inserted where they do not belong. */
export const heads = ['\x1f\x8b\x08', 'n+1\0', 'NRRD0004\n', '\r\n', '\0', '\xff\xff\xff\xff'];

/** Tiny volumes are read a hundred times faster, and a change is more likely to hit something that matters. */
export async function smallFile(
  extension: VolumeExtension,
  more: Partial<Volume> = {},
  level = 0,
): Promise<Uint8Array> {
  const volume: Volume = {
    voxels: Int16Array.from({ length: 12 }, (_, i) => (i * 7919) % 4001),
    size: [3, 2, 2],
    components: 1,
    affine: [0, -1.5, 0, 7, 0.7, 0, 0.2, 8, -0.2, 0, 2.5, 9, 0, 0, 0, 1],
    ...more,
  };
  return collectBytes(writeVolume(volume, extension, nodePlatform, { level }));
}
export const colours = { components: 3, voxels: Uint8Array.from({ length: 36 }, (_, i) => i) };

/** The bytes in separate memory, chunk by chunk: a reader may reuse its chunk. */
export async function* copied(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) yield Uint8Array.from(chunk);
}
