import { describe, expect, it } from 'vitest';
import { cieLabOf, colorOf } from './cielab.ts';

describe('cieLabOf()', () => {
  // CIE L*a*b* of sRGB's own colours under D65, as scikit-image's rgb2lab gives them, scaled as PS3.3 C.10.7.1.1 says.
  it.each([
    ['#000000', 0, 0, 0],
    ['#ffffff', 100, 0, 0],
    ['#ff0000', 53.2405879, 80.0923082, 67.202751],
    ['#00ff00', 87.7350994, -86.1830297, 83.1797002],
    ['#0000FF', 32.2956726, 79.1875197, -107.8601652],
    ['#808080', 53.5850135, 0, 0],
  ])('of %s is L* %d, a* %d, b* %d', (color, l, a, b) => {
    const expected = [(l / 100) * 65_535, ((a + 128) / 255) * 65_535, ((b + 128) / 255) * 65_535];
    for (const [i, value] of cieLabOf(color).entries()) expect(Math.abs(value - expected[i])).toBeLessThan(7);
  });
});

describe('colorOf()', () => {
  it('gives back every colour', () => {
    for (let rgb = 0; rgb < 2 ** 24; rgb += 4099) {
      const color = `#${rgb.toString(16).padStart(6, '0')}`;
      expect(colorOf(cieLabOf(color))).toBe(color);
    }
  });

  it('keeps what sRGB does not have within it', () => {
    expect(colorOf([65_535, 65_535, 65_535])).toMatch(/^#[0-9a-f]{6}$/);
    expect(colorOf([0, 0, 65_535])).toMatch(/^#[0-9a-f]{6}$/);
  });
});
