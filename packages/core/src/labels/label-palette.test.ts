import { expect, it } from 'vitest';
import { cieLabOf } from '../dicom/cielab.ts';
import { labelColors, labelPalette } from './label-palette.ts';

/** CIE 1976: 2.3 is just noticeable. */
function distance(one: string, other: string): number {
  const [p, q] = [one, other].map((color) =>
    cieLabOf(color).map((n, i) => (n / 65_535) * (i === 0 ? 100 : 255)),
  );
  return Math.hypot(...p.map((n, i) => n - q[i]));
}

it('labelColors() begins with the palette', () => {
  expect(labelColors(3)).toEqual(labelPalette.slice(0, 3));
  expect(labelColors(0)).toEqual([]);
});

it.each([
  [20, 20],
  [60, 12],
  [120, 8],
])('labelColors() of %i are %i apart', (count, least) => {
  const colors = labelColors(count);
  expect(colors).toHaveLength(count);
  // The palette's own colours are closer to each other.
  const distances = colors.flatMap((one, i) =>
    colors.slice(Math.max(10, i + 1)).map((other) => distance(one, other)),
  );
  expect(Math.min(...distances)).toBeGreaterThan(least);
  expect(colors.every((color) => /^#[0-9a-f]{6}$/.test(color))).toBe(true);
});

it('labelColors() repeats where there are no more', () => {
  const colors = labelColors(65_535);
  expect(colors).toHaveLength(65_535);
  expect(new Set(colors).size).toBe(400);
});
