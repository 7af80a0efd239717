import { type Affine, applyAffine, determinant } from '../geometry/affine.ts';
import { createNumbers } from '../geometry/fixtures.ts';
import type { Volume } from '../volume.ts';
import type { Mesh } from './surface.ts';

/** Shared by the tests of surfaces: label maps in several frames, and measurements of meshes. */

export const rightHanded = [0.8, 0, 0, -5, 0, 1.1, 0, 9, 0, 0, 1.7, 2, 0, 0, 0, 1];
/** Rotated by 30° about z, mirrored, anisotropic. */
export const leftHanded = [-0.7, 0.55, 0, 10, 0.4, 0.95, 0, -20, 0, 0, 1.7, 30, 0, 0, 0, 1];

/** Sheared, left-handed, 0.9 × 1.3 × 2.1 mm and more: no number is 0. */
export const sheared = [-0.9, 0.3, 0.2, 10, 0.1, 1.3, -0.4, -20, 0.25, -0.15, 2.1, 30, 0, 0, 0, 1];

/** A ball of radius `mm` around the middle, or any other shape in voxel indices. */
export function shape(
  size: [number, number, number],
  affine: Affine,
  isIn: (x: number, y: number, z: number) => number,
): Volume {
  const voxels = new Uint8Array(size[0] * size[1] * size[2]);
  let i = 0;
  for (let z = 0; z < size[2]; z++) {
    for (let y = 0; y < size[1]; y++) for (let x = 0; x < size[0]; x++) voxels[i++] = isIn(x, y, z);
  }
  return { voxels, size, components: 1, affine };
}

export function ball(affine: Affine, radiusMm = 14): Volume {
  const size: [number, number, number] = [44, 36, 22];
  const middle = applyAffine(affine, [21.3, 17.6, 10.4]);
  return shape(size, affine, (x, y, z) => {
    const p = applyAffine(affine, [x, y, z]);
    return Math.hypot(p[0] - middle[0], p[1] - middle[1], p[2] - middle[2]) <= radiusMm ? 1 : 0;
  });
}

export function noise(size: [number, number, number] = [13, 11, 9]): Volume {
  const next = createNumbers(7);
  return shape(size, leftHanded, () => ((next() >>> 16) % 5 < 2 ? 1 : 0));
}

/** Reaches x = 1, y = 8 and z = 2 of its volume, in voxels of the sheared frame. */
export const egg = shape([13, 9, 11], sheared, (x, y, z) =>
  Math.hypot((x - 5) / 4.2, (y - 4.6) / 3.5, (z - 6) / 4.1) <= 1 ? 1 : 0,
);

/** Enclosed volume, mm³: positive if triangles are counter-clockwise seen from outside. */
export function enclosed({ positions: p, triangles: t }: Mesh): number {
  let sum = 0;
  for (let i = 0; i < t.length; i += 3) {
    const [a, b, c] = [t[i] * 3, t[i + 1] * 3, t[i + 2] * 3];
    sum +=
      p[a] * (p[b + 1] * p[c + 2] - p[b + 2] * p[c + 1]) -
      p[a + 1] * (p[b] * p[c + 2] - p[b + 2] * p[c]) +
      p[a + 2] * (p[b] * p[c + 1] - p[b + 1] * p[c]);
  }
  return sum / 6;
}

/** How many directed edges lack their opposite, and how many edges join more than two triangles. */
export function edges({ triangles: t, positions }: Mesh): { open: number; shared: number } {
  const n = positions.length / 3;
  const count = new Map<number, number>();
  for (let i = 0; i < t.length; i += 3) {
    for (const [a, b] of [
      [t[i], t[i + 1]],
      [t[i + 1], t[i + 2]],
      [t[i + 2], t[i]],
    ]) {
      count.set(a * n + b, (count.get(a * n + b) ?? 0) + 1);
    }
  }
  let open = 0;
  let shared = 0;
  for (const [key, times] of count) {
    const opposite = (key % n) * n + Math.floor(key / n);
    open += Math.abs(times - (count.get(opposite) ?? 0));
    if (times > 1) shared++;
  }
  return { open, shared };
}

export type Point = readonly number[];
export const triples = (values: Float32Array): Point[] =>
  Array.from({ length: values.length / 3 }, (_, i) => [...values.subarray(i * 3, i * 3 + 3)]);
export const sortedPoints = (points: readonly Point[]) =>
  points.map((p) => p.map((v) => (Math.round(v * 1e4) / 1e4 + 0).toFixed(4)).join(' ')).sort();
export const cross = (a: Point, b: Point): Point => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];
export const dot = (a: Point, b: Point) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

export function isInside({ voxels, size }: Volume, p: Point): boolean {
  return p.every((v, k) => v >= 0 && v < size[k]) && voxels[(p[2] * size[1] + p[1]) * size[0] + p[0]] !== 0;
}

function everyPlace(size: Point, from: number): Point[] {
  const along = size.map((n) => Array.from({ length: n - from }, (_, i) => i + from));
  return along[2].flatMap((z) => along[1].flatMap((y) => along[0].map((x) => [x, y, z])));
}

/** Faces between inside and outside voxels. */
export function faces(map: Volume): number {
  const steps = [0, 1, 2].map((axis) => [0, 1, 2].map((k) => Number(k === axis)));
  return everyPlace(map.size, -1).reduce((n, p) => {
    const crossed = steps.filter(
      (step) =>
        isInside(map, p) !==
        isInside(
          map,
          p.map((v, k) => v + step[k]),
        ),
    );
    return n + crossed.length;
  }, 0);
}

/** For each cell the mean of the midpoints between an inside corner and its outside neighbour, in world mm. */
export function cellVertices(map: Volume): Point[] {
  const corners = everyPlace([2, 2, 2], 0);
  return everyPlace(map.size, -1).flatMap((cell) => {
    const places = corners.map((c) => c.map((v, k) => v + cell[k]));
    const middles = places.flatMap((a) =>
      places
        .filter(
          (b) => Math.hypot(...a.map((v, k) => v - b[k])) === 1 && isInside(map, a) && !isInside(map, b),
        )
        .map((b) => a.map((v, k) => (v + b[k]) / 2)),
    );
    if (middles.length === 0) return [];
    const [x, y, z] = [0, 1, 2].map((k) => middles.reduce((sum, p) => sum + p[k], 0) / middles.length);
    return [applyAffine(map.affine, [x, y, z])];
  });
}

export const voxelVolume = (map: Volume) =>
  (map.voxels as Uint8Array).filter((v) => v !== 0).length * Math.abs(determinant(map.affine));
