import { estimateMemory } from '../inferers/inferer.ts';
import { rulesOf } from '../inferers/reduce.ts';
import { sliceSize, withinSlice } from '../inferers/slices.ts';
import { windowsAlong } from '../inferers/windows.ts';
import { bytesPerVoxel, type Grid, type Size, type VoxelType, voxelCount } from '../volume.ts';
import { isNetworkSpec, type Manifest, type ModelSpec, type NetworkSpec, volumeInputs } from './manifest.ts';
import {
  isMerged,
  labelChannelsOf,
  modelsFor,
  stepsOfInput,
  stepsOfLabels,
  stepsOfResult,
  volumeChannels,
} from './networks.ts';
import { reductionBy, reductionOf } from './postprocess.ts';
import type { Step } from './step.ts';
import { gridAfter, isScoreStep, ownSteps, valuesAfterStep, volumesHeldBy } from './steps.ts';
import type { Parameter } from './values.ts';

/** What is known about a volume before it is sent. */
export type VolumeFactsOf = Grid & { readonly components: number; readonly voxelType: VoxelType };

export interface Estimate {
  /** Bytes that the process will take at its peak: the volumes, the network's input and output, a share for its inside. */
  readonly neededBytes: number;
  /** Size of what the model sees; an upper bound where a grid depends on the voxels, as after a crop by intensity. */
  readonly modelSize: Size;
  /** Windows that the model is run on; 1 for the whole volume at once. */
  readonly windows: number;
  /** Bytes that its networks take at their peak where they are computed, such as on a graphics card; 0 without networks. */
  readonly networkBytes: number;
}

/** Memory of Node and the runtime without a volume. */
const processBytes = 150e6;
/** Float32 channels of activations that a network holds per voxel of its input, at the least: a small U-Net's. */
const innerChannels = 48;

/** Bytes that a run of a network takes per voxel of its input, as they were measured; undefined where they were not. */
export type RunBytesOf = (spec: NetworkSpec) => number | undefined;

/**
 * How much memory a prediction will need, from the headers of its volumes. A rough figure: the inside of a network is
 * unknown unless `runBytesOf` knows it, and so is that of other programs.
 */
export function estimatePrediction(
  manifest: Manifest,
  volumes: Readonly<Record<string, VolumeFactsOf>>,
  parameters: Readonly<Record<string, Parameter>>,
  modelBytes = 0,
  runBytesOf?: RunBytesOf,
): Estimate {
  const found = modelsFor(manifest, parameters);
  const models = found.length > 0 ? found : manifest.model.slice(0, 1);
  const given = Object.values(volumes);
  if (given.length === 0)
    return {
      neededBytes: processBytes + modelBytes,
      modelSize: [1, 1, 1],
      windows: 1,
      networkBytes: modelBytes,
    };
  const stored = given.reduce(
    (sum, volume) => sum + voxelCount(volume) * volume.components * bytesPerVoxel(volume.voxelType),
    0,
  );
  const shapes = models.map((spec) => shapeOf(manifest, spec, volumes, parameters, runBytesOf));
  // One after the other: the peak is that of the largest.
  const working = Math.max(...shapes.map(({ workingBytes }) => workingBytes));
  const loaded = models.some(isNetworkSpec) ? modelBytes * 2 : 0;
  const [most] = shapes.toSorted((a, b) => voxelCount(b) - voxelCount(a));
  return {
    neededBytes: processBytes + loaded + stored + working + keptBytes(models, shapes, given[0]),
    modelSize: most.size,
    windows: shapes.reduce((sum, { windows }) => sum + windows, 0),
    networkBytes: modelBytes + Math.max(...shapes.map(({ networkBytes }) => networkBytes)),
  };
}

/** The work of a network in relation to that of others: voxels of all its windows. */
export function effortOf(
  manifest: Manifest,
  spec: NetworkSpec,
  volumes: Readonly<Record<string, Shape>>,
  parameters: Readonly<Record<string, Parameter>>,
): number {
  const { windows, windowVoxels } = shapeOf(manifest, spec, volumes, parameters);
  return windows * windowVoxels;
}

type Shape = Grid & { readonly components: number };

/** What one model makes of the volumes. */
interface ModelShape {
  /** Of what it sees. */
  readonly size: Size;
  readonly windows: number;
  readonly windowVoxels: number;
  /** From the preprocessing to its labels. */
  readonly workingBytes: number;
  /** Of one window where the network is computed: its input, its inside and its output. */
  readonly networkBytes: number;
  /** What it sees before the steps of its own. */
  readonly sharedBytes: number;
}

function shapeOf(
  manifest: Manifest,
  model: ModelSpec,
  volumes: Readonly<Record<string, Shape>>,
  parameters: Readonly<Record<string, Parameter>>,
  runBytesOf?: RunBytesOf,
): ModelShape {
  const names = isNetworkSpec(model) ? volumeChannels(manifest, model) : volumeInputs(manifest);
  const sent = names.filter((name) => Object.hasOwn(volumes, name));
  const seen = sent.map((name) => volumes[name]);
  const largest = seen.reduce(
    (a, b) => (voxelCount(b) > voxelCount(a) ? b : a),
    seen[0] ?? Object.values(volumes)[0],
  );
  // A step reads one copy and writes another; the voxels of other types become float32 at the first one.
  let held = 0;
  const after = (start: Grid, list: readonly Step[]): Grid => {
    let grid = start;
    for (const step of list) {
      const next = gridAfter(grid, step, parameters);
      const larger = Math.max(voxelCount(grid), voxelCount(next));
      held = Math.max(held, larger * volumesHeldBy(step, parameters));
      grid = next;
    }
    return grid;
  };
  // Channels are stacked on the grid of the first one, and each of a program's volumes keeps its own.
  const prepared = sent.map((name) => after(volumes[name], ownSteps(manifest.inputs, name, parameters)));
  const stacked = prepared.reduce((a, b) => (voxelCount(b) > voxelCount(a) ? b : a), prepared[0] ?? largest);
  const { shared, own } = stepsOfInput(manifest, model, parameters);
  const common = after(stacked, shared);
  const grid = after(common, own);
  const components = seen.reduce((sum, volume) => sum + volume.components, 0) || 1;
  const preparing = held * components * 4;
  const restoring = voxelCount(largest) * 2;
  const sharedBytes = voxelCount(common) * components * 4;
  if (!isNetworkSpec(model)) {
    // Measured with the bundled modules: 4 to 5 bytes per voxel in addition to the input.
    const working = voxelCount(grid) * components * 4 + restoring;
    const workingBytes = Math.max(preparing, working);
    const windowVoxels = voxelCount(grid);
    return { size: grid.size, windows: 1, windowVoxels, workingBytes, networkBytes: 0, sharedBytes };
  }
  const { inferer } = model;
  const isSlice = inferer.type === 'slice';
  const within = isSlice ? withinSlice(inferer, grid.size) : inferer;
  const seenAtOnce = isSlice ? sliceSize(grid.size, inferer.axis) : grid.size;
  const window = within.type === 'slidingWindow' ? within.roiSize : seenAtOnce;
  const windowVoxels = voxelCount({ size: window as Size });
  const inner = windowVoxels * (runBytesOf?.(model) ?? innerChannels * 4);
  const { type } = reductionOf(stepsOfResult(manifest, model, parameters), parameters);
  const labelled = labelChannelsOf(model).reduce((sum, { values }) => sum + values.length, 0);
  const classes = classesOf(manifest, model, parameters);
  const inferring = estimateMemory(inferer, grid.size, components + labelled, classes, type) + inner;
  return {
    size: grid.size,
    windows:
      within.type === 'slidingWindow'
        ? windowsOf(grid.size, within)
        : voxelCount(grid) / voxelCount({ size: seenAtOnce }),
    windowVoxels,
    workingBytes: Math.max(preparing, inferring + restoring),
    networkBytes: inner + windowVoxels * (components + labelled + classes) * 4,
    sharedBytes,
  };
}

/**
 * Classes of a network: by the channels that its rules name, otherwise by the values that the manifest names of it (in its table, in those
 * who take its labels, in the app), which steps may have made of others.
 */
function classesOf(
  manifest: Manifest,
  spec: NetworkSpec,
  parameters: Readonly<Record<string, Parameter>>,
): number {
  const steps = stepsOfResult(manifest, spec, parameters);
  const decided = steps.findIndex(isScoreStep);
  const reduction = decided < 0 ? undefined : reductionBy(steps[decided], parameters);
  if (reduction?.type === 'threshold' || reduction?.type === 'compose')
    return Math.max(2, ...rulesOf(reduction).map(({ channel }) => channel + 1));
  const taken = manifest.model
    .flatMap(labelChannelsOf)
    .flatMap(({ labelsOf, values }) => (labelsOf === spec.id ? values : []));
  const own = [...(spec.merge ?? []).map(({ from }) => from), ...taken];
  const named = own.length > 0 ? own : manifest.labels.map(({ value }) => value);
  const later = own.length > 0 ? [] : stepsOfLabels(manifest, parameters);
  const fewest = Math.max(2, new Set(named).size + 1);
  const given = [...steps.slice(decided + 1), ...later].reduce<readonly number[]>(
    (values, step) => valuesAfterStep(values, step, parameters),
    Array.from({ length: fewest }, (_, value) => value),
  );
  const known = new Set(given);
  return named.every((value) => known.has(value)) ? fewest : Math.max(...named) + 1;
}

/** What is kept from one network to the next: the merged labels, those that others take, and the volume that all begin with. */
function keptBytes(models: readonly ModelSpec[], shapes: readonly ModelShape[], grid: Grid): number {
  if (models.length < 2) return 0;
  const taken = new Set(models.flatMap(labelChannelsOf).map(({ labelsOf }) => labelsOf));
  const maps = taken.size + (models.some(isMerged) ? 1 : 0);
  return maps * voxelCount(grid) * 2 + Math.max(...shapes.map(({ sharedBytes }) => sharedBytes));
}

/**
 * The largest volumes of the same proportions and spacing whose prediction needs no more than `allowedBytes`, and on the device of its
 * networks no more than `deviceBytes`; undefined if even a voxel is too much.
 */
export function largestThatFits(
  manifest: Manifest,
  volumes: Readonly<Record<string, VolumeFactsOf>>,
  parameters: Readonly<Record<string, Parameter>>,
  {
    modelBytes = 0,
    runBytesOf,
    allowedBytes = Number.POSITIVE_INFINITY,
    deviceBytes = Number.POSITIVE_INFINITY,
  }: { modelBytes?: number; runBytesOf?: RunBytesOf; allowedBytes?: number; deviceBytes?: number },
): Record<string, Size> | undefined {
  const scaled = (factor: number) =>
    Object.fromEntries(
      Object.entries(volumes).map(([name, volume]) => [
        name,
        { ...volume, size: volume.size.map((n) => Math.max(1, Math.floor(n * factor))) as unknown as Size },
      ]),
    );
  const fits = (factor: number) => {
    const estimate = estimatePrediction(manifest, scaled(factor), parameters, modelBytes, runBytesOf);
    return estimate.neededBytes <= allowedBytes && estimate.networkBytes <= deviceBytes;
  };
  if (!fits(0)) return undefined;
  let [least, most] = [0, 1];
  for (let i = 0; i < 20; i++) {
    const middle = (least + most) / 2;
    if (fits(middle)) least = middle;
    else most = middle;
  }
  return Object.fromEntries(Object.entries(scaled(least)).map(([name, { size }]) => [name, size]));
}

function windowsOf(
  size: Size,
  spec: { roiSize: readonly number[]; overlap: number | readonly number[]; stepping: 'monai' | 'nnunet' },
): number {
  return size.reduce((product, n, axis) => {
    const overlap = typeof spec.overlap === 'number' ? spec.overlap : spec.overlap[axis];
    return product * windowsAlong(n, spec.roiSize[axis], overlap, spec.stepping).count;
  }, 1);
}
