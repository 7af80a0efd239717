/*
 * Colours in the form of RecommendedDisplayCIELabValue (PS3.3 C.10.7.1.1): L* from 0 to 100, a* and b* from -128 to
 * 127, each scaled to 0…65535. sRGB (IEC 61966-2-1) with its own white point D65, like dcmtk, highdicom and the
 * cornerstone adapters.
 */

export type CieLab = readonly [l: number, a: number, b: number];

/** Columns and rows of the matrix from linear sRGB to XYZ (IEC 61966-2-1), and the white point D65. */
const toXyz = [
  [0.4124564, 0.3575761, 0.1804375],
  [0.2126729, 0.7151522, 0.072175],
  [0.0193339, 0.119192, 0.9503041],
] as const;
const toRgb = [
  [3.2404542, -1.5371385, -0.4985314],
  [-0.969266, 1.8760108, 0.041556],
  [0.0556434, -0.2040259, 1.0572252],
] as const;
const white = [0.95047, 1, 1.08883] as const;

/** Where the cube root of CIE 15 becomes linear, and its slope there. */
const [epsilon, kappa] = [216 / 24389, 24389 / 27];

/** The numbers of a colour such as `#e6194b`. */
export function cieLabOf(color: string): CieLab {
  const linear = [1, 3, 5].map((at) => {
    const value = Number.parseInt(color.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  const [x, y, z] = toXyz.map((row, i) => {
    const value = dot(row, linear) / white[i];
    return value > epsilon ? Math.cbrt(value) : (kappa * value + 16) / 116;
  });
  const scaled = (value: number) => Math.min(65_535, Math.max(0, Math.round(value * 65_535)));
  return [
    scaled((116 * y - 16) / 100),
    scaled((500 * (x - y) + 128) / 255),
    scaled((200 * (y - z) + 128) / 255),
  ];
}

/** The nearest colour in sRGB, as `#e6194b`. */
export function colorOf([l, a, b]: CieLab): string {
  const y = ((l / 65_535) * 100 + 16) / 116;
  const x = y + ((a / 65_535) * 255 - 128) / 500;
  const z = y - ((b / 65_535) * 255 - 128) / 200;
  const xyz = [x, y, z].map((t, i) => white[i] * (t ** 3 > epsilon ? t ** 3 : (116 * t - 16) / kappa));
  const rgb = toRgb.map((row) => {
    const linear = dot(row, xyz);
    const value = linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055;
    return Math.min(255, Math.max(0, Math.round(value * 255)));
  });
  return `#${rgb.map((value) => value.toString(16).padStart(2, '0')).join('')}`;
}

const dot = (row: readonly number[], values: readonly number[]) =>
  row[0] * values[0] + row[1] * values[1] + row[2] * values[2];
