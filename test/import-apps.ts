import type { Manifest } from '../packages/core/src/app/manifest.ts';
import { parseManifest } from '../packages/core/src/app/parse-manifest.ts';

/*
 * What the authors of the import fixtures do, as manifests: import-fixtures.test.ts compares each with its author's label maps.
 */

const common = {
  schemaVersion: 1,
  id: 'app',
  name: 'App',
  description: 'A network of other people.',
  version: '1',
  modality: 'any',
  anatomy: 'any',
  task: 'segmentation',
  authors: ['Others'],
  licence: 'Apache-2.0',
  intendedUse: 'Tests.',
  outputs: { segmentation: { type: 'LabelVolume' } },
};

export interface App {
  /** The folder of the fixture. */
  name: string;
  inferer: object;
  preprocess: unknown[];
  postprocess: unknown[];
  /** The inputs, if there are several. */
  channels?: string[];
}

/** The manifest of an app as it stands in a file. */
export function textOf(
  { inferer, preprocess, postprocess, channels = ['volume'] }: App,
  sha256 = '0'.repeat(64),
): string {
  const inputs = Object.fromEntries(channels.map((name) => [name, { type: 'volume' }]));
  const model = { runtime: 'onnx', file: 'model.onnx', sha256, inferer, channels };
  return JSON.stringify({ ...common, inputs, model, preprocess, postprocess });
}

export const manifestOf = (app: App): Manifest => parseManifest(textOf(app));

export const spleen: App = {
  name: 'monai-spleen-ct',
  preprocess: [
    { orientation: { axcodes: 'RAS' } },
    { spacing: { pixdim: [1.5, 1.5, 2] } },
    { scaleIntensityRange: { aMin: -57, aMax: 164, bMin: 0, bMax: 1, clip: true } },
  ],
  inferer: { type: 'slidingWindow', roiSize: [48, 48, 32], overlap: 0.5 },
  postprocess: ['softmax', 'restore', 'argmax'],
};

export const wholeBody: App = {
  name: 'monai-wholebody-ct',
  preprocess: [
    { orientation: { axcodes: 'RAS' } },
    { spacing: { pixdim: [1.5, 1.5, 1.5] } },
    { normalizeIntensity: { nonzero: true } },
    { scaleIntensity: { minv: -1, maxv: 1 } },
  ],
  inferer: {
    type: 'slidingWindow',
    roiSize: [48, 48, 32],
    overlap: 0.25,
    mode: 'gaussian',
    paddingMode: 'replicate',
  },
  postprocess: ['argmax', 'restore'],
};

export const prostate: App = {
  name: 'monai-prostate',
  preprocess: [
    { orientation: { axcodes: 'RAS' } },
    { spacing: { pixdim: [0.5, 0.5, 0.5] } },
    { scaleIntensity: { minv: 0, maxv: 1 } },
    'normalizeIntensity',
  ],
  inferer: { type: 'slidingWindow', roiSize: [48, 48, 48], overlap: 0.5 },
  postprocess: ['argmax', { keepLargestConnectedComponent: { appliedLabels: [1, 2] } }, 'restore'],
};

/** The author's lambda: whole tumour (channel 1) is 2, over it the core (0) 1, over both the enhancing part (2) 4. */
export const brats: App = {
  name: 'monai-brats',
  preprocess: [{ normalizeIntensity: { nonzero: true, channelWise: true } }],
  inferer: { type: 'slidingWindow', roiSize: [48, 48, 32], overlap: 0.5 },
  postprocess: [
    'sigmoid',
    'restore',
    {
      compose: [
        { channel: 1, above: 0.5, value: 2 },
        { channel: 0, above: 0.5, value: 1 },
        { channel: 2, above: 0.5, value: 4 },
      ],
    },
  ],
  channels: ['t1ce', 't1', 't2', 'flair'],
};

/** nnU-Net's own order: it normalises before it resamples, and does not reorient. */
export const abdomen = (inferer: object = {}): App => ({
  name: 'nn-ct',
  preprocess: [
    {
      scaleIntensityRange: {
        aMin: -42,
        aMax: 74,
        bMin: -4.714717639438796,
        bMax: 1.863701716000064,
        clip: true,
      },
    },
    { spacing: { pixdim: [3, 3, 3.5], mode: 'cubic', fit: true } },
  ],
  inferer: {
    type: 'slidingWindow',
    roiSize: [64, 56, 24],
    overlap: 0.5,
    mode: 'gaussian',
    stepping: 'nnunet',
    ...inferer,
  },
  postprocess: ['restore', 'argmax'],
});
