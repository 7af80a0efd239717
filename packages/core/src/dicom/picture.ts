import { glyphHeight, glyphRows, glyphWidth } from './bitmap-font.ts';

/* A colour picture in memory, and text in it. */

export interface Picture {
  readonly width: number;
  readonly height: number;
  /** Red, green and blue of each pixel, row by row. */
  readonly rgb: Uint8Array;
}

export type Rgb = readonly [red: number, green: number, blue: number];

/** A black picture. */
export const createPicture = (width: number, height: number): Picture => ({
  width,
  height,
  rgb: new Uint8Array(3 * width * height),
});

/** The colour of `#e6194b`. */
export const rgbOf = (color: string): Rgb => {
  const [red, green, blue] = [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16));
  return [red, green, blue];
};

/** Sets a pixel; one outside the picture is left out. */
export function setPixel({ width, height, rgb }: Picture, x: number, y: number, color: Rgb): void {
  if (x < 0 || y < 0 || x >= width || y >= height) return;
  const at = 3 * (y * width + x);
  rgb[at] = color[0];
  rgb[at + 1] = color[1];
  rgb[at + 2] = color[2];
}

export function fillBox(
  picture: Picture,
  [x, y, width, height]: readonly [number, number, number, number],
  color: Rgb,
): void {
  for (let j = y; j < y + height; j++) for (let i = x; i < x + width; i++) setPixel(picture, i, j, color);
}

/** Letters are drawn twice as large as they are stored, with smooth diagonals. */
const zoom = 2;
const advance = zoom * (glyphWidth + 1);
export const letterHeight = zoom * glyphHeight;

export const textWidth = (text: string): number => text.length * advance;

/** The beginning of a text that fits a width, with three dots where it was cut. */
export function fitWidth(text: string, width: number): string {
  const most = Math.max(0, Math.floor(width / advance));
  if (text.length <= most) return text;
  return most < 4 ? text.slice(0, most) : `${text.slice(0, most - 3).trimEnd()}...`;
}

/**
 * Writes a text of printable ASCII on one line, its first letter at the left and top given.
 *
 * @param isOnImage with a dark rim, so that it is readable on bright pixels
 */
export function drawText(
  picture: Picture,
  text: string,
  [left, top]: readonly [number, number],
  color: Rgb,
  isOnImage = false,
): void {
  const forEachDot = (draw: (x: number, y: number) => void) => {
    for (const [i, character] of [...text].entries())
      for (const [x, y] of dotsOf(character)) draw(left + i * advance + x, top + y);
  };
  if (isOnImage) forEachDot((x, y) => fillBox(picture, [x - 1, y - 1, 3, 3], [0, 0, 0]));
  forEachDot((x, y) => setPixel(picture, x, y, color));
}

/** The pixels of a letter at twice its size, diagonals filled by Scale2x (Mazzoleni 2001). */
function dotsOf(character: string): [x: number, y: number][] {
  const rows = glyphRows(character);
  const isSet = (x: number, y: number) =>
    x >= 0 && x < glyphWidth && y >= 0 && y < glyphHeight && ((rows[y] >> (glyphWidth - 1 - x)) & 1) === 1;
  const dots: [number, number][] = [];
  for (let y = 0; y < glyphHeight; y++) {
    for (let x = 0; x < glyphWidth; x++) {
      const own = isSet(x, y);
      const [up, right, left, down] = [isSet(x, y - 1), isSet(x + 1, y), isSet(x - 1, y), isSet(x, y + 1)];
      const corners = [
        left === up && left !== down && up !== right ? up : own,
        up === right && up !== left && right !== down ? right : own,
        down === left && down !== right && left !== up ? left : own,
        right === down && right !== up && down !== left ? down : own,
      ];
      for (const [i, set] of corners.entries()) if (set) dots.push([2 * x + (i & 1), 2 * y + (i >> 1)]);
    }
  }
  return dots;
}

/** Characters that are no letter with accents, as they are written in ASCII. */
const replacements: Readonly<Record<string, string>> = {
  ß: 'ss', æ: 'ae', Æ: 'AE', œ: 'oe', Œ: 'OE', ø: 'o', Ø: 'O', ł: 'l', Ł: 'L', đ: 'd', Đ: 'D', þ: 'th', Þ: 'Th', ð: 'd', ı: 'i',
  µ: 'u', '×': 'x', '–': '-', '—': '-', '−': '-', '‘': "'", '’': "'", '“': '"', '”': '"', '„': '"', '•': '*', '·': '.',
}; // biome-ignore format: one table

/**
 * A text in printable ASCII: letters without their accents, and question marks for what has none. Undefined where more than half of it
 * would be lost, as in Japanese.
 */
export function asciiOf(text: string): string | undefined {
  const plain = Array.from(text.normalize('NFC'), (character) => replacements[character] ?? character)
    .join('')
    .normalize('NFKD')
    .replaceAll(/\p{M}/gu, '');
  const all = Array.from(plain, (character) => (character >= ' ' && character <= '~' ? character : '?'));
  const lost = Array.from(plain).filter((character, i) => all[i] !== character).length;
  return 2 * lost > all.length || all.length === 0 ? undefined : all.join('');
}
