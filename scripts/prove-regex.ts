import { createRequire } from 'node:module';
import { parentPort } from 'node:worker_threads';

/** A thread of check-regexes.ts: proves the expressions that it receives, until there are no more. */
export interface Verdict {
  status: 'safe' | 'vulnerable' | 'unknown';
  /** What is wrong. */
  what: string;
}

interface Diagnostics {
  status: Verdict['status'];
  complexity?: { type: string; degree?: number };
  attack?: { pattern: string };
  error?: { kind: string };
}
interface Recheck {
  checkSync(pattern: string, flags: string, options: { checker: 'automaton'; timeout: number }): Diagnostics;
}

/** More than any expression here takes on a machine that runs ten things at once. */
const timeout = 60_000;
const { checkSync } = createRequire(import.meta.url)('recheck/lib/browser.js') as Recheck;

parentPort?.on('message', (one: { key: string; pattern: string; flags: string } | undefined) => {
  if (!one) return parentPort?.close();
  const found = checkSync(one.pattern, one.flags, { checker: 'automaton', timeout });
  const verdict: Verdict = { status: found.status, what: whatOf(found) };
  parentPort?.postMessage({ key: one.key, verdict });
});

function whatOf({ complexity, attack, error }: Diagnostics): string {
  if (error) return `cannot be proved linear (${error.kind})`;
  const degree = complexity?.degree === undefined ? '' : ` of degree ${complexity.degree}`;
  return `takes ${complexity?.type} time${degree}, for instance for ${attack?.pattern}`;
}
