import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import {
  blobs,
  clock,
  database,
  kept,
  leaseMs,
  reopen,
  seen,
  uploads,
  useUploads,
  whole,
} from '../../../test/uploads-fixture.ts';
import { groupBounds } from './upload-groups.ts';

useUploads();

const holder = 'h';

/** Stores texts as the files of a group, as a request does: held until they are in the table. */
async function put(
  name: string,
  texts: readonly string[],
  more: { owner?: string; holder?: string } = {},
): Promise<string[]> {
  const files = await Promise.all(
    texts.map(async (text) => {
      const writer = await blobs.create();
      await writer.write(Buffer.from(text));
      const file = await writer.commit(({ digest }) => void kept.add(digest));
      return { ...file, path: blobs.path(file.digest), fileName: `${text}.nii` };
    }),
  );
  const group = { owner: 'a', holder, name, ...more };
  await uploads.groups.put(group, files, ({ digest }) => void kept.add(digest));
  const digests = files.map(({ digest }) => digest);
  const held = [...kept];
  kept.clear();
  for (const digest of held) await blobs.delete(digest, () => uploads.keeps(digest));
  return digests;
}
const find = (name: string, owner = 'a') => uploads.groups.find({ owner, name });

describe('groups of uploads', () => {
  it('are found by owner and name, their files in order, also after a restart', async () => {
    const digests = await put('one', ['b', 'a', 'c']);
    for (const again of [false, true]) {
      if (again) await reopen();
      const { ids } = (await find('one'))!;
      const used = await Promise.all(ids.map((id) => uploads.use('a', id)));
      expect(used.map(({ digest, fileName }) => [digest, fileName])).toEqual(
        digests.map((digest, i) => [digest, `${'bac'[i]}.nii`]),
      );
    }
    expect(await find('one', 'b')).toBeUndefined();
    expect(await find('two')).toBeUndefined();
    expect(seen.filter((line) => line.startsWith('received a'))).toHaveLength(3);
  });

  it('replace what had their name, and keep what is equal', async () => {
    const [, shared] = await put('one', ['old', 'shared']);
    const [old] = [await blobs.stat((await put('other', ['x']))[0])];
    expect(old).toBeDefined();
    await put('one', ['shared', 'new']);
    expect((await find('one'))!.ids).toHaveLength(2);
    expect(await blobs.stat(shared)).toBeDefined();
    expect(await database.db.selectFrom('upload').select('id').execute()).toHaveLength(3);
    expect(seen.filter((line) => line === 'deleted a')).toHaveLength(2);
    // Two at once: the files are those of one of them.
    await Promise.all([put('both', ['1', '2']), put('both', ['3', '4'])]);
    expect((await find('both'))!.ids).toHaveLength(2);
  });

  it('are never mixed with those that they replace', async () => {
    await put(
      'one',
      Array.from({ length: 40 }, (_, k) => `old ${k}`),
    );
    let isDone = false;
    const putting = put('one', ['new']).finally(() => {
      isDone = true;
    });
    const counts = new Set<number | undefined>();
    while (!isDone) {
      counts.add((await find('one'))?.ids.length);
      // The database answers without the event loop: files are deleted only where that turns.
      await setImmediate();
    }
    await putting;
    expect([...counts].filter((count) => count !== 40 && count !== 1)).toEqual([]);
    expect(await database.db.selectFrom('upload').select('id').execute()).toHaveLength(1);
  });

  it('are kept while they are used, then deleted with their files', async () => {
    const [digest] = await put('one', ['text']);
    clock.nowMs += leaseMs - 1;
    expect(await uploads.groups.use({ owner: 'a', name: 'one' })).toMatchObject({
      expiresMs: clock.nowMs + leaseMs,
    });
    clock.nowMs += leaseMs - 1;
    await uploads.sweep();
    expect(await find('one')).toBeDefined();
    clock.nowMs += 1;
    expect(await find('one')).toBeUndefined();
    expect(await uploads.groups.use({ owner: 'a', name: 'one' })).toBeUndefined();
    await uploads.sweep();
    expect(await blobs.stat(digest)).toBeUndefined();
    const [second] = await put('two', ['other']);
    await uploads.groups.remove({ owner: 'b', name: 'two' });
    expect(await blobs.stat(second)).toBeDefined();
    await uploads.groups.remove({ owner: 'a', name: 'two' });
    expect([await find('two'), await blobs.stat(second)]).toEqual([undefined, undefined]);
    await put('three', ['more']);
    expect(await uploads.removeAll('a')).toBe(1);
  });

  it('are bounded by number for each holder and for all; the least recently used ones go', async () => {
    const { holder: own, all } = groupBounds(1);
    for (let k = 0; k < own.groups; k++) {
      clock.nowMs++;
      await put(`${k}`, [`text ${k}`]);
    }
    clock.nowMs++;
    await uploads.groups.use({ owner: 'a', name: '0' });
    clock.nowMs++;
    await put('next', ['next']);
    expect([await find('1'), (await find('0')) === undefined]).toEqual([undefined, false]);
    // Other holders and owners have their own bound, and uploads without a name are not counted.
    await put('x', ['x'], { holder: 'i' });
    await put('x', ['x'], { owner: 'b' });
    await whole('y');
    expect(await find('2')).toBeDefined();
    for (let k = 0; k < all.groups; k++) {
      clock.nowMs++;
      await put('x', ['x'], { owner: `owner ${k}` });
    }
    expect(await find('2')).toBeUndefined();
    const rows = await database.db.selectFrom('upload').select('name').execute();
    expect(rows.filter(({ name }) => name !== null)).toHaveLength(all.groups);
    expect(rows.filter(({ name }) => name === null)).toHaveLength(1);
  });

  it('are bounded by bytes; the newest one stays whatever its size', async () => {
    await reopen({ maxBytes: 10 });
    const nine = (name: string) => put(name, [name.repeat(9)]);
    for (const name of ['a', 'b', 'c', 'd', 'e']) {
      clock.nowMs++;
      await nine(name);
    }
    expect([await find('a'), (await find('b')) === undefined]).toEqual([undefined, false]);
    clock.nowMs++;
    await put(
      'large',
      Array.from({ length: 5 }, (_, k) => `${k}`.repeat(9)),
    );
    expect((await find('large'))!.ids).toHaveLength(5);
    expect(await find('e')).toBeUndefined();
  });

  it('are stored without identifying text and names, or not at all', async () => {
    const cleaned = Buffer.from('cleaned');
    await reopen({
      hideName: () => 'volume.nii',
      async strip({ name }, keep) {
        if (name === 'bad.nii') throw new Error('refused');
        const writer = await blobs.create();
        await writer.write(cleaned);
        await writer.commit(keep);
        return true;
      },
    });
    const [raw] = await put('one', ['patient']);
    expect(await blobs.stat(raw)).toBeUndefined();
    const [row] = await database.db.selectFrom('upload').selectAll().execute();
    expect(row).toMatchObject({ expected: raw, file_name: 'volume.nii' });
    expect(await blobs.stat(row.digest!)).toMatchObject({ sizeBytes: cleaned.length });
    await expect(put('two', ['good', 'bad'])).rejects.toThrow('refused');
    expect(await find('two')).toBeUndefined();
  });
});
