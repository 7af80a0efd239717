import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { cluster } from '../../../test/torture/cluster.ts';
import { postgresBin } from './support/postgres.ts';

/* The short form of `npm run torture -- cluster`. */

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-cluster-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

it.skipIf(!postgresBin)(
  'servers over one PostgreSQL lose and double nothing, whatever is killed',
  { timeout: 240_000 },
  async () => {
    const only = ['child', 'replica'] as const;
    const findings = await cluster(folder, { seconds: 0, seed: 1, only });
    expect(findings.filter(({ ok, what }) => !ok && !/given up/.test(what))).toEqual([]);
  },
);
