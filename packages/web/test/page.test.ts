import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient } from '@tomaat/client';
import { applyAffine } from '@tomaat/core';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { dataFolder } from '../../../test/real-data.ts';
import { encode, phantom } from '../../server/test/phantom.ts';
import { expectAccessible } from './support/axe.ts';
import {
  affines,
  choose,
  jobPage,
  requestsSent,
  resultOf,
  saved,
  setSlider,
  smallVolume,
  startSlow,
  viewerReady,
  voxelMl,
} from './support/flows.ts';
import { drop } from './support/gestures.ts';
import { canvasPosition, checkOverlay, distance, pixelsAt } from './support/overlay.ts';
import type { Site } from './support/site.ts';
import { useStand } from './support/stand.ts';

/* From a scan to its result, and what is drawn: in a browser that draws by software, which is slow. */

const data = dataFolder();

describe.skipIf(findChromium() === undefined)('the page with its viewer', () => {
  const stand = useStand();
  const { withPage } = stand;

  it(
    'leads from directory and dropped file to the result, kept in history',
    () =>
      withPage(async (page) => {
        await page.goto(`${stand.site.address}/`);
        await page.getByLabel('Search').fill('mean');
        await expect.poll(() => new URL(page.url()).search).toBe('?q=mean');
        expect(await page.locator('article').count()).toBe(1);
        await page.getByRole('link', { name: 'Mean threshold' }).click();
        await page.waitForURL('**/services/threshold');
        const path = join(stand.site.dataFolder, 'SMITH_JOHN.mha');
        await writeFile(path, await encode(phantom(), 'mha'));
        await drop(page, path);
        await page.getByText('23 × 17 × 11 voxels').waitFor();
        await page.getByText(/^[LRAPIS]{3}, oblique$/).waitFor();
        await viewerReady(page);
        expect(await requestsSent(page)).not.toContain('predictions');
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await viewerReady(page);
        expect(await page.getByRole('heading', { level: 1 }).textContent()).toBe('SMITH_JOHN');
        const row = page.locator('.labels tr').filter({ hasText: 'bright' });
        const [job, labelMap] = await resultOf(stand.site, page);
        const ml = (labelMap.voxels as Uint8Array).reduce((sum, v) => sum + v, 0) * voxelMl(labelMap.affine);
        expect(Number(await row.locator('.number').textContent())).toBeCloseTo(ml, 2);
        // The file's name stays in the stand.browser.
        expect(job.outputs[0].fileName).not.toMatch(/smith/i);

        const [file] = await Promise.all([
          page.waitForEvent('download'),
          page.getByRole('link', { name: 'Above the threshold as nrrd' }).click(),
        ]);
        expect(file.suggestedFilename()).toBe('SMITH_JOHN_segmentation.nrrd');

        // Measurements and the report of the same name are one row, with every format once.
        const volumes = page.locator('.downloads li').filter({ hasText: 'Volumes' });
        expect(await volumes.locator('a').allTextContents()).toEqual([
          'Table (.csv)',
          'Text (.txt)',
          'JSON (.json)',
        ]);
        const csv = await saved(page, 'Volumes as Table (.csv)');
        expect(csv.name).toBe('SMITH_JOHN_volumes.csv');
        expect(csv.text.split('\r\n').map((line) => line.split(',').slice(0, 3))).toEqual([
          ['label', 'name', 'voxels'],
          ['1', 'bright', '180'],
          [''],
        ]);
        expect((await saved(page, 'Volumes as Text (.txt)')).text).toMatch(/^Label\s+Value\s+Voxels/);
        expect(JSON.parse((await saved(page, 'Volumes as JSON (.json)')).text).labels[0].voxels).toBe(180);

        await page.getByRole('link', { name: 'My jobs' }).click();
        await page.getByRole('cell', { name: /Done/ }).waitFor();
        await page.getByRole('button', { name: 'Delete the job of SMITH_JOHN.mha' }).click();
        await page.getByText('No jobs yet').waitFor();
        await page.getByRole('button', { name: 'Delete now' }).click();
        const client = createClient({ baseUrl: stand.site.address });
        await expect
          .poll(() => client.job(job.id).catch((error: unknown) => (error as { code?: string }).code))
          .toBe('NOT_FOUND');
        await expect.poll(() => page.evaluate(() => localStorage.getItem('tomaat.jobs'))).toBe('[]');
        const left = () =>
          page.evaluate(
            () =>
              new Promise((resolve) => {
                const request = indexedDB.open('tomaat', 1);
                request.onsuccess = () => {
                  const count = request.result.transaction('submissions').objectStore('submissions').count();
                  count.onsuccess = () => resolve(count.result);
                };
              }),
          );
        await expect.poll(left).toBe(0);
      }),
    90_000,
  );

  // ---- The overlay lies where the mask says ----

  for (const [name, affine] of Object.entries(affines)) {
    it(
      `draws the label only at its world position, in all planes: ${name}`,
      () =>
        withPage(async (page) => {
          await predict(page, stand.site, 'threshold', {
            name: 'phantom.nii.gz',
            bytes: await encode(phantom(affine), 'nii.gz'),
          });
          await checkOverlay(page, stand.site, [242, 193, 78], affine);
        }),
      90_000,
    );
  }

  it.skipIf(data === undefined)(
    'draws the label of a real T1 where the mask says',
    () =>
      withPage(async (page) => {
        const bytes = await readFile(join(data!, 'brain', 'hippodeep_t1.nii.gz'));
        await predict(page, stand.site, 'threshold', { name: 'hippodeep_t1.nii.gz', bytes });
        // It is drawn at half resolution first, where the edge of a label is a block wide.
        const full = page.getByRole('button', { name: 'Full resolution' });
        await full.click();
        await full.waitFor({ state: 'detached' });
        await checkOverlay(page, stand.site, [242, 193, 78]);
      }),
    180_000,
  );

  it(
    'shows position, value and label at the crosshair, and hides labels on demand',
    () =>
      withPage(async (page) => {
        await predict(page, stand.site, 'threshold', {
          name: 'p.nii',
          bytes: await encode(phantom(affines['right-handed']), 'nii'),
        });
        const inside = applyAffine(affines['right-handed'], [5, 4, 2]);
        for (const [i, axis] of ['right', 'anterior', 'superior'].entries()) {
          const field = page.getByLabel(`Crosshair ${axis}, mm`);
          await field.fill(String(inside[i]));
          await field.press('Enter');
        }
        await expect.poll(() => page.getByTestId('label').textContent()).toBe('bright');
        expect(await page.getByTestId('value').textContent()).toBe('400');
        await page.getByRole('slider', { name: 'Label opacity' }).focus();
        await page.keyboard.press('End');
        await expect
          .poll(async () => distance((await pixelsAt(page, inside))[0], [242, 193, 78]))
          .toBeLessThan(12);
        await page.getByRole('switch', { name: 'Show bright' }).focus();
        await page.keyboard.press('Space');
        await expect
          .poll(async () => distance((await pixelsAt(page, inside))[0], [242, 193, 78]))
          .toBeGreaterThan(60);
        await page.getByRole('radio', { name: '3-D', exact: true }).click();
        await page.getByRole('radio', { name: 'Slices', exact: true }).click();
      }),
    90_000,
  );

  it(
    'shows a result without its scan in a browser that did not send it',
    () =>
      withPage(async (page) => {
        const client = createClient({ baseUrl: stand.site.address });
        const bytes = await encode(phantom(affines['left-handed']), 'nii');
        const job = await client.predict('threshold', {
          volumes: { volume: new File([bytes as BlobPart], 'a.nii') },
        });
        await client.wait(job.id);
        await page.goto(`${stand.site.address}/jobs/${job.id}`);
        await viewerReady(page);
        await page.getByText('so the result is shown without it').waitFor();
        await checkOverlay(page, stand.site, [242, 193, 78], affines['left-handed']);
      }),
    90_000,
  );

  it(
    'takes points by clicks in the slices, and gives them back',
    () =>
      withPage(async (page) => {
        await page.goto(`${stand.site.address}/services/slow`);
        await choose(page, 'v.nii', await smallVolume());
        await viewerReady(page);
        await setSlider(page, 'Seconds', 'Home');
        await page.getByRole('button', { name: 'Place points in the slices' }).click();
        const wanted = applyAffine(affines['right-handed'], [5, 4, 2]);
        const [x, y] = await canvasPosition(page, wanted, 0);
        await page.locator('canvas').click({ position: { x, y } });
        const item = page.locator('.points li');
        await item.waitFor();
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await viewerReady(page);
        const shown = (await page.locator('.points li span').textContent())!.match(/-?[\d.]+/g)!.map(Number);
        // To the pixel within the plane; the slice that was clicked lies at the crosshair.
        expect(Math.abs(shown[0] - wanted[0])).toBeLessThan(1);
        expect(Math.abs(shown[1] - wanted[1])).toBeLessThan(1);
        await page.getByLabel('What was asked', { exact: true }).waitFor();
      }),
    60_000,
  );

  it(
    'has no serious accessibility fault on any page, light or dark',
    () =>
      withPage(async (page) => {
        const check = async () => {
          for (const colorScheme of ['light', 'dark'] as const) {
            await page.emulateMedia({ colorScheme });
            await colorsSettled(page);
            await expectAccessible(page);
          }
        };
        await page.goto(`${stand.site.address}/`);
        await page.getByRole('article').first().waitFor();
        await check();
        await page.goto(`${stand.site.address}/jobs`);
        await page.getByText('No jobs yet').waitFor();
        await check();
        await page.goto(`${stand.site.address}/services/slow`);
        await choose(page, 'v.nii', await smallVolume());
        await viewerReady(page);
        await check();
        await setSlider(page, 'Seconds', 'Home');
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await viewerReady(page);
        await check();
        await page.goto(`${stand.site.address}/jobs`);
        await page.getByRole('cell', { name: /Done/ }).waitFor();
        await check();
        await startSlow(page, stand.site, await smallVolume(), 60);
        await page.getByText(/Computing, \d+ %/).waitFor();
        await check();
        await page.getByRole('button', { name: 'Cancel' }).click();
        await page.getByRole('heading', { name: 'Cancelled' }).waitFor();
        await check();
        await page.goto(`${stand.site.address}/services/slow`);
        await choose(page, 'v.nii', await smallVolume());
        await viewerReady(page);
        await setSlider(page, 'Seconds', 'Home');
        await page.getByText('Fail at the end').click();
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await page.getByText('The mask would not hold').waitFor();
        await check();
        await page.goto(`${stand.site.address}/jobs/AAAAAAAAAAAAAAAAAAAAAA`);
        await page.getByText('Job not found').waitFor();
        await check();
      }),
    120_000,
  );
});

async function predict(
  page: Page,
  site: Site,
  service: string,
  file: { name: string; bytes: Uint8Array },
): Promise<void> {
  await page.goto(`${site.address}/services/${service}`);
  await choose(page, file.name, file.bytes);
  // Until the preview is drawn, what is below it moves.
  await viewerReady(page, 120_000);
  await page.getByRole('button', { name: 'Send and compute' }).click();
  await jobPage(page);
  await viewerReady(page, 120_000);
}

/** Another scheme of colours is there from the next frame on, and some colours fade. */
const colorsSettled = (page: Page): Promise<void> =>
  page.evaluate(async () => {
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    const fading = document.getAnimations().filter((animation) => animation instanceof CSSTransition);
    await Promise.allSettled(fading.map(({ finished }) => finished));
  });
