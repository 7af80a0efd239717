import { rm } from 'node:fs/promises';
import type { SignedAnnouncement } from '@tomaat/client';
import { sql } from 'kysely';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { onEachDatabase } from '../../test/support/each-database.ts';
import { temporaryFolder } from '../../test/test-server.ts';
import { createKey, revokeKey } from '../access/keys.ts';
import { openRegistryDatabase } from '../store/database/registry-database.ts';
import { type Entries, openEntries } from './entries.ts';

const start = Date.parse('2026-03-04T05:06:07Z');

onEachDatabase(({ newDatabase }) => {
  let folder: string;
  let clock: number;
  let key: { id: string };
  let other: { id: string };
  /** Of two registries where they can share the database; a file belongs to one. */
  let entries: Entries;
  let elsewhere: Entries;

  /** Gives the text of entries the order of a database whose locale is English: a, B, ä, b. */
  const sortAsInEnglish = () =>
    sql`ALTER TABLE entry ALTER COLUMN name TYPE TEXT COLLATE "en-x-icu",
      ALTER COLUMN task_slug TYPE TEXT COLLATE "en-x-icu",
      ALTER COLUMN anatomy_slug TYPE TEXT COLLATE "en-x-icu"`.execute(entries.db);

  beforeAll(async () => {
    folder = await temporaryFolder();
    const shared = await newDatabase();
    const open = async () => openEntries(await openRegistryDatabase(folder, shared), () => clock);
    entries = await open();
    if (shared !== undefined) await sortAsInEnglish();
    elsewhere = shared === undefined ? entries : await open();
  });
  afterAll(async () => {
    await entries.close();
    if (elsewhere !== entries) await elsewhere.close();
    await rm(folder, { recursive: true, force: true });
  });
  beforeEach(async () => {
    clock = start;
    for (const table of ['entry', 'announced', 'api_key'] as const)
      await entries.db.deleteFrom(table).execute();
    key = await createKey(entries.db, { label: 'a', scopes: ['announce'] }, start);
    other = await createKey(entries.db, { label: 'b', scopes: ['announce'] }, start);
  });

  const announcement = (id: string, changed: Partial<SignedAnnouncement> = {}): SignedAnnouncement => ({
    sub: 'print',
    aud: 'https://registry.example',
    iat: start / 1000,
    exp: start / 1000 + 60,
    id,
    epoch: 1,
    name: id,
    modality: 'CT',
    anatomy: 'Lung',
    task: 'Segmentation',
    description: '',
    predictionUrl: `https://host.example/${id}/predict`,
    interfaceUrl: `https://host.example/${id}/interface`,
    serverUrl: 'https://host.example',
    serviceId: id,
    certificate: Array(32).fill('AB').join(':'),
    ...changed,
  });
  const signed = `${Buffer.from('{}').toString('base64url')}.e30.x`;
  const announce = (id: string, changed?: Partial<SignedAnnouncement>, at = entries, by = key) =>
    at.announce(by, announcement(id, changed), signed);
  const namesOf = async (filters = {}) => (await elsewhere.search(filters)).map(({ name }) => name);

  describe('search()', () => {
    it('sorts names by their characters, capitals first', async () => {
      const names = ['b', 'a b', 'B', 'ä', 'a-c', 'Z', 'ab', '_'];
      for (const [index, name] of names.entries()) await announce(`id${index}`, { name });
      expect(await namesOf()).toEqual(['B', 'Z', '_', 'a b', 'a-c', 'ab', 'b', 'ä']);
    });

    it('takes each character of a word as it is', async () => {
      await announce('one', { name: '100% of Über_Lungs', description: "the ward's" });
      await announce('two', { name: '1000 of lungs', description: 'the wards' });
      for (const q of ['100%', 'r_l', 'ÜBER', "ward's"])
        expect(await namesOf({ q }), q).toEqual(['100% of Über_Lungs']);
      expect(await namesOf({ q: 'LUNGS of' })).toEqual(['100% of Über_Lungs', '1000 of lungs']);
      for (const q of ['%', 'l%s', '\\', "' OR 1=1 --"])
        expect(await namesOf({ q }), q).toEqual(q === '%' ? ['100% of Über_Lungs'] : []);
    });

    it('shows an entry as live until its time, and while its key is valid', async () => {
      await announce('mine');
      await announce('other', {}, entries, other);
      expect(await namesOf({ live: true })).toEqual(['mine', 'other']);
      await revokeKey(entries.db, other.id, start);
      expect(await namesOf({ live: true })).toEqual(['mine']);
      expect(await namesOf({ live: false })).toEqual(['other']);
      clock += 90_000;
      expect(await namesOf({ live: true })).toEqual([]);
      expect(await namesOf()).toEqual(['mine', 'other']);
    });
  });

  it('addresses() sorts by characters, whatever the locale of the database', async () => {
    for (const [index, anatomy] of ['Fuß', 'Fuz', 'lung b', 'lung'].entries())
      await announce(`id${index}`, { anatomy });
    expect(await elsewhere.addresses()).toEqual([
      'segmentation/fuz',
      'segmentation/fuß',
      'segmentation/lung',
      'segmentation/lung-b',
    ]);
  });

  it('candidates() are the defaults, then the oldest', async () => {
    for (const [id, isDefault] of [
      ['first', false],
      ['second', true],
      ['third', false],
    ] as const) {
      clock += 1;
      await announce(id, { default: isDefault });
    }
    const found = await elsewhere.candidates('segmentation', 'lung');
    expect(found.map(({ name, default: isDefault }) => [name, isDefault])).toEqual([
      ['second', true],
      ['first', false],
      ['third', false],
    ]);
  });

  it('announce() keeps the newest of announcements that arrive at once', async () => {
    const epochs = [5, 9, 2, 7, 8, 1, 6, 3];
    const results = await Promise.allSettled(
      epochs.map((epoch, index) =>
        announce('one', { epoch, name: `epoch ${epoch}` }, index % 2 ? entries : elsewhere),
      ),
    );
    expect(await namesOf()).toEqual(['epoch 9']);
    for (const result of results)
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'BAD_SIGNATURE' });
    await expect(announce('one', { epoch: 9 })).rejects.toMatchObject({ code: 'BAD_SIGNATURE' });
  });

  it('withdraw() is for the key that announced, and sweep() drops after a day', async () => {
    await announce('one');
    await announce('two');
    await expect(elsewhere.withdraw(other, 'one')).rejects.toMatchObject({ code: 'FORBIDDEN' });
    await elsewhere.withdraw(key, 'one');
    await expect(entries.withdraw(key, 'one')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(await entries.count()).toEqual([{ face: 'api', live: true, entries: 1 }]);
    clock += 90_000 + 86_400_000 - 1;
    expect(await entries.sweep()).toBe(0);
    expect(await entries.count()).toEqual([{ face: 'api', live: false, entries: 1 }]);
    clock += 1;
    expect(await elsewhere.sweep()).toBe(1);
    expect(await entries.count()).toEqual([]);
  });
});
