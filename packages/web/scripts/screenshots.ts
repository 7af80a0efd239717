import { readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright-core';
import { dataFolder } from '../../../test/real-data.ts';
import { boxedApp, buildPage, launchBrowser, openPage, openSite } from '../test/support/site.ts';

/*
 * The pictures of the page in docs/images, which README.md shows.
 * Run `npm run screenshots -w @tomaat/web`; needs Chromium and the real images (TOMAAT_TEST_DATA), of which one head is shown.
 */

const folder = fileURLToPath(new URL('../../../docs/images', import.meta.url));
const look = { viewport: { width: 1120, height: 720 } } as const;
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

const pageFolder = await buildPage();
const browser = await launchBrowser();
const site = await openSite(pageFolder, {
  appFolders: ['brain', 'ct-lung', 'ct-body', 'ct-bone'].map(boxedApp),
  workers: 2,
});
try {
  await take('directory-light', { ...look, colorScheme: 'light' }, async (page) => {
    await page.goto(`${site.address}/`);
    await page
      .getByRole('img', { name: /^A result of/ })
      .first()
      .waitFor();
    // Those that are to be seen.
    await page.waitForFunction(() =>
      [...document.querySelectorAll<HTMLImageElement>('.card img')]
        .filter((one) => one.getBoundingClientRect().top < innerHeight)
        .every((one) => one.complete && one.naturalWidth > 0),
    );
  });
  await take('result-dark', { ...look, colorScheme: 'dark' }, async (page) => {
    await page.goto(`${site.address}/services/brain`);
    await page.locator('.volume-field input[type=file]').setInputFiles(head);
    await page.locator('.viewer[data-ready=true]').waitFor();
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
  });
} finally {
  await browser.close();
  await site.stop();
  await rm(pageFolder, { recursive: true, force: true });
}

async function take(
  name: string,
  options: Parameters<typeof openPage>[2],
  show: (page: Page) => Promise<void>,
): Promise<void> {
  const { context, page } = await openPage(browser, site.address, options);
  page.setDefaultTimeout(300_000);
  await show(page);
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path });
  await context.close();
  const { size } = await stat(path);
  if (size > largestBytes) throw new Error(`${path} has ${size} bytes, more than ${largestBytes}`);
  console.log(`${path} ${Math.round(size / 1000)} kB`);
}
