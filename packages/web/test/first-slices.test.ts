import { type Affine, applyAffine, type Vec3, type Volume } from '@tomaat/core';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { encode, obliqueAffine } from '../../server/test/phantom.ts';
import { affines, choose, viewerReady } from './support/flows.ts';
import { boxedApp } from './support/site.ts';
import { useStand } from './support/stand.ts';

/* What is seen of a scan before the scene has prepared it: the same picture, which takes the same keys. */

/** Nothing in it is symmetric: it grows brighter along each axis, and has a block in a corner of the middle slices. */
function shaded(size: Vec3, affine: Affine): Volume {
  const [nx, ny, nz] = size;
  const voxels = new Int16Array(nx * ny * nz);
  for (let z = 0, at = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++, at++) {
        const [u, v, w] = [x / nx, y / ny, z / nz];
        const isInside = ((u - 0.46) / 0.4) ** 2 + ((v - 0.53) / 0.38) ** 2 + ((w - 0.5) / 0.45) ** 2 < 1;
        const isInBlock = [u, v, w].filter((share) => share > 0.62).length === 1;
        voxels[at] = isInside ? 200 + 300 * u + 200 * v - 250 * w + (isInBlock ? 300 : 0) : -900;
      }
    }
  }
  return { size, components: 1, affine, voxels };
}

/** Columns of 2, 0.7 and 5 mm along (2, 3, 6)/7, (3, -6, 2)/7 and (-6, -2, 3)/7. */
const turned: Affine = [
  4 / 7,
  0.3,
  -30 / 7,
  10,
  6 / 7,
  -0.6,
  -10 / 7,
  -20,
  12 / 7,
  0.2,
  15 / 7,
  30,
  0,
  0,
  0,
  1,
];
/** The first two axes are as near to R as to A. */
const diagonal: Affine = [1, 1, 0, 4, 1, -1, 0, -9, 0, 0, 2.2, 30, 0, 0, 0, 1];

const scans: readonly [name: string, scan: Volume][] = [
  ['left-handed, of means of eight voxels', shaded([150, 138, 126], affines['left-handed'])],
  ['sagittally acquired', shaded([60, 40, 31], affines['sagittally acquired'])],
  ['oblique, left-handed', shaded([37, 52, 24], obliqueAffine)],
  ['turned about all axes', shaded([30, 44, 21], turned)],
  ['diagonal', shaded([33, 40, 22], diagonal)],
];

interface Seen {
  first?: ImageData;
}
/** Keeps the picture of each first slices, as they were drawn. */
function watchFirst(): void {
  const known = new WeakSet<Element>();
  new MutationObserver(() => {
    const canvas = document.querySelector<HTMLCanvasElement>('.first-slices');
    if (!canvas || known.has(canvas)) return;
    known.add(canvas);
    const { width, height } = canvas;
    (globalThis as Seen).first = canvas.getContext('2d')!.getImageData(0, 0, width, height);
  }).observe(document, { childList: true, subtree: true });
}

/** The parts of the pixels that differ by more than 12 of 255: as they are, and with one of the pictures mirrored. */
const differingPixels = (page: Page) =>
  page.locator('.viewer .canvas-holder canvas').evaluate((element) => {
    const canvas = element as HTMLCanvasElement & { niivue: { drawScene(): void } };
    const { first } = globalThis as Seen;
    const copy = document.createElement('canvas');
    copy.width = canvas.width;
    copy.height = canvas.height;
    const pen = copy.getContext('2d')!;
    canvas.niivue.drawScene();
    pen.drawImage(canvas, 0, 0);
    const { data, width, height } = pen.getImageData(0, 0, canvas.width, canvas.height);
    if (!first || first.width !== width || first.height !== height) throw new Error('of another size');
    const differing = (isMirrored: boolean, isUpsideDown: boolean) => {
      let count = 0;
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const a = 4 * (x + width * y);
          const b = 4 * ((isMirrored ? width - 1 - x : x) + width * (isUpsideDown ? height - 1 - y : y));
          if ([0, 1, 2].some((i) => Math.abs(first.data[a + i] - data[b + i]) > 12)) count++;
        }
      }
      return count / (width * height);
    };
    delete (globalThis as Seen).first;
    return {
      asSeen: differing(false, false),
      mirrored: differing(true, false),
      turned: differing(false, true),
    };
  });

describe.skipIf(findChromium() === undefined)('first slices', () => {
  const stand = useStand([], { appFolders: [boxedApp('threshold')] });

  const open = async (page: Page) => {
    await page.goto(`${stand.site.address}/services/threshold`);
    // The scene is opened ahead: then it is known how finely it draws.
    await page.waitForFunction(() => document.querySelector('.scene-ahead') !== null);
    await page.waitForFunction(() => document.querySelector('.scene-ahead') === null);
  };

  it(
    'are the picture that the scene draws, on grids of any direction',
    () =>
      stand.withPage(async (page) => {
        await page.addInitScript(watchFirst);
        await open(page);
        for (const [name, scan] of scans) {
          await choose(page, `${name}.nii`, await encode(scan, 'nii'));
          await page.waitForFunction(() => (globalThis as Seen).first !== undefined);
          await viewerReady(page);
          const { asSeen, mirrored, turned } = await differingPixels(page);
          // Letters, which are of another font.
          expect(asSeen, name).toBeLessThan(0.005);
          expect(Math.min(mirrored, turned), name).toBeGreaterThan(0.05);
        }
      }),
    90_000,
  );

  it(
    'take clicks, keys and the wheel, which the scene then follows',
    () =>
      stand.withPage(async (page) => {
        await page.addInitScript(holdWorkers);
        await open(page);
        const [[, scan]] = scans;
        const bytes = await encode(scan, 'nii');
        const act = async (canvas: string) => {
          await page.locator(canvas).scrollIntoViewIfNeeded();
          const box = (await page.locator(canvas).boundingBox())!;
          // In the large plane, which is on the left.
          const [x, y] = [box.x + 0.15 * box.width, box.y + 0.4 * box.height];
          await page.mouse.click(x, y);
          for (const key of ['ArrowUp', 'ArrowUp', 'PageUp', 'd']) await page.keyboard.press(key);
          await page.mouse.wheel(0, 100);
        };
        const state = async () => ({
          crosshair: await page
            .locator('.position input')
            .evaluateAll((fields) => fields.map((field) => (field as HTMLInputElement).value)),
          window: await page.locator('.viewer select').inputValue(),
        });
        await choose(page, 'held.nii', bytes);
        await page.locator('.first-slices').waitFor();
        await act('.first-slices');
        await page.evaluate(() => (globalThis as unknown as Holding).release());
        await viewerReady(page);
        await expect.poll(async () => (await state()).window).toBe('');
        const held = await state();
        expect(await page.evaluate(() => document.activeElement?.closest('.canvas-holder') !== null)).toBe(
          true,
        );

        await choose(page, 'shown.nii', bytes);
        await page.locator('.viewer[data-stale=true]').waitFor();
        await viewerReady(page);
        const middle = applyAffine(scan.affine, [74, 68, 62]).map((mm) => mm.toFixed(1));
        const untouched = await state();
        expect(untouched.crosshair.map((mm) => Number(mm).toFixed(1))).toEqual(middle);
        await act('.viewer .canvas-holder canvas');
        await expect.poll(state).toEqual(held);
        expect(held.crosshair.every((mm, i) => mm !== untouched.crosshair[i])).toBe(true);
      }),
    90_000,
  );
});

interface Holding {
  /** Lets the scene be prepared. */
  release(): void;
}
/** What is given to workers waits. */
function holdWorkers(): void {
  const { postMessage } = Worker.prototype;
  const waiting: (() => void)[] = [];
  Worker.prototype.postMessage = function (this: Worker, ...given: unknown[]) {
    waiting.push(() => Reflect.apply(postMessage, this, given));
  };
  Object.assign(globalThis, {
    release() {
      Worker.prototype.postMessage = postMessage;
      for (const give of waiting) give();
    },
  });
}
