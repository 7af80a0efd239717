import { TomaatError } from '../errors.ts';
import type { Vec3 } from '../geometry/affine.ts';
import { createLike } from '../geometry/voxel-type.ts';
import { copyNumbers, type Size, type Volume, type Voxels, voxelCount } from '../volume.ts';

/** A float32 copy of voxels with 0 in the place of NaN and ±Infinity. */
export function finiteFloat32(voxels: Voxels): Float32Array {
  const out = new Float32Array(voxels.length);
  copyNumbers(voxels, out);
  if (voxels instanceof Float32Array || voxels instanceof Float64Array) {
    for (let i = 0; i < out.length; i++) if (out[i] - out[i] !== 0) out[i] = 0;
  }
  return out;
}

/**
 * The volume convolved with a Gaussian, sigma in voxels along x, y, z (0 leaves an axis alone); float32. The kernel is
 * sampled, cut off at 4 sigma and normalized; at the border the volume is mirrored with its edge repeated: as
 * scipy.ndimage.gaussian_filter by default. NaN and ±Infinity count as 0.
 */
export function gaussianFilter(volume: Volume, sigma: Vec3): Volume {
  const { size, components } = volume;
  const n = voxelCount(volume);
  let voxels = finiteFloat32(volume.voxels);
  for (let axis = 0; axis < 3; axis++) {
    if (!(sigma[axis] > 0)) continue;
    const kernel = gaussianKernel(sigma[axis]);
    const out = new Float32Array(voxels.length);
    for (let c = 0; c < components; c++) {
      const from = voxels.subarray(c * n, (c + 1) * n);
      const to = out.subarray(c * n, (c + 1) * n);
      if (axis === 0) convolveRows(from, to, size, kernel);
      else convolveAcross(from, to, size, axis, kernel);
    }
    voxels = out;
  }
  return { voxels, size, components, affine: volume.affine };
}

/** Half a Gaussian: the weight of the middle, then those to one side; the whole sums to 1. */
function gaussianKernel(sigma: number): Float64Array {
  const radius = Math.floor(4 * sigma + 0.5);
  const kernel = Float64Array.from({ length: radius + 1 }, (_, i) =>
    Math.exp((-0.5 * i * i) / (sigma * sigma)),
  );
  const sum = kernel.reduce((total, w, i) => total + (i ? 2 * w : w), 0);
  return kernel.map((w) => w / sum);
}

/** Index i of an axis mirrored at its ends, the outermost voxels repeated: d c b a | a b c d | d c b a. */
function mirrored(i: number, n: number): number {
  const m = ((i % (2 * n)) + 2 * n) % (2 * n);
  return m < n ? m : 2 * n - 1 - m;
}

function convolveRows(from: Float32Array, to: Float32Array, size: Size, kernel: Float64Array): void {
  const [nx, ny, nz] = size;
  const radius = kernel.length - 1;
  const padded = new Float64Array(nx + 2 * radius);
  const index = Int32Array.from(padded, (_, i) => mirrored(i - radius, nx));
  for (let row = 0; row < ny * nz; row++) {
    const start = row * nx;
    for (let i = 0; i < padded.length; i++) padded[i] = from[start + index[i]];
    for (let x = 0; x < nx; x++) {
      const middle = x + radius;
      let sum = kernel[0] * padded[middle];
      for (let k = 1; k <= radius; k++) sum += kernel[k] * (padded[middle - k] + padded[middle + k]);
      to[start + x] = sum;
    }
  }
}

/** Along y or z: whole rows are added up, so that memory is read in order. */
function convolveAcross(
  from: Float32Array,
  to: Float32Array,
  size: Size,
  axis: number,
  kernel: Float64Array,
): void {
  const [nx, ny, nz] = size;
  const length = size[axis];
  const stride = axis === 1 ? nx : nx * ny;
  const others = axis === 1 ? nz : ny;
  const otherStride = axis === 1 ? nx * ny : nx;
  const sum = new Float64Array(nx);
  for (let other = 0; other < others; other++) {
    const base = other * otherStride;
    for (let i = 0; i < length; i++) {
      const at = base + i * stride;
      for (let x = 0; x < nx; x++) sum[x] = kernel[0] * from[at + x];
      for (let k = 1; k < kernel.length; k++) {
        const a = base + mirrored(i - k, length) * stride;
        const b = base + mirrored(i + k, length) * stride;
        const w = kernel[k];
        for (let x = 0; x < nx; x++) sum[x] += w * (from[a + x] + from[b + x]);
      }
      to.set(sum, at);
    }
  }
}

/** Sigma in voxels that keeps sampling `factor` times coarser from aliasing: max(0, (factor − 1) / 2) (scikit-image, MONAI). */
export function antiAliasSigma(factor: readonly number[]): Vec3 {
  const of = (f: number) => Math.max(0, (f - 1) / 2);
  return [of(factor[0]), of(factor[1]), of(factor[2])];
}

/**
 * The median of the (2 · radius + 1)³ voxels around each one; at the border the outermost voxels are repeated, as in
 * scipy.ndimage.median_filter with mode "nearest". The type stays; NaN sorts above all numbers. Throws BAD_INPUT for a
 * radius outside 1..5 and for 64-bit integers.
 */
export function medianFilter(volume: Volume, radius: number): Volume {
  if (!Number.isInteger(radius) || radius < 1 || radius > 5) {
    throw new TomaatError('BAD_INPUT', `A median of radius ${radius} voxels is not offered. Give 1 to 5.`);
  }
  const source = volume.voxels;
  if (source instanceof BigInt64Array || source instanceof BigUint64Array) {
    throw new TomaatError(
      'BAD_INPUT',
      'A median of 64-bit integers is not offered. Convert the volume to float32 first.',
    );
  }
  const [nx, ny, nz] = volume.size;
  const n = nx * ny * nz;
  const voxels = createLike(source, source.length);
  const side = 2 * radius + 1;
  const window = new Float64Array(side ** 3);
  const half = (window.length - 1) / 2;
  const clamp = (i: number, length: number) => (i < 0 ? 0 : i < length ? i : length - 1);
  const columns = Int32Array.from({ length: nx + 2 * radius }, (_, i) => clamp(i - radius, nx));
  for (let c = 0; c < volume.components; c++) {
    for (let z = 0; z < nz; z++) {
      for (let y = 0; y < ny; y++) {
        const rows: number[] = [];
        for (let k = -radius; k <= radius; k++) {
          for (let j = -radius; j <= radius; j++) {
            rows.push(c * n + (clamp(z + k, nz) * ny + clamp(y + j, ny)) * nx);
          }
        }
        const target = c * n + (z * ny + y) * nx;
        for (let x = 0; x < nx; x++) {
          let count = 0;
          for (let i = 0; i < side; i++) {
            const column = columns[x + i];
            for (const row of rows) window[count++] = source[row + column];
          }
          voxels[target + x] = selectKth(window, half);
        }
      }
    }
  }
  return { voxels, size: volume.size, components: volume.components, affine: volume.affine };
}

/** The k-th smallest value (Hoare's selection); overwrites the values. NaN counts as the largest. */
function selectKth(values: Float64Array, k: number): number {
  let numbers = values.length;
  for (let i = 0; i < numbers; ) {
    if (!Number.isNaN(values[i])) i++;
    else values[i] = values[--numbers];
  }
  if (k >= numbers) return Number.NaN;
  let low = 0;
  let high = numbers - 1;
  while (low < high) {
    const pivot = values[(low + high) >> 1];
    let i = low;
    let j = high;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i <= j) {
        const v = values[i];
        values[i++] = values[j];
        values[j--] = v;
      }
    }
    if (k <= j) high = j;
    else if (k >= i) low = i;
    else return values[k];
  }
  return values[low];
}
