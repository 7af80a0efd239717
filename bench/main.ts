/**
 * `npm run bench [-- name …] [--quick]`: runs every benchmark in turn, each in a separate process, and prints a table
 * of measured values and targets. Performance is measured, not asserted: the exit code is 0 whatever the numbers are.
 * A benchmark that fails, or produces a wrong result, is BROKEN in the table.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { run as runIntake } from './intake.ts';
import type { BenchOptions, BenchResult, Line } from './report.ts';

type Bench = (options: BenchOptions) => Promise<BenchResult>;

const benches: Readonly<Record<string, () => Promise<Bench>>> = {
  'sliding-window': async () => (await import('./sliding-window.ts')).run,
  engine: async () => (await import('./engine.ts')).run,
  windows: async () => (await import('./windows.ts')).run,
  'whole-request': async () => (await import('./whole-request.ts')).run,
  intake: async () => intake,
  'read-gzip': async () => (await import('./read-gzip.ts')).run,
  dicom: async () => (await import('./dicom.ts')).run,
  gateway: async () => (await import('./gateway.ts')).run,
  'resample-argmax': async () => (await import('./resample-argmax.ts')).run,
  'nnunet-steps': async () => (await import('./nnunet-steps.ts')).run,
  queue: async () => (await import('./queue.ts')).run,
  'job-overhead': async () => (await import('./job-overhead.ts')).run,
  'event-loop': async () => (await import('./event-loop.ts')).run,
  'model-server': async () => (await import('./model-server.ts')).run,
  brain: async () => (await import('./brain.ts')).run,
  page: async () => (await import('./page.ts')).run,
  'start-up': async () => (await import('./start-up.ts')).run,
};

/** CPU and memory of receiving an upload, for each kind of upload. */
async function intake({ quick }: BenchOptions): Promise<BenchResult> {
  const { rows } = await runIntake(
    quick ? { rounds: 2, uploadBytes: 60e6, largeUploadBytes: 120e6 } : undefined,
  );
  const lines = rows.flatMap(({ way, ratio, maxRatio, growthBytes, maxGrowthBytes }): Line[] =>
    ratio === undefined || growthBytes === undefined || maxGrowthBytes === undefined
      ? []
      : [
          { point: `upload, ${way}, over a bare socket, CPU`, measured: ratio, target: maxRatio },
          {
            point: `upload, ${way}, memory`,
            measured: growthBytes / 1e6,
            target: maxGrowthBytes / 1e6,
            unit: 'MB',
          },
        ],
  );
  return { lines };
}

/** What a benchmark's process reports before it exits. */
type Report = BenchResult | { readonly broken: string };

/** Runs one benchmark in a separate process; its output is forwarded to this one's. */
async function measure(name: string, quick: boolean): Promise<Report> {
  const child = fork(fileURLToPath(import.meta.url), ['--inside', name, ...(quick ? ['--quick'] : [])], {
    execArgv: ['--conditions=tomaat-source'],
  });
  let report: Report | undefined;
  child.on('message', (message) => {
    report = message as Report;
  });
  const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
  return report ?? { broken: `its process ended with ${signal ?? code}` };
}

async function runInside(name: string, quick: boolean): Promise<void> {
  // The caller has gone.
  const leave = () => process.exit(1);
  process.once('disconnect', leave);
  process.once('SIGINT', leave);
  process.once('SIGTERM', leave);
  let report: Report;
  try {
    const run = await benches[name]();
    report = await run({ quick });
  } catch (error) {
    console.error(error);
    report = { broken: error instanceof Error ? error.message.split('\n')[0] : String(error) };
  }
  process.off('disconnect', leave);
  process.send?.(report, () => process.disconnect());
}

function format({ point, measured, target, unit }: Line): string {
  const number = (value: number) =>
    `${unit === undefined ? value.toFixed(3) : value.toFixed(1)}${unit ? ` ${unit}` : ''}`;
  const verdict = target === undefined ? '' : measured <= target ? 'ok' : 'over';
  const wanted = target === undefined ? '' : `≤ ${unit ? `${target} ${unit}` : target.toFixed(2)}`;
  return `${point.padEnd(48)} ${number(measured).padStart(11)}   ${wanted.padEnd(10)} ${verdict}`;
}

async function main(names: readonly string[], quick: boolean): Promise<void> {
  const table: string[] = [];
  for (const name of names) {
    console.log(`\n── ${name} ──`);
    const start = performance.now();
    const report = await measure(name, quick);
    console.log(`   (${((performance.now() - start) / 1000).toFixed(0)} s)`);
    if ('lines' in report) table.push(...report.lines.map(format));
    else if ('skipped' in report) table.push(`${name.padEnd(48)} skipped: ${report.skipped}`);
    else table.push(`${name.padEnd(48)} BROKEN: ${report.broken}`);
  }
  const machine = `${availableParallelism()} × ${cpus()[0]?.model ?? process.arch}, Node ${process.versions.node}`;
  console.log(`\n${machine}, load ${loadavg()[0].toFixed(1)}${quick ? ', quick' : ''}`);
  if (loadavg()[0] > availableParallelism()) {
    console.log(
      'The machine is busy with other work, too: times are longer than they need be, ratios and CPU are fair.',
    );
  }
  console.log(table.join('\n'));
}

const { values, positionals } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, inside: { type: 'string' } },
  allowPositionals: true,
});
const unknown = positionals.filter((name) => !Object.hasOwn(benches, name));
if (unknown.length > 0) {
  console.error(
    `There is no benchmark ${unknown.join(', ')}. There are: ${Object.keys(benches).join(', ')}.`,
  );
  process.exitCode = 2;
} else if (values.inside !== undefined) await runInside(values.inside, values.quick);
else await main(positionals.length > 0 ? positionals : Object.keys(benches), values.quick);
