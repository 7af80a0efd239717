import { type GridPath, restore } from '../geometry/restore.ts';
import { infer } from '../inferers/inferer.ts';
import type { InferResult, NetworkSession } from '../inferers/spec.ts';
import { createMerged, mergeInto } from '../labels/merge.ts';
import type { Grid, Volume } from '../volume.ts';
import { effortOf } from './estimate.ts';
import type { Manifest, NetworkSpec } from './manifest.ts';
import { labelChannelsOf, placeOf, stepsOfResult, volumeChannels } from './networks.ts';
import { finishNetworks, labelsOfNetwork, type Outputs, reductionOf } from './postprocess.ts';
import { createPreparation, type Prepared, withLabels } from './prepare.ts';
import { type Part, type RunStage, traceVolume } from './stages.ts';
import type { StepContext } from './steps.ts';
import { stageOfNetwork, tracedNetwork, traceScores } from './trace.ts';

/** What the networks of a prediction work on, and with. */
export interface NetworkWork {
  readonly manifest: Manifest;
  readonly volumes: Readonly<Record<string, Volume>>;
  /** Of the first volume: the labels of every network go back onto it. */
  readonly grid: Grid;
  readonly context: StepContext;
  load(spec: NetworkSpec): Promise<NetworkSession>;
}

/**
 * Runs networks one after the other, each from its preprocessing to its labels on the grid of the first volume, so that of those before
 * only labels are kept. Those with `merge` are written into one label map, a later label over an earlier one; if there are none,
 * the labels of the last network are the result. Returns the outputs of the app.
 */
export async function runNetworks(
  work: NetworkWork,
  networks: readonly NetworkSpec[],
  stage: RunStage,
): Promise<Outputs> {
  const rules = networks.flatMap(({ merge }) => merge ?? []);
  const state: NetworkState = {
    prepare: createPreparation(work.manifest, work.volumes, networks, work.context),
    merged: rules.length > 0 ? createMerged(work.grid, rules) : undefined,
    kept: new Map(),
  };
  const parts = partsOf(work, networks);
  const last = networks.length - 1;
  // Each in a function of its own: a variable here would hold the scores of the network before.
  for (let i = 0; i < last; i++) await runNetwork(work, networks, i, { state, stage, part: parts[i] });
  return (await runNetwork(work, networks, last, { state, stage, part: parts[last] }))!;
}

/** What passes from one network to the next. */
interface NetworkState {
  prepare(spec: NetworkSpec): Promise<Prepared>;
  readonly merged?: Volume;
  /** The labels that networks still to come take, by the id of the one that found them. */
  readonly kept: Map<string, Volume>;
}

/** One of the networks: its labels go into the state, and those of the last one into outputs. */
async function runNetwork(
  work: NetworkWork,
  networks: readonly NetworkSpec[],
  index: number,
  { state, stage, part }: { state: NetworkState; stage: RunStage; part: Part },
): Promise<Outputs | undefined> {
  const { manifest, grid, context } = work;
  const { merged, kept } = state;
  const spec = networks[index];
  const { answer, fits } = await inferNetwork(work, spec, { state, stage, part });
  const wanted = new Set(networks.slice(index + 1).flatMap(idsOfSources));
  for (const id of kept.keys()) if (!wanted.has(id)) kept.delete(id);
  const finish = async () => {
    const path = { start: grid, fits };
    const found = await labelsOfNetwork(manifest, spec, answer, path, context);
    const isSource = spec.id !== undefined && wanted.has(spec.id);
    const labels = spec.merge || isSource ? restore(found, grid) : found;
    if (networks.length > 1)
      await traceVolume(context.trace, stageOfNetwork(manifest, spec, 'labels'), labels);
    if (isSource) kept.set(spec.id!, labels);
    if (merged && spec.merge) mergeInto(merged, labels, spec.merge);
    if (index < networks.length - 1) return undefined;
    return finishNetworks(manifest, merged ?? labels, path, context);
  };
  return stage('postprocess', finish, part);
}

const idsOfSources = (spec: NetworkSpec): string[] => labelChannelsOf(spec).map(({ labelsOf }) => labelsOf);

/** How much of the work each network is: by the voxels of all its windows. */
function partsOf({ manifest, volumes, context }: NetworkWork, networks: readonly NetworkSpec[]): Part[] {
  if (networks.length === 1) return [{ before: 0, share: 1 }];
  const efforts = networks.map((spec) => effortOf(manifest, spec, volumes, context.parameters));
  const all = efforts.reduce((a, b) => a + b);
  let before = 0;
  return networks.map((spec, index) => {
    const part = { before, share: efforts[index] / all, name: nameOf(manifest, spec) };
    before += part.share;
    return part;
  });
}

const nameOf = (manifest: Manifest, spec: NetworkSpec): string =>
  spec.id === undefined ? placeOf(manifest, spec) : `${placeOf(manifest, spec)}, ${spec.id}`;

/** One network on its volumes and the labels it takes: its result, and the way to the grid that it is on. */
async function inferNetwork(
  work: NetworkWork,
  spec: NetworkSpec,
  { state, stage, part }: { state: NetworkState; stage: RunStage; part: Part },
): Promise<{ answer: InferResult; fits: GridPath['fits'] }> {
  const { input, fits } = await stage(
    'preprocess',
    async () => {
      const prepared = await state.prepare(spec);
      const [first] = volumeChannels(work.manifest, spec);
      const input = withLabels(spec, prepared, work.volumes[first], (id) => state.kept.get(id)!);
      return { input, fits: prepared.fits };
    },
    part,
  );
  const answer = await stage(
    'infer',
    async (onProgress) => {
      const { manifest, context } = work;
      const { parameters, signal, trace } = context;
      const stageOf = (name: string) => stageOfNetwork(manifest, spec, name);
      const steps = stepsOfResult(manifest, spec, parameters);
      const network = { session: await work.load(spec), reduction: reductionOf(steps, parameters) };
      await traceVolume(trace, stageOf('input'), input);
      const { session, reduction } = trace ? tracedNetwork(input, network, trace, stageOf) : network;
      const result = await infer(input, session, spec.inferer, reduction, { onProgress, signal });
      if (trace) await traceScores(steps, result, trace, stageOf);
      return result;
    },
    part,
  );
  return { answer, fits };
}
