import { estimateMemory } from '../inferers/inferer.ts';
import { sliceSize, withinSlice } from '../inferers/slices.ts';
import { windowsAlong } from '../inferers/windows.ts';
import { bytesPerVoxel, type Grid, type Size, type VoxelType, voxelCount } from '../volume.ts';
import { isNetworkSpec, type Manifest, type ModelSpec, volumeInputs } from './manifest.ts';
import { reductionOf } from './postprocess.ts';
import type { Step } from './step.ts';
import { applies, gridAfter, ownSteps, volumesHeldBy } from './steps.ts';
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
}

/** Memory of Node and the runtime without a volume. */
const processBytes = 150e6;
/** Float32 channels of activations that a network holds per voxel of its input, at the least: a small U-Net's. */
const innerChannels = 48;

/**
 * How much memory a prediction will need, from the headers of its volumes. A rough figure: the inside of a network is
 * unknown, and so is that of other programs.
 */
export function estimatePrediction(
  manifest: Manifest,
  volumes: Readonly<Record<string, VolumeFactsOf>>,
  parameters: Readonly<Record<string, Parameter>>,
  modelBytes = 0,
): Estimate {
  const model: ModelSpec = manifest.model.find(({ when }) => applies(when, parameters)) ?? manifest.model[0];
  const steps = manifest.preprocess.filter((step) => applies(step.when, parameters));
  const inputs = volumeInputs(manifest);
  const names = isNetworkSpec(model) ? (model.channels ?? inputs.slice(0, 1)) : inputs;
  const sent = names.filter((name) => Object.hasOwn(volumes, name));
  const seen = sent.map((name) => volumes[name]);
  const stored = Object.values(volumes).reduce(
    (sum, volume) => sum + voxelCount(volume) * volume.components * bytesPerVoxel(volume.voxelType),
    0,
  );
  const largest = seen.reduce(
    (a, b) => (voxelCount(b) > voxelCount(a) ? b : a),
    seen[0] ?? Object.values(volumes)[0],
  );
  if (!largest) return { neededBytes: processBytes + modelBytes, modelSize: [1, 1, 1], windows: 1 };
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
  const grid = after(stacked, steps);
  const components = seen.reduce((sum, volume) => sum + volume.components, 0) || 1;
  const preparing = held * components * 4;
  const restoring = voxelCount(largest) * 2;
  if (!isNetworkSpec(model)) {
    // Measured with the bundled modules: 4 to 5 bytes per voxel in addition to the input.
    const working = voxelCount(grid) * components * 4 + restoring;
    return {
      neededBytes: processBytes + stored + Math.max(preparing, working),
      modelSize: grid.size,
      windows: 1,
    };
  }
  const { inferer } = model;
  const classes = Math.max(2, ...manifest.labels.map(({ value }) => value + 1));
  const isSlice = inferer.type === 'slice';
  const within = isSlice ? withinSlice(inferer, grid.size) : inferer;
  const seenAtOnce = isSlice ? sliceSize(grid.size, inferer.axis) : grid.size;
  const window = within.type === 'slidingWindow' ? within.roiSize : seenAtOnce;
  const inner = voxelCount({ size: window as Size }) * innerChannels * 4;
  const inferring =
    estimateMemory(inferer, grid.size, components, classes, reductionOf(manifest, parameters).type) + inner;
  return {
    neededBytes: processBytes + modelBytes * 2 + stored + Math.max(preparing, inferring + restoring),
    modelSize: grid.size,
    windows:
      within.type === 'slidingWindow'
        ? windowsOf(grid.size, within)
        : voxelCount(grid) / voxelCount({ size: seenAtOnce }),
  };
}

/**
 * The largest volumes of the same proportions and spacing whose prediction needs no more than `allowedBytes`; undefined if
 * even a voxel is too much.
 */
export function largestThatFits(
  manifest: Manifest,
  volumes: Readonly<Record<string, VolumeFactsOf>>,
  parameters: Readonly<Record<string, Parameter>>,
  { modelBytes = 0, allowedBytes }: { modelBytes?: number; allowedBytes: number },
): Record<string, Size> | undefined {
  const scaled = (factor: number) =>
    Object.fromEntries(
      Object.entries(volumes).map(([name, volume]) => [
        name,
        { ...volume, size: volume.size.map((n) => Math.max(1, Math.floor(n * factor))) as unknown as Size },
      ]),
    );
  const fits = (factor: number) =>
    estimatePrediction(manifest, scaled(factor), parameters, modelBytes).neededBytes <= allowedBytes;
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
