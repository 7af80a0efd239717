import { describe, expect, it } from 'vitest';
import { type Grid, type Size, type Volume, voxelCount } from '../volume.ts';
import { cropOrPad, flip, reorient } from './exact.ts';
import { type Fit, fittedGrid, fitVolume } from './fit.ts';
import { oblique, voxelAt } from './fixtures.ts';
import { cropGrid, flippedGrid, orientedGrid } from './grid.ts';
import { resampleArgmax, resampleThreshold } from './resample-scores.ts';
import { type Decide, restoreScores } from './restore.ts';

/*
 * The way back of scores. Labels by NumPy 2.4.6 and scipy 1.17.1 (ndimage.zoom and map_coordinates, order 1 in the plane and 0
 * along the slices, as in nnU-Net's default_resampling.py), x fastest.
 */

const start: Grid = { size: [5, 4, 3], affine: oblique };
const to = fittedGrid(start, [1.5, 0.5, 3]);

/** Three classes on 4 × 6 × 2 voxels, made again for each test, since probabilities replace them. */
function scoresOn(grid: Grid = to): Volume {
  const [nx, ny] = grid.size;
  const n = voxelCount(grid);
  const voxels = Float32Array.from({ length: 3 * n }, (_, i) => {
    const [k, x, y, z] = [Math.floor(i / n), i % nx, Math.floor(i / nx) % ny, Math.floor((i % n) / nx / ny)];
    return 3 * Math.sin(1.7 * k + 0.9 * x * (k + 1) + 1.3 * y + 2.1 * z * (k + 0.5));
  });
  return { voxels, components: 3, size: grid.size, affine: grid.affine };
}

const argmax: Decide = (scores, grid, options) => resampleArgmax(scores, grid, options);
const threshold =
  (above: number): Decide =>
  (scores, grid, options) =>
    resampleThreshold(scores, 1, above, grid, options);
const text = ({ voxels }: Volume) => Array.from(voxels as Uint8Array).join('');
const fitAlong = (sliceAxisBack?: Fit['sliceAxisBack']): Fit => ({ from: start, to, sliceAxisBack });

const linear = '100010211221120100010000102212211000000100120112221200000020';
const slices = '100010211221120100010012011222120000002000120112221200000020';
const softmaxed = '100010211221120100010002012222120000002000020122221200000020';

describe('restoreScores()', () => {
  it.each([
    ['linearly', undefined, undefined, linear],
    [
      'probabilities linearly',
      undefined,
      'softmax',
      '100010211221120100010000102212211001000100020122221200000020',
    ],
    ['by the nearest slice along z', 2, undefined, slices],
    ['probabilities by the nearest slice along z', 2, 'softmax', softmaxed],
    [
      'probabilities by the nearest slice along x',
      0,
      'softmax',
      '100010211221220100010022102112210001022100220122221200000220',
    ],
  ] as const)('takes scores back through a fit %s, as nnU-Net', (_, axis, activation, expected) => {
    const labels = restoreScores(scoresOn(), { start, fits: [fitAlong(axis)] }, argmax, activation);
    expect(labels).toMatchObject({ size: start.size, affine: start.affine, components: 1 });
    expect(text(labels)).toBe(expected);
  });

  it('applies a sigmoid to the channel of a threshold before it interpolates', () => {
    const path = { start, fits: [fitAlong(2)] };
    const logit = Math.log(0.6 / 0.4);
    expect(text(restoreScores(scoresOn(), path, threshold(0.6), 'sigmoid'))).toBe(
      '100010001001100100010010011000100110011000100110001001100110',
    );
    expect(text(restoreScores(scoresOn(), path, threshold(logit)))).toBe(
      '100010011001100100010011011000100110011000110110001001100110',
    );
  });

  it('does not look at what was padded around a fit, flipped or not', () => {
    const padded = () => cropOrPad(scoresOn(), [-2, -1, -3], [8, 8, 8], { value: 50 });
    const path = { start, fits: [fitAlong(2)] };
    expect(text(restoreScores(padded(), path, argmax))).toBe(slices);
    expect(text(restoreScores(flip(padded(), ['x', 'z']), path, argmax, 'softmax'))).toBe(softmaxed);
    expect(text(restoreScores(reorient(padded(), 'SPR'), path, argmax, 'softmax'))).toBe(softmaxed);
  });

  it('gives 0 where scores were cropped after a fit, and the same elsewhere', () => {
    const cropped = cropOrPad(scoresOn(), [0, 2, 0], [4, 4, 2]);
    const labels = restoreScores(cropped, { start, fits: [fitAlong(2)] }, argmax);
    // y of the fit: 1.5 (i + 0.5) − 0.5 = 0.25, 1.75, 3.25, 4.75; half a voxel outside the crop at 2 has its border's scores.
    for (let i = 0; i < 60; i++) {
      const y = Math.floor(i / 5) % 4;
      if (y === 0) expect(labels.voxels[i]).toBe(0);
      if (y > 1) expect(`${labels.voxels[i]}`).toBe(slices[i]);
    }
  });

  it('copies labels to the input’s grid where crops, flips and permutations came before', () => {
    const whole: Grid = { size: [7, 6, 8], affine: oblique };
    const from = cropGrid(orientedGrid(flippedGrid(whole, ['y']), 'SPR'), [1, 2, 0], [5, 4, 3]);
    const fit: Fit = { from, to: fittedGrid(from, [3.125, 8 / 15, 1.8]), sliceAxisBack: 2 };
    expect(fit.to.size).toEqual([4, 6, 2]);
    const labels = restoreScores(scoresOn(fit.to), { start: whole, fits: [fit] }, argmax);
    expect(labels.size).toEqual([7, 6, 8]);
    // S, P, R are z, −y and −x of this grid (L, A, S): the permuted voxel [x, y, z] was [6 − z, 5 − y, x].
    const found = Array.from({ length: 60 }, (_, i) => {
      const [x, y, z] = [i % 5, Math.floor(i / 5) % 4, Math.floor(i / 20)];
      return voxelAt(labels, [6 - z, 5 - (y + 2), x + 1]);
    });
    expect(found.join('')).toBe(slices);
    expect((labels.voxels as Uint8Array).reduce((sum, v) => sum + v, 0)).toBe(
      [...slices].reduce((sum, v) => sum + Number(v), 0),
    );
  });

  it('goes through two fits in turn, then to a grid turned against them', () => {
    const second: Fit = { from: to, to: fittedGrid(to, [2, 1, 1.1]), sliceAxisBack: 2 };
    const path = { start, fits: [fitAlong(2), second] };
    const given = scoresOn(second.to);
    const between = fitVolume(given, to, 'linear', 2);
    const expected = restoreScores(between, { start, fits: [fitAlong(2)] }, argmax);
    expect(text(restoreScores(scoresOn(second.to), path, argmax))).toBe(text(expected));
    expect(new Set(text(expected)).size).toBe(3);

    // Not a copy at the end: scores go on to it, interpolated once more.
    const turned: Grid = { size: [6, 5, 4] as Size, affine: oblique.map((v, i) => (i === 1 ? v + 0.3 : v)) };
    const scores = fitVolume(scoresOn(), start, 'linear', 2);
    expect(text(restoreScores(scoresOn(), { start: turned, fits: [fitAlong(2)] }, argmax))).toBe(
      text(resampleArgmax(scores, turned)),
    );
  });

  it('without a fit takes the places from the affine', () => {
    expect(text(restoreScores(scoresOn(), { start, fits: [] }, argmax))).toBe(linear);
    expect(text(restoreScores(scoresOn(), { start, fits: [] }, argmax, 'softmax'))).toBe(
      '100010211221120100010000102212211001000100020122221200000020',
    );
  });
});
