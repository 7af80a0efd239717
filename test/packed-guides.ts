import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type CodeBlock, codeBlocks, type Running, readText, repository, start } from './documents.ts';
import { findChromium } from './programs.ts';
import { writeSeries } from './write-series.ts';

/*
 * The TypeScript of the guides, checked by tsc and run against the packages as they are packed and installed: what counts is what
 * a reader has, not the sources.
 */

const rolldown = await import('rolldown').catch(() => undefined);
const chromium = findChromium();
const blocksOf = (guide: string, language: string): CodeBlock[] =>
  codeBlocks(readText(`docs/guides/${guide}.md`)).filter((block) => block.language === language);
const isPage = ({ text }: CodeBlock) => text.includes('document.');
const tsc = join(repository, 'node_modules/typescript/bin/tsc');

/** strict, and no `lib`: what TypeScript takes by itself, declarations of the packages included. */
const tsconfig = {
  compilerOptions: {
    target: 'esnext',
    module: 'nodenext',
    strict: true,
    noEmit: true,
    skipLibCheck: false,
    erasableSyntaxOnly: true,
    allowImportingTsExtensions: true,
    types: ['node'],
    typeRoots: [join(repository, 'node_modules/@types')],
  },
  include: ['*.ts', 'bright/*.ts'],
};

/** Describes the guides. `folder` has the packed packages installed, and chest.nii.gz; `path` is its PATH. */
export function describePackedGuides(folder: () => string, path: string): void {
  describe('the guides in TypeScript', () => {
    const inFolder = (...names: string[]) => join(folder(), ...names);
    const blocks = blocksOf('use-from-typescript', 'ts');
    const programs = blocks.filter((block) => !isPage(block));
    let up: Running;
    let origin: string;
    let page = '';
    let localize = (text: string) => text;
    const pages = createServer((_request, response) =>
      response.writeHead(200, { 'content-type': 'text/html' }).end(page),
    );

    beforeAll(async () => {
      await new Promise<void>((resolve) => pages.listen(0, '127.0.0.1', resolve));
      origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
      up = start(
        'sh',
        [
          '-ec',
          `exec npx tomaat up --port 0 --tls-port 0 --registry-port 0 --data my-data --allow-origin ${origin}`,
        ],
        { cwd: folder(), env: { PATH: path } },
      );
      const [, server, serverTls] = await up.until(/^Server {2,}(http:\S+) +(https:\S+)$/m, 60_000);
      const [, registry] = await up.until(/^Registry {2,}(http:\S+)$/m);
      localize = (text) =>
        text
          .replaceAll('http://127.0.0.1:9000', server)
          .replaceAll('https://127.0.0.1:9443', serverTls)
          .replaceAll('http://127.0.0.1:8001', registry);
      writeFileSync(inFolder('package.json'), '{ "private": true, "type": "module" }\n');
      writeFileSync(inFolder('tsconfig.json'), JSON.stringify(tsconfig));
      for (const { text, line } of blocks) writeFileSync(inFolder(`line-${line}.ts`), localize(text));
      await writeSeries(inFolder('chest.nii.gz'), inFolder('chest'), [2]);
      mkdirSync(inFolder('bright'), { recursive: true });
      writeFileSync(inFolder('bright/app.ts'), blocksOf('publish-your-model', 'ts')[0].text);
      writeFileSync(inFolder('bright/tomaat.yaml'), blocksOf('publish-your-model', 'yaml').at(-1)!.text);
    }, 120_000);
    afterAll(async () => {
      await up?.[Symbol.asyncDispose]();
      pages.closeAllConnections();
      pages.close();
    }, 30_000);

    /** Runs a file in the Node of this repository, which strips types; the packages come from the folder. */
    const node = (...args: string[]) =>
      start(process.execPath, args, { cwd: folder(), env: { PATH: path, TOMAAT_DATA: 'client-data' } }).ended;

    it('pass tsc in strict mode, with the declarations of the packages', () => {
      expect(blocks.length).toBeGreaterThan(5);
      const checked = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.json'], {
        cwd: folder(),
        encoding: 'utf8',
      });
      expect(checked.stdout + checked.stderr).toBe('');
      expect(checked.status).toBe(0);
    }, 300_000);

    it('are checked: a wrong line fails tsc', () => {
      writeFileSync(
        inFolder('wrong.ts'),
        "import { createClient } from '@tomaat/client';\nexport const client = createClient({ url: 'x' });\n",
      );
      const checked = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.json'], {
        cwd: folder(),
        encoding: 'utf8',
      });
      writeFileSync(inFolder('wrong.ts'), '');
      expect(checked.stdout).toMatch(/wrong\.ts.*error TS/);
    }, 300_000);

    it.each(programs.map(({ line }) => line))(
      'the program at line %i runs',
      async (line) => {
        const ended = await node(`line-${line}.ts`);
        expect(ended.code, ended.stdout + ended.stderr).toBe(0);
        expect(ended.stdout).not.toBe('');
      },
      120_000,
    );

    it('the programs do what they say', async () => {
      expect(readFileSync(inFolder('lungs.seg.dcm')).toString('latin1', 128, 132)).toBe('DICM');
      expect(readFileSync(inFolder('volume_segmentation.nrrd')).subarray(0, 7).toString()).toBe('NRRD000');
      expect([...readFileSync(inFolder('brain.nii.gz')).subarray(0, 2)]).toEqual([0x1f, 0x8b]);
    });

    it('a client without the certificate says how it is trusted in Node', async () => {
      writeFileSync(
        inFolder('untrusted.mjs'),
        localize(
          "import { createClient } from '@tomaat/client';\nawait createClient({ baseUrl: 'https://127.0.0.1:9443', retries: 0 }).services().catch((error) => console.log(error.code, error.message));\n",
        ),
      );
      const { stdout } = await node('untrusted.mjs');
      expect(stdout).toMatch(/^UNREACHABLE .*NODE_EXTRA_CA_CERTS=tomaat\.pem.*connectTo\(/);
    });

    it('openApp() runs an ONNX app in the Node of the machine', async () => {
      writeFileSync(
        inFolder('local.mjs'),
        `import { openApp } from 'tomaat';
const app = await openApp('node_modules/tomaat/apps/brain');
const volume = { path: 'node_modules/tomaat/apps/brain/sample.nii.gz' };
const result = await app.predict({ volumes: { volume }, values: { detail: 'mask' } });
await app.close();
console.log(result.output().fileName);
`,
      );
      const ended = await start('node', ['local.mjs'], { cwd: folder(), env: { PATH: path } }).ended;
      expect(ended.stdout, ended.stderr).toBe('segmentation.nii.gz\n');
    }, 120_000);

    it.skipIf(!rolldown || !chromium)(
      'the page sends a file from another origin and offers the result',
      async () => {
        const { line } = blocks.find(isPage)!;
        const bundle = await rolldown!.rolldown({
          input: inFolder(`line-${line}.ts`),
          platform: 'browser',
          logLevel: 'silent',
        });
        const { output } = await bundle.generate({ format: 'iife' });
        await bundle.close();
        page = '<!doctype html><title>t</title><input type=file><p id=status></p>';
        const browser = await (await import('playwright-core')).chromium.launch({
          executablePath: chromium,
          args: ['--no-sandbox'],
        });
        try {
          const tab = await browser.newPage();
          await tab.goto(origin);
          await tab.addScriptTag({ content: output[0].code });
          await tab.setInputFiles('input', inFolder('chest.nii.gz'));
          await tab.waitForFunction(() =>
            /Download|[A-Z_]{4,}:/.test(document.querySelector('#status')!.textContent!),
          );
          expect(await tab.textContent('#status')).toBe('Download volume_segmentation.nii.gz');
        } finally {
          await browser.close();
        }
      },
      120_000,
    );

    it('the app in TypeScript passes tomaat check, and runs in node_modules', async () => {
      cpSync(inFolder('bright'), inFolder('node_modules/bright'), { recursive: true });
      for (const line of [
        'npx tomaat check bright',
        'npx tomaat run node_modules/bright --volume chest.nii.gz --param keep=largest -o bright.nii.gz',
      ]) {
        const ended = await start('sh', ['-ec', line], { cwd: folder(), env: { PATH: path } }).ended;
        expect(ended.code, ended.stdout + ended.stderr).toBe(0);
      }
    }, 120_000);
  });
}
