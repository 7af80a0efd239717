import type { Page } from 'playwright-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { openKeyFolder } from '../../server/src/access/key-folder.ts';
import { createKey } from '../../server/src/access/keys.ts';
import { jobPage, resultThere, smallVolume } from './support/flows.ts';
import { boxedApp, withoutDrawing } from './support/site.ts';
import { useStand } from './support/stand.ts';

/* A working day without a mouse: the focus is always somewhere, and always to be seen. */

describe.skipIf(findChromium() === undefined)('a day by keyboard alone', () => {
  const stand = useStand(withoutDrawing, {
    login: true,
    appFolders: [boxedApp('threshold'), boxedApp('ct-lung')],
  });

  let key: string;

  beforeAll(async () => {
    await using keys = await openKeyFolder(stand.site.dataFolder, ['server']);
    ({ key } = await createKey(keys.databases, { label: 'ward 3', scopes: ['predict', 'admin'] }));
  }, 120_000);

  /** The name of what has the focus, and whether that is to be seen. */
  const focused = (page: Page) =>
    page.evaluate(() => {
      const element = document.activeElement;
      if (!element || element === document.body) return { name: '', visible: true };
      const own = element as HTMLElement & { labels?: NodeListOf<HTMLElement> };
      const labels = (element.getAttribute('aria-labelledby') ?? '')
        .split(' ')
        .map((id) => document.getElementById(id)?.innerText ?? '');
      const name = [
        element.getAttribute('aria-label'),
        labels.join(' '),
        own.labels?.[0]?.innerText,
        own.innerText,
        own.textContent,
      ]
        .find((text) => text?.trim())
        ?.trim()
        .split('\n')[0];
      // The ring may be drawn by a card or a label around it.
      const rings = [
        element,
        element.parentElement!,
        element.closest('.card, label, [class*=drop]') ?? element,
      ];
      const visible = rings.some((each) => {
        // Not a shadow: cards and panels have one at any time.
        const { outlineStyle, outlineWidth } = getComputedStyle(each);
        return outlineStyle !== 'none' && outlineWidth !== '0px';
      });
      return { name: name ?? '', visible };
    });

  /** Presses Tab until what has this name has the focus. */
  async function tabTo(page: Page, name: string | RegExp, keyName = 'Tab'): Promise<void> {
    const passed: string[] = [];
    for (let presses = 0; presses < 80; presses++) {
      await page.keyboard.press(keyName);
      const found = await focused(page);
      passed.push(found.name);
      expect(found.visible, `the focus is to be seen at “${found.name}”`).toBe(true);
      if (typeof name === 'string' ? found.name === name : name.test(found.name)) return;
    }
    throw new Error(`${name} cannot be reached by ${keyName}: ${passed.join(' | ')}`);
  }

  it(
    'from the login to the logout, with two results, a comparison, a deletion and its undo',
    () =>
      stand.withPage(async (page) => {
        await page.goto(stand.site.address);
        await page.getByRole('heading', { name: 'Log in' }).waitFor();
        await expect.poll(async () => (await focused(page)).name).toMatch(/API key/);
        await page.keyboard.type(key);
        await page.keyboard.press('Enter');
        await page.getByText('2 services').waitFor();

        const bytes = Buffer.from(await smallVolume());
        for (const name of ['first.nii', 'second.nii']) {
          await page.goto(stand.site.address);
          await page.getByText('2 services').waitFor();
          // The first stop leads past the menu.
          await tabTo(page, /^Skip to/);
          await page.keyboard.press('Enter');
          await tabTo(page, 'Mean threshold');
          await page.keyboard.press('Enter');
          await page.getByRole('heading', { name: 'Mean threshold' }).waitFor();
          await tabTo(page, /^Choose (a file|files)/);
          const chooser = page.waitForEvent('filechooser');
          await page.keyboard.press('Enter');
          await (await chooser).setFiles({ name, mimeType: 'application/octet-stream', buffer: bytes });
          await page.getByText(name).first().waitFor();
          await tabTo(page, /Times the mean/);
          await page.keyboard.press('ArrowRight');
          await tabTo(page, 'Send and compute');
          await page.keyboard.press('Enter');
          await jobPage(page);
          await resultThere(page);
        }

        await tabTo(page, 'Copy the table');
        await tabTo(page, /table \(CSV\)|as CSV|Table \(\.csv\)/);
        const download = page.waitForEvent('download');
        await page.keyboard.press('Enter');
        expect((await download).suggestedFilename()).toMatch(/\.csv$/);

        await tabTo(page, 'Compare');
        await page.keyboard.press('Enter');
        await page.getByRole('heading', { name: 'Compare two label maps' }).waitFor();

        await tabTo(page, 'My jobs', 'Shift+Tab');
        await page.keyboard.press('Enter');
        await page.getByRole('row', { name: /second/ }).waitFor();
        await tabTo(page, /^Delete the job of second/);
        await page.keyboard.press('Enter');
        await page.getByRole('row', { name: /second/ }).waitFor({ state: 'detached' });
        await tabTo(page, 'Undo');
        await page.keyboard.press('Enter');
        await page.getByRole('row', { name: /second/ }).waitFor();

        await tabTo(page, 'Account of ward 3', 'Shift+Tab');
        await page.keyboard.press('Enter');
        await tabTo(page, 'Log out');
        await page.keyboard.press('Enter');
        await page.getByRole('heading', { name: 'Log in' }).waitFor();
      }),
    90_000,
  );
});
