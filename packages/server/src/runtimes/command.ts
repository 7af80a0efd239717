import { spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { access, constants, mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { delimiter, join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import {
  endingOf,
  type InputValue,
  type ModelSpec,
  type Output,
  type OutputValue,
  parseMeasurementsCsv,
  parsePoints,
  readMesh,
  readTransform,
  readVolume,
  type SourceFile,
  type SpatialTransform,
  TomaatError,
  type Volume,
  withoutVolumeEnding,
  writeTransform,
  writeVolume,
} from '@tomaat/core';
import { nodePlatform } from '../node-platform.ts';
import { EndedBySignal, stopSignalOf } from './ended-by-signal.ts';
import type { Runtime } from './runtime.ts';

/**
 * Any program as a model: it gets the folders `input` and `output` and the file `params.json`, as the last
 * three arguments and as TOMAAT_INPUT, TOMAAT_OUTPUT and TOMAAT_PARAMS. A line `{"fraction":0.4,"stage":"…"}`
 * on its stdout is progress, every other line goes to the log. Exit code 0: done; 2: the caller's error, the
 * last line of stderr says why; any other: it failed.
 */
export const commandRuntime: Runtime<Extract<ModelSpec, { runtime: 'command' }>> = {
  name: 'command',
  description: 'Any program: a folder in, a folder out, progress lines on stdout',
  async open(app, spec, { folder, signal, onSpawn, onExit }) {
    return {
      kind: 'program',
      async run(inputs, context) {
        const paths = {
          input: join(folder, 'input'),
          output: join(folder, 'output'),
          params: join(folder, 'params.json'),
        };
        await mkdir(paths.input, { recursive: true });
        await mkdir(paths.output, { recursive: true });
        await writeInputs(inputs, paths.input);
        await writeFile(paths.params, JSON.stringify(context.parameters));
        await runProgram(
          spec,
          app.folder,
          paths,
          { signal, onSpawn, onExit },
          (fraction, stage) => context.progress(fraction, stage),
          (text) => context.log(text),
        );
        const outputs = await readOutputs(app.manifest.outputs, paths.output);
        await rm(paths.input, { recursive: true });
        await rm(paths.output, { recursive: true });
        return outputs;
      },
    };
  },
};

/**
 * The path of an app's program: relative to the app's folder if its name has a slash, otherwise on the PATH.
 * @throws {TomaatError} BAD_MANIFEST if the program does not exist
 */
export async function findProgram(
  { command: [program], environment }: Extract<ModelSpec, { runtime: 'command' }>,
  folder: string,
): Promise<string> {
  const places = program.includes('/')
    ? [resolve(folder, program)]
    : (environment?.PATH ?? process.env.PATH ?? '')
        .split(delimiter)
        .map((place) => resolve(folder, place, program));
  for (const path of places) {
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {
      // The next one.
    }
  }
  throw new TomaatError(
    'BAD_MANIFEST',
    program.includes('/')
      ? `The program ${program} is not in the app’s folder, or is not executable. Put it there, and run chmod +x on it.`
      : `The program ${program} is not on the PATH of this machine. Install it, or write its path into model.command.`,
    { field: 'model.command' },
  );
}

async function writeInputs(inputs: Readonly<Record<string, InputValue>>, folder: string): Promise<void> {
  for (const [name, value] of Object.entries(inputs)) {
    if (typeof value !== 'object' || Array.isArray(value)) continue; // A parameter: it is in params.json.
    if ('voxels' in value) {
      await save(
        join(folder, `${name}.nii.gz`),
        writeVolume(value as Volume, 'nii.gz', nodePlatform, { level: 1 }),
      );
    } else {
      const transform = value as SpatialTransform;
      const extension = transform.kind === 'linear' ? 'mat' : transform.kind === 'grid' ? 'nii.gz' : 'h5';
      await save(join(folder, `${name}.${extension}`), writeTransform(transform, extension, nodePlatform));
    }
  }
}

async function save(path: string, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  await using file = await open(path, 'wx', 0o600);
  await file.writeFile(bytes); // Continues after a partial write.
}

const stopAfterMs = 5000;
/** How long to wait for the end of the output once the program itself has ended. */
const drainMs = 1000;
const maxLineLength = 2000;
/** Variables that only the server may see: its settings, including keys, and its channel to this process. */
const ownVariables = /^(TOMAAT_|NODE_CHANNEL_)/;
/** Lines of one prediction that go to the log. */
const maxLogLines = 10_000;

async function runProgram(
  spec: Extract<ModelSpec, { runtime: 'command' }>,
  cwd: string,
  paths: { input: string; output: string; params: string },
  control: { signal: AbortSignal; onSpawn(pid: number): void; onExit(pid: number): void },
  progress: (fraction: number, stage?: string) => void,
  log: (text: string) => void,
): Promise<void> {
  const [program, ...args] = spec.command;
  const child = spawn(program, [...args, paths.input, paths.output, paths.params], {
    cwd,
    // In a separate process group, so that everything it starts can be ended with it.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !ownVariables.test(name))),
      ...spec.environment,
      TOMAAT_INPUT: paths.input,
      TOMAAT_OUTPUT: paths.output,
      TOMAAT_PARAMS: paths.params,
    },
  });
  const kill = (signal: NodeJS.Signals) => {
    try {
      if (child.pid) process.kill(-child.pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  };
  const exit = new Promise<{ code: number | null; signal: string | null }>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal }));
    child.once('exit', (code, signal) => {
      kill('SIGKILL'); // Ends what it left running in its group, with its ends of the pipes.
      // A process that left the group may still hold them: this is the only wait.
      setTimeout(() => resolve({ code, signal }), drainMs).unref();
    });
  });
  let timer: NodeJS.Timeout | undefined;
  const stop = () => {
    kill('SIGTERM');
    timer = setTimeout(() => kill('SIGKILL'), stopAfterMs);
  };
  if (child.pid) control.onSpawn(child.pid);
  control.signal.addEventListener('abort', stop, { once: true });
  if (control.signal.aborted) stop();
  let lastError = '';
  let logged = 0;
  const logLine = (line: string) => {
    logged++;
    if (logged <= maxLogLines) log(line);
    else if (logged === maxLogLines + 1)
      log(`The program wrote more than ${maxLogLines} lines; the rest is omitted.`);
  };
  onLines(child.stdout, (line) => {
    const report = progressOf(line);
    if (report) progress(report.fraction, report.stage);
    else logLine(line);
  });
  onLines(child.stderr, (line) => {
    if (line.trim() !== '') lastError = line.trim().slice(0, 500);
    logLine(line);
  });
  try {
    const { code, signal } = await exit.catch((error: NodeJS.ErrnoException) => {
      const why =
        error.code === 'ENOENT'
          ? 'is not installed here'
          : error.code === 'EACCES'
            ? 'is not executable (chmod +x)'
            : `says ${error.message}`;
      throw new TomaatError('APP_FAILED', `The program ${program} of the app cannot be started: it ${why}.`, {
        cause: error,
      });
    });
    control.signal.throwIfAborted();
    if (code === 0) return;
    if (code === 2)
      throw new TomaatError(
        'BAD_INPUT',
        lastError || 'The app rejected the input without giving a reason. Ask the author of the app.',
      );
    if (signal === 'SIGKILL') {
      throw new TomaatError(
        'OUT_OF_MEMORY',
        'The app’s program was killed from outside, most likely because the machine ran out of memory. Send a smaller volume, or run the app on a larger machine.',
      );
    }
    const how = signal ? `ended by ${signal}` : `ended with exit code ${code}`;
    const ErrorClass = stopSignalOf(code, signal) ? EndedBySignal : TomaatError;
    throw new ErrorClass('APP_FAILED', `The app’s program ${how}${lastError ? `: ${lastError}` : '.'}`);
  } finally {
    clearTimeout(timer);
    control.signal.removeEventListener('abort', stop);
    child.stdout.destroy();
    child.stderr.destroy();
    if (child.pid) control.onExit(child.pid);
  }
}

/** Calls back for every line, keeping only its beginning: a program may print endlessly. */
function onLines(stream: Readable, each: (line: string) => void): void {
  let line = '';
  stream.setEncoding('utf8');
  stream.on('data', (text: string) => {
    let start = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
      each(
        (line + text.slice(start, Math.min(end, start + maxLineLength)))
          .slice(0, maxLineLength)
          .replace(/\r$/, ''),
      );
      line = '';
      start = end + 1;
    }
    if (line.length < maxLineLength) line += text.slice(start, start + maxLineLength - line.length);
  });
  stream.on('end', () => {
    if (line !== '') each(line);
  });
  stream.on('error', () => {}); // The exit code reports the result.
}

function progressOf(line: string): { fraction: number; stage?: string } | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    const { fraction, stage } = JSON.parse(line) as { fraction?: unknown; stage?: unknown };
    if (typeof fraction !== 'number' || !(fraction >= 0 && fraction <= 1)) return undefined;
    return { fraction, stage: typeof stage === 'string' ? stage : undefined };
  } catch {
    return undefined; // A line that only looks like JSON is a line for the log.
  }
}

/** The output of a file: its name without the extension, such as `seg` for seg.nii.gz and seg.vtk. */
const outputNameOf = (file: string) =>
  endingOf(file) ? withoutVolumeEnding(file) : file.replace(/\.[^.]+$/, '');

/** The files of `output`, one for each output of the manifest, by name; derived outputs may be missing. */
async function readOutputs(
  outputs: Readonly<Record<string, Output>>,
  folder: string,
): Promise<Record<string, OutputValue>> {
  const files = (await readdir(folder)).filter((file) => !file.startsWith('.'));
  const results: Record<string, OutputValue> = {};
  for (const [name, output] of Object.entries(outputs)) {
    const file = files.find((candidate) => outputNameOf(candidate) === name);
    if (!file) continue;
    const path = join(folder, file);
    const { size } = await stat(path);
    const source: SourceFile = {
      name: file,
      sizeBytes: size,
      open: (start = 0) => createReadStream(path, { start }),
    };
    try {
      results[name] = await readOutput(output, source, path);
    } catch (error) {
      throw new TomaatError(
        'APP_OUTPUT',
        `The app’s program wrote ${file}, which cannot be read: ${(error as Error).message}`,
        {
          field: name,
          cause: error,
        },
      );
    }
  }
  return results;
}

async function readOutput(output: Output, source: SourceFile, path: string): Promise<OutputValue> {
  switch (output.type) {
    case 'LabelVolume':
      return (await readVolume([source], nodePlatform)).volume;
    case 'VTKMesh':
      return readMesh(await readFile(path));
    case 'Fiducials':
      return parsePoints(await readFile(path, 'utf8'), source.name);
    case 'PlainText':
      return readFile(path, 'utf8');
    case 'Measurements':
      return path.endsWith('.csv')
        ? parseMeasurementsCsv(await readFile(path, 'utf8'))
        : JSON.parse(await readFile(path, 'utf8'));
    default:
      return readTransform(source, nodePlatform);
  }
}
