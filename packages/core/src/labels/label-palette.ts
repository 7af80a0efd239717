import { cieLabOf } from '../dicom/cielab.ts';

/** Colours for labels without one, in the order of the labels; neighbours are easy to distinguish (after Paul Tol's “bright” scheme). */
export const labelPalette: readonly string[] = [
  '#4477aa',
  '#ee6677',
  '#228833',
  '#ccbb44',
  '#66ccee',
  '#aa3377',
  '#ee8866',
  '#bbcc33',
  '#99ddff',
  '#ffaabb',
];

/**
 * Distinct colours for so many labels, in their order: the palette, then each time the colour that is furthest from all
 * before it (CIE 1976 distance in L*a*b*), neither nearly black nor nearly white. Beyond 400 they repeat.
 */
export function labelColors(count: number): string[] {
  const colors = labelPalette.slice(0, count);
  if (colors.length === count) return colors;
  const candidates = candidateColors();
  const distances = candidates.map(({ lab }) =>
    Math.min(...colors.map((color) => squaredDistance(lab, labOf(color)))),
  );
  while (colors.length < Math.min(count, mostColors)) {
    const next = distances.indexOf(Math.max(...distances));
    colors.push(candidates[next].color);
    for (const [i, { lab }] of candidates.entries())
      distances[i] = Math.min(distances[i], squaredDistance(lab, candidates[next].lab));
  }
  return Array.from({ length: count }, (_, i) => colors[i % colors.length]);
}

const mostColors = 400;

type Lab = readonly [number, number, number];

const labOf = (color: string): Lab => {
  const [l, a, b] = cieLabOf(color);
  return [(l / 65_535) * 100, (a / 65_535) * 255, (b / 65_535) * 255];
};

const squaredDistance = (p: Lab, q: Lab) => (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 + (p[2] - q[2]) ** 2;

/** The colours of a grid of 10 × 10 × 10 in sRGB with an L* from 35 to 92. */
function candidateColors(): { color: string; lab: Lab }[] {
  const levels = Array.from({ length: 10 }, (_, i) => Math.round((255 * i) / 9));
  const hex = (value: number) => value.toString(16).padStart(2, '0');
  return levels
    .flatMap((r) => levels.flatMap((g) => levels.map((b) => `#${hex(r)}${hex(g)}${hex(b)}`)))
    .map((color) => ({ color, lab: labOf(color) }))
    .filter(({ lab: [l] }) => l >= 35 && l <= 92);
}
