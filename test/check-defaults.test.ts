import { describe, expect, it } from 'vitest';
import { runCheck } from './run-check.ts';

/** Of one file of the server. */
const check = (text: string, file = 'server/src/a.ts') =>
  runCheck('check-defaults.ts', {
    'client/src/index.ts': '',
    'web/src/index.ts': '',
    'server/src/index.ts': '',
    [file]: text,
  });

describe('check-defaults.ts', () => {
  it.each([
    ['a parameter', 'export const a = ({ workers = 2 }) => workers;', 'workers has a second default here.'],
    ['a fallback', 'export const a = (o) => o?.keepMinutes ?? 60;', 'keepMinutes has a second default here.'],
    ['a product', 'export const a = (o) => o.maxVoxels || 2 ** 30;', 'maxVoxels has a second default here.'],
    [
      'a list',
      "export const a = ({ oidcScopes = ['openid'] }) => 1;",
      'oidcScopes has a second default here.',
    ],
    [
      'a schema',
      'export const a = { maxQueued: z.int().default(9).describe("q") };',
      'maxQueued has a second default here.',
    ],
    ['a port', 'export const a = 9443;', 'The default port 9443 stands here.'],
    [
      'a text',
      "export const a = '--drain-seconds <n>  (default: 20)';",
      'The default of drainSeconds, 20, is repeated',
    ],
  ])('refuses %s', (_, text, what) => {
    const { faults, status } = check(`// A line.\n${text}\n`);
    expect(faults).toEqual([expect.stringContaining(`packages/server/src/a.ts:2: ${what}`)]);
    expect(status).toBe(1);
  });

  it('takes defaults of settings.ts, empty values, other names and tests', () => {
    const text = `import { settings } from './settings.ts';
export const a = ({ workers = settings.workers.default, host = '', size = 9 }) => [workers, host, size];
export const b = { port: z.int().default(settings.port.default), announce: z.array().default([]) };
export const c = '--drain-seconds <n>  seconds';
`;
    expect(check(text)).toEqual({ faults: [], status: 0 });
    expect(check('export const a = 9443;', 'server/src/a.test.ts').status).toBe(0);
    expect(check('export const a = 9443;', 'web/src/a.ts').status).toBe(1);
  });
});
