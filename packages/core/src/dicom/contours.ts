import type { LabelVoxels } from '../labels/label-map.ts';
import type { Size } from '../volume.ts';
import { decimalString } from './build.ts';
import type { Vector } from './source.ts';

/*
 * The outlines of labels in the slices of a label map, by marching squares: the vertices of an outline are the
 * midpoints between a pixel of the label and a neighbour in its row or column that is not.
 */

/** A closed outline of one label in one slice. */
export interface Contour {
  readonly value: number;
  /** Index of the slice, starting at 0. */
  readonly slice: number;
  /**
   * The vertices x, y, x, y …, in half pixels from the centre of the first pixel: at least three, of which no three in
   * a row lie on a line. The first is not repeated. Valid until the next contour is traced.
   */
  readonly points: Int32Array;
}

/** By side of a pixel (top, right, bottom, left): the step outwards, and forwards along it, clockwise with y down. */
const outX = [0, 1, 0, -1] as const;
const outY = [-1, 0, 1, 0] as const;

/**
 * Traces every outline of every label, slice by slice, in one pass over the voxels. Values are from 1 to 65535; 0 is
 * the background.
 *
 * A pixel is in the label exactly if its centre is inside an odd number of the label's outlines. Pixels that touch
 * at a corner alone are not connected (4-connected), so that outlines meet neither themselves nor those of other labels.
 * A hole is an outline of its own. Outer outlines run clockwise as seen with x to the right and y down, those of holes
 * counterclockwise, so that readers that fill by winding number leave holes out, too. A single pixel is a diamond.
 */
export function* traceContours(voxels: LabelVoxels, [nx, ny, nz]: Size): Generator<Contour> {
  const width = nx + 2;
  // With a rim of background, so that no step leaves the slice.
  const pixels = new Uint16Array(width * (ny + 2));
  const isTraced = new Uint8Array(pixels.length);
  const tracer = createTracer(pixels, width, isTraced);
  for (let slice = 0; slice < nz; slice++) {
    for (let y = 0, from = slice * nx * ny; y < ny; y++, from += nx)
      pixels.set(voxels.subarray(from, from + nx), (y + 1) * width + 1);
    isTraced.fill(0);
    // Every outline has a pixel whose upper side is part of it: outer ones their highest, holes the one below them.
    for (let at = width; at < pixels.length - width; at++) {
      const value = pixels[at];
      if (value === 0 || pixels[at - width] === value || isTraced[at] === 1) continue;
      yield { value, slice, points: tracer(at) };
    }
  }
}

/** Follows the outline that begins at the upper side of a pixel, and marks the upper sides that are part of it. */
function createTracer(
  pixels: Uint16Array,
  width: number,
  isTraced: Uint8Array,
): (start: number) => Int32Array {
  const steps = [1, width, -1, -width];
  let points = new Int32Array(256);
  return (start) => {
    const value = pixels[start];
    let [pixel, side, count] = [start, 0, 0];
    let [x, y] = [(start % width) - 1, Math.floor(start / width) - 1];
    let [first, last] = [-1, -1];
    do {
      if (side === 0) isTraced[pixel] = 1;
      const [px, py] = [2 * x + outX[side], 2 * y + outY[side]];
      const ahead = pixel + steps[side];
      const diagonal = ahead + steps[(side + 3) % 4];
      // The direction to the next vertex: one of eight, each with a length of its own.
      let direction: number;
      if (pixels[ahead] !== value) {
        direction = 2 * side + 1;
        side = (side + 1) % 4;
      } else {
        x += outX[(side + 1) % 4];
        y += outY[(side + 1) % 4];
        if (pixels[diagonal] !== value) {
          direction = 2 * side;
          pixel = ahead;
        } else {
          direction = (2 * side + 7) % 8;
          x += outX[side];
          y += outY[side];
          pixel = diagonal;
          side = (side + 3) % 4;
        }
      }
      if (direction === last) continue;
      if (count === 0) first = direction;
      last = direction;
      if (count === points.length) points = enlarged(points);
      points[count++] = px;
      points[count++] = py;
    } while (pixel !== start || side !== 0);
    // The first vertex lies on a line with its neighbours.
    return points.subarray(last === first ? 2 : 0, count);
  };
}

function enlarged(points: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(points.length * 2);
  larger.set(points);
  return larger;
}

/** The plane of a slice: the centre of its first pixel and the steps from pixel to pixel, LPS mm. */
export interface SlicePlane {
  readonly position: Vector;
  readonly alongRow: Vector;
  readonly alongColumn: Vector;
}

/**
 * Creates an encoder of the vertices of contours as ContourData (PS3.3 C.8.8.6): x, y and z of each in LPS mm, as
 * decimal strings of at most 16 characters. They are rounded to a thousandth of `spacingMm` or finer, and to at most
 * 0.001 mm.
 */
export function createContourEncoder(
  spacingMm: number,
): (points: Int32Array, plane: SlicePlane) => Uint8Array {
  const decimals = Math.min(12, Math.max(3, Math.ceil(3 - Math.log10(spacingMm))));
  const scale = 10 ** decimals;
  let bytes = new Uint8Array(2 ** 12);
  return (points, { position, alongRow, alongColumn }) => {
    const longest = (points.length / 2) * 3 * longestNumber;
    if (bytes.length < longest) bytes = new Uint8Array(2 * longest);
    let at = 0;
    for (let i = 0; i < points.length; i += 2) {
      const [right, down] = [points[i] / 2, points[i + 1] / 2];
      for (let axis = 0; axis < 3; axis++) {
        if (at > 0) bytes[at++] = backslash;
        at = writeDecimal(bytes, at, position[axis] + right * alongRow[axis] + down * alongColumn[axis]);
      }
    }
    return bytes.slice(0, at);
  };

  function writeDecimal(to: Uint8Array, start: number, value: number): number {
    let rest = Math.round(Math.abs(value) * scale);
    let at = start;
    // With a sign and a point, 14 digits are what a decimal string holds.
    if (!(rest < 1e14))
      return at + new TextEncoder().encodeInto(decimalString(value), to.subarray(at)).written;
    if (value < 0 && rest > 0) to[at++] = minus;
    let places = decimals;
    for (; places > 0 && rest % 10 === 0; places--) rest /= 10;
    let digits = places + 1;
    for (let limit = 10 ** digits; limit <= rest; limit *= 10) digits++;
    const end = at + digits + (places > 0 ? 1 : 0);
    for (let i = end - 1; i >= at; i--) {
      if (i === end - 1 - places && places > 0) {
        to[i] = point;
        continue;
      }
      const next = Math.floor(rest / 10);
      to[i] = zero + rest - 10 * next;
      rest = next;
    }
    return end;
  }
}

/** Characters of a decimal string and the backslash before the next. */
const longestNumber = 17;
const [backslash, minus, point, zero] = [0x5c, 0x2d, 0x2e, 0x30];
