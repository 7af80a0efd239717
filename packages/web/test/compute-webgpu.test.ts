import { readFile } from 'node:fs/promises';
import { createClient, requireSuccess } from '@tomaat/client';
import { readVolume, type Volume } from '@tomaat/core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { nodePlatform } from '../../server/src/node-platform.ts';
import { encode, phantom } from '../../server/test/phantom.ts';
import { affines, choose, resultThere, source } from './support/flows.ts';
import { boxedApp, buildPage, launchBrowser, openSite, type Site, withPageOf } from './support/site.ts';

/* Predictions on WebGPU in the browser: Chromium's software device stands for a graphics card. */

const withWebgpu = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--disable-3d-apis'];
const scan = phantom(affines['oblique, left-handed']);

describe.skipIf(findChromium() === undefined)('computing on WebGPU', () => {
  let browser: Browser;
  let site: Site;
  let bytes: Uint8Array;

  beforeAll(async () => {
    bytes = await encode(scan, 'nii.gz');
    const pageFolder = await buildPage();
    [browser, site] = await Promise.all([
      launchBrowser(withWebgpu),
      openSite(pageFolder, { appFolders: [boxedApp('ct-bone')] }),
    ]);
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await site?.stop();
  });

  const readBytes = async (file: Uint8Array): Promise<Volume> =>
    (await readVolume([source('labels.nii.gz', file)], nodePlatform)).volume;

  async function savedBy(page: Page, name: string): Promise<Uint8Array> {
    const button = page.getByRole('button', { name, exact: true });
    const [file] = await Promise.all([page.waitForEvent('download'), button.click()]);
    return readFile(await file.path());
  }

  /** Computes in the page; `prepare` changes what workers find before they start. Returns the labels and the record's engine. */
  async function compute(page: Page): Promise<{ labels: Volume; engine: string }> {
    await page.goto(`${site.address}/services/ct-bone`);
    await choose(page, 'scan.nii.gz', bytes);
    await page.getByRole('button', { name: 'Compute on this computer', exact: true }).click();
    await page.waitForURL(/\/jobs\/local-/);
    await resultThere(page);
    const labels = await readBytes(await savedBy(page, 'Bone as NIfTI (.nii.gz)'));
    const record = JSON.parse(new TextDecoder().decode(await savedBy(page, 'Save the record')));
    return { labels, engine: record.engine };
  }

  async function labelsOfServer(): Promise<Volume> {
    const client = createClient({ baseUrl: site.address });
    const volume = { name: 'scan.nii.gz', bytes: Uint8Array.from(bytes) };
    const { id } = await client.predict('ct-bone', { volumes: { volume } });
    requireSuccess(await client.wait(id));
    return readBytes(await (await client.output(id, 'segmentation')).bytes());
  }

  it(
    'gives the labels of the server, and says on what',
    () =>
      withPageOf(browser, site.address, async (page) => {
        const { labels, engine } = await compute(page);
        expect(engine).toMatch(/^onnxruntime-web [\d.]+ \(WebGPU on [^;]+\)$/);
        const theirs = await labelsOfServer();
        expect(labels.affine).toEqual(theirs.affine);
        const differ = (labels.voxels as Uint8Array).filter((value, i) => value !== theirs.voxels[i]).length;
        expect(differ).toBeLessThanOrEqual(1e-4 * labels.voxels.length);
        expect((labels.voxels as Uint8Array).some((value) => value > 0)).toBe(true);
      }),
    120_000,
  );
});
