import { type Grid, invert, multiply, sameGrid, type Volume, voxelCount } from '@tomaat/core';
import { firstComponent, type Voxels } from './reduce.ts';

/**
 * A label map on another grid, on which no label vanishes. A voxel has the label of the nearest voxel of the map, or,
 * before that, a label of which a voxel's centre lies in it: where there are several, the one with the fewest voxels
 * in the map. Of the first component; the same voxels if the grid is the map's.
 */
export function labelsOn(map: Volume, { size, affine }: Grid): Volume {
  const whole = firstComponent(map);
  if (sameGrid(map, { size, affine })) return { ...map, components: 1, voxels: whole as Volume['voxels'] };
  const voxels = new (whole.constructor as Float32ArrayConstructor)(voxelCount({ size }));
  const grid = { size, affine };
  fillNearest(voxels, grid, whole, map);
  let counts: Map<number, number> | undefined;
  const nearest = nearestOfRows(map, grid);
  const [nx, ny, nz] = map.size;
  let from = 0;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++, from += nx) {
      const places = nearest(y, z);
      for (let x = 0; x < nx; x++) {
        const value = whole[from + x];
        if (!(value > 0 || value < 0)) continue;
        const at = places[x];
        if (at < 0) continue;
        const other = voxels[at];
        if (other === value) continue;
        if (other !== 0) {
          counts ??= countLabels(whole);
          if (counts.get(value)! >= counts.get(other)!) continue;
        }
        voxels[at] = value;
      }
    }
  }
  return { ...grid, components: 1, voxels: voxels as Volume['voxels'] };
}

/** Fills a grid with the nearest voxels of a map, where it has any. */
function fillNearest(out: Voxels, grid: Grid, whole: Voxels, map: Grid): void {
  const nearest = nearestOfRows(grid, map);
  const [mx, my, mz] = grid.size;
  let to = 0;
  for (let z = 0; z < mz; z++) {
    for (let y = 0; y < my; y++, to += mx) {
      const places = nearest(y, z);
      for (let x = 0; x < mx; x++) {
        const at = places[x];
        if (at < 0) continue;
        const value = whole[at];
        if (value > 0 || value < 0) out[to + x] = value;
      }
    }
  }
}

/**
 * For rows along the first axis of a grid: the numbers of the nearest voxels in another one, -1 beyond it. The
 * same array for each row.
 */
function nearestOfRows(from: Grid, to: Grid): (y: number, z: number) => Int32Array {
  const [nx] = from.size;
  const [mx, my, mz] = to.size;
  const m = multiply(invert(to.affine), from.affine);
  const places = new Int32Array(nx);
  // Along a row that is parallel to the other grid's, only the first index changes; a millionth of a voxel is rounding.
  const isParallel = Math.max(Math.abs(m[4]), Math.abs(m[8])) * nx < 1e-6;
  return (y, z) => {
    const i0 = m[1] * y + m[2] * z + m[3];
    const j0 = m[5] * y + m[6] * z + m[7];
    const k0 = m[9] * y + m[10] * z + m[11];
    if (isParallel) {
      const j = Math.round(j0);
      const k = Math.round(k0);
      if (!(j >= 0 && k >= 0 && j < my && k < mz)) return places.fill(-1);
      const row = mx * (j + my * k);
      for (let x = 0; x < nx; x++) {
        const i = Math.round(m[0] * x + i0);
        places[x] = i >= 0 && i < mx ? row + i : -1;
      }
      return places;
    }
    for (let x = 0; x < nx; x++) {
      const i = Math.round(m[0] * x + i0);
      const j = Math.round(m[4] * x + j0);
      const k = Math.round(m[8] * x + k0);
      places[x] = i >= 0 && j >= 0 && k >= 0 && i < mx && j < my && k < mz ? i + mx * (j + my * k) : -1;
    }
    return places;
  };
}

function countLabels(whole: Voxels): Map<number, number> {
  const counts = new Map<number, number>();
  for (let i = 0; i < whole.length; ) {
    const value = whole[i];
    const start = i++;
    while (i < whole.length && whole[i] === value) i++;
    counts.set(value, (counts.get(value) ?? 0) + i - start);
  }
  return counts;
}
