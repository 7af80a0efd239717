import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { ExporterStage } from './author-python.ts';
import { dumpsOf } from './author-stages.ts';
import { type MonaiPlan, parsePlan } from './plan.ts';
import { translate } from './translate.ts';

const plan = parsePlan(
  JSON.parse(readFileSync(new URL('../../test/import-plans/spleen.json', import.meta.url), 'utf8')),
) as MonaiPlan;
const translated = (given: MonaiPlan) => translate(given, { orientation: 'stored', mirror: false });
const stage = (kind: ExporterStage['kind'], path: string): ExporterStage => ({
  kind,
  path,
  file: `${kind}-${path.replaceAll('#', '-')}.f32`,
  dims: [1, 2, 3, 4],
});
/** As `exporter.py dump` lists them: the transforms, a window, its scores, all scores, the steps after them. */
const listed = (given: MonaiPlan): ExporterStage[] => [
  ...given.preprocessing.map(({ path }) => stage('prepared', path)),
  stage('window', 'inferer'),
  stage('logits', 'inferer'),
  stage('scores', 'inferer'),
  ...given.postprocessing.map(({ path }) => stage('after', path)),
];
const named = (given: MonaiPlan) =>
  dumpsOf(listed(given), translated(given), '/dump').map(({ stage, source }) => [stage, source]);

describe('dumpsOf()', () => {
  it('names the author’s volumes by the app’s stages, the probabilities included', () => {
    expect(named(plan)).toEqual([
      ['preprocess[0]', 'preprocessing#transforms#2'],
      ['preprocess[1]', 'preprocessing#transforms#3'],
      ['preprocess[2]', 'preprocessing#transforms#4'],
      ['window', 'inferer'],
      ['scores', 'inferer'],
      ['activation', 'postprocessing#transforms#0'],
      ['postprocess[2]', 'postprocessing#transforms#2'],
      ['input', 'preprocessing#transforms#5'],
    ]);
    expect(dumpsOf(listed(plan), translated(plan), '/dump')[3]).toEqual({
      stage: 'window',
      source: 'inferer',
      file: '/dump/logits-inferer.f32',
      dims: [1, 2, 3, 4],
      affine: undefined,
    });
  });

  it('leaves out probabilities that the app does not make: argmax of them is that of the scores', () => {
    const [activations, invert, discrete] = plan.postprocessing;
    // Labels are turned back, so softmax before them changes nothing.
    const late = { ...plan, postprocessing: [activations, discrete, invert] };
    expect(translated(late).postprocess).toEqual(['argmax', 'restore']);
    expect(named(late).map(([stage]) => stage)).not.toContain('activation');
    expect(named(late).slice(-3)).toEqual([
      ['postprocess[0]', 'postprocessing#transforms#2'],
      ['postprocess[1]', 'postprocessing#transforms#1'],
      ['input', 'preprocessing#transforms#5'],
    ]);
  });
});
