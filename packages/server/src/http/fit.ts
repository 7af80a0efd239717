import { type Fit, volumeFactsSchema } from '@tomaat/client';
import {
  acceptShape,
  checkAffine,
  defaultValue,
  type Input,
  isFileInput,
  type Parameter,
  TomaatError,
  type VolumeFactsOf,
  type VoxelType,
  voxelCount,
  voxelTypes,
  withField,
} from '@tomaat/core';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { App } from '../apps.ts';
import { readJson } from '../intake/read-json.ts';
import type { ServerContext } from './context.ts';
import { memoryNeed } from './memory-need.ts';

/**
 * `POST /api/services/{id}/fit`: whether a prediction fits, from the header of a volume alone, before any of it is
 * uploaded.
 */

/** The shape of its body. */
export const fitBodySchema = z.strictObject({ inputs: z.record(z.string(), volumeFactsSchema) });
const maxBodyBytes = 65_536;
type Facts = z.output<typeof volumeFactsSchema>;

export function registerFit(app: FastifyInstance, context: ServerContext): void {
  app.post<{ Params: { id: string } }>('/api/services/:id/fit', async (request) => {
    const service = context.services.find(request.params.id);
    const { inputs } = await readJson(request, fitBodySchema, {
      maxBytes: maxBodyBytes,
      hint: 'Send { "inputs": { "volume": { "size": [x, y, z] } } }.',
    });
    requireVolumes(service, inputs);
    return fit(service, inputs, context);
  });
}

function requireVolumes(app: App, inputs: Record<string, Facts>): void {
  const volumes = Object.keys(app.manifest.inputs).filter(
    (name) => app.manifest.inputs[name].type === 'volume',
  );
  for (const name of Object.keys(inputs)) {
    if (volumes.includes(name)) continue;
    throw new TomaatError(
      'BAD_INPUT',
      `A name in the request is not a volume of this service. Its volumes are: ${volumes.join(', ') || 'none'}.`,
    );
  }
}

async function fit(app: App, inputs: Record<string, Facts>, context: ServerContext): Promise<Fit> {
  const { manifest } = app;
  const { jobs, maxVoxels, maxUploadBytes } = context;
  const shapes: Record<string, VolumeFactsOf> = {};
  for (const [name, facts] of Object.entries(inputs)) {
    const shape = shapeOf(facts, name, manifest.inputs[name]);
    shapes[name] = shape;
    const voxels = voxelCount(shape) * facts.frames;
    if (voxels > maxVoxels) {
      return {
        verdict: 'too big',
        reason: `${name} has ${voxels} voxels, and this server takes ${maxVoxels}. Crop or resample it.`,
      };
    }
    if (facts.sizeBytes !== undefined && facts.sizeBytes > maxUploadBytes) {
      return {
        verdict: 'too big',
        reason: `${name} is a file of ${facts.sizeBytes} bytes, and this server takes ${maxUploadBytes}. Compress it (.nii.gz) or crop it.`,
      };
    }
    // Without spacing only the rules on voxels can be checked.
    const rules =
      facts.spacing || facts.affine
        ? manifest.acceptance
        : manifest.acceptance.map((rule) => ({ ...rule, spacingMm: undefined, extentMm: undefined }));
    try {
      acceptShape(rules, name, shape);
    } catch (error) {
      if (!(error instanceof TomaatError && error.code === 'NOT_ACCEPTED')) throw error;
      return { verdict: 'not accepted', reason: error.message };
    }
  }
  const { neededMb, allowedMb, tooBig, windows, modelSize } = await memoryNeed(
    app,
    shapes,
    defaultsOf(app),
    context.memory,
  );
  const voxels = Math.max(0, ...Object.values(shapes).map((shape) => voxelCount(shape) * shape.components));
  const facts = {
    neededMb,
    allowedMb,
    windows,
    expectedSeconds: await jobs.expectedSeconds(manifest.id, voxels),
    expectedWaitSeconds: await jobs.expectedWaitSeconds(undefined, manifest.id, context.slots),
  };
  const size = modelSize.join(' × ');
  if (tooBig !== undefined) return { verdict: 'too big', reason: tooBig, ...facts };
  if (windows > 1)
    return { verdict: 'tiled', reason: `${size} voxels are processed in ${windows} windows.`, ...facts };
  return { verdict: 'fits', reason: `${size} voxels are processed at once.`, ...facts };
}

function shapeOf(
  { size, spacing = [1, 1, 1], affine, components, frames, voxelType = 'float32' }: Facts,
  name: string,
  input: Input,
): VolumeFactsOf {
  const [x, y, z] = spacing;
  if (!(voxelTypes as readonly string[]).includes(voxelType)) {
    throw new TomaatError(
      'BAD_INPUT',
      `${voxelType} is not a voxel type. Available: ${voxelTypes.join(', ')}.`,
      { field: `inputs.${name}.voxelType` },
    );
  }
  return {
    size,
    affine: placeOf(
      affine ?? [x, 0, 0, 0, 0, y, 0, 0, 0, 0, z, 0, 0, 0, 0, 1],
      name,
      affine ? 'affine' : 'spacing',
    ),
    components: components * (input.type === 'volume' && input.frames === 'all' ? frames : 1),
    voxelType: voxelType as VoxelType,
  };
}

function placeOf(affine: readonly number[], name: string, key: 'affine' | 'spacing'): readonly number[] {
  try {
    return checkAffine(affine, `The ${key} of ${name}`);
  } catch (error) {
    throw withField(error, `inputs.${name}.${key}`);
  }
}

/** The default values of parameters. */
function defaultsOf({ manifest }: App): Record<string, Parameter> {
  return Object.fromEntries(
    Object.entries(manifest.inputs).flatMap(([name, input]) => {
      const value = isFileInput(input) ? undefined : defaultValue(input);
      return value === undefined ? [] : [[name, value]];
    }),
  );
}
