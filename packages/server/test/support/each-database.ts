import { afterAll, beforeAll, describe, it } from 'vitest';
import { postgresBin, startPostgres, type TestPostgres } from './postgres.ts';

export interface TestedDatabase {
  readonly dialect: 'sqlite' | 'postgres';
  /** The address of a new, empty database; undefined where it is a file of the data folder. */
  newDatabase(): Promise<string | undefined>;
  /** A test of what holds only where one process owns the database: SQLite. */
  itAlone(title: string, test: () => Promise<void>): void;
}

/** Describes the same tests for SQLite, and for PostgreSQL where it is installed: one server of the file, which `newDatabase()` asks. */
export function onEachDatabase(tests: (tested: TestedDatabase) => void): void {
  describe('SQLite', () => tests({ dialect: 'sqlite', newDatabase: async () => undefined, itAlone: it }));
  describe.skipIf(!postgresBin)('PostgreSQL', () => {
    let postgres: TestPostgres;
    beforeAll(async () => {
      postgres = await startPostgres();
    });
    afterAll(() => postgres?.[Symbol.asyncDispose]());
    tests({ dialect: 'postgres', newDatabase: () => postgres.database(), itAlone: () => {} });
  });
}
