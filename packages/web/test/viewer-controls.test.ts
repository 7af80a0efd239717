import { readFile } from 'node:fs/promises';
import { type Affine, parseMeasurementsCsv, type Vec3, type Volume } from '@tomaat/core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { encode } from '../../server/test/phantom.ts';
import { expectAccessible } from './support/axe.ts';
import { choose, jobPage, previewed, viewerReady, voxelMl } from './support/flows.ts';
import { pinch, swipe } from './support/gestures.ts';
import { canvasPosition, cutTitles } from './support/overlay.ts';
import {
  buildPage,
  launchBrowser,
  openPage,
  openSite,
  regionsApp,
  type Site,
  type Watched,
} from './support/site.ts';

/* The viewer's controls and the tables beside it, on one result: 104 labels on a grid that is sheared, anisotropic and left-handed. */

/** Columns of 120, 90 and, tilted, 155 mm: volumes have many digits. */
const affine: Affine = [-120, 0, 0, 600, 0, 90, 40, -400, 0, 0, 150, -500, 0, 0, 0, 1];
const size = [12, 10, 8] as const;
const worldOf = ([x, y, z]: readonly number[]): Vec3 => [600 - 120 * x, 90 * y + 40 * z - 400, 150 * z - 500];
/** Blocks of 2 × 2 × 2 voxels, numbered from 1: 6 × 5 × 4 of them. */
const regionOf = (x: number, y: number, z: number) => 1 + (x >> 1) + 6 * (y >> 1) + 30 * (z >> 1);
const firstCorner: Vec3 = worldOf([0.5, 0.5, 0.5]);

function scan(): Volume {
  const voxels = new Int16Array(960);
  for (let i = 0; i < 960; i++) {
    const [x, y, z] = [i % 12, Math.floor(i / 12) % 10, Math.floor(i / 120)];
    voxels[i] = 10 * regionOf(x, y, z) + (x % 2);
  }
  return { size, components: 1, affine, voxels };
}

interface Drawn extends HTMLCanvasElement {
  niivue: {
    volumes: { cal_min: number; cal_max: number }[];
    overlayAlphaShader: number;
    scene: { pan2Dxyzmm: number[]; renderAzimuth: number };
    screenSlices: { leftTopWidthHeight: number[]; axCorSag: number }[];
  };
}

describe.skipIf(findChromium() === undefined)('the viewer’s controls', () => {
  let browser: Browser;
  let site: Site;
  let watched: Watched;
  let page: Page;
  /** The address of the result. */
  let result: string;

  beforeAll(async () => {
    const pageFolder = await buildPage();
    [browser, site] = await Promise.all([
      launchBrowser(),
      openSite(pageFolder, { appFolders: [regionsApp] }),
    ]);
    watched = await openPage(browser, site.address, { viewport: { width: 1440, height: 900 } });
    page = watched.page;
    await watched.context.grantPermissions(['clipboard-read', 'clipboard-write']);
    await openResult();
    result = page.url();
  }, 180_000);
  afterAll(async () => {
    await browser?.close();
    await site?.stop();
  });

  async function openResult(): Promise<void> {
    await page.goto(`${site.address}/services/regions`);
    await choose(page, 'SMITH_JOHN.nii', await encode(scan(), 'nii'));
    await previewed(page);
    await page.getByRole('button', { name: 'Send and compute' }).click();
    await jobPage(page);
    await viewerReady(page, 120_000);
  }

  const canvas = (on = page) => on.locator('.viewer canvas');
  const drawn = <T>(read: (canvas: Drawn) => T, on = page): Promise<T> =>
    canvas(on).evaluate(
      (element, source) => new Function(`return (${source})`)()(element as Drawn),
      String(read),
    ) as Promise<T>;
  const slice = (plane = 'Axial') => page.getByLabel(`${plane} slice`);
  const crosshair = (on = page) =>
    Promise.all(
      ['right', 'anterior', 'superior'].map(async (axis) =>
        Number(await on.getByLabel(`Crosshair ${axis}, mm`).inputValue()),
      ),
    );
  /** As people do, so that the page knows. */
  async function goTo(mm: Vec3): Promise<void> {
    for (const [i, axis] of ['right', 'anterior', 'superior'].entries()) {
      await page.getByLabel(`Crosshair ${axis}, mm`).fill(String(mm[i]));
      await page.keyboard.press('Enter');
    }
    await expect.poll(() => crosshair()).toEqual(mm);
  }
  const view = (name: string) => page.getByRole('radio', { name, exact: true }).click();
  /** Page coordinates of a world position in a plane; the crosshair goes there. */
  async function placeOf(mm: Vec3, plane = 0, on = page): Promise<[number, number]> {
    await canvas(on).evaluate((element) => element.scrollIntoView({ block: 'center' }));
    const [x, y] = await canvasPosition(on, mm, plane);
    const box = (await canvas(on).boundingBox())!;
    return [box.x + x, box.y + y];
  }

  /** Until the picture is drawn at that size of the window: its places are others then. */
  async function resize(width: number, height: number): Promise<void> {
    await page.setViewportSize({ width, height });
    const isDrawn = () =>
      canvas().evaluate((element, width) => {
        const { width: across, height: down, clientWidth, clientHeight } = element as HTMLCanvasElement;
        const isFit = (pixels: number, size: number) => Math.abs(pixels - size * devicePixelRatio) <= 1;
        return innerWidth === width && isFit(across, clientWidth) && isFit(down, clientHeight);
      }, width);
    await expect.poll(isDrawn).toBe(true);
  }

  it('covers most of the canvas with slices at every width', async () => {
    for (const [width, height] of [
      [1440, 900],
      [1024, 768],
      [390, 844],
    ]) {
      await resize(width, height);
      const covered = () =>
        drawn(({ niivue, width, height }) =>
          niivue.screenSlices.reduce(
            (sum, { leftTopWidthHeight: [, , w, h] }) => sum + Math.abs(w * h) / (width * height),
            0,
          ),
        );
      await expect.poll(() => canvas().evaluate((element) => element.clientWidth)).toBeLessThan(width);
      await expect.poll(covered, { message: `at ${width}` }).toBeGreaterThan(0.6);
      await expect.poll(() => cutTitles(page), { message: `at ${width}` }).toEqual([]);
    }
    await resize(1440, 900);
  });

  it('enlarges a plane by double click, and keeps the choice', async () => {
    const planes = () => drawn(({ niivue }) => niivue.screenSlices.map(({ axCorSag }) => axCorSag));
    await expect.poll(planes).toEqual([0, 1, 2]);
    const coronal = await placeOf(worldOf([5, 4, 3]), 1);
    await page.mouse.dblclick(...coronal);
    await expect.poll(planes).toEqual([1]);
    await page.mouse.dblclick(...(await placeOf(worldOf([5, 4, 3]), 1)));
    await expect.poll(planes).toEqual([0, 1, 2]);
    await view('Side by side');
    await page.getByRole('radio', { name: 'Sagittal' }).click();
    await page.reload();
    await viewerReady(page);
    await expect.poll(() => page.getByRole('radio', { name: 'Side by side' }).isChecked()).toBe(true);
    await expect.poll(() => page.getByRole('radio', { name: 'Sagittal' }).isChecked()).toBe(true);
    await page.getByRole('radio', { name: 'Slices', exact: true }).click();
    await page.getByRole('radio', { name: 'Axial' }).click();
    await expect.poll(planes).toEqual([0, 1, 2]);
  });

  it('has one window for drag, numbers, sliders and presets', async () => {
    const level = page.getByLabel('Level as a number');
    const width = page.getByLabel('Width as a number');
    const agree = async (l: number, w: number) => {
      await expect.poll(() => level.inputValue()).toBe(String(l));
      await expect.poll(() => width.inputValue()).toBe(String(w));
      await expect.poll(() => page.getByRole('slider', { name: 'Level' }).inputValue()).toBe(String(l));
      await expect.poll(() => page.getByRole('slider', { name: 'Width' }).inputValue()).toBe(String(w));
      const found = () => drawn(({ niivue }) => [niivue.volumes[0].cal_min, niivue.volumes[0].cal_max]);
      await expect.poll(found).toEqual([l - w / 2, l + w / 2]);
    };
    await level.fill('300');
    await level.press('Enter');
    await width.fill('500');
    await width.press('Enter');
    await agree(300, 500);
    expect(await page.getByRole('combobox', { name: /^Window/ }).inputValue()).toBe('');

    // 50 to the right at 500 / 250 a pixel; 25 up.
    const [x, y] = await placeOf(worldOf([5, 4, 3]));
    const before = await crosshair();
    await page.mouse.move(x, y);
    await page.mouse.down({ button: 'right' });
    await page.mouse.move(x + 50, y - 25, { steps: 3 });
    await page.mouse.up({ button: 'right' });
    await agree(250, 600);
    await page.getByRole('radio', { name: 'Window' }).click();
    await page.mouse.move(x, y);
    await page.mouse.down();
    await page.mouse.move(x - 25, y, { steps: 3 });
    await page.mouse.up();
    await agree(250, 540);
    expect(await crosshair()).toEqual(before);
    await page.mouse.dblclick(x, y);
    await page.mouse.dblclick(x, y);
    await agree(250, 540);
    await page.getByRole('combobox', { name: /^Window/ }).selectOption({ label: 'Bone (400 / 1800)' });
    await agree(400, 1800);
    await page.getByRole('radio', { name: 'Crosshair' }).click();
  });

  it('changes slices by the wheel, and zooms with Ctrl', async () => {
    await page.mouse.move(...(await placeOf(worldOf([5, 4, 3]))));
    await expect.poll(() => slice().inputValue()).toBe('4');
    await page.mouse.wheel(0, -100);
    await expect.poll(() => slice().inputValue()).toBe('5');
    // One after the other: a busy browser makes one event of two.
    await page.mouse.wheel(0, 100);
    await expect.poll(() => slice().inputValue()).toBe('4');
    await page.mouse.wheel(0, 100);
    await expect.poll(() => slice().inputValue()).toBe('3');
    // The slices are tilted: the next one lies 40 mm further to the front.
    await expect.poll(() => crosshair()).toEqual(worldOf([5, 4, 2]));
    const zoom = () => drawn(({ niivue }) => niivue.scene.pan2Dxyzmm[3]);
    await page.keyboard.down('Control');
    await page.mouse.wheel(0, -100);
    await page.keyboard.up('Control');
    await expect.poll(zoom).toBeGreaterThan(1.2);
    expect(await slice().inputValue()).toBe('3');
    await canvas().focus();
    await page.keyboard.press('0');
    await expect.poll(zoom).toBe(1);
  });

  it('names label, value and position under the pointer', async () => {
    const hover = page.getByTestId('hover');
    await page.mouse.move(...(await placeOf(worldOf([1, 0, 1]))));
    await expect.poll(() => hover.textContent()).toContain('first corner');
    expect(await hover.textContent()).toContain('value 11');
    const shown = (await hover.textContent())!
      .match(/R (-?[\d.]+)\s+A (-?[\d.]+)\s+S (-?[\d.]+) mm/)!
      .slice(1);
    // A pixel is some millimetres here.
    shown.forEach((mm, i) => void expect(Math.abs(Number(mm) - worldOf([1, 0, 1])[i])).toBeLessThan(8));
    await page.mouse.move(5, 5);
    await hover.waitFor({ state: 'detached' });
  });

  it('is worked by the keyboard alone', async () => {
    await slice().focus();
    await slice().fill('2');
    await page.keyboard.press('Enter');
    await expect.poll(() => slice().inputValue()).toBe('2');
    for (let i = 0; i < 20; i++) {
      await page.keyboard.press('Tab');
      if (await canvas().evaluate((element) => element === document.activeElement)) break;
    }
    const steps: readonly (readonly [string, string])[] = [
      ['ArrowUp', '3'],
      ['ArrowLeft', '2'],
      ['End', '8'],
      ['ArrowRight', '8'],
      ['Home', '1'],
      ['PageUp', '8'],
      ['PageDown', '1'],
    ];
    for (const [key, number] of steps) {
      await page.keyboard.press(key);
      await expect.poll(() => slice().inputValue(), { message: key }).toBe(number);
    }
    await page.keyboard.press('2');
    await expect.poll(() => slice('Coronal').count()).toBe(1);
    await page.keyboard.press('1');

    await page.keyboard.press('m');
    const from = await crosshair();
    await page.keyboard.press('Shift+ArrowRight');
    await expect.poll(async () => (await crosshair())[0]).toBeCloseTo(from[0] - 120, 3);
    await page.keyboard.press('Shift+ArrowUp');
    await expect.poll(async () => (await crosshair())[1]).toBeCloseTo(from[1] + 90, 3);
    await page.keyboard.press('m');
    // Two sides of a right angle, 120 and 90 mm.
    await expect.poll(() => page.locator('.overlay .ruler text').textContent()).toBe('150.0 mm');
    await page.getByRole('button', { name: 'Remove rulers' }).press('Enter');
    await page.locator('.overlay .ruler').waitFor({ state: 'detached' });

    await canvas().focus();
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'The viewer' }).waitFor();
    await expectAccessible(page);
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await canvas().focus();
    await page.keyboard.press('f');
    await page.getByRole('button', { name: 'Leave full screen' }).press('Enter');
    await page.getByRole('button', { name: 'Full screen', exact: true }).waitFor();
  });

  it('measures in the world, in a plane that follows the tilt', async () => {
    await page.getByRole('radio', { name: 'Ruler' }).click();
    const ends = [worldOf([5, 2, 1]), worldOf([5, 7, 6])];
    // Sagittal: 5 voxels of 90 mm forward and 5 slices, each 40 mm forward and 150 mm up.
    const expected = Math.hypot(5 * 90 + 5 * 40, 5 * 150);
    await goTo(ends[0]);
    const [from, to] = [await placeOf(ends[0], 2), await placeOf(ends[1], 2)];
    await page.mouse.move(...from);
    await page.mouse.down();
    await page.mouse.move(...to, { steps: 3 });
    await page.mouse.up();
    const text = page.locator('.overlay [data-plane=sagittal] .ruler text');
    // Half a pixel at either end.
    const mmPerPixel = expected / Math.hypot(to[0] - from[0], to[1] - from[1]);
    await expect
      .poll(async () => Math.abs(Number.parseFloat((await text.textContent())!) - expected))
      .toBeLessThan(1.5 * mmPerPixel);
    // On another slice it is not drawn.
    await goTo(worldOf([8, 2, 1]));
    await text.waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Remove rulers' }).click();
    await page.getByRole('radio', { name: 'Crosshair' }).click();
  });

  it('saves a picture without the file’s name, with a caption', async () => {
    const [file] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Screenshot' }).click(),
    ]);
    expect(file.suggestedFilename()).toBe('tomaat-view.png');
    const bytes = await readFile(await file.path());
    expect(bytes.toString('latin1')).not.toMatch(/smith/i);
    const { width, height } = await drawn(({ width, height }) => ({ width, height }));
    expect([bytes.readUInt32BE(16), bytes.readUInt32BE(20) > height]).toEqual([width, true]);
    // The picture itself, and text below it.
    const colours = await page.evaluate(
      async ([base64, top]) => {
        const image = await createImageBitmap(
          new Blob([Uint8Array.from(atob(base64 as string), (letter) => letter.charCodeAt(0))]),
        );
        const copy = new OffscreenCanvas(image.width, image.height).getContext('2d')!;
        copy.drawImage(image, 0, 0);
        const count = (y: number, rows: number) =>
          new Set(new Uint32Array(copy.getImageData(0, y, image.width, rows).data.buffer)).size;
        return [count(0, top as number), count(top as number, image.height - (top as number))];
      },
      [bytes.toString('base64'), height] as const,
    );
    expect(colours[0]).toBeGreaterThan(100);
    expect(colours[1]).toBeGreaterThan(10);
  });

  it('finds, shows alone and outlines a label among 104', async () => {
    await page.getByLabel('Search labels').fill('corner');
    await page.getByText('1 of 105 labels').waitFor();
    await page.getByRole('button', { name: 'Show only first corner' }).click();
    await expect.poll(() => crosshair()).toEqual(firstCorner);
    await page.getByRole('button', { name: 'Outline' }).click();
    const outlines = page.locator('.overlay .outline');
    await expect.poll(() => outlines.count()).toBe(3);
    expect(await outlines.first().getAttribute('stroke')).toBe('#ff2020');
    await expect.poll(() => drawn(({ niivue }) => niivue.overlayAlphaShader)).toBe(0);
    // The outline goes around the block: from edge to edge of its voxels.
    const box = await page.locator('.overlay [data-plane=axial] .outline').evaluate((element) => {
      const { x, y, width, height } = (element as SVGPathElement).getBBox();
      return [x, y + height, x + width, y];
    });
    const corners = [worldOf([-0.5, -0.5, 0.5]), worldOf([1.5, 1.5, 0.5])].map((mm) =>
      canvasPosition(page, mm, 0),
    );
    // Right is on the left, and x runs to the left.
    const [[right, bottom], [left, top]] = await Promise.all(corners);
    [right, bottom, left, top].forEach((v, i) => void expect(Math.abs(v - box[i])).toBeLessThan(0.6));
    await page.getByLabel('Search labels').fill('');
    await page.getByRole('button', { name: 'Show all' }).click();
    await page.getByRole('button', { name: 'Outline' }).click();
    await expect.poll(() => outlines.count()).toBe(0);
    await page.getByLabel('Search labels').fill('label 104');
    await page.getByRole('button', { name: 'Go to the centre of label 104' }).click();
    // Number 104 of the blocks: 103 = 1 + 6 × 2 + 30 × 3.
    await expect.poll(() => crosshair()).toEqual(worldOf([2.5, 4.5, 6.5]));
    await page.getByLabel('Search labels').fill('');
  });

  it('sorts, copies and saves what it measured, with every digit', async () => {
    const table = page.locator('.measurements');
    const first = () => table.locator('tbody th').first().textContent();
    await table.getByRole('button', { name: 'Mean of the scan' }).click();
    expect(await first()).toBe('label 104');
    await table.getByRole('button', { name: 'Mean of the scan' }).click();
    expect(await first()).toBe('first corner');
    const [file] = await Promise.all([
      page.waitForEvent('download'),
      table.getByRole('button', { name: 'Save as CSV' }).click(),
    ]);
    expect(file.suggestedFilename()).toBe('SMITH_JOHN_regions_measurements.csv');
    const csv = await readFile(await file.path(), 'utf8');
    expect(csv.split('\r\n')[0]).toMatch(/^label,name,voxels,volume_ml,.*,mean_intensity$/);
    expect(csv).toContain(`"'=1+1, ""middle"""`);
    const rows = parseMeasurementsCsv(csv);
    expect(rows).toHaveLength(105);
    const ml = 8 * voxelMl(affine);
    rows.slice(0, 104).forEach((row, i) => {
      expect([row.value, row.voxels, row.volumeMl]).toEqual([i + 1, 8, ml]);
      expect(row.meanIntensity).toBe(10 * (i + 1) + 0.5);
    });
    expect(rows[104]).toEqual({ value: 999, name: 'nowhere', voxels: 0, volumeMl: 0 });
    await table.getByRole('button', { name: 'Copy the table' }).click();
    await table.getByText('Copied').waitFor();
    const copied = (await page.evaluate(() => navigator.clipboard.readText()))
      .replace(/\n$/, '')
      .split(/\r?\n/);
    expect(copied.map((line) => line.split('\t').filter((_, i) => i !== 1))).toEqual(
      csv
        .trimEnd()
        .split('\r\n')
        .map((line) =>
          line
            .replace(/"(?:[^"]|"")*"/, 'x')
            .split(',')
            .filter((_, i) => i !== 1),
        ),
    );
  });

  it.each([390, 700, 1024])('cuts no digit at a width of %d', async (width) => {
    await resize(width, 844);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    const cut = await page.evaluate(() => {
      const faults: string[] = [];
      for (const cell of document.querySelectorAll<HTMLElement>('.number')) {
        const frame = cell.closest('.table-frame')!.getBoundingClientRect();
        const range = document.createRange();
        range.selectNodeContents(cell);
        for (const { left, right } of range.getClientRects())
          if (left < frame.left || right > frame.right) faults.push(cell.textContent);
      }
      for (const text of document.querySelectorAll('textarea'))
        if (text.scrollWidth > text.clientWidth) faults.push('text');
      return faults;
    });
    expect(cut).toEqual([]);
    // Nothing hidden makes the page longer than its footer.
    const below = await page.evaluate(
      () =>
        document.documentElement.scrollHeight -
        window.scrollY -
        document.querySelector('footer')!.getBoundingClientRect().bottom,
    );
    expect(below).toBeLessThan(2);
    expect(await page.locator('.labels .number').nth(1).textContent()).toBe('12960');
    expect(await page.locator('.measurements td').nth(1).textContent()).toBe('12960');
    await resize(1440, 900);
  });

  it.each(['light', 'dark'] as const)('has no serious faults of accessibility: %s', async (colorScheme) => {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(async () => {
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      const fading = document.getAnimations().filter((animation) => animation instanceof CSSTransition);
      await Promise.allSettled(fading.map(({ finished }) => finished));
    });
    await expectAccessible(page);
    expect(watched.misdeeds).toEqual([]);
  });

  it('leaves one finger to the page until the picture is tapped', async () => {
    const touch = await openPage(browser, site.address, {
      viewport: { width: 390, height: 844 },
      hasTouch: true,
      isMobile: true,
    });
    try {
      const { page } = touch;
      await page.goto(result);
      await viewerReady(page);
      await canvas(page).scrollIntoViewIfNeeded();
      const session = await touch.context.newCDPSession(page);
      const before = await crosshair(page);
      const centre = async (): Promise<[number, number]> => {
        const box = (await canvas(page).boundingBox())!;
        return [box.x + box.width / 2, box.y + box.height / 4];
      };
      const scrolled = () => page.evaluate(() => window.scrollY);
      const top = await scrolled();
      let [x, y] = await centre();
      await swipe(session, [x, y], [x, y - 90]);
      await expect.poll(scrolled).toBeGreaterThan(top + 40);
      expect(await crosshair(page)).toEqual(before);

      [x, y] = await centre();
      await page.touchscreen.tap(x, y);
      await page.locator('.canvas-frame[data-touched=true]').waitFor();
      const still = await scrolled();
      await swipe(session, [x, y], [x + 60, y + 30]);
      await expect.poll(async () => (await crosshair(page))[0]).not.toBe(before[0]);
      expect(await scrolled()).toBe(still);

      await pinch(session, [x, y]);
      await expect.poll(() => drawn(({ niivue }) => niivue.scene.pan2Dxyzmm[3], page)).toBeGreaterThan(1.3);
      expect(await scrolled()).toBe(still);
      await page.touchscreen.tap(10, 5);
      await page.locator('.canvas-frame[data-touched=false]').waitFor();
      expect(touch.misdeeds).toEqual([]);
    } finally {
      await touch.context.close();
    }
  }, 90_000);
});
