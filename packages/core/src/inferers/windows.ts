import { TomaatError } from '../errors.ts';
import { roundHalfEven } from '../geometry/round.ts';
import type { Size } from '../volume.ts';

/** How windows are placed along an axis, and the corresponding importance map. */
export type Stepping = 'monai' | 'nnunet';
export type PaddingMode = 'constant' | 'reflect' | 'replicate';

/** The windows along one axis, computed on demand: an axis may be as long as a volume has voxels. */
export interface Windows {
  readonly count: number;
  /** First position of a window, counted from 0. */
  start(index: number): number;
}

/**
 * The start positions of the windows along one axis. A volume shorter than the window is padded on both sides (the
 * odd voxel after it), so the only window then starts at a negative position; an axis without voxels has none.
 *
 * 'monai': every ⌊roi·(1 − overlap)⌋ voxels (at least 1), the last window moved back inside the volume
 * (monai.data.utils.dense_patch_slices). 'nnunet': the fewest steps of at most roi·(1 − overlap), spread evenly
 * (nnunetv2 compute_steps_for_sliding_window; its tile_step_size is 1 − overlap).
 */
export function windowsAlong(length: number, roi: number, overlap: number, stepping: Stepping): Windows {
  if (length <= roi) {
    const start = 0 - Math.floor((roi - length) / 2); // 0 − 0, not −0
    return { count: Math.min(1, length), start: () => start };
  }
  const last = length - roi;
  if (stepping === 'nnunet') {
    // A step is at least one voxel: more windows would start at the same positions again.
    const steps = Math.min(last, Math.ceil(last / (roi * (1 - overlap))));
    return { count: steps + 1, start: (index) => roundHalfEven((last / steps) * index) };
  }
  const interval = Math.max(1, Math.floor(roi * (1 - overlap)));
  return { count: Math.ceil(last / interval) + 1, start: (index) => Math.min(last, index * interval) };
}

/** A weight is never 0, as the sums of the weights are divided by: far below what nnU-Net's σ of an eighth of the window gives. */
const leastWeight = 2 ** -100;

/**
 * The weight of each voxel of a window, x fastest, all positive. 'constant': 1. 'gaussian': σ = sigmaScale·roi along
 * each axis, centred on the window; smaller weights are raised to 0.001 (monai.data.utils.compute_importance_map).
 * With nnU-Net's stepping the centre is voxel ⌊roi/2⌋ and weights are not raised (nnunetv2 2.8.1 compute_gaussian, in
 * float32). nnU-Net keeps them in float16, ten times as large, and with that the sums: its results vary by this rounding.
 */
export function importanceMap(
  roi: Size,
  mode: 'constant' | 'gaussian',
  sigmaScale: number,
  stepping: Stepping,
): Float32Array {
  const map = new Float32Array(roi[0] * roi[1] * roi[2]);
  if (mode === 'constant') return map.fill(1);
  const [gx, gy, gz] = roi.map((n) => {
    const centre = stepping === 'nnunet' ? Math.floor(n / 2) : (n - 1) / 2;
    const sigma = n * sigmaScale;
    return Float32Array.from({ length: n }, (_, i) => Math.exp((i - centre) ** 2 / (-2 * sigma * sigma)));
  });
  let at = 0;
  for (let z = 0; z < roi[2]; z++) {
    for (let y = 0; y < roi[1]; y++) {
      const zy = Math.fround(gz[z] * gy[y]);
      for (let x = 0; x < roi[0]; x++, at++) map[at] = zy * gx[x];
    }
  }
  const floor = stepping === 'nnunet' ? leastWeight : 1e-3;
  for (let i = 0; i < map.length; i++) if (map[i] < floor) map[i] = floor;
  return map;
}

/**
 * For the positions start … start + roi − 1 along an axis of `length` voxels: the voxel to read there, or −1 for the
 * padding value. 'reflect' mirrors without repeating the edge voxel and, as in PyTorch, requires less padding than
 * there are voxels; throws BAD_INPUT otherwise.
 */
export function sourceIndices(start: number, roi: number, length: number, mode: PaddingMode): Int32Array {
  const before = Math.max(0, -start);
  const after = Math.max(0, start + roi - length);
  if (mode === 'reflect' && Math.max(before, after) >= length) {
    throw new TomaatError(
      'BAD_INPUT',
      `The volume has only ${length} voxels along one axis, too few to be reflected into a window of ${roi}. Send a larger volume; the author of the app can choose another paddingMode.`,
    );
  }
  return Int32Array.from({ length: roi }, (_, i) => {
    const at = start + i;
    if (at >= 0 && at < length) return at;
    if (mode === 'constant') return -1;
    if (mode === 'replicate') return at < 0 ? 0 : length - 1;
    return at < 0 ? -at : 2 * (length - 1) - at;
  });
}

/** Copies the window whose axes read these voxels from every component; `out` is [C, z, y, x]. */
export function extractWindow(
  voxels: Float32Array,
  size: Size,
  components: number,
  sources: readonly [x: Int32Array, y: Int32Array, z: Int32Array],
  paddingValue: number,
  out: Float32Array,
): void {
  const [xs, ys, zs] = sources;
  const inside = xs[0] >= 0 && xs[xs.length - 1] - xs[0] === xs.length - 1;
  let at = 0;
  for (let c = 0; c < components; c++) {
    for (let z = 0; z < zs.length; z++) {
      for (let y = 0; y < ys.length; y++, at += xs.length) {
        if (zs[z] < 0 || ys[y] < 0) {
          out.fill(paddingValue, at, at + xs.length);
          continue;
        }
        const row = ((c * size[2] + zs[z]) * size[1] + ys[y]) * size[0];
        if (inside) out.set(voxels.subarray(row + xs[0], row + xs[0] + xs.length), at);
        else for (let x = 0; x < xs.length; x++) out[at + x] = xs[x] < 0 ? paddingValue : voxels[row + xs[x]];
      }
    }
  }
}

/** Whether each of x, y and z is mirrored. */
export type Flip = readonly [x: boolean, y: boolean, z: boolean];

/** All combinations of the given axes, the unmirrored one first. */
export function mirrorings(axes: readonly ('x' | 'y' | 'z')[]): Flip[] {
  const used = (['x', 'y', 'z'] as const).filter((axis) => axes.includes(axis));
  return Array.from({ length: 2 ** used.length }, (_, bits) => {
    const on = used.filter((_axis, i) => (bits >> i) & 1);
    return [on.includes('x'), on.includes('y'), on.includes('z')];
  });
}

/** Mirrors [planes, z, y, x]: `out` receives the mirrored numbers, or, with `add`, is incremented by them. */
export function mirror(
  source: Float32Array,
  planes: number,
  size: Size,
  flip: Flip,
  out: Float32Array,
  add: boolean,
): void {
  const [nx, ny, nz] = size;
  let at = 0;
  for (let k = 0; k < planes; k++) {
    for (let z = 0; z < nz; z++) {
      const fz = flip[2] ? nz - 1 - z : z;
      for (let y = 0; y < ny; y++, at += nx) {
        const fy = flip[1] ? ny - 1 - y : y;
        const row = ((k * nz + fz) * ny + fy) * nx;
        const step = flip[0] ? -1 : 1;
        let from = flip[0] ? row + nx - 1 : row;
        if (add) for (let x = 0; x < nx; x++, from += step) out[at + x] += source[from];
        else for (let x = 0; x < nx; x++, from += step) out[at + x] = source[from];
      }
    }
  }
}
