import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { dicomFile } from '../../../../core/test/dicom-files.ts';
import { openFolderDestination } from './folder.ts';

const signal = new AbortController().signal;
let folder: string;
let root: string;
let count = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-destination-'));
});
afterAll(() => rm(folder, { recursive: true }));
beforeEach(async () => {
  root = join(folder, `d${count++}`);
  await mkdir(root);
});

/** An object, with its tags in numbers. */
const object = (more: { uid?: string; series?: string; study?: string; time?: string; text?: string } = {}) =>
  dicomFile([
    [0x00080013, 'TM', more.time ?? '101112'],
    [0x00080016, 'UI', '1.2.840.10008.5.1.4.1.1.7'],
    [0x00080018, 'UI', more.uid ?? '1.2.3'],
    [0x0008103e, 'LO', more.text ?? 'Lungs'],
    [0x0020000d, 'UI', more.study ?? '1.2'],
    [0x0020000e, 'UI', more.series ?? '1.2.4'],
  ]);
const store = (...objects: Uint8Array[]) =>
  openFolderDestination('disk', { path: root }).store(objects, signal);
const refusalOf = async (storing: Promise<void>): Promise<TomaatError> => {
  const error = await storing.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof TomaatError) return error;
  throw error ?? new Error('it was stored');
};
const names = async () => ((await readdir(root, { recursive: true })) as string[]).sort();

describe('a folder as a destination', () => {
  it('has each object under its UIDs, for those who may read the folder', async () => {
    await chmod(root, 0o750);
    await store(object(), object({ uid: '1.2.5' }));
    expect(await names()).toEqual(['1.2', '1.2/1.2.4', '1.2/1.2.4/1.2.3.dcm', '1.2/1.2.4/1.2.5.dcm']);
    const path = join(root, '1.2/1.2.4/1.2.3.dcm');
    expect(new Uint8Array(await readFile(path))).toEqual(object());
    expect((await stat(path)).mode & 0o777).toBe(0o640);
    expect((await stat(join(root, '1.2'))).mode & 0o777).toBe(0o750);
  });

  it('keeps the file where the same is stored again, also at another time', async () => {
    await store(object());
    const path = join(root, '1.2/1.2.4/1.2.3.dcm');
    const { ino, mtimeMs } = await stat(path);
    await store(object());
    await store(object({ time: '202122' }));
    expect(await stat(path)).toMatchObject({ ino, mtimeMs });
    expect(new Uint8Array(await readFile(path))).toEqual(object());
  });

  it('never overwrites another content', async () => {
    await store(object());
    const path = join(root, '1.2/1.2.4/1.2.3.dcm');
    expect(await refusalOf(store(object({ text: 'Liver' })))).toMatchObject({ code: 'CONFLICT' });
    expect(new Uint8Array(await readFile(path))).toEqual(object());
    await writeFile(path, 'no DICOM');
    const refused = await refusalOf(store(object()));
    expect(refused.message).toContain('1.2/1.2.4/1.2.3.dcm');
    expect(await readFile(path, 'utf8')).toBe('no DICOM');
    expect(await readdir(join(root, '1.2/1.2.4'))).toEqual(['1.2.3.dcm']);
  });

  it('writes one file where several store it at once', async () => {
    await Promise.all(Array.from({ length: 8 }, () => store(object())));
    expect(await readdir(join(root, '1.2/1.2.4'))).toEqual(['1.2.3.dcm']);
  });

  it.each(['../../x', '..', '1..2', '.1', '1/2', '', 'a', `1\n`, '1'.repeat(65)])(
    'refuses the UID “%s” as a name',
    async (uid) => {
      for (const more of [{ uid }, { series: uid }, { study: uid }])
        expect(await refusalOf(store(object(more)))).toMatchObject({ code: 'BAD_INPUT' });
      expect(await names()).toEqual([]);
    },
  );

  it('follows no link out of it', async () => {
    const outside = join(folder, `outside${count}`);
    await mkdir(outside);
    await symlink(outside, join(root, '1.2'));
    expect((await refusalOf(store(object()))).message).toContain('a link to a place outside');
    expect(await readdir(outside)).toEqual([]);
  });

  it('is away, and not made anew, when it is not there', async () => {
    await rm(root, { recursive: true });
    expect(await refusalOf(store(object()))).toMatchObject({ code: 'UNREACHABLE' });
    await expect(stat(root)).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
