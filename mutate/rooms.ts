/** What `npm run mutate` plants faults in, room by room, and the tests that should notice. */
import { globSync } from 'node:fs';

export interface Room {
  /** Globs relative to the root; tests, fixtures and generated files are excluded. */
  readonly sources: string;
  /** Globs of the test files to run, where they reach the fault. */
  readonly tests: readonly string[];
  /**
   * Pure functions: their tests are independent, so they share one process, and only those that reach a fault run.
   * Elsewhere a test file runs whole, in a separate process.
   */
  readonly isPure: boolean;
}

/**
 * A folder of a package, tried with the tests beside its sources only: a failure by way of another room says little
 * about where the fault is.
 */
const folder = (path: string, isPure: boolean): Room => ({
  sources: `${path}/**/*.ts`,
  tests: [`${path}/**/*.test.ts`],
  isPure,
});
const core = (name: string): Room => folder(`packages/core/src/${name}`, true);
const server = (name: string): Room => folder(`packages/server/src/${name}`, false);

export const rooms: Readonly<Record<string, Room>> = {
  formats: core('formats'),
  geometry: core('geometry'),
  inferers: core('inferers'),
  labels: core('labels'),
  transforms: core('transforms'),
  app: core('app'),
  dicom: core('dicom'),
  store: server('store'),
  access: server('access'),
  trust: server('trust'),
  audit: server('audit'),
  'page-labels': {
    sources: 'packages/web/src/viewer/labels.ts',
    tests: ['packages/web/src/viewer/*.test.ts'],
    isPure: true,
  },
};

/** The paths relative to the root that match a glob, with slashes, sorted. */
export function filesOf(root: string, pattern: string): string[] {
  return globSync(pattern, { cwd: root })
    .map((file) => file.replaceAll('\\', '/'))
    .sort();
}

/** The sources of a room to plant faults in. */
export function sourcesOf(root: string, room: Room): string[] {
  return filesOf(root, room.sources).filter(
    (file) => !/\.test\.ts$|\.gen\.ts$|\/fixtures\.ts$|\.d\.ts$/.test(file),
  );
}
