import { globSync } from 'node:fs';
import { defineConfig } from 'vitest/config';
import { FileOrder, sharesProcess } from './test/file-order.ts';

const find = (...patterns: string[]) => globSync(patterns, { cwd: import.meta.dirname });
// Each file with a process of its own loads and compiles the sources again, which takes longer than most tests.
const shared = find('packages/*/src/**/*.test.ts', 'packages/server/test/**/*.test.ts').filter((path) =>
  sharesProcess(`${import.meta.dirname}/${path}`),
);
const own = find('packages/*/{src,test}/**/*.test.ts', 'test/**/*.test.ts').filter(
  (path) => !shared.includes(path),
);
const globalSetup = [
  'test/code-cache.ts',
  'packages/web/test/support/shared-page.ts',
  'packages/server/test/support/shared-postgres.ts',
];

export default defineConfig({
  resolve: { conditions: ['tomaat-source'] },
  ssr: { resolve: { conditions: ['tomaat-source', 'node'] } },
  test: {
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // A loaded machine may need more than the second that is built in.
    expect: { poll: { timeout: 20_000 } },
    // Workers and servers that tests start must find the sources of the workspace's packages.
    execArgv: ['--conditions=tomaat-source'],
    sequence: { sequencer: FileOrder },
    projects: [
      {
        extends: true,
        test: {
          name: 'own process',
          include: own,
          globalSetup,
        },
      },
      {
        extends: true,
        test: { name: 'shared process', include: shared, isolate: false, globalSetup },
      },
    ],
  },
});
