import type { Pattern, Range, Rule, RuleConditions } from './config.ts';
import { type CompiledPattern, compilePattern, matchesPattern } from './patterns.ts';
import type { SeenSeries } from './series.ts';

/*
 * Which rules are for a series. A condition on something that the source does not tell does not hold: a series is never processed on a
 * guess. The number of slices and their distance are known only from the files; a rule that asks for them matches first by the rest,
 * and is asked again (matchVolume) when the files are there.
 */

/**
 * Modalities of what is made of images, results of the gateway's own services among it. A rule without `modality` does not take them.
 * OT ("other") has key pictures and screenshots.
 */
export const derivedModalities: readonly string[] = [
  ...[
    'SEG',
    'SR',
    'RTSTRUCT',
    'RTPLAN',
    'RTDOSE',
    'RTRECORD',
    'RTIMAGE',
    'KO',
    'PR',
    'OT',
    'REG',
    'FID',
    'DOC',
  ],
  ...['PLAN', 'RWV', 'M3D', 'ANN', 'SMR', 'STAIN', 'TEXTUREMAP', 'ASMT', 'AU', 'ECG', 'HD', 'EPS', 'RESP'],
];

/** Longer than any text in DICOM that a rule asks for (64 characters); such a text counts as unknown. */
const maxText = 1024;

/** The rules that match by what the source tells, in their order. */
export const matchSeen = (rules: readonly Rule[], seen: SeenSeries): Rule[] =>
  rules.filter((rule) => whyNotSeen(rule, seen) === undefined);

/** Why a rule does not match a series by what its source tells, as a sentence; undefined if it does. */
export function whyNotSeen({ when }: Rule, seen: SeenSeries): string | undefined {
  if (when.sources && !when.sources.includes(seen.source))
    return `The rule takes series of ${when.sources.join(', ')}, not of ${seen.source}.`;
  const modality = textOf(seen.modality)?.toUpperCase();
  // What it is, a result perhaps, cannot be told.
  if (modality === undefined) return 'The source does not tell the modality.';
  if (when.modality && !when.modality.includes(modality))
    return `The rule takes ${when.modality.join(', ')}, not ${modality}.`;
  if (!when.modality && derivedModalities.includes(modality))
    return `${modality} is made of images. A rule takes it only if its modality names it.`;
  for (const [key, name] of texts) {
    const patterns = when[key];
    if (!patterns) continue;
    const text = textOf(seen[key]);
    if (text === undefined) return `The source does not tell the ${name}.`;
    if (!matchesOne(patterns, text)) return `The ${name} is none of ${patterns.join(', ')}.`;
  }
  return when.not && whyExcluded(when.not, seen, modality);
}

/** A condition under `not` that holds. */
function whyExcluded(
  not: NonNullable<RuleConditions['not']>,
  seen: SeenSeries,
  modality: string,
): string | undefined {
  if (not.sources?.includes(seen.source)) return `The rule takes no series of ${seen.source}.`;
  if (not.modality?.includes(modality)) return `The rule does not take ${modality}.`;
  for (const [key, name] of texts) {
    const patterns = not[key];
    if (!patterns) continue;
    const text = textOf(seen[key]);
    // A series need not have a description, and one that has none has none of these. But each was sent by somebody.
    if (text === undefined && key === 'callingAet') return `The source does not tell the ${name}.`;
    if (text !== undefined && matchesOne(patterns, text))
      return `The ${name} is one of ${patterns.join(', ')}, which the rule excludes.`;
  }
  return undefined;
}

const texts = [
  ['bodyPart', 'body part'],
  ['description', 'description of the series'],
  ['studyDescription', 'description of the study'],
  ['callingAet', 'calling AET'],
] as const;

/** A text of a header as it counts, for rules and in rows; undefined if there is none. */
export const textOf = (text: string | undefined): string | undefined => {
  const trimmed = text === undefined || text.length > maxText ? '' : text.trim();
  return trimmed === '' ? undefined : trimmed;
};

/** The patterns of a configuration stay the same; each is compiled once. */
const compiled = new Map<Pattern, CompiledPattern>();

function matchesOne(patterns: readonly Pattern[], text: string): boolean {
  return patterns.some((pattern) => {
    let known = compiled.get(pattern);
    if (!known) compiled.set(pattern, (known = compilePattern(pattern)));
    return matchesPattern(known, text);
  });
}

/** What is known of a volume when its files are there. */
export interface VolumeOfRule {
  readonly slices: number;
  /** Distance of neighbouring slices, mm; undefined of a single one. */
  readonly sliceSpacingMm?: number;
}

/** Why a rule does not match a volume, as a sentence; undefined if it does. */
export function matchVolume({ when }: Rule, { slices, sliceSpacingMm }: VolumeOfRule): string | undefined {
  if (when.slices && !isWithin(when.slices, slices))
    return `The rule takes volumes of ${describeRange(when.slices)} slices, and this one has ${slices}.`;
  if (!when.sliceSpacingMm) return undefined;
  if (slices < 2 || sliceSpacingMm === undefined)
    return 'The rule asks for the distance of slices, and there is only one.';
  if (isWithin(when.sliceSpacingMm, sliceSpacingMm)) return undefined;
  // 0.625 and 5, not 4.999999.
  return `The rule takes slices that are ${describeRange(when.sliceSpacingMm)} mm apart, and these are ${Number(sliceSpacingMm.toFixed(4))} mm.`;
}

/** Positions are written with a few digits: distances differ from what they mean by less than this, mm. */
const toleranceMm = 1e-3;

const isWithin = ({ min = -Infinity, max = Infinity }: Range, value: number): boolean =>
  value >= min - toleranceMm && value <= max + toleranceMm;

function describeRange({ min, max }: Range): string {
  if (min === undefined) return `at most ${max}`;
  if (max === undefined) return `at least ${min}`;
  return min === max ? String(min) : `${min} to ${max}`;
}
