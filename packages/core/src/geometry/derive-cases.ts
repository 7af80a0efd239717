import { bytesPerVoxel, type Grid, numericVoxels, type Size, type Volume, voxelTypeOf } from '../volume.ts';
import { applyAffine, composeAffine, directionOf, orientationOf, spacingOf, type Vec3 } from './affine.ts';
import { checkGrid, orientedGrid } from './grid.ts';
import { resample } from './resample.ts';

/*
 * Awkward cases from a plain one. On a grid whose voxels coincide with the network's (3 mm for 1.5 mm), stored in the network's
 * own order, a wrong pipeline gives the right labels; on these grids it does not.
 */

export interface DeriveOptions {
  /** Spacing of the network in mm: along the axes of `axcodes`, or with `keepOrder` along the stored ones. Default: the volume's own. */
  spacingMm?: Vec3;
  /** The orientation that the network sees. */
  axcodes?: string;
  /** Whether the order and signs of the stored axes stay, for pipelines that do not reorient (nnU-Net). */
  keepOrder?: boolean;
  /** Largest size of a derived volume: it is cropped around its centre. */
  maxBytes?: number;
}

export interface DerivedGrid {
  /** `axes`: another order of the axes (`spacing` with `keepOrder`), straight. `oblique`: once more another order, rotated by 7°. */
  readonly name: 'axes' | 'spacing' | 'oblique';
  readonly grid: Grid;
}

interface Recipe {
  /**
   * Times the spacing of the network, from its finest axis to its coarsest: a ratio of spacings above 3 stays one. To four digits,
   * as no plane of fewer than 5000 then lies halfway between two of the network's: where labels are restored by the nearest voxel,
   * rounding decides there, and differs between programs.
   */
  factors: Vec3;
  /** Fraction of the field of view that is kept, so that little of a rotated grid lies outside. */
  kept: number;
  degrees: number;
  /** The letters of the stored axes to those of the derived ones. */
  order(letters: readonly string[]): string[];
}

const opposite = (letter: string) => 'RLAPSI'['LRPAIS'.indexOf(letter)];
const straight: Recipe = {
  factors: [1.1317, 1.3693, 1.6127],
  kept: 0.94,
  degrees: 0,
  // A rotation of the three axes and two flips: the handedness stays.
  order: ([a, b, c]) => [opposite(c), a, opposite(b)],
};
const rotated: Recipe = {
  factors: [1.1871, 1.3119, 1.4713],
  kept: 0.88,
  degrees: 7,
  // Two axes exchanged and two flips: the other handedness.
  order: ([a, b, c]) => [b, opposite(a), opposite(c)],
};
/** Of the centre, in voxels: no plane lies halfway between two of the source. */
const offset = [0.137, -0.271, 0.193];

/** The two grids of the cases that are derived from a volume; always the same for the same volume. Throws BAD_INPUT for a singular affine. */
export function deriveGrids(volume: Volume, options: DeriveOptions = {}): DerivedGrid[] {
  const { keepOrder = false, axcodes = 'RAS', maxBytes = 64e6 } = options;
  const stored = [...orientationOf(volume.affine)];
  const base: Grid = keepOrder ? volume : orientedGrid(volume, axcodes);
  const most = maxBytes / (volume.components * bytesPerVoxel(voxelTypeOf(volume.voxels)));
  return [straight, rotated].map((recipe) => {
    const grid = gridOf(base, recipe, options.spacingMm, most);
    const name = recipe === rotated ? 'oblique' : keepOrder ? 'spacing' : 'axes';
    return { name, grid: checkGrid(keepOrder ? grid : orientedGrid(grid, recipe.order(stored).join(''))) };
  });
}

/** The volume on a derived grid: linear, in its own type; outside it the lowest value (air, or a removed background). */
export function deriveCase(volume: Volume, grid: Grid): Volume {
  let lowest = Number.POSITIVE_INFINITY;
  for (const value of numericVoxels(volume.voxels))
    if (value < lowest && Number.isFinite(value)) lowest = value;
  const fill = Number.isFinite(lowest) ? lowest : 0;
  return resample(volume, grid, { mode: 'linear', fill, type: voxelTypeOf(volume.voxels) });
}

function gridOf(
  base: Grid,
  { factors, kept, degrees }: Recipe,
  spacingMm: Vec3 | undefined,
  most: number,
): Grid {
  const own = spacingOf(base.affine);
  const wanted = spacingMm ?? own;
  const ranks = [0, 1, 2].sort((a, b) => wanted[a] - wanted[b]);
  const spacing = wanted.map((mm, axis) => mm * factors[ranks.indexOf(axis)]);
  const size = base.size.map((n, k) => Math.max(1, Math.floor((n * own[k] * kept) / spacing[k])));
  while (size[0] * size[1] * size[2] > most && Math.max(...size) > 1) {
    const longest = size.indexOf(Math.max(...size));
    size[longest] -= Math.ceil(size[longest] / 16);
  }
  const direction = multiply3(rotationBy(degrees), directionOf(base.affine));
  const linear = composeAffine(toVec(spacing), direction, [0, 0, 0]);
  const centre = applyAffine(base.affine, toVec(base.size.map((n) => (n - 1) / 2)));
  const first = applyAffine(linear, toVec(size.map((n, k) => (n - 1) / 2 + offset[k])));
  const origin = toVec(centre.map((mm, k) => mm - first[k]));
  return { size: toVec(size) as Size, affine: composeAffine(toVec(spacing), direction, origin) };
}

const toVec = ([x, y, z]: readonly number[]): Vec3 => [x, y, z];

/** The rotation about (1, 2, 3), which no axis of a scan is, 3×3 row by row (Rodrigues). */
function rotationBy(degrees: number): number[] {
  const angle = (degrees * Math.PI) / 180;
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  const [x, y, z] = [1, 2, 3].map((v) => v / Math.sqrt(14));
  const d = 1 - c;
  return [
    ...[c + x * x * d, x * y * d - z * s, x * z * d + y * s],
    ...[y * x * d + z * s, c + y * y * d, y * z * d - x * s],
    ...[z * x * d - y * s, z * y * d + x * s, c + z * z * d],
  ];
}

const multiply3 = (a: readonly number[], b: readonly number[]): number[] =>
  Array.from({ length: 9 }, (_, i) => {
    const [row, column] = [Math.floor(i / 3), i % 3];
    return [0, 1, 2].reduce((sum, k) => sum + a[row * 3 + k] * b[k * 3 + column], 0);
  });
