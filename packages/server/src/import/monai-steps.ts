import type { WrittenStep } from './translation.ts';

/**
 * MONAI's transforms as steps of a manifest: the table of `tomaat import`. Every argument arrives with its value, defaults included; a
 * value without counterpart is `approximate()`d with its difference, or refused with `UnknownValue`. Names and meanings: MONAI 1.6.
 */

export type Arguments = Readonly<Record<string, unknown>>;
type Approximate = (text: string) => void;
type Entry = (given: Arguments, approximate: Approximate) => WrittenStep | undefined;

/** A value of an argument that no step has. */
export class UnknownValue extends Error {}

/** Configs also have "True" and "False" as text. */
export const isTrue = (value: unknown): boolean =>
  value === true || (typeof value === 'string' && value.toLowerCase() === 'true');

/** With several keys an argument may be a list: the first one is that of the image. */
const first = (value: unknown): unknown => (Array.isArray(value) ? value[0] : value);

function number(value: unknown, name: string): number {
  const found = typeof value === 'string' ? Number(value) : value;
  if (typeof found === 'number' && Number.isFinite(found)) return found;
  throw new UnknownValue(`${name} is ${JSON.stringify(value) ?? 'missing'}, not a number`);
}

const given = (value: unknown): boolean => value !== undefined && value !== null;

/** One number for each of x, y, z: a list, or one for all. */
function triple(value: unknown, name: string): [number, number, number] {
  const list = Array.isArray(value) ? value : [value];
  const all = list.length === 1 ? [list[0], list[0], list[0]] : list;
  if (all.length !== 3)
    throw new UnknownValue(`${name} has ${all.length} values, not one for each of x, y and z`);
  const [x, y, z] = all.map((entry) => number(entry, name));
  return [x, y, z];
}

const channelWise = ({ channel_wise: value }: Arguments) => (isTrue(value) ? { channelWise: true } : {});

/** The keys of a step without those that are undefined; the name alone if none is left. */
function step(name: string, parameters: Record<string, unknown>): WrittenStep {
  const kept = Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== undefined));
  return Object.keys(kept).length === 0 ? name : { [name]: kept };
}

const modes: Readonly<Record<string, string>> = {
  bilinear: 'linear',
  trilinear: 'linear',
  linear: 'linear',
  nearest: 'nearest',
  0: 'nearest',
  1: 'linear',
  3: 'cubic',
};

function interpolation(value: unknown): string | undefined {
  const mode = modes[String(value)];
  if (!mode) throw new UnknownValue(`the mode ${JSON.stringify(value)} is not nearest, linear or cubic`);
  return mode === 'linear' ? undefined : mode;
}

const padModes: Readonly<Record<string, string>> = {
  constant: 'constant',
  edge: 'edge',
  replicate: 'edge',
  reflect: 'reflect',
};

function padding(given: Arguments): Record<string, unknown> {
  const mode = padModes[String(first(given.mode) ?? 'constant')];
  if (!mode)
    throw new UnknownValue(`the padding ${JSON.stringify(given.mode)} is not constant, edge or reflect`);
  const value = Number(given.value ?? given.constant_values ?? 0);
  return {
    method: given.method === 'end' ? 'end' : undefined,
    mode: mode === 'constant' ? undefined : mode,
    value: value === 0 ? undefined : value,
  };
}

/** A label or labels, as a list; undefined for all. */
const labels = (value: unknown): unknown =>
  given(value) ? (Array.isArray(value) ? value : [value]) : undefined;

/** Whole numbers that float32 voxels can be cut off to; int64 goes beyond what they hold. */
const wholeTypes: Readonly<Record<string, string>> = { int16: 'int16', int32: 'int32', int64: 'int32' };
const typeNames: Readonly<Record<string, string>> = { short: 'int16', int: 'int32', long: 'int64' };

/** CastToType and EnsureType: of floating types there is no step, as the app computes in float32. */
function castStep(args: Arguments, approximate: Approximate): WrittenStep | undefined {
  const dtype = first(args.dtype);
  const { object, function: made } = (given(dtype) ? dtype : {}) as { object?: string; function?: string };
  const said = typeof dtype === 'string' ? dtype : (object ?? made ?? '');
  // torch.int16, numpy's int16, and an object of numpy's Int16DType.
  const name = said.split('.').at(-1)!.toLowerCase().replace('dtype', '');
  const type = Object.hasOwn(typeNames, name) ? typeNames[name] : name;
  if (Object.hasOwn(wholeTypes, type)) return { castToType: { dtype: wholeTypes[type] } };
  if (/^(u?int|bool)/.test(type)) approximate(`makes values of ${type}. The app keeps them as they are`);
  return undefined;
}

/** Transforms of images. */
export const imageSteps: Readonly<Record<string, Entry>> = {
  CastToType: castStep,
  EnsureType: castStep,

  Orientation(args) {
    const axcodes = isTrue(args.as_closest_canonical) ? 'RAS' : args.axcodes;
    if (typeof axcodes !== 'string') throw new UnknownValue('axcodes is not three letters');
    return { orientation: { axcodes } };
  },

  Spacing(args, approximate) {
    for (const name of ['min_pixdim', 'max_pixdim'])
      if (given(args[name]))
        throw new UnknownValue(`${name} keeps the spacing of some volumes, which no step does`);
    if (isTrue(args.diagonal)) throw new UnknownValue('diagonal turns the axes, which no step does');
    if (isTrue(first(args.align_corners))) approximate('align_corners is not followed');
    if (!['border', 'replicate', 'nearest'].includes(String(first(args.padding_mode) ?? 'border')))
      approximate(`padding_mode is ${first(args.padding_mode)}. The app repeats the border`);
    return step('spacing', {
      pixdim: triple(args.pixdim, 'pixdim').map((mm) => (mm > 0 ? mm : -1)),
      mode: interpolation(first(args.mode) ?? 'bilinear'),
      scaleExtent: isTrue(first(args.scale_extent)) || undefined,
    });
  },

  Resize(args, approximate) {
    if ((args.size_mode ?? 'all') !== 'all')
      throw new UnknownValue(`size_mode ${args.size_mode} has no step`);
    const mode = first(args.mode) ?? 'area';
    if (mode === 'area') approximate('the mode area averages voxels. The app interpolates linearly');
    if (given(args.anti_aliasing_sigma) && isTrue(first(args.anti_aliasing)))
      approximate('anti_aliasing_sigma is not followed. The app takes the default');
    return step('resize', {
      size: triple(args.spatial_size, 'spatial_size'),
      mode: mode === 'area' ? undefined : interpolation(mode),
      antiAlias: isTrue(first(args.anti_aliasing)) || undefined,
    });
  },

  CropForeground(args, approximate) {
    const choice = (args.select_fn as { function?: string } | undefined)?.function ?? 'is_positive';
    if (choice !== 'is_positive') throw new UnknownValue('select_fn is a function of its own');
    if (given(args.channel_indices)) throw new UnknownValue('channel_indices has no step');
    const divisible = Array.isArray(args.k_divisible) ? args.k_divisible : [args.k_divisible ?? 1];
    if (divisible.some((k) => Number(k) > 1))
      approximate(
        'k_divisible enlarges the box. The app keeps the box; add divisiblePad if the network needs it',
      );
    const margins = Array.isArray(args.margin)
      ? triple(args.margin, 'margin')
      : number(args.margin ?? 0, 'margin');
    const hasMargin = Array.isArray(margins) ? margins.some((n) => n > 0) : margins > 0;
    if (hasMargin && !isTrue(args.allow_smaller))
      approximate('allow_smaller: false adds voxels beyond the volume. The app’s box ends with the volume');
    return step('cropForeground', { margin: hasMargin ? margins : undefined });
  },

  CenterSpatialCrop: (args) => ({ centerSpatialCrop: { roiSize: triple(args.roi_size, 'roi_size') } }),
  SpatialPad: (args) =>
    step('spatialPad', { size: triple(args.spatial_size, 'spatial_size'), ...padding(args) }),
  DivisiblePad: (args) => step('divisiblePad', { k: triple(args.k, 'k'), ...padding(args) }),

  ResizeWithPadOrCrop(args) {
    const { method, ...pad } = padding(args);
    if (method) throw new UnknownValue('method end has no step');
    return step('resizeWithPadOrCrop', { size: triple(args.spatial_size, 'spatial_size'), ...pad });
  },

  Flip(args) {
    const axes = given(args.spatial_axis) ? [args.spatial_axis].flat() : [0, 1, 2];
    return { flip: { axes: axes.map((axis) => 'xyz'.at(number(axis, 'spatial_axis'))) } };
  },

  ScaleIntensity(args) {
    if (given(args.minv) || given(args.maxv))
      return step('scaleIntensity', {
        minv: number(args.minv ?? 0, 'minv'),
        maxv: number(args.maxv ?? 1, 'maxv'),
        ...channelWise(args),
      });
    const factor = 1 + number(args.factor ?? 0, 'factor');
    return { scaleIntensityRange: { aMin: 0, aMax: 1, bMin: 0, bMax: factor } };
  },

  ScaleIntensityRange: (args) => ({
    scaleIntensityRange: {
      aMin: number(args.a_min, 'a_min'),
      aMax: number(args.a_max, 'a_max'),
      bMin: number(args.b_min ?? 0, 'b_min'),
      bMax: number(args.b_max ?? 1, 'b_max'),
      ...(isTrue(args.clip) && given(args.b_min) && given(args.b_max) && { clip: true }),
    },
  }),

  ScaleIntensityRangePercentiles: (args) => ({
    scaleIntensityRangePercentiles: {
      lower: number(args.lower, 'lower'),
      upper: number(args.upper, 'upper'),
      bMin: number(args.b_min ?? 0, 'b_min'),
      bMax: number(args.b_max ?? 1, 'b_max'),
      ...(isTrue(args.clip) && { clip: true }),
      ...(isTrue(args.relative) && { relative: true }),
      ...channelWise(args),
    },
  }),

  ClipIntensityPercentiles(args) {
    if (given(args.sharpness_factor)) throw new UnknownValue('sharpness_factor (soft limits) has no step');
    return step('clipIntensityPercentiles', {
      lower: given(args.lower) ? number(args.lower, 'lower') : undefined,
      upper: given(args.upper) ? number(args.upper, 'upper') : undefined,
      ...channelWise(args),
    });
  },

  NormalizeIntensity(args) {
    const single = (value: unknown, name: string) => {
      if (!given(value)) return undefined;
      const all = [...new Set([value].flat())];
      if (all.length !== 1) throw new UnknownValue(`${name} differs between the channels`);
      return number(all[0], name);
    };
    const subtrahend = single(args.subtrahend, 'subtrahend');
    const divisor = single(args.divisor, 'divisor');
    return step('normalizeIntensity', {
      subtrahend,
      // MONAI takes a divisor of 0 as 1.
      divisor: divisor === 0 ? 1 : divisor,
      nonzero: isTrue(args.nonzero) || undefined,
      ...channelWise(args),
    });
  },

  ThresholdIntensity: (args) => ({
    thresholdIntensity: {
      threshold: number(args.threshold, 'threshold'),
      above: !given(args.above) || isTrue(args.above),
      cval: number(args.cval ?? 0, 'cval'),
    },
  }),

  GaussianSmooth(args, approximate) {
    if (args.approx !== 'sampled') approximate(`the kernel is ${args.approx ?? 'erf'}. The app’s is sampled`);
    return { gaussianSmooth: { sigma: triple(args.sigma ?? 1, 'sigma') } };
  },

  MedianSmooth(args) {
    const [radius, ...others] = triple(args.radius ?? 1, 'radius');
    if (others.some((other) => other !== radius)) throw new UnknownValue('radius differs between the axes');
    return { medianSmooth: { radius } };
  },
};

/** Transforms of label maps. */
export const labelSteps: Readonly<Record<string, Entry>> = {
  KeepLargestConnectedComponent: (args) =>
    step('keepLargestConnectedComponent', {
      appliedLabels: labels(args.applied_labels),
      independent: given(args.independent) && !isTrue(args.independent) ? false : undefined,
      connectivity: given(args.connectivity) ? number(args.connectivity, 'connectivity') : undefined,
      numComponents:
        Number(args.num_components ?? 1) > 1 ? number(args.num_components, 'num_components') : undefined,
    }),

  FillHoles: (args) =>
    step('fillHoles', {
      appliedLabels: labels(args.applied_labels),
      connectivity: given(args.connectivity) ? number(args.connectivity, 'connectivity') : undefined,
    }),

  RemoveSmallObjects(args) {
    if (isTrue(args.by_measure)) throw new UnknownValue('by_measure has no step');
    return step('removeSmallObjects', {
      minSize: number(args.min_size ?? 64, 'min_size'),
      connectivity: number(args.connectivity ?? 1, 'connectivity'),
      independent: given(args.independent_channels) && !isTrue(args.independent_channels) ? false : undefined,
    });
  },

  LabelFilter: (args) => ({ labelFilter: { appliedLabels: labels(args.applied_labels) } }),

  MapLabelValue: (args) => ({
    mapLabelValue: { origLabels: args.orig_labels, targetLabels: args.target_labels },
  }),
};
