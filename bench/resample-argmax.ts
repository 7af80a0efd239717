import { type Affine, resampleArgmax, type Size, type Volume, voxelCount } from '@tomaat/core';
import { type BenchOptions, type BenchResult, median } from './report.ts';

/**
 * Turns scores of many classes into labels on a finer grid: time, peak memory, and the number of voxels that differ
 * from interpolating every class and taking the argmax (must be 0); then the same of probabilities. Quick: an eighth of the voxels.
 */

const classes = 25;

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const from: Size = quick ? [80, 80, 50] : [160, 160, 100];
  const to: Size = quick ? [192, 192, 100] : [384, 384, 200];
  const scores = makeScores(from);
  const grid = { size: to, affine: fieldOfView(to) };
  const times: number[] = [];
  let labels = resampleArgmax(scores, grid);
  for (let i = 0; i < 5; i++) {
    const start = performance.now();
    labels = resampleArgmax(scores, grid);
    times.push(performance.now() - start);
  }
  const peak = process.resourceUsage().maxRSS / 1024;
  times.sort((a, b) => a - b);
  const slabs = [0, 1, to[2] >> 1, to[2] - 1];
  const different = slabs.reduce((sum, z) => sum + differences(scores, labels, z), 0);
  console.log(`resampleArgmax  ${classes} classes  ${from.join('×')} → ${to.join('×')}`);
  console.log(
    `  time          ${times[2].toFixed(0)} ms (median of 5; ${times[0].toFixed(0)}-${times[4].toFixed(0)})`,
  );
  console.log(
    `  peak RSS      ${peak.toFixed(0)} MiB, of which scores ${(scores.voxels.byteLength / 2 ** 20).toFixed(0)} MiB`,
  );
  console.log(
    `  all classes   ${((voxelCount(grid) * classes * 4) / 2 ** 20).toFixed(0)} MiB at the target size (never held)`,
  );
  console.log(`  different     ${different} of ${slabs.length * to[0] * to[1]} voxels from brute force`);
  if (different) throw new Error('resampleArgmax differs from brute force');
  // Last, because probabilities replace the scores.
  const start = performance.now();
  resampleArgmax(scores, grid, { activation: 'softmax' });
  const softmaxMs = performance.now() - start;
  const grownMb = process.resourceUsage().maxRSS / 1024 - peak;
  console.log(`  with softmax  ${softmaxMs.toFixed(0)} ms, ${grownMb.toFixed(0)} MiB more at the peak`);
  return {
    lines: [
      { point: `${classes} classes to ${to.join('×')} labels`, measured: median(times), unit: 'ms' },
      { point: 'the same of probabilities (softmax)', measured: softmaxMs, unit: 'ms' },
      { point: 'the same, memory in addition', measured: grownMb, target: 100, unit: 'MB' },
    ],
  };
}

/** Both sizes cover the same field of view of 300 × 300 × 300 mm. */
function fieldOfView(size: Size): Affine {
  const [x, y, z] = size.map((n) => 300 / n);
  return [x, 0, 0, x / 2, 0, y, 0, y / 2, 0, 0, z, z / 2, 0, 0, 0, 1];
}

/** Smooth scores: each class is a blob, so that about a tenth of the cells lie on a border. */
function makeScores(from: Size): Volume & { voxels: Float32Array } {
  let seed = 7;
  const random = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
  const n = voxelCount({ size: from });
  const voxels = new Float32Array(n * classes);
  for (let k = 1; k < classes; k++) {
    const center = from.map((length) => (0.15 + 0.7 * random()) * length);
    const radius = (0.1 + 0.15 * random()) * from[0];
    let i = k * n;
    for (let z = 0; z < from[2]; z++) {
      for (let y = 0; y < from[1]; y++) {
        for (let x = 0; x < from[0]; x++) {
          const d2 = (x - center[0]) ** 2 + (y - center[1]) ** 2 + ((z - center[2]) * 1.6) ** 2;
          voxels[i++] = 4 * (1 - Math.sqrt(d2) / radius);
        }
      }
    }
  }
  return { voxels, size: from, components: classes, affine: fieldOfView(from) };
}

/** Voxels in slab z whose label is not the argmax of the interpolated classes. */
function differences(scores: Volume & { voxels: Float32Array }, labels: Volume, z: number): number {
  const n = voxelCount(scores);
  const [from, to] = [scores.size, labels.size];
  const axis = (target: number, index: number) => {
    const length = from[target];
    const p = Math.min(length - 1, Math.max(0, ((index + 0.5) * length) / to[target] - 0.5));
    const i = Math.min(Math.floor(p), length - 2);
    return { i, f: p - i };
  };
  const c = axis(2, z);
  let count = 0;
  for (let y = 0; y < to[1]; y++) {
    const b = axis(1, y);
    for (let x = 0; x < to[0]; x++) {
      const a = axis(0, x);
      let best = Number.NEGATIVE_INFINITY;
      let second = best;
      let label = 0;
      for (let k = 0; k < classes; k++) {
        let v = 0;
        for (let corner = 0; corner < 8; corner++) {
          const [dx, dy, dz] = [corner & 1, (corner >> 1) & 1, corner >> 2];
          const w = (dx ? a.f : 1 - a.f) * (dy ? b.f : 1 - b.f) * (dz ? c.f : 1 - c.f);
          v += w * scores.voxels[k * n + ((c.i + dz) * from[1] + b.i + dy) * from[0] + a.i + dx];
        }
        if (v > best) {
          second = best;
          best = v;
          label = k;
        } else if (v > second) second = v;
      }
      // Two classes that are equal up to the last bits of a double are not an error of either.
      if (label !== labels.voxels[(z * to[1] + y) * to[0] + x] && best - second > 1e-9) count++;
    }
  }
  return count;
}
