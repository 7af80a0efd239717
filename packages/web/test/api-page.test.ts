import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { openKeyFolder } from '../../server/src/access/key-folder.ts';
import { createKey } from '../../server/src/access/keys.ts';
import { withoutDrawing } from './support/site.ts';
import { useStand } from './support/stand.ts';

/* The page of the API, at a server that demands a key: it is read without one, and its requests are sent with the one entered. */

describe.skipIf(findChromium() === undefined)('the page of the API', () => {
  const stand = useStand(withoutDrawing, { login: true });
  const { withPage } = stand;

  /** Sends a request from the page, as a reader does; the status of its answer. */
  async function tryOut(page: Page, path: string): Promise<string> {
    const operation = page.locator('.opblock').filter({ has: page.locator(`[data-path="${path}"]`) });
    const execute = operation.getByRole('button', { name: 'Execute' });
    if (!(await execute.isVisible())) await operation.locator('.opblock-summary-control').first().click();
    await execute.click();
    const status = operation.locator('.live-responses-table .response .response-col_status');
    await status.first().waitFor();
    return (await status.first().textContent())!.trim();
  }

  it(
    'shows every address of the document, and sends requests with the key entered',
    () =>
      withPage(async (page) => {
        await page.goto(`${stand.site.address}/docs`);
        await page.locator('.opblock').first().waitFor();
        const { paths } = (await (await fetch(`${stand.site.address}/api/openapi.json`)).json()) as {
          paths: Record<string, Record<string, unknown>>;
        };
        const described = Object.values(paths).reduce((sum, methods) => sum + Object.keys(methods).length, 0);
        expect(described).toBeGreaterThan(30);
        expect(await page.locator('.opblock').count()).toBe(described);
        expect(await tryOut(page, '/api/services')).toBe('401');

        await using keys = await openKeyFolder(stand.site.dataFolder, ['server']);
        const { key } = await createKey(keys.databases, { label: 'reader', scopes: ['predict'] });
        await page.getByRole('button', { name: 'Authorize' }).first().click();
        await page.locator('.modal-ux input').fill(key);
        await page.locator('.modal-ux').getByRole('button', { name: 'Apply credentials' }).click();
        await page.locator('.modal-ux').getByRole('button', { name: 'Close' }).click();
        await page.getByRole('button', { name: 'Clear' }).click();
        expect(await tryOut(page, '/api/services')).toBe('200');
      }),
    120_000,
  );

  it.each(['light', 'dark'] as const)(
    'has the colours of the other pages in %s',
    (theme) =>
      withPage(async (page) => {
        await page.emulateMedia({ colorScheme: theme });
        await page.goto(`${stand.site.address}/docs`);
        await page.locator('.opblock').first().waitFor();
        const luminance = (selector: string, what: 'color' | 'backgroundColor') =>
          page
            .locator(selector)
            .first()
            .evaluate((element, what) => {
              const [r, g, b] = getComputedStyle(element)
                [what].match(/[\d.]+/g)!
                .map(Number);
              return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
            }, what);
        const isDark = theme === 'dark';
        expect((await luminance('.api', 'backgroundColor')) < 0.5).toBe(isDark);
        for (const text of ['.opblock-summary-path', '.opblock-tag'])
          expect((await luminance(text, 'color')) > 0.5, text).toBe(isDark);
        if (process.env.SHOTS)
          await page.screenshot({ path: join(process.env.SHOTS, `api-${theme}.png`), fullPage: true });

        await page.getByRole('link', { name: 'service', exact: true }).click();
        await page.locator('.api').waitFor({ state: 'detached' });
        expect(await page.locator('html.dark-mode').count()).toBe(0);
      }),
    120_000,
  );
});
