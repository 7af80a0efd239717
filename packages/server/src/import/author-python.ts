import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { TomaatError } from '@tomaat/core';
import { z } from 'zod';
import { type Plan, parsePlan } from './plan.ts';
import type { AuthorFolder } from './recognise.ts';

/*
 * The author's own Python, which reads the folder, exports the network and runs the author's pipeline: one program of ours,
 * `exporter.py`, started with a list of arguments. Nothing is installed, and no text becomes a command.
 */

const programOf = (name: string) => fileURLToPath(new URL(`../../python/${name}`, import.meta.url));

export interface PythonOptions {
  /** The program of Python: a path, or a name on the PATH. */
  readonly python: string;
  /** Whether nnU-Net mirrors windows. */
  readonly mirror: boolean;
  /** Where torch computes: the CPU if missing; `auto` takes a GPU if torch finds one. */
  readonly device?: string;
  /** Whether the pipeline becomes a program, and not steps of a manifest. */
  readonly program?: boolean;
  readonly signal: AbortSignal;
  onProgress(text: string): void;
}

/** A case: files in the order of the network's channels, and where the result goes. */
export interface ExporterCase {
  readonly inputs: readonly string[];
  readonly out: string;
}

const exportSchema = z.object({
  /** By which exporter of torch. */
  exporter: z.enum(['legacy', 'dynamo']),
  /** Whether the network takes windows of any size. */
  anySize: z.boolean(),
  /** Voxels along z, y, x, or rows and columns. */
  window: z.array(z.int().min(1)).min(2).max(3),
  /** Of onnxruntime from torch, and the largest score: of the image in which they differ most. */
  maxDifference: z.number(),
  maxScore: z.number(),
  /** The same of each image: noise at one size or two, and the middle of the case. */
  compared: z.array(z.object({ of: z.string(), maxDifference: z.number(), maxScore: z.number() })),
  tried: z.array(z.string()),
  /** What its author should know of the network: that it is another file than that of the config. */
  notes: z.array(z.string()).default([]),
});
export type ExportReport = z.infer<typeof exportSchema>;

const stageSchema = z.object({
  kind: z.enum(['prepared', 'window', 'logits', 'scores', 'after']),
  /** The author's step, as in `TranslationFault`. */
  path: z.string(),
  /** The class of the author's step. */
  target: z.string().default(''),
  file: z.string(),
  /** [C, z, y, x], float32. */
  dims: z.array(z.int().min(1)).length(4),
  /** Voxel to mm in RAS+, row-major. */
  affine: z.array(z.number()).length(16).optional(),
});
export type ExporterStage = z.infer<typeof stageSchema>;

const runSchema = z.object({
  /** How many voxels of each case were not whole numbers. */
  cases: z.array(z.object({ out: z.string(), fractional: z.int().min(0) })),
  /** Files that it read below the author's folder, or the one that holds it (nnU-Net), without the cases. */
  files: z.array(z.string()).default([]),
  /** Names of weights that it read elsewhere. */
  outside: z.array(z.string()).default([]),
  /** As torch names it: cpu, cuda. */
  device: z.string().optional(),
});
export type AuthorRun = z.infer<typeof runSchema>;

const environmentSchema = z.object({
  /** The folder of the environment, as Python's `sys.prefix`. */
  prefix: z.string(),
  /** The text of requirements.lock. */
  lock: z.string(),
  /** What of it pip alone cannot install elsewhere. */
  notes: z.array(z.string()),
});
export type Environment = z.infer<typeof environmentSchema>;

const dumpSchema = z.object({ folder: z.string(), stages: z.array(stageSchema) });

export async function readPlan(author: AuthorFolder, options: PythonOptions): Promise<Plan> {
  return parsePlan(await callExporter(author, 'plan', [], options));
}

/** Writes the network as ONNX. Its scores are torch's for noise, and for a window of the case whose files are given. */
export async function exportNetwork(
  author: AuthorFolder,
  out: string,
  inputs: readonly string[],
  options: PythonOptions,
): Promise<ExportReport> {
  const flags = ['--out', out, '--case', JSON.stringify({ inputs })];
  return exportSchema.parse(await callExporter(author, 'export', flags, options));
}

/**
 * Runs the author's own pipeline: a label map for each case, and how many of its voxels were fractions. With `float32` nnU-Net adds
 * its scores in float32 instead of float16.
 */
export async function runAuthor(
  author: AuthorFolder,
  cases: readonly ExporterCase[],
  options: PythonOptions & { readonly float32?: boolean },
): Promise<AuthorRun> {
  const list = cases.flatMap((one) => ['--case', JSON.stringify(one)]);
  const flags = options.float32 ? ['--float32'] : [];
  return runSchema.parse(await callExporter(author, 'run', [...list, ...flags], options));
}

/** Writes the volumes between the steps of the author's pipeline into the folder `out`. */
export async function dumpAuthor(
  author: AuthorFolder,
  one: ExporterCase,
  options: PythonOptions,
): Promise<ExporterStage[]> {
  return dumpSchema.parse(await callExporter(author, 'dump', ['--case', JSON.stringify(one)], options))
    .stages;
}

/** Where the author's environment lies, and which packages it holds. */
export async function readEnvironment(options: PythonOptions): Promise<Environment> {
  const { last, lastWords, code } = await runPython(options, [programOf('environment.py')]);
  options.signal.throwIfAborted();
  if (last?.type === 'result') return environmentSchema.parse(last.result);
  throw new TomaatError(
    'APP_FAILED',
    `${options.python} ended with code ${code} while it listed its packages${lastWords ? `: ${lastWords}` : ''}. Give the Python of the author’s environment with --python.`,
  );
}

const lineSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('progress'), text: z.string() }),
  z.object({ type: z.literal('fault'), code: z.string(), path: z.string(), text: z.string() }),
  z.object({ type: z.literal('result'), result: z.unknown() }),
]);
type Line = z.infer<typeof lineSchema>;

const mostOutputBytes = 64e6;
const stopAfterMs = 5000;
/** Variables that only TOMAAT's own processes may see. */
const ownVariables = /^(TOMAAT_|NODE_)/;

/** One call of the exporter. */
async function callExporter(
  author: AuthorFolder,
  command: string,
  more: readonly string[],
  options: PythonOptions,
): Promise<unknown> {
  const args = [programOf('exporter.py'), command, '--kind', author.kind, '--folder', author.folder];
  if (author.config !== undefined) args.push('--config', author.config);
  if (author.folds !== undefined) args.push('--folds', author.folds.join(','));
  if (options.mirror) args.push('--mirror');
  if (options.device !== undefined) args.push('--device', options.device);
  if (options.program) args.push('--program');
  const { last, lastWords, code } = await runPython(options, [...args, ...more]);
  options.signal.throwIfAborted();
  if (last?.type === 'result') return last.result;
  if (last?.type === 'fault') throw faultOf(last, author, options);
  throw new TomaatError(
    'APP_FAILED',
    `${options.python} ended with code ${code} while it ran “${command}”${lastWords ? `: ${lastWords}` : ''}. See that the author’s environment runs the model, and give its Python with --python.`,
  );
}

function faultOf(
  fault: Extract<Line, { type: 'fault' }>,
  author: AuthorFolder,
  { python, program }: PythonOptions,
): TomaatError {
  const { code, path, text } = fault;
  const library = author.kind === 'monai' ? 'monai' : 'nnunetv2';
  const packages = program ? `torch and ${library}` : `torch, ${library}, onnx and onnxruntime`;
  if (code === 'NO_PYTHON_PACKAGE')
    return new TomaatError(
      'BAD_INPUT',
      `${python} cannot import ${path} (${text}). Give the Python of the environment in which the model runs with --python; it needs ${packages}.`,
      { field: 'python' },
    );
  const isOfFolder = ['NO_WEIGHTS', 'CONFIG', 'WEIGHTS'].includes(code);
  const advice = code === 'EXPORT' ? ' --command makes an app that runs the author’s own Python.' : '';
  return new TomaatError(
    isOfFolder ? 'BAD_INPUT' : 'APP_FAILED',
    `${path}: ${text.replace(/\.$/, '')}.${advice}`,
    {
      field: path,
      detail: { fault: code },
    },
  );
}

async function runPython(options: PythonOptions, args: readonly string[]) {
  const { python, signal, onProgress } = options;
  signal.throwIfAborted();
  const child = spawn(python, args, {
    // A group of its own: what it starts ends with it, and Ctrl-C is dealt with here.
    detached: process.platform !== 'win32',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !ownVariables.test(name))),
  });
  const kill = (name: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(process.platform === 'win32' ? child.pid : -child.pid, name);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  };
  let timer: NodeJS.Timeout | undefined;
  const stop = () => {
    kill('SIGTERM');
    timer ??= setTimeout(() => kill('SIGKILL'), stopAfterMs);
  };
  signal.addEventListener('abort', stop, { once: true });
  let last: Line | undefined;
  let lastWords = '';
  let bytes = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > mostOutputBytes) kill('SIGKILL');
  });
  child.stderr.on('data', (chunk: Buffer) => {
    lastWords = (lastWords + chunk.toString('utf8')).slice(-2000);
  });
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (text) => {
    const line = parseLine(text);
    if (line?.type === 'progress') onProgress(line.text);
    else if (line) last = line;
  });
  try {
    const ended = new Promise<number | null>((settle, reject) => {
      child.once('error', reject);
      child.once('close', settle);
    });
    const code = await ended.catch((error: NodeJS.ErrnoException) => {
      throw new TomaatError(
        'BAD_INPUT',
        `${python} cannot be started (${error.code}). Give the Python in which the author’s model runs with --python.`,
        { field: 'python', cause: error },
      );
    });
    const words = lastWords.trim().split('\n').at(-1)?.trim() ?? '';
    return { last, lastWords: words.slice(0, 500), code };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
    lines.close();
  }
}

function parseLine(text: string): Line | undefined {
  let data: unknown;
  try {
    data = JSON.parse(text);
  } catch {
    return undefined; // Not ours: what a library wrote to the descriptor itself.
  }
  const result = lineSchema.safeParse(data);
  return result.success ? result.data : undefined;
}
