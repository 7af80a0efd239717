import { createReadStream } from 'node:fs';
import { type TextSource, writeStripped } from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import type { KeepBlob } from '../store/blob-writer.ts';
import type { Blobs } from '../store/blobs.ts';
import type { HeaderReader } from './header-reader.ts';
import type { ReceivedInput } from './receive-input.ts';

/**
 * Removes identifying text from received files, for `--strip-inputs`: the stripped file is a new blob, and the received one
 * is released. `names` are the new names of the files; the header of a pair refers to its voxels by them.
 */
export async function stripReceived(
  received: ReceivedInput[],
  names: readonly string[],
  blobs: Blobs,
  headers: HeaderReader,
  { keep, release }: { keep: KeepBlob; release(digest: string): Promise<void> },
): Promise<void> {
  for (const [i, file] of received.entries()) {
    const path = blobs.path(file.digest);
    const dataFiles: Record<string, string> = Object.create(null);
    received.forEach((other, k) => {
      const named = other.name === file.name ? other.fileName?.toLowerCase() : undefined;
      if (named !== undefined) dataFiles[named] ??= names[k];
    });
    const { sizeBytes } = file;
    const rewrite = await headers.identify({ path, name: names[i], sizeBytes, dataFiles });
    if (!rewrite) continue;
    await using writer = await blobs.create();
    const source = sourceOf(path, names[i], sizeBytes);
    for await (const chunk of writeStripped(source, rewrite, nodePlatform)) await writer.write(chunk);
    const stored = await writer.commit(keep);
    await release(file.digest);
    received[i] = { ...file, ...stored, received: file.received ?? file.digest };
  }
}

/** The same for a file on disk: a stream of the bytes to keep, or undefined if the file needs no change. */
export async function stripFile(
  path: string,
  name: string,
  sizeBytes: number,
  headers: HeaderReader,
): Promise<AsyncIterable<Uint8Array> | undefined> {
  const rewrite = await headers.identify({ path, name, sizeBytes, dataFiles: {} });
  return rewrite && writeStripped(sourceOf(path, name, sizeBytes), rewrite, nodePlatform);
}

const sourceOf = (path: string, name: string, sizeBytes: number): TextSource => ({
  name,
  sizeBytes,
  read: (start = 0, end = sizeBytes) => readPath(path, start, end),
});

/** The bytes of a file from `start` to before `end`. */
export async function* readPath(path: string, start: number, end: number): AsyncGenerator<Uint8Array> {
  if (start < end) yield* createReadStream(path, { start, end: end - 1, highWaterMark: 1 << 20 });
}
