import { TomaatError } from '../errors.ts';
import { roundHalfEven } from '../geometry/round.ts';
import { createVoxels, type Size, type Volume, type Voxels, type VoxelType, voxelTypeOf } from '../volume.ts';

/** The value and name of a label; a manifest's labels also have a colour and a code. */
export interface LabelName {
  readonly value: number;
  readonly name: string;
}

/** Voxels whose values are integers that fit a signed 32-bit number: the common view of every label map. */
export type LabelVoxels = Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Int32Array;

const largestLabel = 2 ** 31 - 1;

/**
 * The voxels of a label map as integers of at most 31 bits. Arrays of integers are returned as they are; floats and
 * 64-bit integers (as FreeSurfer and nnU-Net store labels) are copied to int32. Throws BAD_INPUT if the volume has
 * several components or a value that is not an integer label.
 */
export function labelVoxels(volume: Volume): LabelVoxels {
  if (volume.components !== 1) {
    throw new TomaatError(
      'BAD_INPUT',
      `A label map has one component, but this volume has ${volume.components}. Take the argmax or one component first.`,
    );
  }
  const { voxels } = volume;
  if (voxels instanceof Uint32Array) {
    for (let i = 0; i < voxels.length; i++) if (voxels[i] > largestLabel) throw noLabel(voxels[i]);
    return voxels;
  }
  if (
    voxels instanceof Float32Array ||
    voxels instanceof Float64Array ||
    voxels instanceof BigInt64Array ||
    voxels instanceof BigUint64Array
  ) {
    const out = new Int32Array(voxels.length);
    for (let i = 0; i < voxels.length; i++) {
      const value = Number(voxels[i]);
      out[i] = value;
      if (out[i] !== value) throw noLabel(value);
    }
    return out;
  }
  return voxels;
}

/**
 * A label map whose values are whole: a program that interpolates label numbers leaves fractions between them. Halves go to
 * the even number, as numpy.round has it. `fractional` counts the voxels that were changed.
 */
export function roundLabels(volume: Volume): { labels: Volume; fractional: number } {
  const { voxels } = volume;
  if (!(voxels instanceof Float32Array || voxels instanceof Float64Array))
    return { labels: volume, fractional: 0 };
  let fractional = 0;
  const rounded = voxels.map((value) => {
    if (Number.isInteger(value)) return value;
    fractional++;
    return roundHalfEven(value);
  });
  return fractional === 0
    ? { labels: volume, fractional }
    : { labels: { ...volume, voxels: rounded }, fractional };
}

function noLabel(value: number): TomaatError {
  return new TomaatError(
    'BAD_INPUT',
    `The volume is not a label map: it contains the value ${value}, but labels are integers from -2147483648 to 2147483647. Threshold or round it first.`,
  );
}

/** A label map with the same grid and voxel type as `volume`, its voxels a copy that may be modified. */
export function copyOf(volume: Volume): { result: Volume; voxels: Voxels } {
  const voxels = volume.voxels.slice() as Voxels;
  return { result: { ...volume, voxels }, voxels };
}

/** Writes label `value` into voxels of any type. */
export function setLabel(voxels: Voxels, index: number, value: number): void {
  if (voxels instanceof BigInt64Array || voxels instanceof BigUint64Array) voxels[index] = BigInt(value);
  else voxels[index] = value;
}

const ranges: readonly (readonly [VoxelType, number, number])[] = [
  ['uint8', 0, 255],
  ['uint16', 0, 65535],
  ['int16', -32768, 32767],
  ['int32', -2147483648, 2147483647],
];

/** The smallest of uint8, uint16, int16 and int32 that can represent every one of `values`. */
export function labelTypeFor(values: Iterable<number>): VoxelType {
  let low = 0;
  let high = 0;
  for (const value of values) {
    if (!Number.isInteger(value)) throw noLabel(value);
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const found = ranges.find(([, least, most]) => least <= low && high <= most);
  if (!found) throw noLabel(high > largestLabel ? high : low);
  return found[0];
}

/** Whether voxels of this type can represent the value exactly. */
export function holdsLabel(voxels: Voxels, value: number): boolean {
  const probe = createVoxels(voxelTypeOf(voxels), 1);
  if (value < 0 && probe instanceof BigUint64Array) return false;
  setLabel(probe, 0, value);
  return Number(probe[0]) === value;
}

/** Voxels first (inclusive) to last (inclusive) along each axis. */
export interface Box {
  readonly min: Size;
  readonly max: Size;
}

/** The results of one pass over a label map for one value. */
export interface LabelScan {
  voxels: number;
  /** Sums of the voxel indices along x, y, z. */
  sum: [number, number, number];
  box: Box;
}

/**
 * Voxel count, index sums and bounding box of every value except 0, in ascending order of the value. One pass, by
 * runs along x.
 */
export function scanLabels(voxels: LabelVoxels, size: Size): Map<number, LabelScan> {
  const [nx, ny, nz] = size;
  const row = new Int32Array(nx);
  const slots = new Map<number, number>();
  // A slot: count, sums of x, y, z, then the smallest and largest index along x, y, z.
  const slotLength = 10;
  let slotData = new Float64Array(16 * slotLength);
  let lastValue = 0;
  let at = 0;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      const start = (z * ny + y) * nx;
      row.set(voxels.subarray(start, start + nx));
      let x = 0;
      while (x < nx) {
        const value = row[x];
        const first = x++;
        while (x < nx && row[x] === value) x++;
        if (value === 0) continue;
        if (value !== lastValue) {
          let slot = slots.get(value);
          if (slot === undefined) {
            slot = slots.size;
            slots.set(value, slot);
            if (slotData.length < (slot + 1) * slotLength) {
              const larger = new Float64Array(slotData.length * 2);
              larger.set(slotData);
              slotData = larger;
            }
            slotData.fill(Number.POSITIVE_INFINITY, slot * slotLength + 4, slot * slotLength + 7);
            slotData.fill(-1, slot * slotLength + 7, slot * slotLength + 10);
          }
          at = slot * slotLength;
          lastValue = value;
        }
        const count = x - first;
        slotData[at] += count;
        slotData[at + 1] += ((first + x - 1) * count) / 2;
        slotData[at + 2] += y * count;
        slotData[at + 3] += z * count;
        if (first < slotData[at + 4]) slotData[at + 4] = first;
        if (y < slotData[at + 5]) slotData[at + 5] = y;
        if (z < slotData[at + 6]) slotData[at + 6] = z;
        if (x - 1 > slotData[at + 7]) slotData[at + 7] = x - 1;
        if (y > slotData[at + 8]) slotData[at + 8] = y;
        slotData[at + 9] = z;
      }
    }
  }
  const scans = new Map<number, LabelScan>();
  for (const value of [...slots.keys()].sort((a, b) => a - b)) {
    const s = slotData.subarray(slots.get(value)! * slotLength);
    scans.set(value, {
      voxels: s[0],
      sum: [s[1], s[2], s[3]],
      box: { min: [s[4], s[5], s[6]], max: [s[7], s[8], s[9]] },
    });
  }
  return scans;
}
