import type { Vec3 } from '../geometry/affine.ts';
import { sameGrid } from '../geometry/grid.ts';
import { restore } from '../geometry/restore.ts';
import { type Size, type Volume, voxelCount } from '../volume.ts';
import { diceOfLabels } from './dice.ts';
import { type LabelVoxels, labelVoxels } from './label-map.ts';

/** How one label of two label maps agrees. */
export interface LabelAgreement {
  readonly value: number;
  /** 2 |A ∩ B| / (|A| + |B|). */
  readonly dice: number;
  /** Voxels that have the label in the expected map, and in the found one. */
  readonly expected: number;
  readonly found: number;
}

/** How two label maps agree, voxel by voxel. */
export interface Agreement {
  readonly voxels: number;
  /** Voxels whose labels differ. */
  readonly differ: number;
  /** The fraction of voxels with equal labels, background included. */
  readonly agree: number;
  /** Every label that occurs in either map, without the background 0, ascending. */
  readonly labels: readonly LabelAgreement[];
  /** Whether both maps lie on one grid; otherwise the found one was resampled onto the expected one, by world position. */
  readonly sameGrid: boolean;
  readonly where: Whereabouts;
}

/** Where label maps differ, which tells the kind of fault. The counts overlap: a voxel may be in several. */
export interface Whereabouts {
  /** Differing voxels with a neighbour (of six) that has another label in the expected map. */
  readonly labelBorder: number;
  /** Differing voxels in the outermost layer of the grid. */
  readonly outerShell: number;
  /** A plane of the grid that has at least half of the differences. */
  readonly plane?: { readonly axis: 'x' | 'y' | 'z'; readonly index: number; readonly differ: number };
  /** Labels of which at least nine tenths of the voxels have one other value in the found map. */
  readonly replaced: readonly { readonly value: number; readonly by: number; readonly voxels: number }[];
  /** By how many voxels along x, y and z the labels of the found map lie further, if that explains three quarters of the differences. */
  readonly shift?: Vec3;
}

/**
 * Compares a label map with the expected one. On different grids the found map is resampled onto the expected grid
 * (nearest, by world position in RAS+ mm; 0 outside). Throws BAD_INPUT if a volume is not a label map.
 */
export function compareLabels(found: Volume, expected: Volume): Agreement {
  const isSame = sameGrid(found, expected, 1e-3);
  const placed = isSame ? { ...found, affine: expected.affine } : restore(found, expected);
  const [left, right] = [labelVoxels(placed), labelVoxels(expected)];
  const voxels = voxelCount(expected);
  const differing = findDifferences(left, right);
  const counts = [left, right].map(countLabels);
  const dice = diceOfLabels(placed, expected);
  return {
    voxels,
    differ: differing.length,
    agree: 1 - differing.length / voxels,
    labels: [...dice].map(([value, overlap]) => ({
      value,
      dice: overlap,
      found: counts[0].get(value) ?? 0,
      expected: counts[1].get(value) ?? 0,
    })),
    sameGrid: isSame,
    where: locate(left, right, differing, counts[1], expected.size),
  };
}

/** The lowest Dice of the labels, and the label that has it; 1 where there is no label. */
export function worstLabel(labels: readonly LabelAgreement[]): { dice: number; value: number } {
  return labels.reduce((worst, label) => (label.dice < worst.dice ? label : worst), { dice: 1, value: 0 });
}

/** A fraction of equal voxels as a percentage that reads 100 % only if none differs. */
export function formatAgreement(agree: number): string {
  return `${Math.floor(agree * 1e5 + 1e-6) / 1e3} %`;
}

/** How label maps agree, in words: the differing voxels and the lowest Dice. */
export function describeAgreement({ differ, voxels, agree, labels }: Agreement): string {
  const { dice } = worstLabel(labels);
  if (differ === 0) return `all ${voxels} voxels agree`;
  return `${differ} of ${voxels} voxels differ (${formatAgreement(agree)} agree), a Dice of at least ${dice.toFixed(4)}`;
}

/** Where label maps differ, in words; empty if nothing stands out. */
export function describeWhere({ where, differ }: Agreement): string[] {
  if (differ === 0) return [];
  const share = (n: number) => `${Math.floor((100 * n) / differ)} %`;
  const lines: string[] = [];
  for (const { value, by, voxels } of where.replaced)
    lines.push(
      by === 0
        ? `label ${value} is missing (${voxels} voxels are 0)`
        : `label ${value} is ${by} (${voxels} voxels)`,
    );
  if (where.shift) lines.push(`the labels lie further by (${where.shift.join(', ')}) voxels`);
  if (where.plane)
    lines.push(`${share(where.plane.differ)} in the plane ${where.plane.axis} = ${where.plane.index}`);
  if (2 * where.outerShell >= differ)
    lines.push(`${share(where.outerShell)} in the outermost layer of voxels`);
  if (2 * where.labelBorder >= differ) lines.push(`${share(where.labelBorder)} at borders of labels`);
  return lines;
}

function findDifferences(left: LabelVoxels, right: LabelVoxels): Uint32Array {
  let count = 0;
  for (let i = 0; i < right.length; i++) if (left[i] !== right[i]) count++;
  const differing = new Uint32Array(count);
  for (let i = 0, at = 0; at < count; i++) if (left[i] !== right[i]) differing[at++] = i;
  return differing;
}

/** Voxels of every value. Equal values come in runs, so the map is looked up once per run. */
function countLabels(voxels: LabelVoxels): Map<number, number> {
  const counts = new Map<number, number>();
  for (let i = 0; i < voxels.length; ) {
    const value = voxels[i];
    const first = i++;
    while (i < voxels.length && voxels[i] === value) i++;
    counts.set(value, (counts.get(value) ?? 0) + i - first);
  }
  return counts;
}

function locate(
  left: LabelVoxels,
  right: LabelVoxels,
  differing: Uint32Array,
  counts: ReadonlyMap<number, number>,
  size: Size,
): Whereabouts {
  const [nx, ny, nz] = size;
  const strides = [1, nx, nx * ny];
  const planes = size.map((n) => new Uint32Array(n));
  let labelBorder = 0;
  let outerShell = 0;
  for (const i of differing) {
    const at = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / strides[2])];
    let isBorder = false;
    let isShell = false;
    for (let k = 0; k < 3; k++) {
      planes[k][at[k]]++;
      // An axis of one voxel has no inside: a slice would be all shell.
      if (size[k] > 1 && (at[k] === 0 || at[k] === size[k] - 1)) isShell = true;
      if (at[k] > 0 && right[i - strides[k]] !== right[i]) isBorder = true;
      if (at[k] < size[k] - 1 && right[i + strides[k]] !== right[i]) isBorder = true;
    }
    if (isBorder) labelBorder++;
    if (isShell) outerShell++;
  }
  const plane = fullestPlane(planes, differing.length);
  const replaced = findReplaced(left, right, differing, counts);
  const shift = findShift(left, right, differing.length, [nx, ny, nz]);
  return { labelBorder, outerShell, ...(plane && { plane }), replaced, ...(shift && { shift }) };
}

function fullestPlane(planes: readonly Uint32Array[], differ: number): Whereabouts['plane'] {
  let best: Whereabouts['plane'];
  for (const [k, counts] of planes.entries()) {
    // Of a few planes one has half of the differences by chance.
    if (counts.length < 4) continue;
    for (const [index, count] of counts.entries())
      if (2 * count >= differ && count > (best?.differ ?? 0))
        best = { axis: (['x', 'y', 'z'] as const)[k], index, differ: count };
  }
  return best;
}

function findReplaced(
  left: LabelVoxels,
  right: LabelVoxels,
  differing: Uint32Array,
  counts: ReadonlyMap<number, number>,
): { value: number; by: number; voxels: number }[] {
  const pairs = new Map<number, Map<number, number>>();
  for (const i of differing) {
    if (right[i] === 0) continue;
    const others = pairs.get(right[i]) ?? new Map<number, number>();
    pairs.set(right[i], others);
    others.set(left[i], (others.get(left[i]) ?? 0) + 1);
  }
  const replaced: { value: number; by: number; voxels: number }[] = [];
  for (const [value, others] of [...pairs].sort(([a], [b]) => a - b))
    for (const [by, voxels] of others)
      if (voxels >= 0.9 * counts.get(value)!) replaced.push({ value, by, voxels });
  return replaced;
}

/** Rows of the search for a shift are so many that about this many voxels are compared for each. */
const searchedVoxels = 1 << 21;

/** The step to one of the 26 neighbours that leaves the fewest differences, if at most a quarter of those without it. */
function findShift(left: LabelVoxels, right: LabelVoxels, differ: number, size: Size): Vec3 | undefined {
  if (differ === 0) return undefined;
  const every = Math.max(1, Math.round(right.length / searchedVoxels));
  const without = differencesAfter(left, right, size, [0, 0, 0], every);
  let best: { shift: Vec3; left: number } | undefined;
  for (let k = 0; k < 27; k++) {
    const shift: Vec3 = [(k % 3) - 1, (Math.floor(k / 3) % 3) - 1, Math.floor(k / 9) - 1];
    if (k === 13 || shift.some((d, axis) => d !== 0 && size[axis] < 3)) continue;
    const count = differencesAfter(left, right, size, shift, every);
    if (!best || count < best.left) best = { shift, left: count };
  }
  return best && 4 * best.left <= without ? best.shift : undefined;
}

/** Voxels p of the inside, of every `every`-th row, where the found label at p + shift is not the one expected at p. */
function differencesAfter(
  left: LabelVoxels,
  right: LabelVoxels,
  [nx, ny, nz]: Size,
  [dx, dy, dz]: Vec3,
  every: number,
): number {
  const rim = (n: number) => (n < 3 ? 0 : 1);
  const [rx, ry, rz] = [rim(nx), rim(ny), rim(nz)];
  const offset = (dz * ny + dy) * nx + dx;
  let count = 0;
  let row = 0;
  for (let z = rz; z < nz - rz; z++) {
    for (let y = ry; y < ny - ry; y++) {
      if (row++ % every !== 0) continue;
      const start = (z * ny + y) * nx;
      for (let i = start + rx; i < start + nx - rx; i++) if (right[i] !== left[i + offset]) count++;
    }
  }
  return count;
}
