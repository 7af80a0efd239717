import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createClient } from '@tomaat/client';
import {
  collectBytes,
  openZip,
  parseDicom,
  readSegmentationFile,
  readVolume,
  sourceFromBytes,
} from '@tomaat/core';
import type { Browser, Page } from 'playwright-core';
import { build } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium, findPython } from '../../../test/programs.ts';
import { dataFolder } from '../../../test/real-data.ts';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { zipOf } from '../../core/test/zip-files.ts';
import { nodePlatform } from '../../server/src/node-platform.ts';
import { startRecordingProxy } from '../../server/test/recording-proxy.ts';
import config from '../vite.config.ts';
import type { Reading } from './dicom-harness/harness.ts';
import { expectAccessible } from './support/axe.ts';
import { resultThere } from './support/flows.ts';
import { drop, dropOnto } from './support/gestures.ts';
import {
  boxedApp,
  buildPage,
  launchBrowser,
  openPage,
  openSite,
  pairApp,
  type Site,
  type Watched,
  withoutDrawing,
  withPageOf,
} from './support/site.ts';

/* DICOM series in the page: from a dropped folder to a segmentation of the original series, in a real browser. */

const data = dataFolder();
const cases = join(data ?? '', 'dicom_cases');
const python = data && findPython('pydicom', 'highdicom');
const checker = fileURLToPath(new URL('../../../test/check-segmentation.py', import.meta.url));

describe.skipIf(findChromium() === undefined)('DICOM in the page', () => {
  let browser: Browser;
  let site: Site;
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-dicom-page-'));
    const pageFolder = await buildPage();
    const appFolders = [boxedApp('threshold'), pairApp];
    [browser, site] = await Promise.all([
      launchBrowser(withoutDrawing),
      openSite(pageFolder, { appFolders }),
    ]);
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await site?.stop();
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  const withPage = (act: (page: Page, watched: Watched) => Promise<void>) =>
    withPageOf(browser, site.address, act);

  /** Files of a series of slices 2 mm apart, in a folder of their own. */
  async function writeSeries(
    name: string,
    slices: number,
    more: Parameters<typeof sliceElements>[0] = {},
    below = name,
  ): Promise<string> {
    await mkdir(join(folder, below), { recursive: true });
    for (let i = 0; i < slices; i++) {
      const slice = { orientation: [1, 0, 0, 0, 1, 0], position: [0, 0, 2 * i], instance: i + 1, ...more };
      await writeFile(join(folder, below, `${name}-${i}`), dicomFile(sliceElements(slice)));
    }
    return join(folder, below);
  }
  const described = (number: string, description: string): Parameters<typeof sliceElements>[0] => ({
    series: number,
    more: { 2097169: ['IS', number], 528446: ['LO', description] },
  });

  it(
    'lists the series of nested folders, and takes the keyboard’s choice',
    () =>
      withPage(async (page) => {
        await writeSeries('a', 3, described('3', 'Thin'), 'study');
        await writeSeries('b', 5, described('12', 'Thick'), 'study/IM0001');
        await writeFile(join(folder, 'study', 'notes.txt'), 'notes');
        await page.goto(`${site.address}/services/threshold`);
        await drop(page, join(folder, 'study'));
        const group = page.getByRole('radiogroup', { name: 'There are 2 series. Which one is to be sent?' });
        await group.waitFor();
        expect(await group.getByRole('radio').count()).toBe(2);
        await expectAccessible(page);
        await page.getByText('Left out (1)').click();
        await page.getByText('notes.txt: is not a DICOM file').waitFor();
        expect(await page.getByRole('button', { name: 'Send and compute' }).isDisabled()).toBe(true);
        await page.getByText('Choose a series first.', { exact: true }).waitFor();
        await group.getByRole('radio').first().focus();
        await page.keyboard.press('ArrowDown');
        await page.getByRole('definition').filter({ hasText: '4 × 3 × 5 voxels' }).waitFor();
        expect(await group.getByRole('radio', { name: /Thick/ }).isChecked()).toBe(true);
        await page.getByText('study_series12').waitFor();
        await page.getByRole('button', { name: 'Remove', exact: true }).click();
        await page.getByText('Drop Any volume first.', { exact: true }).waitFor();
        expect(await group.count()).toBe(0);
      }),
    60_000,
  );

  it(
    'stops reading on request, and takes the files of a chosen folder',
    () =>
      withPage(async (page) => {
        const series = await writeSeries('many', 600, { more: described('5', 'Many').more });
        await page.goto(`${site.address}/services/threshold`);
        await drop(page, series);
        await page.getByText(/^Reading \d+ of 600 files$/).waitFor();
        await page.getByRole('progressbar', { name: 'Reading the files' }).waitFor();
        await page.getByRole('button', { name: 'Cancel' }).click();
        await page.getByText('Drop a volume here').waitFor();
        expect(await page.getByRole('progressbar').count()).toBe(0);
        expect(await page.getByText('Many', { exact: true }).count()).toBe(0);
        const [chooser] = await Promise.all([
          page.waitForEvent('filechooser'),
          page.getByRole('button', { name: 'Choose a folder' }).click(),
        ]);
        await chooser.setFiles(series);
        await page.getByRole('definition').filter({ hasText: '4 × 3 × 600 voxels' }).waitFor();
      }),
    90_000,
  );

  it(
    'says why a series is not a volume, and does not offer it',
    () =>
      withPage(async (page) => {
        const series = await writeSeries('gap', 5);
        await rm(join(series, 'gap-2'));
        await page.goto(`${site.address}/services/threshold`);
        await drop(page, series);
        await page.getByText('1 series is not a volume and cannot be sent').waitFor();
        await page.getByRole('alert').getByText('The series has a gap of 4 mm').waitFor();
        expect(await page.getByRole('radio').count()).toBe(0);
        expect(await page.getByRole('button', { name: 'Send and compute' }).isDisabled()).toBe(true);
      }),
    60_000,
  );

  it(
    'sends a de-identified zip archive, and makes results from the originals',
    () =>
      withPage(async (page) => {
        const patient = { 1048592: ['PN', 'Canary^Carla'], 1052720: ['DS', '71'] } as const;
        const series = await writeSeries('own', 4, { more: patient });
        const other = await writeSeries('other', 4, described('4', 'Other'));
        const files = await Promise.all(
          (await readdir(series)).map(async (name) => ({ name, data: await readFile(join(series, name)) })),
        );
        await writeFile(join(folder, 'Canary_Carla.zip'), zipOf(files));
        await page.goto(`${site.address}/services/threshold`);
        await drop(page, join(folder, 'Canary_Carla.zip'));
        const details = page.getByText(/^What is removed before sending: \d+ attributes/);
        await details.click();
        await page.getByText('Canary^Carla').waitFor();
        expect(await page.locator('.removal dt', { hasText: "Patient's Weight" }).count()).toBe(1);
        await page.getByRole('checkbox', { name: /Keep patient characteristics/ }).focus();
        await page.keyboard.press('Space');
        await details.click();
        await page.getByText('Canary^Carla').waitFor();
        expect(await page.locator('.removal dt', { hasText: "Patient's Weight" }).count()).toBe(0);
        await send(page);

        const sent = await sentFiles(page);
        expect(sent).toHaveLength(4);
        expect(Buffer.concat(sent).includes('Canary')).toBe(false);
        const first = await download(page, 'Segmentation (DICOM SEG)');
        expect(first.name).toBe('Canary_Carla_segmentation.seg.dcm');
        expect(textOf(first.bytes, 0x00100010)).toBe('Canary^Carla');
        expect(readSegmentationFile(first.bytes).labelMap.size).toEqual([4, 3, 4]);

        await page.reload();
        await page.getByText('Drop the series again to get DICOM results').waitFor();
        expect(await page.getByRole('button', { name: /DICOM SEG/ }).count()).toBe(0);
        await drop(page, other);
        await page.getByText('The series that was sent is not among these files').waitFor();
        await drop(page, series);
        const again = await download(page, 'Segmentation (DICOM SEG)');
        expect(uidOf(again.bytes)).toBe(uidOf(first.bytes));
      }),
    90_000,
  );

  it(
    'sends the files as they are on request, and takes the server’s result',
    () =>
      withPage(async (page) => {
        const kept = await writeSeries('kept', 4, { more: { 1048592: ['PN', 'Canary^Karl'] } });
        await page.goto(`${site.address}/services/threshold`);
        await drop(page, kept);
        await page.getByText(/^What is removed before sending/).waitFor();
        await page.getByRole('checkbox', { name: 'Send the files with the identity of the patient' }).focus();
        await page.keyboard.press('Space');
        await page.getByText(/^The files are sent as they are/).waitFor();
        await expectAccessible(page);
        await send(page);
        expect((await sentFiles(page)).map((file) => textOf(file, 0x00100010))).toEqual(
          Array(4).fill('Canary^Karl'),
        );
        await page.reload();
        // Not made here: the file of the server.
        const result = await download(page, 'Segmentation (DICOM SEG)', 'link');
        expect(textOf(result.bytes, 0x00100010)).toBe('Canary^Karl');
        expect(readSegmentationFile(result.bytes).labelMap.size).toEqual([4, 3, 4]);
      }),
    90_000,
  );

  it(
    'takes a series for each of two volumes, and makes the result of the first one',
    () =>
      withPage(async (page) => {
        const names = ['fixed', 'moving', 'odd'];
        const [fixed, moving, odd] = await Promise.all(
          names.map((name, i) => writeSeries(name, 4 + i, described(String(21 + i), name))),
        );
        await page.goto(`${site.address}/services/pair`);
        const field = (title: string) => page.getByRole('region', { name: title }).locator('.drop');
        // The second one first: the order of the service counts.
        await mkdir(join(folder, 'both'));
        for (const [i, from] of [moving, odd].entries())
          await cp(from, join(folder, 'both', String(i)), { recursive: true });
        await dropOnto(field('Moving volume'), join(folder, 'both'));
        await page.getByText('Choose a series for Moving volume first.').waitFor();
        await page.getByText('Drop Fixed volume first.').waitFor();
        await page.locator('.series-card', { hasText: 'moving' }).click();
        await page.getByRole('definition').filter({ hasText: '4 × 3 × 5 voxels' }).waitFor();
        await dropOnto(field('Fixed volume'), fixed);
        await page.getByRole('definition').filter({ hasText: '4 × 3 × 4 voxels' }).waitFor();
        await send(page);
        const report = await page.getByLabel('What came', { exact: true }).inputValue();
        // sliceElements() writes 100 × instance into the first voxel.
        expect(report).toBe('fixed 4 × 3 × 4, first voxel 100\nmoving 4 × 3 × 5, first voxel 100\n');

        const first = await download(page, 'Segmentation (DICOM SEG)');
        expect(readSegmentationFile(first.bytes).labelMap.size).toEqual([4, 3, 4]);
        expect(seriesOf(first.bytes)).toBe('1.2.3.21');
        await page.reload();
        await drop(page, moving);
        await page.getByText('The series that was sent is not among these files').waitFor();
        await drop(page, fixed);
        const again = await download(page, 'Segmentation (DICOM SEG)');
        expect(uidOf(again.bytes)).toBe(uidOf(first.bytes));
      }),
    90_000,
  );

  it.skipIf(!data)(
    'turns a scanner’s dropped folder into a segmentation at the right place',
    async () => {
      await using proxy = await startRecordingProxy(site.address);
      await using drawing = await launchBrowser();
      await withPageOf(drawing, proxy.url, async (page) => {
        const series = join(cases, 'ct_folder_with_surview');
        await cp(series, join(folder, 'export'), { recursive: true });
        await writeSeries('another', 3, described('77', 'Another'), 'export/more');
        await page.goto(`${proxy.url}/services/threshold`);
        await drop(page, join(folder, 'export'));
        await page.getByText('There are 2 series.').waitFor();
        await page.getByText('2 series are not a volume and cannot be sent').click();
        await page
          .getByText(/is a localizer/)
          .first()
          .waitFor();
        await page.getByText(/^Left out/).click();
        await page.getByText('DIRFILE').waitFor();
        await page.getByText('README.txt').waitFor();
        await page.locator('.series-card', { hasText: '192 × 192 × 6 voxels' }).click();
        await page.getByRole('definition').filter({ hasText: '192 × 192 × 6 voxels' }).waitFor();
        await page.locator('.viewer[data-ready=true]').waitFor();
        // WindowCenter 40, WindowWidth 80, as dcmdump shows.
        const window = page.getByLabel('Window');
        expect(await window.inputValue()).toBe('As stored');
        await expect.poll(() => drawnWindow(page)).toEqual([0, 80]);
        await window.selectOption('Lung');
        await expect.poll(() => drawnWindow(page)).toEqual([-1350, 150]);
        await expectAccessible(page);
        await send(page);
        await page.locator('.viewer[data-ready=true]').waitFor();
        const made = await download(page, 'Segmentation (DICOM SEG)');
        await writeFile(join(folder, 'result.seg.dcm'), made.bytes);
        const texts = await identifyingTexts(series);
        expect(texts.length).toBeGreaterThan(5);
        const bytes = proxy.sent();
        expect(texts.filter((text) => bytes.includes(text))).toEqual([]);

        const client = createClient({ baseUrl: site.address });
        const job = await client.job(new URL(page.url()).pathname.split('/').pop()!);
        const output = await client.output(job.id, 'segmentation', { format: 'nii' });
        const { volume } = await readVolume([sourceFromBytes('a.nii', await output.bytes())], nodePlatform);
        await writeFile(join(folder, 'labels.raw'), volume.voxels as Uint8Array);
        if (!python) return;
        const checked = {
          segmentation: join(folder, 'result.seg.dcm'),
          series: (await readdir(series))
            .filter((name) => /^ct\d/.test(name))
            .map((name) => join(series, name)),
          size: volume.size,
          affine: volume.affine,
          labels: join(folder, 'labels.raw'),
          values: { 1: 1 },
        };
        await writeFile(join(folder, 'cases.json'), JSON.stringify([checked]));
        const { stdout } = await promisify(execFile)(python, [checker, join(folder, 'cases.json')]);
        expect(JSON.parse(stdout)).toMatchObject([
          { wrong: 0, distance: 0, highdicom: 0, differs: [], references: true, names: { 1: 'bright' } },
        ]);
      });
    },
    120_000,
  );

  describe.skipIf(!data)('the worker', async () => {
    const names = data ? (await readdir(cases)).filter((name) => !/[._](json|md|gz)$/.test(name)) : [];
    let harness: Watched & { site: Site };
    beforeAll(async () => {
      const built = join(folder, 'harness');
      const root = fileURLToPath(new URL('dicom-harness', import.meta.url));
      // As the page is built, but for its documents.
      const settings = { ...config.build, rolldownOptions: {}, outDir: built, emptyOutDir: true };
      await build({ ...config, configFile: false, root, logLevel: 'error', build: settings });
      const own = await openSite(built, { appFolders: [boxedApp('threshold')] });
      harness = { ...(await openPage(browser, own.address)), site: own };
      await harness.page.goto(own.address);
    }, 60_000);
    afterAll(async () => {
      if (harness) expect(harness.misdeeds).toEqual([]);
      await harness?.context.close();
      await harness?.site.stop();
    });

    /** Read one after the other in one page: each has a worker of its own. */
    async function readByPage(page: Page, paths: readonly string[], other?: number): Promise<Reading> {
      await page.locator('input').setInputFiles([...paths]);
      return page.evaluate(
        (other) => (globalThis as unknown as { read(other?: number): Promise<Reading> }).read(other),
        other,
      );
    }

    const pathsIn = async (series: string) => (await readdir(series)).map((name) => join(series, name));

    it.each(names)(
      'reads %s as its truth says',
      async (name) => {
        const truth = JSON.parse(await readFile(join(cases, `${name}_truth.json`), 'utf8')) as Truth;
        const found = await readByPage(
          harness.page,
          await pathsIn(join(cases, name)),
          truth.second?.SeriesNumber,
        );
        if (truth.expect === 'refuse') return expect(found.refusal).toMatch(/mm/);
        expect(found).toMatchObject({ size: truth.size, sha256: truth.sha256_float32_xfastest });
        const distances = truth.affineRas.flat().map((value, i) => Math.abs(value - found.affine![i]));
        expect(Math.max(...distances)).toBeLessThan(0.002);
      },
      60_000,
    );

    it('reads one volume alike from four transfer syntaxes', async () => {
      const found: (string | undefined)[] = [];
      for (const syntax of ['rle', 'j2k', 'jpegls', 'jpeg_lossless']) {
        const paths = await pathsIn(join(data!, 'dicom', `series_${syntax}`));
        found.push((await readByPage(harness.page, paths)).sha256);
      }
      expect(found[0]).toMatch(/^[0-9a-f]{64}$/);
      expect(new Set(found)).toEqual(new Set([found[0]]));
    }, 60_000);

    it('decodes JPEG baseline as Node does', async () => {
      const folder = join(data!, 'dicom/ct_one_slice_all_syntaxes');
      const [name] = (await readdir(folder)).filter((file) => file.includes('1.2.840.10008.1.2.4.50'));
      const { volume } = await readVolume(
        [sourceFromBytes(name, new Uint8Array(await readFile(join(folder, name))))],
        nodePlatform,
      );
      const values = Float32Array.from(volume.voxels as Int16Array);
      expect((await readByPage(harness.page, [join(folder, name)])).sha256).toBe(
        createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex'),
      );
    }, 60_000);
  });

  /** The files of the archive that this browser sent, from its own store. */
  async function sentFiles(page: Page): Promise<Buffer[]> {
    const bytes = await page.evaluate(async () => {
      const request = indexedDB.open('tomaat', 1);
      await new Promise((resolve) => (request.onsuccess = resolve));
      const all = request.result.transaction('submissions').objectStore('submissions').getAll();
      await new Promise((resolve) => (all.onsuccess = resolve));
      const [{ files }] = all.result as { files: Record<string, { blob: Blob }[]> }[];
      return [...new Uint8Array(await Object.values(files)[0][0].blob.arrayBuffer())];
    });
    const members = await openZip(sourceFromBytes('sent.zip', Uint8Array.from(bytes)), nodePlatform);
    return Promise.all(members.map(async (member) => Buffer.from(await collectBytes(member.open()))));
  }
});

interface Truth {
  expect: 'volume' | 'refuse';
  size: number[];
  affineRas: number[][];
  sha256_float32_xfastest: string;
  /** Another series among the files. */
  second?: { SeriesNumber: number };
}

async function send(page: Page): Promise<void> {
  const button = page.getByRole('button', { name: 'Send and compute' });
  await expect.poll(() => button.isEnabled(), { timeout: 30_000 }).toBe(true);
  await button.click();
  await page.waitForURL((url) => /\/jobs\/(?!upload)/.test(url.pathname), { timeout: 40_000 });
  await resultThere(page);
}

async function download(
  page: Page,
  format: string,
  role: 'button' | 'link' = 'button',
): Promise<{ name: string; bytes: Uint8Array<ArrayBuffer> }> {
  const [file] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole(role, { name: format }).click(),
  ]);
  return { name: file.suggestedFilename(), bytes: new Uint8Array(await readFile(await file.path())) };
}

function textOf(file: Uint8Array, tag: number): string {
  const element = parseDicom(file)!.dataset.get(tag);
  if (element?.kind !== 'value') return '';
  return Buffer.from(element.bytes)
    .toString('latin1')
    .replace(/[\0 ]+$/, '');
}
const uidOf = (file: Uint8Array) => textOf(file, 0x00080018);

/** UID of the series that a result refers to. */
function seriesOf(file: Uint8Array): string {
  const referenced = parseDicom(file)!.dataset.get(0x00081115);
  if (referenced?.kind !== 'sequence') throw new Error('it refers to no series');
  const uid = referenced.items[0].get(0x0020000e);
  return uid?.kind === 'value' ? Buffer.from(uid.bytes).toString('latin1').replaceAll('\0', '') : '';
}

/** The values that the viewer draws black and white. */
const drawnWindow = (page: Page): Promise<[number, number]> =>
  page.locator('.viewer canvas').evaluate((canvas) => {
    const { niivue } = canvas as HTMLCanvasElement & {
      niivue: { volumes: { cal_min: number; cal_max: number }[] };
    };
    return [niivue.volumes[0].cal_min, niivue.volumes[0].cal_max];
  });

const identifyingTags = [
  0x00100010, 0x00100020, 0x00100030, 0x0020000d, 0x0020000e, 0x00080018, 0x00200052, 0x00080020, 0x00080021,
  0x00080022, 0x00080080, 0x00081010, 0x00080090, 0x00081070, 0x00080050, 0x00200010, 0x00081030, 0x00181000,
];

/** The values that tell whose scan it is, of 5 bytes or more, once each. */
async function identifyingTexts(series: string): Promise<string[]> {
  const found = new Set<string>();
  for (const name of (await readdir(series)).filter((file) => /^ct\d/.test(file))) {
    const bytes = await readFile(join(series, name));
    for (const tag of identifyingTags) found.add(textOf(bytes, tag));
  }
  return [...found].filter((text) => text.length >= 5);
}
