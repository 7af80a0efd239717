import { createReadStream } from 'node:fs';
import { basename } from 'node:path';
import type { SourceFile } from '@tomaat/core';

/** A file on disk as core reads it. */
export function fileSource(path: string): SourceFile {
  return { name: basename(path), open: (start = 0) => createReadStream(path, { start }) };
}
