import { codesOfName, labelColors } from '@tomaat/core';
import { stringify } from 'yaml';
import type { NetworkShape } from './network-shape.ts';

/** What a network's file does not say. */
export interface ManifestAnswers {
  id: string;
  name: string;
  task: string;
  anatomy: string;
  modality: string;
  licence: string;
  author: string;
  /** The inputs of type volume, one for each channel. */
  channels: readonly string[];
  /** The storage order of the training, such as RAS, or `stored`: as in each file. */
  orientation: string;
  /** In training, mm along x, y, z; undefined: as stored in each file. */
  spacing?: readonly [number, number, number];
  inferer: 'simple' | 'slidingWindow';
  /** Voxels of a window along x, y, z, or columns and rows of a slice. */
  roiSize: readonly number[];
  /** The axis that the slices of a 2-D network lie across. */
  axis: 'x' | 'y' | 'z';
  /** In the order of their values, from 1. */
  labels: readonly string[];
}

/** A value as YAML on one line. */
const inline = (value: unknown) =>
  stringify(value, { collectionStyle: 'flow', lineWidth: 0, singleQuote: true }).trim();

/** A manifest for a network in an ONNX file: a valid `tomaat.yaml` whose comments say what has to be adapted. */
export function newManifest(
  shape: NetworkShape,
  answers: ManifestAnswers,
  model: { file: string; sha256: string },
): string {
  const { id, name, task, anatomy, modality, licence, author, channels, labels } = answers;
  const colors = labelColors(labels.length);
  const listed = labels.map((label, i) =>
    inline({ value: i + 1, name: label, color: colors[i], ...codesOfName(label) }),
  );
  return `schemaVersion: 1
id: ${inline(id)}
name: ${inline(name)}
# What it marks, on which images, and what it was trained on: shown to users.
description: ${inline(`Segments ${anatomy} on ${modality}.`)}
version: 0.1.0
modality: ${inline(modality)}
anatomy: ${inline(anatomy)}
task: ${inline(task)}
authors: ${inline([author])}
licence: ${inline(licence)}
# What it was made for, and what it was not made for.
intendedUse: Research. Not a medical device.

inputs:
${channels.map((channel) => `  ${channel}: ${inline({ type: 'volume', label: channels.length > 1 ? channel : `${modality} volume`, modality })}`).join('\n')}

# From the caller's file to the input of the network: exactly what was done in training, in the same order.
preprocess:
${preprocessLines(shape, answers).join('\n')}

model:
  runtime: onnx
  file: ${inline(model.file)}
  sha256: ${model.sha256}
${shape.output === undefined ? '' : `  output: ${inline(shape.output)}\n`}${channels.length > 1 ? `  # One volume for each channel, in this order.\n  channels: ${inline(channels)}\n` : ''}${infererLines(shape, answers).join('\n')}

postprocess:
${postprocessLines(shape, labels.length).join('\n')}

outputs:
  segmentation: { type: LabelVolume, label: Segmentation }
  volumes: { type: Measurements, label: Volumes, from: segmentation }

# A code says in a terminology what a label is; without one it is a piece of tissue to other programs. Those here are found by
# the names of the labels. Add the others:
# code: { scheme: SCT, value: '41216001', meaning: Prostate }
labels:
${listed.map((label) => `  - ${label}`).join('\n')}

# A case with the expected result, which “tomaat check” runs:
# sample: case.nii.gz
# selftest: { inputs: { ${channels[0]}: case.nii.gz }, expected: case-expected.nii.gz }

# A picture of a result, for the card on the first page: PNG, JPEG or WebP, at most 200 kB and 1024 × 1024 pixels. “tomaat run --preview”
# draws a larger one, to be scaled:
# picture: picture.webp
`;
}

function preprocessLines(shape: NetworkShape, answers: ManifestAnswers): string[] {
  const { orientation, spacing, modality, inferer, channels, axis } = answers;
  const lines = [
    `  - orientation: { axcodes: ${orientation} }`,
    spacing === undefined
      ? '  # The spacing (mm along x, y, z) stays as it is stored in each file; otherwise:\n  # - spacing: { pixdim: [1, 1, 1] }'
      : `  - spacing: { pixdim: ${inline(spacing)} }`,
  ];
  if (modality.toUpperCase() === 'CT') {
    lines.push(
      '  # The values of the training, in HU; [aMin, aMax] becomes [bMin, bMax].',
      '  - scaleIntensityRange: { aMin: -1000, aMax: 1000, bMin: 0, bMax: 1, clip: true }',
    );
  } else {
    lines.push(
      '  # The values as in training. Instead of this step, for instance:',
      '  # - scaleIntensityRangePercentiles: { lower: 0.5, upper: 99.5, bMin: 0, bMax: 1, clip: true }',
      `  - normalizeIntensity: ${inline({ nonzero: true, ...(channels.length > 1 && { channelWise: true }) })}`,
    );
  }
  const size = sizeBefore(shape, axis);
  if ((shape.isFlat || inferer === 'simple') && size.some((n) => n !== -1)) {
    lines.push(
      `  # The network takes ${shape.isFlat ? 'slices' : 'volumes'} of this size only. With resize, the image is scaled to it instead of cropped and padded.`,
      `  - resizeWithPadOrCrop: { size: ${inline(size)} }`,
    );
  } else if (shape.isFlat || inferer === 'simple') {
    lines.push(
      '  # Networks that halve their input need sizes that are multiples of 8, 16 or 32.',
      `  - divisiblePad: { k: ${inline(shape.isFlat ? [0, 1, 2].map((k) => ('xyz'[k] === axis ? 1 : 16)) : 16)} }`,
    );
  }
  return lines;
}

/** The size of the volume that a network of fixed size needs, x, y, z; −1 where any will do. */
function sizeBefore({ isFlat, size }: NetworkShape, axis: string): number[] {
  const lengths = size.map((n) => n ?? -1);
  if (!isFlat) return lengths;
  const [columns, rows] = lengths;
  // Rows and columns are y and x across z, z and x across y, z and y across x.
  if (axis === 'z') return [columns, rows, -1];
  return axis === 'y' ? [columns, -1, rows] : [-1, columns, rows];
}

function infererLines({ isFlat, size }: NetworkShape, { inferer, roiSize, axis }: ManifestAnswers): string[] {
  if (isFlat) {
    return [
      '  # Each slice as a whole, across this axis of the prepared volume.',
      `  inferer: { type: slice, axis: ${axis} }`,
    ];
  }
  if (inferer === 'simple') return ['  # The whole volume at once.', '  inferer: { type: simple }'];
  return [
    size.includes(null)
      ? '  # roiSize: the voxels of a patch in training, x, y, z.'
      : '  # The network takes windows of this size only.',
    `  inferer: { type: slidingWindow, roiSize: ${inline(roiSize)}, overlap: 0.5, mode: gaussian }`,
  ];
}

function postprocessLines({ givesLabels, classes, operator }: NetworkShape, labels: number): string[] {
  if (givesLabels) return ['  # The network gives label values.', '  - restore'];
  const isSigmoid = operator === 'Sigmoid';
  const makesProbabilities = isSigmoid || operator === 'Softmax';
  const restore = [
    '  # Back onto the grid of the caller’s file: scores are interpolated, then decided.',
    '  - restore',
  ];
  if (classes === 1) {
    return [
      ...(isSigmoid ? [] : ['  # Leave this out if the network gives probabilities.', '  - sigmoid']),
      ...restore,
      '  - threshold: { above: 0.5 }',
    ];
  }
  if (isSigmoid) {
    return [
      ...restore,
      '  # Each channel is a region of its own; where several are above, the last rule wins.',
      '  - compose:',
      ...Array.from({ length: labels }, (_, i) => `      - { channel: ${i}, above: 0.5, value: ${i + 1} }`),
    ];
  }
  return [
    ...(makesProbabilities
      ? []
      : [
          '  # MONAI’s Activations with softmax before Invert: put “- softmax” here. nnU-Net interpolates scores: leave it out.',
        ]),
    ...restore,
    '  - argmax',
  ];
}
