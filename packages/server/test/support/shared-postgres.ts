import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stopPostgresOf } from './postgres.ts';

/** The folder of the PostgreSQL server that all test files of a run share (`startPostgres()`). Called by vitest, once for each project. */
export default async function openSharedPostgres(): Promise<(() => Promise<void>) | undefined> {
  if (process.env.TOMAAT_TEST_POSTGRES !== undefined) return undefined;
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-postgres-'));
  process.env.TOMAAT_TEST_POSTGRES = folder;
  return async () => {
    delete process.env.TOMAAT_TEST_POSTGRES;
    await stopPostgresOf(folder);
  };
}
