import { TomaatError } from '../errors.ts';
import { type Affine, determinant, directionOf, spacingOf } from '../geometry/affine.ts';
import { bytesPerVoxel, type Size, type Volume, type VoxelType, voxelTypeOf } from '../volume.ts';
import {
  badHeader,
  checkAffine,
  checkSizes,
  type ExtraAxis,
  type HeaderBytes,
  type LengthUnit,
  machineIsBigEndian,
  mmPerUnit,
  type ParsedHeader,
  plainLine,
  type ReadLimits,
  scaleAffine,
  storedBytesOf,
} from './header.ts';

// Fields and offsets: nifti1.h and nifti2.h of the NIfTI Data Format Working Group (nifti.nimh.nih.gov).

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
const unitCodes: Record<number, LengthUnit> = { 1: 'm', 2: 'mm', 3: 'um' };
const intentVector = 1007;
const intentLabel = 1002;
/** Bytes that may lie between a header and its voxels: more than any extension in use, little for a server. */
const maxVoxelOffset = 2 ** 26;

interface Fields {
  version: 1 | 2;
  pair: boolean;
  dim: (number | bigint)[];
  datatype: number;
  pixdim: number[];
  voxOffset: number;
  slope: number;
  intercept: number;
  units: number;
  qformCode: number;
  sformCode: number;
  /** b, c, d, then the offsets x, y, z. */
  qform: number[];
  sform: number[];
}

/** Whether the bytes begin like a NIfTI-1 or NIfTI-2 header, or Analyze's; the rest may be wrong. */
export function isNifti(bytes: Uint8Array): boolean {
  if (bytes.length < 8) return false;
  const view = viewOf(bytes);
  const size = [view.getInt32(0, true), view.getInt32(0, false)];
  if (size.includes(348) || size.includes(540)) return true;
  return /^n[+i]2$/.test(text(bytes, 4, 3)) || /^n[+i]1\0$/.test(text(bytes, 344, 4));
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const text = (bytes: Uint8Array, at: number, length: number) =>
  String.fromCharCode(...bytes.subarray(at, at + length));

/**
 * Reads a NIfTI header. The affine comes from sform where sform_code is 1-5, else from qform where qform_code is, else
 * from pixdim about the centre with x to the left: nibabel's rule (get_best_affine). It is in mm, whatever the unit.
 *
 * @throws TomaatError BAD_HEADER, UNSUPPORTED_FORMAT (2-D, complex, 6-D, Analyze), TOO_MANY_VOXELS
 */
export function parseNifti(file: HeaderBytes, limits: ReadLimits): ParsedHeader {
  const fields = readFields(file.bytes);
  const rank = Number(fields.dim[0]);
  if (rank < 1 || rank > 7)
    throw badHeader(
      `NIfTI field dim[0] is ${fields.dim[0]}, but a file has 1 to 7 dimensions: write the file again`,
    );
  if (rank < 3) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The NIfTI file is a ${rank}-D image (dim[0] is ${rank}) and has no place in space: send a volume, if need be of one slice (dim[0] = 3, dim[3] = 1)`,
    );
  }
  const sizes = checkSizes(fields.dim.slice(1, rank + 1), (i) => `NIfTI field dim[${i + 1}]`, limits);
  for (let i = 5; i < sizes.length; i++) {
    if (sizes[i] > 1) {
      throw new TomaatError(
        'UNSUPPORTED_FORMAT',
        `NIfTI field dim[${i + 1}] is ${sizes[i]}: volumes of more than 5 dimensions are not read, split the file`,
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
        `The voxels are ${name} (NIfTI field datatype is ${fields.datatype}): convert them to real numbers, such as magnitudes`,
      );
    }
    throw badHeader(
      `NIfTI field datatype is ${fields.datatype}, which is no data type: write the file again`,
    );
  }
  if (colour && last > 1)
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The NIfTI file has colours and a fifth dimension: split the file',
    );
  if (colour)
    checkSizes(
      [...sizes, colour],
      (i) => (i < sizes.length ? `NIfTI field dim[${i + 1}]` : 'colours'),
      limits,
    );
  const components = colour ?? last;

  const unit = unitCodes[fields.units & 7] ?? 'unknown';
  const affine = bestAffine(fields, size, mmPerUnit[unit]);
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
      unit,
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
      `NIfTI field sizeof_hdr is ${sizes[0]}, but it is 348 or 540 in every header: write the file again`,
    );
  }
  const length = version === 1 ? 348 : 540;
  if (bytes.length < length) {
    throw badHeader(
      `The file ends after ${bytes.length} of the ${length} bytes of a NIfTI-${version} header: send the whole file`,
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
        'This is an Analyze 7.5 header, which does not tell left from right: convert it to NIfTI',
      );
    }
    throw badHeader(`NIfTI field magic is not that of a NIfTI-${version} file: write or send the file again`);
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
      `NIfTI field vox_offset is ${voxOffset}, not a whole number from ${least} to ${maxVoxelOffset}: write the file again`,
    );
  }
  return voxOffset;
}

/** slope × value + intercept; none where the slope is 0 or not finite, as nibabel has it, and none for colours. */
function readScale(
  { slope, intercept }: Fields,
  colour: boolean,
): { slope: number; intercept: number } | undefined {
  if (slope === 0 || !Number.isFinite(slope) || colour) return undefined;
  if (!Number.isFinite(intercept)) {
    throw badHeader(
      `NIfTI field scl_inter is ${intercept} while scl_slope is ${slope}: write the file again with a finite intercept`,
    );
  }
  return slope === 1 && intercept === 0 ? undefined : { slope, intercept };
}

/** nibabel takes the codes 1 to 5 as set, any other number as 0. */
const isSet = (code: number) => code >= 1 && code <= 5;

function bestAffine(fields: Fields, size: Size, mm: number): Affine {
  if (isSet(fields.sformCode)) {
    return checkAffine(
      scaleAffine([...fields.sform, 0, 0, 0, 1], mm),
      'The sform of the NIfTI header (srow_x, srow_y, srow_z)',
    );
  }
  // nibabel drops the signs of pixdim; a spacing of 0 it turns into 1 mm, which nobody could know here.
  const spacing = fields.pixdim.slice(1, 4).map(Math.abs);
  spacing.forEach((value, i) => {
    if (!(value > 0 && value < Number.POSITIVE_INFINITY)) {
      throw badHeader(
        `NIfTI field pixdim[${i + 1}] is ${fields.pixdim[i + 1]}, but a spacing is above 0: write the file again with its true spacing`,
      );
    }
  });
  if (isSet(fields.qformCode)) {
    const affine = qformAffine(fields.qform, spacing, fields.pixdim[0] === -1 ? -1 : 1);
    return checkAffine(
      scaleAffine(affine, mm),
      'The qform of the NIfTI header (quatern_b, _c, _d, qoffset_x, _y, _z)',
    );
  }
  const [x, y, z] = spacing;
  const centre = spacing.map((s, i) => ((size[i] - 1) / 2) * s);
  const affine = [-x, 0, 0, centre[0], 0, y, 0, -centre[1], 0, 0, z, -centre[2], 0, 0, 0, 1];
  return checkAffine(scaleAffine(affine, mm), 'The pixdim of the NIfTI header');
}

/** nifti1.h, method 2: a unit quaternion whose first part is the root of what the other three leave. */
function qformAffine([b, c, d, ...offset]: number[], spacing: number[], handedness: 1 | -1): Affine {
  const rest = 1 - (b * b + c * c + d * d);
  if (!(rest > -1e-5)) {
    throw badHeader(
      `The NIfTI fields quatern_b, _c, _d (${b}, ${c}, ${d}) are longer than 1 together, which is no rotation: write the file again`,
    );
  }
  // A turn by 180° leaves 0, and the rounding of the fields may leave a little less.
  const a = Math.sqrt(Math.max(0, rest));
  const s = 2 / (a * a + b * b + c * c + d * d);
  const rotation = [
    [1 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)],
    [s * (b * c + a * d), 1 - s * (b * b + d * d), s * (c * d - a * b)],
    [s * (b * d - a * c), s * (c * d + a * b), 1 - s * (b * b + c * c)],
  ];
  const steps = [spacing[0], spacing[1], spacing[2] * handedness];
  return [...rotation.flatMap((row, r) => [...row.map((v, k) => v * steps[k]), offset[r]]), 0, 0, 0, 1];
}

export interface NiftiOptions {
  unit?: LengthUnit;
  description?: string;
  intent?: 'label';
}

/**
 * The header of a one-file NIfTI in the machine's byte order, with the empty extension flag: NIfTI-1, or NIfTI-2 where
 * an axis is longer than 32,767. sform always holds the affine (code 1); qform too where the affine is spacing and
 * rotation alone. Components are the fifth dimension.
 */
export function encodeNiftiHeader(
  volume: Volume,
  { unit = 'mm', description = '', intent }: NiftiOptions,
): Uint8Array {
  const { size, components, affine } = volume;
  const type = voxelTypeOf(volume.voxels);
  const code = Number(Object.keys(scalarTypes).find((key) => scalarTypes[Number(key)] === type));
  const dim = components > 1 ? [5, ...size, 1, components, 1, 1] : [3, ...size, 1, 1, 1, 1];
  const version = Math.max(...dim) > 32767 ? 2 : 1;
  const inUnit = scaleAffine(affine, 1 / mmPerUnit[unit]);
  const spacing = spacingOf(inUnit);
  const q = quaternionOf(inUnit, version);
  const handedness = determinant(affine) < 0 ? -1 : 1;
  const pixdim = [q ? handedness : 1, ...spacing, 1, 1, 1, 1];
  const intentCode = intent === 'label' ? intentLabel : components > 1 ? intentVector : 0;
  const unitCode = Number(Object.keys(unitCodes).find((key) => unitCodes[Number(key)] === unit) ?? 0);
  const descrip = [...plainLine(description, 79)].map((c) => c.charCodeAt(0));
  const qform = [...(q ?? [0, 0, 0]), ...(q ? [inUnit[3], inUnit[7], inUnit[11]] : [0, 0, 0])];
  const le = !machineIsBigEndian;

  const bytes = new Uint8Array(version === 1 ? 352 : 544);
  const view = viewOf(bytes);
  if (version === 1) {
    const f32 = (at: number, values: readonly number[]) =>
      values.forEach((v, i) => void view.setFloat32(at + 4 * i, v, le));
    const i16 = (at: number, values: readonly number[]) =>
      values.forEach((v, i) => void view.setInt16(at + 2 * i, v, le));
    view.setInt32(0, 348, le);
    bytes[38] = 'r'.charCodeAt(0);
    i16(40, dim);
    i16(68, [intentCode, code, 8 * bytesPerVoxel(type)]);
    f32(76, pixdim);
    f32(108, [352, 1, 0]);
    bytes[123] = unitCode;
    bytes.set(descrip, 148);
    i16(252, [q ? 1 : 0, 1]);
    f32(256, qform);
    f32(280, inUnit.slice(0, 12));
    bytes.set([0x6e, 0x2b, 0x31, 0], 344);
  } else {
    const f64 = (at: number, values: readonly number[]) =>
      values.forEach((v, i) => void view.setFloat64(at + 8 * i, v, le));
    view.setInt32(0, 540, le);
    bytes.set([0x6e, 0x2b, 0x32, 0, 0x0d, 0x0a, 0x1a, 0x0a], 4);
    view.setInt16(12, code, le);
    view.setInt16(14, 8 * bytesPerVoxel(type), le);
    dim.forEach((v, i) => void view.setBigInt64(16 + 8 * i, BigInt(v), le));
    f64(104, pixdim);
    view.setBigInt64(168, 544n, le);
    f64(176, [1, 0]);
    bytes.set(descrip, 240);
    view.setInt32(344, q ? 1 : 0, le);
    view.setInt32(348, 1, le);
    f64(352, qform);
    f64(400, inUnit.slice(0, 12));
    view.setInt32(500, unitCode, le);
    view.setInt32(504, intentCode, le);
  }
  return bytes;
}

/**
 * b, c, d of the affine's rotation, or undefined where its axes are not at right angles. Of the float32 numbers next to
 * them those are taken that leave the best root for a, and never a negative number to take it of: near a turn by 180°
 * plain rounding would move the axes by 0.03°, and make some readers answer NaN.
 */
function quaternionOf(affine: Affine, version: 1 | 2): number[] | undefined {
  const d = directionOf(affine);
  for (const [i, k] of [
    [0, 1],
    [0, 2],
    [1, 2],
  ]) {
    if (Math.abs(d[i] * d[k] + d[3 + i] * d[3 + k] + d[6 + i] * d[6 + k]) > 1e-5) return undefined;
  }
  const sign = determinant(affine) < 0 ? -1 : 1;
  const m = (r: number, c: number) => d[3 * r + c] * (c === 2 ? sign : 1);
  // 4 × the squares of a, b, c, d: the largest is far from 0, and the others follow from products with it.
  const squares = [
    1 + m(0, 0) + m(1, 1) + m(2, 2),
    1 + m(0, 0) - m(1, 1) - m(2, 2),
    1 - m(0, 0) + m(1, 1) - m(2, 2),
    1 - m(0, 0) - m(1, 1) + m(2, 2),
  ];
  const products = [
    [0, m(2, 1) - m(1, 2), m(0, 2) - m(2, 0), m(1, 0) - m(0, 1)],
    [m(2, 1) - m(1, 2), 0, m(0, 1) + m(1, 0), m(0, 2) + m(2, 0)],
    [m(0, 2) - m(2, 0), m(0, 1) + m(1, 0), 0, m(1, 2) + m(2, 1)],
    [m(1, 0) - m(0, 1), m(0, 2) + m(2, 0), m(1, 2) + m(2, 1), 0],
  ];
  const main = squares.indexOf(Math.max(...squares));
  const root = 2 * Math.sqrt(squares[main]);
  const q = products[main].map((v, i) => (i === main ? root / 4 : v / root));
  const norm = Math.hypot(...q) * (q[0] < 0 ? -1 : 1);
  const exact = q.map((v) => v / norm);
  if (version === 2) return exact.slice(1).map((v) => v * (1 - Number.EPSILON));
  const choices = exact.slice(1).map((v) => {
    const step = Math.max(2 ** -149, 2 ** (Math.floor(Math.log2(Math.abs(v) || 2 ** -100)) - 23));
    return Array.from({ length: 17 }, (_, k) => Math.fround(Math.fround(v) + (k - 8) * step));
  });
  const wanted = exact[0] * exact[0];
  let best = { miss: Number.POSITIVE_INFINITY, bcd: [0, 0, 0] };
  for (const b of choices[0]) {
    for (const c of choices[1]) {
      for (const d of choices[2]) {
        const rest = 1 - (b * b + c * c + d * d);
        const miss = Math.abs(rest - wanted);
        if (rest >= 0 && miss < best.miss) best = { miss, bcd: [b, c, d] };
      }
    }
  }
  return best.bcd;
}
