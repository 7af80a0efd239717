import { hasDicomWord } from '@tomaat/core';

/**
 * The longest prefix of a file that `readFileMeta` needs, in bytes, given what files in practice have before the
 * transfer syntax.
 */
export const fileMetaBytes = 4096;

/** The information that precedes the data set of a DICOM file (PS3.10, section 7.1). */
export interface FileMeta {
  /** (0002,0002) */
  readonly sopClassUid?: string;
  /** (0002,0003): of the instance in the file. */
  readonly sopInstanceUid?: string;
  /** (0002,0010): how the data set and its pixels are encoded. */
  readonly transferSyntaxUid?: string;
}

const names: Readonly<Record<number, keyof FileMeta>> = {
  2: 'sopClassUid',
  3: 'sopInstanceUid',
  16: 'transferSyntaxUid',
};
/** These have a 32-bit length after two reserved bytes (PS3.5, section 7.1.2); in this group OB and UN occur. */
const longRepresentations = ['OB', 'OD', 'OF', 'OL', 'OV', 'OW', 'SQ', 'SV', 'UC', 'UN', 'UR', 'UT', 'UV'];

/** A unique identifier as in PS3.5 section 9.1: digits and dots, up to 64 characters. */
export const isUid = (text: string): boolean => /^[0-9.]{1,64}$/.test(text);

/**
 * The file meta information of a DICOM file, from its first bytes: 128 bytes of anything, DICM, then group 0002,
 * which is always explicit VR little endian.
 * @returns undefined if the bytes are not the beginning of such a file; missing, truncated or malformed fields are
 *   omitted
 */
export function readFileMeta(bytes: Uint8Array): FileMeta | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const textAt = (start: number, end: number) => String.fromCharCode(...bytes.subarray(start, end));
  if (!hasDicomWord(bytes)) return undefined;
  const meta: { -readonly [name in keyof FileMeta]: string } = {};
  for (let at = 132; at + 12 <= bytes.length && view.getUint16(at, true) === 2; ) {
    const element = view.getUint16(at + 2, true);
    const isLong = longRepresentations.includes(textAt(at + 4, at + 6));
    const start = at + (isLong ? 12 : 8);
    const end = start + (isLong ? view.getUint32(at + 8, true) : view.getUint16(at + 6, true));
    if (end > bytes.length) break;
    const name = names[element];
    if (name && end - start <= 66) {
      const uid = textAt(start, end);
      // Padded to an even length with NUL; some writers use a space.
      const text = uid.endsWith('\0') || uid.endsWith(' ') ? uid.slice(0, -1) : uid;
      if (isUid(text)) meta[name] = text;
    }
    at = end;
  }
  return meta;
}
