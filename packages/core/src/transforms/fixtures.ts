import { oblique } from '../geometry/fixtures.ts';
import type { Volume } from '../volume.ts';
import { imageTransforms } from './table.ts';

/** What the tests of transforms share: applying them by name, rows of voxels, parameters of each. */

/** What the transforms have logged. */
export const logged: string[] = [];
const context = { parameters: {}, log: (text: string) => logged.push(text) };

/** The volume after these transforms, with their parameters as a manifest gives them. */
export async function apply(
  volume: Volume,
  ...steps: (readonly [name: string, parameters?: object])[]
): Promise<Volume> {
  let out = volume;
  for (const [name, parameters] of steps) {
    const transform = imageTransforms.find((t) => t.name === name);
    if (!transform) throw new Error(`no transform ${name}`);
    out = await transform.apply(out, transform.parameters.parse(parameters ?? {}), context);
  }
  return out;
}

/** A row of float32 voxels. */
export const row = (...values: number[]): Volume => ({
  voxels: Float32Array.from(values),
  size: [values.length, 1, 1],
  components: 1,
  affine: oblique,
});
/** The voxels after these transforms, rounded to five digits. */
export const values = async (volume: Volume, ...steps: (readonly [string, object?])[]) =>
  Array.from((await apply(volume, ...steps)).voxels as Float32Array, (v) => Number(v.toFixed(5)));

/** Parameters that every transform is tried with, as a manifest gives them. */
export const parameterSets: Record<string, readonly object[]> = {
  orientation: [
    { axcodes: 'RAS' },
    { axcodes: 'LIA' },
    { axcodes: 'PSR' },
    { axcodes: 'IRP' },
    { axcodes: 'stored' },
  ],
  spacing: [
    { pixdim: [1, 1, 1] },
    { pixdim: [0.4, 0, 4], mode: 'nearest' },
    { pixdim: [-1, 3.3, 0.9], scaleExtent: true },
    { pixdim: [5, 5, 5], antiAlias: true, mode: 'cubic' },
    { pixdim: [1.1, 0.6, 0], fit: true, mode: 'linear' },
    { pixdim: [0.9, 2.5, 1.4], fit: true, mode: 'cubic', separate: 'auto' },
    { pixdim: [2, 0, 5], fit: true, mode: 'nearest', separate: 'y' },
  ],
  resize: [
    { size: [11, 9, 8] },
    { size: [3, 0, -1], antiAlias: true },
    { size: [1, 20, 2], mode: 'nearest' },
  ],
  cropForeground: [
    {},
    { above: 25 },
    { aboveFraction: 0.9, margin: [1, 0, 2] },
    { above: 99 },
    { nonzero: true, fillHoles: true, margin: 1 },
  ],
  centerSpatialCrop: [{ roiSize: [4, 3, 2] }, { roiSize: [1, -1, 99] }, { roiSize: [5, 6, 0] }],
  spatialPad: [
    { size: [12, 10, 14] },
    { size: [-1, 9, 2], mode: 'edge' },
    { size: [8, 13, 0], method: 'end', mode: 'reflect' },
  ],
  resizeWithPadOrCrop: [{ size: [4, 12, 9] }, { size: [15, -1, 2], mode: 'edge' }, { size: [0, 3, 13] }],
  divisiblePad: [{ k: 8 }, { k: [3, 4, 5], method: 'end' }, { k: [1, 7, 2], mode: 'reflect' }],
  flip: [{ axes: ['x'] }, { axes: ['z', 'y'] }, { axes: ['x', 'y', 'z'] }],
  standardUptakeValue: [{ withoutHeader: 'suv' }],
  scaleIntensity: [{}, { minv: -1, channelWise: true }],
  scaleIntensityRange: [
    { aMin: 0, aMax: 30 },
    { aMin: 5, aMax: 9, bMax: 3, clip: true },
  ],
  scaleIntensityRangePercentiles: [
    { lower: 5, upper: 95 },
    { lower: 10, upper: 80, relative: true },
  ],
  clipIntensityPercentiles: [{ upper: 95 }, { lower: 5, channelWise: true }],
  normalizeIntensity: [{}, { nonzero: true }, { mask: 'aboveMean' }, { foreground: true, channelWise: true }],
  divideByMax: [{}, { channelWise: true }],
  thresholdIntensity: [{ threshold: 5 }, { threshold: 5, above: false, cval: -1 }],
  castToType: [{ dtype: 'int32' }, { dtype: 'int16' }],
  gaussianSmooth: [{}, { sigma: [1.5, 0, 0.5] }, { sigmaMm: 2 }],
  medianSmooth: [{}, { radius: 2 }],
  keepLargestConnectedComponent: [{}, { appliedLabels: [3], independent: false }],
  removeSmallObjects: [{}, { minSize: 2 }, { minVolumeMl: 0.01 }],
  fillHoles: [{}, { slicewise: 'y', connectivity: 6 }],
  labelFilter: [{ appliedLabels: [1, 7] }],
  mapLabelValue: [{ origLabels: [1, 2], targetLabels: [300, 0] }],
  binaryClosing: [{ radiusMm: 2 }, { radiusMm: 3, appliedLabels: [5] }],
  binaryOpening: [{ radiusMm: 2 }, { radiusMm: 3, appliedLabels: [5] }],
  binaryDilation: [{ radiusMm: 2 }, { radiusMm: 3, appliedLabels: [5] }],
  binaryErosion: [{ radiusMm: 2 }, { radiusMm: 3, appliedLabels: [5] }],
};
