import { z } from 'zod';
import { spacingOf, type Vec3 } from '../geometry/affine.ts';
import { cropOrPad, flip, type PadOptions, reorient } from '../geometry/exact.ts';
import { fitOf, fitVolume, separations } from '../geometry/fit.ts';
import {
  centerCrop,
  cropGrid,
  divisibleSize,
  flippedGrid,
  orientedGrid,
  padAround,
  resizedGrid,
  spacedGrid,
} from '../geometry/grid.ts';
import { type Interpolation, interpolations, resample } from '../geometry/resample.ts';
import { type Grid, numericVoxels, type Size, type Volume, type VoxelType, voxelTypeOf } from '../volume.ts';
import { antiAliasSigma, gaussianFilter } from './filters.ts';
import { extremes } from './statistics.ts';
import { defineTransform, keepsGrid, type VolumeTransform } from './transform.ts';

/*
 * Transforms of geometry, with the names and meanings of MONAI's. Each gives the result an affine under which every
 * voxel stays where it was in the world, so restore() undoes any chain of them.
 */

const length = z.int().min(1).max(65_536);
const sizeSchema = z.tuple([length, length, length]);
const partialSize = z
  .tuple([z.int().min(-1).max(65_536), z.int().min(-1).max(65_536), z.int().min(-1).max(65_536)])
  .describe('Voxels along x, y, z; 0 or −1 leaves an axis as it is');
const mode = z.enum(interpolations);
const padding = {
  mode: z
    .enum(['constant', 'edge', 'reflect'])
    .default('constant')
    .describe('What the new voxels are: one value, the border repeated, or the mirror image'),
  value: z.number().default(0).describe('For constant'),
};

const wanted = (grid: Grid, size: readonly number[]): Size => [
  size[0] > 0 ? size[0] : grid.size[0],
  size[1] > 0 ? size[1] : grid.size[1],
  size[2] > 0 ? size[2] : grid.size[2],
];

/** In the place of axis codes: nothing is turned. */
export const storedOrder = 'stored';

const orientation = defineTransform({
  name: 'orientation',
  description:
    'Permutes and flips axes so that x, y, z point to the letters of axcodes, e.g. RAS or LIA. Exact. “stored” states that the network was trained on axes as files store them.',
  parameters: z.strictObject({
    axcodes: z
      .string()
      .refine(
        (s) =>
          s === storedOrder ||
          (s.length === 3 && ['LR', 'PA', 'IS'].every((pair) => [...s].some((l) => pair.includes(l)))),
        {
          message:
            'must be three letters, one of L/R, one of P/A and one of I/S, such as "RAS", or "stored" to leave the axes as they are',
        },
      )
      .describe(
        'Where x, y and z point to: one of L/R, one of P/A, one of I/S; or “stored”: the axes stay as they are in the file',
      ),
  }),
  gridOf: (grid, { axcodes }) => (axcodes === storedOrder ? grid : orientedGrid(grid, axcodes)),
  apply: (volume, { axcodes }) => (axcodes === storedOrder ? volume : reorient(volume, axcodes)),
});

const flipAxes = defineTransform({
  name: 'flip',
  description: 'Reverses the order of voxels along axes; their places in the world stay. Exact.',
  parameters: z.strictObject({
    axes: z
      .array(z.enum(['x', 'y', 'z']))
      .min(1)
      .max(3)
      .describe('Which axes'),
  }),
  gridOf: (grid, { axes }) => flippedGrid(grid, axes),
  apply: (volume, { axes }) => flip(volume, axes),
});

/** Interpolated values in the volume's own type where the type is that of a computation, else float32. */
const resultType = (volume: Volume, mode: string): VoxelType =>
  mode === 'nearest' ? voxelTypeOf(volume.voxels) : 'float32';

/** Cubic needs the coefficients of its spline beside volume and result, and a fit what is between its axes. */
const volumesHeld = ({ mode, fit = false }: { mode: string; fit?: boolean }): number =>
  mode === 'cubic' || (fit && mode !== 'nearest') ? 3 : 2;

/** nnU-Net resamples images by cubic splines. */
const spacingMode = ({ mode, fit }: { mode?: Interpolation; fit: boolean }): Interpolation =>
  mode ?? (fit ? 'cubic' : 'linear');

const spacing = defineTransform({
  name: 'spacing',
  description:
    'Resamples to a spacing in mm along the volume’s own axes. Directions and the centre of the first voxel stay; the size is round((n − 1) · old / new + 1). What lies outside repeats the border. With fit, as nnU-Net does it.',
  parameters: z
    .strictObject({
      pixdim: z
        .tuple([z.number().max(1000), z.number().max(1000), z.number().max(1000)])
        .describe('mm along x, y, z; 0 or −1 keeps an axis'),
      mode: mode.optional().describe('How values are interpolated: linear if missing, with fit cubic'),
      scaleExtent: z
        .boolean()
        .default(false)
        .describe('Keep the outer edge of the first voxel, not its centre; the size is round(n · old / new)'),
      antiAlias: z
        .boolean()
        .default(false)
        .describe('Smooth first where the new spacing is larger: Gaussian, sigma (new / old − 1) / 2 voxels'),
      fit: z
        .boolean()
        .default(false)
        .describe(
          'Resample as nnU-Net: the outer edges of the volume stay, the size is round(n · old / new), halves to even, and the values of cubic are limited to the range of the source. Scores are restored in the same way',
        ),
      separate: z
        .enum(separations)
        .optional()
        .describe(
          'With fit: resample the slices along this axis by themselves, and take the nearest one. auto chooses the axis of the largest spacing if it is more than 3 times the smallest, before or after',
        ),
    })
    .refine((p) => !p.fit || !p.scaleExtent, {
      path: ['scaleExtent'],
      message: 'does not go with fit, which keeps both outer edges. Leave it out',
    })
    .refine((p) => !p.fit || !p.antiAlias, {
      path: ['antiAlias'],
      message: 'does not go with fit, since nnU-Net does not smooth. Leave one of them out',
    })
    .refine((p) => p.fit || p.separate === undefined, {
      path: ['separate'],
      message: 'needs fit: true. Add it, or leave separate out',
    }),
  gridOf: (grid, { pixdim, scaleExtent, fit }) =>
    fit ? fitOf(grid, pixdim).to : spacedGrid(grid, pixdim, { scaleExtent }),
  volumesHeld: (parameters) => volumesHeld({ ...parameters, mode: spacingMode(parameters) }),
  fitOf: (grid, { pixdim, fit, separate }) => (fit ? fitOf(grid, pixdim, separate) : undefined),
  apply(volume, { pixdim, antiAlias, fit, separate, ...given }, _, grid) {
    const mode = spacingMode({ ...given, fit });
    if (fit) return fitVolume(volume, grid, mode, fitOf(volume, pixdim, separate).sliceAxis);
    const old = spacingOf(volume.affine);
    const factor = spacingOf(grid.affine).map((mm, axis) => mm / old[axis]);
    const source = antiAlias && mode !== 'nearest' ? gaussianFilter(volume, antiAliasSigma(factor)) : volume;
    return resample(source, grid, { mode, outside: 'edge', type: resultType(volume, mode) });
  },
});

const resize = defineTransform({
  name: 'resize',
  description: 'Resamples to a number of voxels over the same field of view (outer edges stay).',
  parameters: z.strictObject({
    size: partialSize,
    mode: mode.default('linear'),
    antiAlias: z
      .boolean()
      .default(false)
      .describe('Smooth first where an axis shrinks: Gaussian, sigma (old / new − 1) / 2 voxels'),
  }),
  gridOf: (grid, { size }) => resizedGrid(grid, wanted(grid, size)),
  volumesHeld,
  apply(volume, { mode, antiAlias }, _, grid) {
    const factor = grid.size.map((n, axis) => volume.size[axis] / n);
    const source = antiAlias && mode !== 'nearest' ? gaussianFilter(volume, antiAliasSigma(factor)) : volume;
    return resample(source, grid, { mode, outside: 'edge', type: resultType(volume, mode) });
  },
});

const cropForeground = defineTransform({
  name: 'cropForeground',
  description:
    'Crops to the box of the foreground, plus a margin, within the volume: the voxels above a value in any component, or those that are not 0. With none the volume stays whole. In the result everything outside the box is background.',
  parameters: z
    .strictObject({
      above: z.number().optional().describe('Foreground is greater than this; default 0'),
      aboveFraction: z
        .number()
        .min(0)
        .max(1)
        .optional()
        .describe('The same as a fraction of the highest value'),
      nonzero: z
        .boolean()
        .default(false)
        .describe('Foreground is what is not 0, negative values too, as in nnU-Net'),
      fillHoles: z
        .boolean()
        .default(false)
        .describe(
          'What the foreground encloses belongs to it, as in nnU-Net. The box is the same; normalizeIntensity with foreground fills the same holes',
        ),
      margin: z
        .union([z.int().min(0), z.tuple([z.int().min(0), z.int().min(0), z.int().min(0)])])
        .default(0)
        .describe('Voxels to keep around the box: one number, or x, y, z'),
    })
    .refine((p) => p.above === undefined || p.aboveFraction === undefined, {
      message: 'give above or aboveFraction, not both',
    })
    .refine((p) => !p.nonzero || (p.above === undefined && p.aboveFraction === undefined), {
      message: 'cannot be combined with above or aboveFraction. Give one of them',
      path: ['nonzero'],
    })
    .refine((p) => p.nonzero || !p.fillHoles, {
      message: 'needs nonzero: true',
      path: ['fillHoles'],
    }),
  gridOf: keepsGrid,
  gridIsUpperBound: true,
  apply(volume, { above, aboveFraction, nonzero, margin }, context) {
    const threshold =
      aboveFraction !== undefined ? aboveFraction * extremes(volume.voxels).max : (above ?? 0);
    // Holes need no search: they lie within the box of what encloses them.
    const box = foregroundBox(volume, threshold, nonzero);
    if (!box) {
      const none = nonzero ? 'every voxel is 0' : `no voxel is above ${threshold}`;
      context.log(`cropForeground: ${none}, so the volume stays whole`);
      return volume;
    }
    const margins = typeof margin === 'number' ? [margin, margin, margin] : margin;
    const low = box.min.map((v, axis) => Math.max(0, v - margins[axis]));
    const high = box.max.map((v, axis) => Math.min(volume.size[axis] - 1, v + margins[axis]));
    return cropOrPad(
      volume,
      [low[0], low[1], low[2]],
      [high[0] - low[0] + 1, high[1] - low[1] + 1, high[2] - low[2] + 1],
    );
  },
});

/** First and last index along x, y, z of the voxels above a value, or other than 0, in any component. */
function foregroundBox(
  volume: Volume,
  above: number,
  nonzero: boolean,
): { min: number[]; max: number[] } | undefined {
  const [nx, ny, nz] = volume.size;
  const min = [nx, ny, nz];
  const max = [-1, -1, -1];
  const plane = nx * ny;
  // A plane at a time as float64, so that the loop meets one kind of array.
  const values = new Float64Array(plane);
  const voxels = numericVoxels(volume.voxels);
  for (let start = 0; start < voxels.length; start += plane) {
    values.set(voxels.subarray(start, start + plane));
    // 1 is above the threshold 0 of `nonzero`; NaN is not 0.
    if (nonzero) for (let i = 0; i < values.length; i++) values[i] = values[i] === 0 ? 0 : 1;
    const z = (start / plane) % nz;
    for (let y = 0; y < ny; y++) {
      const row = y * nx;
      let first = 0;
      while (first < nx && !(values[row + first] > above)) first++;
      if (first === nx) continue;
      let last = nx - 1;
      while (!(values[row + last] > above)) last--;
      min[0] = Math.min(min[0], first);
      max[0] = Math.max(max[0], last);
      min[1] = Math.min(min[1], y);
      max[1] = Math.max(max[1], y);
      min[2] = Math.min(min[2], z);
      max[2] = Math.max(max[2], z);
    }
  }
  return max[0] < 0 ? undefined : { min, max };
}

/**
 * A transform that takes a box of the volume's voxels, which may reach beyond the volume: `size` voxels from voxel index
 * `start`. Grid and voxels come from the same box.
 */
function defineBoxTransform<S extends z.ZodType>({
  boxOf,
  outside,
  ...description
}: {
  name: string;
  description: string;
  parameters: S;
  boxOf(grid: Grid, parameters: z.output<S>): { start: Vec3; size: Size };
  /** What the voxels beyond the volume become. */
  outside?(parameters: z.output<S>): PadOptions;
}): VolumeTransform {
  return defineTransform({
    ...description,
    gridOf(grid, parameters) {
      const { start, size } = boxOf(grid, parameters);
      return cropGrid(grid, start, size);
    },
    apply(volume, parameters) {
      const { start, size } = boxOf(volume, parameters);
      return cropOrPad(volume, start, size, outside?.(parameters));
    },
  });
}

const paddingOf = ({ mode, value }: PadOptions): PadOptions => ({ mode, value });

const centerSpatialCrop = defineBoxTransform({
  name: 'centerSpatialCrop',
  description: 'Crops around the centre to at most this many voxels; smaller axes stay. Exact.',
  parameters: z.strictObject({ roiSize: partialSize }),
  boxOf: (grid, { roiSize }) => centerCrop(grid, wanted(grid, roiSize)),
});

const spatialPad = defineBoxTransform({
  name: 'spatialPad',
  description: 'Pads to at least this many voxels; larger axes stay. Exact.',
  parameters: z.strictObject({
    size: partialSize,
    method: z
      .enum(['symmetric', 'end'])
      .default('symmetric')
      .describe('Half on each side (the odd voxel at the end), or all of it at the end'),
    ...padding,
  }),
  boxOf: (grid, { size, method }) => padAround(grid, wanted(grid, size), method),
  outside: paddingOf,
});

const resizeWithPadOrCrop = defineBoxTransform({
  name: 'resizeWithPadOrCrop',
  description:
    'Pads or crops each axis around the centre to exactly this many voxels, without resampling. Exact.',
  parameters: z.strictObject({ size: partialSize, ...padding }),
  boxOf(grid, parameters) {
    const size = wanted(grid, parameters.size);
    const crop = centerCrop(grid, size);
    const pad = padAround(grid, size);
    // Each axis is either cropped or padded, so the two starts never meet.
    const start = crop.start.map((v, axis) => v + pad.start[axis]);
    return { start: [start[0], start[1], start[2]], size };
  },
  outside: paddingOf,
});

const divisiblePad = defineBoxTransform({
  name: 'divisiblePad',
  description: 'Pads each axis to the next multiple of k, as networks with strides need. Exact.',
  parameters: z.strictObject({
    k: z.union([length, sizeSchema]).describe('One number, or x, y, z'),
    method: z
      .enum(['symmetric', 'end'])
      .default('symmetric')
      .describe('Half on each side, or all at the end'),
    ...padding,
  }),
  boxOf: (grid, { k, method }) => padAround(grid, divisibleSize(grid.size, k), method),
  outside: paddingOf,
});

/** The transforms of geometry, in the order of the documentation. */
export const spatialTransforms: readonly VolumeTransform[] = [
  orientation,
  spacing,
  resize,
  cropForeground,
  centerSpatialCrop,
  spatialPad,
  resizeWithPadOrCrop,
  divisiblePad,
  flipAxes,
];
