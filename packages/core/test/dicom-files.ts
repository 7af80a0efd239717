/**
 * DICOM files made by hand, byte by byte after PS3.5 7 and PS3.10 7: for tests, independent of the encoder of core.
 */
import { deflateRawSync } from 'node:zlib';

/** Text, numbers of a binary VR, bytes, or the items of a sequence. */
export type Value =
  | string
  | readonly number[]
  | Uint8Array
  | readonly Elements[]
  | { fragments: Uint8Array[] };
export type Elements = readonly (readonly [tag: number, vr: string, value: Value])[];

export interface FileForm {
  /** Explicit VR little endian where missing. */
  syntax?: string;
  /** Sequences and items with an undefined length, ended by delimiters. */
  open?: boolean;
  preamble?: boolean;
  /** Without meta information at all. */
  bare?: boolean;
}

export const syntaxes = {
  implicit: '1.2.840.10008.1.2',
  explicit: '1.2.840.10008.1.2.1',
  deflated: '1.2.840.10008.1.2.1.99',
  big: '1.2.840.10008.1.2.2',
  rle: '1.2.840.10008.1.2.5',
  jpegLossless: '1.2.840.10008.1.2.4.70',
};

const longRepresentations = new Set([
  'OB',
  'OD',
  'OF',
  'OL',
  'OV',
  'OW',
  'SQ',
  'SV',
  'UC',
  'UN',
  'UR',
  'UT',
  'UV',
]);
const undefinedLength = 0xffffffff;

interface Form {
  explicit: boolean;
  little: boolean;
  open: boolean;
}

/** The bytes of elements, in the order given. */
export function encodeElements(elements: Elements, form: Form): Buffer {
  return Buffer.concat(elements.map(([tag, vr, value]) => encodeElement(tag, vr, value, form)));
}

function encodeElement(tag: number, vr: string, value: Value, form: Form): Buffer {
  if (typeof value === 'object' && 'fragments' in value) return encodeFragments(tag, value.fragments, form);
  if (vr === 'SQ') return encodeSequence(tag, value as readonly Elements[], form);
  const bytes = encodeValue(vr, value as string | readonly number[] | Uint8Array, form.little);
  return Buffer.concat([head(tag, vr, bytes.length, form), bytes]);
}

function encodeValue(vr: string, value: string | readonly number[] | Uint8Array, little: boolean): Buffer {
  if (typeof value === 'string') {
    const text = Buffer.from(value, 'utf8');
    return text.length % 2 === 0 ? text : Buffer.concat([text, Buffer.from(vr === 'UI' ? '\0' : ' ')]);
  }
  if (value instanceof Uint8Array) return Buffer.from(value);
  const size = { US: 2, SS: 2, UL: 4, SL: 4, FL: 4, FD: 8, AT: 4 }[vr];
  if (size === undefined) throw new Error(`no numbers in ${vr}`);
  const bytes = Buffer.alloc(size * value.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (const [i, number] of value.entries()) {
    const at = size * i;
    if (vr === 'US') view.setUint16(at, number, little);
    else if (vr === 'SS') view.setInt16(at, number, little);
    else if (vr === 'UL') view.setUint32(at, number, little);
    else if (vr === 'SL') view.setInt32(at, number, little);
    else if (vr === 'FL') view.setFloat32(at, number, little);
    else if (vr === 'FD') view.setFloat64(at, number, little);
    else putTag(view, at, number, little);
  }
  return bytes;
}

function putTag(view: DataView, at: number, tag: number, little: boolean): void {
  view.setUint16(at, Math.floor(tag / 65536), little);
  view.setUint16(at + 2, tag % 65536, little);
}

function head(tag: number, vr: string, length: number, { explicit, little }: Form): Buffer {
  const isLong = explicit && longRepresentations.has(vr);
  const bytes = Buffer.alloc(isLong ? 12 : 8);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  putTag(view, 0, tag, little);
  if (!explicit) view.setUint32(4, length, little);
  else {
    bytes.write(vr, 4, 'latin1');
    if (isLong) view.setUint32(8, length, little);
    else view.setUint16(6, length, little);
  }
  return bytes;
}

const itemHead = (tag: number, length: number, little: boolean) =>
  head(tag, '', length, { explicit: false, little, open: false });

function encodeSequence(tag: number, items: readonly Elements[], form: Form): Buffer {
  const { little, open } = form;
  const content = Buffer.concat(
    items.flatMap((item) => {
      const bytes = encodeElements(item, form);
      return open
        ? [itemHead(0xfffee000, undefinedLength, little), bytes, itemHead(0xfffee00d, 0, little)]
        : [itemHead(0xfffee000, bytes.length, little), bytes];
    }),
  );
  return open
    ? Buffer.concat([head(tag, 'SQ', undefinedLength, form), content, itemHead(0xfffee0dd, 0, little)])
    : Buffer.concat([head(tag, 'SQ', content.length, form), content]);
}

/** Encapsulated pixels; the first fragment is the offset table. */
function encodeFragments(tag: number, fragments: readonly Uint8Array[], form: Form): Buffer {
  return Buffer.concat([
    head(tag, 'OB', undefinedLength, form),
    ...fragments.flatMap((bytes) => [
      itemHead(0xfffee000, bytes.length + (bytes.length % 2), form.little),
      bytes,
      Buffer.alloc(bytes.length % 2),
    ]),
    itemHead(0xfffee0dd, 0, form.little),
  ]);
}

/** A whole file. */
export function dicomFile(
  elements: Elements,
  { syntax = syntaxes.explicit, open = false, preamble = true, bare = false }: FileForm = {},
): Uint8Array<ArrayBuffer> {
  const form = { explicit: syntax !== syntaxes.implicit, little: syntax !== syntaxes.big, open };
  const content = encodeElements(elements, form);
  if (bare) return new Uint8Array(content);
  const meta = encodeElements(
    [
      [0x00020002, 'UI', String(elements.find(([tag]) => tag === 0x00080016)?.[2] ?? '1.2')],
      [0x00020003, 'UI', String(elements.find(([tag]) => tag === 0x00080018)?.[2] ?? '1.3')],
      [0x00020010, 'UI', syntax],
    ],
    { explicit: true, little: true, open: false },
  );
  const length = encodeElements([[0x00020000, 'UL', [meta.length]]], {
    explicit: true,
    little: true,
    open: false,
  });
  return new Uint8Array(
    Buffer.concat([
      preamble ? Buffer.alloc(128) : Buffer.alloc(0),
      Buffer.from('DICM'),
      length,
      meta,
      syntax === syntaxes.deflated ? deflateRawSync(content) : content,
    ]),
  );
}

export interface Slice {
  position?: readonly number[];
  orientation?: readonly number[];
  /** Rows\columns. */
  spacing?: readonly number[];
  rows?: number;
  columns?: number;
  /** Stored values, row by row; counted up where missing. */
  values?: readonly number[];
  bitsStored?: number;
  isSigned?: boolean;
  slope?: string;
  intercept?: string;
  instance?: number;
  series?: string;
  uid?: string;
  /** More elements, or others in their place; an undefined value takes one out. */
  more?: Readonly<Record<number, readonly [vr: string, value: Value] | undefined>>;
}

export const mrClass = '1.2.840.10008.5.1.4.1.1.4';
/** Not along the axes, and not along a plane of them. */
export const oblique = [0.8, 0.36, -0.48, 0, 0.8, 0.6] as const;

/** The elements of a slice of 16 bits, in the order of their tags: 4 columns, 3 rows, oblique unless said otherwise. */
export function sliceElements(slice: Slice): Elements {
  const { rows = 3, columns = 4, instance = 1, bitsStored = 12, isSigned = false } = slice;
  const values =
    slice.values ?? Array.from({ length: rows * columns }, (_, i) => (instance * 100 + i) % 4096);
  const pixels = Buffer.alloc(2 * rows * columns);
  for (const [i, value] of values.entries()) pixels.writeUInt16LE(value & 0xffff, 2 * i);
  const all: Record<number, readonly [vr: string, value: Value] | undefined> = {
    524296: ['CS', 'ORIGINAL\\PRIMARY\\AXIAL'],
    524310: ['UI', mrClass],
    524312: ['UI', slice.uid ?? `1.2.3.${slice.series ?? '9'}.${instance}`],
    524384: ['CS', 'MR'],
    2097165: ['UI', '1.2.3'],
    2097166: ['UI', `1.2.3.${slice.series ?? '9'}`],
    2097171: ['IS', String(instance)],
    2097202: ['DS', (slice.position ?? [0, 0, 0]).join('\\')],
    2097207: ['DS', (slice.orientation ?? oblique).join('\\')],
    2097234: ['UI', '1.2.3.4'],
    2621442: ['US', [1]],
    2621444: ['CS', 'MONOCHROME2'],
    2621456: ['US', [rows]],
    2621457: ['US', [columns]],
    2621488: ['DS', (slice.spacing ?? [0.75, 1.5]).join('\\')],
    2621696: ['US', [16]],
    2621697: ['US', [bitsStored]],
    2621698: ['US', [bitsStored - 1]],
    2621699: ['US', [isSigned ? 1 : 0]],
    2625618: ['DS', slice.intercept ?? '0'],
    2625619: ['DS', slice.slope ?? '1'],
    2145386512: ['OW', pixels],
    ...slice.more,
  };
  return Object.entries(all)
    .map(([tag, element]) => [Number(tag), element] as const)
    .sort(([a], [b]) => a - b)
    .flatMap(([tag, element]) => (element ? [[tag, element[0], element[1]] as const] : []));
}
