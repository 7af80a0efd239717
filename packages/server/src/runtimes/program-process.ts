import { spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { type ModelSpec, TomaatError } from '@tomaat/core';
import { EndedBySignal, stopSignalOf } from './ended-by-signal.ts';

/* The process of an app's program: its group, its lines, its end. */

export type CommandSpec = Extract<ModelSpec, { runtime: 'command' }>;

/** Receives the process groups that are to end with this process. */
export interface ProcessGroups {
  onSpawn(pid: number): void;
  onExit(pid: number): void;
}

export interface ProgramOptions extends ProcessGroups {
  cwd: string;
  /** After those of the manifest. */
  args: readonly string[];
  environment: Readonly<Record<string, string>>;
  /** Whether its stdin is a pipe; otherwise it is empty. */
  hasStdin?: boolean;
  /** Lines on stdout are cut after so many characters. */
  maxLineLength?: number;
  onLine(line: string): void;
  onErrorLine(line: string): void;
  /** Its stdout was closed, by its end or before. */
  onClosed?(): void;
}

export interface ProgramEnd {
  code: number | null;
  signal: string | null;
  /** Why it could not be started. */
  failure?: TomaatError;
}

export interface ProgramProcess {
  readonly stdin: Writable | null;
  /** Resolves when the process and its group have ended and its lines are read. */
  readonly ended: Promise<ProgramEnd>;
  /** Sends SIGTERM to its group, and SIGKILL after 5 s. */
  stop(): void;
  /** Sends SIGKILL to its group. */
  kill(): void;
}

const stopAfterMs = 5000;
/** How long to wait for the end of the output once the program itself has ended. */
export const drainMs = 1000;
export const maxLineLength = 2000;
/** Variables that only the server may see: its settings, including keys, and its channel to this process. */
const ownVariables = /^(TOMAAT_|NODE_CHANNEL_)/;
/** Lines of one prediction that go to the log. */
const maxLogLines = 10_000;

/** Starts an app's program in its folder, without a shell and in a separate process group. */
export function startProgram(spec: CommandSpec, options: ProgramOptions): ProgramProcess {
  const [program, ...args] = spec.command;
  const child = spawn(program, [...args, ...options.args], {
    cwd: options.cwd,
    // In a separate process group, so that everything it starts can be ended with it.
    detached: true,
    stdio: [options.hasStdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    env: {
      ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !ownVariables.test(name))),
      ...options.environment,
    },
  });
  const send = (signal: NodeJS.Signals) => {
    try {
      if (child.pid) process.kill(-child.pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  };
  const kill = () => send('SIGKILL');
  // This process may end before a program that ignores SIGTERM.
  process.once('exit', kill);
  if (child.pid) options.onSpawn(child.pid);
  onLines(child.stdout!, options.maxLineLength ?? maxLineLength, options.onLine);
  onLines(child.stderr!, maxLineLength, options.onErrorLine);
  child.stdout!.once('end', () => options.onClosed?.());
  child.stdin?.on('error', () => options.onClosed?.());
  let timer: NodeJS.Timeout | undefined;

  async function waitForEnd(): Promise<ProgramEnd> {
    const end = await new Promise<ProgramEnd>((resolve) => {
      child.once('error', (error) =>
        resolve({ code: null, signal: null, failure: startFailure(program, error) }),
      );
      child.once('close', (code, signal) => resolve({ code, signal }));
      child.once('exit', (code, signal) => {
        kill(); // Ends what it left running in its group, with its ends of the pipes.
        // A process that left the group may still hold them: this is the only wait.
        setTimeout(() => resolve({ code, signal }), drainMs).unref();
      });
    });
    clearTimeout(timer);
    process.off('exit', kill);
    for (const stream of [child.stdin, child.stdout, child.stderr]) stream?.destroy();
    if (child.pid) options.onExit(child.pid);
    return end;
  }

  const ended = waitForEnd();
  let isOver = false;
  void ended.then(() => {
    isOver = true;
  });
  return {
    stdin: child.stdin,
    ended,
    stop() {
      if (isOver || timer) return;
      send('SIGTERM');
      timer = setTimeout(kill, stopAfterMs);
    },
    kill() {
      if (!isOver) kill();
    },
  };
}

function startFailure(program: string, error: NodeJS.ErrnoException): TomaatError {
  const why =
    error.code === 'ENOENT'
      ? 'is not installed here'
      : error.code === 'EACCES'
        ? 'is not executable (chmod +x)'
        : `says ${error.message}`;
  return new TomaatError('APP_FAILED', `The program ${program} of the app cannot be started: it ${why}.`, {
    cause: error,
  });
}

/** The error of a prediction whose program ended before it was done; `lastError`: the last line on its stderr. */
export function programError({ code, signal, failure }: ProgramEnd, lastError: string): TomaatError {
  if (failure) return failure;
  if (code === 2) return refusal(lastError);
  if (signal === 'SIGKILL') {
    return new TomaatError(
      'OUT_OF_MEMORY',
      'The app’s program was killed from outside, most likely because the machine ran out of memory. Send a smaller volume, or run the app on a larger machine.',
    );
  }
  const how = signal ? `ended by ${signal}` : `ended with exit code ${code}`;
  const ErrorClass = stopSignalOf(code, signal) ? EndedBySignal : TomaatError;
  return new ErrorClass('APP_FAILED', `The app’s program ${how}${lastError ? `: ${lastError}` : '.'}`);
}

/** The error of an input that a program refuses, with its reason. */
export const refusal = (reason: string): TomaatError =>
  new TomaatError(
    'BAD_INPUT',
    reason || 'The app rejected the input without giving a reason. Ask the author of the app.',
  );

/** Passes on the lines of one prediction, as far as their number is sensible. */
export function limitLog(log: (text: string) => void): (line: string) => void {
  let logged = 0;
  return (line) => {
    logged++;
    if (logged <= maxLogLines) log(line.slice(0, maxLineLength));
    else if (logged === maxLogLines + 1)
      log(`The program wrote more than ${maxLogLines} lines; the rest is omitted.`);
  };
}

/** Calls back for every line, keeping only its beginning: a program may print endlessly. */
function onLines(stream: Readable, maxLength: number, each: (line: string) => void): void {
  let line = '';
  stream.setEncoding('utf8');
  stream.on('data', (text: string) => {
    let start = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
      each(
        (line + text.slice(start, Math.min(end, start + maxLength))).slice(0, maxLength).replace(/\r$/, ''),
      );
      line = '';
      start = end + 1;
    }
    if (line.length < maxLength) line += text.slice(start, start + maxLength - line.length);
  });
  stream.on('end', () => {
    if (line !== '') each(line);
  });
  stream.on('error', () => {}); // The exit code reports the result.
}

/** The object that a line on stdout holds as JSON; undefined if it is another line, one for the log. */
export function objectOf(line: string): Readonly<Record<string, unknown>> | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

/** The progress that an object on stdout reports, if it does. */
export function progressOf({
  fraction,
  stage,
}: Readonly<Record<string, unknown>>): { fraction: number; stage?: string } | undefined {
  if (typeof fraction !== 'number' || !(fraction >= 0 && fraction <= 1)) return undefined;
  return { fraction, stage: typeof stage === 'string' ? stage : undefined };
}
