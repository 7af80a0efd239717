import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type FakeAuthor, fakePython } from '../../test/fake-author.ts';
import { readPlan } from './author-python.ts';
import type { AuthorFolder } from './recognise.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tomaat-python-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const plan = JSON.parse(
  readFileSync(new URL('../../test/import-plans/spleen.json', import.meta.url), 'utf8'),
);
const bundle: AuthorFolder = { kind: 'monai', folder: '/bundle', config: 'inference.json', notes: [] };

function read(
  author: FakeAuthor,
  { python = fakePython(folder, author), signal = new AbortController().signal } = {},
) {
  const progress: string[] = [];
  const result = readPlan(bundle, {
    python,
    mirror: false,
    signal,
    onProgress: (text) => progress.push(text),
  });
  return { progress, result };
}

describe('readPlan()', () => {
  it('takes the answer among lines of others, and reports progress', async () => {
    const { progress, result } = read({ plan });
    expect(await result).toMatchObject({ kind: 'monai', channels: 1, classes: 2 });
    expect(progress).toEqual(['fake plan']);
  });

  it('names a missing package, and what to give', async () => {
    const fault = { code: 'NO_PYTHON_PACKAGE', path: 'monai', text: "No module named 'monai'" };
    await expect(read({ fault }).result).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringMatching(/cannot import monai.*--python/),
    });
  });

  it('passes on the place and the text of a fault', async () => {
    const fault = { code: 'CONFIG', path: 'inference.json: inferer', text: 'MONAI cannot evaluate it' };
    await expect(read({ fault }).result).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: 'inference.json: inferer: MONAI cannot evaluate it.',
    });
  });

  it('says the last words of a Python that ends without an answer', async () => {
    await expect(read({ lastWords: 'MemoryError: 1 TB' }).result).rejects.toMatchObject({
      code: 'APP_FAILED',
      message: expect.stringMatching(/code 3.*MemoryError: 1 TB.*--python/),
    });
  });

  it('says that a Python does not exist', async () => {
    const { result } = read({}, { python: join(folder, 'nothing') });
    await expect(result).rejects.toMatchObject({ code: 'BAD_INPUT', field: 'python' });
  });

  it('ends with its signal', async () => {
    const controller = new AbortController();
    const { result } = read({ hangs: true }, { signal: controller.signal });
    setTimeout(() => controller.abort(new Error('stopped')), 300);
    await expect(result).rejects.toThrow('stopped');
  });
});
