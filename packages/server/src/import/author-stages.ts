import { join } from 'node:path';
import type { ExporterStage } from './author-python.ts';
import type { AuthorDump } from './prove.ts';
import type { Translation, WrittenStep } from './translation.ts';

/*
 * Which volumes of the author's pipeline are comparable with which of the app: the table of the bisection.
 */

const nameOf = (step: WrittenStep): string => (typeof step === 'string' ? step : Object.keys(step)[0]);
const isActivation = (step: WrittenStep) => ['softmax', 'sigmoid'].includes(nameOf(step));
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
  const activation = postprocess.findIndex((step, i) => isActivation(step) && i < decided);
  /** A step after the network: of the scores only the probabilities are a stage, then every label map. */
  const stageAfter = (stage: string | undefined): string | undefined => {
    const index = Number(/^postprocess\[(\d+)\]$/.exec(stage ?? '')?.[1] ?? -1);
    if (index >= 0 && index === activation) return 'activation';
    return index >= decided ? stage : undefined;
  };
  const stageOf = ({ kind, path }: ExporterStage): string | undefined => {
    if (kind === 'logits') return 'window';
    if (kind === 'scores') return 'scores';
    if (kind === 'window') return undefined;
    const stage = sources.find((source) => source.path === path)?.stage;
    return kind === 'prepared' ? stage : stageAfter(stage);
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
