import { format } from 'node:util';
import { describeError, escapeUnseen, TomaatError } from '@tomaat/core';
import { Interrupted } from './interrupt.ts';

/** Exit codes: 0 success, 1 the job, app or server failed, 2 usage or the caller's error, 130 interrupted. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) return error.exitCode;
  // The findings of a check are its result, not wrong usage.
  if (error instanceof TomaatError && error.code === 'BAD_SIGNATURE') return 1;
  if (error instanceof TomaatError) return describeError(error.code).fault === 'caller' ? 2 : 1;
  // A path from the caller does not exist, or is not accessible.
  const { code, path } = (error ?? {}) as NodeJS.ErrnoException;
  return path !== undefined &&
    ['ENOENT', 'EACCES', 'EPERM', 'EISDIR', 'ENOTDIR', 'EROFS'].includes(code ?? '')
    ? 2
    : 1;
}

/** One clear message; the stack only with TOMAAT_DEBUG=1. */
export function printError(error: unknown): void {
  if (error instanceof Interrupted) return;
  if (process.env.TOMAAT_DEBUG) {
    console.error(error);
    return;
  }
  if (error instanceof TomaatError) {
    const { requestId, httpStatus } = error.detail ?? {};
    // Messages of a server have one line; ours may have several, and the others are indented below the first.
    const message =
      httpStatus === undefined ? error.message.replace(/\n(?! )/g, '\n  ') : plain(error.message);
    console.error(`${red('Error:')} ${message}${requestId ? `\n(request ${plain(String(requestId))})` : ''}`);
    return;
  }
  const system = error as NodeJS.ErrnoException;
  if (typeof system?.code === 'string' && system.path) {
    console.error(`${red('Error:')} ${systemFault(system)}`);
    return;
  }
  console.error(
    `${red('Error:')} ${(error as Error)?.message ?? String(error)}\nSet TOMAAT_DEBUG=1 to see where this comes from.`,
  );
}

/** A system error about a path, as a helpful message. */
export function systemFault({ code, path, message }: NodeJS.ErrnoException): string {
  if (code === 'ENOENT') return `${path} does not exist. Check the spelling.`;
  if (code === 'EACCES' || code === 'EPERM')
    return `You are not allowed to read or write ${path}. Check its permissions.`;
  if (code === 'ENOSPC') return `The disk is full: ${path} cannot be written. Free some space.`;
  if (code === 'EISDIR') return `${path} is a folder. Give a file.`;
  if (code === 'ENOTDIR') return `A part of the path ${path} is a file, not a folder. Check the path.`;
  return `${message}.`;
}

const paint =
  (open: number, close: number) =>
  (text: string, stream: NodeJS.WriteStream = process.stderr) =>
    stream.isTTY && !process.env.NO_COLOR ? `\u001b[${open}m${text}\u001b[${close}m` : text;
export const red = paint(31, 39);
export const dim = paint(2, 22);

/** Untrusted text (from a server, a registry, a file) as part of one of our lines: invisible characters are escaped. */
export const plain = escapeUnseen;

/** The same for several lines. */
export const plainLines = (text: string): string => text.split('\n').map(plain).join('\n');

// biome-ignore lint/suspicious/noControlCharactersInRegex: the colours of paint()
const colours = /\u001b\[(?:2|22|31|39)m/g;

/**
 * From now on the console prints no invisible characters except our own colours and line ends: an untrusted name
 * that was not escaped can be long, but nothing worse. JSON stays the same JSON.
 */
export function guardConsole(): void {
  for (const method of ['log', 'error'] as const) {
    const print = console[method].bind(console);
    console[method] = (...parts: unknown[]) => {
      const text = format(...parts);
      const painted = text.match(colours) ?? [];
      // The pieces between the colours, and the colours.
      print(
        '%s',
        text
          .split(colours)
          .map((piece, i) => plainLines(piece) + (painted[i] ?? ''))
          .join(''),
      );
    };
  }
}

export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(0)} kB`;
  if (bytes < 1e9) return `${(bytes / 1e6).toFixed(1)} MB`;
  return `${(bytes / 1e9).toFixed(2)} GB`;
}

export function formatSeconds(seconds: number): string {
  if (seconds < 0.05) return 'under 0.1 s';
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes} min ${Math.round(seconds % 60)} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A running clock, m:ss. */
export function formatClock(seconds: number): string {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}

export interface Progress {
  /** What is in progress; `step` changes rarely, `text` often. */
  show(step: string, text: string): void;
  /** Clears the progress line, so that others can write. */
  clear(): void;
}

/** Columns below which a progress line is useless. A terminal that does not state its width reports 0. */
const leastColumns = 20;
const isWideTerminal = (): boolean =>
  Boolean(process.stderr.isTTY) && !process.env.CI && process.stderr.columns >= leastColumns;

/**
 * Progress on stderr: a moving line on a terminal, otherwise one line per step and every 10 s; nothing when quiet.
 * A terminal that is, or becomes, narrower than 20 columns gets lines.
 */
export async function createProgress(quiet: boolean): Promise<Progress> {
  if (quiet) return { show() {}, clear() {} };
  const lines = createLineProgress();
  if (!isWideTerminal()) return lines;
  const { default: ora } = await import('ora');
  const spinner = ora({ stream: process.stderr, discardStdin: false });
  // The spinner divides by the number of columns: at 0 it would clear lines forever.
  const onResize = () => {
    if (!isWideTerminal()) spinner.stop();
  };
  process.stderr.on('resize', onResize);
  return {
    show(step, text) {
      if (!isWideTerminal()) return lines.show(step, text);
      spinner.text = plain(text);
      if (!spinner.isSpinning) spinner.start();
    },
    clear() {
      spinner.stop();
      lines.clear();
    },
  };
}

/** What work reports by: its progress, and lines on stderr that stay. */
export function reportsOf(progress: Progress, flags: { quiet?: boolean }, signal: AbortSignal) {
  return {
    signal,
    show: progress.show,
    note(text: string) {
      progress.clear();
      if (!flags.quiet) console.error(plain(text));
    },
  };
}

function createLineProgress(): Progress {
  let shown = '';
  let time = 0;
  return {
    show(step, text) {
      if (step === shown && Date.now() - time < 10_000) return;
      shown = step;
      time = Date.now();
      console.error(text);
    },
    clear() {
      shown = '';
    },
  };
}

/** Shows the steps of long-running work, in per cent. */
export function percentOf(progress: Progress): (step: string, done: number, of: number) => void {
  const startedMs = performance.now();
  return (step, done, of) => {
    if (performance.now() - startedMs > 1000)
      progress.show(step, `${step}: ${Math.floor((100 * done) / Math.max(1, of))} %`);
  };
}

type TableClass = typeof import('cli-table3');

/** A table without lines; the class is passed in, so that commands without tables do not load it. */
export function openTable(
  Table: TableClass,
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const edges = ['top', 'bottom'].flatMap((side) => [side, `${side}-mid`, `${side}-left`, `${side}-right`]);
  const lines = ['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid', 'middle'];
  const table = new Table({
    head: [...head],
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
    chars: Object.fromEntries([...edges, ...lines].map((name) => [name, ''])),
  });
  table.push(...rows.map((row) => row.map(plain)));
  return table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}
