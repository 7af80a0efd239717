import { readdirSync } from 'node:fs';
import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Ended, repository, start } from './documents.ts';
import { describeAppGuide } from './packed-app-guide.ts';
import { describePackedGuides } from './packed-guides.ts';

/** Minutes long, and it asks the registry of packages: only in CI, or when it is asked for. */
const wanted = Boolean(process.env.REQUIRE_ALL || process.env.TOMAAT_TEST_PACKAGE);
const limitMs = 300_000;

/** Without the pinned Node of this repository in front: the starter runs under the Node of the machine. */
const path = (process.env.PATH ?? '')
  .split(delimiter)
  .filter((folder) => !folder.includes('node_modules'))
  .join(delimiter);

describe.skipIf(!wanted)('the packed packages, in an empty folder (TOMAAT_TEST_PACKAGE=1 runs this)', () => {
  let folder: string;
  const run = (line: string, cwd = folder): Promise<Ended> =>
    start('sh', ['-ec', line], { cwd, env: { PATH: path } }).ended;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-package-'));
    for (const name of ['core', 'client', 'server']) {
      const packed = await run(`npm pack --pack-destination ${folder}`, join(repository, 'packages', name));
      expect(packed.code, packed.stdout + packed.stderr).toBe(0);
    }
    await writeFile(join(folder, 'package.json'), '{ "private": true }\n');
    // As SECURITY.md and the guide say: no package needs its install script.
    const installed = await run('npm i --no-audit --no-fund --ignore-scripts ./*.tgz');
    expect(installed.code, installed.stdout + installed.stderr).toBe(0);
    await copyFile(join(repository, 'apps/ct-lung/sample.nii.gz'), join(folder, 'chest.nii.gz'));
  }, limitMs);
  afterAll(async () => {
    if (folder) await rm(folder, { recursive: true, force: true });
    for (const name of ['apps', 'page'])
      await rm(join(repository, 'packages/server', name), { recursive: true, force: true });
  }, 60_000);

  it('hold their licence, the apps without types, and the page', () => {
    for (const name of ['tomaat', '@tomaat/core', '@tomaat/client'])
      expect(readdirSync(join(folder, 'node_modules', name))).toEqual(
        expect.arrayContaining(['LICENSE', 'dist']),
      );
    const files = readdirSync(join(folder, 'node_modules/tomaat'), { recursive: true, encoding: 'utf8' });
    const has = (file: string) =>
      files.includes(file.replaceAll('/', process.platform === 'win32' ? '\\' : '/'));
    expect(has('apps/ct-lung/tomaat.yaml') && has('apps/ct-lung/app.js')).toBe(true);
    expect(has('page/index.html')).toBe(true);
    expect(files.filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'))).toEqual([]);
    expect(files.filter((file) => /\.test\.|fixture/.test(file))).toEqual([]);
  });

  it('tomaat --version works, whichever Node starts it', async () => {
    const { version } = (await import('../packages/server/package.json', { with: { type: 'json' } })).default;
    // By name npx puts the pinned Node in front; by path the Node of the machine starts it, an old one too.
    const said = await run('npx tomaat --version; node node_modules/tomaat/bin/tomaat.js --version');
    expect(said.stdout, said.stderr).toBe(`${version}\n${version}\n`);
  });

  it('tomaat run computes with the packaged app', async () => {
    const ended = await run(
      'npx tomaat run node_modules/tomaat/apps/ct-lung --volume chest.nii.gz -o lungs.nii.gz',
    );
    expect(ended.code, ended.stderr).toBe(0);
    expect(ended.stdout).toMatch(/^lungs\.nii\.gz\n {2}lung +\d+\.\d ml$/m);
  }, 60_000);

  it('tomaat up --demo serves apps and page, and the sample goes through', async () => {
    await using up = start(
      'sh',
      ['-ec', 'exec npx tomaat up --demo --port 0 --tls-port 0 --registry-port 0 --data data'],
      { cwd: folder, env: { PATH: path } },
    );
    const [, server] = await up.until(/^Server {2,}(http:\S+)/m);
    await up.until(/^ {2}\S.* +\d+(\.\d+)? ml$/m, 60_000);
    const page = await fetch(server);
    expect(page.status).toBe(200);
    expect(await page.text()).toContain('<script type="module"');
  }, 90_000);

  it('the client is importable by name', async () => {
    await writeFile(
      join(folder, 'use.mjs'),
      "import { createClient } from '@tomaat/client'; import { errorCodes } from '@tomaat/core'; console.log(typeof createClient, errorCodes.length > 10);",
    );
    const ended = await run('node use.mjs');
    expect(ended.stdout, ended.stderr).toBe('function true\n');
  });

  describePackedGuides(() => folder, path);
  describeAppGuide(() => folder, path);
});
