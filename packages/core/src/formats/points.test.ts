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
    expect(formatPoints([])).toBe('');
    expect(() => formatPoints([[1, Number.NaN, 2]])).toThrow(/Point 1/);
  });
});
