import { TomaatError } from '../errors.ts';
import type { Grid, Volume } from '../volume.ts';
import { type Affine, applyAffine, invert, multiply, type Vec3 } from './affine.ts';
import { checkGrid, inverseAffine } from './grid.ts';
import { type ResampleOptions, resample, sampleAt } from './resample.ts';
import { type FloatVoxels, type Positions, sampleLinearRow } from './sample.ts';
import { floatVoxels } from './voxel-type.ts';

/**
 * A map of world points, RAS+ mm, in ITK's direction: it maps a point of the OUTPUT (fixed image) to the point of the
 * INPUT (moving image) whose value it receives. So it moves an image in the opposite direction: a transform that adds
 * +10 mm to x shifts the image 10 mm towards −x. To move points of the moving image with it, use the inverse.
 *
 * A displacement grid has three components, the mm to add along R, A and S; between its voxels they are interpolated
 * linearly, and outside its field of view they are zero, as in ITK's DisplacementFieldTransform.
 */
export type PointTransform =
  | { readonly kind: 'linear'; readonly matrix: Affine }
  | { readonly kind: 'grid'; readonly displacement: Volume };

/** The point that the transform maps a point to, RAS+ mm. Throws BAD_INPUT for a displacement without three components. */
export function transformPoint(transform: PointTransform, point: Vec3): [number, number, number] {
  return transformPoints(transform, [point])[0];
}

/** The points that the transform maps these points to, RAS+ mm. */
export function transformPoints(
  transform: PointTransform,
  points: readonly Vec3[],
): [number, number, number][] {
  if (transform.kind === 'linear') return points.map((p) => applyAffine(transform.matrix, p));
  const at = positions(points.length);
  const move = displace(transform.displacement, points.length);
  points.forEach((p, i) => {
    at.px[i] = p[0];
    at.py[i] = p[1];
    at.pz[i] = p[2];
  });
  move(at);
  return points.map((_, i) => [at.px[i], at.py[i], at.pz[i]]);
}

/**
 * The volume seen through a transform: the voxel of `grid` at world point p receives the value of the volume at
 * transform(p). Borders, types and errors as in resample().
 */
export function resampleThrough(
  volume: Volume,
  grid: Grid,
  transform: PointTransform,
  options: ResampleOptions = {},
): Volume {
  if (transform.kind === 'linear') {
    let back: Affine;
    try {
      back = invert(transform.matrix);
    } catch (cause) {
      throw new TomaatError('BAD_INPUT', 'The matrix of the transform is singular. Give an invertible one.', {
        cause,
      });
    }
    return resample({ ...volume, affine: multiply(back, volume.affine) }, grid, options);
  }
  checkGrid(grid);
  const n = grid.size[0];
  const a = grid.affine;
  const toIndex = inverseAffine(volume.affine);
  const move = displace(transform.displacement, n);
  return sampleAt(volume, grid, options, (y, z, at) => {
    for (let x = 0; x < n; x++) {
      at.px[x] = a[0] * x + a[1] * y + a[2] * z + a[3];
      at.py[x] = a[4] * x + a[5] * y + a[6] * z + a[7];
      at.pz[x] = a[8] * x + a[9] * y + a[10] * z + a[11];
    }
    move(at);
    mapRow(toIndex, at, at, n);
  });
}

/** A function that adds the displacement to `n` world points, in place. */
function displace(field: Volume, n: number): (points: Positions) => void {
  if (field.components !== 3) {
    throw new TomaatError(
      'BAD_INPUT',
      `The displacement grid has ${field.components} components. Give 3 (mm along R, A, S).`,
    );
  }
  const count = field.size[0] * field.size[1] * field.size[2];
  const all = floatVoxels(field.voxels);
  const parts = [0, 1, 2].map((c) => all.subarray(c * count, (c + 1) * count) as FloatVoxels);
  const toIndex = inverseAffine(field.affine);
  const at = positions(n);
  const row = new Float64Array(n);
  return (points) => {
    mapRow(toIndex, points, at, n);
    [points.px, points.py, points.pz].forEach((coordinate, c) => {
      sampleLinearRow(row, n, parts[c], field.size, at, 0, false);
      for (let i = 0; i < n; i++) coordinate[i] += row[i];
    });
  };
}

function positions(n: number): Positions {
  return { px: new Float64Array(n), py: new Float64Array(n), pz: new Float64Array(n) };
}

/** Maps a row of points; `to` may be `from`. */
function mapRow(m: Affine, from: Positions, to: Positions, n: number): void {
  for (let i = 0; i < n; i++) {
    const x = from.px[i];
    const y = from.py[i];
    const z = from.pz[i];
    to.px[i] = m[0] * x + m[1] * y + m[2] * z + m[3];
    to.py[i] = m[4] * x + m[5] * y + m[6] * z + m[7];
    to.pz[i] = m[8] * x + m[9] * y + m[10] * z + m[11];
  }
}
