import { mkdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { openKeyFolder } from '../../server/src/access/key-folder.ts';
import { createKey, revokeKey } from '../../server/src/access/keys.ts';
import type { KeyScope } from '../../server/src/access/scopes.ts';
import { settingsOf } from '../../server/test/login-app.ts';
import { type OidcProvider, openOidcProvider } from '../../server/test/oidc-provider.ts';
import { encode, phantom } from '../../server/test/phantom.ts';
import { openRealIssuer } from '../../server/test/real-issuer.ts';
import { buildPage, launchBrowser, openPage, openSite, type Site, withoutDrawing } from './support/site.ts';

const browserMissing = findChromium() === undefined;
const axeSource = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

describe.skipIf(browserMissing)('the login of the page', () => {
  let browser: Browser;
  let site: Site;
  let provider: OidcProvider;
  let pageFolder: string;

  beforeAll(async () => {
    provider = await openOidcProvider();
    provider.asks = true;
    pageFolder = await buildPage();
    // The issuer is on 127.0.0.1; that the page is elsewhere is a matter of its name.
    const oidc = settingsOf(provider);
    [browser, site] = await Promise.all([
      launchBrowser(withoutDrawing),
      openSite(pageFolder, { login: true, oidc, contact: 'ada@hospital.example' }),
    ]);
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await site?.stop();
    await provider?.[Symbol.asyncDispose]();
  });

  async function withKeys<T>(
    act: (db: Parameters<typeof createKey>[0]) => Promise<T>,
    folder = site.dataFolder,
  ): Promise<T> {
    await using keys = await openKeyFolder(folder, ['server']);
    return await act(keys.databases);
  }
  const makeKey = (label = 'ward 3', scopes: KeyScope[] = ['predict'], of = site) =>
    withKeys((db) => createKey(db, { label, scopes }), of.dataFolder);

  type Act = (page: Page, more: { context: BrowserContext; address: string }) => Promise<void>;
  async function withPage(
    act: Act,
    options: Parameters<typeof openPage>[2] = {},
    mayAsk: readonly string[] = [],
    of = site,
  ): Promise<void> {
    // Another name than the issuer's, so that it is another site to the browser.
    const address = of.address.replace('127.0.0.1', 'localhost');
    const { context, page, misdeeds } = await openPage(browser, address, options);
    try {
      await act(page, { context, address });
      expect(
        misdeeds.filter((text) => !mayAsk.some((start) => text.startsWith(`request: ${start}`))),
      ).toEqual([]);
    } catch (error) {
      if (process.env.SHOTS) {
        await mkdir(process.env.SHOTS, { recursive: true });
        await page.screenshot({ path: join(process.env.SHOTS, `failed-${Date.now()}.png`), fullPage: true });
      }
      throw error;
    } finally {
      await context.close();
    }
  }
  async function logIn(page: Page, key: string): Promise<void> {
    await page.getByLabel('API key').fill(key);
    await page.getByRole('button', { name: 'Log in with the key' }).click();
  }

  it(
    'asks for the key first, explains errors, and continues to the target',
    () =>
      withPage(async (page, { address, context }) => {
        const { key } = await makeKey();
        const refused: string[] = [];
        page.on('response', (response) => {
          if (response.status() === 401) refused.push(new URL(response.url()).pathname);
        });
        await page.goto(`${address}/services/threshold?x=1#card`);
        await page.getByRole('heading', { name: 'Log in' }).waitFor();
        expect(await page.title()).toBe('Log in · TOMAAT');
        expect(await page.getByRole('link', { name: 'My jobs' }).count()).toBe(0);
        const contact = page.getByText('Contact for access:').getByRole('link');
        expect(await contact.getAttribute('href')).toBe('mailto:ada@hospital.example');
        // Nothing is asked for before somebody is logged in.
        expect(refused).toEqual([]);

        // By keyboard alone.
        const field = page.getByLabel('API key');
        await expect.poll(() => field.evaluate((element) => element === document.activeElement)).toBe(true);
        expect(await field.getAttribute('type')).toBe('password');
        await page.keyboard.press('Enter');
        await page.getByText('Paste your API key first.').waitFor();
        await page.keyboard.type('tmt_aaaaaaaaaa_wrong');
        await page.keyboard.press('Enter');
        await page.getByText(/This key is unknown/).waitFor();
        expect(refused).toEqual(['/auth/session']);
        await expect.poll(() => field.evaluate((element) => element === document.activeElement)).toBe(true);
        await page.keyboard.insertText(`  ${key}\n`);
        await page.keyboard.press('Enter');
        await page.getByRole('heading', { name: 'Mean threshold' }).waitFor();
        expect(page.url()).toBe(`${address}/services/threshold?x=1#card`);
        expect(await page.title()).toBe('Mean threshold · TOMAAT');

        // The key is in nothing that stays: storage, address, cookies that scripts see.
        const kept = await page.evaluate(() =>
          JSON.stringify([
            { ...localStorage },
            { ...sessionStorage },
            document.cookie,
            location.href,
            history.state,
          ]),
        );
        expect(kept).not.toContain('tmt_');
        const [cookie, ...more] = await context.cookies();
        expect(more).toEqual([]);
        expect(cookie).toMatchObject({ httpOnly: true, sameSite: 'Strict', path: '/', expires: -1 });
        expect(cookie.value).not.toContain(key);

        await page.reload();
        await page.getByRole('heading', { name: 'Mean threshold' }).waitFor();
      }),
    60_000,
  );

  it(
    'sends a scan and shows the result as any page does, in a session',
    () =>
      withPage(async (page, { address }) => {
        const { key } = await makeKey();
        await page.goto(`${address}/services/threshold`);
        await logIn(page, key);
        await page.locator('.volume-field input[type=file]').setInputFiles({
          name: 'p.nii',
          mimeType: 'application/octet-stream',
          buffer: Buffer.from(await encode(phantom(), 'nii')),
        });
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await page.getByText(/^Done/).waitFor();
        const [file] = await Promise.all([
          page.waitForEvent('download'),
          page.getByRole('link', { name: 'Above the threshold as nrrd' }).click(),
        ]);
        expect(file.suggestedFilename()).toBe('p_segmentation.nrrd');
      }),
    60_000,
  );

  it(
    'shows the user, logs out for good, and hides their data afterwards',
    () =>
      withPage(async (page, { address }) => {
        const first = await makeKey('Ada');
        const second = await makeKey('Grace', ['admin']);
        await page.goto(`${address}/services/threshold`);
        await logIn(page, first.key);
        await page.locator('.volume-field input[type=file]').setInputFiles({
          name: 'SECRET_NAME.nii',
          mimeType: 'application/octet-stream',
          buffer: Buffer.from(await encode(phantom(), 'nii')),
        });
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await page.waitForURL(/\/jobs\/(?!upload)/);
        const job = page.url();
        await page.goto(`${address}/jobs`);
        await page.getByText('SECRET_NAME.nii').waitFor();

        const menu = page.locator('.account summary');
        await menu.focus();
        await page.keyboard.press('Enter');
        await page.getByText('Logged in with an API key').waitFor();
        await page.keyboard.press('Escape');
        expect(await page.getByText('Logged in with an API key').isVisible()).toBe(false);
        await page.keyboard.press('Enter');
        await page.getByRole('button', { name: 'Log out' }).click();
        await page.getByRole('heading', { name: 'Log in' }).waitFor();
        await page.goto(`${address}/jobs`);
        await page.getByRole('heading', { name: 'Log in' }).waitFor();

        await logIn(page, second.key);
        await page.getByText('No jobs yet').waitFor();
        await menu.click();
        await page.getByText('Has every permission; sees only its own jobs').waitFor();
        await page.goto(job);
        await page.getByText('Your login has no job with this id').waitFor();
        expect(await page.getByText('SECRET_NAME').count()).toBe(0);

        await page.locator('.account summary').click();
        await page.getByRole('button', { name: 'Log out' }).click();
        await logIn(page, first.key);
        await page.getByRole('link', { name: 'My jobs' }).click();
        await page.getByText('SECRET_NAME.nii').waitFor();
      }),
    180_000,
  );

  it(
    'asks again when the session ends, and keeps the scan',
    () =>
      withPage(async (page, { address }) => {
        const { key, id } = await makeKey();
        await page.goto(`${address}/services/threshold`);
        await logIn(page, key);
        await page.locator('.volume-field input[type=file]').setInputFiles({
          name: 'p.nii',
          mimeType: 'application/octet-stream',
          buffer: Buffer.from(await encode(phantom(), 'nii')),
        });
        await page.getByText('23 × 17 × 11 voxels').waitFor();
        // The session goes, the key stays.
        const database = new DatabaseSync(join(site.dataFolder, 'server.db'));
        expect(database.prepare('DELETE FROM session WHERE key_id = ?').run(id).changes).toBe(1);
        database.close();
        // By keyboard: the pointer waits until the viewer lets the page rest.
        await page.getByRole('button', { name: 'Send and compute' }).press('Enter');
        await page.getByRole('heading', { name: 'Log in again' }).waitFor();
        expect(await page.getByText('If you log in with a key, this page stays as it is.').isVisible()).toBe(
          true,
        );
        await logIn(page, key);
        // What was stopped goes on by itself.
        await page.getByText(/^Done/).waitFor();
      }),
    90_000,
  );

  it(
    'notices a revoked key at the next request, and takes another one',
    () =>
      withPage(async (page, { address }) => {
        const { key, id } = await makeKey();
        await page.goto(`${address}/`);
        await logIn(page, key);
        await page.getByRole('link', { name: 'Mean threshold' }).waitFor();
        await withKeys(async (databases) => {
          for (const db of [databases].flat()) await revokeKey(db, id);
        });
        await page.getByRole('link', { name: 'Mean threshold' }).click();
        await page.getByRole('heading', { name: 'Log in again' }).waitFor();
        await logIn(page, key);
        await page.getByText(/This key is unknown, expired or revoked/).waitFor();
        await logIn(page, (await makeKey()).key);
        await page.getByRole('heading', { name: 'Mean threshold' }).waitFor();
      }),
    60_000,
  );

  it(
    'logs in by another site’s issuer and returns to the requested page',
    () =>
      withPage(
        async (page, { address, context }) => {
          await page.goto(`${address}/services/threshold?x=1`);
          await page.getByRole('link', { name: `Log in with ${new URL(provider.issuer).host}` }).click();
          await page.getByRole('heading', { name: 'Issuer' }).waitFor();
          await page.getByRole('link', { name: 'Log in as Ada' }).click();
          await page.getByRole('heading', { name: 'Mean threshold' }).waitFor();
          expect(page.url()).toBe(`${address}/services/threshold?x=1`);
          await page.locator('.account summary').click();
          await page.getByText(`Logged in by ${new URL(provider.issuer).host}`).waitFor();
          expect(await page.locator('.account-who').textContent()).toBe('Ada Example');
          expect((await context.cookies()).map(({ sameSite }) => sameSite)).toEqual(['Strict']);
          await page.reload();
          await page.getByRole('heading', { name: 'Mean threshold' }).waitFor();
        },
        {},
        [provider.issuer],
      ),
    60_000,
  );

  it(
    'explains a failed login by the issuer, and shows none of its text',
    () =>
      withPage(
        async (page, { address }) => {
          provider.refusal = 'access_denied';
          try {
            await page.goto(`${address}/services/threshold`);
            await page.getByRole('link', { name: /^Log in with 127/ }).click();
            await page.getByRole('link', { name: 'Log in as Ada' }).click();
            await page.getByText(/^127\.0\.0\.1:\d+ did not log you in\./).waitFor();
            expect(page.url()).toBe(`${address}/services/threshold`);
          } finally {
            provider.refusal = undefined;
          }
          await page.goto(`${address}/?login-fault=%3Cimg%20src=x%20onerror=alert(1)%3E`);
          await page.getByText(/ sent an invalid response, so you are not logged in\./).waitFor();
          expect(page.url()).toBe(`${address}/`);
          await page.goto(`${address}/?login-fault=constructor`);
          await page.getByText(/ sent an invalid response, so you are not logged in\./).waitFor();
        },
        {},
        [provider.issuer],
      ),
    60_000,
  );

  for (const endsSessions of [true, false]) {
    const what = endsSessions
      ? 'ends the session of the issuer too'
      : 'says that the session of the issuer stays';
    it(`the logout ${what}`, async () => {
      await using issuer = await openRealIssuer({ endsSessions });
      const allow = [{ claim: 'groups', value: 'radiology' }];
      const other = await openSite(pageFolder, { login: true, oidc: settingsOf(issuer, { allow }) });
      const { host } = new URL(issuer.issuer);
      issuer.accounts.set('eve', { name: 'Eve Example' });
      issuer.accounts.set('ada', { name: 'Ada Example', groups: ['radiology'] });
      try {
        await withPage(
          async (page, { address }) => {
            await issuer.register(address);
            issuer.user = 'eve';
            await page.goto(`${address}/jobs`);
            await page.getByRole('link', { name: `Log in with ${host}` }).click();
            await page.getByText(`${host} knows you, but this server does not serve your account.`).waitFor();
            issuer.user = 'ada';
            await page.getByRole('link', { name: 'Log in with another account' }).click();
            await page.getByText('No jobs yet').waitFor();
            expect(page.url()).toBe(`${address}/jobs`);

            await page.locator('.account summary').click();
            await page.getByRole('button', { name: 'Log out' }).click();
            if (endsSessions) {
              await page.getByRole('button', { name: 'Yes' }).click();
              await page.getByText(`You are logged out, here and at ${host}.`).waitFor();
            } else {
              await page.getByText(`You are logged out here, but ${host} may let the next user`).waitFor();
            }
            expect(page.url()).toBe(`${address}/`);
            expect(await faultsOf(page)).toEqual([]);
            // The next user is asked by the issuer, or is taken for Ada.
            issuer.user = undefined;
            await page.getByRole('link', { name: `Log in with ${host}` }).click();
            if (endsSessions) await page.getByText(`${host} did not log you in.`).waitFor();
            else await page.locator('.account summary').waitFor();
          },
          {},
          [issuer.issuer],
          other,
        );
      } finally {
        await other.stop();
      }
    }, 60_000);
  }

  const looks = {
    light: { colorScheme: 'light' },
    dark: { colorScheme: 'dark' },
    phone: { colorScheme: 'light', viewport: { width: 390, height: 844 } },
  } as const;
  for (const [look, options] of Object.entries(looks)) {
    it(
      `has no accessibility fault before and after login: ${look}`,
      () =>
        withPage(async (page, { address }) => {
          const { key } = await makeKey('Ada Example of the third ward');
          const picture = async (name: string) => {
            if (process.env.SHOTS)
              await page.screenshot({ path: join(process.env.SHOTS, `${name}-${look}.png`) });
          };
          await page.goto(`${address}/`);
          await page.getByRole('heading', { name: 'Log in' }).waitFor();
          await picture('login');
          expect(await faultsOf(page)).toEqual([]);
          await logIn(page, 'wrong');
          await page.getByText(/This key is unknown/).waitFor();
          await picture('login-wrong');
          expect(await faultsOf(page)).toEqual([]);
          await logIn(page, key);
          await page.getByRole('article').first().waitFor();
          await page.locator('.account summary').click();
          await picture('account');
          expect(await faultsOf(page)).toEqual([]);
          const width = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          expect(width).toBeLessThanOrEqual(0);
        }, options),
      90_000,
    );
  }

  it('asks for no login where it is off', async () => {
    const open = await openSite(pageFolder);
    const { context, page, misdeeds } = await openPage(browser, open.address);
    try {
      await page.goto(`${open.address}/`);
      await page.getByRole('link', { name: 'Mean threshold' }).waitFor();
      expect(await page.locator('.account').count()).toBe(0);
      expect(misdeeds).toEqual([]);
    } finally {
      await context.close();
      await open.stop();
    }
  }, 60_000);
});

interface Axe {
  run(
    context: Document,
    options: object,
  ): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }>;
}

async function faultsOf(page: Page): Promise<string[]> {
  await page.evaluate(axeSource);
  return page.evaluate(async () => {
    const { axe } = globalThis as unknown as { axe: Axe };
    const { violations } = await axe.run(document, { resultTypes: ['violations'] });
    return violations.map(
      ({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(' | ')}`,
    );
  });
}
