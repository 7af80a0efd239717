import {
  copyNumbers,
  createVoxels,
  type Volume,
  type Voxels,
  type VoxelType,
  voxelTypeOf,
} from '../volume.ts';

/** The range of an integer type; float types have no limits here. */
const limits: Partial<Record<VoxelType, readonly [number, number]>> = {
  uint8: [0, 255],
  int8: [-128, 127],
  uint16: [0, 65535],
  int16: [-32768, 32767],
  uint32: [0, 4294967295],
  int32: [-2147483648, 2147483647],
};

/** New voxels of the type of `voxels`, all zero. */
export function createLike<V extends Voxels>(voxels: V, length: number): V {
  return createVoxels(voxelTypeOf(voxels), length) as V;
}

/** A number as a voxel of this type: integers rounded (halves up) and clamped, NaN as 0. */
export function fillValue(voxels: Voxels, value: number): number | bigint {
  if (voxels instanceof Float32Array || voxels instanceof Float64Array) return value;
  const whole = Number.isNaN(value) ? 0 : Math.floor(value + 0.5);
  if (voxels instanceof BigInt64Array) {
    return BigInt.asIntN(64, clampBig(whole, -(2n ** 63n), 2n ** 63n - 1n));
  }
  if (voxels instanceof BigUint64Array) return clampBig(whole, 0n, 2n ** 64n - 1n);
  const [low, high] = limits[voxelTypeOf(voxels)] as readonly [number, number];
  return Math.min(high, Math.max(low, whole)) + 0;
}

function clampBig(value: number, low: bigint, high: bigint): bigint {
  if (value <= Number(low)) return low;
  if (value >= Number(high)) return high;
  return BigInt(value);
}

/**
 * Writes `count` computed values into voxels from `offset`: for integer types rounded (halves up) and clamped, NaN as
 * 0. `values` may be modified.
 */
export function storeValues(voxels: Voxels, offset: number, values: Float64Array, count: number): void {
  const row = values.subarray(0, count);
  if (voxels instanceof Float32Array || voxels instanceof Float64Array) {
    voxels.set(row, offset);
    return;
  }
  if (voxels instanceof BigInt64Array || voxels instanceof BigUint64Array) {
    for (let i = 0; i < count; i++) voxels[offset + i] = fillValue(voxels, row[i]) as bigint;
    return;
  }
  const [low, high] = limits[voxelTypeOf(voxels)] as readonly [number, number];
  for (let i = 0; i < count; i++) {
    const v = Math.floor(row[i] + 0.5);
    row[i] = v > low ? (v < high ? v : high) : v <= low ? low : 0;
  }
  voxels.set(row, offset);
}

/**
 * Voxels for arithmetic: float32 if that represents every value of the type, otherwise float64. Floats are returned
 * unchanged.
 */
export function floatVoxels(voxels: Voxels): Float32Array | Float64Array {
  if (voxels instanceof Float32Array || voxels instanceof Float64Array) return voxels;
  const floats = new (voxels.BYTES_PER_ELEMENT <= 2 ? Float32Array : Float64Array)(voxels.length);
  copyNumbers(voxels, floats);
  return floats;
}

/** The volume with voxels of another type: for integer types rounded (halves up) and clamped, NaN as 0. */
export function convertVolume(volume: Volume, type: VoxelType): Volume {
  const source = volume.voxels;
  if (voxelTypeOf(source) === type) return volume;
  const voxels = createVoxels(type, source.length);
  const row = new Float64Array(Math.min(source.length, 4096));
  for (let start = 0; start < source.length; start += row.length) {
    const count = Math.min(row.length, source.length - start);
    if (source instanceof BigInt64Array || source instanceof BigUint64Array) {
      for (let i = 0; i < count; i++) row[i] = Number(source[start + i]);
    } else row.set(source.subarray(start, start + count));
    storeValues(voxels, start, row, count);
  }
  return { voxels, size: volume.size, components: volume.components, affine: volume.affine };
}
