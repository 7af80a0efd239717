import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { copyFiles, filesOf } from './author-files.ts';
import type { AuthorFolder } from './recognise.ts';

let folder: string;
let author: AuthorFolder;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tomaat-files-'));
  author = { kind: 'monai', folder: join(folder, 'bundle'), notes: [] };
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function write(path: string, text = path): void {
  const file = join(folder, path);
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, text);
}

describe('filesOf()', () => {
  it('takes what the pipeline read, the configs and all code of a bundle', async () => {
    for (const path of [
      'configs/inference.json',
      'configs/logging.conf',
      'scripts/own.py',
      'scripts/deep/er.py',
    ])
      write(`bundle/${path}`);
    for (const path of [
      'models/model.pt',
      'models/model.ts',
      'models/atlas.npy',
      'docs/README.md',
      'patient.nii.gz',
    ])
      write(`bundle/${path}`);
    for (const path of ['.git/hook.py', 'scripts/__pycache__/own.cpython-311.pyc', '.venv/lib/x.py'])
      write(`bundle/${path}`);
    const files = await filesOf(author, ['models/model.pt', 'models/atlas.npy', 'configs/inference.json']);
    expect(files.map(({ path }) => path)).toEqual([
      'configs/inference.json',
      'configs/logging.conf',
      'models/atlas.npy',
      'models/model.pt',
      'scripts/deep/er.py',
      'scripts/own.py',
    ]);
    expect(files[3]).toMatchObject({ from: join(folder, 'bundle/models/model.pt'), sizeBytes: 22 });
  });

  it('follows links, as a download may consist of them, and ends in a circle of them', async () => {
    write('blobs/weights', 'weights');
    mkdirSync(join(author.folder, 'scripts'), { recursive: true });
    symlinkSync(join(folder, 'blobs/weights'), join(author.folder, 'scripts', 'own.py'));
    symlinkSync(author.folder, join(author.folder, 'scripts', 'again'));
    symlinkSync(join(folder, 'nothing'), join(author.folder, 'scripts', 'gone.py'));
    const files = await filesOf(author, []);
    expect(files).toMatchObject([{ path: 'scripts/own.py', sizeBytes: 7 }]);
  });

  it('takes of nnU-Net what was read alone, with the folders of the stages', async () => {
    const stage = 'Dataset9/nnUNetTrainer__nnUNetPlans__3d_fullres';
    write(`${stage}/plans.json`);
    write(`${stage}/own.py`);
    author = { kind: 'nnunet', folder: join(folder, stage), notes: [] };
    const read = ['nnUNetTrainer__nnUNetPlans__3d_fullres/plans.json'];
    expect((await filesOf(author, read)).map(({ path }) => path)).toEqual(read);
  });

  it('names a file that has gone: BAD_INPUT', async () => {
    write('bundle/configs/inference.json');
    await expect(filesOf(author, ['models/model.pt'])).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringContaining(
        'models/model.pt, which the author’s pipeline read, is no longer there',
      ),
    });
  });
});

describe('copyFiles()', () => {
  const never = new AbortController().signal;

  it('copies bytes, counts them and states their hash; a later change of the author’s file is not in the copy', async () => {
    write('bundle/configs/a.json', 'abc');
    write('bundle/scripts/b.py', 'defgh');
    const counts: number[] = [];
    const to = join(folder, 'app');
    const copied = await copyFiles(await filesOf(author, []), to, never, (done) => counts.push(done));
    expect(copied).toEqual([
      {
        path: 'configs/a.json',
        sizeBytes: 3,
        sha256: 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
      },
      expect.objectContaining({ path: 'scripts/b.py', sizeBytes: 5 }),
    ]);
    expect(counts.at(-1)).toBe(8);
    expect([...counts].sort((a, b) => a - b)).toEqual(counts);
    write('bundle/configs/a.json', 'xyz');
    expect(readFileSync(join(to, 'configs/a.json'), 'utf8')).toBe('abc');
  });

  it('ends when it is cancelled, before the next file', async () => {
    for (const name of ['a', 'b', 'c']) write(`bundle/configs/${name}.json`, 'x'.repeat(3e6));
    const controller = new AbortController();
    const to = join(folder, 'app');
    const copying = copyFiles(await filesOf(author, []), to, controller.signal, (done) => {
      if (done > 3e6) controller.abort(new Error('enough'));
    });
    await expect(copying).rejects.toThrow();
    expect(() => readFileSync(join(to, 'configs/c.json'))).toThrow('ENOENT');
  });
});
