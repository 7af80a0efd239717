/**
 * Affine maps as 16 numbers, row by row: [m00 m01 m02 m03, m10 …, 0 0 0 1]. A volume's affine maps a voxel index (x,
 * y, z) to world millimetres in RAS+ (x to the right, y to the front, z up).
 */
export type Affine = readonly number[];
export type Vec3 = readonly [number, number, number];

export const identity: Affine = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];

/** LPS+ to RAS+ and back: negates x and y. */
export const lpsToRas: Affine = [-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];

/** The map that applies `b` first, then `a`. */
export function multiply(a: Affine, b: Affine): Affine {
  const out = new Array<number>(16);
  for (let r = 0; r < 4; r++) {
    for (let c = 0; c < 4; c++) {
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += a[r * 4 + k] * b[k * 4 + c];
      out[r * 4 + c] = sum;
    }
  }
  return out;
}

/**
 * Determinant of the linear part: its sign distinguishes left-handed from right-handed, its magnitude is the voxel
 * volume in mm³.
 */
export function determinant(a: Affine): number {
  return (
    a[0] * (a[5] * a[10] - a[6] * a[9]) -
    a[1] * (a[4] * a[10] - a[6] * a[8]) +
    a[2] * (a[4] * a[9] - a[5] * a[8])
  );
}

/** The inverse map. Throws a RangeError if the linear part is singular or not finite. */
export function invert(a: Affine): Affine {
  const det = determinant(a);
  if (!Number.isFinite(det) || det === 0) throw new RangeError('the affine is singular');
  const i = [
    (a[5] * a[10] - a[6] * a[9]) / det,
    (a[2] * a[9] - a[1] * a[10]) / det,
    (a[1] * a[6] - a[2] * a[5]) / det,
    (a[6] * a[8] - a[4] * a[10]) / det,
    (a[0] * a[10] - a[2] * a[8]) / det,
    (a[2] * a[4] - a[0] * a[6]) / det,
    (a[4] * a[9] - a[5] * a[8]) / det,
    (a[1] * a[8] - a[0] * a[9]) / det,
    (a[0] * a[5] - a[1] * a[4]) / det,
  ];
  const t = (r: number) => -(i[r * 3] * a[3] + i[r * 3 + 1] * a[7] + i[r * 3 + 2] * a[11]);
  return [i[0], i[1], i[2], t(0), i[3], i[4], i[5], t(1), i[6], i[7], i[8], t(2), 0, 0, 0, 1];
}

/** The image of a point under the map. */
export function applyAffine(a: Affine, p: Vec3): [number, number, number] {
  return [
    a[0] * p[0] + a[1] * p[1] + a[2] * p[2] + a[3],
    a[4] * p[0] + a[5] * p[1] + a[6] * p[2] + a[7],
    a[8] * p[0] + a[9] * p[1] + a[10] * p[2] + a[11],
  ];
}

/** Distance between neighbouring voxels along each axis, mm. */
export function spacingOf(a: Affine): [number, number, number] {
  return [Math.hypot(a[0], a[4], a[8]), Math.hypot(a[1], a[5], a[9]), Math.hypot(a[2], a[6], a[10])];
}

/** World position of the first voxel's centre, RAS+, mm. */
export function originOf(a: Affine): [number, number, number] {
  return [a[3], a[7], a[11]];
}

/** Unit direction of each axis: the affine's linear part with its columns divided by the spacing, row by row. */
export function directionOf(a: Affine): number[] {
  const s = spacingOf(a);
  return [0, 1, 2].flatMap((r) => [0, 1, 2].map((c) => a[r * 4 + c] / s[c]));
}

/** The affine with this spacing (mm), these unit directions (3×3, row by row, one column per axis) and origin. */
export function composeAffine(spacing: Vec3, direction: readonly number[], origin: Vec3): Affine {
  const rows = [0, 1, 2].map((r) => [...[0, 1, 2].map((c) => direction[r * 3 + c] * spacing[c]), origin[r]]);
  return [...rows.flat(), 0, 0, 0, 1];
}

/**
 * A shift of the voxel index by `offset`, followed by the map: the affine of a volume whose first voxel was at
 * `offset`.
 */
export function shiftIndex(a: Affine, offset: Vec3): Affine {
  const [x, y, z] = applyAffine(a, offset);
  return [a[0], a[1], a[2], x, a[4], a[5], a[6], y, a[8], a[9], a[10], z, 0, 0, 0, 1];
}

/** Whether all numbers of two affines agree to within `tolerance` (mm). */
export function affinesEqual(a: Affine, b: Affine, tolerance = 1e-4): boolean {
  return a.every((v, i) => Math.abs(v - b[i]) <= tolerance);
}

/**
 * The anatomical direction that each axis points to, in nibabel's notation ("RAS", "LPI" …): axes are assigned by the
 * largest remaining component, so that each direction occurs once. Throws a RangeError if an axis has no direction: a
 * column that is not finite or is all zeros.
 */
export function orientationOf(a: Affine): string {
  const d = directionOf(a);
  if (!d.every(Number.isFinite)) throw new RangeError('an axis of the affine has no direction');
  const names = ['', '', ''];
  const free = { rows: new Set([0, 1, 2]), columns: new Set([0, 1, 2]) };
  for (let k = 0; k < 3; k++) {
    let best = { row: -1, column: -1, size: -1 };
    for (const row of free.rows) {
      for (const column of free.columns) {
        const size = Math.abs(d[row * 3 + column]);
        if (size > best.size) best = { row, column, size };
      }
    }
    free.rows.delete(best.row);
    free.columns.delete(best.column);
    const letters = ['LR', 'PA', 'IS'][best.row];
    names[best.column] = letters[d[best.row * 3 + best.column] > 0 ? 1 : 0];
  }
  return names.join('');
}
