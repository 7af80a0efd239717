import { readFileSync } from 'node:fs';

/** Prints what a test run counted, as the last line of CI; fails if nothing ran. */
interface Report {
  numPassedTests: number;
  numFailedTests: number;
  numFailedTestSuites: number;
  numPendingTests: number;
}
const report = JSON.parse(readFileSync(process.argv[2], 'utf8')) as Report;
const failed = Math.max(report.numFailedTests, report.numFailedTestSuites > 0 ? 1 : 0);
console.log(`${report.numPassedTests} passed, ${failed} failed, ${report.numPendingTests} skipped`);
process.exitCode = report.numPassedTests > 0 && failed === 0 ? 0 : 1;
