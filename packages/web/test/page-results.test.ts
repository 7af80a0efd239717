import { readFile } from 'node:fs/promises';
import { createClient, type Job, requireSuccess } from '@tomaat/client';
import { applyAffine, readVolume, type Volume } from '@tomaat/core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { nodePlatform } from '../../server/src/node-platform.ts';
import { encode, obliqueAffine, phantom } from '../../server/test/phantom.ts';
import { expectAccessible } from './support/axe.ts';
import { choose, jobPage, resultOf, resultThere, setSlider, source } from './support/flows.ts';
import {
  boxedApp,
  buildPage,
  launchBrowser,
  openSite,
  type Site,
  type Watched,
  withoutDrawing,
  withPageOf,
} from './support/site.ts';

/* What is done with jobs and results: deleted and not deleted, kept longer, opened elsewhere, waited for. */

const scan = phantom(obliqueAffine);
const volView = 'https://volview.kitware.app';

describe.skipIf(findChromium() === undefined)('jobs and results in the page', () => {
  let browser: Browser;
  let site: Site;
  let open: Site;
  let bytes: Uint8Array;

  beforeAll(async () => {
    const pageFolder = await buildPage();
    bytes = await encode(scan, 'nii.gz');
    [browser, site, open] = await Promise.all([
      launchBrowser(withoutDrawing),
      openSite(pageFolder),
      openSite(pageFolder, { appFolders: [boxedApp('threshold')], allowOrigin: [volView] }),
    ]);
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await site?.stop();
    await open?.stop();
  });
  const withPage = (act: (page: Page, watched: Watched) => Promise<void>, address = site.address) =>
    withPageOf(browser, address, act);

  /** A job of this browser, with its result. */
  async function sendScan(page: Page, name = 'chest one.nii.gz'): Promise<void> {
    await page.goto(`${site.address}/services/threshold`);
    await choose(page, name, bytes);
    await page.getByRole('button', { name: 'Send and compute' }).click();
    await jobPage(page);
    await resultThere(page);
  }
  /** The state of a job, or why there is none. */
  const stateOf = (id: string, at = site) =>
    createClient({ baseUrl: at.address })
      .job(id)
      .then(
        ({ state }) => state,
        (error: { code?: string }) => error.code,
      );
  const idOf = (page: Page) => new URL(page.url()).pathname.split('/').at(-1)!;
  const press = (page: Page, name: string) => page.getByRole('button', { name, exact: true }).click();
  /** The entries of this browser, deleted ones too. */
  const entries = (page: Page) =>
    page.evaluate(() => (JSON.parse(localStorage.getItem('tomaat.jobs') ?? '[]') as unknown[]).length);

  it(
    'undoes a deletion, keeps a result longer, and deletes when the time is over',
    () =>
      withPage(async (page) => {
        await sendScan(page);
        const id = idOf(page);
        const before = (await createClient({ baseUrl: site.address }).job(id)).expiresTime!;
        expect(await page.locator('.keeping time').textContent()).toBe('in 1 hour');
        expect(await page.locator('.keeping time').getAttribute('datetime')).toBe(before);
        await press(page, 'Keep longer');
        await page.getByText(/^Kept until/).waitFor();
        const after = (await createClient({ baseUrl: site.address }).job(id)).expiresTime!;
        expect(after > before).toBe(true);
        expect(await page.locator('.keeping time').getAttribute('datetime')).toBe(after);
        expect(await page.locator('.share time').getAttribute('datetime')).toBe(after);

        await press(page, 'Delete the result now');
        await page.getByText('No jobs yet').waitFor();
        await expectAccessible(page);
        await press(page, 'Undo');
        await page.getByRole('link', { name: 'chest one.nii.gz' }).click();
        await resultThere(page);
        expect(await stateOf(id)).toBe('succeeded');

        await page.getByRole('link', { name: 'My jobs' }).click();
        expect(await page.locator('tbody time').first().textContent()).toBe('just now');
        await press(page, 'Delete all');
        await page.getByText('No jobs yet').waitFor();
        expect(await stateOf(id)).toBe('succeeded');
        await page.goto(`${site.address}/services/threshold`);
        // Leaving the page is the end of the time.
        await expect.poll(() => stateOf(id)).toBe('NOT_FOUND');
        await expect.poll(() => entries(page)).toBe(0);
      }),
    60_000,
  );

  it(
    'carries out at the next visit what the server did not hear',
    () =>
      withPage(async (page) => {
        await sendScan(page);
        const id = idOf(page);
        await page.route('**/api/jobs/*', (route) =>
          route.request().method() === 'DELETE' ? route.abort() : route.continue(),
        );
        await press(page, 'Delete the result now');
        await press(page, 'Delete now');
        await page.getByText('Not yet deleted on the server').waitFor();
        expect(await stateOf(id)).toBe('succeeded');
        await page.unroute('**/api/jobs/*');
        await page.reload();
        await page.getByText('No jobs yet').waitFor();
        await expect.poll(() => stateOf(id)).toBe('NOT_FOUND');
        await expect.poll(() => entries(page)).toBe(0);
      }),
    60_000,
  );

  // ---- In other programs ----

  async function savedFile(page: Page, name: string): Promise<Uint8Array> {
    const [file] = await Promise.all([page.waitForEvent('download'), press(page, name)]);
    expect(file.suggestedFilename()).toBe(name);
    return readFile(await file.path());
  }
  const volumeOf = async (name: string, file: Uint8Array): Promise<Volume> =>
    (await readVolume([source(name, file)], nodePlatform)).volume;
  function expectGrid(volume: Volume, of: Volume): void {
    expect(volume.size).toEqual(of.size);
    for (const corner of [
      [0, 0, 0],
      [22, 0, 10],
      [3, 16, 7],
    ] as const) {
      const place = applyAffine(of.affine, corner);
      applyAffine(volume.affine, corner).forEach((mm, i) => void expect(mm).toBeCloseTo(place[i], 3));
    }
  }

  it(
    'gives the files, the command and no foreign link for other programs',
    () =>
      withPage(async (page) => {
        await sendScan(page);
        const [, labelMap] = await resultOf(site, page);
        await page.getByRole('button', { name: 'chest_one.nii.gz' }).waitFor();
        const sent = await volumeOf('a.nii.gz', await savedFile(page, 'chest_one.nii.gz'));
        expectGrid(sent, scan);
        expect(sent.voxels).toEqual(scan.voxels);
        const nrrd = await savedFile(page, 'chest_one_segmentation.seg.nrrd');
        const segments = await volumeOf('a.nrrd', nrrd);
        expectGrid(segments, scan);
        expect(segments.voxels).toEqual(labelMap.voxels);
        expect(Buffer.from(nrrd.subarray(0, 2000)).toString('latin1')).toContain('Segment0_Name:=bright');
        const slicer = await page
          .getByRole('link', { name: 'open the labels in Slicer' })
          .getAttribute('href');
        const address = new URL(slicer!).searchParams.get('segmentation')!;
        const fetched = new Uint8Array(await (await fetch(address)).arrayBuffer());
        expect((await volumeOf('a.nrrd', fetched)).voxels).toEqual(labelMap.voxels);

        await page.getByRole('combobox', { name: 'Open in' }).selectOption('ITK-SNAP');
        await page
          .getByText('itksnap -g chest_one.nii.gz -s chest_one_segmentation.nii.gz -l chest_one_labels.txt')
          .waitFor();
        expect((await savedFile(page, 'chest_one_labels.txt')).toString()).toMatch(/\n +1 .*"bright"\n$/);
        await page.getByRole('combobox', { name: 'Open in' }).selectOption('VolView');
        await page.getByText('files that you drop there stay in your browser').waitFor();
        expect(await page.locator(`a[href^="${volView}"]`).count()).toBe(0);
        await expectAccessible(page);
      }),
    60_000,
  );

  it(
    'offers a link to VolView where the operator allows it, and deletes linked jobs',
    () =>
      withPage(async (page) => {
        const client = createClient({ baseUrl: open.address });
        const sent = await client.predict('threshold', { volumes: { volume: { name: 'a.nii.gz', bytes } } });
        const job: Job = requireSuccess(await client.wait(sent.id));
        await page.goto(`${open.address}/jobs/${job.id}`);
        await page.getByRole('combobox', { name: 'Open in' }).selectOption('VolView');
        const link = page.getByRole('link', { name: 'open the labels at volview.kitware.app' });
        const address = `${open.address}/api/jobs/${job.id}/outputs/segmentation.nrrd`;
        expect(await link.getAttribute('href')).toBe(`${volView}/?urls=[${encodeURIComponent(address)}]`);
        const answer = await fetch(address, { headers: { origin: volView } });
        expect(answer.headers.get('access-control-allow-origin')).toBe(volView);
        await page.getByText('The scan is not in this browser').waitFor();

        await press(page, 'Delete the result now');
        await press(page, 'Undo');
        expect(await entries(page)).toBe(0);
        await page.goBack();
        await press(page, 'Delete the result now');
        await press(page, 'Delete now');
        await expect.poll(() => stateOf(job.id, open)).toBe('NOT_FOUND');
      }, open.address),
    60_000,
  );

  // ---- Waiting ----

  it(
    'notifies of a job that is done while the page is hidden',
    () =>
      withPage(async (page, { context }) => {
        await context.grantPermissions(['notifications'], { origin: site.address });
        await context.addInitScript(() => {
          const shown: string[] = [];
          Object.assign(globalThis, { shown });
          // Headless browsers have no place that shows them, and no page that is hidden.
          globalThis.Notification = class extends Notification {
            constructor(title: string, options?: NotificationOptions) {
              super(title, options);
              shown.push(`${title} ${options?.body}`);
            }
          };
          Object.defineProperty(document, 'hidden', { get: () => true });
        });
        await page.goto(`${site.address}/services/slow`);
        await choose(page, 'SMITH.nii.gz', bytes);
        await setSlider(page, 'Seconds', 'Home');
        await page.keyboard.press('PageUp');
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await press(page, 'Tell me when it is done');
        await page.getByRole('button', { name: 'You will be notified' }).waitFor();
        await expect.poll(() => page.title()).toMatch(/^\d+ % – SMITH/);
        // Whatever the page shows then.
        await page.getByRole('link', { name: 'Services' }).first().click();
        const shown = () => page.evaluate(() => (globalThis as unknown as { shown: string[] }).shown);
        await expect.poll(shown, { timeout: 20_000 }).toEqual(['Done: Slow mask The result is ready.']);
      }),
    60_000,
  );
});
