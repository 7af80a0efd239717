import { TomaatError } from '../errors.ts';
import { type Grid, type Size, type Volume, voxelCount } from '../volume.ts';
import { type Activation, activate, softmaxAtCells } from './activation.ts';
import type { Affine } from './affine.ts';
import { moveVoxels, voxelMove } from './exact.ts';
import type { Fit } from './fit.ts';
import { checkGrid, indexMap } from './grid.ts';
import { innerRun, type Line, slack } from './sample.ts';
import { type Rows, rowsInWorld, rowsOfFit } from './score-rows.ts';

/*
 * From class scores to labels on another grid in one pass. The scores on the target grid are never stored: where the
 * eight voxels around a position agree on the label, a convex combination of them preserves it, so only positions
 * near a border between labels are computed. This is exact in floating point too: the scores are float32, and
 * products and sums in double cannot reverse their order.
 */

/** Scores of K classes: planar float32 voxels, one component per class. */
export type Scores = Volume & { readonly voxels: Float32Array };

/** A cell whose corners disagree, or contain a non-finite score: it must be computed. */
const undecided = 0xffff;

/** The decision rule for a label: the class with the highest score, if it is greater than `floor`; otherwise 0. */
interface Contest {
  /** Planar scores of the competing classes. */
  readonly voxels: Float32Array;
  readonly classes: number;
  readonly floor: number;
  /** The label of the first class. */
  readonly firstLabel: number;
  /** The label of each voxel of the scores, or undecided. */
  readonly labels: Uint16Array;
  /** The scores become probabilities where they are interpolated. */
  readonly softmax?: boolean;
}

export interface ScoreOptions {
  /** The scores become probabilities first, in their own memory: afterwards `scores` holds some of each. */
  activation?: Activation;
  /** The scores go back through this fit onto its first grid, `grid`, and not by their place in the world. */
  fit?: Fit;
}

/**
 * The class with the highest score at every voxel of `grid`, with linearly interpolated scores; the lowest class wins
 * a tie. Equal to interpolating each class (in double, along y and z, then x) and taking the argmax. uint8 up to 256
 * classes, uint16 above. Up to half a voxel outside the outermost centres, the border's scores apply; beyond that the
 * label is 0. A NaN never wins.
 *
 * `scores`: K components of float32 voxels. Throws BAD_INPUT (other types, more than 65,534 classes, a singular
 * affine) and TOO_MANY_VOXELS.
 */
export function resampleArgmax(scores: Volume, grid: Grid, { activation, fit }: ScoreOptions = {}): Volume {
  const { voxels, components } = checkScores(scores);
  const n = voxelCount(scores);
  const softmax = activation === 'softmax';
  // The order of classes survives a softmax, so most voxels need none. A sigmoid makes large scores equal.
  if (activation === 'sigmoid') activate(voxels, n, activation);
  const labels = argmaxOfVoxels(voxels, n, components, softmax);
  const floor = Number.NEGATIVE_INFINITY;
  const contest = { voxels, classes: components, floor, firstLabel: 0, labels, softmax };
  return resampleLabels(scores, grid, contest, components > 256, fit);
}

/**
 * As resampleArgmax(), of a network without a background channel: the values are 1 + the class, and 0 where no
 * interpolated score is greater than `atMost`. uint8 up to 255 classes.
 */
export function resampleForeground(
  scores: Volume,
  atMost: number,
  grid: Grid,
  { activation, fit }: ScoreOptions = {},
): Volume {
  const { voxels, components } = checkScores(scores);
  const n = voxelCount(scores);
  if (activation) activate(voxels, n, activation);
  const labels = argmaxOfVoxels(voxels, n, components, false);
  const margin = marginOf(atMost);
  for (let i = 0; i < n; i++) {
    const winner = labels[i];
    if (winner === undecided) continue;
    const v = voxels[winner * n + i];
    labels[i] = v > atMost + margin ? winner + 1 : v < atMost - margin ? 0 : undecided;
  }
  const contest = { voxels, classes: components, floor: atMost, firstLabel: 1, labels };
  return resampleLabels(scores, grid, contest, components > 255, fit);
}

/** The value of the last rule whose channel, interpolated linearly, is greater than its `above`; 0 without one. */
export function resampleComposed(
  scores: Volume,
  rules: readonly { readonly channel: number; readonly above: number; readonly value: number }[],
  grid: Grid,
  { activation, fit }: ScoreOptions = {},
): Volume {
  const { voxels: all } = checkScores(scores);
  if (activation) activate(all, voxelCount(scores), activation);
  const wide = rules.some(({ value }) => value > 255);
  const count = voxelCount(grid);
  const voxels = wide ? new Uint16Array(count) : new Uint8Array(count);
  // One channel at a time: no buffer of all of them on the target grid.
  for (const { channel, above, value } of rules) {
    const mask = resampleThreshold(scores, channel, above, grid, { fit }).voxels as Uint8Array;
    for (let i = 0; i < count; i++) if (mask[i] !== 0) voxels[i] = value;
  }
  return { voxels, size: grid.size, components: 1, affine: grid.affine };
}

/** Values this close to a threshold are computed: rounding could cross it. */
const marginOf = (threshold: number): number => 1e-9 * Math.max(1e-30, Math.abs(threshold));

/**
 * 1 at every voxel of `grid` where one channel of the scores, interpolated linearly, is greater than `above`,
 * otherwise 0; uint8. Outside as in resampleArgmax(). Throws BAD_INPUT also for a channel that does not exist.
 */
export function resampleThreshold(
  scores: Volume,
  channel: number,
  above: number,
  grid: Grid,
  { activation, fit }: ScoreOptions = {},
): Volume {
  const { voxels: all, components } = checkScores(scores);
  if (!Number.isInteger(channel) || channel < 0 || channel >= components) {
    throw new TomaatError(
      'BAD_INPUT',
      `The scores have no channel ${channel}. Choose one from 0 to ${components - 1}.`,
    );
  }
  const n = voxelCount(scores);
  const voxels = all.subarray(channel * n, (channel + 1) * n);
  if (activation) activate(activation === 'sigmoid' ? voxels : all, n, activation);
  const margin = marginOf(above);
  const labels = new Uint16Array(n);
  for (let i = 0; i < n; i++) {
    const v = voxels[i];
    labels[i] = v > above + margin && v < Infinity ? 1 : v < above - margin && v > -Infinity ? 0 : undecided;
  }
  return resampleLabels(
    scores,
    grid,
    { voxels, classes: 1, floor: above, firstLabel: 1, labels },
    false,
    fit,
  );
}

function checkScores(scores: Volume): Scores {
  const { voxels, components } = scores;
  if (!(voxels instanceof Float32Array)) {
    throw new TomaatError('BAD_INPUT', 'Scores must be float32 voxels. Convert them first.');
  }
  if (components < 1 || components >= undecided) {
    throw new TomaatError(
      'BAD_INPUT',
      `Scores of ${components} classes cannot become labels: the limit is 65,534.`,
    );
  }
  if (voxels.length !== components * voxelCount(scores)) {
    throw new TomaatError(
      'BAD_INPUT',
      `The scores have ${voxels.length} values instead of ${components} × ${scores.size.join(' × ')}. Give one for each class and voxel.`,
    );
  }
  return scores as Scores;
}

/** Scores so close that their softmax may be the same float32: then the lower class wins. */
const nearTie = 1e-6;

/**
 * The argmax of each voxel, class by class over blocks that fit in the cache; undecided if not all scores are finite, or with
 * `distinct` if the next class is as good but for rounding.
 */
function argmaxOfVoxels(voxels: Float32Array, n: number, components: number, distinct: boolean): Uint16Array {
  const labels = new Uint16Array(n);
  const piece = Math.min(n, 4096);
  const best = new Float32Array(piece);
  const second = new Float32Array(piece);
  const finite = new Float32Array(piece);
  for (let start = 0; start < n; start += piece) {
    const count = Math.min(piece, n - start);
    best.fill(Number.NEGATIVE_INFINITY);
    second.fill(Number.NEGATIVE_INFINITY);
    finite.fill(0);
    for (let k = 0; k < components; k++) {
      const base = k * n + start;
      for (let i = 0; i < count; i++) {
        const v = voxels[base + i];
        // 0 for every finite number, NaN for the others.
        finite[i] += v - v;
        if (v > best[i]) {
          second[i] = best[i];
          best[i] = v;
          labels[start + i] = k;
        } else if (distinct && v > second[i]) second[i] = v;
      }
    }
    for (let i = 0; i < count; i++)
      if (finite[i] !== 0 || (distinct && best[i] - second[i] < nearTie)) labels[start + i] = undecided;
  }
  return labels;
}

/** For each cell (identified by its lowest corner), the label on which its corners agree, otherwise undecided. */
function agreeingCells(labels: Uint16Array, size: Size): Uint16Array {
  const cells = labels.slice();
  const [nx, ny, nz] = size;
  const n = nx * ny * nz;
  const pass = (step: number, length: number) => {
    for (let i = 0; i + step < n; i++) {
      if (cells[i] !== cells[i + step] && Math.floor(i / step) % length < length - 1) cells[i] = undecided;
    }
  };
  // In place: each pass combines a voxel with the next one, which the pass has not changed yet.
  pass(1, nx);
  pass(nx, ny);
  pass(nx * ny, nz);
  return cells;
}

function resampleLabels(source: Volume, grid: Grid, contest: Contest, wide: boolean, fit?: Fit): Volume {
  checkGrid(grid);
  const { size } = source;
  const { labels, voxels } = contest;
  const Type = wide ? Uint16Array : Uint8Array;

  const move = fit ? undefined : voxelMove(source, grid);
  if (move) {
    // Every voxel of the grid coincides with one of the scores: its label is taken without interpolation.
    if (contest.softmax) softmaxAtCells(voxels, size, labels, undecided);
    const own = new Type(labels.length);
    for (let i = 0; i < labels.length; i++) {
      own[i] = labels[i] !== undecided ? labels[i] : decideAt(contest, i, [0, 0, 0], 0, 0, 0);
    }
    return moveVoxels({ voxels: own, size, components: 1, affine: source.affine }, grid, move);
  }

  const cells = agreeingCells(labels, size);
  if (contest.softmax) softmaxAtCells(voxels, size, cells, undecided);
  const out = new Type(voxelCount(grid));
  const rows = fit ? rowsOfFit(source, fit) : rowsInWorld(source, grid);
  if (rows) fillAligned(out, grid, rows, size, cells, contest);
  else fillOblique(out, grid, indexMap(source, grid), size, cells, contest);
  return { voxels: out, size: grid.size, components: 1, affine: grid.affine };
}

type LabelVoxels = Uint8Array | Uint16Array;

/** If the target's rows run along the scores' rows, the location along x is the same in every row. */
function fillAligned(
  out: LabelVoxels,
  grid: Grid,
  { places, rowAt }: Rows,
  size: Size,
  cells: Uint16Array,
  contest: Contest,
): void {
  const [nx, ny, nz] = size;
  const [tx, ty, tz] = grid.size;
  const column = Int32Array.from(places, (place) => place.cell);
  const fraction = Float64Array.from(places, (place) => place.fraction);
  let first = 0;
  while (first < tx && column[first] < 0) first++;
  let end = tx;
  while (end > first && column[end - 1] < 0) end--;
  const run = createRun(tx, nx);
  const stepX = nx > 1 ? 1 : 0;
  const stepY = ny > 1 ? nx : 0;
  const stepZ = nz > 1 ? nx * ny : 0;

  for (let z = 0; z < tz; z++) {
    for (let y = 0; y < ty; y++) {
      const [atY, atZ] = rowAt(y, z);
      if (atY.cell < 0 || atZ.cell < 0) continue;
      const line = (atZ.cell * ny + atY.cell) * nx;
      const row = (z * ty + y) * tx;
      for (let x = first; x < end; x++) {
        const label = cells[line + column[x]];
        if (label !== undecided) {
          out[row + x] = label;
          continue;
        }
        let stop = x + 1;
        while (stop < end && cells[line + column[stop]] === undecided) stop++;
        decideRun(
          contest,
          run,
          x,
          stop,
          column,
          fraction,
          line,
          stepX,
          stepY,
          stepZ,
          atY.fraction,
          atZ.fraction,
        );
        for (let i = x; i < stop; i++) out[row + i] = run.label[i - x];
        x = stop - 1;
      }
    }
  }
}

interface Run {
  readonly columns: Float64Array;
  readonly best: Float64Array;
  readonly label: Uint16Array;
}

function createRun(length: number, columns: number): Run {
  return {
    columns: new Float64Array(columns),
    best: new Float64Array(length),
    label: new Uint16Array(length),
  };
}

/** The labels for a run of positions in one row: each class is blended along y and z once per column, then along x. */
function decideRun(
  contest: Contest,
  run: Run,
  from: number,
  to: number,
  column: Int32Array,
  fraction: Float64Array,
  line: number,
  stepX: number,
  stepY: number,
  stepZ: number,
  fy: number,
  fz: number,
): void {
  const { voxels, classes, floor, firstLabel, labels } = contest;
  const { columns, best, label } = run;
  const n = labels.length;
  const count = to - from;
  for (let i = 0; i < count; i++) {
    best[i] = floor;
    label[i] = 0;
  }
  const low = Math.min(column[from], column[to - 1]);
  const width = Math.max(column[from], column[to - 1]) + stepX - low + 1;
  const a0 = (1 - fy) * (1 - fz);
  const a1 = fy * (1 - fz);
  const a2 = (1 - fy) * fz;
  const a3 = fy * fz;
  for (let k = 0, start = line + low; k < classes; k++, start += n) {
    for (let i = 0; i < width; i++) {
      const at = start + i;
      columns[i] =
        a0 * voxels[at] + a1 * voxels[at + stepY] + a2 * voxels[at + stepZ] + a3 * voxels[at + stepY + stepZ];
    }
    for (let i = 0; i < count; i++) {
      const c = column[from + i] - low;
      const f = fraction[from + i];
      const v = (1 - f) * columns[c] + f * columns[c + stepX];
      if (v > best[i]) {
        best[i] = v;
        label[i] = firstLabel + k;
      }
    }
  }
}

function fillOblique(
  out: LabelVoxels,
  grid: Grid,
  map: Affine,
  size: Size,
  cells: Uint16Array,
  contest: Contest,
): void {
  const [nx, ny, nz] = size;
  const [tx, ty, tz] = grid.size;
  const plane = nx * ny;
  const steps = [nx > 1 ? 1 : 0, ny > 1 ? nx : 0, nz > 1 ? plane : 0];
  const line: Line = { start: new Float64Array(3), step: Float64Array.of(map[0], map[4], map[8]) };
  const [dx, dy, dz] = line.step;
  const low = -0.5 - slack;
  const lastX = Math.max(0, nx - 2);
  const lastY = Math.max(0, ny - 2);
  const lastZ = Math.max(0, nz - 2);

  for (let z = 0; z < tz; z++) {
    for (let y = 0; y < ty; y++) {
      for (let k = 0; k < 3; k++) line.start[k] = map[4 * k + 1] * y + map[4 * k + 2] * z + map[4 * k + 3];
      const [sx, sy, sz] = line.start;
      const [first, end] = innerRun(tx, line, low, nx - 0.5 + slack, ny - 0.5 + slack, nz - 0.5 + slack);
      const row = (z * ty + y) * tx;
      for (let x = first; x < end; x++) {
        const qx = sx + dx * x;
        const qy = sy + dy * x;
        const qz = sz + dz * x;
        // Within half a voxel outside, the border's scores apply: clamp to the centres.
        const px = qx > 0 ? (qx < nx - 1 ? qx : nx - 1) : 0;
        const py = qy > 0 ? (qy < ny - 1 ? qy : ny - 1) : 0;
        const pz = qz > 0 ? (qz < nz - 1 ? qz : nz - 1) : 0;
        let ix = px | 0;
        let iy = py | 0;
        let iz = pz | 0;
        if (ix > lastX) ix = lastX;
        if (iy > lastY) iy = lastY;
        if (iz > lastZ) iz = lastZ;
        const at = iz * plane + iy * nx + ix;
        const label = cells[at];
        out[row + x] = label !== undecided ? label : decideAt(contest, at, steps, px - ix, py - iy, pz - iz);
      }
    }
  }
}

/** The label at one position: offset of its cell's lowest corner, steps to the others, fractions along x, y, z. */
function decideAt(
  contest: Contest,
  at: number,
  steps: readonly number[],
  fx: number,
  fy: number,
  fz: number,
): number {
  const { voxels, classes, floor, firstLabel, labels } = contest;
  const n = labels.length;
  const stepX = steps[0];
  const a0 = (1 - fy) * (1 - fz);
  const a1 = fy * (1 - fz);
  const a2 = (1 - fy) * fz;
  const a3 = fy * fz;
  const gx = 1 - fx;
  let i0 = at;
  let i1 = at + steps[1];
  let i2 = at + steps[2];
  let i3 = i1 + steps[2];
  let best = floor;
  let label = 0;
  for (let k = 0; k < classes; k++) {
    const left = a0 * voxels[i0] + a1 * voxels[i1] + a2 * voxels[i2] + a3 * voxels[i3];
    const right =
      a0 * voxels[i0 + stepX] + a1 * voxels[i1 + stepX] + a2 * voxels[i2 + stepX] + a3 * voxels[i3 + stepX];
    const v = gx * left + fx * right;
    if (v > best) {
      best = v;
      label = firstLabel + k;
    }
    i0 += n;
    i1 += n;
    i2 += n;
    i3 += n;
  }
  return label;
}
