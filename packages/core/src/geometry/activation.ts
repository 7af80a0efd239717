import type { Size } from '../volume.ts';

/*
 * Probabilities from class scores, in the memory of the scores and in float32, as PyTorch computes them.
 */

export const activations = ['softmax', 'sigmoid'] as const;
/** 'softmax': exp(s) over the sum of exp of all classes of the voxel. 'sigmoid': 1 / (1 + exp(−s)), each class on its own. */
export type Activation = (typeof activations)[number];

/** Voxels that are computed together: their scores of all classes fit in the cache. */
const piece = 1024;

/**
 * Replaces planar scores (K classes of `count` voxels) by probabilities. A voxel with a score that is NaN or +∞ becomes
 * NaN in every class of a softmax.
 */
export function activate(voxels: Float32Array, count: number, activation: Activation): void {
  if (activation === 'sigmoid') {
    for (let i = 0; i < voxels.length; i++) voxels[i] = 1 / (1 + Math.exp(-voxels[i]));
    return;
  }
  const every = Int32Array.from({ length: Math.min(piece, count) }, (_, i) => i);
  for (let start = 0; start < count; start += piece)
    softmaxOf(voxels, count, start, every.subarray(0, Math.min(piece, count - start)));
}

/** The softmax of the voxels start + chosen[i]. */
function softmaxOf(voxels: Float32Array, count: number, start: number, chosen: Int32Array): void {
  const n = chosen.length;
  const classes = voxels.length / count;
  const values = new Float64Array(classes * n);
  const most = new Float64Array(n).fill(Number.NEGATIVE_INFINITY);
  const sum = new Float64Array(n);
  for (let k = 0, at = 0; k < classes; k++) {
    const base = k * count + start;
    for (let i = 0; i < n; i++, at++) {
      const v = voxels[base + chosen[i]];
      values[at] = v;
      if (v > most[i]) most[i] = v;
    }
  }
  for (let k = 0, at = 0; k < classes; k++) {
    for (let i = 0; i < n; i++, at++) {
      const below = values[at] - most[i];
      // Under exp(−104) a probability is 0 in float32, and nothing beside 1 in the sum.
      const e = below < -104 ? 0 : Math.exp(below);
      values[at] = e;
      sum[i] += e;
    }
  }
  for (let k = 0, at = 0; k < classes; k++) {
    const base = k * count + start;
    for (let i = 0; i < n; i++, at++) voxels[base + chosen[i]] = values[at] / sum[i];
  }
}

/**
 * The softmax of those voxels alone that are a corner of a cell with this mark: where all corners of a cell agree on the
 * class with the highest score, the scores are not interpolated. `cells` has one entry for each voxel, the cell's lowest corner.
 */
export function softmaxAtCells(voxels: Float32Array, size: Size, cells: Uint16Array, mark: number): void {
  const [nx, ny, nz] = size;
  const count = nx * ny * nz;
  const used = new Uint8Array(count);
  const stepX = nx > 1 ? 1 : 0;
  const stepY = ny > 1 ? nx : 0;
  const stepZ = nz > 1 ? nx * ny : 0;
  for (let i = 0; i < count; i++) {
    if (cells[i] !== mark) continue;
    // At the end of an axis a step leads into the next row, which costs a voxel more, or out of the array, which is ignored.
    for (let corner = 0; corner < 8; corner++)
      used[i + (corner & 1 ? stepX : 0) + (corner & 2 ? stepY : 0) + (corner & 4 ? stepZ : 0)] = 1;
  }
  const chosen = new Int32Array(piece);
  for (let start = 0; start < count; start += piece) {
    const end = Math.min(count, start + piece);
    let n = 0;
    for (let i = start; i < end; i++) if (used[i]) chosen[n++] = i - start;
    if (n > 0) softmaxOf(voxels, count, start, chosen.subarray(0, n));
  }
}
