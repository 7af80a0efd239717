import { hasDicomWord, isDicom, isZip, TomaatError } from '@tomaat/core';
import type { NamedFile } from './messages.ts';

/** Files that the user selected or dropped. */
export interface Picked {
  readonly files: readonly (NamedFile & { file: File })[];
  /** Name of the folder, or of the first one; undefined for files. */
  readonly folder?: string;
}

/** An item of a drop, as provided by react-aria. */
export type DropItem = {
  kind: string;
  name?: string;
  getFile?(): Promise<File>;
  getEntries?(): AsyncIterable<DropItem>;
};

const mostFiles = 20_000;
const deepest = 32;

export interface WalkOptions {
  signal?: AbortSignal;
  /** Called with the number of files found so far. */
  onFound?(count: number): void;
}

/** The files of a drop, including those in folders and their subfolders. */
export async function pickedFromDrop(
  items: readonly DropItem[],
  { signal, onFound }: WalkOptions = {},
): Promise<Picked> {
  const files: (NamedFile & { file: File })[] = [];
  let folder: string | undefined;
  async function walk(item: DropItem, path: string, depth: number): Promise<void> {
    signal?.throwIfAborted();
    if (item.kind === 'file') {
      const file = await item.getFile!();
      files.push({ path: `${path}${file.name}`, file });
      if (files.length > mostFiles) throw tooMany();
      onFound?.(files.length);
    }
    if (item.kind !== 'directory' || depth > deepest) return;
    for await (const entry of item.getEntries!()) {
      await walk(entry, depth === 0 ? path : `${path}${item.name}/`, depth + 1);
    }
  }
  for (const item of items) {
    if (item.kind === 'directory') folder ??= item.name ?? 'folder';
    await walk(item, '', 0);
  }
  return { files, folder };
}

/** The files of an input element; for a folder, including its subfolders. */
export function pickedFromInput(list: readonly File[]): Picked {
  if (list.length > mostFiles) throw tooMany();
  const folder = list[0]?.webkitRelativePath.split('/')[0] || undefined;
  return {
    files: list.map((file) => ({
      path: file.webkitRelativePath.split('/').slice(1).join('/') || file.name,
      file,
    })),
    folder,
  };
}

const tooMany = () =>
  new TomaatError(
    'BAD_INPUT',
    `There are more than ${mostFiles} files. Choose the folder of one study or series.`,
  );

/** Whether files are read as DICOM: a folder, an archive, or files that begin like DICOM. */
export async function isForDicom({ files, folder }: Picked): Promise<boolean> {
  if (folder !== undefined) return true;
  const starts = await Promise.all(
    files.slice(0, 100).map(async ({ file }) => new Uint8Array(await file.slice(0, 256).arrayBuffer())),
  );
  if (starts.some((start) => isZip(start) || hasDicomWord(start))) return true;
  // Without the word DICM, voxels of another format may look alike, so all of the files must match.
  return starts.length > 0 && starts.every(isDicom);
}

/** Asks for a folder; must be called from a button press. */
export function chooseFolder(onFiles: (files: readonly File[]) => void): void {
  const input = document.createElement('input');
  input.type = 'file';
  input.webkitdirectory = true;
  input.onchange = () => input.files && onFiles([...input.files]);
  input.click();
}
