import { describe, expect, it } from 'vitest';
import { ascii, binary, codeSequence, decimalString, fitText } from './build.ts';
import { firstItem, numbers, text, word, words } from './dataset.ts';
import { tags } from './tags.ts';
import { chooseTextCoding } from './text-coding.ts';

const asciiCoding = chooseTextCoding([], []);

describe('decimalString()', () => {
  it.each([
    [0, '0'],
    [-0, '0'],
    [1, '1'],
    [-235.2, '-235.2'],
    [0.1 + 0.2, '0.3'],
    [1 / 3, '0.33333333333333'],
    [-1 / 3, '-0.3333333333333'],
    [-1e-7 / 3, '-3.3333333333e-8'],
    [1e21, '1e21'],
    [-1.2345678912345e308, '-1.234567891e308'],
    [123456789.12345678, '123456789.123457'],
    [5e-324, '5e-324'],
    [0.8105470538139343, '0.81054705381393'],
    [65535, '65535'],
  ])('writes %d as %s', (value, expected) => {
    expect(decimalString(value)).toBe(expected);
  });

  it('has at most 16 characters and is as precise as they allow', () => {
    for (let i = 1; i < 2000; i++) {
      const value = Math.sin(i * 12.9898) * 10 ** ((i % 41) - 20);
      const written = decimalString(value);
      expect(written).toMatch(/^-?\d+(\.\d+)?(e-?\d+)?$/);
      expect(written.length).toBeLessThanOrEqual(16);
      // A sign, a point and an exponent such as e-20 leave ten digits: half of the last is 5e-10 of a first digit of 1.
      expect(Math.abs(Number(written) - value)).toBeLessThanOrEqual(Math.abs(value) * 5.0001e-10);
    }
  });

  it('gives every decimal of at most 16 characters its value again', () => {
    for (const given of ['-2.352000e+02', '0.00000012345678', '123456789012.345', '-0.9848077530122', '.5'])
      expect(Number(decimalString(Number(given)))).toBe(Number(given));
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])('refuses %d', (value) => {
    expect(() => decimalString(value)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });
});

describe('fitText()', () => {
  it('truncates to whole characters of the value representation, not to bytes', () => {
    expect(fitText('x'.repeat(70), 'LO')).toBe('x'.repeat(64));
    expect(fitText('é'.repeat(20), 'SH')).toBe('é'.repeat(16));
    expect(fitText(`${'x'.repeat(15)}😀y`, 'SH')).toBe(`${'x'.repeat(15)}😀`);
    expect(fitText('x'.repeat(70), 'UT')).toBe('x'.repeat(70));
  });

  it('leaves out what would end a value or a line', () => {
    expect(fitText(' left\\right\r\nlung\u001b ', 'LO')).toBe('left/right  lung');
    expect(fitText('left\\right\r\nlung', 'ST')).toBe('left\\right\r\nlung');
    expect(fitText('left\u0000lung', 'UT')).toBe('left lung');
  });
});

describe('elements', () => {
  const of = (element: ReturnType<typeof ascii>) => new Map([[element.tag, element]]);

  it('hold what the readers of data sets read', () => {
    expect(words(of(ascii(tags.imageType, 'CS', 'DERIVED', 'PRIMARY')), tags.imageType)).toEqual([
      'DERIVED',
      'PRIMARY',
    ]);
    const position = ascii(tags.imagePositionPatient, 'DS', -235.2, 1 / 3, 0);
    expect(numbers(of(position), tags.imagePositionPatient)).toEqual([-235.2, 0.33333333333333, 0]);
    expect(numbers(of(binary(tags.rows, 'US', 512, 65535)), tags.rows)).toEqual([512, 65535]);
    expect(
      numbers(of(binary(tags.dimensionIndexPointer, 'AT', 0x0062000b)), tags.dimensionIndexPointer),
    ).toEqual([0x0062000b]);
    expect(Array.from(binary(tags.dimensionIndexPointer, 'AT', 0x0062000b).bytes)).toEqual([
      0x62, 0, 0x0b, 0,
    ]);
    expect(numbers(of(binary(tags.diffusionBValue, 'FD', 0.1, -7)), tags.diffusionBValue)).toEqual([0.1, -7]);
    expect(
      numbers(of(binary(tags.dimensionIndexValues, 'UL', 3, 2 ** 32 - 1)), tags.dimensionIndexValues),
    ).toEqual([3, 2 ** 32 - 1]);
  });

  it('write codes over 16 characters as a long code value', () => {
    const code = (value: string) =>
      firstItem(
        new Map([
          [
            tags.segmentedPropertyTypeCodeSequence,
            codeSequence(
              tags.segmentedPropertyTypeCodeSequence,
              { scheme: 'SCT', value, meaning: 'Thing' },
              asciiCoding,
            ),
          ],
        ]),
        tags.segmentedPropertyTypeCodeSequence,
      )!;
    expect(word(code('1234567890123456'), tags.codeValue)).toBe('1234567890123456');
    expect(word(code('12345678901234567'), tags.codeValue)).toBeUndefined();
    expect(text(code('12345678901234567'), tags.longCodeValue)).toBe('12345678901234567');
  });
});
