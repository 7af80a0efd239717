import { endingOf, hasDicomWord, holdsVoxelsAlone, isDicom, isZip } from '@tomaat/core';
import type { NamedFile } from '../dicom/messages.ts';
import type { Picked } from '../dicom/picked-files.ts';

/** One volume of the selected files: a file, or a header with its voxels. */
export interface FileGroup {
  /** Path in the selected folder. */
  readonly name: string;
  readonly files: readonly File[];
}

export interface GroupedFiles {
  readonly volumes: readonly FileGroup[];
  /** Files of DICOM series, and archives, which are sorted by what they contain. */
  readonly dicom: readonly NamedFile[];
  /** Files that are neither, by path. */
  readonly others: readonly string[];
}

/** Sorts the files of a folder by their names, and by their first bytes where the name says nothing. */
export async function groupFiles({ files }: Picked): Promise<GroupedFiles> {
  const voxels = new Map<string, File[]>();
  for (const { path, file } of files)
    if (holdsVoxelsAlone(path)) voxels.set(stemAt(path), [...(voxels.get(stemAt(path)) ?? []), file as File]);
  const volumes: FileGroup[] = [];
  const dicom: NamedFile[] = [];
  const others: string[] = [];
  const used = new Set<string>();
  for (const { path, file } of files) {
    const holds = endingOf(path)?.holds;
    if (holds === 'volume') volumes.push({ name: path, files: [file as File] });
    else if (holds === 'header') {
      used.add(stemAt(path));
      volumes.push({ name: path, files: [file as File, ...(voxels.get(stemAt(path)) ?? [])] });
    } else if (!holdsVoxelsAlone(path)) {
      const start = new Uint8Array(await file.slice(0, 256).arrayBuffer());
      if (isZip(start) || hasDicomWord(start) || isDicom(start)) dicom.push({ path, file });
      else others.push(path);
    }
  }
  for (const { path } of files) if (holdsVoxelsAlone(path) && !used.has(stemAt(path))) others.push(path);
  const byName = new Intl.Collator('en', { numeric: true });
  return { volumes: volumes.sort((a, b) => byName.compare(a.name, b.name)), dicom, others };
}

/** `sub/scan.nii.gz` as `sub/scan`: a header and its voxels have the same. */
function stemAt(path: string): string {
  const unpacked = path.replace(/\.gz$/i, '');
  return unpacked.slice(0, unpacked.lastIndexOf('.'));
}
