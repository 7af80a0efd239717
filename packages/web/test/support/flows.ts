import { readFile } from 'node:fs/promises';
import { createClient } from '@tomaat/client';
import { type Affine, readVolume } from '@tomaat/core';
import type { Page } from 'playwright-core';
import { nodePlatform } from '../../../server/src/node-platform.ts';
import { encode, obliqueAffine, phantom } from '../../../server/test/phantom.ts';
import type { Site } from './site.ts';

/* What people do in the page, step by step, and what they see at the end. */

/** Grids with axes of their own length and direction. */
export const affines = {
  'right-handed': [1.2, 0, 0, -10, 0, 1.7, 0, 5, 0, 0, 2.9, 3, 0, 0, 0, 1],
  'left-handed': [-1.2, 0, 0, 14, 0, 1.7, 0, 5, 0, 0, 2.9, 3, 0, 0, 0, 1],
  'sagittally acquired': [0, 0, 2.9, 3, -1.2, 0, 0, 8, 0, -1.7, 0, 20, 0, 0, 0, 1],
  'oblique, left-handed': obliqueAffine,
} as const satisfies Record<string, Affine>;

export const smallVolume = () => encode(phantom(affines['right-handed']), 'nii');

export const source = (name: string, bytes: Uint8Array) => ({
  name,
  sizeBytes: bytes.length,
  async *open(start = 0) {
    yield bytes.subarray(start);
  },
});

export async function choose(page: Page, name: string, bytes: Uint8Array): Promise<void> {
  await page
    .locator('.volume-field input[type=file]')
    .first()
    .setInputFiles({ name, mimeType: 'application/octet-stream', buffer: Buffer.from(bytes) });
}

/** What a link of the page saves. */
export async function saved(page: Page, link: string): Promise<{ name: string; text: string }> {
  const [file] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: link }).click(),
  ]);
  return { name: file.suggestedFilename(), text: await readFile(await file.path(), 'utf8') };
}

/** The slices of a scan or a result are drawn. */
export async function viewerReady(page: Page, timeout = 40_000): Promise<void> {
  await page.locator('.viewer[data-ready=true]').waitFor({ timeout });
}

/** A result is there, drawn or not. */
export const resultThere = (page: Page) => page.getByText(/^Done in/).waitFor({ timeout: 60_000 });

/** The voxels of a selected volume are read, drawn or not. */
export const previewed = (page: Page) =>
  page.locator('.volume-field .viewer:is([data-stale=true], [data-ready=true])').waitFor();

export const jobPage = (page: Page) =>
  page.waitForURL((url) => /\/jobs\/(?!upload)/.test(url.pathname), { timeout: 40_000 });

export async function requestsSent(page: Page): Promise<string> {
  return page.evaluate(() =>
    performance
      .getEntriesByType('resource')
      .map((entry) => entry.name)
      .join(' '),
  );
}

export async function setSlider(page: Page, name: string, key: 'Home' | 'End'): Promise<void> {
  await page.getByRole('slider', { name }).focus();
  await page.keyboard.press(key);
}

export async function startSlow(
  page: Page,
  site: Site,
  bytes: Uint8Array,
  seconds: number,
  promise = 'the results are deleted 1 h after that',
): Promise<void> {
  await page.goto(`${site.address}/services/slow`);
  await page.getByText(promise).waitFor();
  await choose(page, 'v.nii', bytes);
  await setSlider(page, 'Seconds', 'Home');
  for (let i = 0; i < Math.floor(seconds / 6); i++) await page.keyboard.press('PageUp');
  await page.getByRole('button', { name: 'Send and compute' }).click();
  await jobPage(page);
}

/** The job of the page, and its label map as the server gives it. */
export async function resultOf(site: Site, page: Page) {
  const client = createClient({ baseUrl: site.address });
  const job = await client.job(new URL(page.url()).pathname.split('/').pop()!);
  const file = await client.output(job.id, job.outputs.find(({ type }) => type === 'LabelVolume')!.name, {
    format: 'nii',
  });
  const bytes = new Uint8Array(await (await file.blob()).arrayBuffer());
  const { volume } = await readVolume([source('labels.nii', bytes)], nodePlatform);
  return [job, volume] as const;
}

export const voxelMl = (a: Affine) =>
  Math.abs(
    a[0] * (a[5] * a[10] - a[6] * a[9]) -
      a[1] * (a[4] * a[10] - a[6] * a[8]) +
      a[2] * (a[4] * a[9] - a[5] * a[8]),
  ) / 1000;
