/**
 * `npm run fuzz [-- TARGET …] [--inputs N | --seconds N] [--seed N] [--out DIR] [--no-coverage]`: feeds changed files
 * and texts to everything that reads untrusted input (targets.ts). Each target runs in a separate process under a
 * watchdog. An input that kills the process, takes more than a second, uses unbounded memory, throws anything but a
 * TomaatError, or is accepted and breaks a promise, is minimized and written to the folder of found cases; the exit
 * code is then 1. `--case FILE` runs one such file again. The same seed makes the same inputs.
 */
import { fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Found, type Message, type Order, unpackInputs } from './child.ts';
import { targets } from './targets.ts';

const childFile = fileURLToPath(new URL('./child.ts', import.meta.url));
/** A process that is silent for this long is considered hung: one input takes a second at most. */
const silenceMs = 20_000;
const sayEveryMs = 30_000;

export interface Outcome {
  readonly target: string;
  readonly inputs: number;
  readonly accepted: number;
  readonly seconds: number;
  readonly blocks: number;
  readonly slowestMs: number;
  readonly peakBytes: number;
  readonly cpuSeconds: number;
  readonly found: readonly (Found & { file: string })[];
}

export interface FuzzOptions {
  inputs?: number;
  seconds?: number;
  seed?: number;
  coverage?: boolean;
  out?: string;
  /** Called with the number of inputs so far, now and then. */
  say?: (inputs: number) => void;
}

/**
 * Fuzzes one target. An input that kills or hangs a process costs only that process; another continues with the next
 * seed.
 */
export async function fuzz(name: string, options: FuzzOptions = {}): Promise<Outcome> {
  const { inputs = Number.POSITIVE_INFINITY, seconds = Number.POSITIVE_INFINITY, seed = 1 } = options;
  const out = options.out ?? join(tmpdir(), 'tomaat-fuzz');
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 1000;
  const total = { inputs: 0, accepted: 0, blocks: 0, slowestMs: 0, peakBytes: 0, cpuSeconds: 0 };
  const found = new Map<string, Found & { file: string }>();
  const folder = mkdtempSync(join(tmpdir(), 'tomaat-fuzz-run-'));
  const keep = (one: Found) => {
    if (found.has(one.signature)) return;
    mkdirSync(out, { recursive: true });
    const bytes = Buffer.from(one.input, 'base64');
    const digest = createHash('sha256').update(bytes).digest('hex').slice(0, 12);
    const file = join(out, `${name}-${digest}`);
    writeFileSync(file, bytes);
    found.set(one.signature, { ...one, file });
  };
  try {
    for (let round = 0; round < 20 && total.inputs < inputs && elapsed() < seconds; round++) {
      const order: Order = {
        target: name,
        inputs: Number.isFinite(inputs) ? inputs - total.inputs : null,
        seconds: Number.isFinite(seconds) ? seconds - elapsed() : null,
        seed: seed + round * 7919,
        coverage: options.coverage ?? true,
        batchFile: join(folder, 'batch'),
      };
      const before = total.inputs;
      const end = await runChild(order, keep, (inputs) => options.say?.(before + inputs));
      total.inputs += end.last?.inputs ?? 0;
      total.accepted += end.last?.accepted ?? 0;
      total.cpuSeconds += end.last?.cpuSeconds ?? 0;
      total.blocks = Math.max(total.blocks, end.last?.blocks ?? 0);
      total.slowestMs = Math.max(total.slowestMs, end.last?.slowestMs ?? 0);
      total.peakBytes = Math.max(total.peakBytes, end.last?.peakBytes ?? 0);
      if (end.how === 'done') break;
      if (!existsSync(order.batchFile)) throw new Error(`the process for ${name} did not start: ${end.how}`);
      // A second process finds out which of the current inputs it was, by running them one by one.
      const replay = { ...order, replay: order.batchFile, batchFile: join(folder, 'one') };
      const again = await runChild(replay, keep);
      const [how, file] =
        again.how === 'done' ? [`${end.how}, not again`, order.batchFile] : [again.how, replay.batchFile];
      const packed = readFileSync(file);
      const input = again.how === 'done' ? packed : unpackInputs(packed)[0];
      keep({ signature: how, input: input.toString('base64') });
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return { target: name, ...total, seconds: elapsed(), found: [...found.values()] };
}

type Progress = Extract<Message, { kind: 'progress' | 'done' }>;

async function runChild(
  order: Order,
  keep: (found: Found) => void,
  say?: (inputs: number) => void,
): Promise<{ how: string; last?: Progress }> {
  const child = fork(childFile, [JSON.stringify(order)], {
    execArgv: ['--conditions=tomaat-source', '--max-old-space-size=512', '--no-warnings'],
    // Coverage of code that was compiled before is less exact.
    env: { ...process.env, ...(order.coverage ? { NODE_DISABLE_COMPILE_CACHE: '1' } : {}) },
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
  });
  let last: Progress | undefined;
  let saidMs = performance.now();
  let isDone = false;
  let isHung = false;
  let complaint = '';
  child.stderr?.on('data', (chunk) => {
    complaint = `${complaint}${chunk}`.slice(-2000);
  });
  const bark = () => {
    isHung = true;
    child.kill('SIGKILL');
  };
  // Before its first message it loads the whole server, which takes long on a busy machine.
  let dog = setTimeout(bark, 15 * silenceMs);
  child.on('message', (message: Message) => {
    clearTimeout(dog);
    dog = setTimeout(bark, silenceMs);
    if (message.kind === 'found') keep(message.found);
    else last = message;
    if (last && message.kind === 'progress' && performance.now() - saidMs > sayEveryMs) {
      saidMs = performance.now();
      say?.(last.inputs);
    }
    if (message.kind === 'done') isDone = true;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  clearTimeout(dog);
  if (isDone) return { how: 'done', last };
  const why = complaint.split('\n').find((line) => /FATAL ERROR: |^\w*Error: /.test(line)) ?? '';
  return { how: isHung ? 'hang' : `process ended with ${signal ?? code} ${why}`.trim(), last };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      inputs: { type: 'string' },
      seconds: { type: 'string' },
      seed: { type: 'string' },
      out: { type: 'string' },
      case: { type: 'string' },
      'no-coverage': { type: 'boolean' },
    },
  });
  const unknown = positionals.filter((name) => !Object.hasOwn(targets, name));
  if (unknown.length > 0) {
    console.error(`There is no target ${unknown.join(', ')}. There are: ${Object.keys(targets).join(', ')}.`);
    process.exitCode = 2;
    return;
  }
  const names = positionals.length > 0 ? positionals : Object.keys(targets);
  if (values.case !== undefined) {
    for (const name of names) await targets[name].run(new Uint8Array(readFileSync(values.case)));
    console.log('The case was taken.');
    return;
  }
  const number = (text: string | undefined) => (text === undefined ? undefined : Number(text));
  const seconds = number(values.seconds) ?? (values.inputs === undefined ? 60 : undefined);
  let faults = 0;
  for (const name of names) {
    const outcome = await fuzz(name, {
      inputs: number(values.inputs),
      seconds,
      seed: number(values.seed),
      out: values.out,
      coverage: !values['no-coverage'],
      say: (inputs) => console.error(`${name} at ${inputs} inputs`),
    });
    const rate = Math.round(outcome.inputs / outcome.seconds);
    console.log(
      `${name.padEnd(14)} ${outcome.inputs} inputs, ${rate}/s (${Math.round(outcome.cpuSeconds)} s of CPU), ${outcome.accepted} taken, ${outcome.blocks} blocks, ` +
        `slowest ${Math.round(outcome.slowestMs)} ms, peak ${Math.round(outcome.peakBytes / 1e6)} MB, ${outcome.found.length} found`,
    );
    for (const { signature, file } of outcome.found) console.log(`  ${signature}\n    ${file}`);
    faults += outcome.found.length;
  }
  process.exitCode = faults === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
