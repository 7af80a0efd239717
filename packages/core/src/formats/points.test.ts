import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import { formatPoints, formatPointsJson, parsePoints } from './points.ts';

describe('parsePoints()', () => {
  const points = [
    [1.5, -2, 3e-7],
    [0, 0.25, -120],
  ];
  it('reads v1 text, with or without a last semicolon, and JSON', () => {
    expect(parsePoints('1.5,-2,3e-7;0,.25,-120')).toEqual(points);
    expect(parsePoints(' 1.5 , -2,3E-7;\n0,+0.25,-120.0;')).toEqual(points);
    expect(parsePoints(JSON.stringify(points))).toEqual(points);
    expect(parsePoints(' \n')).toEqual([]);
    expect(parsePoints('[]')).toEqual([]);
  });

  it.each([
    ['1,2', 'Point 1'],
    ['1,2,3;4,5', 'Point 2'],
    ['1,2,3;;4,5,6', 'Point 2'],
    ['1,2,x', 'Point 1'],
    ['1,2,', 'Point 1'],
    ['1,2,0x10', 'Point 1'],
    ['1,2,Infinity', 'Point 1'],
    ['1,2,1e999', 'Point 1'],
    ['1 2 3', 'Point 1'],
    ['1,2,3,4', 'Point 1'],
    ['1,2,3;;', 'Point 2'],
    ['[[1,2,3,4]]', 'Point 1'],
    ['[null]', 'Point 1'],
    ['[[1,null,3]]', 'Point 1'],
    ['[{"toString":1},{}]', 'Point 1'],
    ['[[{"toString":1},2,3]]', 'Point 1'],
    [';', 'Point 1'],
    ['[[1,2,3],[1,2]]', 'Point 2'],
    ['[[1,2,"3"]]', 'Point 1'],
    ['[1,2,3]', 'Point 1'],
    ['[[1,2,1e999]]', 'Point 1'],
    ['[[1,2,3]', 'JSON'],
    [`[${'['.repeat(20_000)}${']'.repeat(20_000)}]`, 'Point 1'],
    ['[{"toJSON":1}]', 'Point 1'],
  ])('refuses %j, naming the place and the field', (text, place) => {
    let error: unknown;
    try {
      parsePoints(text, 'seeds');
    } catch (e) {
      error = e;
    }
    expect(error).toBeInstanceOf(TomaatError);
    expect(error).toMatchObject({ code: 'BAD_INPUT', field: 'seeds' });
    expect((error as TomaatError).message).toContain(place);
  });
});

describe('the error of parsePoints()', () => {
  const messageOf = (text: string) => {
    try {
      parsePoints(text);
    } catch (error) {
      return (error as TomaatError).message;
    }
    return undefined;
  };

  it('shows numbers, to 60 characters, and no words', () => {
    const digits = (length: number) => `1,${'2'.repeat(length - 2)}`;
    expect(messageOf('1,2')).toContain('"1,2"');
    expect(messageOf(digits(60))).toContain(`"${digits(60)}"`);
    expect(messageOf(digits(61))).toContain(`"${digits(60)}…"`);
    expect(messageOf('Jane,Doe,1960')).not.toMatch(/Jane|Doe|1960/);
    expect(messageOf('[[1,-2e-9]]')).toContain('is "[1,-2e-9]"');
    expect(messageOf('[7]')).toContain('is "7"');
    expect(messageOf('[[1,2,"Jane"],7]')).not.toMatch(/Jane/);
    for (const text of ['[[1,2,[3]]]', '[null]', '[{}]', '[[1,2,null]]'])
      expect(messageOf(text)).toMatch(/^Point 1 is not a point\. /);
  });

  it('counts a million points before it reads them', () => {
    const [text, json] = [
      (count: number) => 'x;'.repeat(count),
      (count: number) => `["x"${',7'.repeat(count - 1)}]`,
    ];
    for (const make of [text, json]) {
      expect(messageOf(make(1_000_000))).toMatch(/^Point 1 /);
      expect(messageOf(make(1_000_001))).toContain('more than 1000000 points');
    }
    expect(messageOf(`${text(1_000_000)}x`)).toContain('more than 1000000 points');
    expect(() => parsePoints(text(1_000_001), 'seeds')).toThrow(
      expect.objectContaining({ code: 'BAD_INPUT', field: 'seeds' }),
    );
  });
});

describe('formatPoints(), formatPointsJson()', () => {
  const points: [number, number, number][] = [
    [0.1, -2.5, 1e21],
    [3, 4, 5e-9],
  ];
  it('write what reads back exactly', () => {
    expect(
      formatPoints([
        [1, -2.5, 3],
        [4, 5, 6],
      ]),
    ).toBe('1,-2.5,3;4,5,6');
    expect(parsePoints(formatPoints(points))).toEqual(points);
    expect(parsePoints(formatPointsJson(points))).toEqual(points);
    expect(
      formatPointsJson([
        [1, -2.5, 3],
        [4, 5, 6],
      ]),
    ).toBe('[[1,-2.5,3],[4,5,6]]');
    expect([formatPoints([]), formatPointsJson([])]).toEqual(['', '[]']);
    expect(() =>
      formatPointsJson([
        [1, 2, 3],
        [1, Number.POSITIVE_INFINITY, 2],
      ]),
    ).toThrow(/Point 2/);
    expect(() => formatPoints([[1, Number.NaN, 2]])).toThrow(/Point 1/);
  });
});
