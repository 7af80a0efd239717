/**
 * Runs in each test process before the test file: records its process id, so that it can be killed if a fault makes
 * it loop, and which test reached which fault. Both go to the folder TOMAAT_MUTATE_FOLDER.
 */
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach } from 'vitest';

/**
 * One line of the file `reached`: the faults that a test reached; those reached while its file loaded if `test` is
 * empty.
 */
export interface Reached {
  readonly file: string;
  readonly test: string;
  readonly mutants: readonly number[];
}

declare global {
  var tomaatReach: ((mutant: number) => void) | undefined;
}

const folder = process.env.TOMAAT_MUTATE_FOLDER;
if (folder === undefined) throw new Error('TOMAAT_MUTATE_FOLDER is missing: start this by npm run mutate');
appendFileSync(join(folder, 'pids'), `${process.pid}\n`);

let file = '';
let test = '';
const reached = new Map<string, Set<number>>();
globalThis.tomaatReach = (mutant) => {
  let mutants = reached.get(test);
  if (!mutants) reached.set(test, (mutants = new Set()));
  mutants.add(mutant);
};
beforeEach(({ task }) => {
  file = task.file.filepath;
  test = task.id;
});
afterEach(() => {
  test = '';
});
afterAll(() => {
  const lines = [...reached].map(([test, mutants]): Reached => ({ file, test, mutants: [...mutants] }));
  appendFileSync(join(folder, 'reached'), lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
});
