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
    ['source', { sources: ['other'] }, series, 'it takes series of other, not of pacs'],
    ['modality', { modality: ['MR', 'PT'] }, series, 'it takes MR, PT, not CT'],
    ['modality in lower case', { modality: ['CT'] }, { ...series, modality: ' ct ' }, undefined],
    ['unknown modality', {}, without('modality'), 'the source does not tell the modality'],
    ['empty modality', {}, { ...series, modality: ' ' }, 'the source does not tell the modality'],
    ['body part', { bodyPart: ['head', 'ABDOMEN'] }, series, 'the body part is none of head, ABDOMEN'],
    ['one of two', { bodyPart: ['head', 'chest'] }, series, undefined],
    ['description', { description: ['thorax*'] }, series, undefined],
    [
      'all must hold',
      { description: ['thorax*'], studyDescription: ['MR*'] },
      series,
      'the description of the study is none of MR*',
    ],
    ['unknown body part', { bodyPart: ['*'] }, without('bodyPart'), 'the source does not tell the body part'],
    [
      'unknown AET',
      { callingAet: ['SOMATOM'] },
      without('callingAet'),
      'the source does not tell the calling AET',
    ],
    [
      'an endless text',
      { description: ['*'] },
      { ...series, description: 'a'.repeat(2000) },
      'the source does not tell the description of the series',
    ],
    [
      'not: description',
      { not: { description: ['*b31f'] } },
      series,
      'the description of the series is one of *b31f',
    ],
    ['not: another', { not: { description: ['topogram*'] } }, series, undefined],
    ['not: missing description', { not: { description: ['*'] } }, without('description'), undefined],
    [
      'not: unknown AET',
      { not: { callingAet: ['TEST*'] } },
      without('callingAet'),
      'the source does not tell the calling AET',
    ],
    ['not: source', { not: { sources: ['pacs'] } }, series, 'it takes no series of pacs'],
    [
      'not: one of two',
      { not: { modality: ['MR'], bodyPart: ['chest'] } },
      series,
      'the body part is one of chest',
    ],
    ['not: modality', { not: { modality: ['CT'] } }, series, 'it does not take CT'],
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
    [{ slices: { min: 20, max: 500 } }, 19, 1, 'it takes volumes of 20 to 500 slices, and this one has 19'],
    [{ slices: { max: 30 } }, 31, 1, 'it takes volumes of at most 30 slices, and this one has 31'],
    [{ sliceSpacingMm: { max: 5 } }, 9, 5.0004, undefined],
    [
      { sliceSpacingMm: { max: 5 } },
      9,
      5.0104,
      'it takes slices that are at most 5 mm apart, and these are 5.0104 mm',
    ],
    [
      { sliceSpacingMm: { min: 0.5 } },
      9,
      0.3999999999,
      'it takes slices that are at least 0.5 mm apart, and these are 0.4 mm',
    ],
    [
      { sliceSpacingMm: { max: 5 } },
      1,
      undefined,
      'it asks for the distance of slices, and there is only one',
    ],
    [
      { sliceSpacingMm: { min: 1, max: 1 } },
      9,
      Number.NaN,
      'it takes slices that are 1 mm apart, and these are NaN mm',
    ],
  ])('%j, %i slices at %f mm: %s', (when, slices, sliceSpacingMm, why) => {
    expect(matchVolume(rule(when), { slices, sliceSpacingMm })).toBe(why);
  });
});
