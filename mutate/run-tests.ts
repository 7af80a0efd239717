/**
 * Runs test files against sources with faults in them: a warm vitest that receives the changed text instead of the
 * file's.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { createVitest, type TestModule } from 'vitest/node';
import type { Reached } from './in-worker.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

export interface TestFile {
  readonly path: string;
  /** The tests in it to run; all of them if missing. */
  readonly tests?: readonly string[];
}

export interface TestRun {
  /** What failed, in words; empty if everything passed. */
  readonly failures: readonly string[];
  /** The test files that failed, and the ids of the failed tests in each. */
  readonly failed: ReadonlyMap<string, ReadonlySet<string>>;
  readonly isTimeout: boolean;
  readonly reached: readonly Reached[];
  /** Duration of each test, ms, by id; under '' the duration of the file without its tests. */
  readonly durations: ReadonlyMap<string, ReadonlyMap<string, number>>;
}

export interface TestRunner extends AsyncDisposable {
  /**
   * Runs the files with `sources` (whole text by absolute path) instead of the text on disk, until one fails if
   * `bail`. A run longer than `limitMs` is killed and counts as failed.
   */
  run(files: readonly TestFile[], sources: ReadonlyMap<string, string>, limitMs: number): Promise<TestRun>;
}

/** Opens the runner. `isolated`: every test file in a separate process. `bail`: the first failure ends a run. */
export async function openTestRunner({
  isolated,
  bail,
}: {
  isolated: boolean;
  bail: boolean;
}): Promise<TestRunner> {
  const folder = mkdtempSync(join(tmpdir(), 'tomaat-mutate-'));
  process.env.TOMAAT_MUTATE_FOLDER = folder;
  let sources: ReadonlyMap<string, string> = new Map();
  /** Those that ran since this run began: vitest's own list still holds earlier runs with their failures. */
  let ended: TestModule[] = [];
  const silent = () => new Writable({ write: (_chunk, _encoding, done) => done() });
  const vitest = await createVitest(
    'test',
    {
      root,
      watch: false,
      bail: bail ? 1 : 0,
      isolate: isolated,
      // It would keep the text from disk, or of the previous fault.
      fsModuleCache: false,
      maxWorkers: 1,
      reporters: [{ onTestModuleEnd: (module) => void ended.push(module) }],
      setupFiles: [fileURLToPath(new URL('./in-worker.ts', import.meta.url))],
    },
    {
      plugins: [
        {
          name: 'tomaat-mutate',
          enforce: 'pre',
          transform(_code, id) {
            const source = sources.get(id.split('?')[0]);
            return source === undefined ? undefined : { code: source, map: null };
          },
        },
      ],
    },
    { stdout: silent(), stderr: silent() },
  );
  await vitest.standalone();
  const project = vitest.getRootProject();

  return {
    async run(files, changed, limitMs) {
      for (const path of [...sources.keys(), ...changed.keys()]) vitest.invalidateFile(path);
      sources = changed;
      ended = [];
      for (const name of ['pids', 'reached']) writeFileSync(join(folder, name), '');
      let isTimeout = false;
      // After the limit, repeatedly: the next file of the run may hang as the first did.
      const end = performance.now() + limitMs;
      const limit = setInterval(() => {
        if (performance.now() < end) return;
        isTimeout = true;
        endAll(lines(folder, 'pids').map(Number));
      }, 1000);
      try {
        const specifications = files.map(({ path, tests }) =>
          project.createSpecification(resolve(root, path), tests ? { testIds: [...tests] } : undefined),
        );
        const { unhandledErrors } = await vitest.runTestSpecifications(specifications);
        const failures = [...ended.flatMap(failuresOf), ...unhandledErrors.map(messageOf)];
        return {
          failures: isTimeout ? ['it took too long'] : failures,
          failed: new Map(
            ended.filter((module) => !module.ok()).map((module) => [module.moduleId, failedIn(module)]),
          ),
          isTimeout,
          reached: lines(folder, 'reached').map((line) => JSON.parse(line) as Reached),
          durations: new Map(ended.map((module) => [module.moduleId, durationsOf(module)])),
        };
      } finally {
        clearInterval(limit);
      }
    },
    async [Symbol.asyncDispose]() {
      await vitest.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function lines(folder: string, name: string): string[] {
  return readFileSync(join(folder, name), 'utf8').split('\n').filter(Boolean);
}

function endAll(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      // It has already exited.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
}

/** The text of any thrown value: vitest passes errors of other processes as plain objects without a prototype. */
export function messageOf(error: unknown): string {
  const { message } = (error ?? {}) as { message?: unknown };
  return typeof message === 'string' ? message : inspect(error);
}

function failuresOf(module: TestModule): string[] {
  const tests = [...module.children.allTests('failed')].map(
    (test) => `${test.fullName}: ${test.result().errors?.[0]?.message ?? ''}`,
  );
  const errors = [...module.errors(), ...[...module.children.allSuites()].flatMap((suite) => suite.errors())];
  return [...tests, ...errors.map(({ message }) => message)].map(
    (text) => `${module.relativeModuleId} > ${text.split('\n')[0]}`,
  );
}

function failedIn(module: TestModule): Set<string> {
  return new Set([...module.children.allTests('failed')].map(({ id }) => id));
}

function durationsOf(module: TestModule): Map<string, number> {
  const tests = [...module.children.allTests()].map(
    (test) => [test.id, test.diagnostic()?.duration ?? 0] as const,
  );
  const { duration, environmentSetupDuration, prepareDuration, collectDuration, setupDuration } =
    module.diagnostic();
  const all = duration + environmentSetupDuration + prepareDuration + collectDuration + setupDuration;
  const inTests = tests.reduce((sum, [, ms]) => sum + ms, 0);
  return new Map([...tests, ['', Math.max(0, all - inTests)]]);
}
