import { TomaatError } from '../errors.ts';
import type { Fit } from '../geometry/fit.ts';
import { restore } from '../geometry/restore.ts';
import { labelVoxels } from '../labels/label-map.ts';
import { type GridChange, moveLabels } from '../labels/move-labels.ts';
import { numericVoxels, type Volume, voxelCount } from '../volume.ts';
import type { Manifest, ModelSpec, NetworkSpec } from './manifest.ts';
import { labelChannelsOf, stepsOfInput, volumeChannels } from './networks.ts';
import { stackVolumes } from './stack-volumes.ts';
import { traceVolume } from './stages.ts';
import type { Step } from './step.ts';
import { applyTransform, fitOfStep, ownSteps, type StepContext } from './steps.ts';
import { stageOfModelStep, stageOfStep } from './trace.ts';

/* From the volumes of a request to the input of a model. */

/** A volume after steps of the preprocessing, and how it came there. */
export interface Prepared {
  readonly volume: Volume;
  /** The fits that led to its grid: scores go back through them. */
  readonly fits: readonly Fit[];
  /** All changes of its grid: labels of other networks come along them. */
  readonly changes: readonly GridChange[];
}

export async function preprocess(
  start: Prepared,
  steps: readonly Step[],
  context: StepContext,
  stageOf?: (step: Step) => string,
): Promise<Prepared> {
  let current = start.volume;
  const fits = [...start.fits];
  const changes = [...start.changes];
  for (const step of steps) {
    context.signal?.throwIfAborted();
    const from = { size: current.size, affine: current.affine };
    const fit = fitOfStep(current, step, context.parameters);
    if (fit) fits.push(fit);
    current = await applyTransform(step, 'preprocess', current, context);
    const to = { size: current.size, affine: current.affine };
    changes.push({ from, to, fit });
    if (stageOf) await traceVolume(context.trace, stageOf(step), current);
  }
  return { volume: current, fits, changes };
}

type Volumes = Readonly<Record<string, Volume>>;

/** The volume of an input after its own steps. */
export function prepareInput(
  manifest: Manifest,
  volumes: Volumes,
  name: string,
  context: StepContext,
): Promise<Prepared> {
  const steps = ownSteps(manifest.inputs, name, context.parameters);
  const start = { volume: need(volumes, name), fits: [], changes: [] };
  return preprocess(start, steps, context, (step) => stageOfStep(manifest, 'preprocess', step, name));
}

function need(volumes: Volumes, name: string): Volume {
  if (volumes[name]) return volumes[name];
  throw missingVolume(name);
}

export const missingVolume = (name: string): TomaatError =>
  new TomaatError('INPUTS_MISSING', `The app also needs the volume ${name}. Send it in the same request.`, {
    field: name,
    detail: { missing: [name] },
  });

/**
 * Prepares the volumes of the networks that run, one network after the other. What several of them take alike is prepared once, and
 * kept until the last of these has it.
 */
export function createPreparation(
  manifest: Manifest,
  volumes: Volumes,
  networks: readonly NetworkSpec[],
  context: StepContext,
): (spec: NetworkSpec) => Promise<Prepared> {
  const keyOf = (spec: NetworkSpec) => volumeChannels(manifest, spec).join(' ');
  const kept = new Map<string, Prepared>();
  return async (spec) => {
    const { shared, own } = stepsOfInput(manifest, spec, context.parameters);
    const key = keyOf(spec);
    const common =
      kept.get(key) ??
      (await prepareShared(manifest, volumes, volumeChannels(manifest, spec), shared, context));
    const later = networks.slice(networks.indexOf(spec) + 1);
    if (later.some((other) => keyOf(other) === key)) kept.set(key, common);
    else kept.delete(key);
    return preprocess(common, own, context, (step) => stageOfModelStep(manifest, spec, 'preprocess', step));
  };
}

async function prepareShared(
  manifest: Manifest,
  volumes: Volumes,
  names: readonly string[],
  steps: readonly Step[],
  context: StepContext,
): Promise<Prepared> {
  const channels: Prepared[] = [];
  for (const name of names) channels.push(await prepareInput(manifest, volumes, name, context));
  const volume = stackVolumes(channels.map((channel) => channel.volume));
  // The grid is that of the first channel, so its way comes first.
  const start = { ...channels[0], volume };
  return preprocess(start, steps, context, (step) => stageOfStep(manifest, 'preprocess', step));
}

/**
 * The input of a network, float32: its volumes, and between them the labels of other networks as 0 and 1, in the order of its channels.
 * @param labelsOf the labels that a network has found, on the grid of the first volume of the app, by its id
 * @param start the volume that the first of its volumes was before all steps
 */
export function withLabels(
  spec: NetworkSpec,
  { volume, changes }: Prepared,
  start: Volume,
  labelsOf: (id: string) => Volume,
): Volume {
  const sources = labelChannelsOf(spec);
  if (sources.length === 0) return asFloat32(volume);
  const n = voxelCount(volume);
  const components = volume.components + sources.reduce((sum, { values }) => sum + values.length, 0);
  const voxels = new Float32Array(n * components);
  const given = numericVoxels(volume.voxels);
  // One volume may have several components, several have one each.
  const perVolume = volume.components / (spec.channels!.length - sources.length);
  let [from, to] = [0, 0];
  for (const channel of spec.channels!) {
    if (typeof channel === 'string') {
      voxels.set(given.subarray(from * n, (from + perVolume) * n), to * n);
      from += perVolume;
      to += perVolume;
      continue;
    }
    const labels = restore(labelsOf(channel.labelsOf), start);
    const moved = labelVoxels(moveLabels(labels, changes));
    for (const value of channel.values) {
      const mask = voxels.subarray(to * n, ++to * n);
      for (let i = 0; i < n; i++) if (moved[i] === value) mask[i] = 1;
    }
  }
  return { ...volume, voxels, components };
}

const asFloat32 = (volume: Volume): Volume =>
  volume.voxels instanceof Float32Array
    ? volume
    : { ...volume, voxels: Float32Array.from(numericVoxels(volume.voxels)) };

/** The volumes of a program after the steps of the manifest, by the names of their inputs. */
export async function prepareProgram(
  manifest: Manifest,
  volumes: Volumes,
  spec: ModelSpec,
  context: StepContext,
): Promise<Record<string, Volume>> {
  const prepared: Record<string, Volume> = {};
  const { shared } = stepsOfInput(manifest, spec, context.parameters);
  for (const name of Object.keys(volumes))
    prepared[name] = (
      await preprocess(await prepareInput(manifest, volumes, name, context), shared, context)
    ).volume;
  return prepared;
}
