import { latin1 } from './header.ts';
import { isGzip } from './inflate-prefix.ts';
import { endingOf } from './table.ts';
import { hasEnding } from './volume-format.ts';

/** Other kinds of files that users send, and what to do about them. */
const strangers: readonly (readonly [at: number, magic: string, advice: string])[] = [
  [0, '\xff\xd8\xff', 'a JPEG picture. Send the volume that it was made from'],
  [0, '\x89PNG', 'a PNG picture. Send the volume that it was made from'],
  [0, 'GIF8', 'a GIF picture. Send the volume that it was made from'],
  [0, 'II*\0', 'a TIFF file. Convert it to NIfTI, NRRD or MetaImage'],
  [0, 'MM\0*', 'a TIFF file. Convert it to NIfTI, NRRD or MetaImage'],
  [0, '%PDF', 'a PDF document. Send a volume'],
  [0, 'PK\x03\x04', 'a zip archive. Extract it and send the volume in it'],
  [0, 'BZh', 'compressed with bzip2. Decompress it, or compress it with gzip'],
  [0, '\xfd7zXZ\0', 'compressed with xz. Decompress it, or compress it with gzip'],
  [0, '\x28\xb5\x2f\xfd', 'compressed with zstd. Decompress it, or compress it with gzip'],
  [257, 'ustar', 'a tar archive. Extract it and send the volume in it'],
  [0, '\x89HDF\r\n\x1a\n', 'an HDF5 file, perhaps MINC. Convert it to NIfTI'],
  [0, 'CDF\x01', 'a NetCDF file, perhaps MINC. Convert it to NIfTI'],
  [0, '# vtk DataFile', 'a VTK file. Convert it to NIfTI, NRRD or MetaImage'],
  [0, '\0\0\0\x01\0\0', 'perhaps a FreeSurfer MGH volume. Convert it with mri_convert to NIfTI'],
];

const shownBytes = 1024;

/**
 * The kind of a file that is not a volume, and what to do about it, to follow "The file is"; undefined if unknown.
 * `bytes` are its first ones, decompressed if the file is a gzip member (`gzip`).
 */
export function strangerAdvice(bytes: Uint8Array, gzip: boolean): string | undefined {
  if (gzip && isGzip(bytes))
    return 'compressed with gzip twice. Decompress it once, for instance with gunzip';
  for (const [at, magic, advice] of strangers) {
    if (latin1(bytes.subarray(at, at + magic.length)) === magic) return advice;
  }
  return isText(bytes) ? textAdvice(bytes) : undefined;
}

/** Whether the first bytes are text: printable ASCII, line ends, and bytes of UTF-8 or Latin-1. */
export function isText(bytes: Uint8Array): boolean {
  const start = bytes.subarray(0, shownBytes);
  return start.length > 0 && start.every((byte) => byte >= 32 || byte === 9 || byte === 10 || byte === 13);
}

/** What a failed download or checkout leaves in place of a file. */
function textAdvice(bytes: Uint8Array): string | undefined {
  const text = latin1(bytes.subarray(0, shownBytes))
    .replace(/^\u00ef\u00bb\u00bf/, '')
    .trimStart();
  const lower = text.toLowerCase();
  if (lower.startsWith('version https://git-lfs.github.com/spec/'))
    return 'a Git LFS pointer, not the file itself. Run “git lfs pull” in its folder, then send the file';
  if (
    lower.startsWith('/annex/objects/') ||
    (bytes.length < shownBytes && lower.includes('.git/annex/objects/'))
  )
    return 'a pointer of git-annex, not the file itself. Run “datalad get” or “git annex get” on it, then send the file';
  if (lower.startsWith('<!doctype html') || lower.includes('<html'))
    return 'a web page, perhaps a login or error page. Download the volume again, and check the file';
  if (lower.startsWith('<?xml') || lower.startsWith('<error'))
    return 'XML text, perhaps the error message of a server. Download the volume again, and check the file';
  const second = text.slice(1).trimStart()[0];
  if (
    (text[0] === '{' && (second === '"' || second === '}')) ||
    (text[0] === '[' && second !== undefined && '{["]'.includes(second))
  )
    return 'JSON text, perhaps the error message of a server. Download the volume again, and check the file';
  const line = text.trimEnd();
  if (
    bytes.length < shownBytes &&
    !line.includes('\n') &&
    /[\\/]/.test(line) &&
    (endingOf(line) !== undefined || hasEnding(line, '.gz'))
  )
    return 'the path of a file, as text. Send the file at that path';
  return undefined;
}
