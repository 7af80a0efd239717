import { z } from 'zod';
import { infererSchema } from '../inferers/spec.ts';
import { acceptanceSchema, resultCheckSchema } from './acceptance.ts';
import {
  checkInput,
  conditionsSchema,
  elementName,
  inputSchemas,
  labelSchema,
  type Output,
  outputSchema,
} from './elements.ts';
import { type ModelServerAddress, modelServerUrlSchema, parseModelServer } from './model-server.ts';
import { paritySchema } from './parity.ts';
import { stepSchema } from './step.ts';

/** The app manifest `tomaat.yaml`: everything that makes a folder a service. One schema, every fault named. */

/** First words of addresses that a task may not take. */
export const reservedWords = [
  'api',
  'services',
  'health',
  'metrics',
  'auth',
  'infer',
  'session',
  'datastore',
  'train',
  'info',
  'interface',
  'predict',
  'responses',
  'announce',
  'discover',
  'dicom-web',
  'assets',
  'monailabel',
  'auto3dseg',
  'gateway',
  'hooks',
] as const;

/** Words of a query in addition to an app's parameters: no input may have such a name. */
export const requestWords = ['frame', 'series', 'service', 'format', 'formats', 'output'] as const;

/** What networks can be computed on: the processor, or a graphics card by one of two interfaces. */
export const deviceKinds = ['cpu', 'cuda', 'webgpu'] as const;
export type DeviceKind = (typeof deviceKinds)[number];

const slug = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,39}$/, 'must be one lower-case slug (letters, digits, -)');
const notReserved = slug.refine((word) => !(reservedWords as readonly string[]).includes(word), {
  message: `is a reserved word of the addresses (${reservedWords.join(', ')})`,
});
const insideFolder = z
  .string()
  .min(1)
  .max(200)
  .refine(
    (path) => !/^([/\\]|[a-z]:)|(^|[/\\])\.\.([/\\]|$)/i.test(path),
    'must be a path inside the app’s folder',
  );
const labelValue = z.int().min(1).max(65_535);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hexadecimal digits');
const when = conditionsSchema.optional().describe('Use this one only with these values of parameters');

/** The labels that another network has found, as channels of this one. */
const labelChannelsSchema = z.strictObject({
  labelsOf: slug.describe('The `id` of a network that is listed before this one'),
  values: z
    .array(labelValue)
    .min(1)
    .max(1000)
    .describe(
      'Values that this network gives: one channel for each, 1 where a voxel has the value, 0 elsewhere',
    ),
});

const mergeRuleSchema = z.strictObject({
  from: z
    .int()
    .min(1, 'is the background, which stays what it is. Remove this rule')
    .max(65_535)
    .describe('A value that this network gives'),
  to: z
    .int()
    .min(0)
    .max(65_535)
    .describe('The value of the app’s label map that it becomes; 0 drops it, as if it had no rule'),
});

/** A name on a model server: it becomes a part of addresses. */
const serverWord = z
  .string()
  .regex(/^[\w.-]{1,200}$/, 'must be a name of letters, digits, _, . and -')
  .refine((word) => word !== '.' && word !== '..', 'must be a name');

/** A name of a tensor on a model server, such as `scores:0` or `/head/Conv_output_0`: it is a part of messages alone. */
const tensorName = z
  .string()
  .regex(/^[\x20-\x7e]{1,200}$/, 'must be a name of 1 to 200 letters, digits and signs');

/** What core itself reads of a network. A variant whose runtime gives a network has these keys, all others have none of them. */
const networkKeys = {
  id: slug.optional().describe('Name of this network, for the labelsOf of another one'),
  channels: z
    .array(z.union([elementName, labelChannelsSchema]))
    .min(1)
    .optional()
    .describe(
      'What becomes the channels, in this order: volume inputs, and labels of a network listed before (`labelsOf`: its `id`; `values`: one channel for each, 1 where the network gives it, otherwise 0). The first volume if missing',
    ),
  preprocess: z
    .array(stepSchema)
    .optional()
    .describe('Steps of this network alone, after those of the manifest’s `preprocess`'),
  postprocess: z
    .array(stepSchema)
    .optional()
    .describe('Steps of this network alone, before those of the manifest’s `postprocess`'),
  merge: z
    .array(mergeRuleSchema)
    .min(1)
    .max(4096)
    .optional()
    .describe(
      'The values of this network in the label map of the app; others are dropped. All networks with this key run, in their order, and a later label overwrites an earlier one',
    ),
  inferer: infererSchema.prefault({ type: 'simple' }),
};

const modelSchema = z.discriminatedUnion('runtime', [
  z.strictObject({
    runtime: z.literal('onnx'),
    when,
    file: insideFolder,
    sha256: sha256.describe('Of the file: the model is loaded only if it matches'),
    input: z.string().optional().describe('Name of the graph’s input; its only one if missing'),
    output: z.string().optional().describe('Name of the graph’s output; its first one if missing'),
    ...networkKeys,
    threads: z.int().min(1).max(256).optional().describe('All of the machine’s if missing'),
    rewrite: z
      .boolean()
      .optional()
      .describe(
        'Whether operators may be computed in a faster form that gives the same labels (decision 0009); true if missing',
      ),
  }),
  z.strictObject({
    runtime: z.literal('oip'),
    when,
    url: modelServerUrlSchema,
    model: serverWord.describe('Name of the model on the server'),
    version: serverWord.optional().describe('Version of the model; the server chooses if missing'),
    input: tensorName.optional().describe('Name of the model’s input; its only one if missing'),
    output: tensorName.optional().describe('Name of the model’s output; its first one if missing'),
    ...networkKeys,
    timeoutSeconds: z
      .number()
      .positive()
      .max(86_400)
      .optional()
      .describe('Longest time of one call; `limits.seconds` if missing'),
  }),
  z.strictObject({
    runtime: z.literal('module'),
    when,
    file: insideFolder,
    sha256: sha256.optional(),
  }),
  z.strictObject({
    runtime: z.literal('command'),
    when,
    command: z
      .array(z.string().min(1))
      .min(1)
      .describe('Program and arguments; run in the app’s folder, never by a shell'),
    environment: z.record(z.string(), z.string()).optional(),
    serve: z
      .boolean()
      .optional()
      .describe(
        'Whether the program is started once and kept: it takes a request a line on its stdin and answers each on its stdout',
      ),
  }),
]);
export type ModelSpec = z.infer<typeof modelSchema>;
/** A model that core drives: one tensor in, one out. */
export type NetworkSpec = Extract<ModelSpec, { inferer: unknown }>;
/** What a table of `merge` says of one value. */
export type MergeRule = z.infer<typeof mergeRuleSchema>;
/** A model that turns inputs into outputs by itself. */
export type ProgramSpec = Exclude<ModelSpec, NetworkSpec>;

export const isNetworkSpec = (spec: ModelSpec): spec is NetworkSpec => 'inferer' in spec;

/** A network on a model server. */
export type ServedSpec = Extract<ModelSpec, { runtime: 'oip' }>;
/** A model that is a file of the app. */
export type FileSpec = Extract<ModelSpec, { file: string }>;
export const isFileSpec = (spec: ModelSpec): spec is FileSpec => 'file' in spec;

/** The model servers that an app uses, each once. */
export function modelServersOf({ model }: { model: readonly ModelSpec[] }): ModelServerAddress[] {
  const urls = new Set(model.flatMap((spec) => (spec.runtime === 'oip' ? [spec.url] : [])));
  return [...urls].map((url) => parseModelServer(url)!);
}

/** An input: what callers see of it, and the steps that they do not. */
const manifestInputSchema = z
  .discriminatedUnion('type', [
    inputSchemas.volume.extend({
      preprocess: z
        .array(stepSchema)
        .optional()
        .describe(
          'Steps of this volume alone, before those of the manifest’s `preprocess`; a network’s channels are stacked in between, on the grid of the first one',
        ),
    }),
    inputSchemas.slider,
    inputSchemas.checkbox,
    inputSchemas.radiobutton,
    inputSchemas.fiducials,
    inputSchemas.transform,
  ])
  .superRefine(checkInput);

const selfTestSchema = z.strictObject({
  inputs: z.record(z.string(), insideFolder),
  parameters: z.record(z.string(), z.unknown()).default({}),
  expected: insideFolder.describe('The expected label map'),
  dice: z.number().min(0).max(1).default(0.99).describe('The least Dice, over each label'),
  agree: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .describe('The least fraction of voxels with equal labels; 1 if none may differ'),
});
/** A case with the expected result. */
export type SelfTest = z.infer<typeof selfTestSchema>;

/** Where the networks of an app may run. */
export const computePolicies = ['server', 'anywhere', 'caller'] as const;
export type ComputePolicy = (typeof computePolicies)[number];

export const manifestSchema = z.strictObject({
  schemaVersion: z.literal(1).describe('Version of this schema'),
  id: slug.describe('Name of the service in addresses'),
  name: z.string().min(1).max(200).describe('Name for people'),
  description: z.string().min(1).max(4000).describe('What it does; shown on its card'),
  version: z.string().min(1).max(40).describe('Version of the app; shown in results and cards'),
  modality: z.string().min(1).max(40).describe('MRI, CT, PET, US … or any'),
  anatomy: slug.describe('Second word of the address /task/anatomy'),
  task: notReserved.describe(
    'First word of the address /task/anatomy, such as segmentation; not a reserved word',
  ),
  default: z.boolean().default(false).describe('Whether task/anatomy alone selects this app'),
  authors: z.array(z.string().min(1)).min(1).describe('Who made it'),
  licence: z.string().min(1).describe('Of the weights and the code, as SPDX names it where it can'),
  citation: z.string().optional().describe('What to cite when results are published'),
  homepage: z.url().optional().describe('Where to read more'),
  intendedUse: z.string().min(1).max(4000).describe('What it was made for, and what it was not made for'),
  limitations: z.string().max(4000).optional().describe('Where it is known to fail'),
  inputs: z.record(elementName, manifestInputSchema).describe('What a caller sends: files and parameters'),
  preprocess: z
    .array(stepSchema)
    .default([])
    .describe('Steps from the original volume to the input of the model'),
  model: z.union([modelSchema.transform((model) => [model]), z.array(modelSchema).min(1)]),
  postprocess: z
    .array(stepSchema)
    .default([])
    .describe('Steps from the output of the model to the label map'),
  compute: z
    .enum(computePolicies)
    .default('server')
    .describe(
      'Where predictions run: `server`, the weights never leave it; `anywhere`, also in the page of a caller, who can then fetch the weights and this manifest; `caller`, there alone, and the server refuses scans. The last two need networks in ONNX files',
    ),
  outputs: z
    .record(elementName, outputSchema)
    .describe('What a caller receives; the first LabelVolume, otherwise the first output, is primary'),
  labels: z.array(labelSchema).default([]).describe('What the values of the label maps mean'),
  acceptance: z.array(acceptanceSchema).default([]).describe('Rules that an input volume must meet'),
  resultChecks: z
    .array(resultCheckSchema)
    .default([])
    .describe('Rules that a result must meet before it is returned'),
  sample: insideFolder.optional().describe('A volume to try the service with'),
  picture: insideFolder
    .optional()
    .describe(
      'A picture of a result, which the card shows: PNG, JPEG or WebP, at most 200 kB and 1024 × 1024 pixels; twice as wide as high suits best',
    ),
  selftest: z
    .union([selfTestSchema.transform((test) => [test]), z.array(selfTestSchema).min(1)])
    .optional()
    .describe('Cases with the expected results, which `tomaat check` runs: one, or a list'),
  parity: paritySchema
    .optional()
    .describe('How the results agree with those of the author’s own pipeline; shown on the card'),
  devices: z
    .array(z.enum(deviceKinds))
    .min(1)
    .refine((kinds) => new Set(kinds).size === kinds.length, 'names a device twice. Remove one')
    .optional()
    .describe(
      'The devices on which the author has compared the results of its networks: `cpu`, `cuda`, `webgpu`. `cpu` if missing. An operator may compute on another one, which the card, the log and the receipt then say',
    ),
  limits: z
    .strictObject({
      seconds: z.number().positive().max(86_400).default(1800).describe('Longest time of one prediction'),
      concurrency: z
        .int()
        .min(1)
        .optional()
        .describe('Most concurrent predictions of this app; as many as the server runs if missing'),
      memoryMb: z
        .int()
        .min(256)
        .optional()
        .describe(
          'Most memory of the process that computes, MB (10^6 bytes), as `ulimit -d` counts it: about 700 MB go to Node itself. If missing, the operator’s `memoryMb`, or a share of the machine’s',
        ),
    })
    .prefault({}),
});
export type Manifest = z.infer<typeof manifestSchema>;

/** The devices on which the author of an app has compared its results. */
export const verifiedDevices = ({ devices }: Pick<Manifest, 'devices'>): readonly DeviceKind[] =>
  devices ?? ['cpu'];

/** Whether a device matters to an app: one of its networks is computed here, not on a model server or by a program. */
export const hasOwnNetworks = ({ model }: { model: readonly ModelSpec[] }): boolean =>
  model.some(({ runtime }) => runtime === 'onnx');

/** The name of the output that the promise returns: the first label map, else the first output. */
export function primaryOutput(manifest: { outputs: Readonly<Record<string, Output>> }): string {
  const names = Object.keys(manifest.outputs);
  return names.find((name) => manifest.outputs[name].type === 'LabelVolume') ?? names[0];
}

/** The names of the volume inputs, in order. */
export function volumeInputs(manifest: Pick<Manifest, 'inputs'>): string[] {
  return Object.keys(manifest.inputs).filter((name) => manifest.inputs[name].type === 'volume');
}
