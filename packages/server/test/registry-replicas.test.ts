import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { announcementType, type Entry } from '@tomaat/client';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openIdentity } from '../src/identity.ts';
import { openSigner } from '../src/registry/signer.ts';
import { openServerDatabase } from '../src/store/database/server-database.ts';
import {
  announce,
  announcementOf,
  certificateOf,
  createCleanup,
  identityOf,
  idOf,
  openFolder,
  openTestRegistry,
  payloadOf,
  putSigned,
  type TestRegistry,
} from './registry-helpers.ts';
import { postgresBin, startPostgres, type TestPostgres } from './support/postgres.ts';

/* Two registries with one PostgreSQL database. */

const server = 'http://127.0.0.1:9000';

describe.skipIf(!postgresBin)('registries that share PostgreSQL', () => {
  const cleanup = createCleanup();
  let postgres: TestPostgres;
  let database: string;
  let first: TestRegistry;
  let second: TestRegistry;
  let key: string;

  beforeAll(async () => {
    postgres = await startPostgres();
  }, 60_000);
  afterAll(() => postgres?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    database = await postgres.database();
    first = await openTestRegistry(cleanup, { database });
    const dataFolder = await openFolder(cleanup);
    await copyFile(join(first.folder, 'pseudonym.key'), join(dataFolder, 'pseudonym.key'));
    second = await openTestRegistry(cleanup, { database, dataFolder });
    key = await first.key();
  });
  afterEach(() => cleanup.run());

  const listed = async (registry: TestRegistry, query = ''): Promise<Entry[]> =>
    (await registry.app.inject(`/api/services${query}`)).json().services;

  it('show at each what was announced, renewed and withdrawn at the other', async () => {
    expect((await announce(first, key, 'a', announcementOf(server))).statusCode).toBe(200);
    expect(await listed(second)).toMatchObject([{ name: 'Prostate net', live: true }]);
    expect((await announce(second, key, 'a', announcementOf(server, { name: 'Newer' }))).statusCode).toBe(
      200,
    );
    expect(await listed(first)).toMatchObject([{ name: 'Newer' }]);
    const withdrawn = await first.app.inject({
      method: 'DELETE',
      url: `/api/announcements/${await idOf('a')}`,
      headers: { authorization: `Bearer ${key}` },
    });
    expect(withdrawn.statusCode).toBe(204);
    expect(await listed(second)).toEqual([]);
  });

  it('never replace an announcement by an older one, whichever arrives where', async () => {
    const identity = await identityOf('race');
    for (let round = 0; round < 10; round++) {
      const payloads = Array.from({ length: 4 }, () =>
        payloadOf(announcementOf(server, { description: `epoch` }), identity, first.clock.ms),
      );
      const newest = Math.max(...payloads.map(({ epoch }) => epoch));
      const answers = await Promise.all(
        payloads.map(async (payload, index) => {
          const said = { ...payload, description: `epoch ${payload.epoch}` };
          const signed = await identity.sign(announcementType, said);
          return putSigned(index % 2 === 0 ? first : second, key, payload.id, signed);
        }),
      );
      expect(answers.every(({ statusCode }) => statusCode === 200 || statusCode < 500)).toBe(true);
      expect(await listed(first)).toMatchObject([{ description: `epoch ${newest}` }]);
    }
  });

  it('find names and words as one registry does, with names in the order of their bytes', async () => {
    for (const [index, name] of ['b', 'Zebra', 'a', 'Éclair', 'A'].entries())
      await announce(first, key, `s${index}`, announcementOf(`http://127.0.0.1:900${index}`, { name }));
    expect((await listed(second)).map(({ name }) => name)).toEqual(['A', 'Zebra', 'a', 'b', 'Éclair']);
    expect((await listed(second, '?q=ZEB')).map(({ name }) => name)).toEqual(['Zebra']);
    expect(await listed(second, '?q=%25')).toEqual([]);
    expect((await second.app.inject('/api/services?q=%00')).statusCode).toBe(400);
  });

  it('share keys, and a key that is revoked ends its entries at both', async () => {
    await announce(first, key, 'a', announcementOf(server));
    expect(await listed(second)).toMatchObject([{ live: true }]);
    await first.keys.updateTable('api_key').set({ revoked_ms: first.clock.ms }).execute();
    expect(await listed(second)).toMatchObject([{ live: false }]);
    expect((await announce(second, key, 'b', announcementOf(server))).statusCode).toBe(401);
  });

  it('start in the database of servers, and only with the same pseudonym key', async () => {
    await using ofServers = await openServerDatabase(first.folder, database);
    expect(await ofServers.db.selectFrom('api_key').selectAll().execute()).toEqual([]);
    await expect(openTestRegistry(cleanup, { database })).rejects.toThrow('pseudonym.key is not that of');
  });

  it('get growing epochs from servers of one identity, whose clocks differ', async () => {
    await using ofServers = await openServerDatabase(first.folder, database);
    const dataFolder = await openFolder(cleanup);
    const identity = await openIdentity(dataFolder);
    const signers = await Promise.all(
      [0, -5000].map((skewMs) =>
        openSigner({
          dataFolder,
          identity,
          certificate: certificateOf(1),
          shared: ofServers.db as never,
          now: () => first.clock.ms + skewMs,
        }),
      ),
    );
    const epochs: number[] = [];
    for (let round = 0; round < 3; round++)
      for (const signer of signers) {
        const text = await signer.sign(announcementOf(server), 'http://127.0.0.1:8001/');
        epochs.push(JSON.parse(Buffer.from(text.split('.')[1], 'base64url').toString()).epoch);
      }
    expect(epochs).toEqual([...new Set(epochs)].sort((a, b) => a - b));
  });
});
