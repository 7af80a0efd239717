import { readFileSync } from 'node:fs';
import { maySkip } from '../test/may-skip.ts';

/**
 * Prints what a test run counted, as the last line of CI. Fails if a test failed, if nothing ran, or if a test was
 * skipped that test/may-skip.ts does not name.
 */
interface Report {
  numPassedTests: number;
  numFailedTests: number;
  numFailedTestSuites: number;
  testResults: { name: string; assertionResults: { status: string; fullName: string }[] }[];
}
const report = JSON.parse(readFileSync(process.argv[2], 'utf8')) as Report;
const skipped = report.testResults.flatMap(({ name, assertionResults }) =>
  assertionResults
    .filter(({ status }) => status !== 'passed' && status !== 'failed')
    .map(({ fullName }) => ({ file: name, test: fullName })),
);
const reasons = new Map<string, number>();
let unnamed = 0;
for (const { file, test } of skipped) {
  const entry = maySkip.find((one) => one.holds && file.endsWith(one.file) && (one.test?.test(test) ?? true));
  if (entry) reasons.set(entry.reason, (reasons.get(entry.reason) ?? 0) + 1);
  else {
    unnamed++;
    console.log(`Skipped, and test/may-skip.ts does not name it: ${file} › ${test}`);
  }
}
for (const [reason, count] of reasons) console.log(`${count} skipped: ${reason}`);
const failed = Math.max(report.numFailedTests, report.numFailedTestSuites > 0 ? 1 : 0) + unnamed;
console.log(`${report.numPassedTests} passed, ${failed} failed`);
process.exitCode = report.numPassedTests > 0 && failed === 0 ? 0 : 1;
