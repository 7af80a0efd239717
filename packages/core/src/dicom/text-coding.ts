import { decodeText, encodingOfCharacterSet } from './character-sets.ts';
import type { Dataset, DicomElement } from './dataset.ts';
import type { Vr } from './value-representations.ts';

/** How text of a data set is encoded. */
export interface TextCoding {
  /** The values of SpecificCharacterSet; empty for the default repertoire, ASCII. */
  readonly characterSets: readonly string[];
  encode(text: string): Uint8Array;
  /** An element of the source in this encoding: its own bytes if the source's character sets are kept. */
  adopt(element: DicomElement): DicomElement;
}

/**
 * The character sets of the source if they can encode all our texts: copied elements then keep their bytes. Otherwise
 * UTF-8 (ISO_IR 192), into which copied elements are transcoded.
 */
export function chooseTextCoding(sourceSets: readonly string[], texts: readonly string[]): TextCoding {
  const own = encoderOf(sourceSets);
  if (texts.every((text) => own(text) !== undefined)) {
    // Every text was tried; texts derived from them (truncated, or joined by ASCII) can be encoded as well.
    return { characterSets: sourceSets, encode: (text) => own(text)!, adopt: (element) => element };
  }
  const encode = (text: string) => new TextEncoder().encode(text);
  const adopt = (element: DicomElement): DicomElement => {
    if (element.kind === 'sequence')
      return { ...element, items: element.items.map((item) => adoptAll(item, adopt)) };
    if (element.kind !== 'value' || element.vr === undefined || !textual.has(element.vr)) return element;
    const bytes = encode(decodeText(element.bytes, sourceSets));
    return { ...element, bytes, statedBytes: bytes.length };
  };
  return { characterSets: ['ISO_IR 192'], encode, adopt };
}

const adoptAll = (dataset: Dataset, adopt: TextCoding['adopt']): Dataset =>
  new Map([...dataset].map(([tag, element]) => [tag, adopt(element)]));

/** The value representations to which SpecificCharacterSet applies (PS3.5 6.1.2.3). */
const textual: ReadonlySet<Vr> = new Set<Vr>(['LO', 'LT', 'PN', 'SH', 'ST', 'UC', 'UT']);

/** Encodes a text in character sets; undefined if they cannot encode it, or it would need escape sequences. */
function encoderOf(characterSets: readonly string[]): (text: string) => Uint8Array | undefined {
  const label = encodingOfCharacterSet(characterSets[0] ?? '');
  const upper = label === undefined || label === 'utf-8' ? undefined : upperHalfOf(label);
  return (text) => {
    if (label === 'utf-8') return new TextEncoder().encode(text);
    const bytes = Array.from(text, (character) => {
      const code = character.charCodeAt(0);
      return character.length === 1 && code < 0x80 ? code : upper?.get(character);
    });
    return bytes.every((byte) => byte !== undefined) ? Uint8Array.from(bytes) : undefined;
  };
}

/**
 * The characters of the bytes from 0xA0 upwards that stand for themselves: all in a single-byte set; none in GB18030
 * and similar, whose text then needs UTF-8.
 */
function upperHalfOf(label: string): ReadonlyMap<string, number> {
  const decoder = new TextDecoder(label);
  const found = new Map<string, number>();
  for (let byte = 0xa0; byte <= 0xff; byte++) {
    const character = decoder.decode(Uint8Array.of(byte));
    if ([...character].length === 1 && character !== '\ufffd') found.set(character, byte);
  }
  return found;
}
