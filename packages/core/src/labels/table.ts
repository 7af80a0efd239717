import { z } from 'zod';
import { TomaatError } from '../errors.ts';
import { defineTransform, keepsGrid, type VolumeTransform } from '../transforms/transform.ts';
import { createVoxels, type Volume } from '../volume.ts';
import { type Connectivity, fillHoles, keepLargestComponent, removeSmallObjects } from './components.ts';
import { copyOf, holdsLabel, labelTypeFor, labelVoxels, setLabel } from './label-map.ts';
import { closeLabels, dilateLabels, erodeLabels, type MorphologyOptions, openLabels } from './morphology.ts';

const label = z.int().min(-2147483648).max(2147483647);
const labelList = z.array(label).min(1).max(65536);
const appliedLabels = labelList.optional().describe('The labels to process; all but 0 if missing');

const connectivityNames = { 1: 6, 2: 18, 3: 26, 6: 6, 18: 18, 26: 26 } as const satisfies Record<
  number,
  Connectivity
>;
const connectivity = (standard: 6 | 26) =>
  z
    .union([z.literal(1), z.literal(2), z.literal(3), z.literal(6), z.literal(18), z.literal(26)])
    .default(standard)
    .transform((name): Connectivity => connectivityNames[name])
    .describe(
      'Neighbours that touch: 6 by faces, 18 by edges too, 26 by corners too; or 1, 2, 3 as MONAI calls them',
    );
const independent = z
  .boolean()
  .default(true)
  .describe('true: the components of each label; false: of all the labels taken as one mask');

const keepLargestConnectedComponent = defineTransform({
  name: 'keepLargestConnectedComponent',
  description: 'Keeps the largest connected component and sets the others to 0.',
  parameters: z.strictObject({
    appliedLabels,
    independent,
    connectivity: connectivity(26),
    numComponents: z.int().min(1).default(1).describe('Number of components to keep'),
  }),
  gridOf: keepsGrid,
  apply: (volume, p) =>
    keepLargestComponent(volume, {
      labels: p.appliedLabels,
      independent: p.independent,
      connectivity: p.connectivity,
      components: p.numComponents,
    }),
});

const removeSmall = defineTransform({
  name: 'removeSmallObjects',
  description: 'Sets connected components below a size to 0.',
  parameters: z
    .strictObject({
      minSize: z.int().min(1).optional().describe('Minimum number of voxels; 64 if neither limit is given'),
      minVolumeMl: z.number().positive().optional().describe('Minimum volume, millilitres'),
      connectivity: connectivity(6),
      independent,
      appliedLabels,
    })
    .describe('With both limits, a component must meet both'),
  gridOf: keepsGrid,
  apply: (volume, p) =>
    removeSmallObjects(volume, {
      minVoxels: p.minSize,
      minVolumeMl: p.minVolumeMl,
      connectivity: p.connectivity,
      independent: p.independent,
      labels: p.appliedLabels,
    }),
});

const fill = defineTransform({
  name: 'fillHoles',
  description: 'Sets every voxel that a label encloses to that label.',
  parameters: z.strictObject({
    appliedLabels,
    connectivity: connectivity(26),
    slicewise: z
      .enum(['x', 'y', 'z'])
      .optional()
      .describe('Fills each slice perpendicular to this axis separately; the whole volume if missing'),
  }),
  gridOf: keepsGrid,
  apply: (volume, p) =>
    fillHoles(volume, { labels: p.appliedLabels, connectivity: p.connectivity, slicewise: p.slicewise }),
});

const labelFilter = defineTransform({
  name: 'labelFilter',
  description: 'Keeps the voxels of the given labels and sets all others to 0.',
  parameters: z.strictObject({ appliedLabels: labelList.describe('The labels to keep') }),
  gridOf: keepsGrid,
  apply: (volume, p) => filterLabels(volume, p.appliedLabels),
  valuesAfter: (values, p) => values.filter((value) => value === 0 || p.appliedLabels.includes(value)),
});

const mapLabelValue = defineTransform({
  name: 'mapLabelValue',
  description: 'Gives labels other values, all at once; values that are not listed stay.',
  parameters: z
    .strictObject({
      origLabels: labelList.describe('The original values'),
      targetLabels: labelList.describe('The new value of each; 0 removes it'),
    })
    .refine((p) => p.origLabels.length === p.targetLabels.length, {
      path: ['targetLabels'],
      message: 'must have as many values as origLabels',
    })
    .refine((p) => new Set(p.origLabels).size === p.origLabels.length, {
      path: ['origLabels'],
      message: 'must name each value once',
    }),
  gridOf: keepsGrid,
  apply: (volume, p) => mapLabels(volume, p.origLabels, p.targetLabels),
  valuesAfter: (values, p) =>
    values.map((value) => {
      const index = p.origLabels.indexOf(value);
      return index < 0 ? value : p.targetLabels[index];
    }),
});

function morphologyTransform(
  name: string,
  description: string,
  apply: (volume: Volume, options: MorphologyOptions) => Volume,
): VolumeTransform {
  return defineTransform({
    name,
    description,
    parameters: z.strictObject({
      radiusMm: z.number().positive().max(1000).describe('Radius of the ball, mm'),
      appliedLabels,
    }),
    gridOf: keepsGrid,
    apply: (volume, p) => apply(volume, { radiusMm: p.radiusMm, labels: p.appliedLabels }),
  });
}

/** The transforms of label maps, for postprocessing; names as in MONAI where they exist there. */
export const labelTransforms: readonly VolumeTransform[] = [
  keepLargestConnectedComponent,
  removeSmall,
  fill,
  labelFilter,
  mapLabelValue,
  morphologyTransform('binaryClosing', 'Fills gaps in a label that a ball does not fit into.', closeLabels),
  morphologyTransform('binaryOpening', 'Removes parts of a label that a ball does not fit into.', openLabels),
  morphologyTransform('binaryDilation', 'Grows a label by a ball into the background.', dilateLabels),
  morphologyTransform('binaryErosion', 'Shrinks a label by a ball.', erodeLabels),
];

/** The label map with the voxels of all other labels set to 0. */
export function filterLabels(volume: Volume, labels: readonly number[]): Volume {
  const kept = new Set(labels);
  const source = labelVoxels(volume);
  const { result, voxels } = copyOf(volume);
  let last = 0;
  let stays = true;
  for (let i = 0; i < source.length; i++) {
    const value = source[i];
    if (value === 0) continue;
    if (value !== last) {
      last = value;
      stays = kept.has(value);
    }
    if (!stays) setLabel(voxels, i, 0);
  }
  return result;
}

/**
 * The label map with each value of `from` replaced by the corresponding one of `to`; others are unchanged. The voxel
 * type is kept if it can represent the new values, otherwise it becomes the smallest type that can.
 */
export function mapLabels(volume: Volume, from: readonly number[], to: readonly number[]): Volume {
  if (from.length !== to.length) {
    throw new TomaatError(
      'BAD_INPUT',
      `${from.length} labels cannot be mapped to ${to.length}. Give as many of each.`,
    );
  }
  const map = new Map(from.map((value, i) => [value, to[i]]));
  const source = labelVoxels(volume);
  let voxels = volume.voxels.slice() as Volume['voxels'];
  if (to.some((value) => !holdsLabel(volume.voxels, value))) {
    const present = new Set<number>();
    let last = 0;
    for (let i = 0; i < source.length; i++) {
      if (source[i] !== last) present.add((last = source[i]));
    }
    voxels = createVoxels(labelTypeFor([...present, ...to]), source.length);
    for (let i = 0; i < source.length; i++) voxels[i] = source[i];
  }
  let last = Number.NaN;
  let target: number | undefined;
  for (let i = 0; i < source.length; i++) {
    const value = source[i];
    if (value !== last) {
      last = value;
      target = map.get(value);
    }
    if (target !== undefined) setLabel(voxels, i, target);
  }
  return { ...volume, voxels };
}
