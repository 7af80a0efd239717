import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { partOf, writeWhole } from './whole-file.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tomaat-whole-file-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('writeWhole()', () => {
  it.skipIf(process.platform === 'win32').each([
    [undefined, 0o600],
    [0o644, 0o644],
  ])('with mode %s gives a file of mode %i, whatever the umask', async (mode, expected) => {
    for (const umask of [0, 0o077]) {
      const before = process.umask(umask);
      try {
        const file = join(folder, `umask-${umask}`);
        await writeWhole(file, 'text', mode === undefined ? undefined : { mode });
        expect(statSync(file).mode & 0o777).toBe(expected);
        expect(readFileSync(file, 'utf8')).toBe('text');
      } finally {
        process.umask(before);
      }
    }
  });

  it('prepares the file before it replaces the old one', async () => {
    const file = join(folder, 'a');
    writeFileSync(file, 'old');
    const seen: string[] = [];
    await writeWhole(file, 'new', {
      prepare: (part) =>
        void seen.push(basename(part), readFileSync(part, 'utf8'), readFileSync(file, 'utf8')),
    });
    expect(seen).toEqual([expect.stringMatching(/^a\.[0-9a-f]{12}\.part$/), 'new', 'old']);
    expect(readFileSync(file, 'utf8')).toBe('new');
    expect(readdirSync(folder)).toEqual(['a']);
  });

  it('leaves the old file, and nothing beside it, when it fails', async () => {
    const file = join(folder, 'a');
    writeFileSync(file, 'old');
    const failing = writeWhole(file, 'new', {
      prepare() {
        throw new Error('not ours');
      },
    });
    await expect(failing).rejects.toThrow('not ours');
    expect(readFileSync(file, 'utf8')).toBe('old');
    expect(readdirSync(folder)).toEqual(['a']);
  });
});

it('partOf() gives another name each time', () => {
  expect(partOf('/x/a')).not.toBe(partOf('/x/a'));
});
