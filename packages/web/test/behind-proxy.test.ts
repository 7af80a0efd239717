import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium, findNginx } from '../../../test/programs.ts';
import { freePort, type RunningProxy, startNginx } from '../../../test/proxies.ts';
import { encode, phantom } from '../../server/test/phantom.ts';
import { buildPage, launchBrowser, openPage, openSite, type Site, withoutDrawing } from './support/site.ts';

/* The page as people open it in a hospital: through nginx, at a path of a host that serves other things too. */

const missing = findChromium() === undefined || findNginx() === undefined;

describe.skipIf(missing)('the page behind nginx', () => {
  let browser: Browser;
  let pageFolder: string;
  beforeAll(async () => {
    pageFolder = await buildPage();
    browser = await launchBrowser(['--host-resolver-rules=MAP *.example 127.0.0.1', ...withoutDrawing]);
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
  });

  const host = 'proxy_set_header Host $http_host;';
  const location = (path: string, upstream: string, more = '') =>
    `location ${path} { proxy_pass ${upstream}; client_max_body_size 0; ${more} }`;

  interface Stand extends AsyncDisposable {
    nginx: RunningProxy;
    sites: Site[];
  }

  /** nginx with these locations, each for a server of its own on the port that it is given. */
  async function stand(
    places: readonly { location(upstream: string): string; publicPath?: string }[],
    build = pageFolder,
  ): Promise<Stand> {
    const ports: number[] = [];
    for (const _ of places) ports.push(await freePort());
    const nginx = await startNginx(({ port }) => {
      const locations = places.map((place, i) => place.location(`http://127.0.0.1:${ports[i]}`));
      return `server { listen 127.0.0.1:${port}; ${locations.join('\n')} }`;
    });
    const sites: Site[] = [];
    for (const [i, { publicPath }] of places.entries()) {
      const publicUrl = publicPath === undefined ? undefined : nginx.url + publicPath;
      sites.push(await openSite(build, { port: ports[i], strictPort: true, publicUrl }));
    }
    return {
      nginx,
      sites,
      async [Symbol.asyncDispose]() {
        for (const site of sites) await site.stop();
        await nginx[Symbol.asyncDispose]();
      },
    };
  }

  for (const { how, location: place } of [
    { how: 'taken off', location: (upstream: string) => location('/tomaat/', `${upstream}/`, host) },
    { how: 'left on', location: (upstream: string) => location('/tomaat/', upstream, host) },
    { how: 'left on, and the name lost', location: (upstream: string) => location('/tomaat/', upstream) },
  ]) {
    it(`leads from the directory to the result below a path that is ${how}`, async () => {
      await using all = await stand([{ location: place, publicPath: '/tomaat' }]);
      const base = `${all.nginx.url}/tomaat`;
      const { page, context, misdeeds } = await openPage(browser, base);
      await page.goto(base);
      expect(page.url()).toBe(`${base}/`);
      await page.getByRole('link', { name: 'Mean threshold' }).click();
      await page.waitForURL(`${base}/services/threshold`);
      await page.reload();
      await page
        .locator('input[type=file]')
        .first()
        .setInputFiles({
          name: 'scan.nii.gz',
          mimeType: 'application/gzip',
          buffer: Buffer.from(await encode(phantom(), 'nii.gz')),
        });
      await page.getByText('23 × 17 × 11 voxels').waitFor();
      await page.getByRole('button', { name: 'Send and compute' }).click();
      await page.waitForURL((url) => url.href.startsWith(`${base}/jobs/`) && !url.href.includes('upload'));
      await page.getByRole('row').filter({ hasText: 'bright' }).first().waitFor();
      await page.reload();
      const link = page.getByRole('link', { name: 'Above the threshold as nrrd' });
      expect((await link.getAttribute('href'))?.startsWith('/tomaat/api/jobs/')).toBe(true);
      const [file] = await Promise.all([page.waitForEvent('download'), link.click()]);
      expect(file.suggestedFilename()).toBe('scan_segmentation.nrrd');
      await page.getByRole('link', { name: 'My jobs' }).click();
      await page.waitForURL(`${base}/jobs`);
      await page.getByRole('cell', { name: /Done/ }).waitFor();
      await page.goto(`${base}/services/ct-lung`);
      await page.getByRole('button', { name: 'Try it with the sample' }).click();
      await page
        .getByText(/voxels/)
        .first()
        .waitFor();
      expect(misdeeds).toEqual([]);
      await context.close();
    }, 300_000);
  }

  it('opens at the port itself, too, when a path is configured', async () => {
    const place = (upstream: string) => location('/tomaat/', `${upstream}/`, host);
    await using all = await stand([{ location: place, publicPath: '/tomaat' }]);
    const { page, context, misdeeds } = await openPage(browser, all.sites[0].address);
    await page.goto(`${all.sites[0].address}/services/threshold`);
    await page.getByRole('heading', { name: 'Mean threshold' }).waitFor();
    await page
      .getByRole('link', { name: 'All services' })
      .or(page.getByRole('link', { name: 'Services' }))
      .first()
      .click();
    await page.getByRole('link', { name: 'Mean threshold' }).waitFor();
    expect(misdeeds).toEqual([]);
    await context.close();
  }, 120_000);

  it('keeps the jobs of two servers on one host apart', async () => {
    const place = (path: string) => ({
      location: (upstream: string) => location(`${path}/`, upstream, host),
      publicPath: path,
    });
    await using all = await stand([place('/one'), place('/two')]);
    const { page, context } = await openPage(browser, all.nginx.url);
    await page.goto(`${all.nginx.url}/one/`);
    await page.evaluate(() => {
      const entry = { key: 'k', jobId: 'j', service: 's', serviceName: 'S', fileName: 'scan-of-one.nii' };
      localStorage.setItem(
        'tomaat.jobs:/one',
        JSON.stringify([{ ...entry, createdTime: new Date().toISOString(), state: 'succeeded' }]),
      );
    });
    await page.goto(`${all.nginx.url}/one/jobs`);
    await page.getByText('scan-of-one.nii').waitFor();
    await page.goto(`${all.nginx.url}/two/jobs`);
    await page.getByText('No jobs yet').waitFor();
    await context.close();
  }, 120_000);

  for (const path of ['', '/some/tomaat']) {
    it(`without --public-url shows the options to set${path && ', the path included'}`, async () => {
      await using all = await stand([{ location: (upstream) => location(`${path}/`, `${upstream}/`) }]);
      const { page, context, misdeeds } = await openPage(browser, all.nginx.url);
      const failed: string[] = [];
      page.on('response', (answer) => {
        if (answer.status() >= 400) failed.push(new URL(answer.url()).pathname);
      });
      for (const at of ['/', '/services/threshold', '/jobs']) {
        await page.goto(all.nginx.url + path + at);
        const text = page.getByText(`start the server with --public-url ${all.nginx.url}${path}.`);
        await text.waitFor();
      }
      // All its files were let through.
      expect(new Set(failed)).toEqual(new Set([`${path}/auth/me`]));
      expect(misdeeds).toEqual([]);
      await context.close();
    }, 120_000);
  }

  it('names the unknown host where the proxy passes it on', async () => {
    await using all = await stand([{ location: (upstream) => location('/', upstream, host) }]);
    const { page, context } = await openPage(browser, all.nginx.url);
    const answer = await page.goto(`http://hospital.example:${all.nginx.port}/`);
    expect(answer!.status()).toBe(421);
    expect(await page.locator('body').innerText()).toContain('--allow-host hospital.example');
    await context.close();
  }, 120_000);

  it('answers a wrong link with a page for browsers, Problem for programs', async () => {
    const place = (upstream: string) => location('/tomaat/', upstream, host);
    await using all = await stand([{ location: place, publicPath: '/tomaat' }]);
    const base = `${all.nginx.url}/tomaat`;
    const { page, context, misdeeds } = await openPage(browser, base);
    for (const path of ['/nothing', '/services/threshold/nothing', '/jobs/1/2']) {
      const answer = await page.goto(base + path);
      expect(answer!.status(), path).toBe(404);
      expect(await page.getByRole('heading', { level: 1 }).innerText()).toContain('404');
      await page.getByRole('link').click();
      await page.waitForURL(`${base}/`);
      await page.getByRole('link', { name: 'Mean threshold' }).waitFor();
    }
    // No API answers a browser otherwise than a program.
    for (const address of ['/api/jobs/nothing', '/api/nothing']) {
      const answer = await page.goto(base + address);
      expect(answer!.headers()['content-type'], address).toBe('application/problem+json');
    }
    const asked = await fetch(`${base}/nothing`);
    expect(asked.headers.get('content-type')).toBe('application/problem+json');
    expect(misdeeds).toEqual([]);
    await context.close();
  }, 120_000);
});
