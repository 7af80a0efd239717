import { describe, expect, it } from 'vitest';
import { numericVoxels } from '../volume.ts';
import { fileOf, network, networkOf, type Output, run, scan, volumeIn } from './fixtures.ts';

/*
 * From the voxels of a file through a fit to scores and back. Expected labels by an independent chain in Python: nibabel 5 for
 * the axes, scipy 1.17.1 for both resamplings (ndimage.zoom and map_coordinates as skimage's resize and nnU-Net call them), NumPy for the rest.
 */

const text = async (output: Output) => Array.from(numericVoxels((await volumeIn(output)).voxels)).join('');
/** Class 1 wins above 8 in the middle, class 2 above 12.5. */
const classes = network(([v]) => [8, v, 0.08 * v * v]);

/** 5 × 4 × 3 voxels of 1.2 × 0.8 × 2.5 mm, oblique and left-handed, become 3 × 3 × 5 of another axis order, then 4 × 5 × 4. */
const before = [{ orientation: { axcodes: 'SPR' } }, { centerSpatialCrop: { roiSize: [3, 3, 5] } }];
const pixdim = [2, 0.5, 1.5];

describe('predict(): scores and a fit', () => {
  it.each([
    [
      'slices along the coarse axis',
      [{ spacing: { pixdim, mode: 'cubic', fit: true, separate: 'auto' } }],
      ['restore', 'argmax'],
      '002222222222112000002222222122221120000022222122222222200000',
    ],
    [
      'slices, padded afterwards, and probabilities',
      [{ spacing: { pixdim, mode: 'cubic', fit: true, separate: 'x' } }, { divisiblePad: { k: 8 } }],
      ['softmax', 'restore', 'argmax'],
      '012222220222112000002002222002211020000020222122222222200000',
    ],
    [
      'all three axes, by splines although no mode says so',
      [{ spacing: { pixdim, fit: true } }],
      ['restore', 'argmax'],
      '012222222222112000002222222222221120000022222122222222200000',
    ],
  ])('resamples %s there and back as nnU-Net', async (_, spacing, postprocess, expected) => {
    const steps = [...before, ...spacing];
    // As steps of all volumes, of this one alone, and of both.
    for (const own of [0, steps.length, 2]) {
      const inputs = { volume: { type: 'volume', preprocess: steps.slice(0, own) } };
      const manifest = networkOf({ inputs, preprocess: steps.slice(own), postprocess });
      const { outputs } = await run(manifest, classes, { files: { volume: [await fileOf(scan)] } });
      expect(await text(outputs.segmentation)).toBe(expected);
    }
  });

  it('restores label maps by the nearest voxel', async () => {
    const spacing = { pixdim: [0, 0.4, 0], mode: 'nearest', fit: true, separate: 'z' };
    const manifest = networkOf({ preprocess: [{ spacing }], postprocess: ['argmax', 'restore'] });
    const { outputs } = await run(manifest, classes, { files: { volume: [await fileOf(scan)] } });
    const labels = Array.from(scan.voxels as Int16Array, (v) =>
      0.08 * v * v > Math.max(8, v) ? 2 : Number(v > 8),
    );
    expect(await text(outputs.segmentation)).toBe(labels.join(''));
  });

  it('decides about probabilities on the network’s grid where no restore comes before', async () => {
    const channels = network(([v]) => [v - 15, 15 - v]);
    const files = { volume: [await fileOf(scan)] };
    const labels = (above: (v: number) => boolean) =>
      Array.from(scan.voxels as Int16Array, (v) => Number(above(v))).join('');
    const of = async (postprocess: unknown[]) =>
      text((await run(networkOf({ postprocess }), channels, { files })).outputs.segmentation);
    // 1 / (1 + exp(−2)) is 0.88, of a softmax at a difference of 2; of a sigmoid at a score of 2.
    const threshold = { threshold: { channel: 1, above: 0.85 } };
    expect(await of(['sigmoid', threshold])).toBe(labels((v) => 15 - v >= 2));
    expect(await of(['softmax', threshold, 'restore'])).toBe(labels((v) => 15 - v >= 1));
    expect(await of(['softmax', 'argmax'])).toBe(labels((v) => 15 - v > v - 15));
  });
});
