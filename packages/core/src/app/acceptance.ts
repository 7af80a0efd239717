import { z } from 'zod';
import { TomaatError } from '../errors.ts';
import { determinant, spacingOf } from '../geometry/affine.ts';
import { componentOf, type Grid, numericVoxels, type Volume, voxelCount } from '../volume.ts';

/**
 * Rules that an input volume has to meet before a model sees it. Those that need only the header (size,
 * extent, spacing, components) can be checked before an upload; intensity needs the voxels.
 */
const range = (description: string) =>
  z.strictObject({ minimum: z.number().optional(), maximum: z.number().optional() }).describe(description);

export const acceptanceSchema = z.strictObject({
  input: z.string().optional().describe('Which volume input; all of them if missing'),
  size: range('Voxels along the shortest (minimum) and longest (maximum) axis').optional(),
  extentMm: range('Field of view along the shortest (minimum) and longest (maximum) axis, mm').optional(),
  spacingMm: range('Smallest (minimum) and largest (maximum) distance between voxels, mm').optional(),
  components: z.int().min(1).optional().describe('Components that a voxel has to have'),
  intensity: z
    .strictObject({
      minimumBelow: z.number().optional().describe('Some voxel has to lie below this (air in a CT: -500)'),
      maximumAbove: z.number().optional().describe('Some voxel has to lie above this'),
      constant: z.boolean().optional().describe('false: an image of one single value is refused'),
    })
    .optional(),
  message: z.string().max(400).optional().describe('What to say when the rule is not met'),
});
export type AcceptanceRule = z.infer<typeof acceptanceSchema>;

/** What a header tells that the rules need. */
export type Shape = Grid & { readonly components: number };

/** The sentences that say how a volume of this shape breaks a rule; none if it does not. */
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
      faults.push(`its ${what} is ${format(low)}${unit}, at least ${limits.minimum}${unit} is needed`);
    }
    if (limits?.maximum !== undefined && high > limits.maximum) {
      faults.push(`its ${what} is ${format(high)}${unit}, at most ${limits.maximum}${unit} is allowed`);
    }
  };
  test('size', ' voxels', shape.size, rule.size);
  test('field of view', ' mm', extent, rule.extentMm);
  test('voxel spacing', ' mm', spacing, rule.spacingMm);
  if (rule.components !== undefined && shape.components !== rule.components) {
    faults.push(`it has ${shape.components} components a voxel, ${rule.components} are needed`);
  }
  return faults;
}

/** As checkShape(), and the rules on intensities too. */
export function checkVolume(rule: AcceptanceRule, volume: Volume): string[] {
  const faults = checkShape(rule, volume);
  if (!rule.intensity) return faults;
  const [minimum, maximum] = extrema(volume);
  const { minimumBelow, maximumAbove, constant } = rule.intensity;
  if (!(minimum <= maximum)) return [...faults, 'it holds no finite value'];
  if (minimumBelow !== undefined && minimum >= minimumBelow) {
    faults.push(`its lowest value is ${format(minimum)}, some have to lie below ${minimumBelow}`);
  }
  if (maximumAbove !== undefined && maximum <= maximumAbove) {
    faults.push(`its highest value is ${format(maximum)}, some have to lie above ${maximumAbove}`);
  }
  if (constant === false && minimum === maximum)
    faults.push(`all its voxels have the value ${format(minimum)}`);
  return faults;
}

/** Throws NOT_ACCEPTED, naming the input and everything that does not fit. */
export function accept(rules: readonly AcceptanceRule[], input: string, volume: Volume): void {
  requireNone(rules, input, (rule) => checkVolume(rule, volume));
}

/** As accept(), by the rules alone that need no voxels: for what a header says. */
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

/** Checks of a result before it is handed out: an answer that cannot be right is worse than none. */
export const resultCheckSchema = z.strictObject({
  output: z.string().optional().describe('Which label map; the primary one if missing'),
  labels: z
    .array(z.int().min(1))
    .optional()
    .describe('Values that are counted together; all of them if missing'),
  minimumMl: z.number().optional(),
  maximumMl: z.number().optional(),
  message: z.string().max(400).describe('What to say when the result is out of these bounds'),
});
export type ResultCheck = z.infer<typeof resultCheckSchema>;

/** Throws NOT_ACCEPTED when the labelled volume (ml) of a label map is out of a check's bounds. */
export function checkResult(check: ResultCheck, labelMap: Volume): void {
  const counted = check.labels && new Set(check.labels);
  const voxels = numericVoxels(labelMap.voxels);
  let count = 0;
  for (let i = 0; i < voxels.length; i++)
    if (voxels[i] !== 0 && (!counted || counted.has(voxels[i]))) count++;
  const ml = (count * Math.abs(determinant(labelMap.affine))) / 1000;
  if ((check.minimumMl ?? 0) <= ml && ml <= (check.maximumMl ?? Number.POSITIVE_INFINITY)) return;
  throw new TomaatError('NOT_ACCEPTED', `${check.message} (${format(ml)} ml were found.)`);
}

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

const format = (value: number) => String(Math.round(value * 100) / 100);
