/**
 * `npm run mutate [-- --room ROOM …] [--sample N] [--seed N] [--file PART] [--json FILE] [--again FILE]`: plants
 * small faults in the sources, one at a time, and runs the tests that reach them. A fault that no test notices means
 * a missing test, or a change without effect. Files are not modified: the tests are given the changed text. The same
 * seed makes the same sample.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type Measured, measureRoom, type Outcome, sampleOf } from './measure.ts';
import type { Mutant } from './mutants.ts';
import { rooms } from './rooms.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

const help = `npm run mutate -- [options]

Plants small faults in the sources, one at a time, and tells which of them no test notices.

  --room ROOM    A room to measure; may be repeated. Default: all of them.
                 Rooms: ${Object.keys(rooms).join(', ')}.
  --sample N     How many faults of each room are tried. Default: 100. A smaller sample is the start of a larger one.
  --seed N       The sample: the same number, the same faults. Default: 1.
  --file PART    Only faults in files whose path has this part; may be repeated.
  --json FILE    Write the outcome of every fault to a file, after each one.
  --again FILE   Try only the faults that survived in this file of --json, after tests were added.
  --help         Print this text.

The exit code is 0 whatever the score is, 1 if the tests fail without a fault, and 2 for unknown options.`;

interface Report {
  readonly rooms: readonly Measured[];
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      room: { type: 'string', multiple: true },
      sample: { type: 'string', default: '100' },
      seed: { type: 'string', default: '1' },
      file: { type: 'string', multiple: true, default: [''] },
      json: { type: 'string' },
      again: { type: 'string' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    console.log(help);
    return;
  }
  const names = values.room ?? Object.keys(rooms);
  for (const name of names) {
    if (Object.hasOwn(rooms, name)) continue;
    throw new UsageError(`"${name}" is not a room. Available: ${Object.keys(rooms).join(', ')}.`);
  }
  const sample = wholeNumber('--sample', values.sample, 1);
  const seed = wholeNumber('--seed', values.seed, 0);
  const earlier = values.again === undefined ? undefined : survivorsOf(values.again);
  const measured: Measured[] = [];
  for (const name of names) {
    const of = (path: string) => values.file.some((part) => path.includes(part));
    const mutants = earlier
      ? (earlier.get(name) ?? []).filter(({ file }) => of(file))
      : sampleOf(root, rooms[name], sample, seed, of);
    if (mutants.length === 0) continue;
    const keep = (soFar: Measured) => {
      if (values.json !== undefined) writeReport(values.json, { rooms: [...measured, soFar] });
    };
    const result = await measureRoom(root, name, mutants, seed, { say, keep });
    measured.push(result);
    print(result);
  }
  // Vitest sets it to 1 after a failed test, which is expected here.
  process.exitCode = 0;
}

/** Atomically, so that the report is complete whenever this process is stopped. */
function writeReport(file: string, report: Report): void {
  writeFileSync(`${file}.part`, `${JSON.stringify(report, null, 2)}\n`);
  renameSync(`${file}.part`, file);
}

function survivorsOf(file: string): Map<string, Mutant[]> {
  const report = JSON.parse(readFileSync(file, 'utf8')) as Report;
  return new Map(
    report.rooms.map(({ room, outcomes }) => [
      room,
      outcomes
        .filter(({ status }) => status === 'survived' || status === 'unreached')
        .map(({ mutant }) => locate(mutant)),
    ]),
  );
}

/** The mutant, if its source text is still at the same position; throws otherwise. */
function locate(mutant: Mutant): Mutant {
  const text = readFileSync(join(root, mutant.file), 'utf8');
  if (text.slice(mutant.start, mutant.end) === mutant.original) return mutant;
  throw new UsageError(`${mutant.file} has changed since: measure it again.`);
}

class UsageError extends Error {}

function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new UsageError(`${name} must be a whole number from ${least}, not "${text}".`);
}

function say(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
  else console.error(text);
}

function print({ room, mutants, outcomes, seed, seconds }: Measured): void {
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  const count = (status: Outcome['status']) => outcomes.filter((one) => one.status === status).length;
  const noticed = count('killed') + count('timeout');
  console.log(
    `${room.padEnd(12)} ${((100 * noticed) / outcomes.length).toFixed(1)} % of ${outcomes.length} (seed ${seed}, of ${mutants}): ` +
      `${count('killed')} killed, ${count('timeout')} timed out, ${count('survived')} survived, ${count('unreached')} unreached, ` +
      `${(seconds / outcomes.length).toFixed(1)} s each`,
  );
  const byPlace = [...outcomes].sort(
    ({ mutant: a }, { mutant: b }) => a.file.localeCompare(b.file) || a.start - b.start,
  );
  for (const { status, mutant } of byPlace) {
    if (status !== 'survived' && status !== 'unreached') continue;
    const { file, line, operator, original, replacement } = mutant;
    const note = status === 'unreached' ? ', no test comes here' : '';
    console.log(
      `  ${file}:${line} (${operator}${note})\n    - ${oneLine(original)}\n    + ${oneLine(replacement)}`,
    );
  }
}

function oneLine(text: string): string {
  const line = text.replaceAll('\n', ' ').trim();
  return line.length > 150 ? `${line.slice(0, 150)} …` : line;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await main();
  } catch (error) {
    if (
      !(error instanceof UsageError) &&
      (error as NodeJS.ErrnoException).code !== 'ERR_PARSE_ARGS_UNKNOWN_OPTION'
    ) {
      console.error(error instanceof Error ? error.message : error);
      process.exit(1);
    }
    console.error(`${(error as Error).message} npm run mutate -- --help lists the options.`);
    process.exitCode = 2;
  }
}
