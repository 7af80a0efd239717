import { createReadStream } from 'node:fs';
import { basename } from 'node:path';
import { readVolume, type Volume } from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';

/** The volume in files of this machine: one, or a header and its data. Errors as readVolume(). */
export async function readVolumeFiles(paths: readonly string[]): Promise<Volume> {
  const sources = paths.map((path) => ({
    name: basename(path),
    open: (start = 0) => createReadStream(path, { start }),
  }));
  return (await readVolume(sources, nodePlatform)).volume;
}
