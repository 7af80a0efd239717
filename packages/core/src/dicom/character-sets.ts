import { latin1 } from '../formats/header.ts';

/**
 * Specific character sets (PS3.3 C.12.1.1.2) and the encodings that contain them, by the labels of the Encoding
 * Standard.
 */
const encodings: Readonly<Record<string, string>> = {
  'ISO_IR 100': 'windows-1252',
  'ISO_IR 101': 'iso-8859-2',
  'ISO_IR 109': 'iso-8859-3',
  'ISO_IR 110': 'iso-8859-4',
  'ISO_IR 144': 'iso-8859-5',
  'ISO_IR 127': 'iso-8859-6',
  'ISO_IR 126': 'iso-8859-7',
  'ISO_IR 138': 'iso-8859-8',
  'ISO_IR 148': 'windows-1254',
  'ISO_IR 203': 'iso-8859-15',
  'ISO_IR 13': 'shift_jis',
  'ISO_IR 166': 'windows-874',
  'ISO_IR 192': 'utf-8',
  GB18030: 'gb18030',
  GBK: 'gbk',
  'ISO 2022 IR 13': 'shift_jis',
  'ISO 2022 IR 87': 'iso-2022-jp',
  'ISO 2022 IR 159': 'iso-2022-jp',
  'ISO 2022 IR 149': 'euc-kr',
  'ISO 2022 IR 58': 'gb2312',
};

/** The character sets that are read, besides the default repertoire. */
export const characterSetNames: readonly string[] = Object.keys(encodings);

/** The encoding of a character set, by its label in the Encoding Standard; undefined for the default repertoire and unknown sets. */
export const encodingOfCharacterSet = (characterSet: string): string | undefined =>
  encodings[characterSet] ?? encodings[characterSet.replace('ISO 2022 ', 'ISO_')];

/** ESC $ ) C and ESC $ ) A, which designate Korean and Chinese in the right half of the code table. */
const announcements = ['\x1b$)C', '\x1b$)A'];

/**
 * The text of a value in the character sets that its data set names. Bytes that are invalid in a set become U+FFFD;
 * an unknown set is read as ISO 8859-1.
 */
export function decodeText(bytes: Uint8Array, characterSets: readonly string[]): string {
  const named = characterSets.map((name) => name.replace('ISO 2022 IR 6', '')).filter((name) => name !== '');
  const asian = named.find((name) => /IR (?:87|159|149|58)$/.test(name));
  const label = encodingOfCharacterSet(asian ?? named[0] ?? '');
  if (label === undefined) return latin1(bytes);
  const decoded = new TextDecoder(label).decode(bytes);
  return announcements.reduce((text, announcement) => text.replaceAll(announcement, ''), decoded);
}
