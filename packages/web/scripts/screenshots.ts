import { mkdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright-core';
import { dataFolder } from '../../../test/real-data.ts';
import { boxedApp, buildPage, launchBrowser, openPage, openSite, slowApp } from '../test/support/site.ts';

/*
 * The pictures of the page in docs/images: each page light, dark and on a phone.
 * Run `npm run screenshots -w @tomaat/web`; needs Chromium and the real images (TOMAAT_TEST_DATA), of which one head is shown.
 */

const folder = fileURLToPath(new URL('../../../docs/images', import.meta.url));
const looks = {
  light: { viewport: { width: 1120, height: 720 }, colorScheme: 'light' },
  dark: { viewport: { width: 1120, height: 720 }, colorScheme: 'dark' },
  phone: { viewport: { width: 390, height: 844 }, colorScheme: 'light', hasTouch: true },
} as const;
const largestBytes = 400_000;
const images = dataFolder();
if (images === undefined)
  throw new Error('The real images are not here: set TOMAAT_TEST_DATA to their folder.');
/** A T1 scan of a head, 1 × 0.9 × 0.9 mm, of the Seg3D example data (MIT). */
const head = {
  name: 'head.nii.gz',
  mimeType: 'application/gzip',
  buffer: await readFile(join(images, 'brain/seg3d_MR.nii.gz')),
};

await mkdir(folder, { recursive: true });
const pageFolder = await buildPage();
const browser = await launchBrowser();
const site = await openSite(pageFolder, {
  appFolders: [...['brain', 'ct-lung', 'ct-body', 'ct-bone'].map(boxedApp), slowApp],
  workers: 2,
});
try {
  for (const [name, options] of Object.entries(looks)) {
    const { context, page } = await openPage(browser, site.address, options);
    page.setDefaultTimeout(300_000);
    const picture = async (what: string) => {
      const path = join(folder, `${what}-${name}.png`);
      await page.screenshot({ path });
      const { size } = await stat(path);
      if (size > largestBytes) throw new Error(`${path} has ${size} bytes, more than ${largestBytes}`);
      console.log(`${path} ${Math.round(size / 1000)} kB`);
    };
    await hideTestService(page);
    await page.goto(`${site.address}/`);
    await page.getByRole('article').first().waitFor();
    await picture('directory');

    await page.goto(`${site.address}/services/brain`);
    await page.locator('.volume-field input[type=file]').setInputFiles(head);
    await page.locator('.viewer[data-ready=true]').waitFor();
    await page.waitForTimeout(1000);
    await picture('service');

    await page.getByRole('button', { name: 'Send and compute' }).click();
    await page.waitForURL(/\/jobs\/(?!upload)/);
    await page.getByText(/^Done/).waitFor();
    await page.locator('.viewer[data-ready=true]').waitFor();
    await page.getByRole('radio', { name: 'Slices and 3-D' }).click();
    await page.getByRole('button', { name: 'Go to the centre of ventricles' }).click();
    await page.evaluate(() =>
      window.scrollTo(
        0,
        document.querySelector('.job-head')!.getBoundingClientRect().top + window.scrollY - 76,
      ),
    );
    await page.waitForTimeout(1500);
    await picture('result');

    await page.goto(`${site.address}/services/slow`);
    await page
      .locator('.volume-field input[type=file]')
      .setInputFiles(join(boxedApp('ct-lung'), 'sample.nii.gz'));
    await page.getByText('88 × 68 × 56 voxels').waitFor();
    await page.getByRole('button', { name: 'Send and compute' }).click();
    await page.getByText(/Computing, [2-9]\d %/).waitFor();
    await picture('progress');
    await page.getByText(/^Done/).waitFor();
    await page.goto(`${site.address}/jobs`);
    await page.getByRole('cell', { name: /Done/ }).first().waitFor();
    await picture('history');
    await context.close();
  }
} finally {
  await browser.close();
  await site.stop();
  await rm(pageFolder, { recursive: true, force: true });
}

/** The slow app of the tests, which shows progress, under a name that says something to a reader. */
async function hideTestService(page: Page): Promise<void> {
  await page.route('**/api/services', async (route) => {
    const response = await route.fetch();
    const { services } = (await response.json()) as { services: { id: string }[] };
    await route.fulfill({ json: { services: services.filter(({ id }) => id !== 'slow') } });
  });
  await page.route('**/api/services/slow', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ json: { ...((await response.json()) as object), name: 'Mask on MRI' } });
  });
}
