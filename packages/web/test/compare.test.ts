import { createClient, type Job, requireSuccess } from '@tomaat/client';
import { applyAffine, reorient, type Vec3, type Volume } from '@tomaat/core';
import type { Page } from 'playwright-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { encode, obliqueAffine, phantom } from '../../server/test/phantom.ts';
import { expectAccessible } from './support/axe.ts';
import { useStand } from './support/stand.ts';

/* Two label maps side by side: results, and the user's own reference. */

const scan = phantom(obliqueAffine);
/** The voxels brighter than a threshold, as the app marks them. */
const brighter = (threshold: number): Volume => ({
  ...scan,
  voxels: Uint8Array.from(scan.voxels as Int16Array, (value) => (value > threshold ? 1 : 0)),
});
const count = ({ voxels }: Volume) => (voxels as Uint8Array).reduce((sum, value) => sum + value, 0);

describe.skipIf(findChromium() === undefined)('comparing in the page', () => {
  const stand = useStand();
  const { withPage } = stand;

  let jobs: Job[];

  beforeAll(async () => {
    const client = createClient({ baseUrl: stand.site.address });
    const file = { name: 'scan.nii', bytes: await encode(scan, 'nii') };
    jobs = await Promise.all(
      // The mean is about 30: all voxels are brighter than 0.
      [0, 2].map(async (factor) => {
        const job = await client.predict('threshold', { volumes: { volume: file }, values: { factor } });
        return requireSuccess(await client.wait(job.id));
      }),
    );
  }, 120_000);
  const open = async (page: Page, index: number, name: string, bytes: Uint8Array) =>
    page
      .locator('.compare-choice input[type=file]')
      .nth(index)
      .setInputFiles({
        name,
        mimeType: 'application/octet-stream',
        buffer: Buffer.from(bytes),
      });
  const cells = (page: Page) => page.locator('.comparison tbody tr').first().locator('td').allTextContents();

  it(
    'shows two results with their numbers, and one crosshair for both',
    () =>
      withPage(async (page) => {
        await page.goto(`${stand.site.address}/compare?result=${jobs[0].id}&reference=${jobs[1].id}`);
        const [more, fewer] = [count(brighter(0)), count(brighter(100))];
        expect([more, fewer]).toEqual([4301, 180]);
        await page.getByText(`${more - fewer} of ${23 * 17 * 11} voxels differ`).waitFor();
        const [dice] = await cells(page);
        // Cut after four digits, so that 1 means equal.
        expect(dice).toBe((Math.floor((2e4 * fewer) / (more + fewer)) / 1e4).toFixed(4));
        await page.locator('.viewer[data-ready=true]').nth(1).waitFor();
        await page.locator('.viewer[data-ready=true]').first().waitFor();
        const axis = (side: string, name: string) =>
          page.getByRole('region', { name: side, exact: true }).getByLabel(`Crosshair ${name}, mm`);
        const place: Vec3 = applyAffine(scan.affine, [5, 12, 7]);
        for (const [i, name] of ['right', 'anterior', 'superior'].entries()) {
          await axis('Result', name).fill(String(place[i]));
          await axis('Result', name).press('Enter');
        }
        for (const [i, name] of ['right', 'anterior', 'superior'].entries())
          await expect
            .poll(async () => Number(await axis('Reference', name).inputValue()))
            .toBeCloseTo(place[i], 1);
        await page.getByLabel('Differences').check();
        await page.locator('.compare-legend').getByText('only in the result').waitFor();
        expect(await page.getByRole('region', { name: 'Result' }).getByTestId('label').textContent()).toBe(
          'only in the result',
        );
        await expectAccessible(page);
      }),
    90_000,
  );

  it(
    'compares with a reference of another order of axes',
    () =>
      withPage(async (page) => {
        await page.goto(`${stand.site.address}/compare?result=${jobs[0].id}`);
        await open(page, 1, 'mine.nrrd', await encode(reorient(brighter(0), 'PIL'), 'nrrd'));
        await page.getByText(`All ${23 * 17 * 11} voxels are equal.`).waitFor();
        const [dice, ...distances] = await cells(page);
        expect([dice, ...distances.slice(0, 3)]).toEqual(['1', '0.00', '0.00', '0.00']);
      }),
    60_000,
  );

  it(
    'says why a file cannot be compared',
    () =>
      withPage(async (page) => {
        await page.goto(`${stand.site.address}/compare?result=${jobs[0].id}`);
        const moved = scan.affine.with(3, scan.affine[3] + 1) as unknown as Volume['affine'];
        await open(page, 1, 'moved.nii', await encode({ ...brighter(0), affine: moved }, 'nii'));
        await page
          .getByText(/moved\.nii do not lie on the same voxels: their first voxels are 1 mm apart/)
          .waitFor();
        await open(page, 1, 'notes.nii', Buffer.from('eggs and milk '.repeat(50)));
        await page.getByText(/does not begin like a NIfTI/).waitFor();
        await page.goto(`${stand.site.address}/compare?result=nothing`);
        await page.getByRole('alert').waitFor();
      }),
    60_000,
  );
});
