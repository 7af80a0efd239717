import { spawnSync } from 'node:child_process';
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseManifest } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { codeBlocks, type Ended, readText, shownFiles, start } from './documents.ts';
import { findCurl } from './programs.ts';

/*
 * The guide “Write an app in TypeScript”, followed from its first line to its last in an empty folder: with the packages as they
 * are packed, the compiler and Node that the reader installs, and a second folder for the colleague.
 */

const page = readText('docs/guides/app-in-typescript.md');
const files = shownFiles(page);
const lines = codeBlocks(page)
  .filter(({ language }) => language === 'sh')
  .flatMap(({ text }) => text.trim().split('\n'));
const noCurl = !findCurl();

/** The version of a package that this repository has, so that the test does not depend on what was published since. */
const versionOf = (name: string): string =>
  (JSON.parse(readText(`node_modules/${name}/package.json`)) as { version: string }).version;

/** Makes a folder with the files of another one, as hard links. */
function linkTree(from: string, to: string): void {
  mkdirSync(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) linkTree(source, target);
    else if (entry.isSymbolicLink()) symlinkSync(readlinkSync(source), target);
    else linkSync(source, target);
  }
}

/** Describes the guide. The packed packages lie in `packed` as *.tgz; `path` is the PATH of a reader. */
export function describeAppGuide(packed: () => string, path: string): void {
  describe('the guide to an app in TypeScript', () => {
    let home: string;
    const author = (...names: string[]) => join(home, 'author', ...names);
    const colleague = (...names: string[]) => join(home, 'colleague', ...names);
    const run = (line: string, cwd: string): Promise<Ended> =>
      start('sh', ['-ec', line], { cwd, env: { PATH: path } }).ended;

    async function works(line: string, cwd = author()): Promise<string> {
      const ended = await run(line, cwd);
      expect(ended.code, `${line}\n${ended.stdout}${ended.stderr}`).toBe(0);
      return ended.stdout;
    }

    /** The next line of the guide, which the test expects to be this one. */
    let at = 0;
    function next(expected: RegExp): string {
      expect(lines[at]).toMatch(expected);
      return lines[at++];
    }

    /** An installation as the guide says, with the packed packages in the place of those that a registry has. */
    function localize(line: string): string {
      const tarball = (start: RegExp) =>
        join(packed(), readdirSync(packed()).find((name) => start.test(name) && name.endsWith('.tgz'))!);
      const [core, client, server] = [/^tomaat-core-/, /^tomaat-client-/, /^tomaat-\d/].map(tarball);
      const others = line
        .split(' ')
        .filter((word) => word !== 'tomaat' && word !== '@tomaat/core')
        .map((word) =>
          word === 'typescript' || word === '@types/node' ? `${word}@${versionOf(word)}` : word,
        );
      return [...others, '--no-audit --no-fund', core, client, server].join(' ');
    }

    /** Puts what the packed packages need into a folder, as links: npm then takes a third of the time for what a line of the guide adds. */
    function linkInstalled(folder: string): void {
      linkTree(join(packed(), 'node_modules'), join(folder, 'node_modules'));
    }

    /** Runs a `tomaat serve …` line on free ports while `look` is given its address. */
    async function serving(line: string, cwd: string, look: (url: string) => Promise<void>): Promise<void> {
      await using server = start('sh', ['-ec', `exec ${line} --port 0 --tls-port 0`], {
        cwd,
        env: { PATH: path },
      });
      const [, url] = await server.until(/^Server {2,}(http:\S+)/m);
      await look(url);
    }

    const serviceOf = async (url: string) =>
      ((await (await fetch(`${url}/api/services`)).json()) as { services: { id: string }[] }).services.map(
        ({ id }) => id,
      );

    beforeAll(async () => {
      home = await mkdtemp(join(tmpdir(), 'tomaat-app-guide-'));
      for (const folder of [author(), colleague()]) mkdirSync(folder);
      for (const [name, [text]] of files) writeFileSync(author(name), text);
      writeFileSync(colleague('package.json'), '{ "private": true }\n');
      linkInstalled(author());
      await works(localize(next(/^npm install --save-dev --ignore-scripts /)));
    }, 300_000);
    afterAll(async () => {
      if (home) await rm(home, { recursive: true, force: true });
    });

    it('shows every file of the app', () => {
      expect([...files.keys()]).toEqual([
        'package.json',
        'tsconfig.json',
        'tomaat.yaml',
        'bone.ts',
        'app.ts',
        'bone.test.ts',
        'three.ts',
      ]);
    });

    it('its code passes tsc with the declarations of the packages, and its own tests', async () => {
      await works(next(/^npm run types$/));
      const said = await works(next(/^npm test$/));
      const tests = files.get('bone.test.ts')![0].match(/^test\(/gm)!;
      expect(said).toMatch(new RegExp(`^\\S+ pass ${tests.length}$`, 'm'));
    }, 120_000);

    it.each([
      ['app.ts', 'volume, edge', 'volume, egde'],
      ['app.ts', '{ segmentation: bone', '{ labels: bone'],
      [
        'three.ts',
        'segmentation: bone.postprocess(labels, Number(inputs.smallest))',
        'segmentation: new Date()',
      ],
    ])(
      'a mistake in %s fails tsc: %s',
      (name, right, wrong) => {
        const text = readFileSync(author(name), 'utf8');
        expect(text).toContain(right);
        writeFileSync(author(name), text.replace(right, wrong));
        const checked = spawnSync(process.execPath, [author('node_modules/typescript/bin/tsc')], {
          cwd: author(),
          encoding: 'utf8',
        });
        writeFileSync(author(name), text);
        expect(checked.stdout).toMatch(new RegExp(`^${name.replace('.', '\\.')}.*error TS`, 'm'));
      },
      60_000,
    );

    it('its own tests fail when its code is wrong', async () => {
      const text = readFileSync(author('bone.ts'), 'utf8');
      writeFileSync(author('bone.ts'), text.replace('if (!hasCore[', 'if (hasCore['));
      const ended = await run('npm test', author());
      writeFileSync(author('bone.ts'), text);
      expect(ended.code).not.toBe(0);
      expect(ended.stdout).toMatch(/^\S+ fail [1-9]/m);
    }, 60_000);

    it('it is checked, run on a scan, and gets a self-test', async () => {
      await works(next(/^cp /));
      expect(await works(next(/^npx tomaat check \.$/))).toContain('self-test: skipped');
      expect(await works(next(/^npx tomaat run \. /))).toMatch(
        /^expected\.nii\.gz\n {2}bone +\d{3}\.\d ml$/m,
      );
      writeFileSync(author('tomaat.yaml'), files.get('tomaat.yaml')!.join(''));
      expect(parseManifest(readFileSync(author('tomaat.yaml'), 'utf8')).selftest).toBeDefined();
      const said = await works(next(/^npx tomaat check \.$/));
      for (const name of ['manifest and weights', 'model', 'self-test', 'geometry'])
        expect(said).toMatch(new RegExp(`^ {2}ok {4,}${name}: `, 'm'));
      expect(said).not.toContain('skipped');
    }, 120_000);

    it('it is served', async () => {
      const [serve, curl] = [next(/^npx tomaat serve \. /), next(/^curl /)];
      await serving(serve, author(), async (url) => {
        expect(await serviceOf(url)).toEqual(['bone']);
        if (noCurl) return;
        await works(curl.replace('http://127.0.0.1:9000', url));
        expect([...readFileSync(author('served.nii.gz')).subarray(0, 2)]).toEqual([0x1f, 0x8b]);
      });
    }, 60_000);

    it('a colleague installs its package, checks and serves it', async () => {
      expect(await works(next(/^npm pack$/))).toBe('bone-app-1.0.0.tgz\n');
      linkInstalled(colleague());
      const install = localize(next(/^npm install --ignore-scripts /));
      await works(install.replace('./bone-app', author('bone-app')), colleague());
      const folder = readdirSync(colleague('node_modules/bone-app')).sort();
      expect(folder).toEqual([
        'app.ts',
        'bone.ts',
        'expected.nii.gz',
        'package.json',
        'sample.nii.gz',
        'tomaat.yaml',
      ]);
      expect(await works(next(/^npx tomaat check node_modules\/bone-app$/), colleague())).toMatch(
        /ok {4,}geometry/,
      );
      await serving(next(/^npx tomaat serve /), colleague(), async (url) => {
        expect(await serviceOf(url)).toEqual(['bone']);
      });
      expect(lines.slice(at)).toEqual([]);
    }, 300_000);

    it('the three functions give the same result', async () => {
      const manifest = readFileSync(author('tomaat.yaml'), 'utf8');
      writeFileSync(author('tomaat.yaml'), manifest.replace('file: app.ts', 'file: three.ts'));
      await works('npx tomaat run . --volume sample.nii.gz -o three.nii.gz');
      expect(readFileSync(author('three.nii.gz'))).toEqual(readFileSync(author('expected.nii.gz')));
    }, 60_000);
  });
}
