import { z } from 'zod';
import { TomaatError } from '../errors.ts';
import { determinant, spacingOf } from '../geometry/affine.ts';
import { componentOf, type Grid, numericVoxels, type Volume, voxelCount } from '../volume.ts';

/**
 * Rules that an input volume must meet before a model sees it. Those that need only the header (size,
 * extent, spacing, components) can be checked before an upload; intensity needs the voxels.
 */
const range = (description: string) =>
  z.strictObject({ minimum: z.number().optional(), maximum: z.number().optional() }).describe(description);

export const acceptanceSchema = z.strictObject({
  input: z.string().optional().describe('Which volume input; all of them if missing'),
  size: range('Voxels along the shortest (minimum) and longest (maximum) axis').optional(),
  extentMm: range('Field of view along the shortest (minimum) and longest (maximum) axis, mm').optional(),
  spacingMm: range('Smallest (minimum) and largest (maximum) distance between voxels, mm').optional(),
  components: z.int().min(1).optional().describe('Components that a voxel must have'),
  intensity: z
    .strictObject({
      minimumBelow: z.number().optional().describe('Some voxel must be below this (air in a CT: -500)'),
      maximumAbove: z.number().optional().describe('Some voxel must be above this'),
      constant: z.boolean().optional().describe('false: an image with a single value is refused'),
      minimumCorrelation: z
        .number()
        .min(-1)
        .max(1)
        .optional()
        .describe(
          'Least correlation of voxels with their neighbours, along the axis where it is highest: pure noise has 0, scans have 0.8 or more',
        ),
    })
    .optional(),
  message: z.string().max(400).optional().describe('The message if the rule is not met'),
});
export type AcceptanceRule = z.infer<typeof acceptanceSchema>;

/** The facts of a header that the rules need. */
export type Shape = Grid & { readonly components: number };

/** The rules that a volume of this shape breaks, as clauses of a sentence; empty if none. */
export function checkShape(rule: AcceptanceRule, shape: Shape): string[] {
  const faults: string[] = [];
  const spacing = spacingOf(shape.affine);
  const extent = shape.size.map((n, i) => n * spacing[i]);
  const test = (
    what: string,
    unit: string,
    values: readonly number[],
    limits?: { minimum?: number; maximum?: number },
  ) => {
    const low = Math.min(...values);
    const high = Math.max(...values);
    if (limits?.minimum !== undefined && low < limits.minimum) {
      faults.push(`its ${what} is ${format(low)}${unit}, but at least ${limits.minimum}${unit} is required`);
    }
    if (limits?.maximum !== undefined && high > limits.maximum) {
      faults.push(`its ${what} is ${format(high)}${unit}, but at most ${limits.maximum}${unit} is allowed`);
    }
  };
  test('size', ' voxels', shape.size, rule.size);
  test('field of view', ' mm', extent, rule.extentMm);
  test('voxel spacing', ' mm', spacing, rule.spacingMm);
  if (rule.components !== undefined && shape.components !== rule.components) {
    faults.push(`it has ${shape.components} components per voxel, but ${rule.components} are required`);
  }
  return faults;
}

/** As checkShape(), with the rules on intensities. */
export function checkVolume(rule: AcceptanceRule, volume: Volume): string[] {
  const faults = checkShape(rule, volume);
  if (!rule.intensity) return faults;
  const [minimum, maximum] = extrema(volume);
  const { minimumBelow, maximumAbove, constant, minimumCorrelation } = rule.intensity;
  if (!(minimum <= maximum)) return [...faults, 'it has no finite value'];
  if (minimumBelow !== undefined && minimum >= minimumBelow) {
    faults.push(`its lowest value is ${format(minimum)}, but some must be below ${minimumBelow}`);
  }
  if (maximumAbove !== undefined && maximum <= maximumAbove) {
    faults.push(`its highest value is ${format(maximum)}, but some must be above ${maximumAbove}`);
  }
  if (constant === false && minimum === maximum)
    faults.push(`all its voxels have the value ${format(minimum)}`);
  else if (minimumCorrelation !== undefined) {
    const found = Math.max(...[0, 1, 2].map((axis) => correlationAlong(volume, axis)));
    if (found < minimumCorrelation)
      faults.push(
        `its neighbouring voxels correlate by ${format(found)}, but at least ${minimumCorrelation} is required: it is mostly noise`,
      );
  }
  return faults;
}

/** Throws NOT_ACCEPTED, which names the input and every broken rule. */
export function accept(rules: readonly AcceptanceRule[], input: string, volume: Volume): void {
  requireNone(rules, input, (rule) => checkVolume(rule, volume));
}

/** As accept(), but only with the rules that need no voxels: for a header. */
export function acceptShape(rules: readonly AcceptanceRule[], input: string, shape: Shape): void {
  requireNone(rules, input, (rule) => checkShape(rule, shape));
}

function requireNone(
  rules: readonly AcceptanceRule[],
  input: string,
  check: (rule: AcceptanceRule) => string[],
): void {
  for (const rule of rules) {
    if (rule.input !== undefined && rule.input !== input) continue;
    const faults = check(rule);
    if (faults.length === 0) continue;
    const why = `The app does not accept this volume: ${faults.join('; ')}.`;
    throw new TomaatError('NOT_ACCEPTED', rule.message ? `${rule.message} ${why}` : why, { field: input });
  }
}

/** Checks of a result before it is returned: a result that cannot be right is worse than none. */
export const resultCheckSchema = z.strictObject({
  output: z.string().optional().describe('Which label map; the primary one if missing'),
  labels: z
    .array(z.int().min(1))
    .optional()
    .describe('Values that are counted together; all of them if missing'),
  minimumMl: z.number().optional(),
  maximumMl: z.number().optional(),
  minimumShare: z.number().min(0).max(1).optional().describe('Share of all labelled voxels'),
  maximumShare: z.number().min(0).max(1).optional().describe('Share of all labelled voxels'),
  message: z.string().max(400).describe('The message if the result is out of these bounds'),
});
export type ResultCheck = z.infer<typeof resultCheckSchema>;

/** Throws NOT_ACCEPTED if the volume counted by a check, in ml or as a share, is out of its bounds. */
export function checkResult(check: ResultCheck, labelMap: Volume): void {
  const counted = check.labels && new Set(check.labels);
  const voxels = numericVoxels(labelMap.voxels);
  let count = 0;
  let all = 0;
  for (let i = 0; i < voxels.length; i++) {
    if (voxels[i] === 0) continue;
    all++;
    if (!counted || counted.has(voxels[i])) count++;
  }
  const ml = (count * Math.abs(determinant(labelMap.affine))) / 1000;
  const share = all === 0 ? 0 : count / all;
  if (!isWithin(ml, check.minimumMl, check.maximumMl))
    throw new TomaatError('NOT_ACCEPTED', `${check.message} (${format(ml)} ml were found.)`);
  if (!isWithin(share, check.minimumShare, check.maximumShare))
    throw new TomaatError('NOT_ACCEPTED', `${check.message} (${format(100 * share)} % of the result.)`);
}

const isWithin = (value: number, minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY) =>
  minimum <= value && value <= maximum;

function extrema(volume: Volume): [number, number] {
  const voxels = numericVoxels(componentOf(volume, 0).voxels);
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < voxelCount(volume); i++) {
    const v = voxels[i];
    if (v < low && v > Number.NEGATIVE_INFINITY) low = v;
    if (v > high && v < Number.POSITIVE_INFINITY) high = v;
  }
  return [low, high];
}

/** Pearson's correlation of the finite voxels with their next neighbours along an axis; 0 if it is undefined. */
function correlationAlong(volume: Volume, axis: number): number {
  const voxels = numericVoxels(componentOf(volume, 0).voxels);
  const { size } = volume;
  const step = axis === 0 ? 1 : axis === 1 ? size[0] : size[0] * size[1];
  let [n, a, b, aa, bb, ab] = [0, 0, 0, 0, 0, 0];
  for (let i = 0; i + step < voxelCount(volume); i++) {
    if (Math.floor(i / step) % size[axis] === size[axis] - 1) continue;
    const [p, q] = [voxels[i], voxels[i + step]];
    if (!Number.isFinite(p) || !Number.isFinite(q)) continue;
    n++;
    a += p;
    b += q;
    aa += p * p;
    bb += q * q;
    ab += p * q;
  }
  const spread = Math.sqrt((n * aa - a * a) * (n * bb - b * b));
  return spread > 0 ? (n * ab - a * b) / spread : 0;
}

const format = (value: number) =>
  String(Math.abs(value) < 0.1 ? Number(value.toPrecision(2)) : Math.round(value * 100) / 100);
