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
  const { manifest, grid, context } = work;
  const prepare = createPreparation(manifest, work.volumes, networks, context);
  const parts = partsOf(work, networks);
  const rules = networks.flatMap(({ merge }) => merge ?? []);
  const merged = rules.length > 0 ? createMerged(grid, rules) : undefined;
  /** The labels that networks still to come take, by the id of the one that found them. */
  const kept = new Map<string, Volume>();
  let outputs: Outputs = {};
  for (const [index, spec] of networks.entries()) {
    const part = parts[index];
    const { answer, fits } = await inferNetwork(work, spec, { prepare, kept, stage, part });
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
      if (index === networks.length - 1)
        outputs = await finishNetworks(manifest, merged ?? labels, path, context);
    };
    await stage('postprocess', finish, part);
  }
  return outputs;
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
  {
    prepare,
    kept,
    stage,
    part,
  }: {
    prepare(spec: NetworkSpec): Promise<Prepared>;
    kept: ReadonlyMap<string, Volume>;
    stage: RunStage;
    part: Part;
  },
): Promise<{ answer: InferResult; fits: GridPath['fits'] }> {
  const { input, fits } = await stage(
    'preprocess',
    async () => {
      const prepared = await prepare(spec);
      const [first] = volumeChannels(work.manifest, spec);
      const input = withLabels(spec, prepared, work.volumes[first], (id) => kept.get(id)!);
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
