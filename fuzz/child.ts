/** The process that fuzzes one target: makes inputs, runs them, tells what it found. */
import { openSync, writevSync } from 'node:fs';
import { TomaatError } from '@tomaat/core';
import { type Coverage, watchCoverage } from './coverage.ts';
import { createRandom, minimise, mutate } from './mutate.ts';
import { type Target, targets } from './targets.ts';

export interface Order {
  target: string;
  inputs: number | null;
  seconds: number | null;
  seed: number;
  coverage: boolean;
  /** Where the input at hand stands, for whoever finds this process dead. */
  caseFile: string;
}

export interface Found {
  /** What went wrong, the same for inputs that fail alike. */
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
/** A reader that holds no more than its input and one small volume stays far below. */
const memoryBytes = 600e6;
const tellEveryMs = 500;
const maxCorpus = 2000;
/** After so many inputs without new code the watch for it, which halves the speed, ends. */
const calmInputs = 50_000;

/** What is wrong with how an input was answered; undefined where nothing is. */
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
    const place =
      error instanceof Error ? (/\/(packages|fuzz)\/\S+?:\d+/.exec(error.stack ?? '')?.[0] ?? '') : '';
    return { taken: false, ms: ms(), signature: `${String(error).slice(0, 200)} ${place}`.trim() };
  }
}

async function work(order: Order): Promise<void> {
  const target = targets[order.target];
  const random = createRandom(order.seed);
  const file = openSync(order.caseFile, 'w+');
  const head = Buffer.alloc(4);
  const put = (input: Uint8Array) => {
    head.writeUInt32LE(input.length);
    writevSync(file, [head, input], 0);
  };
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
    put(input);
    let verdict = await judge(target, input);
    if (verdict.ms > slowMs) {
      // Once more, by the time of the processor: the machine may have been busy with something else.
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
        put(smaller);
        tellNow();
        return (await judge(target, smaller)).signature === signature;
      };
      const small = verdict.ms > slowMs ? input : await minimise(input, alike);
      const found = { signature, input: Buffer.from(small).toString('base64') };
      process.send?.({ kind: 'found', found } satisfies Message);
    }
    if (tellNow() && process.memoryUsage.rss() > memoryBytes) throw new Error('memory grows without end');
  };

  let coverage = order.coverage ? watchCoverage() : undefined;
  let calm = 0;
  for (const seed of [...corpus]) await run(seed);
  coverage?.news();
  const isOver = () =>
    total.inputs >= (order.inputs ?? Number.POSITIVE_INFINITY) ||
    (performance.now() - started) / 1000 >= (order.seconds ?? Number.POSITIVE_INFINITY);
  // To ask for the coverage takes as long as many inputs: the rarer there is news, the rarer it is asked.
  let batch = 32;
  while (!isOver()) {
    const inputs: Uint8Array[] = [];
    for (let i = 0; i < batch && !isOver(); i++) {
      // The seeds get their share for ever.
      const from = random(3) === 0 ? random(seeds) : random(corpus.length);
      const input = mutate(corpus[from], corpus[random(corpus.length)], random, mutator);
      if (coverage) inputs.push(input);
      await run(input);
    }
    if (!coverage) continue;
    const news = coverage.news();
    total.blocks = coverage.blocks;
    calm = news.size > 0 ? 0 : calm + inputs.length;
    if (news.size > 0 && corpus.length < maxCorpus) {
      const input = await whichHits(inputs, news, coverage, async (one) => {
        put(one);
        tellNow();
        await judge(target, one);
      });
      // Large ones would make everything slow.
      if (input.length <= 4096) corpus.push(input);
      batch = Math.max(32, batch >> 1);
    } else batch = Math.min(8192, batch * 2);
    if (calm > calmInputs) {
      coverage.close();
      coverage = undefined;
    }
  }
  tell('done');
}

/** The one of these inputs that ran one of these blocks, by halves. */
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

await work(JSON.parse(process.argv[2]) as Order);
process.disconnect?.();
