import { describe, expect, it } from 'vitest';
import { labelDescriptions } from './itk-snap.ts';

/** The rows of a file by the rules of `ColorLabelTable::LoadFromFile()`: seven numbers, then a name in quotation marks. */
function readBack(text: string) {
  return text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [numbers, name, ...rest] = line.split('"');
      expect(rest).toEqual(['']);
      return [...numbers.trim().split(/\s+/).map(Number), name];
    });
}

describe('labelDescriptions()', () => {
  it('gives index, colour, visibility and name of each label', () => {
    const text = labelDescriptions([
      { value: 1, name: 'left lung', color: '#63b8ff' },
      { value: 20_000, name: 'Rückenmark', color: '#000A10' },
    ]);
    expect(readBack(text)).toEqual([
      [0, 0, 0, 0, 0, 0, 0, 'Clear Label'],
      [1, 99, 184, 255, 1, 1, 1, 'left lung'],
      [20_000, 0, 10, 16, 1, 1, 1, 'Rückenmark'],
    ]);
  });

  it('keeps a name from ending its row, and never writes an empty one', () => {
    const text = labelDescriptions([
      { value: 3, name: 'the "true" lumen\n  9 1 1 1 1 1 1 "x"', color: '#ffffff' },
      { value: 4, name: '\n', color: '#ffffff' },
    ]);
    expect(readBack(text).slice(1)).toEqual([
      [3, 255, 255, 255, 1, 1, 1, 'the ’true’ lumen   9 1 1 1 1 1 1 ’x’'],
      [4, 255, 255, 255, 1, 1, 1, 'label 4'],
    ]);
  });

  it('leaves out values that ITK-SNAP cannot hold', () => {
    const label = { name: 'x', color: '#ffffff' };
    const text = labelDescriptions([-1, 0, 1.5, 65_535, 65_536].map((value) => ({ ...label, value })));
    expect(readBack(text).map(([value]) => value)).toEqual([0, 65_535]);
  });
});
