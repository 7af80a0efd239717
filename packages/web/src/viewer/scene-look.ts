import type { Vec3 } from '@tomaat/core';

/* What the scene, and what is seen before it, have in common besides the voxels. */

export const canvasName =
  'Slices through the volume; the position of the crosshair is given below. Press the question mark for the keys';

/** 0 to 1: red, green, blue, and opacity. */
export type Color = readonly [number, number, number, number];
export const backgroundColor: Color = [0.043, 0.055, 0.067, 1];
export const crosshairColor: Color = [0.35, 0.8, 0.88, 0.9];
/** NiiVue draws it twice, and it is seen in this one. */
export const crosshairSeen: Color = [0.46, 1, 1, 1];
export const letterColor: Color = [0.5, 0.5, 0.5, 1];
/** Between the planes, CSS pixels. */
export const tileGap = 6;

/** Of the letters for the body's sides in a canvas of 800 × 600, CSS pixels. */
export const letterPx = 11;
/** In a canvas of another size, as NiiVue has it; CSS pixels. */
export const letterSize = (width: number, height: number): number =>
  letterPx * Math.max((width * height) / (800 * 600), 1) ** 0.4;

/**
 * Width of the crosshair's lines: 0.2 mm, less in volumes under 20 mm, and never thinner than a 400th of the longest
 * side; and the gap around its centre, in each direction, in halves of that width.
 *
 * @param extent of the volume along the axes nearest to R, A and S, mm
 */
export function crosshairOf(extent: Vec3): { lineMm: number; gap: number } {
  const longest = Math.max(...extent);
  return { lineMm: Math.max(Math.min(0.2, longest / 100), longest / 400), gap: Math.min(8, longest / 20) };
}
