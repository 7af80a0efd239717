/** The process that fuzzes one target: generates inputs, runs them, reports its findings. */
import { openSync, readFileSync, writeSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { TomaatError } from '@tomaat/core';
import { type Coverage, watchCoverage } from './coverage.ts';
import { withLongRuns } from './long-runs.ts';
import { createRandom, minimise, mutate } from './mutate.ts';
import type { Target } from './target.ts';
import { targets } from './targets.ts';

export interface Order {
  target: string;
  inputs: number | null;
  seconds: number | null;
  seed: number;
  coverage: boolean;
  /** The position of the current inputs, in case this process dies. */
  batchFile: string;
  /** Runs the inputs of this file instead, one after the other: one of them killed a process before. */
  replay?: string;
}

export interface Found {
  /** The kind of failure, the same for inputs that fail alike. */
  signature: string;
  /** base64 */
  input: string;
}

export type Message =
  | { kind: 'found'; found: Found }
  | {
      kind: 'progress' | 'done';
      inputs: number;
      accepted: number;
      blocks: number;
      slowestMs: number;
      peakBytes: number;
      cpuSeconds: number;
    };

const slowMs = 1000;
/** A reader that holds only its input and one small volume stays far below. */
const memoryBytes = 600e6;
const tellEveryMs = 500;
const maxCorpus = 2000;
/**
 * This many inputs are written down and run together: a write and a turn of the event loop take longer than most
 * inputs.
 */
const batchInputs = 64;
/** Reading the coverage takes as long as hundreds of inputs. */
const askEvery = 2048;
/**
 * Coverage, which halves the speed, is switched off after this many inputs without new code, or after this many in
 * total.
 */
const calmInputs = 30_000;
const watchedInputs = 150_000;

/** The inputs, each preceded by its length. */
function packInputs(inputs: readonly Uint8Array[]): Buffer {
  const packed = Buffer.allocUnsafe(inputs.reduce((sum, input) => sum + 4 + input.length, 4));
  let at = packed.writeUInt32LE(inputs.length);
  for (const input of inputs) {
    at = packed.writeUInt32LE(input.length, at);
    packed.set(input, at);
    at += input.length;
  }
  return packed;
}

export function unpackInputs(packed: Buffer): Buffer[] {
  let at = 4;
  return Array.from({ length: packed.readUInt32LE(0) }, () => {
    const start = at + 4;
    at = start + packed.readUInt32LE(at);
    return packed.subarray(start, at);
  });
}

/** What is wrong with how an input was handled; undefined if nothing is. */
async function judge(
  target: Target,
  input: Uint8Array,
): Promise<{ signature?: string; taken: boolean; ms: number }> {
  const start = performance.now();
  const ms = () => performance.now() - start;
  try {
    const running = target.run(input);
    if (running) await running;
    return { taken: true, ms: ms() };
  } catch (error) {
    if (error instanceof TomaatError) {
      const isWhole = error.code !== 'INTERNAL' && error.message.length > 0 && error.message.length < 20_000;
      return { taken: false, ms: ms(), signature: isWhole ? undefined : `refused with ${error.code}` };
    }
    if (Error.stackTraceLimit === 0) {
      Error.stackTraceLimit = 20;
      try {
        return await judge(target, input);
      } finally {
        Error.stackTraceLimit = 0;
      }
    }
    const place =
      error instanceof Error ? (/\/(packages|fuzz)\/\S+?:\d+/.exec(error.stack ?? '')?.[0] ?? '') : '';
    return { taken: false, ms: ms(), signature: `${String(error).slice(0, 200)} ${place}`.trim() };
  }
}

async function work(order: Order): Promise<void> {
  // Capturing a stack trace takes longer than most inputs, and nearly all errors here are expected.
  Error.stackTraceLimit = 0;
  const target = targets[order.target];
  const random = createRandom(order.seed);
  const file = openSync(order.batchFile, 'w+');
  const put = (inputs: readonly Uint8Array[]) => writeSync(file, packInputs(inputs), 0, null, 0);
  const mutator = { words: target.words, maxBytes: target.maxBytes ?? 16_384 };
  const corpus = await target.seeds();
  const seeds = corpus.length;
  const started = performance.now();
  const total = { inputs: 0, accepted: 0, blocks: 0, slowestMs: 0, peakBytes: 0, cpuSeconds: 0 };
  const known = new Set<string>();
  const tell = (kind: 'progress' | 'done') => {
    const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
    total.peakBytes = maxRSS * 1024;
    total.cpuSeconds = (userCPUTime + systemCPUTime) / 1e6;
    process.send?.({ kind, ...total } satisfies Message);
  };
  let toldMs = started;
  /** A sign of life, now and then. */
  const tellNow = (): boolean => {
    const now = performance.now();
    if (now - toldMs < tellEveryMs) return false;
    toldMs = now;
    tell('progress');
    return true;
  };

  const run = async (input: Uint8Array): Promise<void> => {
    let verdict = await judge(target, input);
    if (verdict.ms > slowMs) {
      // Measured again by CPU time: the machine may have been busy with something else.
      const before = process.cpuUsage();
      verdict = await judge(target, input);
      const { user, system } = process.cpuUsage(before);
      verdict.ms = Math.min(verdict.ms, (user + system) / 1000);
    }
    total.inputs++;
    if (verdict.taken) total.accepted++;
    if (verdict.ms > total.slowestMs) total.slowestMs = verdict.ms;
    const signature = verdict.ms > slowMs ? 'slower than a second' : verdict.signature;
    if (signature !== undefined && !known.has(signature)) {
      known.add(signature);
      const alike = async (smaller: Uint8Array) => {
        put([smaller]);
        tellNow();
        return (await judge(target, smaller)).signature === signature;
      };
      const small = verdict.ms > slowMs ? input : await minimise(input, alike);
      const found = { signature, input: Buffer.from(small).toString('base64') };
      process.send?.({ kind: 'found', found } satisfies Message);
    }
    if (tellNow() && process.memoryUsage.rss() > memoryBytes) throw new Error('memory grows without end');
  };

  const runAll = async (inputs: readonly Uint8Array[]) => {
    put(inputs);
    for (const input of inputs) await run(input);
    // Deferred work (streams that close, messages) is held until the event loop turns.
    await setImmediate();
  };

  if (order.replay !== undefined) {
    for (const input of unpackInputs(readFileSync(order.replay))) await runAll([input]);
    tell('done');
    return;
  }

  let coverage = order.coverage ? watchCoverage() : undefined;
  let calm = 0;
  let unasked: Uint8Array[] = [];
  await runAll([...corpus]);
  // They come on top of the requested number.
  const before = total.inputs;
  if (target.longRuns) for (const input of withLongRuns(target.longRuns)) await runAll([input]);
  const extra = total.inputs - before;
  coverage?.news();
  const left = () => (order.inputs ?? Number.POSITIVE_INFINITY) + extra - total.inputs;
  const isOver = () =>
    left() <= 0 || (performance.now() - started) / 1000 >= (order.seconds ?? Number.POSITIVE_INFINITY);
  while (!isOver()) {
    const inputs = Array.from({ length: Math.min(batchInputs, left()) }, () => {
      // The seeds keep their share for the whole run.
      const from = random(3) === 0 ? random(seeds) : random(corpus.length);
      return mutate(corpus[from], corpus[random(corpus.length)], random, mutator);
    });
    await runAll(inputs);
    if (!coverage) continue;
    unasked.push(...inputs);
    if (unasked.length < askEvery) continue;
    const news = coverage.news();
    total.blocks = coverage.blocks;
    calm = news.size > 0 ? 0 : calm + unasked.length;
    if (news.size > 0 && corpus.length < maxCorpus) {
      const input = await whichHits(unasked, news, coverage, async (one) => {
        tellNow();
        await judge(target, one);
      });
      // Large ones would slow down everything.
      if (input.length <= 4096) corpus.push(input);
    }
    unasked = [];
    if (calm > calmInputs || total.inputs > watchedInputs) {
      coverage.close();
      coverage = undefined;
    }
  }
  tell('done');
}

/** The one of these inputs that ran one of these blocks, by bisection. */
async function whichHits(
  inputs: readonly Uint8Array[],
  blocks: ReadonlySet<string>,
  coverage: Coverage,
  run: (input: Uint8Array) => Promise<void>,
): Promise<Uint8Array> {
  let among = inputs;
  while (among.length > 1) {
    const half = among.slice(0, among.length >> 1);
    for (const input of half) await run(input);
    among = coverage.hit(blocks) ? half : among.slice(half.length);
  }
  return among[0];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await work(JSON.parse(process.argv[2]) as Order);
  process.disconnect?.();
}
