import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { afterCommit } from './after-commit.ts';
import { type Database, openDatabase } from './database.ts';
import { type ServerSchema, serverMigrations } from './server-database.ts';

let folder: string;
let database: Database<ServerSchema>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-after-commit-'));
  database = await openDatabase<ServerSchema>(join(folder, 'server.db'), serverMigrations);
});
afterAll(async () => {
  await database.close();
  await rm(folder, { recursive: true, force: true });
});

const countKeys = async () => (await database.db.selectFrom('api_key').selectAll().execute()).length;
const key = (id: string) => ({
  id,
  hash: Buffer.from(id),
  label: id,
  scopes: 'predict',
  made_by: 'operator' as const,
  created_ms: 1,
  expires_ms: null,
  revoked_ms: null,
  max_jobs: null,
  per_day: null,
});

describe('afterCommit()', () => {
  it('runs in order after the commit, before the transaction resolves', async () => {
    const done: string[] = [];
    let found: Promise<number> | undefined;
    await database.transaction(async (trx) => {
      afterCommit(trx, () => {
        done.push('first');
        found = countKeys();
      });
      afterCommit(trx, () => done.push('second'));
      await trx.insertInto('api_key').values(key('a')).execute();
      expect(done).toEqual([]);
    });
    expect(done).toEqual(['first', 'second']);
    expect(await found).toBe(1);
  });

  it('does not run after a rollback, nor outside of a transaction', async () => {
    let ran = false;
    let kept: Parameters<typeof afterCommit>[0] | undefined;
    const failing = database.transaction(async (trx) => {
      kept = trx;
      afterCommit(trx, () => {
        ran = true;
      });
      await trx.insertInto('api_key').values(key('a')).execute();
    });
    await expect(failing).rejects.toThrow();
    expect(ran).toBe(false);
    expect(() => afterCommit(kept!, () => {})).toThrow('open transaction');
    expect(() => afterCommit(database.db, () => {})).toThrow('open transaction');
  });
});
