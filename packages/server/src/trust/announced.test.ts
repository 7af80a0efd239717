import { readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRegistryClient, type Entry } from '@tomaat/client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { signEntry } from '../../test/cli-fixture.ts';
import { announcementOf, identityOf } from '../../test/registry-helpers.ts';
import { chooseTrusted, type TrustOptions } from './announced.ts';
import { addPin, knownHostsFile, readPins } from './known-hosts.ts';

const registryUrl = 'https://registry.test';
let folder: string;
let file: string;
let notes: string[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-announced-'));
  file = knownHostsFile(folder);
  notes = [];
});
afterEach(() => rm(folder, { recursive: true, force: true }));

function optionsFor(wanted: string, baseUrl = registryUrl): TrustOptions {
  // Checks signatures itself; it has no need to connect to anything.
  const registry = createRegistryClient({ baseUrl });
  return { file, registry, wanted, note: (text) => notes.push(text) };
}

const entryOf = (change: Partial<Entry> = {}): Entry => ({
  ...announcementOf('https://server.test'),
  sid: 's1',
  face: 'api',
  live: true,
  announcedTime: '',
  expiresTime: '',
  ...change,
});
const signed = (server: string, change: Partial<Entry> = {}, registry = registryUrl) =>
  signEntry(entryOf(change), registry, server);
const v1 = entryOf({ face: 'v1', signed: false, serverUrl: undefined });
const keyOf = async (server: string) => (await identityOf(server)).thumbprint;
const pinned = async () => (await readPins(file)).map(({ name, value }) => [name, value]);

describe('chooseTrusted()', () => {
  it('remembers a key under service and word once its server has answered', async () => {
    const entry = await signed('good');
    const found = await chooseTrusted([entry], optionsFor('Segmentation/Prostate'));
    expect(found).toMatchObject({ entry, known: false, announcement: { sub: await keyOf('good') } });
    expect(await pinned()).toEqual([]);
    await found.remember();
    expect(await pinned()).toEqual([
      ['registry.test:443/prostate-net', await keyOf('good')],
      ['registry.test:443/segmentation/prostate', await keyOf('good')],
    ]);
    expect(await chooseTrusted([entry], optionsFor('prostate-net'))).toMatchObject({ known: true });
    expect(notes).toEqual([]);
  });

  it.each([
    ['prostate-net', ['prostate-net']],
    ['PROSTATE-NET', ['prostate-net']],
    ['segmentation/prostate', ['prostate-net', 'segmentation/prostate']],
    [' Segmentation / Prostate ', ['prostate-net', 'segmentation/prostate']],
    // Not the pair of the entry: a word, which may not hold what parts a name.
    ['segmentation/lung', ['prostate-net', 'segmentation%2Flung']],
    ['Any Word', ['prostate-net', 'any%20word']],
  ])('asked for %j it remembers under %j', async (wanted, names) => {
    const found = await chooseTrusted([await signed('good')], optionsFor(wanted));
    await found.remember();
    expect((await pinned()).map(([name]) => name)).toEqual(names.map((name) => `registry.test:443/${name}`));
  });

  it('knows an id of a service in any case, written as one word', async () => {
    await addPin(file, 'registry.test:443/%C3%BCber%20net%231', await keyOf('good'));
    await expect(
      chooseTrusted([{ ...v1, serviceId: 'Über Net#1' }], optionsFor('any')),
    ).rejects.toMatchObject({ code: 'BAD_SIGNATURE' });
  });

  it.each([
    ['https://registry.test', 'registry.test:443'],
    ['http://registry.test', 'registry.test:80'],
    ['https://registry.test:8443/', 'registry.test:8443'],
    ['http://registry.test:443', 'registry.test:443'],
    ['https://registry.test/under/path//', 'registry.test:443/under/path'],
  ])('names the registry %s as %s', async (baseUrl, host) => {
    const audience = baseUrl.replace(/\/+$/, '');
    const found = await chooseTrusted(
      [await signed('good', {}, audience)],
      optionsFor('prostate-net', baseUrl),
    );
    await found.remember();
    expect((await pinned())[0][0]).toBe(`${host}/prostate-net`);
  });

  it.each(['registry.test:443/prostate-net', 'registry.test:443/segmentation/prostate'])(
    'refuses another key than the one remembered for %s, with both and the line',
    async (name) => {
      writeFileSync(file, '# a comment\n');
      await addPin(file, name, await keyOf('good'));
      const choosing = chooseTrusted([await signed('evil')], optionsFor('segmentation/prostate'));
      const [known, shown] = [await keyOf('good'), await keyOf('evil')];
      await expect(choosing).rejects.toMatchObject({
        code: 'BAD_SIGNATURE',
        detail: { known, shown },
        message: expect.stringContaining(`tomaat trust remove ${name} (line 2 of ${file})`),
      });
      expect(notes).toEqual([expect.stringContaining('announced by a different server')]);
      expect(await pinned()).toEqual([[name, known]]);
    },
  );

  it('takes any of several keys remembered for a name, but one for each', async () => {
    await addPin(file, 'registry.test:443/prostate-net', await keyOf('other'));
    await addPin(file, 'registry.test:443/prostate-net', await keyOf('good'));
    const options = optionsFor('segmentation/prostate');
    expect(await chooseTrusted([await signed('good')], options)).toMatchObject({ known: true });
    await addPin(file, 'registry.test:443/segmentation/prostate', await keyOf('other'));
    await expect(chooseTrusted([await signed('good')], options)).rejects.toMatchObject({
      detail: { known: await keyOf('other'), shown: await keyOf('good') },
    });
  });

  it('prefers a known entry to those before it, and else takes the first', async () => {
    const [first, second, third] = [
      await signed('first', { serviceId: 'one' }),
      await signed('second', { serviceId: 'two' }),
      await signed('third', { serviceId: 'three' }),
    ];
    const options = optionsFor('any');
    expect((await chooseTrusted([first, second, third], options)).entry).toBe(first);
    await addPin(file, 'registry.test:443/two', await keyOf('second'));
    expect((await chooseTrusted([first, second, third], options)).entry).toBe(second);
    expect(notes).toEqual([]);
  });

  it('skips untrusted entries, and throws the first reason if none remain', async () => {
    await addPin(file, 'registry.test:443/one', await keyOf('good'));
    const evil = await signed('evil', { serviceId: 'one' });
    const unsigned = entryOf({ serviceId: 'two', signed: undefined });
    const good = await signed('good', { serviceId: 'three' });
    const options = optionsFor('any');
    expect((await chooseTrusted([evil, unsigned, good], options)).entry).toBe(good);
    expect(notes).toEqual([
      expect.stringMatching(/^Skipped: .*a different server/),
      expect.stringMatching(/^Skipped: .*signature/),
    ]);
    await expect(chooseTrusted([evil, unsigned], options)).rejects.toThrow(/a different server/);
    await expect(chooseTrusted([unsigned, evil], { ...options, note: undefined })).rejects.toThrow(
      /without a signature/,
    );
  });

  it('stops when the known-hosts file has a fault', async () => {
    writeFileSync(file, 'no pin\n');
    await expect(chooseTrusted([await signed('good')], optionsFor('any'))).rejects.toMatchObject({
      code: 'BAD_REQUEST',
    });
    const unreadable = { ...optionsFor('any'), file: folder };
    await expect(chooseTrusted([await signed('good')], unreadable)).rejects.toMatchObject({ code: 'EISDIR' });
    expect(notes).toHaveLength(1);
  });

  it('accepts an unsigned v1 entry until a key is remembered for it', async () => {
    const options = optionsFor('segmentation/prostate');
    const found = await chooseTrusted([v1], options);
    expect(found).toMatchObject({ entry: v1, known: false });
    expect(found.announcement).toBeUndefined();
    await found.remember();
    expect(await pinned()).toEqual([]);
    await addPin(file, 'registry.test:443/segmentation/prostate', await keyOf('good'));
    await expect(chooseTrusted([v1], options)).rejects.toMatchObject({
      code: 'BAD_SIGNATURE',
      detail: { known: await keyOf('good'), shown: expect.stringContaining('no longer signed') },
    });
  });

  it('takes a v1 entry without a service id under the word alone', async () => {
    await addPin(file, 'registry.test:443/any', await keyOf('good'));
    const bare = { ...v1, serviceId: undefined };
    expect((await chooseTrusted([bare], optionsFor('other'))).entry).toBe(bare);
    await expect(chooseTrusted([bare], optionsFor('any'))).rejects.toMatchObject({ code: 'BAD_SIGNATURE' });
  });

  it.each([
    ['an entry of the API without a signature', { signed: false as const }],
    ['a v1 entry with a signature of something else', { face: 'v1' as const, signed: 'a.b.c' }],
  ])('refuses %s', async (_, change) => {
    await expect(chooseTrusted([entryOf(change)], optionsFor('any'))).rejects.toMatchObject({
      code: 'BAD_SIGNATURE',
    });
  });

  it('needs no memory for an id, which holds the key', async () => {
    const entry = await signed('good');
    await addPin(file, 'registry.test:443/prostate-net', await keyOf('other'));
    const before = readFileSync(file, 'utf8');
    const found = await chooseTrusted([entry], optionsFor(entry.id!));
    expect(found).toMatchObject({ entry, known: true, announcement: { id: entry.id } });
    await found.remember();
    expect(readFileSync(file, 'utf8')).toBe(before);
    // Only the whole id stands for a key.
    await expect(chooseTrusted([entry], optionsFor(entry.id!.slice(0, -1)))).rejects.toMatchObject({
      code: 'BAD_SIGNATURE',
    });
  });
});
