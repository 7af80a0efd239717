import { describe, expect, it } from 'vitest';
import { runCheck } from './run-check.ts';

const check = (files: Readonly<Record<string, string>>) => runCheck('check-imports.ts', files);

describe('check-imports.ts', () => {
  it('takes imports from the room itself and from rooms below', () => {
    const { faults, status } = check({
      'server/src/cli/a.ts': "import { b } from './b.ts';\nimport { c } from '../store/c.ts';\n",
      'server/src/cli/b.ts': 'export const b = 1;\n',
      'server/src/store/c.ts': "import { version } from '../version.ts';\nexport const c = version;\n",
      'server/src/version.ts': "export const version = '1';\n",
    });
    expect([faults, status]).toEqual([[], 0]);
  });

  it.each([
    ['server/src/store/a.ts', '../access/b.ts', 'access is not below store'],
    ['server/src/store/a.ts', '../server.ts', 'server.ts is not below store'],
    ['server/src/access/a.ts', '../worker/b.ts', 'worker is not below access'],
    ['server/src/attic/a.ts', '../store/b.ts', 'attic has no place in serverRooms'],
  ])('refuses that %s imports a type from %s', (file, target, why) => {
    const { faults, status } = check({ [file]: `import type { B } from '${target}';\n` });
    expect(faults).toEqual([expect.stringContaining(`${file} imports ${target}: ${why}`)]);
    expect(status).toBe(1);
  });

  it('refuses a circle, of types too, in every package', () => {
    const circle = {
      'core/src/a.ts': "import type { B } from './in/b.ts';\nexport type A = B;\n",
      'core/src/in/b.ts': "import { c } from '../c.ts';\nexport type B = typeof c;\n",
      'core/src/c.ts': "import type {\n  A,\n} from './a.ts';\nexport const c: A | 1 = 1;\n",
    };
    expect(check(circle)).toEqual({
      faults: ['packages/core/src has a circle of imports (types count): a.ts → in/b.ts → c.ts → a.ts'],
      status: 1,
    });
  });
});
