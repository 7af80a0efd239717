import { describe, expect, it } from 'vitest';
import { packBinaryFrames } from './segmentation-pixels.ts';

describe('packBinaryFrames()', () => {
  it('begins a frame at the bit after the previous one, lowest bit first', () => {
    // Two slices of 5 × 1 pixels; by PS3.5 8.1.1 the first pixel is the lowest bit.
    const voxels = Uint8Array.of(1, 1, 2, 0, 1, 0, 2, 2, 2, 1);
    const frames = [
      { value: 1, slice: 0 },
      { value: 1, slice: 1 },
      { value: 2, slice: 0 },
      { value: 2, slice: 1 },
    ];
    // 11001 00001 00100 01110, in the order of the pixels.
    expect([...packBinaryFrames(voxels, [5, 1, 2], frames)]).toEqual([0b00010011, 0b00010010, 0b0111]);
  });

  it('leaves out values and slices that have no frame', () => {
    const voxels = Uint8Array.of(1, 3, 3, 3, 2, 2, 3, 1);
    expect([...packBinaryFrames(voxels, [4, 1, 2], [{ value: 2, slice: 1 }])]).toEqual([0b0011]);
    const frames = [
      { value: 3, slice: 0 },
      { value: 1, slice: 1 },
    ];
    expect([...packBinaryFrames(voxels, [4, 1, 2], frames)]).toEqual([0b10001110]);
  });
});
