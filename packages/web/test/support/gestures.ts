import type { Locator, Page } from 'playwright-core';

/** Drops files or folders as a user does: from outside of the browser, onto the only field for them. */
export const drop = (page: Page, ...paths: readonly string[]): Promise<void> =>
  dropOnto(page.locator('.drop'), ...paths);

/** The same where there are several fields. */
export async function dropOnto(field: Locator, ...paths: readonly string[]): Promise<void> {
  await field.waitFor();
  await field.scrollIntoViewIfNeeded();
  const box = (await field.boundingBox())!;
  const session = await field.page().context().newCDPSession(field.page());
  for (const type of ['dragEnter', 'dragOver', 'drop'] as const) {
    await session.send('Input.dispatchDragEvent', {
      type,
      x: box.x + 30,
      y: box.y + 20,
      data: { items: [], files: [...paths], dragOperationsMask: 1 },
    });
  }
}
