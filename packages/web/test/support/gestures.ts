import type { CDPSession, Locator, Page } from 'playwright-core';

/** Drops files or folders as a user does: from outside of the browser, onto the only field for them. */
export const drop = (page: Page, ...paths: readonly string[]): Promise<void> =>
  dropOnto(page.locator('.drop'), ...paths);

/** The same where there are several fields. */
export async function dropOnto(field: Locator, ...paths: readonly string[]): Promise<void> {
  await field.waitFor();
  const session = await field.page().context().newCDPSession(field.page());
  const seen = await field.evaluateHandle((element) => {
    const events = new Set<string>();
    for (const type of ['dragover', 'drop']) element.addEventListener(type, () => events.add(type), true);
    return events;
  });
  const data = { items: [], files: [...paths], dragOperationsMask: 1 };
  // What is above it may still be loading, and moves it: a drag that does not reach it is tried again where it is then.
  for (let isDropped = false; !isDropped; ) {
    await field.scrollIntoViewIfNeeded();
    const { x, y } = (await field.boundingBox())!;
    const at = { x: x + 30, y: y + 20, data };
    await seen.evaluate((events) => events.clear());
    for (const type of ['dragEnter', 'dragOver'] as const)
      await session.send('Input.dispatchDragEvent', { type, ...at });
    const isOver = await seen.evaluate((events) => events.has('dragover'));
    await session.send('Input.dispatchDragEvent', { type: isOver ? 'drop' : 'dragCancel', ...at });
    isDropped = await seen.evaluate((events) => events.has('drop'));
  }
  await session.detach();
}

type Place = readonly [number, number];

/** Fingers that touch, move together through the steps, and lift. */
async function touchThrough(session: CDPSession, steps: readonly (readonly Place[])[]): Promise<void> {
  for (const [i, places] of steps.entries()) {
    await session.send('Input.dispatchTouchEvent', {
      type: i === 0 ? 'touchStart' : 'touchMove',
      touchPoints: places.map(([x, y], id) => ({ x, y, id })),
    });
  }
  await session.send('Input.dispatchTouchEvent', { type: 'touchEnd', touchPoints: [] });
}

/** One finger from here to there. */
export const swipe = (session: CDPSession, from: Place, to: Place) =>
  touchThrough(
    session,
    [0, 0.2, 0.4, 0.6, 0.8, 1].map((part) => [
      [from[0] + part * (to[0] - from[0]), from[1] + part * (to[1] - from[1])],
    ]),
  );

/** Two fingers that move apart. */
export const pinch = (session: CDPSession, [x, y]: Place) =>
  touchThrough(
    session,
    [20, 25, 30, 40].map((half) => [
      [x - half, y],
      [x + half, y],
    ]),
  );
