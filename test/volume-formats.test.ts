import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatList, supportedExtensions, volumeEndings, volumeFormats } from '@tomaat/core';
import { type ComponentType, createElement } from 'react';
import { renderToStaticMarkup } from 'react-dom/server';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { targets } from '../fuzz/targets.ts';
import { faults } from '../packages/core/test/bad-files.ts';
import { nothingIn, stemOf, volumePaths, volumesIn } from '../packages/server/src/cli/input-files.ts';
import { encode, phantom } from '../packages/server/test/phantom.ts';
import { startTestServer, type TestServer, temporaryFolder } from '../packages/server/test/test-server.ts';
import { TransformField } from '../packages/web/src/form/fields.tsx';
import { VolumeField } from '../packages/web/src/form/volume-field.tsx';
import { stemOf as stemOnPage } from '../packages/web/src/format.ts';

/* That no place forgets a format of the table: what asks for endings, names and media types knows every one of them. */

const root = fileURLToPath(new URL('..', import.meta.url));
const endings = volumeEndings.map(({ ending }) => ending);
const whole = volumeEndings.flatMap((one) => (one.holds === 'volume' ? one : []));
const versions = volumeFormats.flatMap((format) => Object.entries(format.versions));

let folder: string;
beforeAll(async () => {
  folder = await temporaryFolder();
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('the page', () => {
  const render = (field: unknown, props: object) =>
    renderToStaticMarkup(createElement(field as ComponentType<object>, props));
  const offered = (html: string) => /accept="([^"]*)"/.exec(html)?.[1].split(',');

  it('offers every ending when a volume is chosen, and names every format', () => {
    const input = { type: 'volume', name: 'volume' };
    const html = render(VolumeField, { service: { acceptance: [] }, input, points: [], onChoose() {} });
    expect(offered(html)).toEqual(expect.arrayContaining(endings));
    expect(html).toContain(`${formatList};`);
    for (const { name } of volumeFormats) expect(formatList).toContain(name);
  });

  it('offers every volume in one file for a transform', () => {
    const html = render(TransformField, { input: { type: 'transform', name: 'warp' }, onChange() {} });
    expect(offered(html)).toEqual(expect.arrayContaining(whole.map(({ ending }) => ending)));
  });

  it.each(endings)('calls a job after a file without its %s', (ending) => {
    expect(stemOnPage(`C:\\scans\\a.b${ending}`)).toBe('a.b');
  });
});

describe('tomaat predict', () => {
  it('finds every volume and header in a folder, and calls results after them', async () => {
    const scans = join(folder, 'scans');
    await mkdir(scans);
    const heads = volumeEndings.filter(({ holds }) => holds !== 'voxels').map(({ ending }) => ending);
    for (const ending of endings) await writeFile(join(scans, `a${ending}`), 'x');
    const found = await volumesIn(scans, ['segmentation']);
    expect(found).toEqual(heads.map((ending) => join(scans, `a${ending}`)).sort());
    expect(new Set(endings.map((ending) => stemOf(join(scans, `a${ending}`))))).toEqual(new Set(['a']));
    const empty = join(folder, 'empty');
    await mkdir(empty);
    expect(await volumesIn(empty, [])).toEqual([]);
    expect(nothingIn(empty).message).toContain(`(${heads.join(', ')})`);
  });

  it('puts the parts of every detached format together', async () => {
    for (const { name, endings, detached } of volumeFormats) {
      if (detached === undefined) continue;
      const one = (holds: string) => endings.find((ending) => ending.holds === holds)?.ending;
      const header = join(folder, `pair${one('header')}`);
      const data = join(folder, detached === 'same stem' ? `pair${one('voxels')}` : `${name}.bin`);
      const line =
        detached === 'same stem' ? '' : `${detached.field} = ${name}.bin\n${detached.field}: ${name}.bin\n`;
      await writeFile(header, line);
      await writeFile(data, 'x');
      expect(await volumePaths(header)).toEqual([header, data]);
    }
  });

  it('lists every extension that is written', async () => {
    const help = await readFile(join(root, 'docs/reference/cli.md'), 'utf8');
    expect(help.split('--format <name>').slice(1).length).toBe(2);
    for (const text of help.split('--format <name>').slice(1))
      expect(text.trimStart()).toMatch(new RegExp(`^${supportedExtensions.join(', ')}, `));
  });
});

describe('a server', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer(['threshold']);
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  it.each(supportedExtensions)(
    'takes .%s as a body of its media type, and gives it back',
    async (extension) => {
      const { mediaType } = whole.find(({ ending }) => ending === `.${extension}`)!;
      const response = await fetch(`${server.url}/threshold/any`, {
        method: 'POST',
        headers: { 'Content-Type': mediaType },
        body: (await encode(phantom(), extension)) as Uint8Array<ArrayBuffer>,
      });
      await response.arrayBuffer();
      expect(response.status).toBe(200);
      expect(response.headers.get('content-type')).toBe(mediaType);
    },
  );

  it.each(endings)('calls the result after a file without its %s', async (ending) => {
    const form = new FormData();
    form.append(
      'volume',
      new Blob([(await encode(phantom(), 'nii')) as Uint8Array<ArrayBuffer>]),
      `a.b${ending}`,
    );
    const response = await fetch(`${server.url}/threshold/any`, { method: 'POST', body: form });
    await response.arrayBuffer();
    expect(response.headers.get('content-disposition')).toContain('"a.b_segmentation.nii"');
  });
});

describe('texts and tests', () => {
  it('docs/reference/formats.md lists every format and ending', async () => {
    const page = await readFile(join(root, 'docs/reference/formats.md'), 'utf8');
    for (const [, name] of versions) expect(page).toContain(name);
    for (const ending of endings) expect(page).toContain(`| \`${ending}\` |`);
  });

  it('docs/hospital.md states for every format what is removed', async () => {
    const page = await readFile(join(root, 'docs/hospital.md'), 'utf8');
    for (const [, name] of versions) expect(page).toMatch(new RegExp(`^\\| [^|]*${name}[^|]* \\|`, 'm'));
  });

  it('every format has a target of the fuzzer, and files with faults', () => {
    expect(Object.keys(targets)).toEqual(expect.arrayContaining(versions.map(([format]) => format)));
    const kinds = new Set<string>(faults.map(([kind]) => kind));
    expect([...kinds]).toEqual(expect.arrayContaining([...supportedExtensions]));
  });
});
