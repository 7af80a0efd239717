import { describe, expect, it } from 'vitest';
import type { Dataset, FragmentsElement } from './dataset.ts';
import { codeStreams } from './encapsulated.ts';

const bytes = (...values: number[]) => Uint8Array.of(...values);
const [a, b, c, d] = [bytes(1, 2), bytes(3, 4, 5, 6), bytes(7, 8), bytes(9, 10)];
const end = (fragment: Uint8Array, ...padding: number[]) => bytes(...fragment, 0xff, 0xd9, ...padding);
const element = (fragments: Uint8Array[], offsets: number[] = []): FragmentsElement => ({
  kind: 'fragments',
  tag: 0x7fe00010,
  vr: 'OB',
  fragments,
  offsets: Uint32Array.from(offsets),
});
const streams = (from: FragmentsElement, count: number, dataset: Dataset = new Map()) => {
  const stream = codeStreams(from, count, dataset);
  return Array.from({ length: count }, (_, i) => [...stream(i)]);
};
const extended = (...offsets: bigint[]): Dataset => {
  const table = new Uint8Array(8 * offsets.length);
  for (const [i, offset] of offsets.entries()) new DataView(table.buffer).setBigUint64(8 * i, offset, true);
  const tag = 0x7fe00001;
  const value = {
    kind: 'value',
    tag,
    vr: 'OV',
    bytes: table,
    littleEndian: true,
    statedBytes: table.length,
  } as const;
  return new Map([[tag, value]]);
};

describe('codeStreams()', () => {
  it('joins all fragments of one frame', () => {
    expect(streams(element([a, b, c]), 1)).toEqual([[...a, ...b, ...c]]);
  });

  it('divides by the offset table, also the extended one', () => {
    // Each fragment has 8 bytes before it: a at 0, b at 10, c at 22, d at 32.
    const expected = [
      [...a, ...b],
      [...c, ...d],
    ];
    expect(streams(element([a, b, c, d], [0, 22]), 2)).toEqual(expected);
    expect(streams(element([a, b, c, d]), 2, extended(0n, 22n))).toEqual(expected);
    expect(streams(element([a, b], [0, 10]), 2)).toEqual([[...a], [...b]]);
  });

  it('divides by count or end markers where the table is missing or wrong', () => {
    for (const offsets of [[], [0, 11], [0, 22, 32], [4, 10], [0, 0xffffffff]])
      expect(streams(element([a, b], offsets), 2)).toEqual([[...a], [...b]]);
    const marked = [a, end(b), c, end(d, 0)];
    expect(streams(element(marked), 2)).toEqual([
      [...a, ...end(b)],
      [...c, ...end(d, 0)],
    ]);
    expect(streams(element([a, b]), 2, extended(0n, 2n ** 63n))).toEqual([[...a], [...b]]);
  });

  it('refuses frames that are not found', () => {
    expect(() => streams(element([a, b, c]), 2)).toThrow('has 2 frames, but 1 are found');
    expect(() => streams(element([end(a), end(b), end(c)]), 4)).toThrow('has 4 frames, but 3 are found');
  });
});
