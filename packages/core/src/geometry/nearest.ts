/** Finds the nearest of many points. */
export interface NearestPoint {
  /**
   * Distance from a position to the nearest point. Positions that follow each other closely are found faster.
   */
  distance(x: number, y: number, z: number): number;
}

/** Points of a cell that is not divided further. */
const cellPoints = 12;

/**
 * A k-d tree (Bentley 1975) of points in any Cartesian frame, divided at the median of the longest side. The
 * distances are exact up to the rounding of float64.
 *
 * @param points x, y, z of each point, at least one; the array is reordered and kept
 */
export function createNearestPoint(points: Float64Array): NearestPoint {
  const count = points.length / 3;
  const axes = new Uint8Array(count);
  divide(points, axes, 0, count);
  let last = 0;
  let best = 0;

  const measure = (i: number, x: number, y: number, z: number) => {
    const dx = points[3 * i] - x;
    const dy = points[3 * i + 1] - y;
    const dz = points[3 * i + 2] - z;
    const squared = dx * dx + dy * dy + dz * dz;
    if (squared >= best) return;
    best = squared;
    last = i;
  };
  const look = (from: number, to: number, x: number, y: number, z: number): void => {
    if (to - from <= cellPoints) {
      for (let i = from; i < to; i++) measure(i, x, y, z);
      return;
    }
    const middle = (from + to) >> 1;
    const axis = axes[middle];
    const beyond = (axis === 0 ? x : axis === 1 ? y : z) - points[3 * middle + axis];
    measure(middle, x, y, z);
    if (beyond < 0) look(from, middle, x, y, z);
    else look(middle + 1, to, x, y, z);
    if (beyond * beyond >= best) return;
    if (beyond < 0) look(middle + 1, to, x, y, z);
    else look(from, middle, x, y, z);
  };
  return {
    distance(x, y, z) {
      best = Number.POSITIVE_INFINITY;
      measure(last, x, y, z);
      look(0, count, x, y, z);
      return Math.sqrt(best);
    },
  };
}

/** Orders the points from `from` to `to` (exclusive) so that the middle one divides them along `axes[middle]`, and so on in both halves. */
function divide(points: Float64Array, axes: Uint8Array, from: number, to: number): void {
  if (to - from <= cellPoints) return;
  const axis = longestSide(points, from, to);
  const middle = (from + to) >> 1;
  axes[middle] = axis;
  select(points, axis, from, to - 1, middle);
  divide(points, axes, from, middle);
  divide(points, axes, middle + 1, to);
}

function longestSide(points: Float64Array, from: number, to: number): number {
  let [longest, axis] = [-1, 0];
  for (let k = 0; k < 3; k++) {
    let [low, high] = [points[3 * from + k], points[3 * from + k]];
    for (let i = from + 1; i < to; i++) {
      const value = points[3 * i + k];
      if (value < low) low = value;
      else if (value > high) high = value;
    }
    if (high - low > longest) [longest, axis] = [high - low, k];
  }
  return axis;
}

/**
 * Hoare's selection: afterwards no point before `nth` lies further along the axis than it, and none after it less far. Equal
 * values, of which grids are full, are exchanged, so that both parts stay of about one length.
 */
function select(points: Float64Array, axis: number, from: number, to: number, nth: number): void {
  let [left, right] = [from, to];
  while (left < right) {
    const pivot = points[3 * ((left + right) >> 1) + axis];
    let [i, j] = [left, right];
    while (i <= j) {
      while (points[3 * i + axis] < pivot) i++;
      while (points[3 * j + axis] > pivot) j--;
      if (i > j) break;
      swap(points, i++, j--);
    }
    if (nth <= j) right = j;
    else if (nth >= i) left = i;
    else return;
  }
}

function swap(points: Float64Array, i: number, j: number): void {
  for (let k = 0; k < 3; k++) {
    const value = points[3 * i + k];
    points[3 * i + k] = points[3 * j + k];
    points[3 * j + k] = value;
  }
}
