/**
 * Start-up times: the command line, `tomaat up` until it prints its addresses, a child until it accepts work. All but
 * the first of each find their code already compiled, as on any machine where tomaat has run before.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openApp } from '../packages/server/src/apps.ts';
import { startChild } from '../packages/server/src/worker/child-process.ts';
import { cli, cpuSeconds, repository, serveApps } from './processes.ts';
import { type BenchOptions, type BenchResult, median } from './report.ts';

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  process.env.NODE_COMPILE_CACHE = join(folder, 'code');
  try {
    const versionMs = await repeat(quick ? 5 : 15, async () => {
      const start = performance.now();
      await once(spawn(process.execPath, [cli, '--version'], { stdio: 'ignore' }), 'exit');
      return performance.now() - start;
    });
    let data = 0;
    const upMs = await repeat(quick ? 3 : 7, async () => {
      await using server = await serveApps('up', [], join(folder, `up-${data++}`));
      return server.readyMs;
    });
    const app = await openApp(join(repository, 'apps/threshold'));
    const childCpuMs: number[] = [];
    const childMs = await repeat(quick ? 7 : 21, async () => {
      const start = performance.now();
      const child = await startChild(
        app,
        () => undefined,
        () => {},
      );
      const ms = performance.now() - start;
      childCpuMs.push((cpuSeconds(child.pid) ?? 0) * 1000);
      // Long enough for it to save its compiled code, which it does after it is ready.
      await new Promise((resolve) => setTimeout(resolve, 200));
      await child.stop();
      return ms;
    });
    print('tomaat --version', versionMs);
    print('tomaat up, ready', upMs);
    print('child, ready', childMs);
    return {
      lines: [
        { point: 'tomaat --version', measured: median(versionMs), unit: 'ms' },
        { point: 'tomaat up until ready', measured: median(upMs), unit: 'ms' },
        { point: 'child until ready', measured: median(childMs), target: 300, unit: 'ms' },
        { point: 'child until ready, CPU', measured: median(childCpuMs.slice(1)), unit: 'ms' },
      ],
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The times of a number of runs, after one warm-up run. */
async function repeat(times: number, once: () => Promise<number>): Promise<number[]> {
  await once();
  const found: number[] = [];
  for (let i = 0; i < times; i++) found.push(await once());
  return found;
}

function print(what: string, ms: readonly number[]): void {
  const [low, high] = [Math.min(...ms), Math.max(...ms)];
  console.log(
    `${what.padEnd(18)} ${median(ms).toFixed(0).padStart(5)} ms (${low.toFixed(0)}-${high.toFixed(0)})`,
  );
}
