/**
 * Volumes whose headers state their place in every way that programs go by, written byte by byte: other forms with other
 * geometry in one NIfTI, other units, spaces and axes. Asymmetric, anisotropic, most of them oblique.
 */

type Numbers = readonly number[];

export interface NiftiFields {
  version: 1 | 2;
  bigEndian: boolean;
  dim: Numbers;
  /** pixdim[0] to [4]. */
  pixdim: Numbers;
  units: number;
  qformCode: number;
  sformCode: number;
  /** quatern_b, _c, _d. */
  quaternion: Numbers;
  qoffset: Numbers;
  srow: Numbers;
}

export interface PlacedFile {
  name: string;
  extension: 'nii' | 'mha' | 'nrrd';
  bytes: Uint8Array<ArrayBuffer>;
  /** Of a file of several frames. */
  frame?: number;
}

/** Voxels along x, y and z. */
export const size = [9, 7, 5] as const;

/** int16 voxels with one bright block off the centre, in the byte order that is asked for. */
export function voxelBytes(bigEndian = false, frames = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(2 * 9 * 7 * 5 * frames);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < bytes.length / 2; i++) {
    const [x, y, z] = [i % 9, Math.floor(i / 9) % 7, Math.floor(i / 63) % 5];
    view.setInt16(2 * i, x > 1 && x < 6 && y > 2 && y < 6 && z < 3 ? 500 : 10, !bigEndian);
  }
  return bytes;
}

const niftiDefaults: NiftiFields = {
  version: 1,
  bigEndian: false,
  dim: [3, ...size, 1, 1, 1, 1],
  pixdim: [1, 0.75, 1.25, 5.5, 0],
  units: 2,
  qformCode: 0,
  sformCode: 0,
  quaternion: [0, 0, 0],
  qoffset: [0, 0, 0],
  srow: new Array(12).fill(0),
};

/** A NIfTI file of one part (nifti1.h, nifti2.h). */
export function niftiFile(fields: Partial<NiftiFields>): Uint8Array<ArrayBuffer> {
  const f = { ...niftiDefaults, ...fields };
  const le = !f.bigEndian;
  const head = new Uint8Array(f.version === 1 ? 352 : 544);
  const v = new DataView(head.buffer);
  const put = (at: number, values: Numbers) =>
    values.forEach((value, i) => {
      if (f.version === 1) v.setFloat32(at + 4 * i, value, le);
      else v.setFloat64(at + 8 * i, value, le);
    });
  if (f.version === 1) {
    v.setInt32(0, 348, le);
    f.dim.forEach((n, i) => void v.setInt16(40 + 2 * i, n, le));
    v.setInt16(70, 4, le);
    v.setInt16(72, 16, le);
    put(76, f.pixdim);
    v.setFloat32(108, 352, le);
    v.setUint8(123, f.units);
    v.setInt16(252, f.qformCode, le);
    v.setInt16(254, f.sformCode, le);
    put(256, [...f.quaternion, ...f.qoffset]);
    put(280, f.srow);
    head.set(Buffer.from('n+1\0'), 344);
  } else {
    v.setInt32(0, 540, le);
    head.set(Buffer.from('n+2\0\r\n\x1a\n', 'latin1'), 4);
    v.setInt16(12, 4, le);
    v.setInt16(14, 16, le);
    f.dim.forEach((n, i) => void v.setBigInt64(16 + 8 * i, BigInt(n), le));
    put(104, f.pixdim);
    v.setBigInt64(168, 544n, le);
    v.setInt32(344, f.qformCode, le);
    v.setInt32(348, f.sformCode, le);
    put(352, [...f.quaternion, ...f.qoffset]);
    put(400, f.srow);
    v.setInt32(500, f.units, le);
  }
  const voxels = voxelBytes(f.bigEndian, f.dim[4] || 1);
  return Uint8Array.from(
    Buffer.concat([head, voxels.subarray(0, 2 * f.dim[1] * f.dim[2] * f.dim[3] * (f.dim[4] || 1))]),
  );
}

/** What a NIfTI file states of its place: the fields as numbers, whatever the byte order. */
export function niftiPlace(bytes: Uint8Array) {
  const v = new DataView(bytes.buffer, bytes.byteOffset);
  const version = [v.getInt32(0, true), v.getInt32(0)].includes(348) ? 1 : 2;
  const le = v.getInt32(0, true) === (version === 1 ? 348 : 540);
  const floats = (at: number, count: number) =>
    Array.from({ length: count }, (_, i) =>
      version === 1 ? v.getFloat32(at + 4 * i, le) : v.getFloat64(at + 8 * i, le),
    );
  return version === 1
    ? {
        version,
        pixdim: floats(76, 4),
        units: v.getUint8(123),
        qformCode: v.getInt16(252, le),
        sformCode: v.getInt16(254, le),
        qform: floats(256, 6),
        sform: floats(280, 12),
      }
    : {
        version,
        pixdim: floats(104, 4),
        units: v.getInt32(500, le),
        qformCode: v.getInt32(344, le),
        sformCode: v.getInt32(348, le),
        qform: floats(352, 6),
        sform: floats(400, 12),
      };
}

const [c, s] = [Math.cos(0.3), Math.sin(0.3)];
/** About z by 0.3 rad, then the spacing of niftiDefaults. */
const turned = [c * 0.75, -s * 1.25, 0, -31, s * 0.75, c * 1.25, 0, 47, 0, 0, 5.5, -112];
const quaternion = [0, 0, Math.sin(0.15)];
const moved = turned.map((value, i) => (i === 3 ? value + 20 : value));
const mirrored = turned.map((value, i) => (i % 4 === 2 ? -value : value));
const q = { qformCode: 1, quaternion, qoffset: [-31, 47, -112] };

const nifti = (name: string, fields: Partial<NiftiFields>, frame?: number): PlacedFile => ({
  name,
  extension: 'nii',
  bytes: niftiFile(fields),
  frame,
});

/** NIfTI files whose forms, codes and units a result has to state again. */
export const niftiFiles: readonly PlacedFile[] = [
  nifti('both forms alike', { ...q, sformCode: 1, srow: turned }),
  nifti('qform scanner, sform aligned 20 mm away', { ...q, sformCode: 2, srow: moved }),
  nifti('qform scanner, sform MNI 20 mm away', { ...q, sformCode: 4, srow: moved }),
  nifti('qform aligned, sform scanner 20 mm away', { ...q, qformCode: 2, sformCode: 1, srow: moved }),
  nifti('codes 3 and 5', { ...q, qformCode: 3, sformCode: 5, srow: moved }),
  nifti('sform alone, aligned', { sformCode: 2, srow: turned }),
  nifti('sform alone, left-handed', { sformCode: 1, srow: mirrored }),
  nifti('qform alone', q),
  nifti('qform alone, left-handed', { ...q, pixdim: [-1, 0.75, 1.25, 5.5, 0] }),
  nifti('qform alone, pixdim[0] 0', { ...q, pixdim: [0, 0.75, 1.25, 5.5, 0] }),
  nifti('qform turned by 180°', { ...q, quaternion: [0.6, 0.8000001, 0] }),
  nifti('no form at all', { qformCode: 0, sformCode: 0 }),
  nifti('sheared sform beside a qform', {
    ...q,
    sformCode: 1,
    srow: turned.map((value, i) => (i === 2 ? 1 : value)),
  }),
  nifti('micrometres and milliseconds', { ...q, sformCode: 1, srow: turned, units: 3 + 16 }),
  nifti('metres and seconds', {
    ...q,
    sformCode: 2,
    srow: moved.map((value) => value / 1000),
    pixdim: [1, 0.00075, 0.00125, 0.0055, 0],
    qoffset: [-0.031, 0.047, -0.112],
    units: 1 + 8,
  }),
  nifti('no unit', { ...q, sformCode: 1, srow: turned, units: 0 }),
  nifti('big-endian', { ...q, sformCode: 2, srow: moved, bigEndian: true }),
  nifti(
    'frames in seconds',
    {
      ...q,
      sformCode: 2,
      srow: moved,
      dim: [4, ...size, 2, 1, 1, 1],
      pixdim: [1, 0.75, 1.25, 5.5, 2],
      units: 10,
    },
    1,
  ),
  nifti('NIfTI-2', { ...q, sformCode: 2, srow: moved, version: 2 }),
  nifti('NIfTI-2, big-endian', { ...q, sformCode: 4, srow: moved, version: 2, bigEndian: true, units: 3 }),
];

/** NIfTI files of which one form is of no use: what a result states instead is ours to choose. */
export const mendedNiftiFiles = {
  sformOfZeros: nifti('sform of zeros', { ...q, sformCode: 1 }),
  oneSlice: nifti('one slice, sform without a step', {
    dim: [3, 9, 7, 1, 1, 1, 1, 1],
    sformCode: 1,
    srow: turned.map((value, i) => (i % 4 === 2 ? 0 : value)),
  }),
} as const;

function nrrd(
  name: string,
  lines: string,
  { frames = 1, frame }: { frames?: number; frame?: number } = {},
): PlacedFile {
  const rank = /^dimension/m.test(lines) ? '' : 'dimension: 3\nsizes: 9 7 5\n';
  const header = `NRRD0005\ntype: short\n${rank}${lines}\nendian: little\nencoding: raw\n\n`;
  return {
    name,
    extension: 'nrrd',
    bytes: Uint8Array.from(Buffer.concat([Buffer.from(header, 'latin1'), voxelBytes(false, frames)])),
    frame,
  };
}

const directions = '(0.38,0.02,0) (-0.03,0.57,0) (0,0.1,1.9)';
const place = `space directions: ${directions}\nspace origin: (1,2,3)`;
const series = '(0.38,0.02,0,0) (-0.03,0.57,0,0) (0,0.1,1.9,0)';

export const nrrdFiles: readonly PlacedFile[] = [
  nrrd('LPS in mm', `space: left-posterior-superior\n${place}\nspace units: "mm" "mm" "mm"`),
  nrrd('microns', `space: left-posterior-superior\n${place}\nspace units: "microns" "microns" "microns"`),
  nrrd('micro sign in UTF-8', `space: LPS\n${place}\nspace units: "\xc2\xb5m" "\xc2\xb5m" "\xc2\xb5m"`),
  nrrd('cm', `space: RAS\n${place}\nspace units: "cm" "cm" "cm"`),
  nrrd('one unit for each axis', `space: LPS\n${place}\nspace units: "um" "um" "mm"`),
  nrrd('no unit', `space: right-anterior-superior\n${place}`),
  nrrd('unit that is not known', `space: LAS\n${place}\nspace units: "ell" "ell" "ell"`),
  nrrd(
    'left-handed',
    `space: LPS\nspace directions: (-0.38,0,0) (0,0.57,0) (0,0,1.9)\nspace origin: (1,2,3)`,
  ),
  nrrd(
    'permuted axes',
    `space: RAS\nspace directions: (0,0,1.9) (0.38,0,0) (0,-0.57,0)\nspace origin: (1,2,3)`,
  ),
  nrrd('space without a name', `space dimension: 3\n${place}\nspace units: "nm" "nm" "nm"`),
  nrrd('no origin', `space: LPS\nspace directions: ${directions}`),
  nrrd('spacings alone', 'spacings: 0.38 0.57 1.9'),
  nrrd(
    'spacings, first edges and units',
    'spacings: 0.38 0.57 1.9\naxis mins: 10 20 30\nunits: "um" "um" "um"',
  ),
  nrrd('spacings, first centres', 'spacings: 0.38 -0.57 1.9\naxis mins: 10 20 30\ncenters: node node node'),
  nrrd('neither spacings nor directions', 'kinds: domain domain domain'),
];

/** A series as ITK writes it, and in the spaces with time: of these a result is one frame, in three dimensions. */
export const nrrdSeries: readonly PlacedFile[] = [
  nrrd(
    'space dimension 4',
    `dimension: 4\nspace dimension: 4\nsizes: 9 7 5 2\nspace directions: ${series} (0,0,0,2.5)\nkinds: domain domain domain domain\nspace origin: (1,2,3,4)`,
    { frames: 2, frame: 1 },
  ),
  nrrd(
    'one frame',
    `dimension: 4\nspace dimension: 4\nsizes: 9 7 5 1\nspace directions: ${series} (0,0,0,1)\nspace origin: (1,2,3,0)\nspace units: "um" "um" "um" "s"`,
  ),
];

function mha(
  name: string,
  lines: string,
  { frames = 1, frame }: { frames?: number; frame?: number } = {},
): PlacedFile {
  const dims = frames > 1 ? `NDims = 4\nDimSize = 9 7 5 ${frames}` : 'NDims = 3\nDimSize = 9 7 5';
  const header = `ObjectType = Image\n${dims}\n${lines}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n`;
  return {
    name,
    extension: 'mha',
    bytes: Uint8Array.from(Buffer.concat([Buffer.from(header), voxelBytes(false, frames)])),
    frame,
  };
}

const matrix = `TransformMatrix = ${c} ${s} 0 ${-s} ${c} 0 0 0 1`;
const geometry = `${matrix}\nOffset = 1 2 3\nElementSpacing = 0.38 0.57 1.9`;

export const metaImageFiles: readonly PlacedFile[] = [
  mha('mm', `${geometry}\nDistanceUnits = mm`),
  mha('µm', `${geometry}\nDistanceUnits = um`),
  mha('cm', `${geometry}\nDistanceUnits = cm`),
  mha('no unit', geometry),
  mha(
    'left-handed',
    `TransformMatrix = ${-c} ${-s} 0 ${-s} ${c} 0 0 0 1\nOffset = -31.5 47 -112\nElementSpacing = 0.75 1.25 5.5`,
  ),
  mha('old names', `Rotation = 0 1 0 0 0 1 1 0 0\nPosition = 1 2 3\nElementSpacing = 2 3 4`),
  mha('no geometry', 'CenterOfRotation = 0 0 0'),
];

export const metaImageSeries: readonly PlacedFile[] = [
  mha(
    'frames',
    `TransformMatrix = ${c} ${s} 0 0 ${-s} ${c} 0 0 0 0 1 0 0 0 0 1\nOffset = 1 2 3 4\nElementSpacing = 0.38 0.57 1.9 2.5\nDistanceUnits = um`,
    { frames: 2, frame: 1 },
  ),
];
