import { describe, expect, it } from 'vitest';
import type { Size } from '../volume.ts';
import { createContourEncoder, traceContours } from './contours.ts';

/** The outlines of a drawing, in which a letter is a pixel: a is 1, b is 2. Vertices are [x, y] in pixels. */
function outlinesOf(...rows: readonly string[]) {
  const voxels = Uint8Array.from([...rows.join('')], (letter) =>
    letter === '.' ? 0 : letter.charCodeAt(0) - 96,
  );
  return outlines(voxels, [rows[0].length, rows.length, 1]);
}

const outlines = (voxels: Uint8Array | Int32Array, size: Size) =>
  Array.from(traceContours(voxels, size), ({ value, slice, points }) => ({
    value,
    slice,
    points: Array.from({ length: points.length / 2 }, (_, i) => [points[2 * i] / 2, points[2 * i + 1] / 2]),
  }));

/** Twice the area, positive if the vertices run clockwise with y down (Gauss’s area formula). */
const doubleArea = (points: readonly number[][]) =>
  points.reduce((sum, [x, y], i) => {
    const [nextX, nextY] = points[(i + 1) % points.length];
    return sum + x * nextY - nextX * y;
  }, 0);

describe('traceContours()', () => {
  it('makes a diamond of a single pixel, clockwise with y down', () => {
    expect(outlinesOf('...', '.b.')).toEqual([
      { value: 2, slice: 0, points: [[1, 0.5], [1.5, 1], [1, 1.5], [0.5, 1]] },
    ]); // biome-ignore format: points
  });

  it('merges vertices on a line, also over the first one', () => {
    expect(outlinesOf('.....', '.aaa.', '.aaa.')[0].points).toEqual([
      [1, 0.5], [3, 0.5], [3.5, 1], [3.5, 2], [3, 2.5], [1, 2.5], [0.5, 2], [0.5, 1],
    ]); // biome-ignore format: points
    // The steps of a diagonal, and a start in the middle of one.
    expect(outlinesOf('..a..', '.aaa.', 'aaaaa', '.aaa.', '..a..')[0].points).toEqual([
      [2, -0.5], [4.5, 2], [2, 4.5], [-0.5, 2],
    ]); // biome-ignore format: points
  });

  it('follows the border of the image outside of its pixels', () => {
    expect(outlinesOf('aa', 'aa')[0].points).toEqual([
      [0, -0.5], [1, -0.5], [1.5, 0], [1.5, 1], [1, 1.5], [0, 1.5], [-0.5, 1], [-0.5, 0],
    ]); // biome-ignore format: points
  });

  it('gives a hole an outline of its own in the opposite direction', () => {
    const found = outlinesOf('aaaa', 'a..a', 'aaaa');
    expect(found.length).toBe(2);
    // 12 pixels with cut corners (1/8 each), less a hole of two.
    expect(found.map(({ points }) => doubleArea(points) / 2)).toEqual([11.5, -1.5]);
    expect(found[1].points.length).toBe(6);
  });

  it('separates pixels that touch at a corner, and joins holes that do', () => {
    const pixels = outlinesOf('a..', '.a.', '..a');
    expect(pixels.map(({ points }) => points.length)).toEqual([4, 4, 4]);
    const holes = outlinesOf('aaaa', 'a.aa', 'aa.a', 'aaaa');
    expect(holes.map(({ points }) => doubleArea(points) > 0)).toEqual([true, false]);
    // Two diamonds (1/2 each) and the square between their sides: 1/2.
    expect(doubleArea(holes[1].points) / 2).toBe(-1.5);
  });

  it('gives neighbouring labels the same vertices between them, and no crossing', () => {
    const [a, b] = outlinesOf('ab', 'ba').map(({ value, points }) => ({ value, points }));
    expect(outlinesOf('ab', 'ba').map(({ value }) => value)).toEqual([1, 2, 2, 1]);
    expect(a.points).toEqual([[0, -0.5], [0.5, 0], [0, 0.5], [-0.5, 0]]); // biome-ignore format: points
    expect(b.points).toEqual([[1, -0.5], [1.5, 0], [1, 0.5], [0.5, 0]]); // biome-ignore format: points
  });

  it('traces each slice by itself, islands and islands in holes too', () => {
    const voxels = new Int32Array(7 * 5 * 3);
    for (let y = 0; y < 5; y++) for (let x = 0; x < 5; x++) voxels[35 + y * 7 + x] = x % 4 && y % 4 ? 0 : 300;
    voxels[35 + 2 * 7 + 2] = 300;
    voxels[35 + 6] = 300;
    voxels[70 + 34] = 65_535;
    const found = outlines(voxels, [7, 5, 3]);
    expect(found.map(({ value, slice }) => [value, slice])).toEqual([
      [300, 1],
      [300, 1],
      [300, 1],
      [300, 1],
      [65_535, 2],
    ]);
    // A ring, an island to its right, an island within, and the hole, found at the row below it.
    expect(found.map(({ points }) => doubleArea(points) / 2)).toEqual([24.5, 0.5, 0.5, -8.5, 0.5]);
  });

  it('has no outline without a label', () => {
    expect(outlinesOf('...', '...')).toEqual([]);
  });

  it('encloses the area of the pixels of a large ellipse within 0.1 %', () => {
    const [nx, ny] = [83, 61];
    const inside = (x: number, y: number) => ((x - 40.3) / 37) ** 2 + ((y - 29.8) / 28) ** 2 < 1;
    const voxels = Uint8Array.from({ length: nx * ny }, (_, i) =>
      inside(i % nx, Math.floor(i / nx)) ? 1 : 0,
    );
    const count = voxels.reduce((sum, value) => sum + value, 0);
    const found = outlines(voxels, [nx, ny, 1]);
    expect(found.length).toBe(1);
    expect(Math.abs(doubleArea(found[0].points) / 2 - count) / count).toBeLessThan(0.001);
  });
});

describe('createContourEncoder()', () => {
  const text = (spacingMm: number, points: readonly number[], position: readonly [number, number, number]) =>
    new TextDecoder().decode(
      createContourEncoder(spacingMm)(Int32Array.from(points), {
        position,
        alongRow: [0, 0.5, 0.25],
        alongColumn: [-2, 0, 0],
      }),
    );

  it('steps from the first pixel along the row and the column', () => {
    expect(text(0.5, [0, 0, 3, -1], [10, -20.125, 0])).toBe('10\\-20.125\\0\\11\\-19.375\\0.375');
  });

  it.each([
    [2, '-1.235'],
    [1, '-1.235'],
    [0.7, '-1.2346'],
    [0.02, '-1.23457'],
  ])('rounds to a thousandth of %s mm, and to 0.001 mm at most', (spacingMm, first) => {
    expect(text(spacingMm, [0, 0], [-1.23456789, -0.00000001, 7]).split('\\')).toEqual([first, '0', '7']);
  });

  it('writes 16 characters at most, however large or small the numbers are', () => {
    for (const [spacingMm, value] of [
      [1e-9, -12.1234567891],
      [1e-9, -1234.56789123456],
      [1, -99_999_999_999.9994],
      [1, 1.25e11],
      [0.5, -1.23456789e20],
      [1e-20, 0.000001],
    ]) {
      const [written] = text(spacingMm, [0, 0], [value, 0, 0]).split('\\');
      expect(written.length).toBeLessThanOrEqual(16);
      expect(Math.abs(Number(written) - value) / Math.abs(value)).toBeLessThan(1e-9);
    }
  });
});
