import { TomaatError } from '../errors.ts';
import { reduceScores } from '../inferers/reduce.ts';
import type { NetworkSession } from '../inferers/spec.ts';
import { isLabelTensor, type LabelTensor, type Tensor } from '../tensor.ts';
import type { Manifest, NetworkSpec } from './manifest.ts';
import { modelsFor, stepsOfResult } from './networks.ts';
import { reductionBy } from './postprocess.ts';
import { isScoreStep, parameterTrials } from './steps.ts';

/** Most voxels of a canary whose labels may differ, as a fraction. */
export const mostLabelsDiffer = 1e-4;
/** The largest difference of a score, as a fraction of the largest score. Float32 on two engines differs by about 1e-5. */
export const mostScoresDiffer = 0.01;

/** The largest volume that is tried: more would delay the first prediction, and take memory. */
const canaryVoxelsMax = 128 ** 3;

/** Lengths along z, y and x, the quickest first: all different, and multiples of 16 and of 32, by which networks halve. */
const volumes = [
  [16, 32, 64],
  [32, 64, 128],
];

/**
 * Dimensions to try, the first that the network takes: small volumes, then a window.
 * @param inputDims of the network, null where any is accepted
 * @param window dimensions of a window, if the network gets windows
 * @param components of the input, where the network does not say
 */
export function canaryDims(
  inputDims: readonly (number | null)[],
  window: readonly number[] | undefined,
  components: number,
): number[][] {
  const spatial = inputDims.length >= 5 ? 3 : 2;
  const first = inputDims.length - spatial;
  const small = volumes.map((lengths) =>
    inputDims.map((d, i) => {
      if (d !== null) return d;
      if (i < first) return i === first - 1 ? components : 1;
      return Math.min(lengths[3 - spatial + i - first], window?.[i] ?? Number.POSITIVE_INFINITY);
    }),
  );
  const tries = new Map([...small, ...(window ? [[...window]] : [])].map((dims) => [dims.join(), dims]));
  return [...tries.values()].filter((dims) => dims.reduce((a, b) => a * b, 1) <= canaryVoxelsMax);
}

/** How far the answers of two engines to one input are apart. */
export interface CanaryReport {
  readonly voxels: number;
  /** Voxels with another label. */
  readonly differ: number;
  /** The largest difference of a score over the largest magnitude of the reference's scores; 0 for label values. */
  readonly scoreDifference: number;
  /** What is wrong, with the number; undefined if the answers are equal enough. */
  readonly fault?: string;
}

/**
 * Runs one network in two sessions on the same asymmetric input of these dimensions, and compares the labels that the manifest makes of
 * the scores, and the scores themselves: a label map may be empty on such an input.
 * @throws {TomaatError} what either session throws
 */
export async function compareSessions(
  manifest: Manifest,
  spec: NetworkSpec,
  { reference, session }: { reference: NetworkSession; session: NetworkSession },
  dims: readonly number[],
): Promise<CanaryReport> {
  const expected = await reference.run(canaryTensor(dims));
  const found = await session.run(canaryTensor(dims));
  const labelsOf = labellerOf(manifest, spec, dims.length);
  return compareResults(expected, found, { reference: 'the processor', labelsOf });
}

/** How two results of a network on the same input are compared. */
export interface ComparisonOptions {
  /** What gave the expected result, for the fault. */
  readonly reference: string;
  /** The labels of a result; the class with the largest score if missing, where there are several: [1, K, …]. */
  readonly labelsOf?: (output: Tensor | LabelTensor) => LabelTensor['data'];
  /** The largest difference of a score, as a fraction of the largest score. */
  readonly mostScores?: number;
}

/** Compares the scores and the labels of two results of a network, which are for the same input. */
export function compareResults(
  expected: Tensor | LabelTensor,
  found: Tensor | LabelTensor,
  { reference, labelsOf = largestClass, mostScores = mostScoresDiffer }: ComparisonOptions,
): CanaryReport {
  if (isLabelTensor(expected) !== isLabelTensor(found) || expected.dims.join() !== found.dims.join()) {
    const [a, b] = [found, expected].map(({ dims }) => dims.join(' × '));
    const fault = `it gives a tensor of ${a}, and ${reference} one of ${b}`;
    return { voxels: 0, differ: 0, scoreDifference: Number.POSITIVE_INFINITY, fault };
  }
  const scoreDifference = isLabelTensor(expected)
    ? 0
    : largestDifference(expected.data, found.data as Float32Array);
  const [a, b] = [labelsOf(expected), labelsOf(found)];
  let differ = 0;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) differ++;
  const report = { voxels: a.length, differ, scoreDifference };
  if (differ > a.length * mostLabelsDiffer) {
    const percent = ((100 * differ) / a.length).toPrecision(2);
    return {
      ...report,
      fault: `${differ} of ${a.length} voxels (${percent} %) get another label than from ${reference}, and ${100 * mostLabelsDiffer} % may`,
    };
  }
  if (!(scoreDifference <= mostScores)) {
    const by = Number.isFinite(scoreDifference)
      ? `differ from those of ${reference} by up to ${(100 * scoreDifference).toPrecision(2)} % of the largest, and ${100 * mostScores} % is allowed`
      : `are not finite numbers where those of ${reference} are`;
    return { ...report, fault: `its scores ${by}` };
  }
  return report;
}

function largestClass(output: Tensor | LabelTensor): LabelTensor['data'] {
  if (isLabelTensor(output)) return output.data;
  const { data, dims } = output;
  const [batch, classes] = dims;
  if (dims.length < 4 || batch !== 1 || classes < 2) return new Uint8Array();
  return reduceScores(data, classes, data.length / classes, { type: 'argmax' }, undefined);
}

/**
 * A tensor in the range of normalised intensities, with another pattern along each axis and in each component, so that no mirrored or
 * transposed answer is equal: ramps, ellipsoids off the centre, and reproducible noise.
 */
export function canaryTensor(dims: readonly number[]): Tensor {
  const [nz, ny, nx] = [1, 1, 1, ...dims].slice(-3);
  const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
  let noise = 1;
  for (let i = 0; i < data.length; i++) {
    const x = (i % nx) / nx;
    const y = (Math.floor(i / nx) % ny) / ny;
    const z = (Math.floor(i / (nx * ny)) % nz) / nz;
    const component = Math.floor(i / (nx * ny * nz));
    const inLarge = ((x - 0.4) / 0.3) ** 2 + ((y - 0.55) / 0.35) ** 2 + ((z - 0.45) / 0.4) ** 2 < 1;
    const inSmall = ((x - 0.7) / 0.15) ** 2 + ((y - 0.3) / 0.2) ** 2 + ((z - 0.62) / 0.1) ** 2 < 1;
    // Lehmer's generator: its products are exact in float64.
    noise = (noise * 48_271) % 2_147_483_647;
    data[i] =
      0.5 * x -
      0.8 * y +
      0.3 * z +
      0.2 * component +
      (inLarge ? 1 : 0) -
      (inSmall ? 1.5 : 0) +
      0.2 * (noise / 2_147_483_647 - 0.5);
  }
  return { data, dims };
}

/** The largest difference over the largest magnitude of what is expected; infinite where only one of both is a finite number. */
function largestDifference(expected: Float32Array, found: Float32Array): number {
  let [most, largest] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    if (Number.isFinite(expected[i])) most = Math.max(most, Math.abs(expected[i]));
    if (Object.is(expected[i], found[i])) continue;
    const difference = Math.abs(expected[i] - found[i]);
    if (!Number.isFinite(difference)) return Number.POSITIVE_INFINITY;
    largest = Math.max(largest, difference);
  }
  return largest === 0 ? 0 : largest / (most || 1);
}

/** Makes labels of an answer as the manifest decides on them with the first values of its parameters; `rank` is that of the input. */
function labellerOf(
  manifest: Manifest,
  spec: NetworkSpec,
  rank: number,
): (output: Tensor | LabelTensor) => Uint8Array | Uint16Array {
  const parameters =
    parameterTrials(manifest).find((values) => modelsFor(manifest, values).includes(spec)) ?? {};
  const decision = stepsOfResult(manifest, spec, parameters).find(isScoreStep);
  const reduction = decision ? reductionBy(decision, parameters) : ({ type: 'argmax' } as const);
  return (output) => {
    if (isLabelTensor(output)) return output.data;
    const { data, dims } = output;
    const classes = dims[rank === 3 && dims.length === 3 ? 0 : 1];
    if (!(classes >= 1) || data.length % classes !== 0)
      throw new TomaatError(
        'APP_OUTPUT',
        `The network gave a tensor of ${dims.join(' × ')}, which has no classes. Export it so that it gives batch × classes × z × y × x.`,
      );
    return reduceScores(data, classes, data.length / classes, reduction, undefined);
  };
}
