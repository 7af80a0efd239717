import type { Volume } from '@tomaat/core';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { isSlowWanted } from '../../../test/real-data.ts';
import { encode, phantom } from '../../server/test/phantom.ts';
import { postgresBin, startOwnPostgres } from '../../server/test/support/postgres.ts';
import { expectAccessible } from './support/axe.ts';
import {
  affines,
  choose,
  jobPage,
  resultOf,
  resultThere,
  setSlider,
  smallVolume,
  startSlow,
} from './support/flows.ts';
import { openSite, type Site, slowApp, withoutDrawing } from './support/site.ts';
import { useStand } from './support/stand.ts';

/* Uploads and jobs that are interrupted, stopped, or fail. */

describe.skipIf(findChromium() === undefined)('uploads and jobs in the page', () => {
  const stand = useStand(withoutDrawing);
  const { withPage } = stand;

  it(
    'shows progress, survives a reload in the middle, and cancels',
    () =>
      withPage(async (page) => {
        await startSlow(page, stand.site, await smallVolume(), 40);
        await page.getByText(/Computing, \d+ %/).waitFor();
        await page.reload();
        await page.getByText(/Computing, \d+ %/).waitFor();
        await page.getByRole('button', { name: 'Cancel' }).click();
        await page.getByRole('heading', { name: 'Cancelled' }).waitFor();
        await page.getByRole('button', { name: 'Try again' }).waitFor();
      }),
    60_000,
  );

  it('waits for a server that restarts midway, and shows the result', async () => {
    const own = await openSite(stand.pageFolder, { appFolders: [slowApp] });
    try {
      await withPage(async (page) => {
        await startSlow(page, own, await smallVolume(), 6);
        await page.getByText(/Computing, \d+ %/).waitFor();
        await own.restart();
        await resultThere(page);
        await page.getByText(/^Done/).waitFor();
      }, own.address);
    } finally {
      await own.stop();
    }
  }, 120_000);

  it.skipIf(!postgresBin || !isSlowWanted())(
    'says that the database is away, and continues when it is back',
    async () => {
      await using postgres = await startOwnPostgres();
      const own = await openSite(stand.pageFolder, {
        appFolders: [slowApp],
        database: await postgres.database(),
        workers: 1,
      });
      try {
        await withPage(async (page) => {
          await startSlow(page, own, await smallVolume(), 8);
          await page.getByText(/Computing, \d+ %/).waitFor();
          const job = page.url();
          await page.goto(`${own.address}/services/slow`);
          await choose(page, 'second.nii', await encode(phantom(undefined, [31, 20, 11]), 'nii'));
          await page.getByText('quick').click();
          await postgres.kill();
          await page.getByRole('button', { name: 'Send and compute' }).click();
          await page.getByText('The server cannot take it now. This page keeps trying.').waitFor();
          await page.getByRole('link', { name: 'My jobs' }).click();
          await page.getByText('The server is not responding').waitFor();
          await page.getByRole('link', { name: 'v.nii' }).click();
          await page.getByText('The server is not responding').waitFor();
          await page.getByText('Loading the job').waitFor();
          await postgres.start();
          await resultThere(page);
          expect(page.url()).toBe(job);
          await page.getByRole('link', { name: 'My jobs' }).click();
          await expect.poll(() => page.getByText('Done').count(), { timeout: 40_000 }).toBe(2);
        }, own.address);
      } finally {
        await own.stop();
      }
    },
    180_000,
  );

  it('states how long results are kept, and when the server is unreachable', async () => {
    const own = await openSite(stand.pageFolder, {
      appFolders: [slowApp],
      resultTtlMs: 1_800_000,
    });
    let stopped = false;
    try {
      await withPage(async (page) => {
        await startSlow(page, own, await smallVolume(), 50, 'the results are deleted 30 min after that');
        await page.getByText(/Computing, \d+ %/).waitFor();
        await own.stop();
        stopped = true;
        await page.getByText('The server is not responding').waitFor();
      }, own.address);
    } finally {
      if (!stopped) await own.stop();
    }
  }, 90_000);

  it(
    'explains a failed job, and retries without sending a stored file again',
    () =>
      withPage(async (page) => {
        const traffic = watchUploads(page);
        await page.goto(`${stand.site.address}/services/slow`);
        // Not a volume that another test may have left on the server.
        await choose(page, 'v.nii', await encode(phantom(affines['right-handed'], [19, 17, 11]), 'nii'));
        await setSlider(page, 'Seconds', 'Home');
        await page.getByText('Fail at the end').click();
        await page.getByText('quick').click();
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await page.getByText('The mask would not hold <b>still</b>. Ask for less.').waitFor();
        const first = page.url();
        await page.getByRole('button', { name: 'Try again' }).click();
        await page.waitForURL((url) => /\/jobs\/(?!upload)/.test(url.pathname) && url.href !== first);
        await page.getByText('The mask would not hold').waitFor();
        expect(traffic.parts).toEqual([{ offset: 0, whole: true }]);
        const [upload] = await uploadsOf(page);
        expect(await headUpload(stand.site, upload)).toBe(200);
        await expectAccessible(page);

        // Gone from the server in the meantime: it goes there again, from this browser's copy.
        await deleteUpload(stand.site, upload);
        const second = page.url();
        await page.getByRole('button', { name: 'Try again' }).click();
        await page.waitForURL(
          (url) => /\/jobs\/(?!upload)/.test(url.pathname) && ![first, second].includes(url.href),
        );
        await page.getByText('The mask would not hold').waitFor();
        expect(traffic.parts).toHaveLength(2);
        const [another] = await uploadsOf(page);
        expect(another).not.toBe(upload);
        await page.getByRole('button', { name: 'Delete it' }).click();
        await page.waitForURL('**/jobs');
        expect(await headUpload(stand.site, another)).toBe(200);
        await page.getByRole('button', { name: 'Delete now' }).click();
        await expect.poll(() => headUpload(stand.site, another)).toBe(404);
      }),
    60_000,
  );

  // ---- Uploads that are cut ----

  /** A volume that does not compress away, and takes a while at the pace that `slowDown` leaves. */
  const wideSize = [161, 120, 60] as const;
  const wideVolume = () => {
    const volume = phantom(affines['right-handed'], wideSize);
    (volume.voxels as Int16Array).forEach((value, i, all) => {
      all[i] = (i * 7919) % 13 === 0 ? 0 : value;
    });
    return volume;
  };
  const marked = (volume: Volume) =>
    (volume.voxels as Uint8Array).reduce((sum, value) => sum + Number(value > 0), 0);

  async function beginSlowUpload(page: Page, address: string, bytes: Uint8Array): Promise<void> {
    await page.goto(`${address}/services/slow`);
    await choose(page, 'wide.nii', bytes);
    await setSlider(page, 'Seconds', 'Home');
    await slowDown(page, 400_000);
    await page.getByRole('button', { name: 'Send and compute' }).click();
    await page.waitForURL(/\/jobs\/upload-/);
    await sendingFrom(page, 0.2);
  }

  it(
    'continues an upload after a reload from the server’s offset',
    () =>
      withPage(async (page) => {
        const traffic = watchUploads(page);
        const volume = wideVolume();
        const bytes = await encode(volume, 'nii');
        await beginSlowUpload(page, stand.site.address, bytes);
        await expectAccessible(page);
        expect(traffic.begun).toBe(1);
        await page.reload();
        // It goes on there, and not from nothing.
        await sendingFrom(page, 0.1);
        await slowDown(page, -1);
        await jobPage(page);
        await resultThere(page);
        expect(traffic.begun).toBe(1);
        expect(traffic.parts).toHaveLength(2);
        expect(traffic.parts[0].offset).toBe(0);
        expect(traffic.parts[1].offset).toBeGreaterThan(0.1 * bytes.length);
        expect(traffic.parts[1].offset).toBeLessThan(bytes.length);
        const [, labelMap] = await resultOf(stand.site, page);
        expect(marked(labelMap)).toBe(marked(volume));
        // What was sent for a job that succeeded is not kept.
        expect(await uploadsOf(page)).toEqual([]);
        expect(await headUpload(stand.site, traffic.ids[0])).toBe(404);
      }),
    120_000,
  );

  it('continues an upload when the server comes back', async () => {
    const own = await openSite(stand.pageFolder, { appFolders: [slowApp] });
    try {
      await withPage(async (page) => {
        const traffic = watchUploads(page);
        const volume = wideVolume();
        await beginSlowUpload(page, own.address, await encode(volume, 'nii'));
        await own.restart();
        await slowDown(page, -1);
        await jobPage(page);
        await resultThere(page);
        expect(traffic.begun).toBe(1);
        expect(traffic.parts.at(-1)!.offset).toBeGreaterThan(0);
        const [, labelMap] = await resultOf(own, page);
        expect(marked(labelMap)).toBe(marked(volume));
      }, own.address);
    } finally {
      await own.stop();
    }
  }, 120_000);

  it(
    'stops an upload, leaves nothing on the server, and resends on request',
    () =>
      withPage(async (page) => {
        const traffic = watchUploads(page);
        await beginSlowUpload(page, stand.site.address, await encode(wideVolume(), 'nii'));
        await page.getByRole('button', { name: 'Cancel' }).click();
        await page.getByText('The server keeps none of it').waitFor();
        expect(await headUpload(stand.site, traffic.ids[0])).toBe(404);
        await slowDown(page, -1);
        await page.reload();
        await page.getByText('The server keeps none of it').waitFor();
        await expectAccessible(page);
        expect(traffic.begun).toBe(1);
        await page.getByRole('button', { name: 'Send it after all' }).click();
        await jobPage(page);
        await resultThere(page);
        expect(traffic.begun).toBe(2);
      }),
    90_000,
  );

  it(
    'reports a missing job or page',
    () =>
      withPage(async (page) => {
        await page.goto(`${stand.site.address}/jobs/AAAAAAAAAAAAAAAAAAAAAA`);
        await page.getByText('Job not found').waitFor();
        await page.goto(`${stand.site.address}/services/no-such-service`);
        await page.getByText('There is no service no-such-service here').waitFor();
      }),
    60_000,
  );
});

interface Traffic {
  /** Uploads that were begun, and their ids. */
  begun: number;
  ids: string[];
  /** The requests that sent bytes: from where, and whether they ended well. */
  parts: { offset: number; whole: boolean }[];
}

/** What a page says to the server about uploads, across reloads. */
function watchUploads(page: Page): Traffic {
  const traffic: Traffic = { begun: 0, ids: [], parts: [] };
  const parts = new Map<unknown, Traffic['parts'][number]>();
  page.on('request', (request) => {
    const { pathname } = new URL(request.url());
    if (request.method() === 'POST' && pathname === '/api/uploads') traffic.begun++;
    if (request.method() !== 'PATCH') return;
    const part = { offset: Number(request.headers()['upload-offset']), whole: false };
    parts.set(request, part);
    traffic.parts.push(part);
    traffic.ids.push(pathname.split('/').pop()!);
  });
  page.on('response', (response) => {
    const part = parts.get(response.request());
    if (part) part.whole = response.status() === 204;
  });
  return traffic;
}

/** The ids of the uploads that this browser remembers, of the latest job first. */
const uploadsOf = (page: Page): Promise<string[]> =>
  page.evaluate(() => {
    const list = JSON.parse(localStorage.getItem('tomaat.jobs') ?? '[]') as {
      uploads?: Record<string, string>;
    }[];
    return list.flatMap(({ uploads }) => Object.values(uploads ?? {}));
  });

const uploadRequest = (method: string) => async (site: Site, id: string) =>
  (await fetch(`${site.address}/api/uploads/${id}`, { method, headers: { 'tus-resumable': '1.0.0' } }))
    .status;
const headUpload = uploadRequest('HEAD');
const deleteUpload = uploadRequest('DELETE');

/** Bytes per second that the page may send from now on; -1 for as many as it likes. */
async function slowDown(page: Page, bytesPerSecond: number): Promise<void> {
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  await session.send('Network.emulateNetworkConditions', {
    offline: false,
    latency: 0,
    downloadThroughput: -1,
    uploadThroughput: bytesPerSecond,
  });
}

/** Waits until the page says that at least this part of the upload, and not all, is sent. */
async function sendingFrom(page: Page, part: number): Promise<void> {
  await expect
    .poll(
      async () =>
        Number(await page.getByRole('progressbar', { name: 'Upload' }).getAttribute('aria-valuenow')),
      { timeout: 20_000 },
    )
    .toBeGreaterThanOrEqual(part * 100);
  await page.getByText(/^Sending: /).waitFor({ timeout: 1000 });
}
