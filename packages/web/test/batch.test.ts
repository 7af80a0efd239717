import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { openZip, readVolume } from '@tomaat/core';
import type { Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { nodePlatform } from '../../server/src/node-platform.ts';
import { encode, obliqueAffine, phantom } from '../../server/test/phantom.ts';
import { expectAccessible } from './support/axe.ts';
import { source, voxelMl } from './support/flows.ts';
import { boxedApp, withoutDrawing } from './support/site.ts';
import { useStand } from './support/stand.ts';

/* A folder of scans on a service's page, from the drop to the table. */

/** Voxels of the two blocks of a phantom that are brighter than its mean. */
const usualVoxels = 6 * 6 * 4 + 3 * 4 * 3;
/** Requests of the client until it gives an error to the batch. */
const triesOfClient = 3;
const usualMl = usualVoxels * voxelMl(obliqueAffine);

describe.skipIf(findChromium() === undefined)('many scans in the page', () => {
  const stand = useStand(withoutDrawing, { appFolders: [boxedApp('threshold'), boxedApp('ct-lung')] });

  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-batch-'));
    await mkdir(join(folder, 'scans', 'site b'), { recursive: true });
    const usual = await encode(phantom(), 'nii.gz');
    for (const name of ['s1', 's2', 's10', 'site b/s1', 's3']) await put(`${name}.nii.gz`, usual);
    // Half of it is one more block: the second one reaches through the volume.
    const large = phantom();
    large.voxels.fill(900 as never, 0, Math.floor(large.voxels.length / 4));
    await put('large.nii.gz', await encode(large, 'nii.gz'));
    // Its header is whole, and its voxels are not.
    await put('damaged.nii.gz', usual.subarray(0, usual.length - 20));
    await put('not-a-volume.nii', new TextEncoder().encode('a list of patients'));
    await put('notes.txt', new TextEncoder().encode('nothing to send'));
  }, 120_000);
  afterAll(async () => {
    if (folder) await rm(folder, { recursive: true, force: true });
  });
  const put = (name: string, bytes: Uint8Array) => writeFile(join(folder, 'scans', name), bytes);

  async function chooseFolder(page: Page): Promise<void> {
    const chooser = page.waitForEvent('filechooser');
    await page.getByRole('button', { name: 'Choose a folder' }).click();
    await (await chooser).setFiles(join(folder, 'scans'));
  }

  const states = (page: Page) =>
    page
      .locator('.batch-table tbody tr')
      .evaluateAll((rows) =>
        Object.fromEntries(
          rows.map((row) => [row.querySelector('th')!.firstChild!.textContent, row.dataset.state]),
        ),
      );
  const namesOf = (page: Page) =>
    page
      .locator('.batch-table tbody tr')
      .evaluateAll((rows) => rows.map((row) => row.querySelector('th')!.firstChild!.textContent));

  async function saved(page: Page, button: string): Promise<Buffer> {
    const [file] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: button }).click(),
    ]);
    return readFile(await file.path());
  }

  it(
    'checks a folder, computes it, finds the strange, and saves everything',
    () =>
      stand.withPage(async (page) => {
        await page.goto(`${stand.site.address}/services/threshold`);
        await page.getByRole('link', { name: 'Many scans at once' }).click();
        await chooseFolder(page);
        await expect
          .poll(() => states(page), { timeout: 20_000 })
          .toMatchObject({ 'not-a-volume.nii': 'unfit', 's3.nii.gz': 'waiting' });
        await expect.poll(() => states(page), { timeout: 20_000 }).not.toContain('checking');
        await page.getByText('Left out (1)').waitFor();
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await page.getByText('6 of 8 done, 1 failed, 1 do not fit').waitFor();
        await page.reload();
        await page.getByText('6 of 8 done, 1 failed, 1 do not fit').waitFor();
        // Pictures are drawn again where they come into view.
        await page.locator('.batch-table tr').last().scrollIntoViewIfNeeded();
        await page.locator('.batch-picture[data-there=true]').first().waitFor();
        await page.getByLabel('Order').selectOption('Failed and unusual first');
        expect((await namesOf(page)).slice(0, 3).sort()).toEqual([
          'damaged.nii.gz',
          'large.nii.gz',
          'not-a-volume.nii',
        ]);
        await page.getByText('bright unusually large').waitFor();
        await expectAccessible(page);

        const lines = (await saved(page, 'Save the table (CSV)')).toString().trimEnd().split('\r\n');
        expect(lines[0]).toBe('scan,state,reason,job,outlier_score,outlier,bright (1) ml');
        const cells = new Map(lines.slice(1).map((line) => [line.split(',')[0], line.split(',')]));
        expect(cells.size).toBe(8);
        expect(Number(cells.get('s10.nii.gz')!.at(-1))).toBeCloseTo(usualMl, 5);
        expect(cells.get('damaged.nii.gz')!.at(-1)).toBe('');

        const zip = await saved(page, 'Save all results (zip)');
        const members = await openZip(source('all.zip', zip), nodePlatform);
        const names = members.map(({ name }) => name).sort();
        expect(names).toEqual(
          ['large', 's1', 's10', 's2', 's3', 's1']
            .map((name) => `${name}_segmentation.nii.gz`)
            .concat('results.csv')
            .sort(),
        );
        // Folders are kept.
        expect(zip.includes('site b/s1_segmentation.nii.gz')).toBe(true);
        const { volume } = await readVolume(
          [members.find(({ name }) => name.startsWith('s10_'))!],
          nodePlatform,
        );
        expect(volume.size).toEqual([23, 17, 11]);
        expect(volume.voxels.filter((value) => Number(value) === 1)).toHaveLength(usualVoxels);
        expect(volume.voxels.slice(3 + 23 * (2 + 17 * 1), 9 + 23 * (2 + 17 * 1)).join()).toBe('1,1,1,1,1,1');

        // The whole folder again: finished scans are known, and the failed one has its file for another try.
        await chooseFolder(page);
        await expect.poll(() => namesOf(page)).toHaveLength(8);
        const jobs = await page.evaluate(() => localStorage.getItem('tomaat.jobs')!);
        await page.getByRole('button', { name: 'Retry the failed (1)' }).click();
        await expect
          .poll(() => page.evaluate(() => JSON.parse(localStorage.getItem('tomaat.jobs')!).length))
          .toBe(JSON.parse(jobs).length + 1);
        await page.getByText('6 of 8 done, 1 failed, 1 do not fit').waitFor();

        // A scan that comes after the end is not sent before the button is pressed again.
        const sent = () => page.evaluate(() => JSON.parse(localStorage.getItem('tomaat.jobs')!).length);
        const before = await sent();
        await put('late.nii.gz', await encode(phantom(), 'nii.gz'));
        await chooseFolder(page);
        await expect
          .poll(() => states(page), { timeout: 20_000 })
          .toMatchObject({ 'late.nii.gz': 'waiting' });
        const send = page.getByRole('button', { name: 'Continue' });
        await send.waitFor();
        expect(await sent()).toBe(before);
        await send.click();
        await page.getByText('7 of 9 done, 1 failed, 1 do not fit').waitFor();
      }),
    90_000,
  );

  it(
    'asks for one job although the first answers are lost',
    () =>
      stand.withPage(async (page) => {
        const keys: (string | undefined)[] = [];
        const jobs: string[] = [];
        await page.route('**/predictions', async (route) => {
          keys.push(route.request().headers()['idempotency-key']);
          const response = await route.fetch();
          jobs.push((await response.json()).id);
          // The server has the request; the page does not learn of it.
          await (jobs.length <= triesOfClient ? route.abort() : route.fulfill({ response }));
        });
        await page.goto(`${stand.site.address}/services/threshold/batch`);
        await page
          .locator('.drop input[type=file]')
          .first()
          .setInputFiles(join(folder, 'scans', 's1.nii.gz'));
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await page.getByText('1 of 1 done').waitFor();
        expect(jobs.length).toBe(triesOfClient + 1);
        expect(new Set(jobs).size).toBe(1);
        expect(new Set(keys).size).toBe(1);
        expect(keys[0]).toMatch(/^[0-9a-f]{32}$/);
      }),
    60_000,
  );

  it(
    'says what is wrong with a damaged scan whose header is to be cleaned',
    () =>
      stand.withPage(async (page) => {
        const named = await encode(phantom(), 'nii');
        // NIfTI-1: the description begins at byte 148.
        named.set(new TextEncoder().encode('Mueller, Hans'), 148);
        const bytes = gzipSync(named);
        await page.goto(`${stand.site.address}/services/threshold/batch`);
        await page
          .locator('.drop input[type=file]')
          .first()
          .setInputFiles({
            ...{ name: 'cut.nii.gz', mimeType: 'application/gzip' },
            buffer: bytes.subarray(0, bytes.length - 20),
          });
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await page.getByText('0 of 1 done, 1 failed').waitFor();
        expect(await page.locator('.batch-table tbody th').textContent()).toMatch(
          /^cut\.nii\.gzThe gzip data of volume is damaged or cut off/,
        );
      }),
    60_000,
  );

  it(
    'says on the first page which services fit, and goes on with the scan',
    () =>
      stand.withPage(async (page) => {
        await page.goto(stand.site.address);
        await page.locator('.first-drop input[type=file]').setInputFiles(join(folder, 'scans', 's1.nii.gz'));
        await page.getByText('1 of 2 services take this scan').waitFor();
        const cards = page.locator('.cards article');
        // The cards show the pictures that their apps name.
        const widths = () =>
          cards.locator('img').evaluateAll((all) => all.map((one) => (one as HTMLImageElement).naturalWidth));
        await expect.poll(widths).toEqual([640, 640]);
        expect(await cards.nth(0).textContent()).toMatch(/threshold.*Fits your scan/i);
        // 23 × 1.47 mm: less than the 60 mm that lungs need.
        expect(await cards.nth(1).textContent()).toMatch(/Lungs on chest CT.*Does not fit.*60 mm/);
        await expectAccessible(page);
        await cards.nth(0).getByRole('link').click();
        await page.getByText('23 × 17 × 11 voxels').waitFor();
        await page.getByText('s1.nii.gz').waitFor();
      }),
    60_000,
  );
});
