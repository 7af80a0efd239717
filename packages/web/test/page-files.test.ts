import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { createRegistryClient } from '@tomaat/client';
import { readVolume } from '@tomaat/core';
import pino from 'pino';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { findChromium, findCurl } from '../../../test/programs.ts';
import { zipOf } from '../../core/test/zip-files.ts';
import { nodePlatform } from '../../server/src/node-platform.ts';
import { startRegistry } from '../../server/src/registry/start.ts';
import { encode, phantom } from '../../server/test/phantom.ts';
import { announcementOf, idOf, signerOf } from '../../server/test/registry-helpers.ts';
import { expectAccessible } from './support/axe.ts';
import {
  affines,
  choose,
  jobPage,
  previewed,
  requestsSent,
  resultOf,
  resultThere,
  smallVolume,
  source,
  voxelMl,
} from './support/flows.ts';
import { drop } from './support/gestures.ts';
import { withoutDrawing } from './support/site.ts';
import { useStand } from './support/stand.ts';
import { payloads, poisonedJob, poisonedService } from './support/xss.ts';

/* What the page takes, refuses and shows, without a picture. */

describe.skipIf(findChromium() === undefined)('files and texts in the page', () => {
  const stand = useStand(withoutDrawing);
  const { withPage } = stand;

  it(
    'refuses anything but a volume politely, before sending',
    () =>
      withPage(async (page) => {
        await page.goto(`${stand.site.address}/services/threshold`);
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
        await mkdir(join(stand.site.dataFolder, 'notes'));
        await writeFile(join(stand.site.dataFolder, 'notes', 'a.txt'), 'eggs');
        await drop(page, join(stand.site.dataFolder, 'notes'));
        await page.getByRole('alert').getByText('This is a folder').waitFor();
        await choose(page, 'cut.nii', Buffer.from(await smallVolume()).subarray(0, 1000));
        await page.getByRole('alert').getByText('it is cut off. Send it again').waitFor();
        expect(await requestsSent(page)).not.toContain('predictions');
      }),
    60_000,
  );

  it(
    'takes the volume out of a zip archive, and says what to do with others',
    () =>
      withPage(async (page) => {
        const scan = Buffer.from(await encode(phantom(affines['left-handed']), 'nii'));
        scan.write('Jane Roe', 148, 'latin1');
        const nifti = { name: 'Roe/scan.nii', data: scan };
        const note = { name: 'Roe/notes.txt', data: Buffer.from('eggs') };
        await page.goto(`${stand.site.address}/services/threshold`);
        await choose(page, 'two.zip', zipOf([nifti, { ...nifti, name: 'other.nii' }]));
        await page
          .getByText('The zip archive holds 2 volumes: scan.nii, other.nii. Extract it and drop one of them.')
          .waitFor();
        await choose(page, 'texts.zip', zipOf([note, { ...note, name: 'more.txt' }]));
        await page
          .getByText(/neither a DICOM image nor a volume file, but notes.txt, more.txt\. Drop/)
          .waitFor();
        await choose(page, 'Roe.zip', zipOf([note, nifti]));
        await page.getByText('23 × 17 × 11 voxels').waitFor();
        await page.getByText('One text field in the header will be removed').waitFor();
        await previewed(page);
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await resultThere(page);
        const [job, labelMap] = await resultOf(stand.site, page);
        expect(job.outputs[0].fileName).toMatch(/\.nii$/);
        expect([...labelMap.affine]).toEqual(affines['left-handed'].map((value) => expect.closeTo(value, 4)));
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
        await page.goto(`${stand.site.address}/services/threshold`);
        await page.getByText('Drop a volume here').waitFor();
        await choose(page, 'scan.nii.gz', Buffer.concat([...members, gzipSync(''), Buffer.alloc(512)]));
        await page.getByText('23 × 17 × 11 voxels').waitFor();
        await previewed(page);
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await resultThere(page);
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
        await page.goto(`${stand.site.address}/services/threshold`);
        await page.getByText('Drop a volume here').waitFor();
        await choose(page, 'cell.nrrd', bytes);
        await previewed(page);
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await resultThere(page);
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
        await page.goto(`${stand.site.address}/services/threshold`);
        await choose(page, '4d.nii', Buffer.concat([bytes, Buffer.alloc(voxels.length), voxels]));
        await page.getByText('3 (4-D)').waitFor();
        await page.getByLabel('Frame of 3').fill('3');
        await previewed(page);
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await resultThere(page);
        const [, labelMap] = await resultOf(stand.site, page);
        expect((labelMap.voxels as Uint8Array).some((v) => v === 1)).toBe(true);
      }),
    60_000,
  );

  it(
    'says what does not fit the service before anything is sent',
    () =>
      withPage(async (page) => {
        await page.goto(`${stand.site.address}/services/ct-lung`);
        await choose(page, 'small.nii', await smallVolume());
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
        await page.goto(`${stand.site.address}/services/threshold`);
        const gz = gzipSync(bytes);
        await choose(page, 'roe.nii.gz', gz);
        await page.getByText(/2 text fields|text fields in the header will be removed/).click();
        await page.getByText('Jane Roe 1961-02-03').waitFor();
        await previewed(page);
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
        await page.goto(`${stand.site.address}/services/threshold`);
        await page.getByRole('tab', { name: 'curl' }).click();
        const code = await page.getByRole('tabpanel').locator('code').textContent();
        const folder = stand.site.dataFolder;
        await writeFile(join(folder, 'scan.nii.gz'), await encode(phantom(), 'nii.gz'));
        await promisify(execFile)('sh', ['-c', code!], { cwd: folder });
        const { volume } = await readVolume(
          [source('segmentation.nii.gz', await readFile(join(folder, 'segmentation.nii.gz')))],
          nodePlatform,
        );
        expect(volume.size).toEqual(phantom().size);
        await page.getByRole('tab', { name: 'requests' }).click();
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
      dataFolder: join(stand.site.dataFolder, 'registry'),
      host: '127.0.0.1',
      port: 0,
      page: stand.pageFolder,
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
      await announce('live', 'A live service', stand.site.address);
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
        expect(await link.getAttribute('href')).toBe(`${stand.site.address}/services/threshold`);
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
      await page.goto(`${stand.site.address}/`);
      await page.getByRole('article').first().waitFor();
      expect(await page.getByRole('article').count()).toBe(30);
      await page.goto(
        `${stand.site.address}/?q=${encodeURIComponent(`${payloads[0]} nowhere`)}&modality=${encodeURIComponent(payloads[1])}`,
      );
      await page.getByText('No matching services').waitFor();
      const header = Buffer.from(await smallVolume());
      for (const [i, payload] of payloads.entries()) {
        turn = i;
        await openWithin(page, `/services/x${i}`);
        await expect.poll(() => page.getByRole('heading', { level: 1 }).textContent()).toBe(payload);
        await page.getByText('no voxel differs in 3 cases').waitFor();
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
        await page.goto(`${stand.site.address}/`);
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
        const assets = await readdir(join(stand.pageFolder, 'assets'));
        expect(assets.filter((name) => /^scene-.*\.js$/.test(name))).toHaveLength(1);
        expect(scripts.some((url) => url.includes('scene-'))).toBe(false);
      }),
    60_000,
  );
});

/** Goes to another address as a link of the page does, without loading the page again. */
function openWithin(page: Page, path: string): Promise<void> {
  return page.evaluate((to) => history.pushState(null, '', to), path);
}
