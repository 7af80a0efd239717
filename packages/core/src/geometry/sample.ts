import type { Size } from '../volume.ts';

/*
 * Values of one component at rows of positions. Positions are voxel coordinates: 0 is the first voxel's centre,
 * n − 1 the last one's.
 */

export const interpolations = ['nearest', 'linear', 'cubic'] as const;
/**
 * 'cubic' is the interpolating cubic B-spline, the same as order 3 in scipy, scikit-image (nnU-Net) and sitkBSpline.
 */
export type Interpolation = (typeof interpolations)[number];

/** Voxel coordinates of a row of positions. */
export interface Positions {
  readonly px: Float64Array;
  readonly py: Float64Array;
  readonly pz: Float64Array;
}

export type FloatVoxels = Float32Array | Float64Array;

/**
 * Tolerance, in voxels, at the border of the field of view and halfway between two voxels: float32 headers shift
 * positions by that much, and rows must not differ because of it.
 */
export const slack = 1e-5;

/** A row of positions on a straight line: position i is start + i · step. */
export interface Line {
  readonly start: Float64Array;
  readonly step: Float64Array;
}

/**
 * The positions of a line, one by one. A product, not a running sum, so that errors do not accumulate along the row.
 */
export function layOut(line: Line, n: number, at: Positions): void {
  const [sx, sy, sz] = line.start;
  const [dx, dy, dz] = line.step;
  const { px, py, pz } = at;
  for (let i = 0; i < n; i++) {
    px[i] = sx + dx * i;
    py[i] = sy + dy * i;
    pz[i] = sz + dz * i;
  }
}

/** For each position the offset of the nearest voxel (halfway: the higher one), −1 outside. */
export function sampleNearestRow(
  index: Int32Array,
  n: number,
  size: Size,
  at: Positions,
  edge: boolean,
): void {
  const { px, py, pz } = at;
  for (let i = 0; i < n; i++) index[i] = nearestOffset(px[i], py[i], pz[i], size[0], size[1], size[2], edge);
}

/** Like sampleNearestRow(), for positions on a line. */
export function sampleNearestLine(index: Int32Array, n: number, size: Size, line: Line, edge: boolean): void {
  const [nx, ny, nz] = size;
  const [sx, sy, sz] = line.start;
  const [dx, dy, dz] = line.step;
  // Within this run the rounded index is inside the volume on every axis.
  const half = 0.5 + slack;
  const [a, b] = innerRun(n, line, -half, nx - half, ny - half, nz - half);
  for (let i = 0; i < n; i++) {
    if (i === a) {
      for (; i < b; i++) {
        const x = (sx + dx * i + half) | 0;
        const y = (sy + dy * i + half) | 0;
        const z = (sz + dz * i + half) | 0;
        index[i] = (z * ny + y) * nx + x;
      }
      if (i >= n) break;
    }
    index[i] = nearestOffset(sx + dx * i, sy + dy * i, sz + dz * i, nx, ny, nz, edge);
  }
}

function nearestOffset(
  x: number,
  y: number,
  z: number,
  nx: number,
  ny: number,
  nz: number,
  edge: boolean,
): number {
  if (!edge && !(within(x, nx) && within(y, ny) && within(z, nz))) return -1;
  return (nearest(z, nz) * ny + nearest(y, ny)) * nx + nearest(x, nx);
}

function nearest(p: number, n: number): number {
  const i = Math.floor(p + 0.5 + slack);
  return i > 0 ? (i < n ? i : n - 1) : 0;
}

/**
 * The run [a, b) of positions on a line with low ≤ x < highX, and likewise for y and z; empty as [n, n). Its ends are
 * tested with the same arithmetic that the loops use, so rounding cannot shift them by one.
 */
export function innerRun(
  n: number,
  line: Line,
  low: number,
  highX: number,
  highY: number,
  highZ: number,
): [number, number] {
  let a = 0;
  let b = n;
  for (let axis = 0; axis < 3; axis++) {
    const s = line.start[axis];
    const d = line.step[axis];
    const high = axis === 0 ? highX : axis === 1 ? highY : highZ;
    if (d === 0) {
      if (!(s >= low && s < high)) return [n, n];
      continue;
    }
    const t0 = (low - s) / d;
    const t1 = (high - s) / d;
    a = Math.max(a, Math.ceil(Math.min(t0, t1)) - 1);
    b = Math.min(b, Math.floor(Math.max(t0, t1)) + 2);
  }
  const inside = (i: number) => {
    const x = line.start[0] + line.step[0] * i;
    const y = line.start[1] + line.step[1] * i;
    const z = line.start[2] + line.step[2] * i;
    return x >= low && y >= low && z >= low && x < highX && y < highY && z < highZ;
  };
  while (a < b && !inside(a)) a++;
  while (a < b && !inside(b - 1)) b--;
  return a < b ? [a, b] : [n, n];
}

/** Trilinear values; up to half a voxel outside, the border's; beyond that `fill` (or the border's with `edge`). */
export function sampleLinearRow(
  row: Float64Array,
  n: number,
  source: FloatVoxels,
  size: Size,
  at: Positions,
  fill: number,
  edge: boolean,
): void {
  const [nx, ny, nz] = size;
  const { px, py, pz } = at;
  for (let i = 0; i < n; i++) row[i] = linearAt(source, nx, ny, nz, px[i], py[i], pz[i], fill, edge);
}

/** Like sampleLinearRow(), for positions on a line, written from out[t] on. */
export function sampleLinearLine(
  out: FloatVoxels,
  t: number,
  n: number,
  source: FloatVoxels,
  size: Size,
  line: Line,
  fill: number,
  edge: boolean,
): void {
  const [nx, ny, nz] = size;
  const plane = nx * ny;
  const [sx, sy, sz] = line.start;
  const [dx, dy, dz] = line.step;
  const [first, end] = innerRun(n, line, 0, nx - 1, ny - 1, nz - 1);
  for (let i = 0; i < first; i++) {
    out[t + i] = linearAt(source, nx, ny, nz, sx + dx * i, sy + dy * i, sz + dz * i, fill, edge);
  }
  for (let i = first; i < end; i++) {
    const x = sx + dx * i;
    const y = sy + dy * i;
    const z = sz + dz * i;
    const ix = x | 0;
    const iy = y | 0;
    const iz = z | 0;
    const fx = x - ix;
    const fy = y - iy;
    const fz = z - iz;
    const a = iz * plane + iy * nx + ix;
    const b = a + nx;
    const c = a + plane;
    const d = c + nx;
    const sa = source[a];
    const sb = source[b];
    const sc = source[c];
    const sd = source[d];
    const va = sa + fx * (source[a + 1] - sa);
    const vb = sb + fx * (source[b + 1] - sb);
    const vc = sc + fx * (source[c + 1] - sc);
    const vd = sd + fx * (source[d + 1] - sd);
    const low = va + fy * (vb - va);
    out[t + i] = low + fz * (vc + fy * (vd - vc) - low);
  }
  for (let i = end; i < n; i++) {
    out[t + i] = linearAt(source, nx, ny, nz, sx + dx * i, sy + dy * i, sz + dz * i, fill, edge);
  }
}

function linearAt(
  source: FloatVoxels,
  nx: number,
  ny: number,
  nz: number,
  x: number,
  y: number,
  z: number,
  fill: number,
  edge: boolean,
): number {
  if (!edge && !(within(x, nx) && within(y, ny) && within(z, nz))) return fill;
  const cx = clamp(x, nx);
  const cy = clamp(y, ny);
  const cz = clamp(z, nz);
  const ix = Math.max(0, Math.min(Math.floor(cx), nx - 2));
  const iy = Math.max(0, Math.min(Math.floor(cy), ny - 2));
  const iz = Math.max(0, Math.min(Math.floor(cz), nz - 2));
  const fx = cx - ix;
  const fy = cy - iy;
  const fz = cz - iz;
  // Voxels of weight zero are not read: they may not exist, or may not be finite.
  let sum = 0;
  for (let k = 0; k < 2; k++) {
    const wz = k ? fz : 1 - fz;
    if (wz === 0) continue;
    for (let j = 0; j < 2; j++) {
      const wy = wz * (j ? fy : 1 - fy);
      if (wy === 0) continue;
      const at = ((iz + k) * ny + iy + j) * nx + ix;
      if (fx < 1) sum += wy * (1 - fx) * source[at];
      if (fx > 0) sum += wy * fx * source[at + 1];
    }
  }
  return sum;
}

function within(p: number, n: number): boolean {
  return p >= -0.5 - slack && p <= n - 0.5 + slack;
}

function clamp(p: number, n: number): number {
  return p > 0 ? (p < n - 1 ? p : n - 1) : 0;
}

/**
 * The coefficients of the interpolating cubic B-spline with mirrored ends (the outermost voxel is not repeated): a
 * recursive filter along each axis with the pole √3 − 2 (Unser, Aldroubi, Eden: B-spline signal processing, IEEE
 * Trans. Signal Processing 41, 1993).
 */
export function splineCoefficients(source: FloatVoxels, size: Size): FloatVoxels {
  const c = source.slice() as FloatVoxels;
  const [nx, ny, nz] = size;
  const plane = nx * ny;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) filterLines(c, z * plane + y * nx, nx, 1, 1, 0);
    filterLines(c, z * plane, ny, nx, nx, 1);
  }
  filterLines(c, 0, nz, plane, plane, 1);
  return c;
}

/** The filter along `n` samples with stride `step`, for `lines` lines at once with stride `apart`. */
export function filterLines(
  c: FloatVoxels,
  start: number,
  n: number,
  step: number,
  lines: number,
  apart: number,
): void {
  if (n < 2) return;
  const pole = Math.sqrt(3) - 2;
  const period = 2 * n - 2;
  // pole^40 is below the precision of a double.
  const first = new Float64Array(lines);
  for (let k = 0, power = 1; k < 40; k++, power *= pole) {
    const m = k % period;
    const at = start + (m < n ? m : period - m) * step;
    for (let l = 0; l < lines; l++) first[l] += power * c[at + l * apart];
  }
  for (let l = 0; l < lines; l++) c[start + l * apart] = 6 * first[l];
  for (let i = 1; i < n; i++) {
    const at = start + i * step;
    for (let l = 0; l < lines; l++)
      c[at + l * apart] = 6 * c[at + l * apart] + pole * c[at - step + l * apart];
  }
  const last = start + (n - 1) * step;
  const scale = pole / (pole * pole - 1);
  for (let l = 0; l < lines; l++) {
    c[last + l * apart] = scale * (c[last + l * apart] + pole * c[last - step + l * apart]);
  }
  for (let i = n - 2; i >= 0; i--) {
    const at = start + i * step;
    for (let l = 0; l < lines; l++) c[at + l * apart] = pole * (c[at + step + l * apart] - c[at + l * apart]);
  }
}

const weights = new Float64Array(12);
const offsets = new Int32Array(12);

/** Values of the cubic B-spline with these coefficients; borders as in sampleLinearRow(). */
export function sampleCubicRow(
  row: Float64Array,
  n: number,
  coefficients: FloatVoxels,
  size: Size,
  at: Positions,
  fill: number,
  edge: boolean,
): void {
  const [nx, ny, nz] = size;
  const { px, py, pz } = at;
  for (let i = 0; i < n; i++) {
    const x = px[i];
    const y = py[i];
    const z = pz[i];
    if (!edge && !(within(x, nx) && within(y, ny) && within(z, nz))) {
      row[i] = fill;
      continue;
    }
    splineTaps(0, clamp(x, nx), nx, 1);
    splineTaps(4, clamp(y, ny), ny, nx);
    splineTaps(8, clamp(z, nz), nz, nx * ny);
    let sum = 0;
    for (let c = 8; c < 12; c++) {
      let sumY = 0;
      for (let b = 4; b < 8; b++) {
        const start = offsets[c] + offsets[b];
        sumY +=
          weights[b] *
          (weights[0] * coefficients[start + offsets[0]] +
            weights[1] * coefficients[start + offsets[1]] +
            weights[2] * coefficients[start + offsets[2]] +
            weights[3] * coefficients[start + offsets[3]]);
      }
      sum += weights[c] * sumY;
    }
    row[i] = sum;
  }
}

/** The four taps of the cubic B-spline around p, mirrored at the ends. */
function splineTaps(slot: number, p: number, n: number, stride: number): void {
  const i = Math.floor(p);
  const t = p - i;
  const u = 1 - t;
  weights[slot] = (u * u * u) / 6;
  weights[slot + 1] = 2 / 3 - t * t * (1 - t / 2);
  weights[slot + 2] = 2 / 3 - u * u * (1 - u / 2);
  weights[slot + 3] = (t * t * t) / 6;
  const period = 2 * n - 2;
  for (let k = 0; k < 4; k++) {
    let m = i - 1 + k;
    if (n === 1) m = 0;
    else {
      if (m < 0) m = -m;
      m %= period;
      if (m >= n) m = period - m;
    }
    offsets[slot + k] = m * stride;
  }
}
