import { badHeader, latin1, parseDecimal } from '../formats/header.ts';
import { decodeText } from './character-sets.ts';
import { type Tag, tagName, tags } from './tags.ts';
import type { Vr } from './value-representations.ts';

/**
 * A DICOM data set as stored in a file: elements by tag, in ascending order, with undecoded values. The same form is
 * read (parse.ts), changed and written (encode.ts), so that whatever is not changed keeps its bytes.
 */
export type Dataset = ReadonlyMap<Tag, DicomElement>;

interface ElementOf {
  readonly tag: Tag;
  /** Undefined if an implicit VR file has a tag that is not in the dictionary. */
  readonly vr: Vr | undefined;
}

/** An element whose value is bytes in the file's byte order, a view of the file. */
export interface ValueElement extends ElementOf {
  readonly kind: 'value';
  readonly bytes: Uint8Array;
  readonly littleEndian: boolean;
  /** The length given in the element; more than `bytes.length` if only the beginning of a file was parsed. */
  readonly statedBytes: number;
}

export interface SequenceElement extends ElementOf {
  readonly kind: 'sequence';
  readonly items: readonly Dataset[];
  /** Whether the items are implicit VR little endian inside a file with explicit VR (CP-246: the VR in the file was UN). */
  readonly implicitItems: boolean;
}

/** Encapsulated pixel data (PS3.5 A.4). */
export interface FragmentsElement extends ElementOf {
  readonly kind: 'fragments';
  /** Byte offsets of the frames, from the first byte after the table; empty if the file has none. */
  readonly offsets: Uint32Array;
  readonly fragments: readonly Uint8Array[];
}

export type DicomElement = ValueElement | SequenceElement | FragmentsElement;

/** The encoding of a data set (PS3.5 A). */
export interface Encoding {
  readonly explicit: boolean;
  readonly littleEndian: boolean;
}

export interface DicomFile extends Encoding {
  /** The file meta information (group 0002); empty if the file has none. */
  readonly meta: Dataset;
  readonly dataset: Dataset;
  /** Transfer syntax UID; for a file without meta information, inferred from its first element. */
  readonly transferSyntax: string;
}

/** The first item of a sequence; undefined if the sequence is absent or empty. */
export const firstItem = (dataset: Dataset, tag: Tag): Dataset | undefined => itemsOf(dataset, tag)[0];

/** The items of a sequence; empty if it is absent. */
export function itemsOf(dataset: Dataset, tag: Tag): readonly Dataset[] {
  const element = dataset.get(tag);
  return element?.kind === 'sequence' ? element.items : [];
}

const bytesOf = (dataset: Dataset, tag: Tag): ValueElement | undefined => {
  const element = dataset.get(tag);
  return element?.kind === 'value' && element.bytes.length > 0 ? element : undefined;
};

/** A value of printable ASCII (UI, CS, DA, TM, DS …) without its padding; undefined if it is absent or empty. */
export function word(dataset: Dataset, tag: Tag): string | undefined {
  const element = bytesOf(dataset, tag);
  if (!element) return undefined;
  const text = withoutPadding(latin1(element.bytes.subarray(0, longestWords)));
  return text === '' ? undefined : text;
}

/** Values of printable ASCII, separated by backslashes; empty if the element is absent or empty. */
export const words = (dataset: Dataset, tag: Tag): string[] =>
  word(dataset, tag)
    ?.split('\\')
    .map((value) => value.trim()) ?? [];

/** Text for people (LO, SH, PN, LT …) in the data set's character set; undefined if it is absent or empty. */
export function text(dataset: Dataset, tag: Tag): string | undefined {
  const element = bytesOf(dataset, tag);
  if (!element) return undefined;
  const decoded = decodeText(
    element.bytes.subarray(0, longestText),
    words(dataset, tags.specificCharacterSet),
  );
  const trimmed = withoutPadding(decoded);
  return trimmed === '' ? undefined : trimmed;
}

/**
 * The numbers of an element, whatever its value representation: decimal strings, integer strings, or binary.
 * Undefined if it is absent or empty.
 *
 * @param assumed the value representation if the file does not say it
 * @throws TomaatError BAD_HEADER for anything but finite decimal numbers: NaN and infinity in a position or a spacing
 *   compare as neither larger nor smaller than any limit (CVE-2026-48705)
 */
export function numbers(dataset: Dataset, tag: Tag, assumed?: Vr): number[] | undefined {
  const element = bytesOf(dataset, tag);
  if (!element) return undefined;
  const vr = element.vr === undefined || element.vr === 'UN' ? assumed : element.vr;
  const binary = vr && binaryReaders[vr];
  const found = binary ? binaryNumbers(element, binary) : decimals(dataset, tag);
  if (found?.some((value) => !Number.isFinite(value))) {
    throw badHeader(
      `${tagName(tag)} holds a value that is not a number: export the series again from the system that made it`,
    );
  }
  return found;
}

/** The first of an element's numbers; undefined if it is absent or empty. */
export const number = (dataset: Dataset, tag: Tag, assumed?: Vr): number | undefined =>
  numbers(dataset, tag, assumed)?.[0];

/** An unsigned 16-bit integer (US). */
export const unsignedShort = (dataset: Dataset, tag: Tag): number | undefined => number(dataset, tag, 'US');

/**
 * The maximum number of ASCII characters, or of binary numbers, that are read from a value: the longest in use, a list
 * of positions, has 100 kB.
 */
const longestWords = 2 ** 20;
const longestText = 2 ** 14;

/**
 * Without leading and trailing spaces and zero bytes. Not by a regular expression, which would search for the end at
 * each space.
 */
function withoutPadding(value: string): string {
  const isPadding = (at: number) => value.charCodeAt(at) === 0 || value.charCodeAt(at) === 32;
  let [start, end] = [0, value.length];
  while (end > start && isPadding(end - 1)) end--;
  while (start < end && isPadding(start)) start++;
  return value.slice(start, end);
}

function decimals(dataset: Dataset, tag: Tag): number[] | undefined {
  const found = words(dataset, tag);
  return found.length === 0 ? undefined : found.map(parseDecimal);
}

type BinaryReader = readonly [bytes: number, read: (view: DataView, at: number, little: boolean) => number];

const binaryReaders: Readonly<Partial<Record<Vr, BinaryReader>>> = {
  US: [2, (view, at, little) => view.getUint16(at, little)],
  SS: [2, (view, at, little) => view.getInt16(at, little)],
  UL: [4, (view, at, little) => view.getUint32(at, little)],
  SL: [4, (view, at, little) => view.getInt32(at, little)],
  FL: [4, (view, at, little) => view.getFloat32(at, little)],
  FD: [8, (view, at, little) => view.getFloat64(at, little)],
  AT: [4, (view, at, little) => view.getUint16(at, little) * 65536 + view.getUint16(at + 2, little)],
};

function binaryNumbers(
  { bytes, littleEndian }: ValueElement,
  [size, read]: BinaryReader,
): number[] | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = Math.min(Math.floor(bytes.length / size), longestWords);
  return count === 0
    ? undefined
    : Array.from({ length: count }, (_, i) => read(view, i * size, littleEndian));
}
