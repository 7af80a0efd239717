import { type Kysely, sql } from 'kysely';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { postgresBin, startPostgres, type TestPostgres } from '../../../test/support/postgres.ts';
import type { Migration } from './database.ts';
import { openPostgres } from './postgres.ts';
import { registryMigrations } from './registry-database.ts';
import { serverMigrations } from './server-database.ts';

/* A server of the version before writes to the tables that a newer one has migrated. */

/** Of each table: what its rows have to meet, and its columns. */
type Tables = Map<string, { columns: Map<string, string>; demands: Set<string>; needed: Set<string> }>;

async function tablesOf(db: Kysely<unknown>): Promise<Tables> {
  const tables: Tables = new Map();
  const tableOf = (name: string) => {
    const known = tables.get(name) ?? { columns: new Map(), demands: new Set(), needed: new Set() };
    tables.set(name, known);
    return known;
  };
  const columns = await sql<{ table: string; name: string; type: string; needed: number }>`
    SELECT table_name AS table, column_name AS name, data_type AS type,
      is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO' AS needed
    FROM information_schema.columns WHERE table_schema = current_schema()`.execute(db);
  for (const { table, name, type, needed } of columns.rows) {
    tableOf(table).columns.set(name, type);
    if (needed) tableOf(table).needed.add(name);
  }
  const demands = await sql<{ table: string; text: string }>`
    SELECT conrelid::regclass::text AS table, pg_get_constraintdef(oid) AS text FROM pg_constraint
      WHERE connamespace = current_schema()::regnamespace
    UNION ALL SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
      JOIN pg_class ON pg_class.oid = indrelid
      WHERE indisunique AND relnamespace = current_schema()::regnamespace`.execute(db);
  for (const { table, text } of demands.rows) tableOf(table).demands.add(text);
  return tables;
}

/** What a step did that a server which does not know it would fail at. */
function faultsOf(before: Tables, after: Tables): string[] {
  const faults: string[] = [];
  for (const [table, old] of before) {
    const now = after.get(table);
    if (!now) {
      faults.push(`removed ${table}`);
      continue;
    }
    for (const [name, type] of old.columns)
      if (now.columns.get(name) !== type) faults.push(`removed or changed ${table}.${name}`);
    for (const name of now.needed) if (!old.needed.has(name)) faults.push(`needs ${table}.${name}`);
    for (const text of now.demands) if (!old.demands.has(text)) faults.push(`demands ${text} of ${table}`);
  }
  return faults;
}

describe.skipIf(!postgresBin)('a step of the schema', () => {
  let postgres: TestPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres?.[Symbol.asyncDispose]());

  /** Takes the steps one after the other. */
  async function faultsOfSteps(steps: readonly Migration[]): Promise<[string, string[]][]> {
    const location = { url: await postgres.database(), schema: 'steps' };
    const found: [string, string[]][] = [];
    let before: Tables = new Map();
    for (const [index, { name }] of steps.entries()) {
      await using database = await openPostgres<unknown>(location, steps.slice(0, index + 1));
      const after = await tablesOf(database.db);
      const faults = faultsOf(before, after);
      if (faults.length > 0) found.push([name, faults]);
      before = after;
    }
    expect(before.size).toBeGreaterThan(1);
    return found;
  }

  it.each([
    ['servers', serverMigrations],
    ['registries', registryMigrations],
  ])('of %s only adds', async (_who, steps) => {
    expect(await faultsOfSteps(steps)).toEqual([]);
  });

  it.each([
    ['ADD COLUMN more INTEGER NOT NULL', ['needs thing.more']],
    ['DROP COLUMN size', ['removed or changed thing.size']],
    ['RENAME TO other', ['removed thing']],
    ['ALTER COLUMN size TYPE NUMERIC', ['removed or changed thing.size']],
    ['ALTER COLUMN note SET NOT NULL', ['needs thing.note']],
    ["ADD CHECK (note <> 'x')", [expect.stringContaining('demands CHECK')]],
    ['ADD UNIQUE (size)', expect.arrayContaining([expect.stringContaining('demands UNIQUE')])],
    ["ADD COLUMN more TEXT NOT NULL DEFAULT 'x'", undefined],
    ['ADD COLUMN more TEXT', undefined],
  ])('that would %s is found', async (change, faults) => {
    const step = (name: string, text: string): Migration => ({
      name,
      up: async (db) => void (await sql.raw(text).execute(db)),
    });
    const first = step('first', 'CREATE TABLE thing (id TEXT PRIMARY KEY, note TEXT, size INTEGER NOT NULL)');
    const found = await faultsOfSteps([first, step('second', `ALTER TABLE thing ${change}`)]);
    expect(found).toEqual(faults ? [['second', faults]] : []);
  });
});
