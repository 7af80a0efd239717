import { describe, expect, it } from 'vitest';
import { activate, softmaxAtCells } from './activation.ts';

// Four voxels of three classes. Probabilities by scipy 1.17.1 (scipy.special.softmax, axis 0) and by 1 / (1 + exp(−s)).
const scores = [1.5, -2, 0.25, 80, 1.5, 3, -0.5, -80, -4, 2.5, 10, 0];
const near = (values: readonly number[]) => values.map((v) => expect.closeTo(v, 6));

describe('activate()', () => {
  it('softmax has the values of scipy, large scores among them', () => {
    const voxels = Float32Array.from(scores);
    activate(voxels, 4, 'softmax');
    expect([...voxels]).toEqual(
      near([
        ...[0.49898039, 0.004176581, 0.000058289661, 1],
        ...[0.49898039, 0.61985958, 0.000027534086, 0],
        ...[0.0020392188, 0.37596384, 0.99991418, 0],
      ]),
    );
  });

  it('sigmoid takes each class on its own', () => {
    const voxels = Float32Array.from(scores);
    activate(voxels, 4, 'sigmoid');
    expect([...voxels]).toEqual(
      near([
        ...[0.81757448, 0.11920292, 0.5621765, 1],
        ...[0.81757448, 0.95257413, 0.37754067, 0],
        ...[0.01798621, 0.92414182, 0.9999546, 0.5],
      ]),
    );
  });

  it('makes every class of a voxel NaN if one score is NaN or infinite', () => {
    const voxels = Float32Array.of(1, Number.NaN, Number.POSITIVE_INFINITY, 2, 0, 3);
    activate(voxels, 3, 'softmax');
    expect([...voxels].map(Number.isNaN)).toEqual([false, true, true, false, true, true]);
    expect(voxels[0] + voxels[3]).toBeCloseTo(1, 6);
  });

  it('sums to 1 in volumes larger than a block, and to the last voxel', () => {
    const count = 2 * 1024 + 7;
    const voxels = Float32Array.from({ length: 3 * count }, (_, i) => Math.sin(i) * 5);
    activate(voxels, count, 'softmax');
    for (const i of [0, 1023, 1024, 2047, 2048, count - 1])
      expect(voxels[i] + voxels[count + i] + voxels[2 * count + i]).toBeCloseTo(1, 6);
  });
});

describe('softmaxAtCells()', () => {
  it('changes the eight corners of marked cells, as activate() does, and no other voxel', () => {
    const size = [4, 3, 5] as const;
    const count = 60;
    const given = Float32Array.from({ length: 2 * count }, (_, i) => Math.cos(i) * 3);
    const whole = given.slice();
    activate(whole, count, 'softmax');
    const cells = new Uint16Array(count);
    const at = (x: number, y: number, z: number) => (z * 3 + y) * 4 + x;
    cells[at(1, 0, 3)] = 9;
    const voxels = given.slice();
    softmaxAtCells(voxels, size, cells, 9);
    const corners = [3, 4].flatMap((z) => [0, 1].flatMap((y) => [1, 2].map((x) => at(x, y, z))));
    for (let i = 0; i < 2 * count; i++)
      expect(voxels[i], `${i}`).toBe(corners.includes(i % count) ? whole[i] : given[i]);
  });
});
