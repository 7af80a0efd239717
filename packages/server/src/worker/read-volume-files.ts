import { createReadStream } from 'node:fs';
import { basename } from 'node:path';
import { type ReadOptions, type ReadVolume, readVolume, type Volume } from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';

/** The volume in files of this machine: one, a header and its data, or a DICOM series. Errors as readVolume(). */
export async function readVolumeFiles(paths: readonly string[], options?: ReadOptions): Promise<Volume> {
  return (await readFiles(paths, options)).volume;
}

/** The same with what the files say about it. */
export function readFiles(paths: readonly string[], options?: ReadOptions): Promise<ReadVolume> {
  const sources = paths.map((path) => ({
    name: basename(path),
    open: (start = 0) => createReadStream(path, { start }),
  }));
  return readVolume(sources, nodePlatform, options);
}
