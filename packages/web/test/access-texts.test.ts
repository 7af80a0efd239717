import { execFile } from 'node:child_process';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { createClient, isSettled, type Job } from '@tomaat/client';
import { readVolume, sourceFromBytes } from '@tomaat/core';
import pino from 'pino';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium, findCurl, findPython } from '../../../test/programs.ts';
import { nodePlatform } from '../../server/src/node-platform.ts';
import { startRegistry } from '../../server/src/registry/start.ts';
import { makeKey } from '../../server/test/access-fixture.ts';
import { settingsOf } from '../../server/test/login-app.ts';
import { type OidcProvider, openOidcProvider } from '../../server/test/oidc-provider.ts';
import { encode, phantom } from '../../server/test/phantom.ts';
import {
  boxedApp,
  buildPage,
  launchBrowser,
  openPage,
  openSite,
  type Site,
  withoutDrawing,
} from './support/site.ts';

/* What the page says about keys, logins and who sees what, in every way of logging in, and whether it is true. */

const browserMissing = findChromium() === undefined;
const curl = findCurl();
const python = findPython('requests');
const pythonClient = findPython('httpx');
const bin = fileURLToPath(new URL('../../server/bin/tomaat.js', import.meta.url));

describe.skipIf(browserMissing)('what the page says about access', () => {
  let browser: Browser;
  let pageFolder: string;
  let provider: OidcProvider;
  let open: Site;
  let closed: Site;
  const appFolders = [boxedApp('threshold'), boxedApp('ct-lung')];

  beforeAll(async () => {
    provider = await openOidcProvider();
    provider.asks = true;
    pageFolder = await buildPage();
    [browser, open, closed] = await Promise.all([
      launchBrowser(withoutDrawing),
      openSite(pageFolder, { appFolders }),
      openSite(pageFolder, { appFolders, login: true, oidc: settingsOf(provider) }),
    ]);
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await open?.stop();
    await closed?.stop();
    await provider?.[Symbol.asyncDispose]();
  });

  type Look = Parameters<typeof openPage>[2];
  async function withPage(
    site: { address: string },
    act: (page: Page, context: BrowserContext, address: string) => Promise<void>,
    options: Look = {},
  ): Promise<void> {
    // Another name than the issuer's, so that it is another site to the browser.
    const address = site.address.replace('127.0.0.1', 'localhost');
    const { context, page, misdeeds } = await openPage(browser, address, options);
    try {
      await act(page, context, address);
      expect(misdeeds.filter((text) => !text.startsWith(`request: ${provider.issuer}`))).toEqual([]);
    } catch (error) {
      await picture(page, `failed-${Date.now()}`);
      throw error;
    } finally {
      await context.close();
    }
  }
  async function picture(page: Page, name: string): Promise<void> {
    if (!process.env.SHOTS) return;
    await mkdir(process.env.SHOTS, { recursive: true });
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: join(process.env.SHOTS, `${name}-${colorScheme}.png`), fullPage: true });
    }
  }
  async function logIn(page: Page, key: string): Promise<void> {
    await page.getByLabel('API key').fill(key);
    await page.getByRole('button', { name: 'Log in with the key' }).click();
  }
  async function logInByIssuer(page: Page): Promise<void> {
    await page.getByRole('link', { name: /^Log in with 127/ }).click();
    await page.getByRole('link', { name: 'Log in as Ada' }).click();
  }
  async function choose(page: Page): Promise<void> {
    await page.locator('.volume-field input[type=file]').setInputFiles({
      name: 'p.nii',
      mimeType: 'application/octet-stream',
      buffer: Buffer.from(await encode(phantom(), 'nii')),
    });
    await page.getByText('23 × 17 × 11 voxels').waitFor();
  }
  /** By keyboard: the pointer waits until the viewer lets the page rest. */
  const press = (page: Page, name: string) => page.getByRole('button', { name }).press('Enter');
  function endSessions(): void {
    const database = new DatabaseSync(join(closed.dataFolder, 'server.db'));
    expect(database.prepare('DELETE FROM session').run().changes).toBeGreaterThan(0);
    database.close();
  }
  async function settledJob(site: Site, apiKey?: string): Promise<Job> {
    const client = createClient({ baseUrl: site.address, apiKey });
    const volume = new File([(await encode(phantom(), 'nii')) as BlobPart], 'a.nii');
    const { id } = await client.predict('threshold', { volumes: { volume } });
    const job = await client.wait(id);
    expect(isSettled(job)).toBe(true);
    return job;
  }
  /** The samples of the page by their tab. */
  async function samples(page: Page): Promise<Record<string, string>> {
    const found: Record<string, string> = {};
    await page.getByRole('tab').first().waitFor();
    for (const name of await page.getByRole('tab').allTextContents()) {
      await page.getByRole('tab', { name }).click();
      found[name] = (await page.getByRole('tabpanel').locator('code').textContent())!;
    }
    return found;
  }

  // ---- Code samples ----

  const programs = [
    { tab: 'curl', missing: !curl, of: (code: string) => ['sh', '-c', code] },
    { tab: 'Python', missing: !pythonClient, of: (code: string) => [pythonClient!, '-c', code] },
    { tab: 'requests', missing: !python, of: (code: string) => [python!, '-c', code] },
    {
      tab: 'JavaScript',
      missing: false,
      of: (code: string) => [process.execPath, '--input-type=module', '--eval', code],
    },
    { tab: 'Command line', missing: false, of: (code: string) => ['sh', '-c', code] },
  ];
  /** Runs a sample as a user would, in a folder of its own with a scan, and gives the exit code and what was printed. */
  async function runSample([file, ...args]: string[], folder: string, key?: string) {
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'scan.nii.gz'), await encode(phantom(), 'nii.gz'));
    await writeFile(join(folder, 'tomaat'), `#!/bin/sh\nexec "${process.execPath}" "${bin}" "$@"\n`);
    await chmod(join(folder, 'tomaat'), 0o755);
    const env: NodeJS.ProcessEnv = {
      ...process.env,
      PATH: `${folder}:${process.env.PATH}`,
      XDG_DATA_HOME: folder,
      PYTHONPATH: fileURLToPath(new URL('../../../python/src', import.meta.url)),
      PYTHONDONTWRITEBYTECODE: '1',
    };
    for (const name of Object.keys(env)) if (/^(TOMAAT_|NODE_OPTIONS|VITEST)/.test(name)) delete env[name];
    if (key !== undefined) env.TOMAAT_API_KEY = key;
    return await new Promise<{ ok: boolean; text: string }>((resolve) => {
      execFile(file, args, { cwd: folder, env }, (error, stdout, stderr) =>
        resolve({ ok: error === null, text: stdout + stderr }),
      );
    });
  }
  async function expectResult(folder: string): Promise<void> {
    const bytes = await readFile(join(folder, 'segmentation.nii.gz'));
    const { volume } = await readVolume([sourceFromBytes('x.nii.gz', bytes)], nodePlatform);
    expect(volume.size).toEqual(phantom().size);
    expect((volume.voxels as Uint8Array).reduce((sum, v) => sum + v, 0)).toBe(180);
  }

  /** The samples of the server that demands a key, with one, and of the open one: by their tabs. */
  async function shownSamples() {
    const { key } = await makeKey(closed.dataFolder, ['predict'], { label: 'ward 3' });
    const shown = { key, withKey: {} as Record<string, string>, open: {} as Record<string, string> };
    await withPage(closed, async (page, _context, address) => {
      await page.goto(`${address}/services/threshold`);
      await logIn(page, key);
      await page.getByText('Programs need an API key here.').waitFor();
      shown.withKey = await samples(page);
    });
    await withPage(open, async (page, _context, address) => {
      await page.goto(`${address}/services/threshold`);
      shown.open = await samples(page);
      expect(await page.getByText('Programs need an API key here').count()).toBe(0);
    });
    return shown;
  }
  let shownOnce: ReturnType<typeof shownSamples> | undefined;

  for (const { tab, missing, of } of programs) {
    it.skipIf(missing)(
      `gives runnable code for ${tab} that includes a required key`,
      async () => {
        shownOnce ??= shownSamples();
        const shown = await shownOnce;
        const code = shown.withKey[tab];
        expect(code).toContain('TOMAAT_API_KEY');
        expect(code).not.toContain('tmt_');
        const folder = join(closed.dataFolder, `sample-${tab.replace(' ', '-')}`);
        const without = await runSample(of(code), folder);
        expect(without.ok).toBe(false);
        expect(without.text).toMatch(/API key|TOMAAT_API_KEY|error: 401/);
        const ran = await runSample(of(code), folder, shown.key);
        expect(ran.ok, ran.text).toBe(true);
        await expectResult(folder);

        expect(shown.open[tab]).not.toMatch(/key|authorization/i);
        const openFolder = join(open.dataFolder, `sample-${tab.replace(' ', '-')}`);
        const ranOpen = await runSample(of(shown.open[tab]), openFolder);
        expect(ranOpen.ok, ranOpen.text).toBe(true);
        await expectResult(openFolder);
      },
      120_000,
    );
  }

  // ---- Who sees it, and why something is not there ----

  it(
    'states without login that everyone with access can open a job',
    () =>
      withPage(open, async (page, _context, address) => {
        const everyone = 'anyone who can reach it and knows the address of a job can open it';
        await page.goto(`${address}/services/threshold`);
        await page.locator('#where-it-goes').getByText(everyone).waitFor();
        const job = await settledJob(open);
        await page.goto(`${address}/jobs/${job.id}`);
        await page.locator('.share').getByText(everyone).waitFor();
        await page.getByText('This browser does not have the scan').waitFor();
        await createClient({ baseUrl: open.address }).remove(job.id);
        await page.goto(`${address}/jobs/${job.id}`);
        await page.getByText('Job not found').waitFor();
        expect(await page.getByRole('alert').textContent()).not.toMatch(/log|login/i);
      }),
    90_000,
  );

  it('states with a key that only users of that key see jobs', async () => {
    const label = 'ward 3';
    const { key } = await makeKey(closed.dataFolder, ['predict'], { label });
    const other = await makeKey(closed.dataFolder, ['admin'], { label: 'the operator' });
    const job = await settledJob(closed, key);
    const only = `Only people and programs that use the API key “${label}” can open the job.`;
    await withPage(closed, async (page, _context, address) => {
      await page.goto(`${address}/jobs/${job.id}`);
      await logIn(page, key);
      await page.locator('.share').getByText(only).waitFor();
      await picture(page, 'share-key');
      await page.goto(`${address}/services/threshold`);
      await page.locator('#where-it-goes').getByText(only).waitFor();
      await picture(page, 'service-key');
      await page.goto(`${address}/jobs`);
      await page
        .getByText(`Jobs that you sent from this browser, logged in with the API key “${label}”.`)
        .waitFor();
    });
    await withPage(closed, async (page, _context, address) => {
      await page.goto(`${address}/jobs/${job.id}`);
      await logIn(page, other.key);
      await page.getByText('Your login has no job with this id').waitFor();
      await page.getByText('You are logged in with the API key “the operator”.').waitFor();
      await page.getByText('Only the login that sent a job can open it').waitFor();
      await picture(page, 'gone-key');
    });
    // It is there: the text must not say that it was deleted.
    expect((await createClient({ baseUrl: closed.address, apiKey: key }).job(job.id)).state).toBe(
      'succeeded',
    );
  }, 90_000);

  it(
    'states with an issuer that jobs are private and programs need keys',
    () =>
      withPage(closed, async (page, _context, address) => {
        const { host } = new URL(provider.issuer);
        await page.goto(`${address}/services/threshold`);
        await logInByIssuer(page);
        await page.getByText(`your login through ${host} works only on this page`).waitFor();
        await page
          .locator('#where-it-goes')
          .getByText(`Only you can open the job, logged in as Ada Example through ${host}.`)
          .waitFor();
        await picture(page, 'service-oidc');
        const { key } = await makeKey(closed.dataFolder, ['predict'], { label: 'program' });
        const job = await settledJob(closed, key);
        await page.goto(`${address}/jobs/${job.id}`);
        await page.getByText(`You are logged in as Ada Example through ${host}.`).waitFor();
      }),
    90_000,
  );

  it('says of an own job whether it expired or was deleted', async () => {
    const brief = await openSite(pageFolder, {
      appFolders,
      login: true,
      resultTtlMs: 15_000,
      sweepMs: 500,
    });
    try {
      const { key } = await makeKey(brief.dataFolder, ['predict']);
      await withPage(brief, async (page, _context, address) => {
        await page.goto(`${address}/services/threshold`);
        await logIn(page, key);
        await choose(page);
        await press(page, 'Send and compute');
        await page.getByText(/^Done/).waitFor();
        const { pathname } = new URL(page.url());
        const client = createClient({ baseUrl: brief.address, apiKey: key });
        const isThere = () =>
          client.job(pathname.split('/').pop()!).then(
            () => true,
            () => false,
          );
        await expect.poll(isThere, { timeout: 90_000, interval: 500 }).toBe(false);
        await page.reload();
        await page.getByText('This result has expired').waitFor();
        expect(await page.getByRole('alert').textContent()).not.toMatch(/login/);
        await page.goto(`${address}/jobs`);
        await page.getByRole('cell', { name: 'Expired' }).waitFor();
      });
      await withPage(closed, async (page, _context, address) => {
        const made = await makeKey(closed.dataFolder, ['predict']);
        await page.goto(`${address}/services/threshold`);
        await logIn(page, made.key);
        await choose(page);
        await press(page, 'Send and compute');
        await page.getByText(/^Done/).waitFor();
        const id = new URL(page.url()).pathname.split('/').pop()!;
        await createClient({ baseUrl: closed.address, apiKey: made.key }).remove(id);
        await page.reload();
        await page.getByText('It was deleted before it expired').waitFor();
        await page.goto(`${address}/jobs`);
        await page.getByRole('cell', { name: 'Gone' }).waitFor();
      });
    } finally {
      await brief.stop();
    }
  }, 240_000);

  // ---- A session that has ended ----

  it('continues with the sample after a session ended, and never reports it missing', async () => {
    const { key } = await makeKey(closed.dataFolder, ['predict']);
    await withPage(closed, async (page, _context, address) => {
      await page.goto(`${address}/services/ct-lung`);
      await logIn(page, key);
      await page.getByRole('button', { name: 'Try it with the sample' }).waitFor();
      endSessions();
      await press(page, 'Try it with the sample');
      await page.getByText('Your session has ended. Log in').waitFor();
      await picture(page, 'login-again');
      await logIn(page, key);
      await page.getByText('voxels', { exact: false }).first().waitFor();
      expect(await page.getByText('The sample was not found').count()).toBe(0);
      expect(await page.getByText('An API key with the scope').count()).toBe(0);
    });
  }, 90_000);

  it('says what an action needs that a session that ended has stopped', async () => {
    const { key } = await makeKey(closed.dataFolder, ['predict']);
    const job = await settledJob(closed, key);
    await withPage(closed, async (page, _context, address) => {
      await page.goto(`${address}/jobs/${job.id}`);
      await logIn(page, key);
      await page.locator('.share').waitFor();
      endSessions();
      await press(page, 'Keep longer');
      await page.getByText('Your session has ended. Log in').waitFor();
      await logIn(page, key);
      await page.getByText('You are logged in again').waitFor();
      await press(page, 'Keep longer');
      await page.getByText(/^Kept until/).waitFor();

      // A deletion is not asked for again: the page carries it out after the login.
      endSessions();
      await press(page, 'Delete the result now');
      await page.getByText('No jobs yet').waitFor();
      await press(page, 'Delete now');
      await page.getByText('Your session has ended. Log in').waitFor();
      const client = createClient({ baseUrl: address, apiKey: key });
      expect((await client.job(job.id)).state).toBe('succeeded');
      await logIn(page, key);
      await expect.poll(() => client.job(job.id).catch((error) => error.code)).toBe('NOT_FOUND');
    });
  }, 90_000);

  it(
    'leads back to the upload by the issuer, and names what is lost',
    () =>
      withPage(closed, async (page, _context, address) => {
        await page.goto(`${address}/services/threshold`);
        await logInByIssuer(page);
        await choose(page);
        endSessions();
        await press(page, 'Send and compute');
        await page
          .getByText('jobs and uploads continue, but whatever you filled in and did not send is lost')
          .waitFor();
        await picture(page, 'login-again-oidc');
        await logInByIssuer(page);
        await page.getByText(/^Done/).waitFor();
        expect(new URL(page.url()).pathname).toMatch(/^\/jobs\/(?!upload)/);
      }),
    90_000,
  );

  it('does not send the upload of another login of this browser', async () => {
    const first = await makeKey(closed.dataFolder, ['predict'], { label: 'first' });
    const second = await makeKey(closed.dataFolder, ['predict'], { label: 'second' });
    await withPage(closed, async (page, context, address) => {
      await page.goto(`${address}/services/threshold`);
      await logIn(page, first.key);
      await choose(page);
      // The upload stops before the server has any of it.
      await page.route('**/api/uploads**', (route) => route.abort());
      await page.route('**/predictions**', (route) => route.abort());
      await press(page, 'Send and compute');
      await page.waitForURL(/\/jobs\/upload-/);
      const upload = page.url();
      // Here the upload would be tried again as soon as it can.
      await page.goto('about:blank');
      await context.clearCookies();
      await page.unrouteAll();
      const sent: string[] = [];
      page.on('request', (request) => {
        if (request.method() === 'POST') sent.push(new URL(request.url()).pathname);
      });
      await page.goto(upload);
      await logIn(page, second.key);
      await page.getByText('This browser does not have this upload').waitFor();
      await page.getByText('Uploads from other logins are not shown.').waitFor();
      expect(sent).toEqual(['/auth/session']);
    });
  }, 90_000);

  // ---- The registry ----

  it('states on a registry with login where scans go and whose keys count', async () => {
    const registry = await startRegistry({
      dataFolder: join(closed.dataFolder, 'registry'),
      host: '127.0.0.1',
      port: 0,
      page: pageFolder,
      login: true,
      logger: pino({ level: 'silent' }),
    });
    try {
      const { key } = await makeKey(join(closed.dataFolder, 'registry'), ['predict']);
      await withPage({ address: registry.url }, async (page, _context, address) => {
        await page.goto(`${address}/`);
        await page.getByText('Log in to see the services and send scans.').waitFor();
        await logIn(page, key);
        await page.getByText('your login to this registry is not valid there').waitFor();
        await page.getByText('forwards scans that programs send to it and does not keep them').waitFor();
        await page.getByText('TOMAAT_ANNOUNCE_KEY', { exact: false }).waitFor();
        await picture(page, 'registry-login');
      });
    } finally {
      await registry.close();
    }
  }, 90_000);
});
