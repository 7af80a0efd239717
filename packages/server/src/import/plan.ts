import { TomaatError } from '@tomaat/core';
import { z } from 'zod';

/**
 * What `exporter.py plan` says of an author's folder, as it comes from the author's Python: checked here, translated by
 * translate.ts. Keys that are not used are let through, so that a plan can be kept as it was.
 */

/** A transform or inferer of MONAI: every argument with its value, defaults included; null where it was made by an expression. */
const monaiStepSchema = z.object({
  /** Where it stands in the config: `preprocessing#transforms#3`. */
  path: z.string().max(500),
  /** Its class: `monai.transforms.spatial.dictionary.Spacingd`. */
  target: z.string().max(500),
  arguments: z.record(z.string(), z.unknown()).nullable(),
  /**
   * Of own code: the value for each combination of channels that are 0 or 1, bit c of the index being channel c. Null where the
   * code is not such a function.
   */
  table: z.array(z.number()).max(256).nullable().optional(),
});
export type MonaiStep = z.infer<typeof monaiStepSchema>;

const count = z.int().min(1).max(4096);

const channelsOf = z.record(
  z.string(),
  z.looseObject({
    num_channels: z.unknown().optional(),
    modality: z.string().optional(),
    channel_def: z.record(z.string(), z.unknown()).nullish(),
  }),
);

/** `metadata.json` of a bundle: what the card takes from it. Authors' files leave out and change keys. */
const metadataSchema = z.looseObject({
  name: z.string().optional(),
  description: z.string().optional(),
  version: z.union([z.string(), z.number()]).optional(),
  authors: z.union([z.string(), z.array(z.string())]).optional(),
  intended_use: z.string().optional(),
  references: z.union([z.string(), z.array(z.string())]).optional(),
  network_data_format: z
    .looseObject({ inputs: channelsOf.optional(), outputs: channelsOf.optional() })
    .optional(),
});
export type BundleMetadata = z.infer<typeof metadataSchema>;

const versionsSchema = z.record(z.string(), z.string());

const monaiPlanSchema = z.object({
  kind: z.literal('monai'),
  config: z.string(),
  /** Channels that the network takes, and gives. */
  channels: count,
  classes: count,
  preprocessing: z.array(monaiStepSchema).max(500),
  postprocessing: z.array(monaiStepSchema).max(500),
  inferer: monaiStepSchema.nullable(),
  /** Whether the author computes in half precision on a GPU. */
  amp: z.boolean(),
  metadata: metadataSchema,
  versions: versionsSchema,
});
export type MonaiPlan = z.infer<typeof monaiPlanSchema>;

const axis = z.int().min(0).max(2);
const resamplingSchema = z.object({
  function: z.string().nullable(),
  arguments: z.record(z.string(), z.unknown()),
});

const nnunetPlanSchema = z.object({
  kind: z.literal('nnunet'),
  dataset: z.string(),
  configuration: z.string(),
  /** The configuration whose result this one needs as input: a cascade. */
  previousStage: z.string().nullable(),
  preprocessor: z.string(),
  trainer: z.string(),
  planner: z.string(),
  reader: z.string().nullable(),
  folds: z.array(z.union([z.int(), z.string()])).min(1),
  checkpoint: z.string(),
  channelNames: z.array(z.string()).min(1),
  classes: count,
  /** Of dataset.json: a value, or the values of a region. */
  labels: z.record(z.string(), z.union([z.int(), z.array(z.int())])),
  regionsClassOrder: z.array(z.int()).nullable(),
  /** mm, and voxels, of the axes in the network's order: with 2d the last two. */
  spacing: z.array(z.number().positive()).min(2).max(3),
  patchSize: z.array(z.int().min(1)).min(2).max(3),
  /** Which axis of z, y, x each of the network's is. */
  transposeForward: z.tuple([axis, axis, axis]),
  normalization: z.array(z.string()).min(1),
  useMaskForNorm: z.array(z.boolean()),
  intensity: z.record(
    z.string(),
    z.looseObject({
      mean: z.number(),
      std: z.number(),
      percentile_00_5: z.number(),
      percentile_99_5: z.number(),
    }),
  ),
  resampling: z.object({ data: resamplingSchema, probabilities: resamplingSchema }),
  /** Axes in the network's order that nnU-Net mirrors; null where the trainer did not. */
  mirrorAxes: z.array(axis).nullable(),
  versions: versionsSchema,
});
export type NnunetPlan = z.infer<typeof nnunetPlanSchema>;

const planSchema = z.discriminatedUnion('kind', [monaiPlanSchema, nnunetPlanSchema]);
export type Plan = z.infer<typeof planSchema>;

/** Checks a plan. BAD_REQUEST names its first fault: an author's file holds what this program does not know. */
export function parsePlan(data: unknown): Plan {
  const result = planSchema.safeParse(data);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new TomaatError(
    'BAD_REQUEST',
    `The folder's settings are not as expected: ${issue.path.join('.') || 'the whole'}: ${issue.message}. Correct the file that states it, or write the manifest by hand.`,
    { field: issue.path.join('.'), cause: result.error },
  );
}
