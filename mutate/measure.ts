/** Measures how many planted faults of a room its tests notice. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRandom } from '../fuzz/mutate.ts';
import { findMutants, type Mutant, markReached, plant } from './mutants.ts';
import { filesOf, type Room, rooms, sourcesOf } from './rooms.ts';
import { openTestRunner, type TestFile, type TestRun } from './run-tests.ts';

export interface Outcome {
  readonly mutant: Mutant;
  /** Killed: a test failed. Unreached: no test runs the line. */
  readonly status: 'killed' | 'timeout' | 'survived' | 'unreached';
  /** The first test that failed. */
  readonly killedBy?: string;
}

export interface Measured {
  readonly room: string;
  readonly seed: number;
  /** The total number of faults in the room. */
  readonly mutants: number;
  readonly seconds: number;
  readonly outcomes: readonly Outcome[];
}

/** On a busy machine a process may take this long before the first test. */
const startMs = 20_000;
const baselineMs = 900_000;
/**
 * Slower tests of pure functions are skipped where quicker ones reach the fault: a survivor would wait for all of
 * them.
 */
const slowTestMs = 4_000;
/** The same for files that run whole. */
const slowFileMs = 20_000;

/**
 * A sample of the faults of a room (of the files that are `wanted`), the same for the same seed and sources. The
 * order is random too: the first faults are the smaller sample of that seed, so that an interrupted measurement is
 * still a valid sample.
 */
export function sampleOf(
  root: string,
  room: Room,
  count: number,
  seed: number,
  wanted: (file: string) => boolean = () => true,
): Mutant[] {
  const all = allOf(root, room).filter(({ file }) => wanted(file));
  const random = createRandom(seed);
  const end = Math.min(count, all.length);
  for (let i = 0; i < end; i++) {
    const j = i + random(all.length - i);
    [all[i], all[j]] = [all[j], all[i]];
  }
  return all.slice(0, end);
}

function allOf(root: string, room: Room): Mutant[] {
  return sourcesOf(root, room).flatMap((file) => findMutants(file, readFileSync(join(root, file), 'utf8')));
}

/**
 * Tries every mutant, in the given order. Throws if the tests fail without one. `say` receives progress lines, `keep`
 * the results after each mutant.
 */
export async function measureRoom(
  root: string,
  name: string,
  mutants: readonly Mutant[],
  seed: number,
  { say, keep }: { say(text: string): void; keep(soFar: Measured): void },
): Promise<Measured> {
  const room = rooms[name];
  const isolated = !room.isPure;
  say(`${name}: running its tests without a fault`);
  const plan = planTests(await baseline(root, room, mutants, say), mutants.length, room.isPure);
  const ofRoom = allOf(root, room).length;
  const started = performance.now();
  const outcomes: Outcome[] = [];
  const soFar = (): Measured => ({
    room: name,
    seed,
    mutants: ofRoom,
    seconds: (performance.now() - started) / 1000,
    outcomes,
  });
  await using runner = await openTestRunner({ isolated, bail: true });
  for (const [id, mutant] of mutants.entries()) {
    const { files, ms } = plan[id];
    const sources = new Map([[join(root, mutant.file), plant(readSource(root, mutant.file), mutant)]]);
    const run = files.length > 0 ? await runner.run(files, sources, startMs + 5 * ms) : undefined;
    const status = statusOf(run);
    outcomes.push({ mutant, status, ...(status === 'killed' && { killedBy: run?.failures[0] }) });
    const lost = outcomes.filter((one) => one.status === 'survived' || one.status === 'unreached').length;
    say(
      `${name}: ${outcomes.length} of ${mutants.length}, ${lost} not noticed (${mutant.file}:${mutant.line} ${status})`,
    );
    keep(soFar());
  }
  const measured = soFar();
  // The same tests in the same process without a fault: if they failed now, faults would have been counted as noticed
  // wrongly.
  const killed = outcomes.findLastIndex(({ status }) => status === 'killed');
  const control = killed < 0 ? undefined : await runner.run(plan[killed].files, new Map(), baselineMs);
  if (control && control.failures.length > 0) {
    throw new Error(
      `The tests fail without a fault after ${name} was measured:\n  ${control.failures.join('\n  ')}`,
    );
  }
  return measured;
}

function statusOf(run: TestRun | undefined): Outcome['status'] {
  if (!run) return 'unreached';
  if (run.isTimeout) return 'timeout';
  return run.failures.length > 0 ? 'killed' : 'survived';
}

function readSource(root: string, file: string): string {
  return readFileSync(join(root, file), 'utf8');
}

/** Runs the tests of a room without a fault, and records which of them reach which mutant. */
async function baseline(
  root: string,
  room: Room,
  mutants: readonly Mutant[],
  say: (text: string) => void,
): Promise<TestRun> {
  // Every file in a separate process: code that runs while a module loads is then attributed to each file that loads
  // it.
  await using runner = await openTestRunner({ isolated: true, bail: false });
  const marked = new Map(
    [...new Set(mutants.map(({ file }) => file))].map((file) => {
      const here = [...mutants.entries()].filter(([, mutant]) => mutant.file === file);
      return [join(root, file), markReached(readSource(root, file), here, 'globalThis.tomaatReach?.')];
    }),
  );
  const files = room.tests.flatMap((pattern) => filesOf(root, pattern)).map((path) => ({ path }));
  if (files.length === 0)
    return { failures: [], failed: new Map(), isTimeout: false, reached: [], durations: new Map() };
  const run = await runner.run(files, marked, baselineMs);
  if (run.failures.length === 0) return run;
  // A test with time limits may fail on a busy machine, which would count as noticing the fault. So it is left out.
  const again = await runner.run(
    [...run.failed.keys()].map((path) => ({ path })),
    new Map(),
    baselineMs,
  );
  const unsteady = new Set([...run.failed.values()].flatMap((tests) => [...tests]));
  const failsAgain = [...again.failed.values()].some(
    (tests) => tests.size === 0 || [...tests].some((test) => unsteady.has(test)),
  );
  if (unsteady.size === 0 || run.isTimeout || failsAgain) {
    throw new Error(`The tests fail without a fault; mend them first:\n  ${run.failures.join('\n  ')}`);
  }
  say(`left out, as they failed only once: ${run.failures.join('; ')}`);
  const reached = run.reached.filter(({ test }) => !unsteady.has(test));
  const durations = new Map(
    [...run.durations].map(([path, tests]) => [
      path,
      new Map([...tests].filter(([test]) => !unsteady.has(test))),
    ]),
  );
  return { ...run, reached, durations };
}

interface Plan {
  readonly files: readonly TestFile[];
  /** Their duration without a fault, ms. */
  readonly ms: number;
}

/** The test files that reach each mutant, quickest first; slow ones only if no other does. */
function planTests({ reached, durations }: TestRun, count: number, isPure: boolean): Plan[] {
  const byMutant = Array.from({ length: count }, () => new Map<string, Set<string>>());
  for (const { file, test, mutants } of reached) {
    for (const mutant of mutants) {
      const tests = byMutant[mutant].get(file) ?? new Set();
      byMutant[mutant].set(file, tests.add(test));
    }
  }
  return byMutant.map((files) => {
    const planned = [...files].map(([path, tests]) => {
      // Reached while the file loaded: any of its tests may notice.
      const isWhole = !isPure || tests.has('');
      const known = durations.get(path) ?? new Map<string, number>();
      const reaching = [...(isWhole ? known.keys() : tests)].filter((id) => id !== '');
      const quick = reaching.filter((id) => !isPure || (known.get(id) ?? 0) < slowTestMs);
      const ids = quick.length > 0 ? quick : reaching;
      const ms = ['', ...ids].reduce((sum, id) => sum + (known.get(id) ?? 0), 0);
      return { path, ms, ...(isPure && { tests: ids }) };
    });
    planned.sort((a, b) => a.ms - b.ms);
    const quick = planned.filter(({ ms }) => isPure || ms < slowFileMs);
    const tried = quick.length > 0 ? quick : planned.slice(0, 1);
    return { files: tried, ms: tried.reduce((sum, { ms }) => sum + ms, 0) };
  });
}
