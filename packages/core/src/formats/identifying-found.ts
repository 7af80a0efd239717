import { latin1 } from './header.ts';

/**
 * Finds text in volume files that may identify the patient, and removes it before a file is sent or stored. Voxels and
 * geometry are copied byte by byte; a file without such text is unchanged.
 */
export interface IdentifyingField {
  name: string;
  value: string;
}

/** The unneeded fields of a header, and the header without them. */
export interface Found {
  fields: IdentifyingField[];
  /** The replacement of the bytes before `from`; undefined if nothing changes. */
  head?: Uint8Array<ArrayBuffer>;
  from: number;
}

const longestShown = 300;

export const shown = (text: string): string => text.slice(0, longestShown);

/** The readable part of some bytes. */
export function printable(bytes: Uint8Array): string {
  return shown(
    latin1(bytes.subarray(0, 4 * longestShown))
      .replace(/[^\x20-\x7e\xa0-\xff]+/g, ' ')
      .trim(),
  );
}
