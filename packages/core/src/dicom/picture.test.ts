import { describe, expect, it } from 'vitest';
import { glyphHeight, glyphRows, glyphWidth } from './bitmap-font.ts';
import {
  asciiOf,
  createPicture,
  drawText,
  fillBox,
  fitWidth,
  rgbOf,
  setPixel,
  textWidth,
} from './picture.ts';

const art = (character: string) =>
  glyphRows(character).map((row) =>
    row.toString(2).padStart(glyphWidth, '0').replaceAll('0', '.').replaceAll('1', '#'),
  );

/** The red of every pixel, row by row: # for any. */
const drawn = (text: string, [width, height]: [number, number], at: [number, number] = [0, 0]) => {
  const picture = createPicture(width, height);
  drawText(picture, text, at, [9, 0, 0]);
  return Array.from({ length: height }, (_, y) =>
    Array.from({ length: width }, (_, x) => (picture.rgb[3 * (y * width + x)] ? '#' : '.')).join(''),
  );
};

describe('glyphRows()', () => {
  it('has the letters upright, descenders below the line', () => {
    expect(art('R')).toEqual([
      '####.',
      '#...#',
      '#...#',
      '####.',
      '#.#..',
      '#..#.',
      '#...#',
      '.....',
      '.....',
    ]);
    expect(art('g')).toEqual([
      '.....',
      '.....',
      '.####',
      '#...#',
      '#...#',
      '#...#',
      '.####',
      '....#',
      '.###.',
    ]);
    expect(art('L')).not.toEqual(art('J'));
  });

  it('has a different picture for each printable character, and "?" for others', () => {
    const all = Array.from({ length: 95 }, (_, i) => art(String.fromCharCode(32 + i)).join('\n'));
    expect(new Set(all).size).toBe(95);
    for (const other of ['é', '\n', '\x7f', '肝']) expect(art(other)).toEqual(art('?'));
    expect(art(' ')).toEqual(Array.from({ length: glyphHeight }, () => '.....'));
  });
});

describe('drawText()', () => {
  it('draws letters twice as large, one after the other', () => {
    const rows = drawn('-|', [24, 18]);
    expect(rows[5]).toBe('................##......');
    expect(rows[6]).toBe('##########......##......');
    expect(rows[7]).toBe('##########......##......');
    expect(
      rows
        .map((row) => row.slice(0, 12))
        .join('')
        .match(/#/g),
    ).toHaveLength(20);
  });

  it('smooths diagonals', () => {
    // Stored as ....#, ...#., ...#., ..#..: each inner corner between two of its pixels is filled, by hand after the rule of Scale2x.
    expect(drawn('/', [10, 18]).slice(0, 6)).toEqual([
      '........##',
      '.......###',
      '......###.',
      '......##..',
      '......##..',
      '.....###..',
    ]);
  });

  it('leaves out what is beyond the picture', () => {
    expect(drawn('#', [3, 4], [-4, -6]).join('').length).toBe(12);
    const picture = createPicture(2, 2);
    setPixel(picture, -1, 0, [1, 1, 1]);
    setPixel(picture, 2, 1, [1, 1, 1]);
    fillBox(picture, [-5, -5, 6, 6], [7, 8, 9]);
    expect([...picture.rgb]).toEqual([7, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  });
});

describe('fitWidth()', () => {
  it.each([
    ['Liver', 60, 'Liver'],
    ['Liver', 59, 'L...'],
    ['A long name', 84, 'A lo...'],
    ['Two words', 84, 'Two...'],
    ['Liver', 30, 'Li'],
    ['Liver', -5, ''],
  ])('%j in %i pixels is %j', (text, width, expected) => {
    expect(fitWidth(text, width)).toBe(expected);
    expect(textWidth(expected)).toBeLessThanOrEqual(Math.max(0, width));
  });
});

describe('asciiOf()', () => {
  it.each([
    ['Liver 1.5 (left)', 'Liver 1.5 (left)'],
    ['Größe – Länge', 'Grosse - Lange'],
    ['Lésion à droite', 'Lesion a droite'],
    ['Œdème', 'OEdeme'],
    ['2 × 3 µm²', '2 x 3 um2'],
    ['naïve\u0301 ﬁt', 'naive fit'],
    ['T2\tw\n', 'T2?w?'],
    ['Leber 肝', 'Leber ?'],
    ['肝臓', undefined],
    ['Печень', undefined],
    ['', undefined],
  ])('%j is %j', (text, expected) => {
    expect(asciiOf(text)).toBe(expected);
  });
});

it('rgbOf() has red first', () => {
  expect(rgbOf('#e6194B')).toEqual([0xe6, 0x19, 0x4b]);
});
