import { createHash } from 'node:crypto';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, requireSuccess } from '@tomaat/client';
import { parseDicom, readSegmentationFile, readVolume, type Volume } from '@tomaat/core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { dataFolder } from '../../../test/real-data.ts';
import { dicomFile, sliceElements } from '../../core/test/dicom-files.ts';
import { slices } from '../../core/test/dicom-series.ts';
import { nodePlatform } from '../../server/src/node-platform.ts';
import { writeApp } from '../../server/test/app-fixture.ts';
import { encode, phantom } from '../../server/test/phantom.ts';
import { temporaryFolder } from '../../server/test/test-server.ts';
import { expectAccessible } from './support/axe.ts';
import { affines, choose, previewed, resultThere, source } from './support/flows.ts';
import { drop } from './support/gestures.ts';
import {
  boxedApp,
  buildPage,
  launchBrowser,
  openSite,
  type Site,
  withoutDrawing,
  withPageOf,
} from './support/site.ts';

/* Predictions that the browser computes itself: what they give, what leaves the browser, and how they end. */

const images = dataFolder();
const network = join(boxedApp('ct-bone'), 'smooth.onnx');
const scan = phantom(affines['oblique, left-handed']);
const press = (page: Page, name: string) => page.getByRole('button', { name, exact: true }).click();
const here = 'Compute on this computer';
const computed = (page: Page) => page.waitForURL(/\/jobs\/local-[0-9a-f]{32}$/);

/** What a button of the page saves. */
async function savedBy(page: Page, name: string): Promise<Uint8Array> {
  const button = page.getByRole('button', { name, exact: true });
  const [file] = await Promise.all([page.waitForEvent('download'), button.click()]);
  return readFile(await file.path());
}
const readBytes = async (bytes: Uint8Array): Promise<Volume> =>
  (await readVolume([source('labels.nii.gz', bytes)], nodePlatform)).volume;

/** Its SOP Instance UID. */
function uidOf(file: Uint8Array): string {
  const element = parseDicom(Uint8Array.from(file))!.dataset.get(0x00080018);
  return element?.kind === 'value' ? Buffer.from(element.bytes).toString('latin1').replaceAll('\0', '') : '?';
}

describe.skipIf(findChromium() === undefined)('computing in the page', () => {
  let browser: Browser;
  let site: Site;
  let folder: string;
  let bytes: Uint8Array;

  beforeAll(async () => {
    folder = await temporaryFolder();
    bytes = await encode(scan, 'nii.gz');
    const sha256 = createHash('sha256')
      .update(await readFile(network))
      .digest('hex');
    const model = { runtime: 'onnx', file: 'smooth.onnx', sha256 };
    const postprocess = [{ threshold: { channel: 0, above: 100 } }];
    const inferer = { type: 'slidingWindow', roiSize: [16, 16, 16], overlap: 0.95 };
    const apps = [
      // Thousands of windows: it goes on for long.
      await writeApp(folder, 'long', { model: { ...model, inferer }, postprocess, compute: 'anywhere' }),
      await writeApp(folder, 'own', { model, postprocess, compute: 'caller' }),
      await writeApp(folder, 'both', { model, postprocess, compute: 'anywhere' }),
    ];
    for (const app of apps) await copyFile(network, join(app, 'smooth.onnx'));
    const pageFolder = await buildPage();
    [browser, site] = await Promise.all([
      launchBrowser(withoutDrawing),
      openSite(pageFolder, {
        appFolders: [boxedApp('ct-bone'), boxedApp('brain'), boxedApp('threshold'), ...apps],
      }),
    ]);
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await site?.stop();
    if (folder) await rm(folder, { recursive: true, force: true });
  });
  const withPage = (act: (page: Page) => Promise<void>) => withPageOf(browser, site.address, act);
  /** The id of a job of the server. */
  async function computedByServer(service: string, file: Uint8Array): Promise<string> {
    const client = createClient({ baseUrl: site.address });
    const volume = { name: 'scan.nii.gz', bytes: Uint8Array.from(file) };
    const { id } = await client.predict(service, { volumes: { volume } });
    return requireSuccess(await client.wait(id)).id;
  }
  const outputOf = async (id: string) =>
    (await createClient({ baseUrl: site.address }).output(id, 'segmentation')).bytes();
  async function chooseFor(page: Page, service: string, file = bytes): Promise<void> {
    await page.goto(`${site.address}/services/${service}`);
    await choose(page, 'chest one.nii.gz', file);
    await previewed(page).catch(() => undefined);
  }

  it(
    'gives the labels of the server, and sends nothing',
    () =>
      withPage(async (page) => {
        await chooseFor(page, 'ct-bone');
        expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
        const sent: string[] = [];
        page.on('request', (request) =>
          sent.push(
            `${request.method()} ${request.url().replace(site.address, '')} ${request.postData() ?? ''}`,
          ),
        );
        await press(page, here);
        await computed(page);
        await resultThere(page);
        const allowed =
          /^GET (\/api\/services(\/ct-bone(\/manifest|\/model\?sha256=[0-9a-f]{64})?)?|\/auth\/me(\?page=[^ ]*)?|\/assets\/[\w.-]+|blob:.*) $/;
        expect(sent.filter((request) => !allowed.test(request))).toEqual([]);
        expect(sent.filter((request) => request.includes('/model?'))).toHaveLength(1);
        await expectAccessible(page);

        const id = await computedByServer('ct-bone', bytes);
        const theirs = await readBytes(await outputOf(id));
        const ours = await readBytes(await savedBy(page, 'Bone as NIfTI (.nii.gz)'));
        expect(ours.affine).toEqual(theirs.affine);
        expect(ours.voxels).toEqual(theirs.voxels);
        expect((ours.voxels as Uint8Array).some((value) => value > 0)).toBe(true);

        const record = JSON.parse(new TextDecoder().decode(await savedBy(page, 'Save the record')));
        expect(record).toMatchObject({
          signed: false,
          service: { id: 'ct-bone' },
          parameters: { threshold: 250 },
        });
        expect(record.engine).toMatch(/^onnxruntime-web [\d.]+ \(WebAssembly, \d+ threads?\)$/);

        // The network is here now.
        await chooseFor(page, 'ct-bone');
        await press(page, here);
        await computed(page);
        await resultThere(page);
        expect(sent.filter((request) => request.includes('/model?'))).toHaveLength(1);

        // A result of this browser beside one of the server, and after a reload.
        const address = new URL(page.url()).pathname.split('/').at(-1)!;
        await page.goto(`${site.address}/compare?result=${address}&reference=${id}`);
        await page.getByText(`All ${23 * 17 * 11} voxels are equal.`).waitFor();
        await page.goto(`${site.address}/jobs`);
        await page.getByText('on this computer').first().waitFor();
        await page.getByRole('link', { name: 'chest one.nii.gz' }).first().click();
        await resultThere(page);
        await press(page, 'Delete the result now');
        await expect.poll(() => page.getByRole('link', { name: 'chest one.nii.gz' }).count()).toBe(1);
      }),
    120_000,
  );

  it(
    'needs no isolation, and takes no network that was changed in this browser',
    () =>
      withPage(async (page) => {
        // As behind a proxy that drops the headers.
        await page.route(/\/(services|jobs)\//, async (route) => {
          if (route.request().resourceType() !== 'document') return route.fallback();
          const response = await route.fetch();
          const kept = Object.entries(response.headers()).filter(
            ([name]) => !name.startsWith('cross-origin-'),
          );
          await route.fulfill({ response, headers: Object.fromEntries(kept) });
        });
        await chooseFor(page, 'ct-bone');
        expect(await page.evaluate(() => crossOriginIsolated)).toBe(false);
        await press(page, here);
        await computed(page);
        await resultThere(page);
        const record = JSON.parse(new TextDecoder().decode(await savedBy(page, 'Save the record')));
        expect(record.engine).toContain('1 thread)');
        await page.evaluate(async () => {
          const cache = await caches.open('tomaat.models');
          for (const key of await cache.keys()) await cache.put(key, new Response('another network'));
        });
        const fetched = page.waitForRequest((request) => request.url().includes('/model?'));
        await chooseFor(page, 'ct-bone');
        await press(page, here);
        await fetched;
        await computed(page);
        await resultThere(page);
      }),
    120_000,
  );

  it(
    'makes a segmentation of the original series, the same as the server',
    () =>
      withPage(async (page) => {
        const all = slices([0, 2.5, 5, 7.5, 10, 12.5]).map((slice, z) => ({
          ...slice,
          ...{ rows: 9, columns: 11, more: { 1048592: ['PN', 'Canary^Carla'] as ['PN', string] } },
          values: Array.from({ length: 99 }, (_, i) => (z > 1 && i % 11 > 3 && i < 77 ? 400 : 10)),
        }));
        const originals = all.map((slice) => dicomFile(sliceElements(slice)));
        const series = join(folder, 'series');
        await mkdir(series);
        for (const [i, file] of originals.entries()) await writeFile(join(series, `IM${i}`), file);
        await page.goto(`${site.address}/services/both`);
        await drop(page, series);
        await page.getByText('“Send and compute” sends').waitFor();
        await press(page, here);
        await computed(page);
        await resultThere(page);
        const ours = await savedBy(page, 'segmentation as Segmentation (DICOM SEG)');

        const client = createClient({ baseUrl: site.address });
        const volume = originals.map((bytes, i) => ({ name: `IM${i}.dcm`, bytes: Uint8Array.from(bytes) }));
        const { id } = requireSuccess(
          await client.wait((await client.predict('both', { volumes: { volume }, keepText: true })).id),
        );
        const theirs = await (await client.output(id, 'segmentation', { format: 'seg.dcm' })).bytes();
        const [a, b] = [ours, theirs].map((file) => readSegmentationFile(file).labelMap);
        expect([a.size, a.voxels]).toEqual([b.size, b.voxels]);
        // A NIfTI between states its affine in single precision.
        for (const [i, value] of b.affine.entries()) expect(a.affine[i]).toBeCloseTo(value, 6);
        expect((a.voxels as Uint8Array).some((value) => value > 0)).toBe(true);
        const text = Buffer.from(ours).toString('latin1');
        expect(text).toContain('Canary^Carla');
        for (const file of originals) expect(text).toContain(uidOf(file));
      }),
    120_000,
  );

  it(
    'stops when it is cancelled, says so, and computes again',
    () =>
      withPage(async (page) => {
        await chooseFor(page, 'long', await encode(phantom(scan.affine, [70, 60, 50]), 'nii.gz'));
        await press(page, here);
        await computed(page);
        await page.getByText(/^Computing, [1-9]/).waitFor();
        await press(page, 'Cancel');
        await page.getByText('The computation was stopped. Nothing was sent.').waitFor({ timeout: 5000 });
        // The worker that computes, and its threads.
        const computing = () => page.workers().filter((one) => /\/(worker|ort-wasm)-/.test(one.url()));
        await expect.poll(() => computing().length).toBe(0);
        await press(page, 'Compute again');
        await page.getByText(/^Computing/).waitFor();
        // Closed before it is done.
        await page.reload();
        await page.getByText('The page that computed it was closed before it was done.').waitFor();
      }),
    120_000,
  );

  it.skipIf(!process.env.TOMAAT_SLOW || !images)(
    'labels a real head as the server does',
    () =>
      withPage(async (page) => {
        page.setDefaultTimeout(280_000);
        const head = new Uint8Array(await readFile(join(images!, 'brain/seg3d_MR.nii.gz')));
        await chooseFor(page, 'brain', head);
        await press(page, here);
        await computed(page);
        await page.getByText(/^Done in/).waitFor();
        const ours = await readBytes(await savedBy(page, 'Brain as NIfTI (.nii.gz)'));
        const theirs = await readBytes(await outputOf(await computedByServer('brain', head)));
        expect(ours.affine).toEqual(theirs.affine);
        const differ = (ours.voxels as Uint8Array).filter((value, i) => value !== theirs.voxels[i]).length;
        expect(differ / ours.voxels.length).toBeLessThanOrEqual(1e-4);
        expect(new Set(ours.voxels as Uint8Array).size).toBe(11);
      }),
    600_000,
  );

  it(
    'refuses what does not fit into the memory, with the numbers',
    () =>
      withPage(async (page) => {
        await page.addInitScript(() => Object.defineProperty(navigator, 'deviceMemory', { value: 0.25 }));
        await chooseFor(page, 'ct-bone');
        await press(page, here);
        await page
          .getByText(
            /^A volume of 23 × 17 × 11 voxels needs about \d+ MB of memory, and this page may use 125 MB\. No volume would fit: send it to the server\.$/,
          )
          .waitFor();
      }),
    60_000,
  );

  it(
    'says on the card what was verified, what computes, and whether this computer can',
    () =>
      withPage(async (page) => {
        const details = page.locator('dl.details');
        await page.goto(`${site.address}/services/ct-bone`);
        await details.getByText('possible: nothing is sent').waitFor();
        expect(await details.innerText()).toMatch(/Verified on\s+CPU\s+Computed on\s+CPU\s/);
        await page.goto(`${site.address}/services/threshold`);
        await details.getByText('a program of the author computes it, and pages run none').waitFor();
        expect(await details.innerText()).not.toContain('Verified on');
      }),
    60_000,
  );

  it(
    'offers only this computer where the author wants that',
    () =>
      withPage(async (page) => {
        await chooseFor(page, 'own');
        await page.getByText('Nothing will be sent.').waitFor();
        expect(await page.getByRole('button', { name: 'Send and compute' }).count()).toBe(0);
        await press(page, here);
        await computed(page);
        await resultThere(page);
      }),
    60_000,
  );
});
