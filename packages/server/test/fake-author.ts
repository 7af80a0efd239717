import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** What a stand-in for an author's Python answers. */
export interface FakeAuthor {
  /** A plan that the exporter wrote. */
  readonly plan?: unknown;
  /** An exported network. */
  readonly network?: string;
  /** The author's label map by the name of the first file of a case. */
  readonly results?: Readonly<Record<string, string>>;
  /** How many voxels of each label map it says were fractions. */
  readonly fractional?: number;
  /** What it says of the network. */
  readonly notes?: readonly string[];
  /** A fault instead of a plan. */
  readonly fault?: { readonly code: string; readonly path: string; readonly text: string };
  /** What it writes to stderr before it ends with code 3 and no answer. */
  readonly lastWords?: string;
  /** Whether it writes what is not of the protocol, and then waits. */
  readonly hangs?: boolean;
}

/**
 * A program in the place of an author's Python: it takes the arguments of `exporter.py` and answers with what was recorded, since no
 * test has torch. Returns its path.
 */
export function fakePython(folder: string, author: FakeAuthor): string {
  const program = join(folder, 'python');
  writeFileSync(
    program,
    `#!${process.execPath}
const { copyFileSync } = require('node:fs');
const { basename } = require('node:path');
const author = ${JSON.stringify(author)};
const [, , , command, ...rest] = process.argv;
const valuesOf = (flag) => rest.flatMap((word, i) => (rest[i - 1] === flag ? [word] : []));
const say = (line) => process.stdout.write(JSON.stringify(line) + '\\n');
say({ type: 'progress', text: 'fake ' + command });
process.stdout.write('not of the protocol\\n{"type":"other"}\\n');
if (author.hangs) setInterval(() => {}, 1000);
else if (author.lastWords) {
  process.stderr.write('Traceback\\n' + author.lastWords + '\\n');
  process.exitCode = 3;
} else if (author.fault) {
  say({ type: 'fault', ...author.fault });
  process.exitCode = 1;
} else if (command === 'plan') say({ type: 'result', result: author.plan });
else if (command === 'export') {
  copyFileSync(author.network, valuesOf('--out')[0]);
  say({ type: 'result', result: { exporter: 'legacy', anySize: true, window: [32, 48, 48], maxDifference: 1e-6, maxScore: 9, compared: [{ of: basename(JSON.parse(valuesOf('--case')[0]).inputs[0]), maxDifference: 1e-6, maxScore: 9 }], tried: [], notes: author.notes } });
} else if (command === 'run') {
  const cases = valuesOf('--case').map(JSON.parse);
  for (const one of cases) {
    copyFileSync(author.results[basename(one.inputs[0])], one.out);
    one.fractional = author.fractional ?? 0;
  }
  say({ type: 'result', result: { cases } });
} else say({ type: 'result', result: { folder: '', stages: [] } });
`,
  );
  chmodSync(program, 0o755);
  return program;
}
