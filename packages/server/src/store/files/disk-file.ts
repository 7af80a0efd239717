import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { SourceFile } from '@tomaat/core';
import { filePieces } from './file-pieces.ts';

/** A file on this machine that is read in parts. */
export interface DiskFile extends SourceFile {
  readonly path: string;
  readonly sizeBytes: number;
}

const pieceBytes = 256 * 1024;

export async function diskFile(path: string): Promise<DiskFile> {
  return openedLater(path, (await stat(path)).size);
}

/** The same, for a file whose length is known. */
export const openedLater = (path: string, sizeBytes: number): DiskFile => ({
  path,
  name: basename(path),
  sizeBytes,
  open: (start, room) => filePieces(path, sizeBytes, { start, pieceBytes, room }),
});
