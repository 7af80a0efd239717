import { describe, expect, it } from 'vitest';
import { type NamedStyle, namedAs, namesOf } from './label-names.ts';

const label = (value: number, name: string, isNamed: boolean, color = '#000000'): NamedStyle => ({
  ...{ value, name, isNamed, color },
  visible: true,
});

describe('namesOf()', () => {
  it('prefers names of services, and gives both where two differ', () => {
    const found = {
      labels: [label(1, 'left cortex', true), label(2, 'stem', true), label(7, 'label 7', false)],
    };
    const expected = {
      labels: [
        label(1, 'bright', true),
        label(2, 'stem', true),
        label(3, 'label 3', false),
        label(7, 'fat', true),
      ],
    };
    expect(namesOf(found, expected)).toEqual([
      { value: 1, name: 'left cortex / bright' },
      { value: 2, name: 'stem' },
      { value: 7, name: 'fat' },
      { value: 3, name: 'label 3' },
    ]);
  });
});

describe('namedAs()', () => {
  it('gives labels of a file the look of the same values', () => {
    const others = [label(1, 'cortex', true, '#aa0000'), label(2, 'label 2', false, '#00bb00')];
    const own = [label(1, 'label 1', false), label(2, 'label 2', false), label(3, 'label 3', false)];
    expect(namedAs(own, others)).toEqual([...others, own[2]]);
    const named = [label(1, 'tumour', true, '#123456')];
    expect(namedAs(named, others)).toEqual(named);
  });
});
