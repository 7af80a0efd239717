import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { makeKey } from '../../server/test/access-fixture.ts';
import { startTestGateway, type TestGateway } from '../../server/test/gateway-fixture.ts';
import { expectAccessible } from './support/axe.ts';
import { buildPage, launchBrowser, openPage, withoutDrawing } from './support/site.ts';
import { payloads } from './support/xss.ts';

describe.skipIf(findChromium() === undefined)('the page of a gateway', () => {
  let browser: Browser;
  let pageFolder: string;
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tomaat-gateway-page-'));
    pageFolder = await buildPage();
    browser = await launchBrowser(withoutDrawing);
  });
  afterAll(async () => {
    await browser?.close();
    await rm(folder, { recursive: true, force: true });
  });

  async function withGateway(
    name: string,
    act: (page: Page, site: TestGateway) => Promise<void>,
    options: Parameters<typeof openPage>[2] & { login?: boolean } = {},
  ): Promise<void> {
    const { login, ...looks } = options;
    await using site = await startTestGateway({ page: pageFolder, dataFolder: join(folder, name), login });
    const { context, page, misdeeds } = await openPage(browser, site.url, looks);
    try {
      await act(page, site);
      expect(misdeeds).toEqual([]);
      // Nothing stands beyond the edge of the screen.
      expect(await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth)).toBe(0);
    } finally {
      await context.close();
    }
  }
  const rows = (page: Page) => page.getByRole('list', { name: 'Series' }).getByRole('listitem');

  it('asks for a key with the scope admin, and says what to do first', () =>
    withGateway(
      'login',
      async (page, site) => {
        await page.goto(`${site.url}/`);
        await page.getByText('--scope admin').waitFor();
        await page.getByLabel('API key').fill((await makeKey(site.dataFolder, ['predict'])).key);
        await page.keyboard.press('Enter');
        await page.getByText('Use a key with the scope admin.').waitFor();
        await page.getByLabel('API key').fill((await makeKey(site.dataFolder, ['admin'])).key);
        await page.keyboard.press('Enter');
        await page.getByRole('heading', { name: 'No series yet' }).waitFor();
        await page.getByText('tomaat gateway check --config FILE --connect').waitFor();
        await expectAccessible(page);
        // What comes later appears without a hand.
        site.gateway.add({ modality: 'CT', description: 'Thorax 1.0' });
        await page.getByText('Thorax 1.0', { exact: true }).waitFor();
      },
      { login: true },
    ));

  it('shows why a series failed, and drops or retries one after a question', () =>
    withGateway(
      'actions',
      async (page, site) => {
        const failed = site.gateway.add({
          modality: 'MR',
          rule: 'brains',
          description: 'T1 MPRAGE',
          state: 'failed',
          endedAt: 5,
          reason: { code: 'BAD_VOLUME', message: 'A slice is missing after 41.5 mm. Send the whole series' },
        });
        const running = site.gateway.add({
          modality: 'CT',
          description: 'Thorax',
          state: 'running',
          step: 'predict',
        });
        site.gateway.health.sources[0] = {
          name: 'door',
          fault: { code: 'UNREACHABLE', message: '127.0.0.1:8042 does not answer', since: 7_000 },
        };
        await page.goto(`${site.url}/`);
        await page.getByText('A slice is missing after 41.5 mm. Send the whole series.').waitFor();
        await page.getByText('127.0.0.1:8042 does not answer.').waitFor();
        expect(await rows(page).count()).toBe(2);
        await page.getByText('Details of T1 MPRAGE').click();
        await page.getByText(failed.series, { exact: true }).waitFor();
        await expectAccessible(page);

        // By keyboard alone: Escape leaves it as it is, and the focus returns.
        const drop = page.getByRole('button', { name: 'Drop: Thorax, rule lungs' });
        await drop.focus();
        await page.keyboard.press('Enter');
        await page.getByRole('dialog', { name: 'Drop this series?' }).waitFor();
        await expectAccessible(page);
        await page.keyboard.press('Escape');
        await page.getByRole('dialog').waitFor({ state: 'detached' });
        expect((await site.gateway.find(running.id))?.state).toBe('running');
        expect(await drop.evaluate((element) => element === document.activeElement)).toBe(true);
        await page.keyboard.press('Enter');
        await page.getByRole('button', { name: 'Drop it' }).press('Enter');
        await page.getByRole('status').getByText('Thorax (rule lungs) was dropped.').waitFor();
        expect((await site.gateway.find(running.id))?.state).toBe('dropped');
        // The button has gone; the focus stays at the row.
        expect(await page.evaluate(() => document.activeElement?.id)).toBe(`row-${running.id}`);

        // Somebody else was quicker: the answer of the gateway is shown.
        await page.getByRole('button', { name: 'Begin again: T1 MPRAGE, rule brains' }).click();
        await site.gateway.retry(failed.id);
        await page.getByRole('dialog').getByRole('button', { name: 'Begin again' }).click();
        await page
          .getByRole('alert')
          .getByText(`The row ${failed.id} is queued.`, { exact: false })
          .waitFor();
        await page.getByRole('button', { name: 'Cancel' }).click();
        await page.getByRole('button', { name: 'Begin again: Thorax, rule lungs' }).click();
        await page.getByRole('dialog').getByRole('button', { name: 'Begin again' }).click();
        await page.getByRole('status').getByText('Thorax (rule lungs) begins again.').waitFor();
        expect((await site.gateway.find(running.id))?.state).toBe('queued');
      },
      { viewport: { width: 390, height: 844 } },
    ));

  it('filters by state and rule, keeps the choice, and goes back page by page', () =>
    withGateway(
      'filters',
      async (page, site) => {
        for (let i = 0; i < 120; i++)
          site.gateway.add({ description: `CT number ${i}`, state: i % 40 ? 'done' : 'failed' });
        site.gateway.add({ rule: 'brains', description: 'MR number 1' });
        await page.goto(`${site.url}/`);
        await page.getByText('MR number 1', { exact: true }).waitFor();
        expect(await rows(page).count()).toBe(50);
        await page.getByRole('button', { name: 'Show older series' }).click();
        await expect.poll(() => rows(page).count()).toBe(100);
        await page.getByRole('radio', { name: 'Failed 3' }).check({ force: true });
        await expect.poll(() => rows(page).count()).toBe(3);
        await page.reload();
        await expect.poll(() => rows(page).count()).toBe(3);
        await page.getByRole('combobox', { name: 'Rule' }).selectOption('brains');
        await page.getByText('There is none in the state Failed of the rule brains.').waitFor();
        await page.getByRole('button', { name: 'Show all series' }).click();
        await expect.poll(() => rows(page).count()).toBe(50);
        await page.emulateMedia({ colorScheme: 'dark' });
        await expectAccessible(page);
      },
      { colorScheme: 'light' },
    ));

  it('shows descriptions as text, whatever they hold', () =>
    withGateway('text', async (page, site) => {
      for (const description of payloads)
        site.gateway.add({
          description,
          state: 'failed',
          reason: { code: 'BAD_INPUT', message: description },
        });
      await page.goto(`${site.url}/`);
      await rows(page).first().waitFor();
      expect(await page.getByRole('list', { name: 'Series' }).locator('strong').allTextContents()).toEqual(
        payloads.slice(-50).reverse(),
      );
      expect(await page.evaluate(() => (globalThis as { pwned?: unknown }).pwned)).toBeUndefined();
    }));
});
