import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { createClient, createRegistryClient } from '@tomaat/client';
import { type Affine, applyAffine, invert, readVolume, type Vec3, type Volume } from '@tomaat/core';
import pino from 'pino';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium, findCurl } from '../../../test/programs.ts';
import { dataFolder } from '../../../test/real-data.ts';
import { nodePlatform } from '../../server/src/node-platform.ts';
import { startRegistry } from '../../server/src/registry/start.ts';
import { encode, obliqueAffine, phantom } from '../../server/test/phantom.ts';
import { announcementOf, idOf, signerOf } from '../../server/test/registry-helpers.ts';
import { expectAccessible } from './support/axe.ts';
import { drop } from './support/gestures.ts';
import { buildPage, launchBrowser, openPage, openSite, type Site, type Watched } from './support/site.ts';
import { payloads, poisonedJob, poisonedService } from './support/xss.ts';

const browserMissing = findChromium() === undefined;
const data = dataFolder();

describe.skipIf(browserMissing)('the page', () => {
  let browser: Browser;
  let site: Site;
  let pageFolder: string;

  beforeAll(async () => {
    pageFolder = await buildPage();
    [browser, site] = await Promise.all([launchBrowser(), openSite(pageFolder)]);
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await site?.stop();
    if (pageFolder) await rm(pageFolder, { recursive: true, force: true });
  });

  /** A fresh page for a test, which must not have misbehaved by the end. */
  async function withPage(
    act: (page: Page, watched: Watched) => Promise<void>,
    address = site.address,
  ): Promise<void> {
    const watched = await openPage(browser, address);
    try {
      await act(watched.page, watched);
      expect(watched.misdeeds).toEqual([]);
    } catch (error) {
      if (process.env.SHOTS)
        await watched.page.screenshot({
          path: join(process.env.SHOTS, `failed-${Date.now()}.png`),
          fullPage: true,
        });
      if (watched.misdeeds.length > 0) console.error(watched.misdeeds);
      throw error;
    } finally {
      await watched.context.close();
    }
  }

  it(
    'leads from directory and dropped file to the result, kept in history',
    () =>
      withPage(async (page) => {
        await page.goto(`${site.address}/`);
        await page.getByLabel('Search').fill('mean');
        await expect.poll(() => new URL(page.url()).search).toBe('?q=mean');
        expect(await page.locator('article').count()).toBe(1);
        await page.getByRole('link', { name: 'Mean threshold' }).click();
        await page.waitForURL('**/services/threshold');
        const path = join(site.dataFolder, 'SMITH_JOHN.mha');
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
        const row = page.getByRole('row').filter({ hasText: 'bright' });
        const [job, labelMap] = await resultOf(site, page);
        const ml = (labelMap.voxels as Uint8Array).reduce((sum, v) => sum + v, 0) * voxelMl(labelMap.affine);
        expect(Number(await row.locator('.number').textContent())).toBeCloseTo(ml, 2);
        // The file's name stays in the browser.
        expect(job.outputs[0].fileName).not.toMatch(/smith/i);

        const [file] = await Promise.all([
          page.waitForEvent('download'),
          page.getByRole('link', { name: 'Above the threshold as nrrd' }).click(),
        ]);
        expect(file.suggestedFilename()).toBe('SMITH_JOHN_segmentation.nrrd');

        // Measurements and the report of the same name are one row, with every format once.
        const volumes = page.locator('.downloads li').filter({ hasText: 'Volumes' });
        expect(await volumes.locator('a').allTextContents()).toEqual(['json', 'csv', 'txt']);
        const csv = await saved(page, 'Volumes as csv');
        expect(csv.name).toBe('SMITH_JOHN_volumes.csv');
        expect(csv.text.split('\r\n').map((line) => line.split(',').slice(0, 3))).toEqual([
          ['label', 'name', 'voxels'],
          ['1', 'bright', '180'],
          [''],
        ]);
        expect((await saved(page, 'Volumes as txt')).text).toMatch(/^Label\s+Value\s+Voxels/);
        expect(JSON.parse((await saved(page, 'Volumes as json')).text).labels[0].voxels).toBe(180);

        await page.getByRole('link', { name: 'My jobs' }).click();
        await page.getByRole('cell', { name: /Done/ }).waitFor();
        await page.getByRole('button', { name: 'Delete the job of SMITH_JOHN.mha' }).click();
        await page.getByText('No jobs yet').waitFor();
        await expect(createClient({ baseUrl: site.address }).job(job.id)).rejects.toMatchObject({
          code: 'NOT_FOUND',
        });
        const left = await page.evaluate(
          () =>
            new Promise((resolve) => {
              const request = indexedDB.open('tomaat', 1);
              request.onsuccess = () => {
                const count = request.result.transaction('submissions').objectStore('submissions').count();
                count.onsuccess = () => resolve(count.result);
              };
            }),
        );
        expect(left).toBe(0);
      }),
    90_000,
  );

  // ---- The overlay lies where the mask says ----

  const affines: Record<string, Affine> = {
    'right-handed': [1.2, 0, 0, -10, 0, 1.7, 0, 5, 0, 0, 2.9, 3, 0, 0, 0, 1],
    'left-handed': [-1.2, 0, 0, 14, 0, 1.7, 0, 5, 0, 0, 2.9, 3, 0, 0, 0, 1],
    'sagittally acquired': [0, 0, 2.9, 3, -1.2, 0, 0, 8, 0, -1.7, 0, 20, 0, 0, 0, 1],
    'oblique, left-handed': obliqueAffine,
  };
  for (const [name, affine] of Object.entries(affines)) {
    it(
      `draws the label only at its world position, in all planes: ${name}`,
      () =>
        withPage(async (page) => {
          await predict(page, site, 'threshold', {
            name: 'phantom.nii.gz',
            bytes: await encode(phantom(affine), 'nii.gz'),
          });
          await checkOverlay(page, site, [242, 193, 78], affine);
        }),
      90_000,
    );
  }

  it.skipIf(data === undefined)(
    'draws the label of a real T1 where the mask says',
    () =>
      withPage(async (page) => {
        const bytes = await readFile(join(data!, 'brain', 'hippodeep_t1.nii.gz'));
        await predict(page, site, 'threshold', { name: 'hippodeep_t1.nii.gz', bytes });
        await checkOverlay(page, site, [242, 193, 78]);
      }),
    180_000,
  );

  it(
    'shows position, value and label at the crosshair, and hides labels on demand',
    () =>
      withPage(async (page) => {
        await predict(page, site, 'threshold', {
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
        const client = createClient({ baseUrl: site.address });
        const bytes = await encode(phantom(affines['left-handed']), 'nii');
        const job = await client.predict('threshold', {
          volumes: { volume: new File([bytes as BlobPart], 'a.nii') },
        });
        await client.wait(job.id);
        await page.goto(`${site.address}/jobs/${job.id}`);
        await viewerReady(page);
        await page.getByText('so the result is shown without it').waitFor();
        await checkOverlay(page, site, [242, 193, 78], affines['left-handed']);
      }),
    90_000,
  );

  // ---- What goes wrong, or is ended ----

  const slowVolume = () => encode(phantom(affines['right-handed']), 'nii');

  it(
    'shows progress, survives a reload in the middle, and cancels',
    () =>
      withPage(async (page) => {
        await startSlow(page, site, await slowVolume(), 40);
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
    const own = await openSite(pageFolder, { appFolders: [(await import('./support/site.ts')).slowApp] });
    try {
      await withPage(async (page) => {
        await startSlow(page, own, await slowVolume(), 6);
        await page.getByText(/Computing, \d+ %/).waitFor();
        await own.restart();
        await viewerReady(page, 60_000);
        await page.getByText(/^Done/).waitFor();
      }, own.address);
    } finally {
      await own.stop();
    }
  }, 120_000);

  it('states how long results are kept, and when the server is unreachable', async () => {
    const own = await openSite(pageFolder, {
      appFolders: [(await import('./support/site.ts')).slowApp],
      resultTtlMs: 1_800_000,
    });
    let stopped = false;
    try {
      await withPage(async (page) => {
        await startSlow(page, own, await slowVolume(), 50, 'the results are deleted 30 min after that');
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
        await page.goto(`${site.address}/services/slow`);
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
        expect(await headUpload(site, upload)).toBe(200);
        await expectAccessible(page);

        // Gone from the server in the meantime: it goes there again, from this browser's copy.
        await deleteUpload(site, upload);
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
        expect(await headUpload(site, another)).toBe(404);
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
        await beginSlowUpload(page, site.address, bytes);
        await expectAccessible(page);
        expect(traffic.begun).toBe(1);
        await page.reload();
        // It goes on there, and not from nothing.
        await sendingFrom(page, 0.1);
        await slowDown(page, -1);
        await jobPage(page);
        await viewerReady(page);
        expect(traffic.begun).toBe(1);
        expect(traffic.parts).toHaveLength(2);
        expect(traffic.parts[0].offset).toBe(0);
        expect(traffic.parts[1].offset).toBeGreaterThan(0.1 * bytes.length);
        expect(traffic.parts[1].offset).toBeLessThan(bytes.length);
        const [, labelMap] = await resultOf(site, page);
        expect(marked(labelMap)).toBe(marked(volume));
        // What was sent for a job that succeeded is not kept.
        expect(await uploadsOf(page)).toEqual([]);
        expect(await headUpload(site, traffic.ids[0])).toBe(404);
      }),
    120_000,
  );

  it('continues an upload when the server comes back', async () => {
    const own = await openSite(pageFolder, { appFolders: [(await import('./support/site.ts')).slowApp] });
    try {
      await withPage(async (page) => {
        const traffic = watchUploads(page);
        const volume = wideVolume();
        await beginSlowUpload(page, own.address, await encode(volume, 'nii'));
        await own.restart();
        await slowDown(page, -1);
        await jobPage(page);
        await viewerReady(page);
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
        await beginSlowUpload(page, site.address, await encode(wideVolume(), 'nii'));
        await page.getByRole('button', { name: 'Cancel' }).click();
        await page.getByText('The server keeps none of it').waitFor();
        expect(await headUpload(site, traffic.ids[0])).toBe(404);
        await slowDown(page, -1);
        await page.reload();
        await page.getByText('The server keeps none of it').waitFor();
        await expectAccessible(page);
        expect(traffic.begun).toBe(1);
        await page.getByRole('button', { name: 'Send it after all' }).click();
        await jobPage(page);
        await viewerReady(page);
        expect(traffic.begun).toBe(2);
      }),
    90_000,
  );

  it(
    'takes points by clicks in the slices, and gives them back',
    () =>
      withPage(async (page) => {
        await page.goto(`${site.address}/services/slow`);
        await choose(page, 'v.nii', await slowVolume());
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
    'refuses anything but a volume politely, before sending',
    () =>
      withPage(async (page) => {
        await page.goto(`${site.address}/services/threshold`);
        await page.getByText('Drop a volume here').waitFor();
        await choose(page, 'notes.nii.gz', Buffer.from('Shopping list: eggs, flour, milk. '.repeat(30)));
        await page
          .getByRole('alert')
          .getByText('does not begin like a NIfTI, MetaImage, NRRD or DICOM file')
          .waitFor();
        const dicom = Buffer.alloc(4000);
        dicom.write('DICM', 128, 'latin1');
        await choose(page, 'IM0001.dcm', dicom);
        await page.getByRole('alert').getByText('not an image of a volume').waitFor();
        expect(await page.getByRole('button', { name: 'Send and compute' }).isDisabled()).toBe(true);
        await mkdir(join(site.dataFolder, 'notes'));
        await writeFile(join(site.dataFolder, 'notes', 'a.txt'), 'eggs');
        await drop(page, join(site.dataFolder, 'notes'));
        await page.getByRole('alert').getByText('This is a folder').waitFor();
        await choose(page, 'cut.nii', Buffer.from(await slowVolume()).subarray(0, 1000));
        await page.getByRole('alert').getByText('it is cut off. Send it again').waitFor();
        expect(await requestsSent(page)).not.toContain('predictions');
      }),
    60_000,
  );

  it(
    'shows and sends a volume of several gzip members',
    () =>
      withPage(async (page) => {
        const bytes = Buffer.from(await encode(phantom(), 'nii'));
        // As bgzip writes it, and with what a tape adds.
        const members = [0, 3000, 6000].map((at) => gzipSync(bytes.subarray(at, at + 3000)));
        await page.goto(`${site.address}/services/threshold`);
        await page.getByText('Drop a volume here').waitFor();
        await choose(page, 'scan.nii.gz', Buffer.concat([...members, gzipSync(''), Buffer.alloc(512)]));
        await page.getByText('23 × 17 × 11 voxels').waitFor();
        await viewerReady(page);
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await viewerReady(page);
        await page.getByText(/^Done/).waitFor();
      }),
    60_000,
  );

  it(
    'shows the volume of a label in micrometres',
    () =>
      withPage(async (page) => {
        const scan = phantom(affines['right-handed']);
        const unit = Buffer.from(await encode(scan, 'nrrd')).toString('latin1');
        const bytes = Buffer.from(unit.replace('"mm" "mm" "mm"', '"um" "um" "um"'), 'latin1');
        await page.goto(`${site.address}/services/threshold`);
        await page.getByText('Drop a volume here').waitFor();
        await choose(page, 'cell.nrrd', bytes);
        await viewerReady(page);
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await viewerReady(page);
        const voxels = (scan.voxels as Int16Array).filter((v) => v > 100).length;
        const ml = voxels * voxelMl(scan.affine) * 1e-9;
        const shown = await page.locator('td.number').first().textContent();
        expect(Number(shown)).toBeGreaterThan(0.99 * ml);
        expect(Number(shown)).toBeLessThan(1.01 * ml);
      }),
    60_000,
  );

  it(
    'asks for a frame of a 4-D file',
    () =>
      withPage(async (page) => {
        const frame = phantom(affines['right-handed']);
        const bytes = Buffer.from(await encode(frame, 'nii'));
        // dim[0] = 4, dim[4] = 3: the frames follow each other.
        bytes.writeInt16LE(4, 40);
        bytes.writeInt16LE(3, 48);
        const voxels = bytes.subarray(352);
        await page.goto(`${site.address}/services/threshold`);
        await choose(page, '4d.nii', Buffer.concat([bytes, Buffer.alloc(voxels.length), voxels]));
        await page.getByText('3 (4-D)').waitFor();
        await page.getByLabel('Frame of 3').fill('3');
        await viewerReady(page);
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await viewerReady(page);
        const [, labelMap] = await resultOf(site, page);
        expect((labelMap.voxels as Uint8Array).some((v) => v === 1)).toBe(true);
      }),
    60_000,
  );

  it(
    'says what does not fit the service before anything is sent',
    () =>
      withPage(async (page) => {
        await page.goto(`${site.address}/services/ct-lung`);
        await choose(page, 'small.nii', await slowVolume());
        await page.getByText('its field of view is', { exact: false }).first().waitFor();
        expect(await page.getByRole('button', { name: 'Send and compute' }).isDisabled()).toBe(true);
      }),
    60_000,
  );

  it(
    'shows identifying header text, and does not send it',
    () =>
      withPage(async (page) => {
        const bytes = Buffer.from(await encode(phantom(affines['right-handed']), 'nii'));
        bytes.write('Jane Roe 1961-02-03', 148, 'latin1');
        bytes.write('ward 7', 228, 'latin1');
        await page.goto(`${site.address}/services/threshold`);
        const gz = gzipSync(bytes);
        await choose(page, 'roe.nii.gz', gz);
        await page.getByText(/2 text fields|text fields in the header will be removed/).click();
        await page.getByText('Jane Roe 1961-02-03').waitFor();
        await viewerReady(page);
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        const sent = await page.evaluate(
          () =>
            new Promise<number[]>((resolve) => {
              const request = indexedDB.open('tomaat', 1);
              request.onsuccess = () => {
                const all = request.result.transaction('submissions').objectStore('submissions').getAll();
                all.onsuccess = async () => {
                  const [{ blob }] = all.result[0].files.volume as [{ blob: Blob }];
                  const plain = await new Response(
                    blob.stream().pipeThrough(new DecompressionStream('gzip')),
                  ).arrayBuffer();
                  resolve([...new Uint8Array(plain)]);
                };
              };
            }),
        );
        const text = Buffer.from(sent).toString('latin1');
        expect(sent.length).toBe(bytes.length);
        expect(text).not.toContain('Jane');
        expect(text).not.toContain('ward');
        expect(Buffer.from(sent).subarray(352)).toEqual(bytes.subarray(352));
      }),
    60_000,
  );

  it.skipIf(!findCurl())(
    'gives code that runs as it stands',
    () =>
      withPage(async (page, { context }) => {
        await context.grantPermissions(['clipboard-read', 'clipboard-write']);
        await page.goto(`${site.address}/services/threshold`);
        await page.getByRole('tab', { name: 'curl' }).click();
        const code = await page.getByRole('tabpanel').locator('code').textContent();
        const folder = site.dataFolder;
        await writeFile(join(folder, 'scan.nii.gz'), await encode(phantom(), 'nii.gz'));
        await promisify(execFile)('sh', ['-c', code!], { cwd: folder });
        const { volume } = await readVolume(
          [source('segmentation.nii.gz', await readFile(join(folder, 'segmentation.nii.gz')))],
          nodePlatform,
        );
        expect(volume.size).toEqual(phantom().size);
        await page.getByRole('tab', { name: 'Python' }).click();
        const python = await page.getByRole('tabpanel').locator('code').textContent();
        await rm(join(folder, 'segmentation.nii.gz'));
        const hasRequests = await promisify(execFile)('/usr/bin/python3', ['-c', 'import requests']).then(
          () => true,
          () => false,
        );
        if (hasRequests) {
          await promisify(execFile)('/usr/bin/python3', ['-c', python!], { cwd: folder });
          expect((await readFile(join(folder, 'segmentation.nii.gz'))).length).toBeGreaterThan(100);
        }
      }),
    60_000,
  );

  it('shows a registry’s services, live and dead, and leads to the servers themselves', async () => {
    let clock = Date.now() - 30 * 24 * 3_600_000;
    const registry = await startRegistry({
      dataFolder: join(site.dataFolder, 'registry'),
      host: '127.0.0.1',
      port: 0,
      page: pageFolder,
      logger: pino({ level: 'silent' }),
      now: () => clock,
    });
    try {
      const apiKey = await registry.apiKey('test');
      const announce = async (server: string, name: string, serverUrl: string) => {
        const announcement = announcementOf(serverUrl, { name, anatomy: 'brain', serviceId: 'threshold' });
        const signed = await signerOf(server, () => clock).sign(announcement, registry.url);
        const response = await fetch(`${registry.url}/api/announcements/${await idOf(server, 'threshold')}`, {
          method: 'PUT',
          headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json' },
          body: JSON.stringify({ signed }),
        });
        expect(response.status, await response.text()).toBe(200);
      };
      clock = Date.now() - 2 * 3_600_000;
      await announce('dead', 'A dead service', 'http://127.0.0.1:9');
      clock = Date.now();
      await announce('live', 'A live service', site.address);
      const { predictionUrl, interfaceUrl, ...card } = announcementOf('https://old.example', {
        name: 'An old service',
      });
      const v1 = { api_key: apiKey, prediction_url: predictionUrl, interface_url: interfaceUrl, ...card };
      const old = await fetch(`${registry.url}/announce`, { method: 'POST', body: JSON.stringify(v1) });
      expect(await old.json()).toMatchObject({ status: 0 });
      expect(await createRegistryClient({ baseUrl: registry.url }).discover()).toHaveLength(3);
      await withPage(async (page) => {
        await page.goto(`${registry.url}/`);
        const dead = page.getByRole('article').filter({ hasText: 'A dead service' });
        await dead.getByText('Unreachable').waitFor();
        expect(await dead.getByRole('link').count()).toBe(0);
        const link = page.getByRole('link', { name: 'A live service' });
        expect(await link.getAttribute('href')).toBe(`${site.address}/services/threshold`);
        expect(await page.locator('input[type=file]').count()).toBe(0);
        const unsigned = page.getByRole('article').filter({ hasText: 'unsigned' });
        expect(await unsigned.getByRole('heading').allTextContents()).toEqual(['An old service']);
        await expectAccessible(page);
        await page.goto(`${registry.url}/services/threshold`);
        await page.getByText('This is a registry').waitFor();
      }, registry.url);
    } finally {
      await registry.close();
    }
  }, 60_000);

  it(
    'reports a missing job or page',
    () =>
      withPage(async (page) => {
        await page.goto(`${site.address}/jobs/AAAAAAAAAAAAAAAAAAAAAA`);
        await page.getByText('Job not found').waitFor();
        await page.goto(`${site.address}/services/no-such-service`);
        await page.getByText('There is no service no-such-service here').waitFor();
      }),
    60_000,
  );

  // ---- For everyone, and against everyone ----

  it('has no serious accessibility fault on any page, light or dark', async () => {
    for (const colorScheme of ['light', 'dark'] as const) {
      await withPage(async (page) => {
        await page.emulateMedia({ colorScheme });
        await page.goto(`${site.address}/`);
        await page.getByRole('article').first().waitFor();
        await expectAccessible(page);
        await page.goto(`${site.address}/jobs`);
        await page.getByText('No jobs yet').waitFor();
        await expectAccessible(page);
        await page.goto(`${site.address}/services/slow`);
        await choose(page, 'v.nii', await slowVolume());
        await viewerReady(page);
        await expectAccessible(page);
        await setSlider(page, 'Seconds', 'Home');
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await viewerReady(page);
        await expectAccessible(page);
        await page.goto(`${site.address}/jobs`);
        await page.getByRole('cell', { name: /Done/ }).waitFor();
        await expectAccessible(page);
        await startSlow(page, site, await slowVolume(), 40);
        await page.getByText(/Computing, \d+ %/).waitFor();
        await expectAccessible(page);
        await page.getByRole('button', { name: 'Cancel' }).click();
        await page.getByRole('heading', { name: 'Cancelled' }).waitFor();
        await expectAccessible(page);
        await page.goto(`${site.address}/services/slow`);
        await choose(page, 'v.nii', await slowVolume());
        await setSlider(page, 'Seconds', 'Home');
        await page.getByText('Fail at the end').click();
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await page.getByText('The mask would not hold').waitFor();
        await expectAccessible(page);
        await page.goto(`${site.address}/jobs/AAAAAAAAAAAAAAAAAAAAAA`);
        await page.getByText('Job not found').waitFor();
        await expectAccessible(page);
      });
    }
  }, 180_000);

  it('shows 30 hostile strings as text, wherever they come from', async () => {
    expect(payloads).toHaveLength(30);
    await withPage(async (page) => {
      const services = payloads.map(poisonedService);
      let turn = 0;
      await page.route('**/api/services', (route) => route.fulfill({ json: { services } }));
      await page.route('**/api/services/*', (route) => route.fulfill({ json: services[turn] }));
      await page.route('**/api/jobs/*', (route) => route.fulfill({ json: poisonedJob(payloads[turn]) }));
      await page.route('**/api/jobs/*/events', (route) =>
        route.fulfill({ status: 200, contentType: 'text/plain', body: '' }),
      );
      await page.goto(`${site.address}/`);
      await page.getByRole('article').first().waitFor();
      expect(await page.getByRole('article').count()).toBe(30);
      await page.goto(
        `${site.address}/?q=${encodeURIComponent(`${payloads[0]} nowhere`)}&modality=${encodeURIComponent(payloads[1])}`,
      );
      await page.getByText('No matching services').waitFor();
      const header = Buffer.from(await slowVolume());
      for (const [i, payload] of payloads.entries()) {
        turn = i;
        await openWithin(page, `/services/x${i}`);
        await expect.poll(() => page.getByRole('heading', { level: 1 }).textContent()).toBe(payload);
        header.fill(0, 148, 228).write(payload, 148, 79, 'latin1');
        await choose(page, payload, header);
        await page.locator('.chosen').waitFor();
        expect(await page.locator('.chosen strong').textContent()).toBe(payload);
        await openWithin(page, `/jobs/j${i}`);
        await page.getByRole('alert').getByText(payload.trim().slice(0, 12)).first().waitFor();
      }
      expect(await page.evaluate(() => (globalThis as { pwned?: unknown }).pwned)).toBeUndefined();
    });
  }, 180_000);

  it(
    'begins with at most 250 KB of compressed JavaScript, without the viewer',
    () =>
      withPage(async (page) => {
        const scripts: string[] = [];
        page.on('response', (response) => {
          if (response.url().endsWith('.js')) scripts.push(response.url());
        });
        await page.goto(`${site.address}/`);
        await page.getByRole('article').first().waitFor();
        const paint = await page.evaluate(
          () =>
            new Promise<number>((resolve) =>
              new PerformanceObserver((list) => {
                const [entry] = list.getEntriesByName('first-contentful-paint');
                if (entry) resolve(entry.startTime);
              }).observe({ type: 'paint', buffered: true }),
            ),
        );
        let total = 0;
        for (const url of scripts)
          total += gzipSync(Buffer.from(await (await fetch(url)).arrayBuffer())).length;
        console.log(
          `first contentful paint ${Math.round(paint)} ms; ${Math.round(total / 1000)} kB of JavaScript`,
        );
        expect(total).toBeGreaterThan(20_000);
        expect(total).toBeLessThan(250_000);
        const assets = await readdir(join(pageFolder, 'assets'));
        expect(assets.filter((name) => name.startsWith('scene-'))).toHaveLength(1);
        expect(scripts.some((url) => url.includes('scene-'))).toBe(false);
      }),
    60_000,
  );
});

// ---- Helpers ----

/** Goes to another address as a link of the page does, without loading the page again. */
function openWithin(page: Page, path: string): Promise<void> {
  return page.evaluate((to) => history.pushState(null, '', to), path);
}

const source = (name: string, bytes: Uint8Array) => ({
  name,
  sizeBytes: bytes.length,
  async *open(start = 0) {
    yield bytes.subarray(start);
  },
});

async function choose(page: Page, name: string, bytes: Uint8Array): Promise<void> {
  await page
    .locator('.volume-field input[type=file]')
    .first()
    .setInputFiles({ name, mimeType: 'application/octet-stream', buffer: Buffer.from(bytes) });
}

/** What a link of the page saves. */
async function saved(page: Page, link: string): Promise<{ name: string; text: string }> {
  const [file] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: link }).click(),
  ]);
  return { name: file.suggestedFilename(), text: await readFile(await file.path(), 'utf8') };
}

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

async function viewerReady(page: Page, timeout = 40_000): Promise<void> {
  await page.locator('.viewer[data-ready=true]').waitFor({ timeout });
}

const jobPage = (page: Page) =>
  page.waitForURL((url) => /\/jobs\/(?!upload)/.test(url.pathname), { timeout: 40_000 });

async function requestsSent(page: Page): Promise<string> {
  return page.evaluate(() =>
    performance
      .getEntriesByType('resource')
      .map((entry) => entry.name)
      .join(' '),
  );
}

async function setSlider(page: Page, name: string, key: 'Home' | 'End'): Promise<void> {
  await page.getByRole('slider', { name }).focus();
  await page.keyboard.press(key);
}

async function predict(
  page: Page,
  site: Site,
  service: string,
  file: { name: string; bytes: Uint8Array },
): Promise<void> {
  await page.goto(`${site.address}/services/${service}`);
  await choose(page, file.name, file.bytes);
  await page.getByRole('button', { name: 'Send and compute' }).click();
  await jobPage(page);
  await viewerReady(page, 120_000);
}

async function startSlow(
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
async function resultOf(site: Site, page: Page) {
  const client = createClient({ baseUrl: site.address });
  const job = await client.job(new URL(page.url()).pathname.split('/').pop()!);
  const file = await client.output(job.id, job.outputs.find(({ type }) => type === 'LabelVolume')!.name, {
    format: 'nii',
  });
  const bytes = new Uint8Array(await (await file.blob()).arrayBuffer());
  const { volume } = await readVolume([source('labels.nii', bytes)], nodePlatform);
  return [job, volume] as const;
}

const voxelMl = (a: Affine) =>
  Math.abs(
    a[0] * (a[5] * a[10] - a[6] * a[9]) -
      a[1] * (a[4] * a[10] - a[6] * a[8]) +
      a[2] * (a[4] * a[9] - a[5] * a[8]),
  ) / 1000;

const distance = (a: readonly number[], b: readonly number[]) =>
  Math.max(...[0, 1, 2].map((i) => Math.abs(a[i] - b[i])));

interface Canvas extends HTMLCanvasElement {
  niivue: {
    scene: { crosshairPos: unknown };
    opts: { crosshairWidth: number };
    mm2frac(mm: readonly number[], volume: number, world: boolean): unknown;
    frac2canvasPosWithTile(frac: unknown, plane: number): { pos: number[] } | null;
    drawScene(): void;
    gl: WebGL2RenderingContext;
    uiData: { dpr: number };
  };
}

/** Moves the slices through a world point and gives the colours that are drawn for it: axial, coronal, sagittal. */
async function pixelsAt(page: Page, mm: Vec3): Promise<number[][]> {
  return page.locator('.viewer canvas').evaluate((element, mm) => {
    const canvas = element as Canvas;
    const { niivue } = canvas;
    const frac = niivue.mm2frac(mm, 0, true);
    niivue.scene.crosshairPos = frac;
    niivue.opts.crosshairWidth = 0;
    niivue.drawScene();
    return [0, 1, 2].map((plane) => {
      const found = niivue.frac2canvasPosWithTile(frac, plane);
      if (!found) throw new Error(`plane ${plane} does not show ${mm}`);
      const pixel = new Uint8Array(4);
      const { gl } = niivue;
      gl.readPixels(
        Math.round(found.pos[0]),
        canvas.height - 1 - Math.round(found.pos[1]),
        1,
        1,
        gl.RGBA,
        gl.UNSIGNED_BYTE,
        pixel,
      );
      return [...pixel.subarray(0, 3)];
    });
  }, mm);
}

/** Where a world point is drawn in a plane, in CSS pixels of the canvas; the slices go through it. */
async function canvasPosition(page: Page, mm: Vec3, plane: number): Promise<[number, number]> {
  return page.locator('.viewer canvas').evaluate(
    (element, { mm, plane }) => {
      const canvas = element as Canvas;
      const { niivue } = canvas;
      const frac = niivue.mm2frac(mm, 0, true);
      niivue.scene.crosshairPos = frac;
      niivue.drawScene();
      const { pos } = niivue.frac2canvasPosWithTile(frac, plane)!;
      return [(pos[0] * canvas.clientWidth) / canvas.width, (pos[1] * canvas.clientHeight) / canvas.height];
    },
    { mm, plane },
  );
}

/** Compares the drawing with the server's mask at points well inside the label and well outside. */
async function checkOverlay(
  page: Page,
  site: Site,
  color: readonly number[],
  affine?: Affine,
): Promise<void> {
  const [, labelMap] = await resultOf(site, page);
  for (const [i, value] of (affine ?? []).entries()) expect(labelMap.affine[i]).toBeCloseTo(value, 4);
  await page.getByRole('slider', { name: 'Label opacity' }).focus();
  await page.keyboard.press('End');
  await page.waitForTimeout(300);
  const inside = pick(labelMap, 1, 6);
  const outside = pick(labelMap, 0, 8);
  expect(inside.length).toBeGreaterThan(2);
  expect(outside.length).toBeGreaterThan(5);
  const planes = ['axial', 'coronal', 'sagittal'];
  for (const mm of inside) {
    const drawn = await pixelsAt(page, mm);
    for (const [i, plane] of planes.entries())
      expect(distance(drawn[i], color), `label at ${mm}, ${plane}: ${drawn[i]}`).toBeLessThan(16);
  }
  for (const mm of outside) {
    const drawn = await pixelsAt(page, mm);
    for (const [i, plane] of planes.entries())
      expect(distance(drawn[i], color), `background at ${mm}, ${plane}: ${drawn[i]}`).toBeGreaterThan(50);
  }
  const back = applyAffine(invert(labelMap.affine), inside[0]).map(Math.round);
  expect(labelMap.voxels[back[0] + labelMap.size[0] * (back[1] + labelMap.size[1] * back[2])]).toBe(1);
}

/** World positions of voxels whose neighbours all have the same value, spread over the volume. */
function pick({ voxels, size: [nx, ny, nz], affine }: Volume, value: number, count: number): Vec3[] {
  const found: Vec3[] = [];
  for (let z = 1; z < nz - 1; z++) {
    for (let y = 1; y < ny - 1; y++) {
      for (let x = 1; x < nx - 1; x++) {
        let same = true;
        for (let d = 0; d < 27 && same; d++) {
          const at =
            x + (d % 3) - 1 + nx * (y + (Math.floor(d / 3) % 3) - 1 + ny * (z + Math.floor(d / 9) - 1));
          same = Number(voxels[at]) === value;
        }
        if (same) found.push(applyAffine(affine, [x, y, z]));
      }
    }
  }
  const step = Math.max(1, Math.floor(found.length / count));
  return found.filter((_, i) => i % step === Math.floor(step / 2)).slice(0, count);
}
