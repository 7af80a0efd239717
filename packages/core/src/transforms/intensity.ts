import { z } from 'zod';
import { TomaatError } from '../errors.ts';
import { spacingOf, type Vec3 } from '../geometry/affine.ts';
import { numericVoxels, type SuvScale, type Volume, type Voxels, voxelCount } from '../volume.ts';
import { gaussianFilter, medianFilter } from './filters.ts';
import { foregroundMask } from './foreground.ts';
import {
  extremes,
  forEachPiece,
  hasFewValues,
  type Mask,
  masks,
  percentiles,
  placesOf,
  summarize,
  summarizeWithin,
  valuesOf,
} from './statistics.ts';
import { defineTransform, keepsGrid, type VolumeTransform } from './transform.ts';

/*
 * Transforms of intensity, with the names and meanings of MONAI's. Results are float32. NaN and ±Infinity are left out
 * of every statistic, and a result that is not a finite float32 becomes 0; so only clipping gives ±Infinity a value.
 */

/** Writes the results for some voxels into `out`, from the given place on. */
type Fill = (values: Float64Array, out: Float32Array, start: number) => void;

/** The volume as float32, each component (or all of them at once) filled by a function made for it. */
function fillFloat32(volume: Volume, channelWise: boolean, fillFor: (voxels: Voxels) => Fill): Volume {
  const n = channelWise ? voxelCount(volume) : volume.voxels.length;
  const voxels = new Float32Array(volume.voxels.length);
  for (let from = 0; from < voxels.length; from += n) {
    const part = volume.voxels.subarray(from, from + n) as Voxels;
    const fill = fillFor(part);
    if (hasFewValues(part) && part.length > 2 ** (8 * part.BYTES_PER_ELEMENT)) {
      const table = new Float32Array(2 ** (8 * part.BYTES_PER_ELEMENT));
      fill(valuesOf(part), table, 0);
      const places = placesOf(part);
      if (places instanceof Uint8Array) lookUp8(places, table, voxels, from);
      else lookUp16(places, table, voxels, from);
      continue;
    }
    forEachPiece(part, (values, start) => fill(values, voxels, from + start));
  }
  return { voxels, size: volume.size, components: volume.components, affine: volume.affine };
}

// One function for each width: a loop that meets several kinds of array is several times slower.
function lookUp8(places: Uint8Array, table: Float32Array, out: Float32Array, start: number): void {
  for (let i = 0; i < places.length; i++) out[start + i] = table[places[i]];
}

function lookUp16(places: Uint16Array, table: Float32Array, out: Float32Array, start: number): void {
  for (let i = 0; i < places.length; i++) out[start + i] = table[places[i]];
}

/** The volume with every value passed through a function. */
function mapValues(
  volume: Volume,
  channelWise: boolean,
  functionFor: (voxels: Voxels) => (v: number) => number,
): Volume {
  return fillFloat32(volume, channelWise, (voxels) => {
    const f = functionFor(voxels);
    return (values, out, start) => {
      for (let i = 0; i < values.length; i++) {
        const v = Math.fround(f(values[i]));
        out[start + i] = v - v === 0 ? v : 0;
      }
    };
  });
}

/** low ≤ (v − minus) · scale + plus ≤ high */
interface LinearMap {
  readonly minus: number;
  readonly scale: number;
  readonly plus: number;
  readonly low: number;
  readonly high: number;
}

const linear = (minus: number, scale: number, plus = 0, low = -Infinity, high = Infinity): LinearMap => ({
  minus,
  scale,
  plus,
  low,
  high,
});

/** The volume with every value passed through a linear map: what most transforms are, in one fast loop. */
function mapLinear(volume: Volume, channelWise: boolean, mapFor: (voxels: Voxels) => LinearMap): Volume {
  return fillFloat32(volume, channelWise, (voxels) => {
    const { minus, scale, plus, low, high } = mapFor(voxels);
    return (values, out, start) => {
      for (let i = 0; i < values.length; i++) {
        const w = (values[i] - minus) * scale + plus;
        const v = Math.fround(w < low ? low : w > high ? high : w);
        out[start + i] = v - v === 0 ? v : 0;
      }
    };
  });
}

/** The volume with the values where a mask of one component is not 0 passed through a linear map. */
function mapWithin(
  volume: Volume,
  mask: Uint8Array,
  channelWise: boolean,
  mapFor: (voxels: Voxels, mask: Uint8Array) => LinearMap,
): Volume {
  const n = channelWise ? voxelCount(volume) : volume.voxels.length;
  const voxels = new Float32Array(volume.voxels.length);
  for (let from = 0; from < voxels.length; from += n) {
    const part = volume.voxels.subarray(from, from + n) as Voxels;
    const { minus, scale } = mapFor(part, mask);
    forEachPiece(part, (values, start) => {
      let at = start % mask.length;
      for (let i = 0; i < values.length; i++) {
        const v = Math.fround(mask[at] === 0 ? values[i] : (values[i] - minus) * scale);
        voxels[from + start + i] = v - v === 0 ? v : 0;
        if (++at === mask.length) at = 0;
      }
    });
  }
  return { voxels, size: volume.size, components: volume.components, affine: volume.affine };
}

const channelWise = z
  .boolean()
  .default(false)
  .describe('Take the statistics of each component by itself instead of all together');
const clip = z.boolean().default(false).describe('Limit the result to bMin … bMax');
const percent = z.number().min(0).max(100);

const scaleIntensity = defineTransform({
  name: 'scaleIntensity',
  description:
    'Scales the range of the values, lowest to highest, to minv … maxv. A constant volume becomes minv.',
  parameters: z.strictObject({
    minv: z.number().default(0).describe('What the lowest value becomes'),
    maxv: z.number().default(1).describe('What the highest value becomes'),
    channelWise,
  }),
  gridOf: keepsGrid,
  apply: (volume, { minv, maxv, channelWise }) =>
    mapLinear(volume, channelWise, (voxels) => {
      const { min, max } = extremes(voxels);
      return linear(min, max > min ? (maxv - minv) / (max - min) : 0, minv);
    }),
});

/** The linear map a0 → b0, a1 → b1; where a0 = a1 only the shift, as MONAI. */
function rangeMap(a0: number, a1: number, b0: number, b1: number, limit: boolean): LinearMap {
  const scale = a1 === a0 ? 1 : (b1 - b0) / (a1 - a0);
  return limit ? linear(a0, scale, b0, Math.min(b0, b1), Math.max(b0, b1)) : linear(a0, scale, b0);
}

const scaleIntensityRange = defineTransform({
  name: 'scaleIntensityRange',
  description:
    'Scales values linearly so that aMin becomes bMin and aMax becomes bMax (for CT: a window in HU).',
  parameters: z
    .strictObject({
      aMin: z.number().describe('A value of the input'),
      aMax: z.number().describe('A larger value of the input'),
      bMin: z.number().default(0).describe('What aMin becomes'),
      bMax: z.number().default(1).describe('What aMax becomes'),
      clip,
    })
    .refine((p) => p.aMax > p.aMin, { message: 'must be greater than aMin', path: ['aMax'] }),
  gridOf: keepsGrid,
  apply: (volume, { aMin, aMax, bMin, bMax, clip }) =>
    mapLinear(volume, false, () => rangeMap(aMin, aMax, bMin, bMax, clip)),
});

const scaleIntensityRangePercentiles = defineTransform({
  name: 'scaleIntensityRangePercentiles',
  description:
    'Scales values linearly so that the lower percentile becomes bMin and the upper one bMax. Values beyond them go on along the line unless clip is set.',
  parameters: z
    .strictObject({
      lower: percent.describe('Percentile that becomes bMin'),
      upper: percent.describe('Percentile that becomes bMax'),
      bMin: z.number().default(0),
      bMax: z.number().default(1),
      clip,
      relative: z
        .boolean()
        .default(false)
        .describe('The percentiles become lower % and upper % of the way from bMin to bMax instead'),
      channelWise,
    })
    .refine((p) => p.upper > p.lower, { message: 'must be greater than lower', path: ['upper'] }),
  gridOf: keepsGrid,
  apply: (volume, { lower, upper, bMin, bMax, clip, relative, channelWise }) =>
    mapLinear(volume, channelWise, (voxels) => {
      const [a0, a1] = percentiles(voxels, [lower, upper]);
      const b0 = relative ? bMin + ((bMax - bMin) * lower) / 100 : bMin;
      const b1 = relative ? bMin + ((bMax - bMin) * upper) / 100 : bMax;
      return rangeMap(a0, a1, b0, b1, clip);
    }),
});

const normalizeIntensity = defineTransform({
  name: 'normalizeIntensity',
  description:
    'Subtracts the mean and divides by the standard deviation (of the population), or by the numbers given. A deviation of 0 counts as 1.',
  parameters: z
    .strictObject({
      subtrahend: z.number().optional().describe('Instead of the mean'),
      divisor: z.number().positive().optional().describe('Instead of the standard deviation'),
      nonzero: z
        .boolean()
        .default(false)
        .describe('As in MONAI: measure and change only voxels that are not 0; the others stay 0'),
      mask: z
        .enum(masks)
        .default('all')
        .describe(
          'The voxels that mean and deviation are taken of, while all are changed: all, those not 0, those above the mean',
        ),
      foreground: z
        .boolean()
        .default(false)
        .describe(
          'As nnU-Net’s use_mask_for_norm: measure and change only the voxels that are not 0 in any component, and those that they enclose; the others stay as they are',
        ),
      channelWise,
    })
    .refine((p) => !(p.nonzero && p.mask !== 'all'), {
      message: 'cannot be combined with nonzero, which has its own mask',
      path: ['mask'],
    })
    .refine((p) => !(p.foreground && (p.nonzero || p.mask !== 'all')), {
      message: 'cannot be combined with nonzero or mask. Give one of them',
      path: ['foreground'],
    }),
  gridOf: keepsGrid,
  apply(volume, { subtrahend, divisor, nonzero, mask, foreground, channelWise }) {
    const needed = subtrahend === undefined || divisor === undefined;
    if (foreground) {
      return mapWithin(volume, foregroundMask(volume), channelWise, (voxels, within) => {
        const { mean, std } = needed ? summarizeWithin(voxels, within) : { mean: 0, std: 1 };
        return linear(subtrahend ?? mean, 1 / (divisor ?? (std > 0 ? std : 1)));
      });
    }
    const measured: Mask = nonzero ? 'nonzero' : mask;
    const mapFor = (voxels: Voxels) => {
      const { mean, std } = needed ? summarize(voxels, measured) : { mean: 0, std: 1 };
      return linear(subtrahend ?? mean, 1 / (divisor ?? (std > 0 ? std : 1)));
    };
    if (!nonzero) return mapLinear(volume, channelWise, mapFor);
    return mapValues(volume, channelWise, (voxels) => {
      const { minus, scale } = mapFor(voxels);
      return (v) => (v === 0 ? 0 : (v - minus) * scale);
    });
  },
});

const thresholdIntensity = defineTransform({
  name: 'thresholdIntensity',
  description: 'Keeps values above (or below) a threshold; the others become cval.',
  parameters: z.strictObject({
    threshold: z.number(),
    above: z.boolean().default(true).describe('Keep what is above; false keeps what is below'),
    cval: z.number().default(0).describe('What the other voxels become'),
  }),
  gridOf: keepsGrid,
  apply: (volume, { threshold, above, cval }) =>
    mapValues(volume, false, () => (v) => ((above ? v > threshold : v < threshold) ? v : cval)),
});

const integerRanges = { int16: [-32_768, 32_767], int32: [-2_147_483_648, 2_147_483_647] } as const;

const castToType = defineTransform({
  name: 'castToType',
  description:
    'Cuts values off to whole numbers, toward 0, as MONAI’s CastToType does, or TotalSegmentator after its resampling. Values beyond the range of the type become its lowest or highest.',
  parameters: z.strictObject({
    dtype: z.enum(['int16', 'int32']).describe('The type whose values remain; the voxels stay float32'),
  }),
  gridOf: keepsGrid,
  apply(volume, { dtype }) {
    const [low, high] = integerRanges[dtype];
    // Plus 0, so that what is cut off from below is not −0.
    return mapValues(volume, false, () => (v) => Math.min(high, Math.max(low, Math.trunc(v))) + 0);
  },
});

const clipIntensityPercentiles = defineTransform({
  name: 'clipIntensityPercentiles',
  description: 'Limits values to the range between two percentiles, against hot spots.',
  parameters: z
    .strictObject({
      lower: percent.optional().describe('Values below this percentile become it'),
      upper: percent.optional().describe('Values above this percentile become it'),
      channelWise,
    })
    .refine((p) => p.lower !== undefined || p.upper !== undefined, { message: 'give lower, upper or both' })
    .refine((p) => (p.upper ?? 100) > (p.lower ?? 0), {
      message: 'must be greater than lower',
      path: ['upper'],
    }),
  gridOf: keepsGrid,
  apply: (volume, { lower, upper, channelWise }) =>
    mapLinear(volume, channelWise, (voxels) => {
      const [a, b] = percentiles(voxels, [lower ?? 0, upper ?? 100]);
      return linear(0, 1, 0, lower === undefined ? -Infinity : a, upper === undefined ? Infinity : b);
    }),
});

const divideByMax = defineTransform({
  name: 'divideByMax',
  description: 'Divides by the highest value. A volume without a positive value stays as it is.',
  parameters: z.strictObject({ channelWise }),
  gridOf: keepsGrid,
  apply: (volume, { channelWise }) =>
    mapLinear(volume, channelWise, (voxels) => {
      const { max } = extremes(voxels);
      return linear(0, max > 0 ? 1 / max : 1);
    }),
});

const perAxis = z.union([
  z.number().min(0).max(1000),
  z.tuple([z.number().min(0).max(1000), z.number().min(0).max(1000), z.number().min(0).max(1000)]),
]);
const asVec3 = (value: number | [number, number, number]): Vec3 =>
  typeof value === 'number' ? [value, value, value] : value;

const gaussianSmooth = defineTransform({
  name: 'gaussianSmooth',
  description:
    'Smooths with a Gaussian: sampled, cut off at 4 sigma, the border mirrored (as scipy.ndimage).',
  parameters: z
    .strictObject({
      sigma: perAxis
        .optional()
        .describe('In voxels: one number, or x, y, z. Default 1 where sigmaMm is not given'),
      sigmaMm: perAxis.optional().describe('In mm: one number, or x, y, z'),
    })
    .refine((p) => p.sigma === undefined || p.sigmaMm === undefined, {
      message: 'give sigma or sigmaMm, not both',
    }),
  gridOf: keepsGrid,
  apply(volume, { sigma, sigmaMm }) {
    if (sigmaMm === undefined) return gaussianFilter(volume, asVec3(sigma ?? 1));
    const spacing = spacingOf(volume.affine);
    const mm = asVec3(sigmaMm);
    return gaussianFilter(volume, [mm[0] / spacing[0], mm[1] / spacing[1], mm[2] / spacing[2]]);
  },
});

const medianSmooth = defineTransform({
  name: 'medianSmooth',
  description:
    'Each voxel becomes the median of the cube around it; the border is repeated. NaN sorts highest.',
  parameters: z.strictObject({
    radius: z.int().min(1).max(5).default(1).describe('Voxels to each side: the cube has (2 · radius + 1)³'),
  }),
  gridOf: keepsGrid,
  apply: (volume, { radius }) => {
    const source = { ...volume, voxels: numericVoxels(volume.voxels) };
    return mapValues(medianFilter(source, radius), false, () => (v) => v);
  },
});

const standardUptakeValue = defineTransform({
  name: 'standardUptakeValue',
  description:
    'PET: activity to standardized uptake values by body weight (SUVbw, g/mL), by the weight, dose and times in the header of a DICOM series. A series that lacks one of them is refused by name. It precedes all steps that change values.',
  parameters: z.strictObject({
    withoutHeader: z
      .enum(['refuse', 'suv'])
      .default('refuse')
      .describe(
        'A volume that is not DICOM, as NIfTI: refuse it, or take its values as SUV already. `$name` of a radiobutton with these options leaves it to the caller',
      ),
  }),
  gridOf: keepsGrid,
  apply(volume, { withoutHeader }) {
    const factor = suvFactor(volume.suv, withoutHeader);
    // Once they are SUV, they stay so.
    return { ...mapLinear(volume, false, () => linear(0, factor)), suv: { factor: 1 } };
  },
});

/**
 * SUVbw for each unit of a volume's values.
 *
 * @throws TomaatError BAD_INPUT, with what is missing and what to do
 */
export function suvFactor(suv: SuvScale | undefined, withoutHeader: 'refuse' | 'suv'): number {
  if (suv && 'factor' in suv) return suv.factor;
  if (!suv && withoutHeader === 'suv') return 1;
  throw new TomaatError(
    'BAD_INPUT',
    suv
      ? `${suv.refusal}.`
      : 'No SUV can be computed: only DICOM files hold the weight, dose and times that it takes. Send the DICOM series of the PET instead of a converted file.',
  );
}

/**
 * How the values after a step become SUV: as those before it, if it moves them alone. After other steps they are no activity any
 * more, and no factor holds.
 */
export function suvAfter(transform: VolumeTransform, before: Volume, after: Volume): SuvScale | undefined {
  if (transform === standardUptakeValue) return after.suv;
  if (!before.suv || !intensityTransforms.includes(transform)) return before.suv;
  return {
    refusal: `The app changes the values by ${transform.name} before it computes SUV: its author must put standardUptakeValue first`,
  };
}

/** The transforms of intensity, in the order of the documentation. */
export const intensityTransforms: readonly VolumeTransform[] = [
  standardUptakeValue,
  scaleIntensity,
  scaleIntensityRange,
  scaleIntensityRangePercentiles,
  clipIntensityPercentiles,
  normalizeIntensity,
  divideByMax,
  thresholdIntensity,
  castToType,
  gaussianSmooth,
  medianSmooth,
];
