import { describe, expect, it } from 'vitest';
import { patterned } from '../geometry/fixtures.ts';
import type { Volume } from '../volume.ts';
import { mostNumberedLabels, numberLabels } from './number-labels.ts';

const { affine } = patterned([2, 3, 1]);
const mapOf = (voxels: Volume['voxels']): Volume => ({ voxels, size: [2, 3, 1], components: 1, affine });

describe('numberLabels()', () => {
  it('numbers labels by their position, on the same grid', () => {
    for (const voxels of [
      Uint16Array.of(0, 300, 300, 7, 65_535, 0),
      Float32Array.of(0, 300, 300, 7, 65_535, 0),
      BigInt64Array.of(0n, 300n, 300n, 7n, 65_535n, 0n),
    ]) {
      const numbered = numberLabels(mapOf(voxels), [7, 65_535, 1, 300]);
      expect(numbered).toEqual(mapOf(Uint8Array.of(0, 4, 4, 1, 2, 0)));
    }
  });

  it('swaps values, and numbers 254 of them', () => {
    expect(numberLabels(mapOf(Uint8Array.of(2, 1, 1, 2, 0, 1)), [2, 1]).voxels).toEqual(
      Uint8Array.of(1, 2, 2, 1, 0, 2),
    );
    const values = Array.from({ length: mostNumberedLabels }, (_, k) => 1000 + k);
    const voxels = Uint16Array.of(1253, 0, 0, 1000, 1252, 0);
    expect(numberLabels(mapOf(voxels), values).voxels).toEqual(Uint8Array.of(254, 0, 0, 1, 253, 0));
  });

  it('refuses more labels, values that are not listed, and what is no label map', () => {
    const values = Array.from({ length: mostNumberedLabels + 1 }, (_, k) => k + 1);
    const zeros = mapOf(new Uint8Array(6));
    expect(() => numberLabels(zeros, values)).toThrow(
      expect.objectContaining({ code: 'NOT_ACCEPTABLE', message: expect.stringContaining('255 labels') }),
    );
    expect(() => numberLabels(mapOf(Uint8Array.of(0, 1, 1, 2, 0, 0)), [1])).toThrow(
      expect.objectContaining({ code: 'APP_OUTPUT', message: expect.stringContaining('the value 2,') }),
    );
    expect(() => numberLabels(mapOf(Int8Array.of(0, 1, -1, 0, 0, 0)), [1])).toThrow('the value -1,');
    expect(() => numberLabels(mapOf(Float32Array.of(0, 0.5, 0, 0, 0, 0)), [1])).toThrow('0.5');
    expect(() => numberLabels({ ...zeros, components: 2 }, [1])).toThrow('one component');
  });
});
