import { stat } from 'node:fs/promises';
import {
  type Estimate,
  estimatePrediction,
  hasOwnNetworks,
  isFileSpec,
  isNetworkSpec,
  largestThatFits,
  type ModelSpec,
  modelsFor,
  type Parameter,
  type Size,
  TomaatError,
  type VolumeFactsOf,
  voxelCount,
} from '@tomaat/core';
import { type App, appFile } from '../apps.ts';
import type { MemoryPolicy } from '../worker/memory-limit.ts';
import { howToRaise } from '../worker/out-of-memory.ts';
import { runBytesOf } from '../worker/run-bytes.ts';

/** The memory that a prediction needs, compared with what it may use. */
export interface MemoryNeed extends Estimate {
  readonly neededMb: number;
  /** Undefined where there is no limit. */
  readonly allowedMb?: number;
  /** Why it does not fit, what would, and what to do; undefined if it fits. */
  readonly tooBig?: string;
  /** The size of the largest volume, with its name, that would fit; only if this one does not. */
  readonly largest?: { readonly name: string; readonly size?: Size };
}

/** The memory that a prediction on volumes of these shapes needs, from their headers alone. */
export async function memoryNeed(
  app: App,
  volumes: Readonly<Record<string, VolumeFactsOf>>,
  parameters: Readonly<Record<string, Parameter>>,
  memory: MemoryPolicy,
): Promise<MemoryNeed> {
  const { manifest } = app;
  const modelBytes = await modelBytesOf(app, parameters);
  const estimate = estimatePrediction(manifest, volumes, parameters, modelBytes, runBytesOf);
  const neededMb = Math.round(estimate.neededBytes / 1e6);
  const limit = memory(app);
  const allowedMb = limit?.memoryMb;
  const card = hasOwnNetworks(manifest) ? memory.card : undefined;
  const cardMb = Math.round(estimate.networkBytes / 1e6);
  const fitsProcess = allowedMb === undefined || neededMb <= allowedMb;
  const fitsCard = card === undefined || cardMb <= card.memoryMb;
  const names = Object.keys(volumes).sort((a, b) => voxelCount(volumes[b]) - voxelCount(volumes[a]));
  if ((fitsProcess && fitsCard) || names.length === 0) return { ...estimate, neededMb, allowedMb };
  const [name] = names;
  const fitting = largestThatFits(manifest, volumes, parameters, {
    modelBytes,
    runBytesOf,
    allowedBytes: allowedMb === undefined ? undefined : allowedMb * 1e6,
    deviceBytes: card && card.memoryMb * 1e6,
  });
  const size = fitting?.[name];
  const shown = (sizes: readonly number[]) => sizes.join(' × ');
  const needs = fitsProcess
    ? `about ${cardMb} MB of the memory of ${card!.title}, of which ${card!.memoryMb} MB are free for it`
    : `about ${neededMb} MB of memory, and ${allowedMb} MB may be used`;
  const remedy = fitsProcess ? 'for a card with more memory, or for --device cpu' : howToRaise(limit);
  const wouldFit = size
    ? `About ${shown(size)} voxels would fit. Crop or resample the volume, or ask the operator`
    : 'No volume would fit. Ask the operator';
  return {
    ...estimate,
    neededMb: fitsProcess ? cardMb : neededMb,
    allowedMb: fitsProcess ? card!.memoryMb : allowedMb,
    tooBig: `A volume of ${shown(volumes[name].size)} voxels needs ${needs}. ${wouldFit} ${remedy}.`,
    largest: { name, size },
  };
}

/** Throws TOO_MANY_VOXELS if a prediction would need more memory than it may use. */
export async function requireMemory(...about: Parameters<typeof memoryNeed>): Promise<void> {
  const { tooBig, neededMb, allowedMb, largest } = await memoryNeed(...about);
  if (tooBig === undefined) return;
  throw new TomaatError('TOO_MANY_VOXELS', tooBig, {
    field: largest?.name,
    detail: { neededMb, allowedMb, fittingSize: largest?.size },
  });
}

const modelSizes = new WeakMap<ModelSpec, Promise<number>>();

/** Size of all networks that run here with these parameters, each looked up once: a child keeps what it has loaded. */
async function modelBytesOf(app: App, parameters: Readonly<Record<string, Parameter>>): Promise<number> {
  const sizes = modelsFor(app.manifest, parameters).map((spec) => {
    const known = modelSizes.get(spec) ?? sizeOfModel(app, spec);
    modelSizes.set(spec, known);
    known.catch(() => modelSizes.delete(spec));
    return known;
  });
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

async function sizeOfModel(app: App, spec: ModelSpec): Promise<number> {
  return isNetworkSpec(spec) && isFileSpec(spec) ? (await stat(await appFile(app, spec.file))).size : 0;
}
