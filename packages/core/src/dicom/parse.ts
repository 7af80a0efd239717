import { TomaatError } from '../errors.ts';
import { badHeader } from '../formats/header.ts';
import type {
  Dataset,
  DicomElement,
  DicomFile,
  Encoding,
  FragmentsElement,
  ValueElement,
} from './dataset.ts';
import { word } from './dataset.ts';
import { representationOf } from './dictionary.ts';
import { isPixelData, type Tag, tagName, tags } from './tags.ts';
import { encodingOf, transferSyntaxes } from './transfer-syntaxes.ts';
import { hasLongLength, isVr, type Vr } from './value-representations.ts';

/*
 * Parses a DICOM file into a data set without decoding values (PS3.5 7, PS3.10 7). Nothing is allocated on the
 * strength of lengths in the file: values are views of it, and the number and depth of elements are bounded.
 */

export interface ParseOptions {
  /** Length of the whole file, if `bytes` are only its beginning: parsing then ends at the pixel data. */
  fileBytes?: number;
  /**
   * The inflated data set of a deflated file: `bytes` are then read only for the meta information, and `fileBytes` is
   * their length.
   */
  inflated?: Uint8Array;
}

/** The size of a prefix that contains `(0008,0018)` in nearly all files, in bytes. */
export const dicomPrefixBytes = 65_536;

const maxElements = 1_000_000;
const maxDepth = 32;
const undefinedLength = 0xffffffff;
const itemTag = 0xfffee000;
const itemEnd = 0xfffee00d;
const sequenceEnd = 0xfffee0dd;

/** Whether the first bytes of a file look like DICOM: with preamble, with only the magic word, or with neither. */
export function isDicom(bytes: Uint8Array): boolean {
  return startOf(bytes) > 0 || beginsWithElement(bytes);
}

/** Whether bytes are a DICOM file, and not text that begins like one: base64 can contain the letters DICM too. */
export const isDicomUnlikeText = (bytes: Uint8Array): boolean =>
  isDicom(bytes) && bytes.subarray(0, 128).some((byte) => byte < 9);

/** Whether the word DICM stands after a preamble of 128 bytes, as PS3.10 7.1 requires; or after one of another length. */
export const hasDicomWord = (bytes: Uint8Array, preambleBytes = 128): boolean =>
  [68, 73, 67, 77].every((letter, i) => bytes[preambleBytes + i] === letter);

/** The first byte after the preamble and the word DICM; 0 if they are missing. */
const startOf = (bytes: Uint8Array): number => (hasDicomWord(bytes) ? 132 : hasDicomWord(bytes, 0) ? 4 : 0);

/** Whether a data set begins here with an element of group 2 or 8 (in either byte order) that is in the dictionary. */
function beginsWithElement(bytes: Uint8Array): boolean {
  if (bytes.length < 8) return false;
  const view = viewOf(bytes);
  for (const littleEndian of [true, false]) {
    const group = view.getUint16(0, littleEndian);
    if (group !== 2 && group !== 8) continue;
    const known = representationOf(group * 65536 + view.getUint16(2, littleEndian));
    if (known === undefined) continue;
    const isExplicit = isVr(vrAt(bytes, 4));
    if (isExplicit || view.getUint32(4, littleEndian) <= 65_536) return true;
  }
  return false;
}

/**
 * The data set of a file. Undefined if `bytes` are the beginning of a longer file and end before its pixel data:
 * parse more of it then. The data set of a deflated file (1.2.840.10008.1.2.1.99, see `deflatedFrom()`) is inflated
 * first.
 *
 * Accepted leniently: files without preamble, without meta information or without its length; values of an odd
 * length; a VR of UN that hides a sequence (CP-246); an implicit sequence that is not in the dictionary; a last
 * element that is truncated in the pixels.
 *
 * @throws TomaatError UNKNOWN_FORMAT if it is not a DICOM file; BAD_HEADER if an element runs past the end, a
 *   sequence is broken, a tag occurs twice, or there are more than 1,000,000 elements or 32 levels
 */
export function parseDicom(bytes: Uint8Array, options: ParseOptions = {}): DicomFile | undefined {
  const given = (options.inflated ?? bytes).length;
  const isWhole = options.fileBytes === undefined || options.fileBytes <= given;
  try {
    return parseWhole(bytes, isWhole, options.inflated);
  } catch (error) {
    if (error instanceof Short && !isWhole) return undefined;
    if (error instanceof Short) throw cutOff(error.tag);
    throw error;
  }
}

/** The file, or the available part of it, ends within an element. */
class Short extends Error {
  readonly tag: Tag | undefined;
  constructor(tag?: Tag) {
    super('short');
    this.tag = tag;
  }
}

const cutOff = (tag: Tag | undefined) =>
  badHeader(
    `The file ends within ${tag === undefined ? 'an element' : tagName(tag)}: it is cut off, send it again`,
  );

function parseWhole(bytes: Uint8Array, isWhole: boolean, inflated: Uint8Array | undefined): DicomFile {
  const reader = { bytes, view: viewOf(bytes), elements: 0, isWhole };
  const start = startOf(bytes);
  if (start === 0 && !beginsWithElement(bytes)) {
    throw new TomaatError('UNKNOWN_FORMAT', 'The file is not a DICOM file: leave it out');
  }
  const meta = readElements(reader, {
    at: start,
    end: bytes.length,
    encoding: explicitLittle,
    depth: 0,
    group: 2,
  });
  const stated = word(meta.dataset, tags.transferSyntaxUid);
  if (stated === transferSyntaxes.deflated) {
    if (!inflated) throw new TomaatError('UNSUPPORTED_FORMAT', 'The data set is deflated: inflate it first');
    const inner = { bytes: inflated, view: viewOf(inflated), elements: 0, isWhole };
    const span = { at: 0, end: inflated.length, encoding: explicitLittle, depth: 0 };
    const { dataset } = readElements(inner, span);
    return { meta: meta.dataset, dataset, transferSyntax: stated, ...explicitLittle };
  }
  const transferSyntax = stated ?? guessSyntax(reader, meta.at);
  const encoding = encodingOf(transferSyntax);
  const { dataset } = readElements(reader, { at: meta.at, end: bytes.length, encoding, depth: 0 });
  return { meta: meta.dataset, dataset, transferSyntax, ...encoding };
}

/** Where the deflated part of a file begins; undefined if it has another transfer syntax. */
export function deflatedFrom(bytes: Uint8Array): number | undefined {
  const start = startOf(bytes);
  if (start === 0) return undefined;
  const reader = { bytes, view: viewOf(bytes), elements: 0, isWhole: false };
  try {
    const span = { at: start, end: bytes.length, encoding: explicitLittle, depth: 0, group: 2 };
    const meta = readElements(reader, span);
    return word(meta.dataset, tags.transferSyntaxUid) === transferSyntaxes.deflated ? meta.at : undefined;
  } catch (error) {
    if (error instanceof Short || error instanceof TomaatError) return undefined;
    throw error;
  }
}

const explicitLittle: Encoding = { explicit: true, littleEndian: true };

/** The transfer syntax inferred from the first element after the meta information. */
function guessSyntax({ bytes, view }: Reader, at: number): string {
  if (at + 8 > bytes.length) throw new Short();
  const explicit = isVr(vrAt(bytes, at + 4));
  if (!explicit) return transferSyntaxes.implicitLittleEndian;
  const isBig = view.getUint16(at, true) > 0xff && view.getUint16(at, false) <= 0xff;
  return isBig ? transferSyntaxes.explicitBigEndian : transferSyntaxes.explicitLittleEndian;
}

interface Reader {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Elements, items and fragments so far, at all levels. */
  elements: number;
  /** Whether `bytes` are the whole file. */
  readonly isWhole: boolean;
}

interface Span {
  at: number;
  readonly end: number;
  readonly encoding: Encoding;
  readonly depth: number;
  /** Reading ends before the first element of another group. */
  readonly group?: number;
}

/** Reads elements up to the end, the end of the item, or (if only the beginning is given) the pixel data. */
function readElements(reader: Reader, span: Span): { dataset: Dataset; at: number; isClosed: boolean } {
  const { bytes, view } = reader;
  const { end, encoding, depth } = span;
  if (depth > maxDepth)
    throw badHeader(
      `Sequences are nested more than ${maxDepth} levels deep: export the file again from the system that made it`,
    );
  const dataset = new Map<Tag, DicomElement>();
  let { at } = span;
  while (at < end) {
    if (at + 8 > end) {
      // Zeros or a stray byte after the last element are harmless.
      if (isZero(bytes.subarray(at, end)) && (reader.isWhole || end < bytes.length))
        return { dataset, at: end, isClosed: false };
      throw new Short();
    }
    const tag = tagAt(view, at, encoding.littleEndian);
    if (span.group !== undefined && Math.floor(tag / 65536) !== span.group) break;
    if (tag === itemEnd) return { dataset, at: at + 8, isClosed: true };
    if (depth === 0 && tag === 0 && isZero(bytes.subarray(at, end)))
      return { dataset, at: end, isClosed: false };
    const head = readHead(reader, at, end, tag, encoding);
    if (!reader.isWhole && depth === 0 && isPixelData(tag)) {
      dataset.set(tag, valueElement(reader, head, encoding, bytes.length));
      return { dataset, at: bytes.length, isClosed: false };
    }
    const { element, next } = readValue(reader, head, end, encoding, depth);
    if (dataset.has(tag)) {
      throw badHeader(
        `${tagName(tag)} occurs twice in the file: export it again from the system that made it`,
      );
    }
    dataset.set(tag, element);
    at = next;
  }
  // If only the beginning is given, the pixel data or more elements are still to come.
  if (depth === 0 && at >= end && !reader.isWhole) throw new Short();
  return { dataset, at, isClosed: false };
}

interface Head {
  readonly tag: Tag;
  readonly vr: Vr | undefined;
  readonly length: number;
  /** First byte of the value. */
  readonly from: number;
}

function readHead(reader: Reader, at: number, end: number, tag: Tag, encoding: Encoding): Head {
  const { bytes, view } = reader;
  count(reader);
  if (!encoding.explicit) {
    return {
      tag,
      vr: representationOf(tag),
      length: view.getUint32(at + 4, encoding.littleEndian),
      from: at + 8,
    };
  }
  const vr = vrAt(bytes, at + 4);
  if (!isVr(vr)) {
    throw badHeader(
      `${tagName(tag)} has no valid value representation: the file is damaged, export it again`,
    );
  }
  if (!hasLongLength(vr)) {
    return { tag, vr, length: view.getUint16(at + 6, encoding.littleEndian), from: at + 8 };
  }
  if (at + 12 > end) throw new Short(tag);
  return { tag, vr, length: view.getUint32(at + 8, encoding.littleEndian), from: at + 12 };
}

function readValue(
  reader: Reader,
  head: Head,
  end: number,
  encoding: Encoding,
  depth: number,
): { element: DicomElement; next: number } {
  const { tag, vr, length, from } = head;
  if (isPixelData(tag) && length === undefinedLength) return readFragments(reader, head, end, encoding);
  if (isSequence(reader, head, end, encoding)) {
    // A sequence whose VR is unknown to the writer is stored in implicit VR little endian, as UN (CP-246).
    const implicitItems = vr === 'UN';
    const inner = implicitItems ? { explicit: false, littleEndian: true } : encoding;
    const isOpen = length === undefinedLength;
    if (!isOpen && from + length > end) throw new Short(tag);
    const stop = isOpen ? end : from + length;
    const { items, at } = readItems(
      reader,
      { at: from, end: stop, encoding: inner, depth: depth + 1 },
      isOpen,
      tag,
    );
    return { element: { kind: 'sequence', tag, vr: 'SQ', items, implicitItems }, next: at };
  }
  if (length === undefinedLength) {
    throw badHeader(`${tagName(tag)} states no length: the file is damaged, export it again`);
  }
  const isCut = from + length > end;
  if (isCut && !(depth === 0 && isPixelData(tag))) throw new Short(tag);
  return {
    element: valueElement(reader, head, encoding, Math.min(from + length, end)),
    next: Math.min(from + length, end),
  };
}

function valueElement({ bytes }: Reader, head: Head, { littleEndian }: Encoding, stop: number): ValueElement {
  const { tag, vr, length, from } = head;
  return { kind: 'value', tag, vr, bytes: bytes.subarray(from, stop), littleEndian, statedBytes: length };
}

/** Whether a value is a sequence: by its VR or the dictionary, by its undefined length, or by the item at its start. */
function isSequence({ view }: Reader, head: Head, end: number, { explicit }: Encoding): boolean {
  const { tag, vr, length, from } = head;
  if (vr === 'SQ') return true;
  if (length === undefinedLength) return vr === undefined || vr === 'UN';
  // Elements that are not in the dictionary, mainly private sequences: in implicit VR, or as UN.
  const isOpaque = explicit ? vr === 'UN' : vr === undefined;
  if (!isOpaque || length < 8 || from + length > end || isPixelData(tag)) return false;
  if (tagAt(view, from, true) !== itemTag) return false;
  const itemBytes = view.getUint32(from + 4, true);
  return itemBytes === undefinedLength || itemBytes <= length - 8;
}

function readItems(
  reader: Reader,
  span: Span,
  isOpen: boolean,
  sequence: Tag,
): { items: Dataset[]; at: number } {
  const { view } = reader;
  const { end, encoding, depth } = span;
  const items: Dataset[] = [];
  let { at } = span;
  while (at < end) {
    if (at + 8 > end) throw new Short(sequence);
    const tag = tagAt(view, at, encoding.littleEndian);
    const length = view.getUint32(at + 4, encoding.littleEndian);
    at += 8;
    if (tag === sequenceEnd) return { items, at };
    if (tag !== itemTag) {
      throw badHeader(`${tagName(sequence)} holds something that is not an item: export the file again`);
    }
    count(reader);
    const isOpenItem = length === undefinedLength;
    const stop = isOpenItem ? end : at + length;
    if (stop > end) throw new Short(sequence);
    const item = readElements(reader, { at, end: stop, encoding, depth });
    if (isOpenItem && !item.isClosed) throw new Short(sequence);
    items.push(item.dataset);
    at = isOpenItem ? item.at : stop;
  }
  if (isOpen) throw new Short(sequence);
  return { items, at };
}

function readFragments(
  reader: Reader,
  { tag, vr, from }: Head,
  end: number,
  { littleEndian }: Encoding,
): { element: FragmentsElement; next: number } {
  const { bytes, view } = reader;
  const pieces: Uint8Array[] = [];
  let at = from;
  while (at + 8 <= end) {
    const itemStart = tagAt(view, at, littleEndian);
    const length = view.getUint32(at + 4, littleEndian);
    at += 8;
    if (itemStart === sequenceEnd) {
      const [table = new Uint8Array(0), ...fragments] = pieces;
      const tableView = viewOf(table);
      const offsets = Uint32Array.from({ length: Math.floor(table.length / 4) }, (_, i) =>
        tableView.getUint32(4 * i, littleEndian),
      );
      return { element: { kind: 'fragments', tag, vr, offsets, fragments }, next: at };
    }
    if (itemStart !== itemTag || at + length > end) break;
    count(reader);
    pieces.push(bytes.subarray(at, at + length));
    at += length;
  }
  throw new TomaatError('BAD_VOXELS', 'The compressed pixels are cut off: send the file again');
}

function count(reader: Reader): void {
  if (++reader.elements > maxElements) {
    throw badHeader(`The file has more than ${maxElements} elements, items and fragments: export it again`);
  }
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const tagAt = (view: DataView, at: number, littleEndian: boolean): Tag =>
  view.getUint16(at, littleEndian) * 65536 + view.getUint16(at + 2, littleEndian);

const vrAt = (bytes: Uint8Array, at: number) => String.fromCharCode(bytes[at], bytes[at + 1]);

const isZero = (bytes: Uint8Array) => bytes.every((value) => value === 0);
