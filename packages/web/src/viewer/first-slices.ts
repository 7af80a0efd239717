import { spacingOf, type Vec3, type Volume, voxelCount } from '@tomaat/core';
import type { Plane } from './layouts.ts';
import { reduce } from './reduce.ts';
import { middleOf, stacksOf } from './stack.ts';
import type { Window } from './windows.ts';

/*
 * The slices through the middle of a scan as the scene draws them, computed from the few voxels that they need: they
 * are seen while the scene prepares all.
 */

/** A slice as it is seen: the patient's right on the left, or the front on the right; anterior or superior on top. */
export interface GreySlice {
  readonly columns: number;
  readonly rows: number;
  /** 0 to 255, row by row from the top left. */
  readonly grey: Uint8ClampedArray;
  readonly widthMm: number;
  /** The centre of the voxel in the middle of the scan, from the left and from the top, 0 to 1. */
  readonly middle: readonly [number, number];
}

/**
 * The slice of a plane through the voxel in the middle, of the first component. Between two layers of drawn voxels it is
 * interpolated, as textures are, after the window was applied.
 *
 * @param factor a drawn voxel is the mean of a block of so many along each axis
 */
export function middleSlice(scan: Volume, plane: Plane, factor: number, { level, width }: Window): GreySlice {
  const stacks = stacksOf(scan);
  const [across, down] = seen[plane].map((other) => stacks[other]);
  const { axis, count } = stacks[plane];
  // The middle voxel on the grid of the drawn ones.
  const places = middleOf(scan.size).map((index) => (index - (factor - 1) / 2) / factor);
  const place = places[axis];
  const last = Math.ceil(count / factor) - 1;
  const layer = Math.min(last, Math.max(0, Math.floor(place)));
  const share = Math.min(1, Math.max(0, place - layer));
  const isBetween = share > 0 && layer < last;
  const slab = slabOf(scan, axis, layer * factor, Math.min(count, (layer + (isBetween ? 2 : 1)) * factor));
  const { size, voxels } = reduce(slab, factor).reduced;
  const strides = [1, size[0], size[0] * size[1]];
  const [columns, rows] = [size[across.axis], size[down.axis]];
  /** Indices along an axis, from its end or from its beginning. */
  const along = (axis: 0 | 1 | 2, isFromEnd: boolean) => {
    const middle = (places[axis] + 0.5) / size[axis];
    return isFromEnd
      ? { start: (size[axis] - 1) * strides[axis], step: -strides[axis], middle: 1 - middle }
      : { start: 0, step: strides[axis], middle };
  };
  // What is right, or up, comes first.
  const isRightFirst = plane !== 'sagittal';
  const alongRow = along(across.axis, across.sign > 0 === isRightFirst);
  const alongColumn = along(down.axis, down.sign > 0);
  const toNext = isBetween ? strides[axis] : 0;
  const low = level - width / 2;
  const scale = 255 / width;
  const greyOf = (value: number) => (value > low ? Math.min(255, (value - low) * scale) : 0);
  const grey = new Uint8ClampedArray(columns * rows);
  for (let row = 0, out = 0; row < rows; row++) {
    let at = alongRow.start + alongColumn.start + row * alongColumn.step;
    for (let column = 0; column < columns; column++, at += alongRow.step) {
      const near = greyOf(voxels[at] as number);
      grey[out++] = isBetween ? near + share * (greyOf(voxels[at + toNext] as number) - near) : near;
    }
  }
  const widthMm = columns * factor * spacingOf(scan.affine)[across.axis];
  return { columns, rows, grey, widthMm, middle: [alongRow.middle, alongColumn.middle] };
}

/** The planes whose slices are counted along a row, and along a column, of what a plane shows. */
const seen: Readonly<Record<Plane, readonly [Plane, Plane]>> = {
  axial: ['sagittal', 'coronal'],
  coronal: ['sagittal', 'axial'],
  sagittal: ['coronal', 'axial'],
};

/** The planes from one index up to another, not included, across an axis; the first component. */
function slabOf(scan: Volume, axis: 0 | 1 | 2, from: number, to: number): Volume {
  const [nx, ny, nz] = scan.size;
  const size = scan.size.with(axis, to - from) as unknown as Vec3;
  const slab = (voxels: Volume['voxels']): Volume => ({ ...scan, size, components: 1, voxels });
  const { voxels } = scan;
  if (axis === 2) return slab(voxels.subarray(nx * ny * from, nx * ny * to) as Volume['voxels']);
  const copied = new (voxels.constructor as Float32ArrayConstructor)(voxelCount({ size }));
  const source = voxels as Float32Array;
  if (axis === 1) {
    for (let z = 0, out = 0; z < nz; z++, out += nx * (to - from))
      copied.set(source.subarray(nx * (from + ny * z), nx * (to + ny * z)), out);
  } else {
    for (let row = 0, out = 0; row < ny * nz; row++)
      for (let x = from; x < to; x++) copied[out++] = source[x + nx * row];
  }
  return slab(copied as Volume['voxels']);
}
