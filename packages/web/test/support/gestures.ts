import type { Page } from 'playwright-core';

/** Drops files or folders as a user does: from outside of the browser. */
export async function drop(page: Page, ...paths: readonly string[]): Promise<void> {
  await page.locator('.drop').waitFor();
  await page.locator('.drop').scrollIntoViewIfNeeded();
  const box = (await page.locator('.drop').boundingBox())!;
  const session = await page.context().newCDPSession(page);
  for (const type of ['dragEnter', 'dragOver', 'drop'] as const) {
    await session.send('Input.dispatchDragEvent', {
      type,
      x: box.x + 30,
      y: box.y + 20,
      data: { items: [], files: [...paths], dragOperationsMask: 1 },
    });
  }
}
