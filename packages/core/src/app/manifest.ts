import { LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { TomaatError } from '../errors.ts';
import { infererSchema } from '../inferers/inferer.ts';
import { acceptanceSchema, resultCheckSchema } from './acceptance.ts';
import {
  conditionsSchema,
  elementName,
  inputSchema,
  type Label,
  labelSchema,
  type Output,
  outputSchema,
} from './elements.ts';
import { checkConditions, checkSteps, stepSchema } from './steps.ts';
import { parseParameters } from './values.ts';

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
] as const;

/** What a query says beside the parameters of an app: no input has such a name. */
export const requestWords = ['frame', 'service', 'format', 'output'] as const;

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
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, 'must be 64 lower-case hexadecimal digits');
const when = conditionsSchema.optional().describe('Use this one only with these values of parameters');

const modelSchema = z.discriminatedUnion('runtime', [
  z.strictObject({
    runtime: z.literal('onnx'),
    when,
    file: insideFolder,
    sha256: sha256.describe('Of the file: the model is loaded only if it matches'),
    input: z.string().optional().describe('Name of the graph’s input; its only one if missing'),
    output: z.string().optional().describe('Name of the graph’s output; its first one if missing'),
    channels: z
      .array(elementName)
      .min(1)
      .optional()
      .describe('The volume inputs that become the channels, in this order; the first volume if missing'),
    inferer: infererSchema.prefault({ type: 'simple' }),
    threads: z.int().min(1).max(256).optional().describe('All of the machine’s if missing'),
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
  }),
]);
export type ModelSpec = z.infer<typeof modelSchema>;

export const manifestSchema = z
  .strictObject({
    schemaVersion: z.literal(1).describe('Version of this schema'),
    id: slug.describe('Name of the service in addresses'),
    name: z.string().min(1).max(200).describe('What people call it'),
    description: z.string().min(1).max(4000).describe('What it does, for its card'),
    version: z.string().min(1).max(40).describe('Of the app; it stands in results and cards'),
    modality: z.string().min(1).max(40).describe('MRI, CT, PET, US … or any'),
    anatomy: slug.describe('Second word of the address /task/anatomy'),
    task: notReserved.describe(
      'First word of the address /task/anatomy, such as segmentation; no reserved word',
    ),
    default: z.boolean().default(false).describe('Whether task/anatomy alone means this app'),
    authors: z.array(z.string().min(1)).min(1).describe('Who made it'),
    licence: z.string().min(1).describe('Of the weights and the code, as SPDX names it where it can'),
    citation: z.string().optional().describe('What to cite when results are published'),
    homepage: z.url().optional().describe('Where to read more'),
    intendedUse: z.string().min(1).max(4000).describe('What it was made for, and what not'),
    limitations: z.string().max(4000).optional().describe('Where it is known to fail'),
    inputs: z.record(elementName, inputSchema).describe('What a caller sends: files and parameters'),
    preprocess: z
      .array(stepSchema)
      .default([])
      .describe('Steps from the volume as it came to what the model takes'),
    model: z.union([modelSchema.transform((model) => [model]), z.array(modelSchema).min(1)]),
    postprocess: z.array(stepSchema).default([]).describe('Steps from what the model gives to the label map'),
    outputs: z
      .record(elementName, outputSchema)
      .describe('What a caller gets; the first LabelVolume, else the first, is primary'),
    labels: z.array(labelSchema).default([]).describe('What the values of the label maps mean'),
    acceptance: z.array(acceptanceSchema).default([]).describe('Rules that an input volume has to meet'),
    resultChecks: z
      .array(resultCheckSchema)
      .default([])
      .describe('Rules that a result has to meet before it is handed out'),
    sample: insideFolder.optional().describe('A volume to try the service with'),
    selftest: z
      .strictObject({
        inputs: z.record(z.string(), insideFolder),
        parameters: z.record(z.string(), z.unknown()).default({}),
        expected: insideFolder.describe('The label map that must come out'),
        dice: z.number().min(0).max(1).default(0.99).describe('The least Dice, over each label'),
      })
      .optional(),
    limits: z
      .strictObject({
        seconds: z.number().positive().max(86_400).default(1800).describe('Longest time of one prediction'),
        concurrency: z
          .int()
          .min(1)
          .optional()
          .describe('Most predictions of this app at a time; as many as the server runs if missing'),
        memoryMb: z
          .int()
          .min(256)
          .optional()
          .describe('Most memory of the process that computes, MB (10^6 bytes)'),
      })
      .prefault({}),
  })
  .superRefine((manifest, context) => {
    const fault = (path: (string | number)[], message: string) =>
      context.addIssue({ code: 'custom', path, message });
    for (const kind of ['preprocess', 'postprocess'] as const) {
      for (const { path, message } of checkSteps(manifest[kind], kind, manifest.inputs))
        fault([kind, ...path], message);
    }
    const volumes = Object.entries(manifest.inputs).flatMap(([name, input]) =>
      input.type === 'volume' ? [name] : [],
    );
    if (Object.keys(manifest.outputs).length === 0) fault(['outputs'], 'an app has at least one output');
    manifest.model.forEach((model, index) => {
      const at = manifest.model.length > 1 ? ['model', index] : ['model'];
      for (const { path, message } of checkConditions(model.when, manifest.inputs))
        fault([...at, ...path], message);
      if (model.runtime !== 'onnx') {
        const used = manifest.postprocess.filter((step) => ['argmax', 'threshold'].includes(step.name));
        if (used.length > 0)
          fault(['postprocess'], `${used[0].name} needs class scores, which only the onnx runtime gives`);
        return;
      }
      if (volumes.length === 0) fault(['inputs'], 'an onnx model needs a volume');
      for (const name of model.channels ?? []) {
        if (!volumes.includes(name)) fault([...at, 'channels'], `${name} is no volume input`);
      }
      const scores = manifest.postprocess.filter((step) => ['argmax', 'threshold'].includes(step.name));
      if (scores.length > 1) fault(['postprocess'], 'argmax or threshold comes once');
    });
    if (manifest.postprocess.filter((step) => step.name === 'restore').length > 1) {
      fault(['postprocess'], 'restore comes once');
    }
    for (const [name, output] of Object.entries(manifest.outputs)) {
      if (Object.hasOwn(manifest.inputs, name)) fault(['outputs', name], 'has the name of an input');
      const from = 'from' in output ? output.from : undefined;
      if (from !== undefined && manifest.outputs[from]?.type !== 'LabelVolume') {
        fault(['outputs', name, 'from'], `${from} is no output of type LabelVolume`);
      }
    }
    manifest.labels.forEach((label, index) => {
      for (const { path, message } of checkConditions(label.when, manifest.inputs))
        fault(['labels', index, ...path], message);
      const before = manifest.labels.slice(0, index).filter(({ value }) => value === label.value);
      if (before.some((other) => canMeet(other, label)))
        fault(['labels', index, 'value'], `${label.value} is there twice`);
    });
    manifest.acceptance.forEach((rule, index) => {
      if (rule.input !== undefined && !volumes.includes(rule.input)) {
        fault(['acceptance', index, 'input'], `${rule.input} is no volume input`);
      }
    });
    for (const name of Object.keys(manifest.inputs)) {
      if ((requestWords as readonly string[]).includes(name)) {
        fault(['inputs', name], `is a word of requests (${requestWords.join(', ')}): choose another name`);
      }
    }
    if (manifest.selftest) {
      if (manifest.outputs[primaryOutput(manifest)]?.type !== 'LabelVolume') {
        fault(['selftest'], 'needs a primary output of type LabelVolume');
      }
      try {
        parseParameters(manifest.inputs, manifest.selftest.parameters);
      } catch (error) {
        fault(['selftest', 'parameters'], (error as Error).message);
      }
      for (const name of Object.keys(manifest.selftest.inputs)) {
        if (!Object.hasOwn(manifest.inputs, name)) fault(['selftest', 'inputs', name], 'names no input');
      }
    }
  });
export type Manifest = z.infer<typeof manifestSchema>;

export interface ManifestFault {
  path: string;
  message: string;
  line?: number;
}

/** Reads a manifest. BAD_MANIFEST lists every fault with its path and line; `detail.faults` has them as data. */
export function parseManifest(text: string, fileName = 'tomaat.yaml'): Manifest {
  const lines = new LineCounter();
  // A key that is itself a map would be written out as its own name, the longer the deeper.
  const document = parseDocument(text, {
    lineCounter: lines,
    maxAliasCount: 20,
    stringKeys: true,
  } as Parameters<typeof parseDocument>[1]);
  if (document.errors.length > 0) {
    throw refuse(
      fileName,
      document.errors.map((error) => ({
        path: '(YAML)',
        message: error.code === 'NON_STRING_KEY' ? 'a key has to be text' : error.message.split('\n')[0],
        line: lines.linePos(error.pos[0]).line,
      })),
    );
  }
  let data: unknown;
  try {
    data = document.toJS({ maxAliasCount: 20 });
  } catch (error) {
    // An alias without an anchor, or one that would unfold into too much, shows only here.
    throw refuse(fileName, [{ path: '(YAML)', message: (error as Error).message.split('\n')[0] }]);
  }
  const result = manifestSchema.safeParse(data);
  if (result.success) return result.data;
  const lineOf = (path: readonly PropertyKey[]): number | undefined => {
    for (let length = path.length; length > 0; length--) {
      const node = document.getIn(path.slice(0, length), true) as
        | { range?: [number, number, number] }
        | undefined;
      if (node?.range) return lines.linePos(node.range[0]).line;
    }
    return undefined;
  };
  throw refuse(
    fileName,
    flatten(result.error.issues).map((issue) => ({
      path: issue.path.map(String).join('.') || '(whole file)',
      message: describe(issue),
      line: lineOf(issue.path),
    })),
  );
}

/** The name of the output that the promise returns: the first label map, else the first output. */
export function primaryOutput(manifest: { outputs: Readonly<Record<string, Output>> }): string {
  const names = Object.keys(manifest.outputs);
  return names.find((name) => manifest.outputs[name].type === 'LabelVolume') ?? names[0];
}

/** Whether both labels count with some values of the parameters: no parameter keeps them apart. */
function canMeet(a: Label, b: Label): boolean {
  return Object.entries(a.when ?? {}).every(([name, value]) => (b.when?.[name] ?? value) === value);
}

/** The names of the volume inputs, in order. */
export function volumeInputs(manifest: Pick<Manifest, 'inputs'>): string[] {
  return Object.keys(manifest.inputs).filter((name) => manifest.inputs[name].type === 'volume');
}

type Issue = z.core.$ZodIssue;

const kinds: Record<string, string> = {
  string: 'text',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
};

/** What an author understands: that a key is missing, that a word is not one of those that there are. */
function describe(issue: Issue): string {
  const wanted = 'expected' in issue ? (kinds[issue.expected] ?? issue.expected) : undefined;
  if (issue.code === 'invalid_type') {
    return /received undefined$/.test(issue.message) ? `is missing: it is ${wanted}` : `must be ${wanted}`;
  }
  if (issue.code === 'invalid_value') return `must be ${issue.values.map(String).join(' or ')}`;
  if (issue.code === 'unrecognized_keys')
    return `has the unknown key ${issue.keys.map((key) => key.slice(0, 100)).join(', ')}`;
  return issue.message.replace(/^Invalid discriminator value\. Expected (.*)$/, 'must be one of $1');
}

/** A union reports its branches' issues inside: the branch with the fewest is the one that was meant. */
function flatten(issues: readonly Issue[]): Issue[] {
  return issues.flatMap((issue) => {
    if (issue.code !== 'invalid_union' || issue.errors.length === 0) return [issue];
    const best = issue.errors.reduce((a, b) =>
      depth(b) > depth(a) || (depth(b) === depth(a) && b.length < a.length) ? b : a,
    );
    return flatten(best.map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] })));
  });
}

const depth = (issues: readonly Issue[]) => Math.max(0, ...issues.map((issue) => issue.path.length));

/** A file that is no manifest at all has a fault in every line. */
const maxShownFaults = 30;

function refuse(fileName: string, faults: ManifestFault[]): TomaatError {
  const shown = faults.slice(0, maxShownFaults);
  const more = faults.length > shown.length ? `\n  and ${faults.length - shown.length} more` : '';
  const list =
    shown.map((f) => `  ${f.line ? `line ${f.line}: ` : ''}${f.path}: ${f.message}`).join('\n') + more;
  return new TomaatError(
    'BAD_MANIFEST',
    `${fileName} has ${faults.length === 1 ? 'a fault' : `${faults.length} faults`}. Mend what is listed:\n${list}`,
    { detail: { faults } },
  );
}
