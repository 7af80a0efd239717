import { affinesEqual, numericVoxels, originOf, type Volume, voxelCount } from '@tomaat/core';

/*
 * Where two implementations of one pipeline part: their volumes are compared stage by stage, in the order of the pipeline. The
 * first stage that differs after the last one that agrees names the step at fault; what comes after it only inherits the difference.
 */

/** A volume of the author's pipeline. */
export interface AuthorStage {
  readonly stage: string;
  /** The author's step that gives it, if it is known. */
  readonly source?: string;
  readonly volume: Volume;
  /** Whether its affine counts. */
  readonly placed: boolean;
}

export interface StageComparison {
  readonly stage: string;
  /** The author's step, as the author's config names it. */
  readonly source?: string;
  readonly agrees: boolean;
  /** The largest difference of two values, and the largest absolute value of the author's volume; missing where the sizes differ. */
  readonly maxDifference?: number;
  readonly maxValue?: number;
  /** Values that differ by more than the tolerance. */
  readonly differ?: number;
  /** What differs, in words. */
  readonly detail: string;
}

export interface Bisection {
  /** Every stage that both sides have, in order. */
  readonly stages: readonly StageComparison[];
  /** The first stage that differs after the last one that agrees, if the last one differs. */
  readonly first?: string;
}

/** Differences up to this part of the largest absolute value are rounding: of float32, and of sums in float16 in scores. */
const toleranceOf = (stage: string): number => {
  if (stage === 'labels' || stage.startsWith('postprocess')) return 0;
  return stage === 'scores' || stage === 'activation' ? 1e-3 : 1e-4;
};

/** The first stage that differs, in words: its name, and the author's step if it is known. */
export function nameFirst({ first, stages }: Bisection): string | undefined {
  const source = stages.find(({ stage }) => stage === first)?.source;
  return first !== undefined && source !== undefined ? `${first} (the author’s ${source})` : first;
}

/**
 * Compares the stages that both sides have.
 * @param order the stages of the pipeline from first to last; others are ignored
 */
export function bisect(
  order: readonly string[],
  author: readonly AuthorStage[],
  ours: ReadonlyMap<string, Volume>,
): Bisection {
  const stages: StageComparison[] = [];
  for (const stage of order) {
    // Where several steps of the author are one of the app, the last of them has its result.
    const theirs = author.findLast((one) => one.stage === stage);
    const own = ours.get(stage);
    if (theirs && own)
      stages.push({ ...compareStage(theirs, own), ...(theirs.source && { source: theirs.source }) });
  }
  // A stage that agrees shows that what differed before it did not matter: a few voxels at a limit of rounding. One window is
  // not the whole volume.
  const last = stages.findLastIndex(({ stage, agrees }) => agrees && stage !== 'window');
  const first = stages.slice(last + 1).find(({ agrees }) => !agrees)?.stage;
  return { stages, ...(first !== undefined && { first }) };
}

function compareStage({ stage, volume: author, placed }: AuthorStage, own: Volume): StageComparison {
  const differs = (detail: string): StageComparison => ({ stage, agrees: false, detail });
  const sizes = [own, author].map(({ size }) => size.join(' × '));
  if (sizes[0] !== sizes[1]) return differs(`${sizes[0]} voxels, the author has ${sizes[1]}`);
  if (own.components !== author.components)
    return differs(`${own.components} channels, the author has ${author.components}`);
  const values = compareValues(stage, author, own);
  if (!placed || affinesEqual(own.affine, author.affine, 1e-2)) return values;
  const [here, there] = [own, author].map(({ affine }) => originOf(affine).map((mm) => mm.toFixed(2)));
  const how =
    here.join() === there.join()
      ? 'the axes of the grid point elsewhere, or its spacing differs'
      : `the first voxel lies at (${here.join(', ')}) mm, the author has (${there.join(', ')}) mm`;
  return { ...values, agrees: false, detail: `${how}; ${values.detail}` };
}

function compareValues(stage: string, author: Volume, own: Volume): StageComparison {
  const [a, b] = [numericVoxels(author.voxels), numericVoxels(own.voxels)];
  let maxValue = 0;
  for (const value of a) if (Math.abs(value) > maxValue) maxValue = Math.abs(value);
  const tolerance = toleranceOf(stage) * maxValue;
  let [maxDifference, differ, at] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    // NaN equals NaN here, and differs from every number by infinity.
    const d = Object.is(a[i], b[i]) || a[i] === b[i] ? 0 : Math.abs(a[i] - b[i]);
    const difference = Number.isNaN(d) ? Number.POSITIVE_INFINITY : d;
    if (difference > tolerance) differ++;
    if (difference > maxDifference) [maxDifference, at] = [difference, i];
  }
  const detail =
    differ === 0
      ? `equal to ${maxDifference.toPrecision(2)}, values up to ${maxValue.toPrecision(3)}`
      : `${differ} of ${a.length} values differ, by up to ${maxDifference.toPrecision(3)} at ${placeOf(author, at)}; values up to ${maxValue.toPrecision(3)}`;
  return { stage, agrees: differ === 0, maxDifference, maxValue, differ, detail };
}

/** The voxel of a value, and its channel if there are several. */
function placeOf(volume: Volume, index: number): string {
  const [nx, ny] = volume.size;
  const count = voxelCount(volume);
  const i = index % count;
  const voxel = `(${i % nx}, ${Math.floor(i / nx) % ny}, ${Math.floor(i / (nx * ny))})`;
  return volume.components > 1 ? `${voxel} of channel ${Math.floor(index / count)}` : voxel;
}
