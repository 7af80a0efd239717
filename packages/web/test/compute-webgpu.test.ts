import { createHash } from 'node:crypto';
import { copyFile, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, requireSuccess } from '@tomaat/client';
import { readVolume, type Volume } from '@tomaat/core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { nodePlatform } from '../../server/src/node-platform.ts';
import { writeApp } from '../../server/test/app-fixture.ts';
import { encode, phantom } from '../../server/test/phantom.ts';
import { temporaryFolder } from '../../server/test/test-server.ts';
import { affines, choose, resultThere, source } from './support/flows.ts';
import { boxedApp, buildPage, launchBrowser, openSite, type Site, withPageOf } from './support/site.ts';

/* Predictions on WebGPU in the browser: Chromium's software device stands for a graphics card. */

const withWebgpu = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--disable-3d-apis'];
const scan = phantom(affines['oblique, left-handed']);

describe.skipIf(findChromium() === undefined)('computing on WebGPU', () => {
  let browser: Browser;
  let site: Site;
  let folder: string;
  let bytes: Uint8Array;
  let theirs: Volume;

  beforeAll(async () => {
    bytes = await encode(scan, 'nii.gz');
    folder = await temporaryFolder();
    const network = join(boxedApp('ct-bone'), 'smooth.onnx');
    const sha256 = createHash('sha256')
      .update(await readFile(network))
      .digest('hex');
    // Many small windows: a device can be lost between them.
    const inferer = { type: 'slidingWindow', roiSize: [8, 8, 8], overlap: 0.5 };
    const app = await writeApp(folder, 'bone', {
      model: { runtime: 'onnx', file: 'smooth.onnx', sha256, inferer },
      postprocess: [{ threshold: { channel: 0, above: 100 } }],
      compute: 'anywhere',
    });
    await copyFile(network, join(app, 'smooth.onnx'));
    const pageFolder = await buildPage();
    [browser, site] = await Promise.all([
      launchBrowser(withWebgpu),
      openSite(pageFolder, { appFolders: [app] }),
    ]);
    theirs = await labelsOfServer();
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await site?.stop();
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  const readBytes = async (file: Uint8Array): Promise<Volume> =>
    (await readVolume([source('labels.nii.gz', file)], nodePlatform)).volume;

  async function savedBy(page: Page, name: string): Promise<Uint8Array> {
    const button = page.getByRole('button', { name, exact: true });
    const [file] = await Promise.all([page.waitForEvent('download'), button.click()]);
    return readFile(await file.path());
  }

  /** Computes in the page. Returns the labels and the record's engine. */
  async function compute(page: Page): Promise<{ labels: Volume; engine: string }> {
    await page.goto(`${site.address}/services/bone`);
    await choose(page, 'scan.nii.gz', bytes);
    await page.getByRole('button', { name: 'Compute on this computer', exact: true }).click();
    await page.waitForURL(/\/jobs\/local-/);
    await resultThere(page);
    const labels = await readBytes(await savedBy(page, 'segmentation as NIfTI (.nii.gz)'));
    const record = JSON.parse(new TextDecoder().decode(await savedBy(page, 'Save the record')));
    return { labels, engine: record.engine };
  }

  async function labelsOfServer(): Promise<Volume> {
    const client = createClient({ baseUrl: site.address });
    const volume = { name: 'scan.nii.gz', bytes: Uint8Array.from(bytes) };
    const { id } = await client.predict('bone', { volumes: { volume } });
    requireSuccess(await client.wait(id));
    return readBytes(await (await client.output(id, 'segmentation')).bytes());
  }

  /** Runs code in the page's workers before their own. */
  const inWorkers = (page: Page, code: string) =>
    page.route(/\/assets\/worker-[\w-]+\.js$/, async (route) => {
      const response = await route.fetch();
      const headers = { ...response.headers() };
      delete headers['content-encoding'];
      delete headers['content-length'];
      await route.fulfill({ response, headers, body: `${code}\n${await response.text()}` });
    });

  /** The voxels with another label than the server's. */
  function differing({ voxels, affine }: Volume): number {
    expect(affine).toEqual(theirs.affine);
    expect(voxels.length).toBe(theirs.voxels.length);
    return (voxels as Uint8Array).filter((value, i) => value !== theirs.voxels[i]).length;
  }

  it(
    'gives the labels of the server, and says on what',
    () =>
      withPageOf(browser, site.address, async (page) => {
        const { labels, engine } = await compute(page);
        expect(engine).toMatch(/^onnxruntime-web [\d.]+ \(WebGPU on [^;]+\)$/);
        expect(differing(labels)).toBeLessThanOrEqual(1e-4 * labels.voxels.length);
        expect((labels.voxels as Uint8Array).some((value) => value > 0)).toBe(true);
      }),
    120_000,
  );

  const faults = [
    ['is lost', 'device.destroy()', 'the device was lost'],
    ['refuses a command', 'device.createBuffer({ size: 16, usage: 0 })', 'usages must not be 0'],
  ];
  it.each(process.env.TOMAAT_SLOW ? faults : faults.slice(0, 1))(
    'continues in WebAssembly when the device %s between two windows',
    (_, fault, words) =>
      withPageOf(browser, site.address, async (page) => {
        await inWorkers(
          page,
          `{ const request = GPUAdapter.prototype.requestDevice;
             GPUAdapter.prototype.requestDevice = async function (...given) {
               const device = await request.apply(this, given);
               const submit = device.queue.submit;
               let submitted = 0;
               device.queue.submit = function (...commands) {
                 submit.apply(this, commands);
                 if (++submitted === 30) ${fault};
               };
               return device;
             }; }`,
        );
        const { labels, engine } = await compute(page);
        expect(engine).toMatch(/\(WebGPU on [^;]+, then WebAssembly, \d+ threads?; /);
        expect(engine).toMatch(/; WebGPU failed and WebAssembly continued: [^;]+\)$/);
        expect(engine).toContain(words);
        expect(differing(labels)).toBeLessThanOrEqual(1e-4 * labels.voxels.length);
      }),
    120_000,
  );

  it(
    'is not used where it gives other labels than WebAssembly',
    () =>
      withPageOf(browser, site.address, async (page) => {
        await inWorkers(
          page,
          `{ const map = GPUBuffer.prototype.getMappedRange;
             GPUBuffer.prototype.getMappedRange = function (...given) {
               const range = map.apply(this, given);
               if (this.usage & GPUBufferUsage.MAP_READ) new Float32Array(range).reverse();
               return range;
             }; }`,
        );
        const { labels, engine } = await compute(page);
        expect(engine).toMatch(
          /\(WebAssembly, \d+ threads?; WebGPU not used: its scores differ from those of the processor by up to \S+ % of the largest, .+\)$/,
        );
        expect(differing(labels)).toBe(0);
      }),
    120_000,
  );
});
