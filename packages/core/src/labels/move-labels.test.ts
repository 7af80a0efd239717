import { describe, expect, it } from 'vitest';
import { composeAffine } from '../geometry/affine.ts';
import { cropOrPad, flip } from '../geometry/exact.ts';
import { fitOf } from '../geometry/fit.ts';
import { oblique, patterned, rotation } from '../geometry/fixtures.ts';
import type { Size, Volume } from '../volume.ts';
import { moveLabels } from './move-labels.ts';

const gridOf = ({ size, affine }: Volume) => ({ size, affine });

describe('moveLabels()', () => {
  // Made with nnunetv2 2.8.1 and batchgenerators 0.25.5: resample_data_or_seg_to_shape(is_seg=True, order=1, order_z=0,
  // force_separate_z=None) of random labels, x fastest.
  it.each([
    {
      name: 'slices by themselves',
      size: [6, 5, 4],
      mm: [1.2, 0.8, 2.5],
      pixdim: [1.0, 1.1, 1.7],
      voxels:
        '190091919001091021202120902012209911920211199121100100199210299211190019020019129001929921021992910911920022999919902220',
      expected:
        '190009191900012021120902201220999119202211100110019922102099911920221110011001992210299221119000191290001929992102199929100911999991990222200219992910091199999199022220',
    },
    {
      name: 'slices by themselves, half-way between voxels',
      size: [5, 4, 4],
      mm: [1.2, 0.8, 2.5],
      pixdim: [0.6, 1.6, 1.25],
      voxels: '09102929092199199920001992029992212099100229919200202029919920212911091202111120',
      expected:
        '9999990099999999920099999900999999999200200022999909999911002000229999099999110011922200009999119999119222000099991199999911111099111111220099111110991111112200',
    },
    {
      name: 'all axes',
      size: [6, 5, 4],
      mm: [1.2, 0.8, 1.5],
      pixdim: [1.0, 1.1, 1.7],
      voxels:
        '201900011929112192000192021222290192102112092909199010211920092001209100911211111929009909000229909112011010220020009220',
      expected:
        '2019900011192900011920211222290119210221121999010211992009200012091100111122900999090002229909111222000200092220',
    },
    {
      name: 'all axes, half-way between voxels',
      size: [5, 4, 3],
      mm: [1.2, 0.8, 2.0],
      pixdim: [0.6, 1.6, 1.0],
      voxels: '229110902120912991002022209091112120221201229009211021092992',
      expected:
        '022990211199999110000229002111999991112200090222110112221122000002222111122211220000222211112222112200009222119922299922',
    },
  ])('resamples as nnU-Net does: $name', ({ size, mm, pixdim, voxels, expected }) => {
    const direction = rotation(0.3, -0.4, 0.5).map((v, i) => (i % 3 === 0 ? -v : v));
    const affine = composeAffine([mm[0], mm[1], mm[2]], direction, [10, -20, 30]);
    const labels = {
      voxels: Uint16Array.from(voxels, Number),
      size: size as unknown as Size,
      components: 1,
      affine,
    };
    const fit = fitOf(labels, [pixdim[0], pixdim[1], pixdim[2]], 'auto');
    const moved = moveLabels(labels, [{ from: gridOf(labels), to: fit.to, fit }]);
    expect([moved.size, moved.affine]).toEqual([fit.to.size, fit.to.affine]);
    expect([...(moved.voxels as Uint8Array)].join('')).toBe(expected);
  });

  it('copies what only moves, and fills with 0', () => {
    const labels = patterned([5, 4, 3], oblique, 'uint8');
    const flipped = flip(labels, ['x', 'z']);
    const padded = cropOrPad(flipped, [-1, 2, 0], [4, 5, 3]);
    const moved = moveLabels(labels, [
      { from: gridOf(labels), to: gridOf(flipped) },
      { from: gridOf(flipped), to: gridOf(padded) },
    ]);
    expect(moved.voxels).toEqual(padded.voxels);
    expect(moved.affine).toEqual(padded.affine);
  });

  it('leaves labels as they are without a change of the grid, and where there is one label only', () => {
    const labels = patterned([5, 4, 3], oblique, 'uint8');
    expect(moveLabels(labels, [])).toBe(labels);
    const full = { ...labels, voxels: new Uint8Array(60).fill(7) };
    const fit = fitOf(full, [1, 1, 1]);
    const moved = moveLabels(full, [{ from: gridOf(full), to: fit.to, fit }]);
    expect(new Set(moved.voxels as Uint8Array)).toEqual(new Set([7]));
  });
});
