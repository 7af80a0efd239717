import { describe, expect, it } from 'vitest';
import type { Affine } from '../geometry/affine.ts';
import {
  affineFault,
  baseName,
  checkAffine,
  checkSizes,
  defaultLimits,
  latin1,
  ownedBytes,
  parseDecimal,
  plainLine,
  scaleAffine,
  shownValue,
  storedBytesOf,
} from './header.ts';

const messageOf = (run: () => unknown) => {
  try {
    run();
  } catch (error) {
    return error;
  }
  return undefined;
};

describe('checkSizes()', () => {
  const check = (sizes: (number | bigint)[], maxVoxels = 24) =>
    checkSizes(sizes, (i) => `size ${i + 1}`, { maxVoxels });

  it('gives the sizes as numbers, up to the limit', () => {
    expect(check([4, 3, 2])).toEqual([4, 3, 2]);
    expect(check([4n, 3n, 2n])).toEqual([4, 3, 2]);
    expect(check([1, 1n])).toEqual([1, 1]);
    expect(defaultLimits).toEqual({ maxVoxels: 1_073_741_824 });
  });

  it.each<[string, (number | bigint)[], string, string]>([
    ['0', [4, 0, 2], 'BAD_HEADER', 'size 2 is 0'],
    ['0 in 64 bits', [4, 3, 0n], 'BAD_HEADER', 'size 3 is 0'],
    ['numbers below 0', [-4, -3, 2], 'BAD_HEADER', 'size 1 is -4'],
    ['fractions', [4, 2.5], 'BAD_HEADER', 'size 2 is 2.5'],
    ['NaN', [Number.NaN], 'BAD_HEADER', 'size 1 is NaN'],
    ['numbers that are not exact', [2 ** 53], 'BAD_HEADER', 'size 1 is 9007199254740992'],
    ['one value too many', [5, 5], 'TOO_MANY_VOXELS', '25 values (size 1 = 5, size 2 = 5), more than the 24'],
    [
      'a product that wraps to 0 in 64 bits',
      [2n ** 32n, 2n ** 32n],
      'TOO_MANY_VOXELS',
      '18446744073709551616 values',
    ],
  ])('refuses %s', (_what, sizes, code, message) => {
    expect(messageOf(() => check(sizes))).toMatchObject({ code, message: expect.stringContaining(message) });
  });

  it('takes the largest exact number where the limit lets it', () => {
    expect(check([2 ** 53 - 1], Number.MAX_SAFE_INTEGER)).toEqual([9_007_199_254_740_991]);
  });
});

describe('affineFault()', () => {
  const diagonal = (x: number, y: number, z: number, ...origin: number[]): Affine => {
    const [u = 1, v = 2, w = 3] = origin;
    return [x, 0, 0, u, 0, y, 0, v, 0, 0, z, w, 0, 0, 0, 1];
  };

  it.each([
    [diagonal(1e6, 1e6, 1e6)],
    [diagonal(-1e-6, 2, 3)],
    [diagonal(2, 3, 4, 1e9, -1e9, 1e9)],
    [diagonal(1e-60, 1e-60, 1e-60)],
    // 2e-6 of the volume that the spacing would have.
    [[1, 1, 0, 0, 0, 2e-6, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]],
  ])('finds none in %j', (affine) => {
    expect(affineFault(affine, 'It')).toBeUndefined();
  });

  it.each([
    ...Array.from({ length: 16 }, (_, i): [Affine, string] => [
      diagonal(2, 3, 4).map((v, k) => (k === i ? Number.NaN : v)),
      'not finite',
    ]),
    [diagonal(2, Number.NEGATIVE_INFINITY, 3), 'not finite'],
    [diagonal(1.1e6, 2, 3), '1100000 × 2 × 3 mm apart'],
    [diagonal(2, -1.1e6, 3), 'mm apart'],
    [diagonal(2, 3, 1.1e6), 'mm apart'],
    [diagonal(2, 3, 4, 1.1e9), '1100000000 mm away'],
    [diagonal(2, 3, 4, 0, -1.1e9), '1100000000 mm away'],
    [diagonal(2, 3, 4, 0, 0, 1.1e9), '1100000000 mm away'],
    [diagonal(0, 3, 4), 'spacing 0 × 3 × 4 mm, determinant 0'],
    [diagonal(2, 0, 4), 'cannot be inverted'],
    [diagonal(2, 3, 0), 'cannot be inverted'],
    [diagonal(1e-120, 1e-120, 1e-120), 'determinant 0'],
    [[1, 1, 0, 0, 0, 0.9e-6, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], 'cannot be inverted'],
    [[1, 2, 1, 0, 2, 4, 0, 0, 3, 6, 0, 0, 0, 0, 0, 1], 'cannot be inverted'],
  ])('names what is wrong with %j', (affine, words) => {
    expect(affineFault(affine, 'The field')).toMatch(/^The field /);
    expect(affineFault(affine, 'The field')).toContain(words);
    expect(messageOf(() => checkAffine(affine, 'The field'))).toMatchObject({
      code: 'BAD_HEADER',
      message: affineFault(affine, 'The field'),
    });
  });
});

describe('checkAffine()', () => {
  it('gives the affine without -0', () => {
    const affine = checkAffine([-1, -0, 0, -0, 0, -2, 0, 5, 0, -0, 3, 6, 0, 0, 0, 1], 'It');
    expect(affine).toEqual([-1, 0, 0, 0, 0, -2, 0, 5, 0, 0, 3, 6, 0, 0, 0, 1]);
  });
});

describe('scaleAffine()', () => {
  it('multiplies the lengths, and not the last row', () => {
    const affine = Array.from({ length: 16 }, (_, i) => i + 1);
    expect(scaleAffine(affine, 10)).toEqual([
      10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 13, 14, 15, 16,
    ]);
    expect(scaleAffine(affine, 1)).toEqual(affine);
  });
});

describe('storedBytesOf()', () => {
  it('multiplies sizes, components, frames and bytes of a value', () => {
    expect(storedBytesOf([3, 5, 7], 11, 13, 'uint8')).toBe(15_015);
    expect(storedBytesOf([3, 5, 7], 11, 13, 'int16')).toBe(30_030);
    expect(storedBytesOf([3, 5, 7], 1, 2, 'float64')).toBe(1680);
  });
});

describe('plainLine()', () => {
  it.each([
    ['  made by TOMAAT\t', 20, 'made by TOMAAT'],
    ['a\r\n\0\u2028b', 20, 'a b'],
    ['Läsion ﬁ', 20, 'La sion fi'],
    ['!~\x7f\x1f', 20, '!~'],
    ['0123456789', 4, '0123'],
    ['', 4, ''],
  ])('makes %j at most %d characters long: %j', (text, maxLength, wanted) => {
    expect(plainLine(text, maxLength)).toBe(wanted);
  });
});

describe('ownedBytes()', () => {
  it('copies bytes of shared memory alone', () => {
    const own = Uint8Array.of(1, 2, 3);
    expect(ownedBytes(own)).toBe(own);
    const shared = new Uint8Array(new SharedArrayBuffer(3));
    shared.set(own);
    const copy = ownedBytes(shared.subarray(1));
    expect(copy).toEqual(Uint8Array.of(2, 3));
    expect(copy.buffer).toBeInstanceOf(ArrayBuffer);
  });
});

describe('shownValue()', () => {
  it.each(['', '12', '-1.5E+3', '(1, 2)\t(3,4)', '+.5e-3'])('shows the numbers %j', (text) => {
    expect(shownValue(text)).toBe(`"${text}"`);
  });

  it.each(['Jane', '1x', '0x1', '"1"', '1;2', '1\n/', '²'])('shows no word of %j', (text) => {
    expect(shownValue(text)).not.toContain(text);
    expect(shownValue(text)).not.toContain('"');
  });

  it('shows 60 characters', () => {
    expect(shownValue('1'.repeat(60))).toBe(`"${'1'.repeat(60)}"`);
    expect(shownValue(`${'1'.repeat(60)}2`)).toBe(`"${'1'.repeat(60)}"`);
  });
});

describe('latin1()', () => {
  it('gives a character for each byte, in pieces of any length', () => {
    for (const length of [0, 1, 255, 8191, 8192, 8193, 20_000]) {
      const bytes = Uint8Array.from({ length }, (_, i) => i * 7 + (i >> 8));
      expect(latin1(bytes)).toBe(Buffer.from(bytes).toString('latin1'));
    }
  });
});

describe('parseDecimal()', () => {
  it.each([
    ['0', 0],
    ['12', 12],
    ['+12.', 12],
    ['-.5', -0.5],
    ['007', 7],
    ['1.25e3', 1250],
    ['1E+2', 100],
    ['25e-1', 2.5],
    ['1e999', Number.POSITIVE_INFINITY],
    ['9'.repeat(64), 1e64],
  ])('reads %j as %d', (text, wanted) => {
    expect(parseDecimal(text)).toBe(wanted);
  });

  it.each([
    '',
    ' ',
    ' 1',
    '1 ',
    '.',
    '-',
    '+-1',
    '1e',
    'e1',
    '1e1.5',
    '0x10',
    '1_0',
    'NaN',
    'Infinity',
    '1,5',
    '1.2.3',
  ])('takes %j for no number', (text) => {
    expect(parseDecimal(text)).toBeNaN();
  });

  it('takes 65 characters for no number', () => {
    expect(parseDecimal('9'.repeat(65))).toBeNaN();
  });
});

describe('baseName()', () => {
  it.each([
    ['a.raw', 'a.raw'],
    ['/a.raw', 'a.raw'],
    ['b/c/a.raw', 'a.raw'],
    ['C:\\b\\a.raw', 'a.raw'],
    ['b\\c/a.raw', 'a.raw'],
    ['b/c\\a.raw', 'a.raw'],
    ['b/', ''],
    ['', ''],
  ])('of %j is %j', (path, name) => {
    expect(baseName(path)).toBe(name);
  });
});
