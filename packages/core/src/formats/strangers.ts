import { latin1 } from './header.ts';
import { isGzip } from './inflate-prefix.ts';
import { endingOf } from './table.ts';
import { hasEnding } from './volume-format.ts';

/** Other kinds of files that people send, and what to do about them. */
const strangers: readonly (readonly [at: number, magic: string, advice: string])[] = [
  [0, '\xff\xd8\xff', 'a JPEG picture: send the volume that it was made from'],
  [0, '\x89PNG', 'a PNG picture: send the volume that it was made from'],
  [0, 'GIF8', 'a GIF picture: send the volume that it was made from'],
  [0, 'II*\0', 'a TIFF file: convert it to NIfTI, NRRD or MetaImage'],
  [0, 'MM\0*', 'a TIFF file: convert it to NIfTI, NRRD or MetaImage'],
  [0, '%PDF', 'a PDF document: send a volume'],
  [0, 'PK\x03\x04', 'a zip archive: unpack it and send the volume in it'],
  [0, 'BZh', 'packed with bzip2: unpack it, or pack it with gzip'],
  [0, '\xfd7zXZ\0', 'packed with xz: unpack it, or pack it with gzip'],
  [0, '\x28\xb5\x2f\xfd', 'packed with zstd: unpack it, or pack it with gzip'],
  [257, 'ustar', 'a tar archive: unpack it and send the volume in it'],
  [0, '\x89HDF\r\n\x1a\n', 'an HDF5 file, perhaps MINC: convert it to NIfTI'],
  [0, 'CDF\x01', 'a NetCDF file, perhaps MINC: convert it to NIfTI'],
  [0, '# vtk DataFile', 'a VTK file: convert it to NIfTI, NRRD or MetaImage'],
  [0, '\0\0\0\x01\0\0', 'perhaps a FreeSurfer MGH volume: convert it with mri_convert to NIfTI'],
];

const shownBytes = 1024;

/**
 * What a file is that is not a volume, and what to do about it, to follow "The file is"; undefined where nothing is known of it.
 * `bytes` are its first ones, unpacked where the file is a gzip member (`gzip`).
 */
export function strangerAdvice(bytes: Uint8Array, gzip: boolean): string | undefined {
  if (gzip && isGzip(bytes)) return 'packed with gzip twice: unpack it once, for instance with gunzip';
  for (const [at, magic, advice] of strangers) {
    if (latin1(bytes.subarray(at, at + magic.length)) === magic) return advice;
  }
  return isText(bytes) ? textAdvice(bytes) : undefined;
}

/** Whether bytes are text as far as they are looked at: printable ASCII, line ends, and bytes of UTF-8 or Latin-1. */
export function isText(bytes: Uint8Array): boolean {
  const start = bytes.subarray(0, shownBytes);
  return start.length > 0 && start.every((byte) => byte >= 32 || byte === 9 || byte === 10 || byte === 13);
}

/** What stands in place of a file where a download or a checkout went wrong. */
function textAdvice(bytes: Uint8Array): string | undefined {
  const text = latin1(bytes.subarray(0, shownBytes))
    .replace(/^\u00ef\u00bb\u00bf/, '')
    .trimStart();
  const lower = text.toLowerCase();
  if (lower.startsWith('version https://git-lfs.github.com/spec/'))
    return 'a Git LFS pointer, not the file that it stands for: run “git lfs pull” where it lies, then send it';
  if (
    lower.startsWith('/annex/objects/') ||
    (bytes.length < shownBytes && lower.includes('.git/annex/objects/'))
  )
    return 'a pointer of git-annex, not the file that it stands for: run “datalad get” or “git annex get” on it, then send it';
  if (lower.startsWith('<!doctype html') || lower.includes('<html'))
    return 'a web page, perhaps one to log in or of an error: download the volume again, and look into the file';
  if (lower.startsWith('<?xml') || lower.startsWith('<error'))
    return 'XML text, perhaps the error message of a server: download the volume again, and look into the file';
  const second = text.slice(1).trimStart()[0];
  if (
    (text[0] === '{' && (second === '"' || second === '}')) ||
    (text[0] === '[' && second !== undefined && '{["]'.includes(second))
  )
    return 'JSON text, perhaps the error message of a server: download the volume again, and look into the file';
  const line = text.trimEnd();
  if (
    bytes.length < shownBytes &&
    !line.includes('\n') &&
    /[\\/]/.test(line) &&
    (endingOf(line) !== undefined || hasEnding(line, '.gz'))
  )
    return 'the path of a file, written as text: send the file that lies there';
  return undefined;
}
