import { type Affine, applyAffine } from '../geometry/affine.ts';
import { createNearestPoint } from '../geometry/nearest.ts';
import type { Size, Volume } from '../volume.ts';
import { type LabelVoxels, labelVoxels } from './label-map.ts';

/** How far the surfaces of one label lie apart in two label maps, mm. */
export interface SurfaceDistance {
  /** Mean of the distances of all surface voxels of both maps to the other surface (average symmetric surface distance). */
  readonly mean: number;
  /** The larger of both directions' 95th percentiles, between two values in proportion, as NumPy and MONAI have it. */
  readonly hausdorff95: number;
  /** The largest distance (Hausdorff). */
  readonly hausdorff: number;
}

/**
 * Surface distances of every label that occurs in both label maps, which lie on one grid: between the centres, RAS+ mm, of
 * surface voxels, which are those with a neighbour (of six) that does not have the label, or at the edge of the grid.
 * These are the surfaces and distances of MONAI's `compute_average_surface_distance(symmetric=True)` and
 * `compute_hausdorff_distance`; here they are right on sheared grids as well.
 *
 * A label with more than 20 million surface voxels, which is noise, is left out.
 *
 * @throws {TomaatError} BAD_INPUT if a volume is not a label map
 */
export function surfaceDistances(found: Volume, expected: Volume): Map<number, SurfaceDistance> {
  const { size, affine } = expected;
  const maps = [labelVoxels(found), labelVoxels(expected)] as const;
  const surfaces = maps.map((voxels) => findSurfaces(voxels, size));
  const distances = new Map<number, SurfaceDistance>();
  for (const value of [...surfaces[0].keys()].sort((a, b) => a - b)) {
    const [ours, theirs] = surfaces.map((surface) => surface.get(value));
    if (ours && theirs) distances.set(value, between(ours, theirs, size, affine));
  }
  return distances;
}

function between(ours: Uint32Array, theirs: Uint32Array, size: Size, affine: Affine): SurfaceDistance {
  const ways = [distancesTo(theirs, ours, size, affine), distancesTo(ours, theirs, size, affine)];
  const sum = ways.reduce((total, way) => way.reduce((a, b) => a + b, total), 0);
  for (const way of ways) way.sort();
  return {
    mean: sum / (ours.length + theirs.length),
    hausdorff95: Math.max(...ways.map((way) => percentile(way, 0.95))),
    hausdorff: Math.max(...ways.map((way) => way[way.length - 1])),
  };
}

/** The distance of each of the voxels `from` to the nearest of `to`, mm. */
function distancesTo(to: Uint32Array, from: Uint32Array, size: Size, affine: Affine): Float64Array {
  const nearest = createNearestPoint(positionsOf(to, size, affine));
  const positions = positionsOf(from, size, affine);
  const distances = new Float64Array(from.length);
  // Both lists ascend: a voxel in both is found without a search.
  for (let i = 0, k = 0; i < from.length; i++) {
    while (k < to.length && to[k] < from[i]) k++;
    if (to[k] !== from[i])
      distances[i] = nearest.distance(positions[3 * i], positions[3 * i + 1], positions[3 * i + 2]);
  }
  return distances;
}

function positionsOf(indices: Uint32Array, [nx, ny]: Size, affine: Affine): Float64Array {
  const positions = new Float64Array(3 * indices.length);
  for (const [i, index] of indices.entries()) {
    const row = Math.floor(index / nx);
    positions.set(applyAffine(affine, [index - row * nx, row % ny, Math.floor(row / ny)]), 3 * i);
  }
  return positions;
}

/** `share` of the way through sorted values, linear between two (method 7 of Hyndman and Fan 1996). */
function percentile(sorted: Float64Array, share: number): number {
  const at = (sorted.length - 1) * share;
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}

/** Positions take 24 bytes each, of two maps. */
const mostSurfaceVoxels = 20e6;

/** Indices of the surface voxels of each label but 0, ascending. */
function findSurfaces(voxels: LabelVoxels, size: Size): Map<number, Uint32Array> {
  const counts = new Map<number, number>();
  eachSurfaceVoxel(voxels, size, (value) => counts.set(value, (counts.get(value) ?? 0) + 1));
  const measured = [...counts].filter(([, count]) => count <= mostSurfaceVoxels);
  const surfaces = new Map(measured.map(([value, count]) => [value, new Uint32Array(count)]));
  const filled = new Map<number, number>();
  eachSurfaceVoxel(voxels, size, (value, index) => {
    const surface = surfaces.get(value);
    if (!surface) return;
    const at = filled.get(value) ?? 0;
    surface[at] = index;
    filled.set(value, at + 1);
  });
  return surfaces;
}

function eachSurfaceVoxel(
  voxels: LabelVoxels,
  [nx, ny, nz]: Size,
  visit: (value: number, index: number) => void,
): void {
  const slice = nx * ny;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      const isEdge = z === 0 || z === nz - 1 || y === 0 || y === ny - 1;
      const start = z * slice + y * nx;
      for (let x = 0; x < nx; x++) {
        const i = start + x;
        const value = voxels[i];
        if (value === 0) continue;
        const isInside =
          !isEdge &&
          x > 0 &&
          x < nx - 1 &&
          voxels[i - 1] === value &&
          voxels[i + 1] === value &&
          voxels[i - nx] === value &&
          voxels[i + nx] === value &&
          voxels[i - slice] === value &&
          voxels[i + slice] === value;
        if (!isInside) visit(value, i);
      }
    }
  }
}
