import {
  endingOf,
  holdsVoxelsAlone,
  isZip,
  openZip,
  type SourceFile,
  TomaatError,
  webPlatform,
} from '@tomaat/core';
import { sourceOf } from '../blob-source.ts';

/**
 * The files of one volume from a zip archive, unpacked, so that they are read, cleaned and sent as if they had been
 * selected themselves. Files that are not given as a zip archive are returned as they are.
 *
 * @throws TomaatError BAD_INPUT if other files come with the archive, or it does not hold exactly one volume; as
 *   openZip(); BAD_VOXELS if a file in it is damaged
 */
export async function volumeInZip(files: readonly File[], signal: AbortSignal): Promise<readonly File[]> {
  const starts = await Promise.all(files.map((file) => file.slice(0, 4).arrayBuffer()));
  const archives = files.filter((_, i) => isZip(new Uint8Array(starts[i])));
  if (archives.length === 0) return files;
  if (files.length > 1) {
    throw new TomaatError(
      'BAD_INPUT',
      'A zip archive was dropped with other files. Drop the archive alone, with all files of the volume in it.',
    );
  }
  const members = await openZip(sourceOf({ name: files[0].name, blob: files[0] }), webPlatform);
  return Promise.all(oneVolume(members).map((member) => unpacked(member, signal)));
}

function oneVolume(members: readonly SourceFile[]): readonly SourceFile[] {
  // A file is recognised by its content, so that a single one may have any name.
  if (members.length === 1) return members;
  const volumes = members.filter(({ name }) => ['volume', 'header'].includes(endingOf(name)?.holds ?? ''));
  if (volumes.length === 0) {
    throw new TomaatError(
      'UNKNOWN_FORMAT',
      `The zip archive holds neither a DICOM image nor a volume file, but ${listed(members)}. Drop an archive with one series or one volume.`,
    );
  }
  if (volumes.length > 1) {
    throw new TomaatError(
      'BAD_INPUT',
      `The zip archive holds ${volumes.length} volumes: ${listed(volumes)}. Extract it and drop one of them.`,
    );
  }
  if (endingOf(volumes[0].name)?.holds === 'volume') return volumes;
  return [...volumes, ...members.filter(({ name }) => holdsVoxelsAlone(name))];
}

const mostNames = 5;

function listed(files: readonly SourceFile[]): string {
  const names = files.slice(0, mostNames).map(({ name }) => name.slice(0, 80));
  return names.join(', ') + (files.length > mostNames ? ` and ${files.length - mostNames} more` : '');
}

async function unpacked(member: SourceFile, signal: AbortSignal): Promise<File> {
  const parts: BlobPart[] = [];
  // Chunks become Blobs at once: the browser moves large ones to disk.
  for await (const part of member.open(0)) {
    signal.throwIfAborted();
    parts.push(new Blob([part as Uint8Array<ArrayBuffer>]));
  }
  return new File(parts, member.name);
}
