/**
 * The cost of what nnU-Net's and MONAI's steps add to a prediction: cubic resampling of thick slices with `fit` and
 * `separate`, probabilities, and the way of the scores back through the fit. The same volume and network with plain cubic
 * resampling and no probabilities is the measure; both alternate in this process. The network is that of apps/brain (11 classes),
 * in windows; the grids have the same sizes.
 */
import { join } from 'node:path';
import {
  collectBytes,
  parseManifest,
  predict,
  sourceFromBytes,
  type Volume,
  writeVolume,
} from '@tomaat/core';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { openOnnxSession } from '../packages/server/src/runtimes/onnx.ts';
import { repository } from './processes.ts';
import { type BenchOptions, type BenchResult, inTurn, median } from './report.ts';

const plain = { spacing: { pixdim: [1.6, 1.6, 4], mode: 'cubic' } };
const fit = { spacing: { ...plain.spacing, fit: true, separate: 'auto' } };

const manifest = (spacing: object, postprocess: readonly string[]) =>
  parseManifest(
    JSON.stringify({
      schemaVersion: 1,
      id: 'head',
      name: 'Head',
      description: 'Tissues of a head.',
      version: '1',
      modality: 'MRI',
      anatomy: 'head',
      task: 'segmentation',
      authors: ['The TOMAAT authors'],
      licence: 'Apache-2.0',
      intendedUse: 'Measuring what steps cost.',
      inputs: { volume: { type: 'volume' } },
      preprocess: [{ orientation: { axcodes: 'RAS' } }, 'normalizeIntensity', spacing],
      model: {
        runtime: 'onnx',
        file: 'brain.onnx',
        sha256: '0'.repeat(64),
        inferer: {
          type: 'slidingWindow',
          roiSize: [64, 64, 32],
          overlap: 0.5,
          mode: 'gaussian',
          stepping: 'nnunet',
        },
      },
      postprocess,
      outputs: { segmentation: { type: 'LabelVolume' } },
    }),
  );

/** Slices of 5 mm: 0.8 × 0.8 × 5 mm, 256 × 256 × 36 voxels. */
function head(): Volume {
  const [nx, ny, nz] = [256, 256, 36];
  const voxels = Int16Array.from({ length: nx * ny * nz }, (_, i) => {
    const [x, y, z] = [i % nx, Math.floor(i / nx) % ny, Math.floor(i / nx / ny)];
    const r = Math.hypot((x - 128) / 100, (y - 120) / 110, (z - 18) / 15);
    return r < 1 ? 400 + 300 * Math.cos(r * 9) + 40 * Math.sin(x * 0.7) : 0;
  });
  const affine = [0.8, 0, 0, -100, 0, 0.8, 0, -90, 0, 0, 5, -80, 0, 0, 0, 1];
  return { voxels, size: [nx, ny, nz], components: 1, affine };
}

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const session = await openOnnxSession(join(repository, 'apps/brain/brain.onnx'), { threads: 2 });
  const bytes = await collectBytes(writeVolume(head(), 'nii', nodePlatform));
  const timed = async (spacing: object, postprocess: readonly string[]) => {
    const start = performance.now();
    const stages = await predict(
      manifest(spacing, postprocess),
      { files: { volume: [sourceFromBytes('head.nii', bytes)] }, parameters: {} },
      {
        platform: nodePlatform,
        load: async () => ({ kind: 'network', session }),
        write: async (output) => void (await collectBytes(output.bytes)),
      },
    );
    return { ms: performance.now() - start, own: stages.preprocess + stages.postprocess };
  };
  const without = () => timed(plain, ['restore', 'argmax']);
  const withSteps = () => timed(fit, ['softmax', 'restore', 'argmax']);
  await without();
  await withSteps();
  const pairs = await inTurn(quick ? 2 : 5, without, withSteps);
  await session.close();
  for (const [a, b] of pairs)
    console.log(
      `  plain ${a.ms.toFixed(0)} ms, of which steps ${a.own.toFixed(0)};  fit, separate, softmax ${b.ms.toFixed(0)} ms, ${b.own.toFixed(0)}`,
    );
  return {
    lines: [
      {
        point: 'fit, separate and softmax over plain cubic, a prediction',
        measured: median(pairs.map(([a, b]) => b.ms / a.ms)),
        target: 1.05,
      },
      {
        point: 'the same, what they add to its steps over the whole',
        measured: 1 + median(pairs.map(([a, b]) => (b.own - a.own) / a.ms)),
        target: 1.05,
      },
    ],
  };
}
