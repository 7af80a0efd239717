import { createReadStream } from 'node:fs';
import { findIdentifyingText, type TextSource, writeStripped } from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import type { Blobs, KeepBlob } from '../store/blobs.ts';
import type { ReceivedInput } from './receive-input.ts';

/**
 * Takes identifying text out of files that have come, for `--strip-inputs`: what is kept is another blob then, and the
 * one that came is let go. `names` are what the files are called from now on; the header of a pair names its voxels so.
 */
export async function stripReceived(
  received: ReceivedInput[],
  names: readonly string[],
  blobs: Blobs,
  { keep, release }: { keep: KeepBlob; release(digest: string): Promise<void> },
): Promise<void> {
  for (const [i, file] of received.entries()) {
    const source: TextSource = {
      name: names[i],
      sizeBytes: file.sizeBytes,
      read: (start = 0, end = file.sizeBytes) => readPath(blobs.path(file.digest), start, end),
    };
    const dataFile = (name: string) => {
      const index = received.findIndex(
        (other) => other.name === file.name && other.fileName?.toLowerCase() === name.toLowerCase(),
      );
      return index >= 0 ? names[index] : name;
    };
    const { rewrite } = await findIdentifyingText(source, nodePlatform, { dataFile });
    if (!rewrite) continue;
    await using writer = await blobs.create();
    for await (const chunk of writeStripped(source, rewrite, nodePlatform)) await writer.write(chunk);
    const stored = await writer.commit(keep);
    await release(file.digest);
    received[i] = { ...file, ...stored, received: file.received ?? file.digest };
  }
}

/** The same for a file on the disk: a stream of what is to be kept, undefined where that is the file itself. */
export async function stripFile(
  path: string,
  name: string,
  sizeBytes: number,
): Promise<AsyncIterable<Uint8Array> | undefined> {
  const source: TextSource = {
    name,
    sizeBytes,
    read: (start = 0, end = sizeBytes) => readPath(path, start, end),
  };
  const { rewrite } = await findIdentifyingText(source, nodePlatform);
  return rewrite && writeStripped(source, rewrite, nodePlatform);
}

async function* readPath(path: string, start: number, end: number): AsyncGenerator<Uint8Array> {
  if (start >= end) return;
  yield* createReadStream(path, { start, end: end - 1, highWaterMark: 1 << 20 });
}
