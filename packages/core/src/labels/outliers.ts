import { TomaatError } from '../errors.ts';

/**
 * Which of many results of one service are unlike the others, by the volumes of their labels. It says where to look
 * first, not what is wrong.
 */

/** The volume of one label in one result. */
export interface LabelVolume {
  readonly value: number;
  readonly name: string;
  readonly volumeMl: number;
}

/** Why a result is unlike the others, for one label. */
export interface OutlierReason {
  readonly value: number;
  readonly name: string;
  /** `missing`: without a voxel here, though most others have it; `unexpected`: the reverse. */
  readonly kind: 'small' | 'large' | 'missing' | 'unexpected';
  /** At least `outlierThreshold`. */
  readonly score: number;
}

export interface Outlier {
  /** 0 or more; at `outlierThreshold` or more it is an outlier; Infinity for a failed result. */
  readonly score: number;
  /** Worst first. */
  readonly reasons: readonly OutlierReason[];
}

/** Modified z-scores above it mark outliers: Iglewicz and Hoaglin 1993, “How to Detect and Handle Outliers”, p. 12. */
export const outlierThreshold = 3.5;
/** The fewest volumes of a label from which a spread is estimated. */
export const leastCompared = 5;
/** How many times as many results must have a label as lack it before its absence counts; the same for its presence. */
const leastOdds = 4;
/** A spread of less than 1 % counts as 1 %, so that rounding marks nothing. In natural logarithms. */
const leastSpread = 0.01;

/**
 * Scores each result against all of them; the order is kept.
 *
 * Volumes of a label are compared as natural logarithms, since half and double are equally far from usual. The score
 * is the modified z-score of Iglewicz and Hoaglin, |x − median| · 0.6745 / MAD, where MAD is the median of the absolute
 * deviations from the median. If more than half of the values are equal, MAD is 0, and the mean of the absolute
 * deviations takes its place: |x − median| / (1.253314 · mean), as in IBM SPSS (“Modified z score”).
 *
 * A label that at least four in five results have, and this one lacks, scores `outlierThreshold` · (have / lack) / 4: the
 * rarer, the higher. One that at least four in five lack, and this one has, scores likewise.
 *
 * @param results the labels of each result; `undefined` for a scan without one, because it failed
 * @throws TomaatError BAD_INPUT for a volume that is not a finite number of 0 or more
 */
export function findOutliers(results: readonly (readonly LabelVolume[] | undefined)[]): Outlier[] {
  const reasons = results.map((): OutlierReason[] => []);
  const scores = results.map((labels) => (labels ? 0 : Number.POSITIVE_INFINITY));
  for (const [value, { name, volumes }] of collectLabels(results)) {
    for (const [i, { kind, score }] of scoreVolumes(volumes)) {
      scores[i] = Math.max(scores[i], score);
      if (score >= outlierThreshold) reasons[i].push({ value, name, kind, score });
    }
  }
  return scores.map((score, i) => ({ score, reasons: reasons[i].sort((a, b) => b.score - a.score) }));
}

/** Indices in descending order of score: failed results, outliers, then the rest; equal ones keep their order. */
export const orderByOutlier = (outliers: readonly Outlier[]): number[] =>
  outliers
    .map((_, i) => i)
    .sort((a, b) =>
      outliers[a].score === outliers[b].score ? a - b : outliers[b].score - outliers[a].score,
    );

/** The volumes of each label, by index of the result: 0 where a result does not mention it. */
function collectLabels(results: readonly (readonly LabelVolume[] | undefined)[]) {
  const there = results.flatMap((labels, i) => (labels ? [i] : []));
  const found = new Map<number, { name: string; volumes: Map<number, number> }>();
  for (const i of there) {
    for (const { value, name, volumeMl } of results[i]!) {
      if (!(volumeMl >= 0 && Number.isFinite(volumeMl))) {
        throw new TomaatError(
          'BAD_INPUT',
          `The volume of label ${value} of result ${i} is not a number of 0 or more. Measure this result again.`,
          { field: 'volumeMl' },
        );
      }
      let label = found.get(value);
      if (!label) {
        label = { name, volumes: new Map(there.map((at) => [at, 0])) };
        found.set(value, label);
      }
      label.volumes.set(i, volumeMl);
    }
  }
  return found;
}

type Scored = [index: number, Pick<OutlierReason, 'kind' | 'score'>];

function scoreVolumes(volumes: ReadonlyMap<number, number>): Scored[] {
  const present = [...volumes].filter(([, ml]) => ml > 0);
  const absent = [...volumes].filter(([, ml]) => ml === 0);
  const scored = scoreSpread(present);
  if (volumes.size < leastCompared || present.length === 0 || absent.length === 0) return scored;
  const odds = present.length / absent.length;
  const scoreOf = (times: number) => (outlierThreshold * times) / leastOdds;
  if (odds >= leastOdds)
    scored.push(...absent.map(([i]): Scored => [i, { kind: 'missing', score: scoreOf(odds) }]));
  if (1 / odds >= leastOdds)
    scored.push(...present.map(([i]): Scored => [i, { kind: 'unexpected', score: scoreOf(1 / odds) }]));
  return scored;
}

function scoreSpread(present: readonly (readonly [number, number])[]): Scored[] {
  if (present.length < leastCompared) return [];
  const logs = present.map(([, ml]) => Math.log(ml));
  const middle = median(logs);
  const deviations = logs.map((log) => Math.abs(log - middle));
  const mad = median(deviations);
  const mean = deviations.reduce((sum, one) => sum + one, 0) / deviations.length;
  const spread = Math.max(leastSpread, mad > 0 ? mad / 0.6745 : 1.253314 * mean);
  return present.map(
    ([i], at): Scored => [i, { kind: logs[at] < middle ? 'small' : 'large', score: deviations[at] / spread }],
  );
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
