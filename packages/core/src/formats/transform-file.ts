import { TomaatError } from '../errors.ts';
import { type Affine, determinant, identity, lpsToRas, multiply, spacingOf } from '../geometry/affine.ts';
import type { Bytes, Platform } from '../platform.ts';
import { numericVoxels, type Volume, voxelCount } from '../volume.ts';
import { latin1, ownedBytes, parseDecimal } from './header.ts';
import { inflatePrefix, isGzip } from './inflate-prefix.ts';
import { listedWithOr, resultExtension, volumeFormats } from './table.ts';
import { type ReadLimits, readVolume, type SourceFile, writeVolume } from './volume-file.ts';

/**
 * A map of space, RAS+ mm, in the direction in which ITK stores it: from a point of the fixed (output) image to the
 * corresponding point of the moving (input) image; 3D Slicer calls it "from parent". Points and meshes move
 * with its inverse. A displacement grid has three components, mm along R, A, S, added to the place of their voxel.
 * A B-spline is passed on as its original HDF5 file.
 */
export type SpatialTransform =
  | { readonly kind: 'linear'; readonly matrix: Affine }
  | { readonly kind: 'grid'; readonly displacement: Volume }
  | { readonly kind: 'bspline'; readonly bytes: Uint8Array };

/** The files of transforms, by extension; `txt` is ITK's text format, which is also named .tfm. */
export type TransformExtension = 'nii.gz' | 'h5' | 'mat' | 'txt';

/** File extensions used only by transforms; a displacement grid is in a volume file. */
export const transformEndings: readonly string[] = ['.txt', '.tfm', '.mat', '.h5'];

/** The file extension for each kind of transform, as in the TOMAAT v1 protocol. */
export const transformExtensions = { linear: 'mat', grid: 'nii.gz', bspline: 'h5' } as const;

const hdf5Signature = [0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a];
const headBytes = 4096;
const maxLinearBytes = 1 << 20;
const maxBSplineBytes = 1 << 29;

/**
 * Reads a transform, recognised by its bytes: ITK's MATLAB v4 (.mat) and text (.tfm, .txt) files of linear transforms, a
 * NIfTI, MetaImage or NRRD vector image as a displacement grid, an HDF5 file as a B-spline.
 * Vectors in a NIfTI file are RAS if its intent is DISPVECT (1006) and LPS if it is VECTOR (1007), as ITK reads
 * and writes them; in the other formats they are LPS.
 * Throws BAD_HEADER, BAD_VOXELS, UNSUPPORTED_FORMAT, or what readVolume() throws.
 */
export async function readTransform(
  file: SourceFile,
  platform: Platform,
  limits?: ReadLimits,
): Promise<SpatialTransform> {
  const head = await readBytes(file, headBytes, 'stop');
  if (hdf5Signature.every((v, i) => head[i] === v)) {
    return { kind: 'bspline', bytes: await readBytes(file, maxBSplineBytes, 'refuse') };
  }
  if (latin1(head.subarray(0, 24)).startsWith('#Insight Transform File')) {
    return {
      kind: 'linear',
      matrix: readTransformText(latin1(await readBytes(file, maxLinearBytes, 'refuse'))),
    };
  }
  if (isMat(head))
    return { kind: 'linear', matrix: readTransformMat(await readBytes(file, maxLinearBytes, 'refuse')) };
  return { kind: 'grid', displacement: await readDisplacement(file, head, platform, limits) };
}

async function readBytes(file: SourceFile, limit: number, beyond: 'stop' | 'refuse'): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of file.open()) {
    chunks.push(beyond === 'stop' ? chunk.slice(0, limit - length) : chunk.slice());
    length += chunk.length;
    if (length < limit) continue;
    if (beyond === 'stop') break;
    if (length > limit) throw badTransform(`has more than ${limit} bytes`);
  }
  const bytes = new Uint8Array(chunks.reduce((n, chunk) => n + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

/** Writes a transform; `extension` must match its kind: mat or txt, nii.gz, h5. */
export async function* writeTransform(
  transform: SpatialTransform,
  extension: TransformExtension,
  platform: Platform,
): AsyncGenerator<Bytes> {
  if (transform.kind === 'linear' && extension === 'mat') yield writeTransformMat(transform.matrix);
  else if (transform.kind === 'linear' && extension === 'txt') {
    yield new TextEncoder().encode(writeTransformText(transform.matrix));
  } else if (transform.kind === 'grid' && extension === 'nii.gz') {
    yield* writeVolume(turnVectors(transform.displacement), 'nii.gz', platform, {
      description: 'displacement, mm LPS',
    });
  } else if (transform.kind === 'bspline' && extension === 'h5') yield ownedBytes(transform.bytes);
  else {
    throw new TomaatError(
      'NOT_ACCEPTABLE',
      `A ${transform.kind} transform cannot be written as .${extension}. Use .${transformExtensions[transform.kind]}.`,
    );
  }
}

// Displacement grids

/** “.nii.gz, .mha or .nrrd”: compressed if the format allows it, because these files are large. */
const gridEndings = listedWithOr(volumeFormats.map((format) => `.${resultExtension(format, true)}`));

async function readDisplacement(
  file: SourceFile,
  head: Uint8Array,
  platform: Platform,
  limits: ReadLimits | undefined,
): Promise<Volume> {
  const { volume, header } = await readVolume([file], platform, { frame: 'all', limits }).catch(
    (error: unknown) => {
      if (!(error instanceof TomaatError) || error.code !== 'UNKNOWN_FORMAT') throw error;
      throw new TomaatError(
        'UNKNOWN_FORMAT',
        `The file is not a supported transform. Send a linear one as .mat, .tfm or .txt, a displacement grid as ${gridEndings}, or a B-spline as .h5.`,
        { cause: error },
      );
    },
  );
  if (volume.components !== 3 || header.frames !== 1) {
    const found = header.frames > 1 ? `${header.frames} frames` : `${volume.components} component(s)`;
    throw new TomaatError(
      'BAD_HEADER',
      `A displacement grid must have one vector of 3 components per voxel, but this file has ${found}. In NIfTI, write the dimensions x, y, z, 1, 3.`,
    );
  }
  const isRas = niftiIntent(head) === 1006;
  return isRas ? { ...volume, voxels: floatsOf(volume) } : turnVectors(volume);
}

/** The intent code of a NIfTI file from its first bytes; undefined for other files. */
function niftiIntent(head: Uint8Array): number | undefined {
  const bytes = isGzip(head) ? inflatePrefix(head, 540) : head;
  if (bytes.length < 348) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (const littleEndian of [true, false]) {
    const headerSize = view.getInt32(0, littleEndian);
    if (headerSize === 348) return view.getInt16(68, littleEndian);
    if (headerSize === 540 && bytes.length >= 508) return view.getInt32(504, littleEndian);
  }
  return undefined;
}

function floatsOf(volume: Volume): Float32Array | Float64Array {
  const numbers = numericVoxels(volume.voxels);
  const floats =
    numbers instanceof Float32Array || numbers instanceof Float64Array ? numbers : Float32Array.from(numbers);
  for (let i = 0; i < floats.length; i++) {
    if (!Number.isFinite(floats[i])) {
      throw new TomaatError(
        'BAD_VOXELS',
        'The displacement grid contains NaN or infinite numbers. Replace them, with 0 for no displacement.',
      );
    }
  }
  return floats;
}

/** LPS vectors as RAS, or back: the first two components change sign. */
function turnVectors(volume: Volume): Volume {
  const voxels = floatsOf(volume).slice();
  const end = 2 * voxelCount(volume);
  for (let i = 0; i < end; i++) voxels[i] = 0 - voxels[i];
  return { ...volume, voxels };
}

// Linear transforms

/** A transform as in ITK files: LPS, mm. */
interface ItkTransform {
  type: string;
  parameters: readonly number[];
  fixed: readonly number[];
}

const linearTransforms = [
  'IdentityTransform',
  'TranslationTransform',
  'AffineTransform',
  'MatrixOffsetTransformBase',
  'Rigid3DTransform',
  'Euler3DTransform',
  'VersorRigid3DTransform',
  'Similarity3DTransform',
];

/** The 4×4 matrix, LPS → LPS, of ITK's linear transforms (ITK Software Guide, "Transforms"). */
function matrixOf({ type, parameters: p, fixed }: ItkTransform): Affine {
  const name = linearTransforms.find((one) => type === `${one}_double_3_3` || type === `${one}_float_3_3`);
  if (name === undefined) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'The transform is of an unsupported type. Save it as an ITK AffineTransform (double, 3-D).',
    );
  }
  const need = (count: number) => {
    if (p.length !== count) throw badTransform(`has ${p.length} parameters for ${type}, not ${count}`);
  };
  if (name === 'IdentityTransform') return identity;
  if (name === 'TranslationTransform') {
    need(3);
    return composeAbout([1, 0, 0, 0, 1, 0, 0, 0, 1], p, [0, 0, 0]);
  }
  if (fixed.length < 3) throw badTransform(`has no centre for ${type}`);
  if (name === 'AffineTransform' || name === 'MatrixOffsetTransformBase' || name === 'Rigid3DTransform') {
    need(12);
    return composeAbout(p.slice(0, 9), p.slice(9), fixed);
  }
  if (name === 'Euler3DTransform') {
    need(6);
    return composeAbout(eulerMatrix(p[0], p[1], p[2], fixed[3] === 1), p.slice(3), fixed);
  }
  if (name === 'VersorRigid3DTransform') {
    need(6);
    return composeAbout(versorMatrix(p[0], p[1], p[2]), p.slice(3), fixed);
  }
  // Similarity3DTransform
  need(7);
  const scaled = versorMatrix(p[0], p[1], p[2]).map((v) => v * p[6]);
  return composeAbout(scaled, p.slice(3, 6), fixed);
}

/** y = A (x - c) + c + t. */
function composeAbout(a: readonly number[], t: readonly number[], c: readonly number[]): Affine {
  const offset = [0, 1, 2].map(
    (r) => t[r] + c[r] - (a[r * 3] * c[0] + a[r * 3 + 1] * c[1] + a[r * 3 + 2] * c[2]),
  );
  return [a[0], a[1], a[2], offset[0], a[3], a[4], a[5], offset[1], a[6], a[7], a[8], offset[2], 0, 0, 0, 1];
}

/** Rotations about x, y and z, radians: Rz Rx Ry, or Rz Ry Rx if the file says so. */
function eulerMatrix(x: number, y: number, z: number, isZyx: boolean): number[] {
  const [cx, sx, cy, sy, cz, sz] = [x, y, z].flatMap((angle) => [Math.cos(angle), Math.sin(angle)]);
  const rx: Affine = [1, 0, 0, 0, 0, cx, -sx, 0, 0, sx, cx, 0, 0, 0, 0, 1];
  const ry: Affine = [cy, 0, sy, 0, 0, 1, 0, 0, -sy, 0, cy, 0, 0, 0, 0, 1];
  const rz: Affine = [cz, -sz, 0, 0, sz, cz, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
  const m = multiply(rz, isZyx ? multiply(ry, rx) : multiply(rx, ry));
  return [m[0], m[1], m[2], m[4], m[5], m[6], m[8], m[9], m[10]];
}

/** The rotation of the unit quaternion with the vector part (x, y, z) and a non-negative scalar part. */
function versorMatrix(x: number, y: number, z: number): number[] {
  const w = Math.sqrt(Math.max(0, 1 - x * x - y * y - z * z));
  return [
    1 - 2 * (y * y + z * z),
    2 * (x * y - z * w),
    2 * (x * z + y * w),
    2 * (x * y + z * w),
    1 - 2 * (x * x + z * z),
    2 * (y * z - x * w),
    2 * (x * z - y * w),
    2 * (y * z + x * w),
    1 - 2 * (x * x + y * y),
  ];
}

/** The same map between points in RAS and in LPS: its own inverse. */
function turnMatrix(matrix: Affine): Affine {
  return multiply(lpsToRas, multiply(matrix, lpsToRas)).map((v) => v + 0);
}

function toRas(lps: Affine): Affine {
  const matrix = turnMatrix(lps);
  if (!isInvertible(matrix)) {
    throw badTransform('has a matrix that cannot be inverted');
  }
  return matrix;
}

/** Whether its numbers are finite and its columns, whatever their lengths, are not in one plane, except for rounding. */
function isInvertible(matrix: Affine): boolean {
  const box = spacingOf(matrix).reduce((a, b) => a * b);
  return matrix.every(Number.isFinite) && Math.abs(determinant(matrix)) > 1e-12 * box;
}

function toItk(matrix: Affine): ItkTransform {
  if (matrix.length !== 16 || !isInvertible(matrix)) {
    throw new TomaatError(
      'BAD_INPUT',
      'The linear transform is not an invertible matrix. Give 16 finite numbers of one.',
    );
  }
  const m = turnMatrix(matrix);
  return {
    type: 'AffineTransform_double_3_3',
    parameters: [m[0], m[1], m[2], m[4], m[5], m[6], m[8], m[9], m[10], m[3], m[7], m[11]],
    fixed: [0, 0, 0],
  };
}

// MATLAB v4: for each matrix five int32 (type, rows, columns, imaginary, length of the name), name, numbers.

/** How a MATLAB v4 file stores numbers: the thousands of its type are the byte order, the tens the number type. */
function matOrder(head: Uint8Array): { littleEndian: boolean; size: 4 | 8 } | undefined {
  if (head.length < 20) return undefined;
  const view = new DataView(head.buffer, head.byteOffset);
  for (const littleEndian of [true, false]) {
    const type = view.getInt32(0, littleEndian);
    const base = littleEndian ? 0 : 1000;
    const nameLength = view.getInt32(16, littleEndian);
    if ((type === base || type === base + 10) && nameLength > 1 && nameLength <= 256) {
      return { littleEndian, size: type === base ? 8 : 4 };
    }
  }
  return undefined;
}

const isMat = (head: Uint8Array): boolean => matOrder(head) !== undefined;

/** Reads a linear transform, as the 4×4 matrix RAS → RAS in mm, from a MATLAB v4 file of ITK. */
export function readTransformMat(bytes: Uint8Array): Affine {
  const [first, fixed, more] = readMatrices(bytes);
  if (!first || fixed?.name !== 'fixed')
    throw badTransform('does not contain the parameters of a transform and its "fixed" ones');
  if (more) throw badTransform('contains several transforms instead of one');
  return toRas(matrixOf({ type: first.name, parameters: first.numbers, fixed: fixed.numbers }));
}

function readMatrices(bytes: Uint8Array): { name: string; numbers: number[] }[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const matrices: { name: string; numbers: number[] }[] = [];
  let at = 0;
  while (at < bytes.length) {
    const order = matOrder(bytes.subarray(at));
    if (!order) throw badTransform(`has no MATLAB v4 matrix at byte ${at}`);
    const { littleEndian, size } = order;
    const [rows, columns, imaginary, nameLength] = [4, 8, 12, 16].map((o) =>
      view.getInt32(at + o, littleEndian),
    );
    at += 20;
    const count = rows * columns;
    const isSane = rows >= 0 && columns >= 0 && imaginary === 0 && count <= bytes.length;
    if (!isSane || at + nameLength + count * size > bytes.length)
      throw badTransform('is cut off or states a wrong size');
    const name = latin1(bytes.subarray(at, at + nameLength)).replace(/\0.*$/s, '');
    at += nameLength;
    const numbers = Array.from({ length: count }, (_, i) =>
      size === 8 ? view.getFloat64(at + i * 8, littleEndian) : view.getFloat32(at + i * 4, littleEndian),
    );
    at += count * size;
    matrices.push({ name, numbers });
  }
  return matrices;
}

/** A MATLAB v4 file of ITK with the AffineTransform of a 4×4 matrix RAS → RAS in mm. */
export function writeTransformMat(matrix: Affine): Bytes {
  const { type, parameters, fixed } = toItk(matrix);
  const parts = [
    { name: `${type}\0`, numbers: parameters },
    { name: 'fixed\0', numbers: fixed },
  ];
  const bytes = new Uint8Array(
    parts.reduce((n, { name, numbers }) => n + 20 + name.length + numbers.length * 8, 0),
  );
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { name, numbers } of parts) {
    [0, numbers.length, 1, 0, name.length].forEach((v, i) => void view.setInt32(at + 4 * i, v, true));
    bytes.set(new TextEncoder().encode(name), at + 20);
    at += 20 + name.length;
    numbers.forEach((v, i) => void view.setFloat64(at + 8 * i, v, true));
    at += numbers.length * 8;
  }
  return bytes;
}

/**
 * Reads a linear transform, as the 4×4 matrix RAS → RAS in mm, from ITK's text. The parts of a composite are
 * applied in reverse order, as in ITK.
 */
export function readTransformText(text: string): Affine {
  const transforms: { type: string; parameters: number[]; fixed: number[] }[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line.startsWith('#') || line.trim() === '') continue;
    const colon = line.indexOf(':');
    const key = line.slice(0, Math.max(colon, 0));
    const rest = line.slice(colon + 1);
    const current = transforms[transforms.length - 1];
    if (key === 'Transform') transforms.push({ type: rest.trim(), parameters: [], fixed: [] });
    else if ((key === 'Parameters' || key === 'FixedParameters') && current) {
      const numbers = rest
        .split(/\s+/)
        .filter((word) => word !== '')
        .map(parseDecimal);
      if (!numbers.every(Number.isFinite))
        throw badTransform(`has a number that cannot be read in line ${index + 1}`);
      current[key === 'Parameters' ? 'parameters' : 'fixed'] = numbers;
    } else throw badTransform(`cannot be read in line ${index + 1}`);
  }
  const isComposite = transforms[0]?.type.startsWith('CompositeTransform_');
  const parts = isComposite ? transforms.slice(1) : transforms;
  if (parts.length === 0) throw badTransform('contains no transform');
  if (parts.length > 1 && !isComposite) throw badTransform('contains several transforms instead of one');
  return toRas(parts.map(matrixOf).reduce(multiply));
}

/** ITK's text for the AffineTransform of a 4×4 matrix RAS → RAS in mm. */
export function writeTransformText(matrix: Affine): string {
  const { type, parameters, fixed } = toItk(matrix);
  return `#Insight Transform File V1.0\n#Transform 0\nTransform: ${type}\nParameters: ${parameters.join(' ')}\nFixedParameters: ${fixed.join(' ')}\n`;
}

function badTransform(fault: string): TomaatError {
  return new TomaatError(
    'BAD_HEADER',
    `The transform file ${fault}. Save it again as an ITK affine transform.`,
  );
}
