import { readFileSync } from 'node:fs';
import { failsOnPostgres } from '../test/fails-on-postgres.ts';
import { maySkip } from '../test/may-skip.ts';

/**
 * `count-tests REPORT [REPORT OF A SECOND RUN]`: prints the counts of a test run, as the last line of CI. Fails if a
 * test failed, if nothing ran, or if a test was skipped that test/may-skip.ts does not name. For files in a second
 * run, its results count; tests that passed only then are listed.
 *
 * `count-tests --failed REPORT`: prints the files with failures, one per line.
 *
 * `count-tests --postgres REPORT`: the same as the first, of a run on PostgreSQL, in which tests that test/fails-on-postgres.ts names
 * may fail; those that passed all the same are listed.
 */
interface Report {
  testResults: FileResult[];
}
interface FileResult {
  /** The path of the file. */
  name: string;
  status: string;
  assertionResults: { status: string; fullName: string }[];
}

const readReport = (path: string): FileResult[] =>
  (JSON.parse(readFileSync(path, 'utf8')) as Report).testResults;
const hasFailed = ({ status, assertionResults }: FileResult): boolean =>
  status === 'failed' || assertionResults.some((test) => test.status === 'failed');

function printFailed(path: string): void {
  for (const file of readReport(path)) if (hasFailed(file)) console.log(file.name);
}

/** True if everything passed. */
function count([first, second]: readonly string[]): boolean {
  const files = new Map(readReport(first).map((file) => [file.name, file]));
  for (const file of second === undefined ? [] : readReport(second)) {
    const before = files.get(file.name);
    if (before && hasFailed(before) && !hasFailed(file))
      console.log(`Passed at the second try: ${file.name}`);
    files.set(file.name, file);
  }
  let passed = 0;
  let failed = 0;
  const reasons = new Map<string, number>();
  for (const file of files.values()) {
    const tests = file.assertionResults;
    passed += tests.filter(({ status }) => status === 'passed').length;
    const failedTests = tests.filter(({ status }) => status === 'failed').length;
    // Or what precedes its tests.
    failed += hasFailed(file) ? Math.max(1, failedTests) : 0;
    for (const { status, fullName } of tests) {
      if (status === 'passed' || status === 'failed') continue;
      const reason = maySkip.find(
        (one) => one.holds && file.name.endsWith(one.file) && (one.test?.test(fullName) ?? true),
      )?.reason;
      if (reason !== undefined) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
      else {
        failed++;
        console.log(`Skipped, and test/may-skip.ts does not name it: ${file.name} › ${fullName}`);
      }
    }
  }
  for (const [reason, skipped] of reasons) console.log(`${skipped} skipped: ${reason}`);
  console.log(`${passed} passed, ${failed} failed`);
  return passed > 0 && failed === 0;
}

/** True if nothing failed but what test/fails-on-postgres.ts names. */
function countOnPostgres(path: string): boolean {
  let passed = 0;
  let expected = 0;
  const faults: string[] = [];
  const files = readReport(path);
  const passing = new Set(failsOnPostgres.filter((one) => files.some(({ name }) => name.endsWith(one.file))));
  for (const file of files) {
    const named = failsOnPostgres.filter((one) => file.name.endsWith(one.file));
    const isBroken =
      file.status === 'failed' && !file.assertionResults.some(({ status }) => status === 'failed');
    const tests = isBroken ? [{ status: 'failed', fullName: 'before its tests' }] : file.assertionResults;
    for (const { status, fullName } of tests) {
      const one = named.find(({ test }) => isBroken || (test?.test(fullName) ?? true));
      if (status === 'passed') passed++;
      else if (status !== 'failed') continue;
      else if (one) {
        expected++;
        passing.delete(one);
      } else faults.push(`Failed: ${file.name} › ${fullName}`);
    }
  }
  for (const { file, test } of passing)
    console.log(`Passed, although test/fails-on-postgres.ts names it: ${file} ${test?.source ?? ''}`);
  for (const fault of faults) console.log(fault);
  console.log(`${passed} passed, ${expected} failed as expected, ${faults.length} failed`);
  return passed > 0 && faults.length === 0;
}

const [word, ...rest] = process.argv.slice(2);
if (word === '--failed') printFailed(rest[0]);
else if (word === '--postgres') process.exitCode = countOnPostgres(rest[0]) ? 0 : 1;
else process.exitCode = count([word, ...rest]) ? 0 : 1;
