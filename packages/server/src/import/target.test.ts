import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { placeApp } from './target.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-target-'));
  await mkdir(join(folder, 'author'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function place(force: boolean): Promise<string> {
  const app = await mkdtemp(join(folder, '.app-'));
  await writeFile(join(app, 'import.json'), '{}');
  return placeApp(app, join(folder, 'spleen'), join(folder, 'author'), force);
}

it('placeApp() keeps what appeared at the target, and puts the app beside it', async () => {
  const out = join(folder, 'spleen');
  await mkdir(out);
  await writeFile(join(out, 'notes.txt'), 'of someone else');
  expect(await place(true)).toBe(`${out}-2`);
  expect(await place(false)).toBe(`${out}-3`);
  // An earlier import is replaced with force alone.
  expect(await place(true)).toBe(`${out}-2`);
  expect(await readdir(out)).toEqual(['notes.txt']);
  expect(await readdir(`${out}-2`)).toEqual(['import.json']);
  expect((await readdir(folder)).sort()).toEqual(['author', 'spleen', 'spleen-2', 'spleen-3']);
  await rm(out, { recursive: true });
  expect(await place(false)).toBe(out);
});
