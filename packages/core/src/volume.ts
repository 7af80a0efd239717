import type { Affine } from './geometry/affine.ts';

/** The scalar types that a volume's voxels may have, by their names in NumPy. */
export const voxelTypes = [
  'uint8',
  'int8',
  'uint16',
  'int16',
  'uint32',
  'int32',
  'uint64',
  'int64',
  'float32',
  'float64',
] as const;
export type VoxelType = (typeof voxelTypes)[number];

export type Voxels =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | BigUint64Array
  | BigInt64Array
  | Float32Array
  | Float64Array;

/** Voxels along x (fastest), y and z. */
export type Size = readonly [x: number, y: number, z: number];

/** A sampling of the world: how many voxels, and where each one is. */
export interface Grid {
  readonly size: Size;
  /** Voxel index → world, RAS+, mm. */
  readonly affine: Affine;
}

/**
 * An image in space. `voxels` holds x fastest, then y, then z, then the component: the value of component c
 * at (x, y, z) is `voxels[((c * size[2] + z) * size[1] + y) * size[0] + x]`. Spacing, direction and origin
 * are functions of `affine` (geometry/affine.ts), never stored beside it.
 */
export interface Volume extends Grid {
  readonly voxels: Voxels;
  readonly components: number;
  /** Of a volume that was read from a DICOM series: how its values become SUV. Other files do not state it. */
  readonly suv?: SuvScale;
}

/**
 * The factor by which values become standardized uptake values by body weight (SUVbw, g/mL), or why there is none, as a sentence with
 * the remedy.
 */
export type SuvScale = { readonly factor: number } | { readonly refusal: string };

const arrayTypes = {
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  uint64: BigUint64Array,
  int64: BigInt64Array,
  float32: Float32Array,
  float64: Float64Array,
} as const;

/** Bytes that one voxel of one component takes. */
export function bytesPerVoxel(type: VoxelType): number {
  return arrayTypes[type].BYTES_PER_ELEMENT;
}

/** The type's name for an array of voxels. */
export function voxelTypeOf(voxels: Voxels): VoxelType {
  for (const type of voxelTypes) if (voxels instanceof arrayTypes[type]) return type;
  throw new TypeError('not an array of voxels');
}

/** New voxels of a type, all zero; or a view of `buffer` (its bytes in the machine's order). */
export function createVoxels(type: VoxelType, length: number, buffer?: ArrayBuffer, byteOffset = 0): Voxels {
  return buffer ? new arrayTypes[type](buffer, byteOffset, length) : new arrayTypes[type](length);
}

/** Voxels in one component of a grid. */
export function voxelCount(grid: { readonly size: Size }): number {
  return grid.size[0] * grid.size[1] * grid.size[2];
}

export type NumericVoxels = Exclude<Voxels, BigInt64Array | BigUint64Array>;

const isBig = (voxels: Voxels): voxels is BigInt64Array | BigUint64Array =>
  voxels instanceof BigInt64Array || voxels instanceof BigUint64Array;

export const machineIsBigEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 0;

/**
 * 64-bit integers as the nearest float64 (exact up to 2^53), from the first to the last. Read as two words each: an array of
 * bigints would take 24 bytes a voxel more. `target` may lie in the same memory.
 */
function convertBig(source: BigInt64Array | BigUint64Array, target: Float32Array | Float64Array): void {
  const { buffer, byteOffset, length } = source;
  const words = new Uint32Array(buffer, byteOffset, 2 * length);
  const upperWords = source instanceof BigInt64Array ? new Int32Array(buffer, byteOffset, 2 * length) : words;
  const [low, high] = machineIsBigEndian ? [1, 0] : [0, 1];
  for (let i = 0; i < length; i++) target[i] = upperWords[2 * i + high] * 2 ** 32 + words[2 * i + low];
}

/** Copies voxels of any type into floats; 64-bit integers are rounded to float64 first. */
export function copyNumbers(source: Voxels, target: Float32Array | Float64Array): void {
  if (isBig(source)) convertBig(source, target);
  else target.set(source);
}

/** The voxels as numbers: int64 and uint64 become float64, all others are returned as they are. */
export function numericVoxels(voxels: Voxels): NumericVoxels {
  if (!isBig(voxels)) return voxels;
  const numbers = new Float64Array(voxels.length);
  convertBig(voxels, numbers);
  return numbers;
}

/** The same in the same memory: voxels that were int64 or uint64 must no longer be used. */
export function takeNumericVoxels(voxels: Voxels): NumericVoxels {
  if (!isBig(voxels)) return voxels;
  const numbers = new Float64Array(voxels.buffer as ArrayBuffer, voxels.byteOffset, voxels.length);
  convertBig(voxels, numbers);
  return numbers;
}

/** One component of a volume as a volume of its own; its voxels are a view. */
export function componentOf(volume: Volume, component: number): Volume {
  const n = voxelCount(volume);
  const voxels = volume.voxels.subarray(component * n, (component + 1) * n) as Voxels;
  return { voxels, size: volume.size, components: 1, affine: volume.affine };
}
