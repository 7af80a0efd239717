import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hashFile } from './hash-file.ts';
import { readOrMakeSecret } from './secret-file.ts';
import { writeWhole } from './whole-file.ts';

let folder: string;
let file: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-secret-'));
  file = join(folder, 'secret');
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const isForOwner = async () => process.platform === 'win32' || ((await stat(file)).mode & 0o777) === 0o600;

describe('readOrMakeSecret()', () => {
  it('makes a secret once, for its owner alone', async () => {
    expect(await readOrMakeSecret(file, async () => 'one')).toEqual({ text: 'one', isNew: true });
    expect(await isForOwner()).toBe(true);
    const never = () => Promise.reject(new Error('made twice'));
    expect(await readOrMakeSecret(file, never)).toEqual({ text: 'one', isNew: false });
    expect(await readdir(folder)).toEqual(['secret']);
  });

  it('uses the secret of another process that was first', async () => {
    const made = await readOrMakeSecret(file, async () => {
      await writeFile(file, 'theirs');
      return 'ours';
    });
    expect(made).toEqual({ text: 'theirs', isNew: false });
    expect(await readdir(folder)).toEqual(['secret']);
  });

  it.each(['', ' \n'])('refuses a file that is as good as empty: %j', async (text) => {
    await writeFile(file, text);
    await expect(readOrMakeSecret(file, async () => 'new')).rejects.toMatchObject({
      code: 'INTERNAL',
      message: expect.stringContaining(`${file} is empty`),
    });
    expect(await readFile(file, 'utf8')).toBe(text);
  });

  it('leaves nothing where it cannot make or read one', async () => {
    await expect(readOrMakeSecret(file, () => Promise.reject(new Error('no chance')))).rejects.toThrow(
      'no chance',
    );
    expect(await readdir(folder)).toEqual([]);
    await expect(readOrMakeSecret(join(folder, 'none', 'x'), async () => 'x')).rejects.toMatchObject({
      code: 'ENOENT',
    });
    await expect(readOrMakeSecret(folder, async () => 'x')).rejects.toMatchObject({ code: 'EISDIR' });
  });
});

describe('writeWhole()', () => {
  it('replaces a file, for its owner alone', async () => {
    await writeFile(file, 'a longer text', { mode: 0o644 });
    await writeWhole(file, 'text');
    expect(await readFile(file, 'utf8')).toBe('text');
    expect(await isForOwner()).toBe(true);
    expect(await readdir(folder)).toEqual(['secret']);
  });

  it('leaves no partial file', async () => {
    await expect(writeWhole(folder, 'text')).rejects.toThrow();
    await expect(writeWhole(join(folder, 'none', 'x'), 'text')).rejects.toMatchObject({ code: 'ENOENT' });
    expect(await readdir(folder)).toEqual([]);
    expect((await readdir(join(folder, '..'))).filter((name) => name.endsWith('.part'))).toEqual([]);
  });
});

describe('hashFile()', () => {
  it('hashes all of a file, of any size', async () => {
    await writeFile(file, 'abc');
    // FIPS 180-2, example B.1, and B.3 with a million of the letter a.
    expect(await hashFile(file)).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    await writeFile(file, 'a'.repeat(1_000_000));
    expect(await hashFile(file)).toBe('cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0');
    await expect(hashFile(join(folder, 'none'))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
