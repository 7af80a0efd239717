import { describe, expect, it } from 'vitest';
import { parseRange, selectRange } from './ranges.ts';

describe('parseRange()', () => {
  it.each([
    ['bytes=0-0', { offsetBytes: 0, lengthBytes: 1 }],
    ['bytes=0-99', { offsetBytes: 0, lengthBytes: 100 }],
    ['bytes=0-100', { offsetBytes: 0, lengthBytes: 100 }],
    ['bytes=40-', { offsetBytes: 40, lengthBytes: 60 }],
    ['bytes=99-', { offsetBytes: 99, lengthBytes: 1 }],
    ['bytes=-1', { offsetBytes: 99, lengthBytes: 1 }],
    ['bytes=-30', { offsetBytes: 70, lengthBytes: 30 }],
    ['bytes=-500', { offsetBytes: 0, lengthBytes: 100 }],
    ['Bytes= 10-19 ', { offsetBytes: 10, lengthBytes: 10 }],
    [`bytes=10-${'9'.repeat(400)}`, { offsetBytes: 10, lengthBytes: 90 }],
  ])('reads %s', (header, range) => {
    expect(parseRange(header, 100)).toEqual(range);
  });

  it.each(['bytes=100-', 'bytes=100-200', 'bytes=-0', `bytes=${'9'.repeat(400)}-`])(
    'finds nothing of the file in %s',
    (header) => {
      expect(parseRange(header, 100)).toBe('unsatisfiable');
    },
  );

  it.each([
    '',
    'bytes',
    'bytes=',
    'bytes=-',
    'bytes=5-2',
    'bytes=0-1,5-6',
    'bytes=a-b',
    'items=0-1',
    'bytes=0-1x',
    'bytes=1.5-2',
  ])('takes “%s” for no single range', (header) => {
    expect(parseRange(header, 100)).toBeUndefined();
  });

  it('answers a long header at once', () => {
    const startMs = performance.now();
    for (const text of ['bytes=', ' ', '1', '-', 'bytes=1-,']) parseRange(text.repeat(100_000), 100);
    expect(performance.now() - startMs).toBeLessThan(5000);
  });
});

describe('selectRange()', () => {
  const file = { etag: '"abc"', sizeBytes: 100 };

  it('prefers If-None-Match, compared weakly, to Range', () => {
    for (const tags of ['"abc"', 'W/"abc"', '"x", "abc"', '*'])
      expect(selectRange('GET', { range: 'bytes=0-1', 'if-none-match': tags }, file)).toEqual({
        status: 304,
      });
    expect(selectRange('HEAD', { 'if-none-match': '"abc"' }, file)).toEqual({ status: 304 });
    expect(selectRange('GET', { 'if-none-match': '"ab", abc' }, file)).toEqual({ status: 200 });
  });

  it('gives the range only if If-Range is the very tag', () => {
    const range = 'bytes=10-19';
    const part = { status: 206, range: { offsetBytes: 10, lengthBytes: 10 } };
    expect(selectRange('GET', { range, 'if-range': '"abc"' }, file)).toEqual(part);
    for (const ifRange of ['W/"abc"', '"abd"', 'Wed, 21 Oct 2026 07:28:00 GMT'])
      expect(selectRange('GET', { range, 'if-range': ifRange }, file)).toEqual({ status: 200 });
    expect(selectRange('GET', { range: 'bytes=100-', 'if-range': '"abd"' }, file)).toEqual({ status: 200 });
    expect(selectRange('GET', { range: 'bytes=100-' }, file)).toEqual({ status: 416 });
  });

  it('ignores Range of HEAD', () => {
    expect(selectRange('HEAD', { range: 'bytes=0-1' }, file)).toEqual({ status: 200 });
  });
});
