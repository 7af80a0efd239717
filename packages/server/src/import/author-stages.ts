import { join } from 'node:path';
import type { ExporterStage } from './author-python.ts';
import type { AuthorDump } from './prove.ts';
import type { Translation, WrittenStep } from './translation.ts';

/*
 * Which volumes of the author's pipeline are comparable with which of the app: the table of the bisection.
 */

const nameOf = (step: WrittenStep): string => (typeof step === 'string' ? step : Object.keys(step)[0]);
const decides = (step: WrittenStep) => ['argmax', 'threshold', 'compose'].includes(nameOf(step));

/**
 * The author's volumes by the names of the app's stages (`traceStages()`); those without one are left out. `folder` holds their files.
 */
export function dumpsOf(
  stages: readonly ExporterStage[],
  { sources, preprocess, postprocess }: Pick<Translation, 'sources' | 'preprocess' | 'postprocess'>,
  folder: string,
): AuthorDump[] {
  const decided = postprocess.findIndex(decides);
  const before = postprocess.slice(0, Math.max(decided, 0)).map(nameOf);
  // Where neither probabilities nor scores are taken back to the input's grid, argmax is the same of both: no stage.
  const compares = ['softmax', 'sigmoid', 'restore'].some((name) => before.includes(name));
  const inverted = stages.findIndex(({ target }) => /\.Invert[dD]?(ict)?$/.test(target));
  /** Whether a step gives probabilities on the network's own grid: by the author's config, whatever the app makes of it. */
  const isActivation = (entry: ExporterStage) =>
    /\.Activations[dD]?(ict)?$/.test(entry.target) && (inverted < 0 || stages.indexOf(entry) < inverted);
  /** A step after the network: of the scores only the probabilities are a stage, then every label map. */
  const stageAfter = (entry: ExporterStage, stage: string | undefined): string | undefined => {
    if (isActivation(entry)) return compares ? 'activation' : undefined;
    const index = Number(/^postprocess\[(\d+)\]$/.exec(stage ?? '')?.[1] ?? -1);
    return index >= decided ? stage : undefined;
  };
  const stageOf = (entry: ExporterStage): string | undefined => {
    const { kind, path } = entry;
    if (kind === 'logits') return 'window';
    if (kind === 'scores') return 'scores';
    if (kind === 'window') return undefined;
    const stage = sources.find((source) => source.path === path)?.stage;
    return kind === 'prepared' ? stage : stageAfter(entry, stage);
  };
  const dumpOf = (stage: string, { path, file, dims, affine }: ExporterStage): AuthorDump => ({
    stage,
    ...(path !== '' && { source: path }),
    file: join(folder, file),
    dims,
    affine,
  });
  const dumps = stages.flatMap((entry) => {
    const stage = stageOf(entry);
    return stage === undefined ? [] : [dumpOf(stage, entry)];
  });
  const last = stages.findLast(({ kind }) => kind === 'prepared');
  if (last && preprocess.length > 0) dumps.push(dumpOf('input', last));
  return dumps;
}
