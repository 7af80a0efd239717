import { defineConfig } from 'vitest/config';

export default defineConfig({
  resolve: { conditions: ['tomaat-source'] },
  ssr: { resolve: { conditions: ['tomaat-source', 'node'] } },
  test: {
    include: ['packages/*/src/**/*.test.ts', 'packages/*/test/**/*.test.ts', 'test/**/*.test.ts'],
    globalSetup: ['packages/web/test/support/shared-page.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // A loaded machine may need more than the second that is built in.
    expect: { poll: { timeout: 20_000 } },
    // Workers and servers that tests start must find the sources of the workspace's packages.
    execArgv: ['--conditions=tomaat-source'],
  },
});
