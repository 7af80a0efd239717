import type { Bytes } from '../platform.ts';
import { bytesPerVoxel, type Volume, type Voxels, voxelCount, voxelTypeOf } from '../volume.ts';
import { ownedBytes } from './header.ts';

/** Shared by the writers of all formats: voxels as streams of bytes, and joining pieces of bytes. */

/** Files are written and returned in pieces of this length. */
export const pieceBytes = 2 ** 18;

export async function* chained(first: Bytes, rest: AsyncIterable<Bytes>): AsyncIterable<Bytes> {
  yield first;
  yield* rest;
}

export async function* pieces(voxels: Voxels): AsyncIterable<Bytes> {
  const bytes = new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength);
  for (let at = 0; at < bytes.length; at += pieceBytes) yield ownedBytes(bytes.subarray(at, at + pieceBytes));
}

export async function* owned(source: AsyncIterable<Uint8Array>): AsyncIterable<Bytes> {
  for await (const chunk of source) yield ownedBytes(chunk);
}

/** The voxels with the components of each one side by side. */
export async function* interleaved(volume: Volume): AsyncIterable<Bytes> {
  const { voxels, components } = volume;
  if (components === 1) return yield* pieces(voxels);
  const width = bytesPerVoxel(voxelTypeOf(voxels));
  const n = voxelCount(volume);
  const source = new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength);
  const perPiece = Math.max(1, Math.floor(pieceBytes / (components * width)));
  for (let first = 0; first < n; first += perPiece) {
    const count = Math.min(perPiece, n - first);
    const piece = new Uint8Array(count * components * width);
    for (let c = 0; c < components; c++) {
      let from = (c * n + first) * width;
      for (let i = 0; i < count; i++) {
        const to = (i * components + c) * width;
        for (let b = 0; b < width; b++) piece[to + b] = source[from++];
      }
    }
    yield piece;
  }
}

/** All pieces as one array. */
export async function collectBytes(source: AsyncIterable<Uint8Array>): Promise<Bytes> {
  const parts: Uint8Array[] = [];
  for await (const part of source) parts.push(part);
  return joinBytes(parts);
}

export function joinBytes(parts: readonly Uint8Array[]): Bytes {
  const joined = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
