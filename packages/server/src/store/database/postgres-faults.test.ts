import { rm } from 'node:fs/promises';
import { sql } from 'kysely';
import { describe, expect, it } from 'vitest';
import { postgresBin, startPostgres } from '../../../test/support/postgres.ts';
import { temporaryFolder } from '../../../test/test-server.ts';
import { openServerDatabase } from './server-database.ts';

describe.skipIf(!postgresBin)('queryFault()', () => {
  it('says which faults are of the request, and which a second attempt mends', async () => {
    await using postgres = await startPostgres();
    const folder = await temporaryFolder();
    await using database = await openServerDatabase(folder, await postgres.database());
    await sql`CREATE TABLE pair (id BIGINT PRIMARY KEY, changes BIGINT NOT NULL)`.execute(database.db);
    await sql`INSERT INTO pair VALUES (1, 0), (2, 0)`.execute(database.db);
    const both = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const change = (first: number) =>
      database.transaction(async (trx) => {
        await sql`UPDATE pair SET changes = changes + 1 WHERE id = ${first}`.execute(trx);
        both[first - 1].resolve();
        await Promise.all(both.map(({ promise }) => promise));
        await sql`UPDATE pair SET changes = changes + 1 WHERE id = ${3 - first}`.execute(trx);
      });
    const results = await Promise.allSettled([change(1), change(2)]);
    const refused = results.filter((result) => result.status === 'rejected');
    expect(refused).toHaveLength(1);
    expect(refused[0].reason).toMatchObject({
      code: 'BUSY',
      message: expect.stringContaining('Try again'),
    });
    const { rows } = await sql<{ changes: number }>`SELECT changes FROM pair`.execute(database.db);
    expect(rows).toEqual([{ changes: 1 }, { changes: 1 }]);
    for (const [fault, value] of [
      ['the character with the number 0', sql`${'a\0b'}::text`],
      ['larger than the database takes', sql`${'9223372036854775808'}::bigint`],
    ] as const)
      await expect(sql`SELECT ${value}`.execute(database.db)).rejects.toMatchObject({
        code: 'BAD_REQUEST',
        message: expect.stringContaining(fault),
      });
    await rm(folder, { recursive: true, force: true });
  });
});
