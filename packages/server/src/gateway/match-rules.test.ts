import { describe, expect, it } from 'vitest';
import type { Rule, RuleConditions } from './config.ts';
import { derivedModalities, matchSeen, matchVolume, whyNotSeen } from './match-rules.ts';
import type { SeenSeries } from './series.ts';

const rule = (when: RuleConditions, id = 'rule'): Rule => ({
  id,
  when,
  service: 'lungs',
  destinations: ['pacs'],
  parameters: {},
  results: ['seg.dcm'],
  keepIdentity: false,
  keepPatientCharacteristics: false,
  urgency: 3,
});

const series: SeenSeries = {
  source: 'pacs',
  study: '1.2.3',
  series: '1.2.3.4',
  modality: 'CT',
  bodyPart: 'CHEST',
  description: 'Thorax 1.0 B31f',
  studyDescription: 'CT Thorax nativ',
  callingAet: 'SOMATOM',
  instances: 120,
};
const without = (...keys: (keyof SeenSeries)[]): SeenSeries =>
  Object.fromEntries(
    Object.entries(series).filter(([key]) => !keys.includes(key as keyof SeenSeries)),
  ) as never;

describe('whyNotSeen()', () => {
  it.each<[string, RuleConditions, SeenSeries, string | undefined]>([
    ['no condition', {}, series, undefined],
    ['source', { sources: ['other'] }, series, 'The rule takes series of other, not of pacs.'],
    ['modality', { modality: ['MR', 'PT'] }, series, 'The rule takes MR, PT, not CT.'],
    ['modality in lower case', { modality: ['CT'] }, { ...series, modality: ' ct ' }, undefined],
    ['unknown modality', {}, without('modality'), 'The source does not tell the modality.'],
    ['empty modality', {}, { ...series, modality: ' ' }, 'The source does not tell the modality.'],
    ['body part', { bodyPart: ['head', 'ABDOMEN'] }, series, 'The body part is none of head, ABDOMEN.'],
    ['one of two', { bodyPart: ['head', 'chest'] }, series, undefined],
    ['description', { description: ['thorax*'] }, series, undefined],
    [
      'all must hold',
      { description: ['thorax*'], studyDescription: ['MR*'] },
      series,
      'The description of the study is none of MR*.',
    ],
    [
      'unknown body part',
      { bodyPart: ['*'] },
      without('bodyPart'),
      'The source does not tell the body part.',
    ],
    [
      'unknown AET',
      { callingAet: ['SOMATOM'] },
      without('callingAet'),
      'The source does not tell the calling AET.',
    ],
    [
      'an endless text',
      { description: ['*'] },
      { ...series, description: 'a'.repeat(2000) },
      'The source does not tell the description of the series.',
    ],
    [
      'not: description',
      { not: { description: ['*b31f'] } },
      series,
      'The description of the series is one of *b31f, which the rule excludes.',
    ],
    ['not: another', { not: { description: ['topogram*'] } }, series, undefined],
    ['not: missing description', { not: { description: ['*'] } }, without('description'), undefined],
    [
      'not: unknown AET',
      { not: { callingAet: ['TEST*'] } },
      without('callingAet'),
      'The source does not tell the calling AET.',
    ],
    ['not: source', { not: { sources: ['pacs'] } }, series, 'The rule takes no series of pacs.'],
    [
      'not: one of two',
      { not: { modality: ['MR'], bodyPart: ['chest'] } },
      series,
      'The body part is one of chest, which the rule excludes.',
    ],
    ['not: modality', { not: { modality: ['CT'] } }, series, 'The rule does not take CT.'],
    // Known only from the files.
    ['slices', { slices: { min: 500 }, sliceSpacingMm: { max: 0.1 } }, series, undefined],
  ])('%s', (_, when, seen, why) => {
    expect(whyNotSeen(rule(when), seen)).toBe(why);
  });

  it.each(derivedModalities)('takes %s only where the rule names it', (modality) => {
    const seen = { ...series, modality };
    expect(whyNotSeen(rule({}), seen)).toContain('only if its modality names it');
    expect(whyNotSeen(rule({ description: ['*'] }), seen)).toContain(modality);
    expect(whyNotSeen(rule({ modality: ['CT', modality] }), seen)).toBeUndefined();
  });
});

describe('matchSeen()', () => {
  it('gives all rules that match, in their order', () => {
    const rules = [rule({ modality: ['CT'] }, 'a'), rule({ modality: ['MR'] }, 'b'), rule({}, 'c')];
    expect(matchSeen(rules, series).map(({ id }) => id)).toEqual(['a', 'c']);
    expect(matchSeen(rules, { ...series, modality: 'SEG' })).toEqual([]);
  });
});

describe('matchVolume()', () => {
  it.each<[RuleConditions, number, number | undefined, string | undefined]>([
    [{}, 1, undefined, undefined],
    [{ slices: { min: 20, max: 500 } }, 20, 1, undefined],
    [{ slices: { min: 20, max: 500 } }, 500, 1, undefined],
    [
      { slices: { min: 20, max: 500 } },
      19,
      1,
      'The rule takes volumes of 20 to 500 slices, and this one has 19.',
    ],
    [{ slices: { max: 30 } }, 31, 1, 'The rule takes volumes of at most 30 slices, and this one has 31.'],
    [{ sliceSpacingMm: { max: 5 } }, 9, 5.0004, undefined],
    [
      { sliceSpacingMm: { max: 5 } },
      9,
      5.0104,
      'The rule takes slices that are at most 5 mm apart, and these are 5.0104 mm.',
    ],
    [
      { sliceSpacingMm: { min: 0.5 } },
      9,
      0.3999999999,
      'The rule takes slices that are at least 0.5 mm apart, and these are 0.4 mm.',
    ],
    [
      { sliceSpacingMm: { max: 5 } },
      1,
      undefined,
      'The rule asks for the distance of slices, and there is only one.',
    ],
    [
      { sliceSpacingMm: { min: 1, max: 1 } },
      9,
      Number.NaN,
      'The rule takes slices that are 1 mm apart, and these are NaN mm.',
    ],
  ])('%j, %i slices at %f mm: %s', (when, slices, sliceSpacingMm, why) => {
    expect(matchVolume(rule(when), { slices, sliceSpacingMm })).toBe(why);
  });
});
