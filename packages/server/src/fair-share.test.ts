import { describe, expect, it } from 'vitest';
import { addTo, mayHaveMore } from './fair-share.ts';

const counts = (of: Record<string, number>) => new Map(Object.entries(of));

describe('mayHaveMore()', () => {
  it('lets one owner have all, and no more', () => {
    expect(mayHaveMore(counts({ a: 9 }), 'a', 10)).toBe(true);
    expect(mayHaveMore(counts({ a: 10 }), 'a', 10)).toBe(false);
  });

  it('lets an owner in up to a fair share, whatever others have', () => {
    expect(mayHaveMore(counts({ a: 10 }), 'b', 10)).toBe(true);
    expect(mayHaveMore(counts({ a: 10, b: 4 }), 'b', 10)).toBe(true);
    expect(mayHaveMore(counts({ a: 10, b: 5 }), 'b', 10)).toBe(false);
    expect(mayHaveMore(counts({ a: 10, b: 4 }), 'a', 10)).toBe(false);
    expect(mayHaveMore(counts({ a: 1 }), 'b', 1)).toBe(true);
  });

  it('never lets in more than twice the limit', () => {
    expect(mayHaveMore(counts({ a: 10, b: 5, c: 5 }), 'd', 10)).toBe(false);
  });
});

describe('addTo()', () => {
  it('forgets an owner who has nothing left', () => {
    const map = counts({ a: 1 });
    addTo(map, 'a', 1);
    addTo(map, 'b', 1);
    addTo(map, 'a', -1);
    addTo(map, 'b', -1);
    expect([...map]).toEqual([['a', 1]]);
  });
});
