import { TomaatError } from '../errors.ts';
import { sameGrid } from '../geometry/grid.ts';
import type { Bytes, Platform } from '../platform.ts';
import { bytesPerVoxel, type Size, type Volume, type VoxelType, voxelTypeOf } from '../volume.ts';
import type { FileGeometry } from './file-geometry.ts';
import {
  badHeader,
  checkSizes,
  type ExtraAxis,
  type HeaderBytes,
  machineIsBigEndian,
  type ParsedHeader,
  plainLine,
  type ReadLimits,
  storedBytesOf,
} from './header.ts';
import { formsOf, type NiftiFormFields, niftiAffine, readForms } from './nifti-forms.ts';
import type { FileEnding, WriterOptions } from './volume-format.ts';
import { chained, owned, pieces } from './voxel-pieces.ts';

// Fields and offsets: nifti1.h and nifti2.h of the NIfTI Data Format Working Group (nifti.nimh.nih.gov).

/** .hdr and .img may also be Analyze files, which are refused. */
export const niftiEndings = [
  { ending: '.nii', holds: 'volume', mediaType: 'application/x-nifti' },
  { ending: '.nii.gz', holds: 'volume', mediaType: 'application/gzip' },
  { ending: '.hdr', holds: 'header' },
  { ending: '.hdr.gz', holds: 'header' },
  { ending: '.img', holds: 'voxels' },
  { ending: '.img.gz', holds: 'voxels' },
] as const satisfies readonly FileEnding[];

const scalarTypes: Record<number, VoxelType> = {
  2: 'uint8',
  4: 'int16',
  8: 'int32',
  16: 'float32',
  64: 'float64',
  256: 'int8',
  512: 'uint16',
  768: 'uint32',
  1024: 'int64',
  1280: 'uint64',
};
const colours: Record<number, number> = { 128: 3, 2304: 4 };
const unreadTypes: Record<number, string> = {
  1: 'single bits',
  32: 'complex64',
  1536: 'float128',
  1792: 'complex128',
  2048: 'complex256',
};
const intentVector = 1007;
const intentLabel = 1002;
/** The most bytes between a header and its voxels: more than any extension in use, and little for a server. */
const maxVoxelOffset = 2 ** 26;

interface Fields extends NiftiFormFields {
  pair: boolean;
  dim: (number | bigint)[];
  datatype: number;
  voxOffset: number;
  slope: number;
  intercept: number;
}

/** Whether the bytes begin like a NIfTI-1 or NIfTI-2 header, or Analyze's; the rest may be wrong. */
export function isNifti(bytes: Uint8Array): boolean {
  if (bytes.length < 8) return false;
  if (beginsWithSize(bytes)) return true;
  return /^n[+i]2$/.test(text(bytes, 4, 3)) || /^n[+i]1\0$/.test(text(bytes, 344, 4));
}

/** Whether the bytes begin with the size of a NIfTI-1 or NIfTI-2 header, in either byte order. */
export function beginsWithSize(bytes: Uint8Array): boolean {
  if (bytes.length < 4) return false;
  const view = viewOf(bytes);
  const size = [view.getInt32(0, true), view.getInt32(0, false)];
  return size.includes(348) || size.includes(540);
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const text = (bytes: Uint8Array, at: number, length: number) =>
  String.fromCharCode(...bytes.subarray(at, at + length));

/**
 * Reads a NIfTI header. The affine comes from the sform, the qform or pixdim (see readForms). It is in mm, whatever the unit.
 * A size of 0 in dim[4] to dim[7] counts as 1, as in nifti_clib and ITK: some writers fill in only what they use.
 *
 * @throws TomaatError BAD_HEADER, UNSUPPORTED_FORMAT (2-D, complex, 6-D, Analyze), TOO_MANY_VOXELS
 */
export function parseNifti(
  file: HeaderBytes,
  limits: ReadLimits,
): ParsedHeader<'nifti1' | 'nifti2', 'nii' | 'nii.gz'> {
  const fields = readFields(file.bytes);
  const rank = Number(fields.dim[0]);
  if (rank < 1 || rank > 7)
    throw badHeader(
      `NIfTI field dim[0] is ${fields.dim[0]}, but a file has 1 to 7 dimensions. Write the file again`,
    );
  if (rank < 3) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The NIfTI file is a ${rank}-D image (dim[0] is ${rank}) and has no position in space. Send a volume, if necessary of one slice (dim[0] = 3, dim[3] = 1)`,
    );
  }
  const sizes = checkSizes(
    fields.dim.slice(1, rank + 1).map((n, i) => (i >= 3 && Number(n) === 0 ? 1 : n)),
    (i) => `NIfTI field dim[${i + 1}]`,
    limits,
  );
  for (let i = 5; i < sizes.length; i++) {
    if (sizes[i] > 1) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `NIfTI field dim[${i + 1}] is ${sizes[i]}: volumes of more than 5 dimensions are not supported. Split the file`,
      );
    }
  }
  const size: Size = [sizes[0], sizes[1], sizes[2]];
  const frames = sizes[3] ?? 1;
  const last = sizes[4] ?? 1;
  const colour = colours[fields.datatype];
  const voxelType = colour ? 'uint8' : scalarTypes[fields.datatype];
  if (!voxelType) {
    const name = unreadTypes[fields.datatype];
    if (name) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `The voxels are ${name} (NIfTI field datatype is ${fields.datatype}). Convert them to real numbers, such as magnitudes`,
      );
    }
    throw badHeader(
      `NIfTI field datatype is ${fields.datatype}, which is not a known data type. Write the file again`,
    );
  }
  if (colour && last > 1)
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The NIfTI file has colours and a fifth dimension. Split the file',
    );
  if (colour)
    checkSizes(
      [...sizes, colour],
      (i) => (i < sizes.length ? `NIfTI field dim[${i + 1}]` : 'colours'),
      limits,
    );
  const components = colour ?? last;

  const { geometry, affine } = readForms(fields, size);
  const scale = readScale(fields, colour !== undefined);
  const skip = voxelOffset(fields);
  const inner: ExtraAxis[] = colour ? [{ role: 'component', count: colour }] : [];
  const outer: ExtraAxis[] = [
    { role: 'frame', count: frames },
    { role: 'component', count: last },
  ];
  const inOneFile = {
    offset: file.gzip ? 0 : skip,
    skip: file.gzip ? skip : 0,
    encoding: file.gzip ? 'gzip' : 'raw',
  } as const;
  const inPair = { file: 'image', offset: 0, skip, encoding: 'sniff' } as const;
  return {
    header: {
      format: fields.version === 1 ? 'nifti1' : 'nifti2',
      extension: file.gzip ? 'nii.gz' : 'nii',
      size,
      affine,
      voxelType,
      components,
      frames,
      geometry,
      scale,
      storedBytes: storedBytesOf(size, components, frames, voxelType),
      compressed: file.gzip,
    },
    layout: {
      ...(fields.pair ? inPair : inOneFile),
      skipLines: 0,
      bigEndian: fields.bigEndian,
      inner,
      outer,
    },
  };
}

function readFields(bytes: Uint8Array): Fields & { bigEndian: boolean } {
  const view = viewOf(bytes);
  const sizes = [view.getInt32(0, true), view.getInt32(0, false)];
  const version = sizes.includes(540) ? 2 : 1;
  if (version === 1 && !sizes.includes(348)) {
    throw badHeader(
      `NIfTI field sizeof_hdr is ${sizes[0]}, but it is 348 or 540 in every header. Write the file again`,
    );
  }
  const length = version === 1 ? 348 : 540;
  if (bytes.length < length) {
    throw badHeader(
      `The file ends after ${bytes.length} of the ${length} bytes of a NIfTI-${version} header. Send the whole file`,
    );
  }
  const bigEndian = sizes[1] === length;
  const le = !bigEndian;
  const magic = version === 1 ? text(bytes, 344, 4) : text(bytes, 4, 8);
  const single = version === 1 ? 'n+1\0' : 'n+2\0\r\n\x1a\n';
  const pair = magic === single.replace('+', 'i');
  if (magic !== single && !pair) {
    if (version === 1 && /^\0*$/.test(magic)) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        'This is an Analyze 7.5 header, which does not distinguish left from right. Convert it to NIfTI',
      );
    }
    throw badHeader(`NIfTI field magic is not that of a NIfTI-${version} file. Write or send the file again`);
  }
  const numbers = (count: number, read: (i: number) => number) =>
    Array.from({ length: count }, (_, i) => read(i));
  if (version === 1) {
    const f32 = (at: number) => view.getFloat32(at, le);
    const i16 = (at: number) => view.getInt16(at, le);
    return {
      version,
      pair,
      bigEndian,
      dim: numbers(8, (i) => i16(40 + 2 * i)),
      datatype: i16(70),
      pixdim: numbers(8, (i) => f32(76 + 4 * i)),
      voxOffset: f32(108),
      slope: f32(112),
      intercept: f32(116),
      units: bytes[123],
      qformCode: i16(252),
      sformCode: i16(254),
      qform: numbers(6, (i) => f32(256 + 4 * i)),
      sform: numbers(12, (i) => f32(280 + 4 * i)),
    };
  }
  const f64 = (at: number) => view.getFloat64(at, le);
  return {
    version,
    pair,
    bigEndian,
    dim: Array.from({ length: 8 }, (_, i) => view.getBigInt64(16 + 8 * i, le)),
    datatype: view.getInt16(12, le),
    pixdim: numbers(8, (i) => f64(104 + 8 * i)),
    voxOffset: Number(view.getBigInt64(168, le)),
    slope: f64(176),
    intercept: f64(184),
    units: view.getInt32(500, le),
    qformCode: view.getInt32(344, le),
    sformCode: view.getInt32(348, le),
    qform: numbers(6, (i) => f64(352 + 8 * i)),
    sform: numbers(12, (i) => f64(400 + 8 * i)),
  };
}

function voxelOffset(fields: Fields): number {
  const { voxOffset, version, pair } = fields;
  const least = pair ? 0 : version === 1 ? 352 : 544;
  if (voxOffset === 0) return least;
  if (!Number.isInteger(voxOffset) || voxOffset < least || voxOffset > maxVoxelOffset) {
    throw badHeader(
      `NIfTI field vox_offset is ${voxOffset}, not a whole number from ${least} to ${maxVoxelOffset}. Write the file again`,
    );
  }
  return voxOffset;
}

/** slope × value + intercept; none if the slope is 0 or not finite, as in nibabel, and none for colours. */
function readScale(
  { slope, intercept }: Fields,
  colour: boolean,
): { slope: number; intercept: number } | undefined {
  if (slope === 0 || !Number.isFinite(slope) || colour) return undefined;
  if (!Number.isFinite(intercept)) {
    throw badHeader(
      `NIfTI field scl_inter is ${intercept} while scl_slope is ${slope}. Write the file again with a finite intercept`,
    );
  }
  return slope === 1 && intercept === 0 ? undefined : { slope, intercept };
}

export interface NiftiOptions {
  /** The geometry from the header of the input; ignored if it is of another format or another grid. */
  geometry?: FileGeometry;
  description?: string;
  intent?: 'label';
}

/**
 * The header of a one-file NIfTI in the machine's byte order, with the empty extension flag: NIfTI-2 if an axis is longer
 * than 32,767 or the input was NIfTI-2, else NIfTI-1. Both forms, their codes, pixdim and units are the input's on the
 * input's grid (docs/decisions/0007-results-state-the-inputs-geometry.md), else our own (see formsOf). Components are the fifth
 * dimension.
 */
export function encodeNiftiHeader(
  volume: Volume,
  { geometry, description = '', intent }: NiftiOptions,
): Bytes {
  const { size, components } = volume;
  const type = voxelTypeOf(volume.voxels);
  const code = Number(Object.keys(scalarTypes).find((key) => scalarTypes[Number(key)] === type));
  const dim = components > 1 ? [5, ...size, 1, components, 1, 1] : [3, ...size, 1, 1, 1, 1];
  const isStated =
    geometry?.format === 'nifti' && sameGrid(volume, { size, affine: niftiAffine(geometry, size) });
  const forms = isStated ? geometry : formsOf(volume, Math.max(...dim) > 32767 ? 2 : 1);
  const pixdim = [...forms.pixdim, 1, 1, 1, 1];
  const intentCode = intent === 'label' ? intentLabel : components > 1 ? intentVector : 0;
  const descrip = [...plainLine(description, 79)].map((c) => c.charCodeAt(0));
  const { qform, sform } = forms;
  const le = !machineIsBigEndian;

  const bytes = new Uint8Array(forms.version === 1 ? 352 : 544);
  const view = viewOf(bytes);
  const i16 = (at: number, values: readonly number[]) =>
    values.forEach((v, i) => void view.setInt16(at + 2 * i, v, le));
  const i32 = (at: number, values: readonly number[]) =>
    values.forEach((v, i) => void view.setInt32(at + 4 * i, v, le));
  if (forms.version === 1) {
    const f32 = (at: number, values: readonly number[]) =>
      values.forEach((v, i) => void view.setFloat32(at + 4 * i, v, le));
    i32(0, [348]);
    bytes[38] = 'r'.charCodeAt(0);
    i16(40, dim);
    i16(68, [intentCode, code, 8 * bytesPerVoxel(type)]);
    f32(76, pixdim);
    f32(108, [352, 1, 0]);
    bytes[123] = forms.units;
    bytes.set(descrip, 148);
    i16(252, [qform?.code ?? 0, sform?.code ?? 0]);
    if (qform) f32(256, [...qform.quaternion, ...qform.offset]);
    if (sform) f32(280, sform.rows);
    bytes.set([0x6e, 0x2b, 0x31, 0], 344);
  } else {
    const f64 = (at: number, values: readonly number[]) =>
      values.forEach((v, i) => void view.setFloat64(at + 8 * i, v, le));
    i32(0, [540]);
    bytes.set([0x6e, 0x2b, 0x32, 0, 0x0d, 0x0a, 0x1a, 0x0a], 4);
    i16(12, [code, 8 * bytesPerVoxel(type)]);
    dim.forEach((v, i) => void view.setBigInt64(16 + 8 * i, BigInt(v), le));
    f64(104, pixdim);
    view.setBigInt64(168, 544n, le);
    f64(176, [1, 0]);
    bytes.set(descrip, 240);
    i32(344, [qform?.code ?? 0, sform?.code ?? 0]);
    if (qform) f64(352, [...qform.quaternion, ...qform.offset]);
    if (sform) f64(400, sform.rows);
    i32(500, [forms.units, intentCode]);
  }
  return bytes;
}

/** A one-file NIfTI, with the components one after the other. It is compressed as a whole or not at all. */
export async function* writeNifti(
  volume: Volume,
  platform: Platform,
  { packed, level, ...about }: WriterOptions,
): AsyncGenerator<Bytes> {
  const bytes = chained(encodeNiftiHeader(volume, about), pieces(volume.voxels));
  yield* packed ? owned(platform.deflate(bytes, 'gzip', level)) : bytes;
}
