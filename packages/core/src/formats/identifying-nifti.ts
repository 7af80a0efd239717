import { type Affine, affinesEqual } from '../geometry/affine.ts';
import { latin1, scaleAffine } from './header.ts';
import { type Found, type IdentifyingField, printable } from './identifying-found.ts';
import { longestHeader } from './identifying-lines.ts';
import { niftiEndings, parseNifti } from './nifti.ts';
import { mmOf, qformAffine } from './nifti-forms.ts';
import { hasEnding } from './volume-format.ts';

/*
 * Removes from NIfTI-1, NIfTI-2 and Analyze 7.5 headers what no reader of voxels and geometry needs. Kept are: size, type and
 * scaling of the voxels; spacing and units; qform and sform with their codes; the intent code, and its parameters if
 * the intent has any. Offsets: nifti1.h, nifti2.h, dbh.h.
 */

type Kind = 'text' | 'u8' | 'i16' | 'i32' | 'i64' | 'f32' | 'f64';
type Row = readonly [name: string, at: number, kind: Kind, count: number];

interface Layout {
  length: number;
  /** Fields that are never needed. */
  unneeded: readonly Row[];
  dim: Row;
  pixdim: Row;
  datatype: Row;
  bitpix: Row;
  slope: Row;
  intercept: Row;
  units: Row;
  intentCode: Row;
  intentParameters: Row;
  qformCode: Row;
  sformCode: Row;
  /** b, c, d, then the offsets x, y, z. */
  qform: Row;
  sform: Row;
}

const nifti1: Layout = {
  length: 348,
  unneeded: [
    ['data_type', 4, 'text', 10],
    ['db_name', 14, 'text', 18],
    ['extents', 32, 'i32', 1],
    ['session_error', 36, 'i16', 1],
    ['regular', 38, 'text', 1],
    ['dim_info', 39, 'u8', 1],
    ['slice_start', 74, 'i16', 1],
    ['slice_end', 120, 'i16', 1],
    ['slice_code', 122, 'u8', 1],
    ['cal_max, cal_min', 124, 'f32', 2],
    ['slice_duration', 132, 'f32', 1],
    ['toffset', 136, 'f32', 1],
    ['glmax, glmin', 140, 'i32', 2],
    ['descrip', 148, 'text', 80],
    ['aux_file', 228, 'text', 24],
    ['intent_name', 328, 'text', 16],
  ],
  dim: ['dim', 40, 'i16', 8],
  pixdim: ['pixdim', 76, 'f32', 8],
  datatype: ['datatype', 70, 'i16', 1],
  bitpix: ['bitpix', 72, 'i16', 1],
  slope: ['scl_slope', 112, 'f32', 1],
  intercept: ['scl_inter', 116, 'f32', 1],
  units: ['xyzt_units', 123, 'u8', 1],
  intentCode: ['intent_code', 68, 'i16', 1],
  intentParameters: ['intent_p1, intent_p2, intent_p3', 56, 'f32', 3],
  qformCode: ['qform_code', 252, 'i16', 1],
  sformCode: ['sform_code', 254, 'i16', 1],
  qform: ['quatern_b … qoffset_z', 256, 'f32', 6],
  sform: ['srow_x, srow_y, srow_z', 280, 'f32', 12],
};

const nifti2: Layout = {
  length: 540,
  unneeded: [
    ['cal_max, cal_min', 192, 'f64', 2],
    ['slice_duration', 208, 'f64', 1],
    ['toffset', 216, 'f64', 1],
    ['slice_start, slice_end', 224, 'i64', 2],
    ['descrip', 240, 'text', 80],
    ['aux_file', 320, 'text', 24],
    ['slice_code', 496, 'i32', 1],
    ['intent_name', 508, 'text', 16],
    ['dim_info', 524, 'u8', 1],
    ['unused_str', 525, 'text', 15],
  ],
  dim: ['dim', 16, 'i64', 8],
  pixdim: ['pixdim', 104, 'f64', 8],
  datatype: ['datatype', 12, 'i16', 1],
  bitpix: ['bitpix', 14, 'i16', 1],
  slope: ['scl_slope', 176, 'f64', 1],
  intercept: ['scl_inter', 184, 'f64', 1],
  units: ['xyzt_units', 500, 'i32', 1],
  intentCode: ['intent_code', 504, 'i32', 1],
  intentParameters: ['intent_p1, intent_p2, intent_p3', 80, 'f64', 3],
  qformCode: ['qform_code', 344, 'i32', 1],
  sformCode: ['sform_code', 348, 'i32', 1],
  qform: ['quatern_b … qoffset_z', 352, 'f64', 6],
  sform: ['srow_x, srow_y, srow_z', 400, 'f64', 12],
};

/** Analyze 7.5 has the patient in the bytes of NIfTI's orientation. It is not read; its first scale factor is kept for SPM. */
const analyzeUnneeded: readonly Row[] = [
  ['data_type', 4, 'text', 10],
  ['db_name', 14, 'text', 18],
  ['extents', 32, 'i32', 1],
  ['session_error', 36, 'i16', 1],
  ['regular', 38, 'text', 1],
  ['hkey_un0', 39, 'text', 1],
  ['vox_units, cal_units', 56, 'text', 14],
  ['dim_un0', 74, 'i16', 1],
  ['funused2, funused3', 116, 'f32', 2],
  ['cal_max, cal_min', 124, 'f32', 2],
  ['compressed, verified', 132, 'f32', 2],
  ['glmax, glmin', 140, 'i32', 2],
  ['descrip', 148, 'text', 80],
  ['aux_file', 228, 'text', 24],
  ['orient', 252, 'u8', 1],
  ['originator, patient_id, dates', 253, 'text', 63],
  ['views … smin', 316, 'i32', 8],
];

const bitsOfType: Record<number, number> = {
  1: 1,
  2: 8,
  4: 16,
  8: 32,
  16: 32,
  32: 64,
  64: 64,
  128: 24,
  256: 8,
  512: 16,
  768: 32,
  1024: 64,
  1280: 64,
  1536: 128,
  1792: 128,
  2048: 256,
  2304: 32,
};

const isHeaderName = (name: string) =>
  niftiEndings.some(({ ending, holds }) => holds !== 'voxels' && hasEnding(name, ending));

/** Length of the header of a decompressed file, with extensions; its first bytes may be of either version and byte order. */
export function niftiTextLength(start: Uint8Array): number {
  const view = new DataView(start.buffer, start.byteOffset, start.byteLength);
  const isSecond = view.getInt32(0, true) === 540 || view.getInt32(0) === 540;
  const offsets = isSecond
    ? [Number(view.getBigInt64(168, true)), Number(view.getBigInt64(168))]
    : [view.getFloat32(108, true), view.getFloat32(108)];
  return Math.max(4096, ...offsets.filter((offset) => offset <= longestHeader));
}

/**
 * Searches the header of a NIfTI or Analyze file. `header` is the start of the file, up to the voxels if extensions precede
 * them; `name` identifies a header by its extension if the magic does not.
 */
export function findNifti(header: Uint8Array<ArrayBuffer>, name: string): Found {
  const nothing: Found = { fields: [], from: 0 };
  if (header.length < 348) return nothing;
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const size = [view.getInt32(0, true), view.getInt32(0, false)];
  const layout = size.includes(348) ? nifti1 : size.includes(540) ? nifti2 : undefined;
  if (!layout || header.length < layout.length) return nothing;
  const { length } = layout;
  const magic = latin1(layout === nifti1 ? header.subarray(344, 347) : header.subarray(4, 7));
  const [single, pair] = layout === nifti1 ? ['n+1', 'ni1'] : ['n+2', 'ni2'];
  const isNifti = magic === single || magic === pair;
  // Voxels may also begin with the number 348.
  if (!isNifti && !isHeaderName(name)) return nothing;
  const little = size[0] === length;

  const head = createHead(header.slice(0, length), little);
  for (const row of isNifti || layout === nifti2 ? layout.unneeded : analyzeUnneeded) head.clear(row);
  clearUnusedSizes(head, layout);
  if (isNifti) clearUnusedOf(head, layout, header);

  const offset = layout === nifti1 ? view.getFloat32(108, little) : Number(view.getBigInt64(168, little));
  const isPair = magic === pair || !isNifti;
  // Anything between the header and the voxels is extensions; after the header of a pair there is nothing else.
  const end = isPair ? Number.POSITIVE_INFINITY : offset === 0 ? length + 4 : offset;
  const hasPlace = end > length && (isPair || Number.isInteger(end));
  const between = header.subarray(length, hasPlace ? Math.min(end, header.length) : length);
  const isLonger = hasPlace && !isPair && end > Math.max(header.length, length + 4);
  if (!between.some((byte) => byte !== 0) && !isLonger) {
    return head.fields.length === 0 ? nothing : { fields: head.fields, head: head.bytes, from: length };
  }
  if (between.length > 4 || isLonger) {
    const text = printable(between.subarray(12));
    const bytes = (isPair ? header.length : end) - length - 4;
    head.fields.push({ name: 'extension', value: `${bytes} bytes${text ? `: ${text}` : ''}` });
  } else head.fields.push({ name: 'extension flag', value: printable(between) || [...between].join(', ') });
  const bytes = new Uint8Array(length + 4);
  bytes.set(head.bytes);
  if (!isPair && offset !== 0 && layout === nifti1) new DataView(bytes.buffer).setFloat32(108, 352, little);
  if (!isPair && offset !== 0 && layout === nifti2) new DataView(bytes.buffer).setBigInt64(168, 544n, little);
  return { fields: head.fields, head: bytes, from: end };
}

/** Sizes and spacings of dimensions that the image does not have. */
function clearUnusedSizes(head: Head, { dim, pixdim }: Layout): void {
  const [rank] = head.read(dim);
  const used = rank >= 1 && rank <= 7 ? rank : 7;
  for (const row of [dim, pixdim]) {
    for (let i = used + 1; i < 8; i++) {
      const item = itemOf(row, i);
      const [value] = head.read(item);
      if (value !== 0 && value !== 1) head.replace(item, 1);
    }
  }
}

/** Fields of NIfTI that have a meaning only together with others. */
function clearUnusedOf(head: Head, layout: Layout, header: Uint8Array<ArrayBuffer>): void {
  const [qfac] = head.read(itemOf(layout.pixdim, 0));
  // Every reader treats any positive number as 1; readers differ for negative ones.
  if (qfac > 0 && qfac !== 1) head.replace(itemOf(layout.pixdim, 0), 1);
  const [datatype] = head.read(layout.datatype);
  const bits = Object.hasOwn(bitsOfType, datatype) ? bitsOfType[datatype] : undefined;
  if (bits !== undefined && head.read(layout.bitpix)[0] !== bits) head.replace(layout.bitpix, bits);
  const [slope] = head.read(layout.slope);
  const [intercept] = head.read(layout.intercept);
  // A slope of 0 or NaN: no scaling.
  if (!(Number.isFinite(slope) && slope !== 0) && !Number.isNaN(intercept)) head.clear(layout.intercept);
  const [units] = head.read(layout.units);
  if (units < 0 || units > 0x3f) head.replace(layout.units, units & 0x3f);
  const [intent] = head.read(layout.intentCode);
  if (intent < 0 || intent > 9999) head.clear(layout.intentCode);
  const hasParameters = (intent >= 2 && intent <= 24) || intent === 1004 || intent === 1005;
  if (!hasParameters) head.clear(layout.intentParameters);
  clearUnusedForms(head, layout, header);
}

/** A qform or sform whose code marks it as unset stays only if it equals the affine that is read. */
function clearUnusedForms(head: Head, layout: Layout, header: Uint8Array<ArrayBuffer>): void {
  for (const row of [layout.qformCode, layout.sformCode]) {
    const [code] = head.read(row);
    // Other numbers count as 0, as in nibabel.
    if (code < 0 || code > 5) head.replace(row, 0);
  }
  const affine = readAffine(header);
  const says = (read: () => Affine) => affine !== undefined && affinesEqual(read(), affine, 1e-2);
  const [qcode, scode] = [head.read(layout.qformCode)[0], head.read(layout.sformCode)[0]];
  const mm = mmOf(head.read(layout.units)[0]);
  if (scode === 0) {
    const sform = head.read(layout.sform);
    if (!says(() => scaleAffine([...sform, 0, 0, 0, 1], mm))) head.clear(layout.sform);
  }
  if (qcode === 0) {
    const qform = head.read(layout.qform);
    const [qfac, ...spacing] = head.read(layout.pixdim).slice(0, 4);
    const isRotation = qform[0] ** 2 + qform[1] ** 2 + qform[2] ** 2 < 1 + 1e-6;
    const isKept =
      isRotation &&
      says(() =>
        scaleAffine(
          qformAffine(qform.slice(0, 3), qform.slice(3), spacing.map(Math.abs), qfac === -1 ? -1 : 1),
          mm,
        ),
      );
    if (!isKept) head.clear(layout.qform);
  }
}

/** The affine read from a header; undefined if it is refused: then none of it is known to be needed. */
function readAffine(bytes: Uint8Array): Affine | undefined {
  const limits = { maxVoxels: Number.MAX_SAFE_INTEGER };
  try {
    return parseNifti({ name: '', bytes, gzip: false, whole: false }, limits).header.affine;
  } catch {
    return undefined;
  }
}

interface Head {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly fields: IdentifyingField[];
  read(row: Row): number[];
  /** Fills a field with zeros, and reports it if it was not empty. */
  clear(row: Row): void;
  /** Replaces the number in a field, and reports its old value. */
  replace(row: Row, value: number): void;
}

const widths: Record<Kind, number> = { text: 1, u8: 1, i16: 2, i32: 4, i64: 8, f32: 4, f64: 8 };
const itemOf = ([name, at, kind]: Row, i: number): Row => [`${name}[${i}]`, at + i * widths[kind], kind, 1];
/** Values that programs write by convention and that identify nobody. */
const customary: Record<string, readonly number[]> = { extents: [16384], regular: [0x72] };

function createHead(bytes: Uint8Array<ArrayBuffer>, little: boolean): Head {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const fields: IdentifyingField[] = [];
  const readers: Record<Kind, (at: number) => number> = {
    text: (at) => bytes[at],
    u8: (at) => bytes[at],
    i16: (at) => view.getInt16(at, little),
    i32: (at) => view.getInt32(at, little),
    i64: (at) => Number(view.getBigInt64(at, little)),
    f32: (at) => view.getFloat32(at, little),
    f64: (at) => view.getFloat64(at, little),
  };
  const read = ([, at, kind, count]: Row) =>
    Array.from({ length: count }, (_, i) => readers[kind](at + i * widths[kind]));
  const note = (row: Row) => {
    const [name, at, kind, count] = row;
    const held = bytes.subarray(at, at + count * widths[kind]);
    fields.push({ name, value: kind === 'text' ? printable(held) : heldValue(held, read(row)) });
  };
  return {
    bytes,
    fields,
    read,
    clear(row) {
      const [name, at, kind, count] = row;
      const held = bytes.subarray(at, at + count * widths[kind]);
      if (held.every((byte) => byte === 0 || (kind === 'text' && byte === 32))) return;
      if (count === 1 && customary[name]?.includes(read(row)[0])) return;
      note(row);
      held.fill(0);
    },
    replace(row, value) {
      note(row);
      const [, at, kind] = row;
      if (kind === 'u8') bytes[at] = value;
      else if (kind === 'i16') view.setInt16(at, value, little);
      else if (kind === 'i32') view.setInt32(at, value, little);
      else if (kind === 'i64') view.setBigInt64(at, BigInt(value), little);
      else if (kind === 'f32') view.setFloat32(at, value, little);
      else view.setFloat64(at, value, little);
    },
  };
}

/** The bytes as text if they are text, otherwise as numbers. */
function heldValue(bytes: Uint8Array, numbers: readonly number[]): string {
  const isText = bytes.every((byte) => byte >= 0x20 && byte < 0x7f);
  return isText ? printable(bytes) : numbers.map(String).join(', ');
}
