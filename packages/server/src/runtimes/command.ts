import { access, constants, mkdir, rm, writeFile } from 'node:fs/promises';
import { delimiter, join, resolve } from 'node:path';
import { type AppContext, TomaatError } from '@tomaat/core';
import { checkEnvironment } from './program-environment.ts';
import { readOutputs, writeInputs } from './program-files.ts';
import {
  type CommandSpec,
  limitLog,
  objectOf,
  type ProcessGroups,
  programError,
  progressOf,
  startProgram,
} from './program-process.ts';
import type { Runtime } from './runtime.ts';
import { createWarmProgram, type ProgramPaths } from './warm-program.ts';

/**
 * Any program as a model: it gets the folders `input` and `output` and the file `params.json`, as the last
 * three arguments and as TOMAAT_INPUT, TOMAAT_OUTPUT and TOMAAT_PARAMS. A line `{"fraction":0.4,"stage":"…"}`
 * on its stdout is progress, every other line goes to the log. Exit code 0: done; 2: the caller's error, the
 * last line of stderr says why; any other: it failed. With `serve` it gets them as requests (warm-program.ts).
 */
export const commandRuntime: Runtime<CommandSpec> = {
  name: 'command',
  description:
    'Any program: a folder in, a folder out, progress lines on stdout; started for each prediction, or kept',
  async open(app, spec, job) {
    await checkEnvironment(spec, app.folder);
    const warm = spec.serve ? createWarmProgram(spec, app.folder, job) : undefined;
    return {
      kind: 'program',
      async run(inputs, context) {
        const { folder } = job;
        const paths = {
          input: join(folder, 'input'),
          output: join(folder, 'output'),
          params: join(folder, 'params.json'),
        };
        await mkdir(paths.input, { recursive: true });
        await mkdir(paths.output, { recursive: true });
        await writeInputs(inputs, paths.input);
        await writeFile(paths.params, JSON.stringify(context.parameters));
        if (warm) await warm.run(paths, context);
        else await runProgram(spec, app.folder, paths, job, context);
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
export async function findProgram(spec: CommandSpec, folder: string): Promise<string> {
  const { command, environment } = spec;
  const [program] = command;
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
  await checkEnvironment(spec, folder);
  throw new TomaatError(
    'BAD_MANIFEST',
    program.includes('/')
      ? `The program ${program} is not in the app’s folder, or is not executable. Put it there, and run chmod +x on it.`
      : `The program ${program} is not on the PATH of this machine. Install it, or write its path into model.command.`,
    { field: 'model.command' },
  );
}

/** One prediction by a process of its own. */
async function runProgram(
  spec: CommandSpec,
  cwd: string,
  paths: ProgramPaths,
  groups: ProcessGroups,
  { signal, progress, log }: AppContext,
): Promise<void> {
  const logLine = limitLog(log);
  let lastError = '';
  const program = startProgram(spec, {
    cwd,
    args: [paths.input, paths.output, paths.params],
    environment: {
      ...spec.environment,
      TOMAAT_INPUT: paths.input,
      TOMAAT_OUTPUT: paths.output,
      TOMAAT_PARAMS: paths.params,
    },
    onSpawn: groups.onSpawn,
    onExit: groups.onExit,
    onLine: (line) => {
      const report = progressOf(objectOf(line) ?? {});
      if (report) progress(report.fraction, report.stage);
      else logLine(line);
    },
    onErrorLine: (line) => {
      if (line.trim() !== '') lastError = line.trim().slice(0, 500);
      logLine(line);
    },
  });
  signal.addEventListener('abort', program.stop, { once: true });
  if (signal.aborted) program.stop();
  try {
    const end = await program.ended;
    signal.throwIfAborted();
    if (end.code !== 0) throw programError(end, lastError);
  } finally {
    signal.removeEventListener('abort', program.stop);
  }
}
