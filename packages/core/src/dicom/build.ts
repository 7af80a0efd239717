import { TomaatError } from '../errors.ts';
import type { Dataset, DicomElement, SequenceElement, ValueElement } from './dataset.ts';
import type { Tag } from './tags.ts';
import { tags } from './tags.ts';
import type { TextCoding } from './text-coding.ts';
import type { Vr } from './value-representations.ts';

/* Creates elements from values, in little endian, for the transfer syntaxes in which results are written. */

/** A code of a terminology, as given in a manifest. */
export interface Code {
  readonly scheme: string;
  readonly value: string;
  readonly meaning: string;
}

/**
 * Value representations of printable ASCII, and those of text for people with the maximum number of characters in a
 * value (PS3.5 6.2).
 */
type AsciiVr = 'CS' | 'DA' | 'DS' | 'IS' | 'TM' | 'UI';
const longestTexts = { LO: 64, PN: 64, SH: 16, ST: 1024, UC: 2 ** 20, UT: 2 ** 20 } as const;
export type TextVr = keyof typeof longestTexts;

const binaryWriters = {
  AT: [4, (view, at, value) => {
    view.setUint16(at, Math.floor(value / 65536), true);
    view.setUint16(at + 2, value % 65536, true);
  }],
  FD: [8, (view, at, value) => view.setFloat64(at, value, true)],
  UL: [4, (view, at, value) => view.setUint32(at, value, true)],
  US: [2, (view, at, value) => view.setUint16(at, value, true)],
} as const satisfies Partial<
  Record<Vr, readonly [bytes: number, write: (view: DataView, at: number, value: number) => void]>
>; // biome-ignore format: one table
type BinaryVr = keyof typeof binaryWriters;

/** The data set with these elements; undefined ones are omitted. */
export const datasetOf = (...elements: readonly (DicomElement | undefined)[]): Dataset =>
  new Map(elements.flatMap((element) => (element ? [[element.tag, element] as const] : [])));

/** Values of printable ASCII. Numbers become decimal strings (DS) or integer strings (IS). */
export const ascii = (tag: Tag, vr: AsciiVr, ...values: readonly (string | number)[]): ValueElement =>
  bytesElement(
    tag,
    vr,
    new TextEncoder().encode(
      values.map((value) => (typeof value === 'number' ? decimalString(value) : value)).join('\\'),
    ),
  );

export function binary(tag: Tag, vr: BinaryVr, ...values: readonly number[]): ValueElement {
  const [size, write] = binaryWriters[vr];
  const bytes = new Uint8Array(size * values.length);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) write(view, i * size, value);
  return bytesElement(tag, vr, bytes);
}

/** Text for people, truncated to the limit of its value representation. */
export const text = (tag: Tag, vr: TextVr, value: string, coding: TextCoding): ValueElement =>
  bytesElement(tag, vr, coding.encode(fitText(value, vr)));

export const bytesElement = (tag: Tag, vr: Vr, bytes: Uint8Array): ValueElement => ({
  kind: 'value',
  tag,
  vr,
  bytes,
  littleEndian: true,
  statedBytes: bytes.length,
});

export const sequence = (tag: Tag, ...items: readonly Dataset[]): SequenceElement => ({
  kind: 'sequence',
  tag,
  vr: 'SQ',
  items,
  implicitItems: false,
});

/** A sequence of one code (PS3.3 8.8). A code of more than 16 characters becomes a long code value. */
export function codeSequence(
  tag: Tag,
  { scheme, value, meaning }: Code,
  coding: TextCoding,
  ...more: readonly DicomElement[]
): SequenceElement {
  const isLong = value.length > longestTexts.SH;
  return sequence(
    tag,
    datasetOf(
      isLong ? text(tags.longCodeValue, 'UC', value, coding) : text(tags.codeValue, 'SH', value, coding),
      text(tags.codingSchemeDesignator, 'SH', scheme, coding),
      text(tags.codeMeaning, 'LO', meaning, coding),
      ...more,
    ),
  );
}

/**
 * A text in the form of its value representation: at most its number of characters, on one line if required, and
 * without the backslash, which separates values.
 */
export function fitText(value: string, vr: TextVr): string {
  const isParagraph = vr === 'ST' || vr === 'UT';
  const plain = isParagraph ? value : value.replaceAll('\\', '/');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what a value must not hold
  const clean = plain.replaceAll(isParagraph ? /[\x00-\x09\x0b\x0e-\x1f\x7f]/g : /[\x00-\x1f\x7f]/g, ' ');
  return [...clean.trim()].slice(0, longestTexts[vr]).join('').trimEnd();
}

const longestDecimal = 16;

/**
 * A number in at most 16 characters, as DS requires (PS3.5 6.2): of the decimals that fit, the one that reads back
 * nearest to it, and the shortest of those.
 *
 * @throws TomaatError INTERNAL for NaN and infinity
 */
export function decimalString(value: number): string {
  if (!Number.isFinite(value)) {
    throw new TomaatError('INTERNAL', `A decimal string cannot hold ${value}: report this with the input.`);
  }
  const plain = String(value === 0 ? 0 : value);
  if (plain.length <= longestDecimal) return plain.replace('e+', 'e');
  const candidates = Array.from({ length: longestDecimal }, (_, i) => [
    String(Number(value.toPrecision(i + 1))),
    value.toExponential(i).replace('e+', 'e'),
  ]).flat();
  return candidates
    .filter(({ length }) => length <= longestDecimal)
    .reduce((best, candidate) => {
      const gain = Math.abs(Number(best) - value) - Math.abs(Number(candidate) - value);
      return gain > 0 || (gain === 0 && candidate.length < best.length) ? candidate : best;
    });
}
