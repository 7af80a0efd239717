import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readVolume, sourceFromBytes } from '../packages/core/src/formats/volume-file.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { tomaat } from '../packages/server/test/cli-fixture.ts';
import { encode, phantom } from '../packages/server/test/phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from '../packages/server/test/test-server.ts';
import { findChromium } from './programs.ts';
import { dataFolder } from './real-data.ts';

/*
 * What one face reads, all read: the library in Node and in a browser, the promise, the command line. And what one refuses, all
 * refuse. Files of every format, packed and padded in every way in which gzip, bgzip, tapes and editors leave them.
 */

type Files = readonly (readonly [name: string, bytes: Uint8Array])[];
interface Case {
  name: string;
  files: Files;
}

const joined = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
const zip = (bytes: Uint8Array) => new Uint8Array(gzipSync(bytes));
const bgzipEnd = new Uint8Array(
  Buffer.from('1f8b08040000000000ff0600424302001b0003000000000000000000', 'hex'),
);
const textBytes = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'));

/** A member with an extra field, a name and a comment in its header (RFC 1952, 2.3). */
function adorned(bytes: Uint8Array): Uint8Array {
  const head = textBytes(
    '\x1f\x8b\x08\x1c\x01\x02\x03\x04\x00\x03\x06\x00BC\x02\x00\x1b\x00scan.nii\0of a test\0',
  );
  return joined(head, zip(bytes).subarray(10));
}

/** Ways to pack the same bytes that gzip unpacks. */
const packings: Record<string, (bytes: Uint8Array) => Uint8Array> = {
  'one member': zip,
  'two members': (bytes) => joined(zip(bytes.subarray(0, 3000)), zip(bytes.subarray(3000))),
  'header and voxels apart': (bytes) => joined(zip(bytes.subarray(0, 352)), zip(bytes.subarray(352))),
  'many members, as bgzip': (bytes) => {
    const blocks = [];
    for (let at = 0; at < bytes.length; at += 700) blocks.push(adorned(bytes.subarray(at, at + 700)));
    return joined(...blocks, bgzipEnd);
  },
  'an empty member first': (bytes) => joined(zip(new Uint8Array(0)), zip(bytes)),
  'extra field, name and comment': adorned,
  'zeros between members': (bytes) =>
    joined(zip(bytes.subarray(0, 100)), new Uint8Array(512), zip(bytes.subarray(100))),
  'zeros at the end': (bytes) => joined(zip(bytes), new Uint8Array(10_240)),
  'a line end at the end': (bytes) => joined(zip(bytes), textBytes('\r\n')),
};

const broken: Record<string, (bytes: Uint8Array) => Uint8Array> = {
  'a second member that is cut off': (bytes) =>
    joined(zip(bytes.subarray(0, 3000)), zip(bytes.subarray(3000)).subarray(0, -9)),
  'a wrong checksum of the second': (bytes) => {
    const packed = joined(zip(bytes.subarray(0, 3000)), zip(bytes.subarray(3000)));
    packed[packed.length - 7] ^= 1;
    return packed;
  },
  'text behind it': (bytes) => joined(zip(bytes), textBytes('x'.repeat(40))),
};

let good: Case[];
let bad: Case[];
let expected: number[];

async function makeCases(): Promise<void> {
  const volume = phantom();
  const nii = await encode(volume, 'nii');
  const raw = new Uint8Array(volume.voxels.buffer.slice(0)) as Uint8Array;
  const nrrdHead = (more: string) =>
    `NRRD0004\ntype: short\ndimension: 3\nsizes: 23 17 11\nspacings: 1 2 3\nendian: little\n${more}\n\n`;
  const metaHead = (more: string, file = 'LOCAL') =>
    `ObjectType = Image\nNDims = 3\nDimSize = 23 17 11\n${more}ElementType = MET_SHORT\nElementDataFile = ${file}\n`;
  /** The header of a NIfTI pair. */
  const hdr = nii.slice(0, 352);
  hdr.set(textBytes('ni1'), 344);
  new DataView(hdr.buffer).setFloat32(108, 0, true);

  const withPacking = (name: string, pack: (bytes: Uint8Array) => Uint8Array): Case[] => [
    { name: `nii.gz, ${name}`, files: [['a.nii.gz', pack(nii)]] },
    {
      name: `hdr and img.gz, ${name}`,
      files: [
        ['a.hdr', hdr],
        ['a.img.gz', pack(raw)],
      ],
    },
    { name: `nrrd, ${name}`, files: [['a.nrrd', joined(textBytes(nrrdHead('encoding: gzip')), pack(raw))]] },
    {
      name: `nhdr and raw.gz, ${name}`,
      files: [
        ['a.nhdr', textBytes(nrrdHead('encoding: gzip\ndata file: a.raw.gz'))],
        ['a.raw.gz', pack(raw)],
      ],
    },
    {
      name: `mha, ${name}`,
      files: [['a.mha', joined(textBytes(metaHead('CompressedData = True\n')), pack(raw))]],
    },
  ];
  const padding = textBytes('15 bytes of it.');
  good = [
    ...Object.entries(packings).flatMap(([name, pack]) => withPacking(name, pack)),
    { name: 'nii', files: [['a.nii', nii]] },
    { name: 'nii, padded', files: [['a.nii', joined(nii, padding)]] },
    { name: 'nii.gz, padded inside', files: [['a.nii.gz', zip(joined(nii, padding))]] },
    { name: 'mha with zlib', files: [['a.mha', await encode(volume, 'mha')]] },
    {
      name: 'mha with zlib and zeros',
      files: [['a.mha', joined(await encode(volume, 'mha'), new Uint8Array(512))]],
    },
    {
      name: 'mha raw, a line end',
      files: [['a.mha', joined(textBytes(metaHead('')), raw, textBytes('\n'))]],
    },
    {
      name: 'mhd and raw',
      files: [
        ['a.mhd', textBytes(metaHead('', 'a.raw'))],
        ['a.raw', joined(raw, padding)],
      ],
    },
    {
      name: 'nrrd raw, a line end',
      files: [['a.nrrd', joined(textBytes(nrrdHead('encoding: raw')), raw, textBytes('\n'))]],
    },
    {
      name: 'nrrd as text',
      files: [
        [
          'a.nrrd',
          joined(
            textBytes(nrrdHead('encoding: ascii')),
            textBytes(`${(volume.voxels as Int16Array).join(' ')}\n`),
          ),
        ],
      ],
    },
  ];
  bad = [
    ...Object.entries(broken).flatMap(([name, pack]) => withPacking(name, pack)),
    { name: 'nii, 16 bytes behind', files: [['a.nii', joined(nii, padding, padding)]] },
    { name: 'a web page', files: [['a.nii.gz', textBytes('<!doctype html><html></html>')]] },
    { name: 'gzip twice', files: [['a.nii.gz', zip(zip(nii))]] },
  ];
  expected = Array.from(volume.voxels as Int16Array);
}

/** A checksum of the voxels' bytes (Adler-32's two sums) with their number, or the code of the refusal. */
type Outcome = string;

/** It goes into the browser as it is. */
function checksum(voxels: ArrayBufferView): string {
  const bytes = new Uint8Array(voxels.buffer, voxels.byteOffset, voxels.byteLength);
  let [a, b] = [1, 0];
  for (let i = 0; i < bytes.length; i++) {
    a = (a + bytes[i]) % 65_521;
    b = (b + a) % 65_521;
  }
  return `${bytes.length} bytes, ${a} ${b}`;
}

async function inNode({ files }: Case): Promise<Outcome> {
  const sources = files.map(([name, bytes]) => sourceFromBytes(name, bytes));
  return readVolume(sources, nodePlatform, { frame: 'all' }).then(
    ({ volume }) => checksum(volume.voxels),
    (error: { code: string }) => error.code,
  );
}

let server: TestServer;
let folder: string;
beforeAll(async () => {
  await makeCases();
  folder = await temporaryFolder();
  server = await startTestServer(['threshold']);
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const bright = (voxels: readonly number[]) => {
  const mean = voxels.reduce((sum, v) => sum + v, 0) / voxels.length;
  return voxels.map((v) => Number(v > mean));
};

it('the library in Node reads the good files and refuses the bad ones', async () => {
  for (const one of good) expect(await inNode(one), one.name).toBe(checksum(Int16Array.from(expected)));
  for (const one of bad) expect(await inNode(one), one.name).toMatch(/^(BAD_VOXELS|UNSUPPORTED_FORMAT)$/);
});

it('the promise reads and refuses the same', async () => {
  const post = ({ files }: Case) => {
    const form = new FormData();
    for (const [name, bytes] of files)
      form.append('volume', new Blob([bytes as Uint8Array<ArrayBuffer>]), name);
    return fetch(`${server.url}/threshold/any?format=nii`, { method: 'POST', body: form });
  };
  for (const one of good) {
    const response = await post(one);
    const bytes = new Uint8Array(await response.arrayBuffer());
    expect(response.status, `${one.name}: ${Buffer.from(bytes.subarray(0, 400))}`).toBe(200);
    const { volume } = await readVolume([sourceFromBytes('a.nii', bytes)], nodePlatform);
    expect(Array.from(volume.voxels as Uint8Array), one.name).toEqual(bright(expected));
  }
  for (const one of bad) {
    const response = await post(one);
    expect(((await response.json()) as { code: string }).code, one.name).toBe(await inNode(one));
  }
});

/** A second a volume: of the formats that only differ in their headers, one packing. */
const forCommandLine = (cases: readonly Case[]) =>
  cases.filter(({ name }) => !/^(nrrd|nhdr|mha), /.test(name) || /two members|second member/.test(name));

it('the command line reads and refuses the same', async () => {
  const [right, wrong] = [forCommandLine(good), forCommandLine(bad)];
  const write = async (cases: readonly Case[], into: string) => {
    await mkdir(join(folder, into));
    for (const [i, { files }] of cases.entries()) {
      const stem = `${into}${String(i).padStart(3, '0')}`;
      for (const [name, bytes] of files) {
        // Headers name their data by the first letter.
        const text = /\.(nhdr|mhd)$/.test(name)
          ? Buffer.from(bytes).toString('latin1').replaceAll('a.raw', `${stem}.raw`)
          : undefined;
        await writeFile(join(folder, into, name.replace('a', stem)), text ? textBytes(text) : bytes);
      }
    }
  };
  await write(right, 'good');
  await write(wrong, 'bad');
  const predict = (from: string) =>
    tomaat([
      'predict',
      `${server.url}/threshold/any`,
      '--volume',
      join(folder, from),
      '-o',
      `${join(folder, from)}-out/`,
      '--format',
      'nii',
    ]);
  const [read, refused] = await Promise.all([predict('good'), predict('bad')]);
  expect(read.code, read.stderr).toBe(0);
  const results = (await readdir(join(folder, 'good-out'))).filter((name) => name.endsWith('.nii'));
  expect(results).toHaveLength(right.length);
  for (const [i, one] of right.entries()) {
    const bytes = await readFile(join(folder, 'good-out', results.sort()[i]));
    const { volume } = await readVolume([sourceFromBytes('a.nii', new Uint8Array(bytes))], nodePlatform);
    expect(Array.from(volume.voxels as Uint8Array), one.name).toEqual(bright(expected));
  }
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain(`${wrong.length} scans: ${wrong.length} failed`);
});

const data = dataFolder();
const images = data && join(data, 'formats');
const rolldown = await import('rolldown').catch(() => undefined);
const browserFile = findChromium();

describe.skipIf(!rolldown || !browserFile)('the library in a browser', () => {
  let browser: Browser;
  let page: Page;
  let http: Server;
  beforeAll(async () => {
    const scripts: string[] = [];
    for (const [name, entry] of [
      ['core', '../packages/core/src/index.ts'],
      ['client', '../packages/client/src/index.ts'],
    ]) {
      const bundle = await rolldown!.rolldown({
        input: fileURLToPath(new URL(entry, import.meta.url)),
        platform: 'browser',
        resolve: { conditionNames: ['tomaat-source', 'browser', 'import', 'default'] },
        logLevel: 'silent',
      });
      const { output } = await bundle.generate({ format: 'iife', name });
      await bundle.close();
      scripts.push(output[0].code);
    }
    http = createServer((_request, response) =>
      response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>t</title>'),
    );
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
    const { chromium } = await import('playwright-core');
    browser = await chromium.launch({ executablePath: browserFile, args: ['--no-sandbox'] });
    page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${(http.address() as AddressInfo).port}/`);
    for (const content of [...scripts, `${checksum}`]) await page.addScriptTag({ content });
  });
  afterAll(async () => {
    await browser?.close();
    http?.close();
  });

  /** As the page does: the header, the files without identifying text, the voxels of what would be sent. */
  const inBrowser = ({ files }: Case): Promise<Outcome> =>
    page.evaluate(
      async (given) => {
        const { core, client, checksum } = globalThis as unknown as {
          checksum(voxels: ArrayBufferView): string;
          core: typeof import('../packages/core/src/index.ts');
          client: typeof import('../packages/client/src/index.ts');
        };
        const sourceOf = (file: File) => ({
          name: file.name,
          sizeBytes: file.size,
          open: (start = 0) => file.slice(start).stream() as unknown as AsyncIterable<Uint8Array>,
        });
        try {
          const chosen = given.map(
            ([name, text]) => new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name),
          );
          const prefixes = await Promise.all(
            chosen.map(async (file) => ({
              name: file.name,
              prefix: new Uint8Array(await file.slice(0, 65_536).arrayBuffer()),
              sizeBytes: file.size,
            })),
          );
          await core.inspectVolume(prefixes, core.webPlatform);
          const read = async (files: File[]) =>
            checksum(
              (await core.readVolume(files.map(sourceOf), core.webPlatform, { frame: 'all' })).volume.voxels,
            );
          const seen = await read(chosen);
          const sent = await (await client.anonymousFiles('volume', chosen)).strip();
          if ((await read(sent as File[])) !== seen) return 'changed on the way';
          return seen;
        } catch (error) {
          return (error as { code?: string }).code ?? String(error);
        }
      },
      files.map(([name, bytes]) => [name, Buffer.from(bytes).toString('base64')] as [string, string]),
    );

  it.skipIf(!images)('reads and refuses every small real image as Node does', async () => {
    const names = (await readdir(images!, { recursive: true })).filter((name) =>
      /\.(nii|nii\.gz|mha|mhd|nrrd|nhdr|hdr|img|img\.gz|raw|zraw|raw\.gz)$/i.test(name),
    );
    let compared = 0;
    for (const name of names.sort()) {
      const path = join(images!, name);
      if ((await stat(path)).size > 300_000) continue;
      const one = { name, files: [[basename(path), new Uint8Array(await readFile(path))]] } as const;
      expect(await inBrowser(one), name).toEqual(await inNode(one));
      compared++;
    }
    expect(compared).toBeGreaterThan(30);
  });

  it('reads and refuses the same', async () => {
    for (const one of good) expect(await inBrowser(one), one.name).toBe(await inNode(one));
    for (const one of bad) expect(await inBrowser(one), one.name).toBe(await inNode(one));
  });
});
