import { latin1 } from './header.ts';

/**
 * Text in volume files that may tell whose scan it is: found, and taken out before a file is sent or stored. Voxels and
 * geometry are taken over byte by byte; a file without such text is left as it is.
 */
export interface IdentifyingField {
  name: string;
  value: string;
}

/** What a header says that is not needed, and the header without it. */
export interface Found {
  fields: IdentifyingField[];
  /** What takes the place of the bytes before `from`; undefined where nothing changes. */
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
