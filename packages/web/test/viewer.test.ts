import { applyAffine, type Vec3 } from '@tomaat/core';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { encode, obliqueAffine, phantom } from '../../server/test/phantom.ts';
import { choose, jobPage, previewed, viewerReady } from './support/flows.ts';
import { checkOverlay, distance, pixelsAt } from './support/overlay.ts';
import { boxedApp, mapsApp } from './support/site.ts';
import { useStand } from './support/stand.ts';

/* What the viewer builds and draws: the textures are counted, and large volumes are drawn at half resolution first. */

interface Rebuilds {
  readonly scan: number;
  readonly labels: number;
}
interface Drawn {
  readonly niivue: {
    readonly volumes: readonly { cal_min: number; cal_max: number }[];
    readonly screenSlices: readonly { axCorSag: number }[];
    readonly scene: { pan2Dxyzmm: Iterable<number>; crosshairPos: Iterable<number> };
    mm2frac(mm: Vec3, volume: number, isWorld: boolean): unknown;
    frac2mm(frac: unknown): readonly number[];
  };
}
/** Makes the slices larger around a position, RAS+ mm. */
const magnify = (page: Page, mm: Vec3, factor: number) =>
  page.locator('.viewer canvas').evaluate(
    (canvas, { mm, factor }) => {
      const { niivue } = canvas as unknown as Drawn;
      const drawn = niivue.frac2mm(niivue.mm2frac(mm, 0, true));
      niivue.scene.pan2Dxyzmm = [...[0, 1, 2].map((i) => (1 - factor) * drawn[i]), factor];
    },
    { mm, factor },
  );
const rebuildsOf = (page: Page) =>
  page
    .locator('.viewer canvas')
    .evaluate((canvas) => ({ ...(canvas as unknown as { rebuilds: Rebuilds }).rebuilds }));

describe.skipIf(findChromium() === undefined)('the viewer', () => {
  const stand = useStand([], { appFolders: [boxedApp('threshold'), mapsApp] });

  const predict = async (page: Page, bytes: Uint8Array, service = 'threshold') => {
    await page.goto(`${stand.site.address}/services/${service}`);
    await choose(page, 'phantom.nii', bytes);
    await previewed(page);
    await page.getByRole('button', { name: 'Send and compute' }).click();
    await jobPage(page);
    await viewerReady(page);
  };

  it(
    'starts WebGL before a scan is chosen, and draws it there',
    () =>
      stand.withPage(async (page) => {
        await page.addInitScript(() => {
          const started = new Set<HTMLCanvasElement>();
          const { getContext } = HTMLCanvasElement.prototype;
          Object.assign(globalThis, { started });
          Object.assign(HTMLCanvasElement.prototype, {
            getContext(this: HTMLCanvasElement, ...given: Parameters<typeof getContext>) {
              if (given[0] === 'webgl2') started.add(this);
              return getContext.apply(this, given);
            },
          });
        });
        const started = () => (globalThis as unknown as { started: Set<unknown> }).started.size;
        await page.goto(`${stand.site.address}/services/threshold`);
        await page.waitForFunction(started);
        expect(await page.locator('.viewer').count()).toBe(0);
        const bytes = await encode(phantom(obliqueAffine), 'nii');
        await choose(page, 'phantom.nii', bytes);
        await viewerReady(page);
        expect(await page.evaluate(started)).toBe(1);
        const at = (x: number, y: number, z: number) => pixelsAt(page, applyAffine(obliqueAffine, [x, y, z]));
        for (const pixel of await at(15, 12, 8)) expect(distance(pixel, [255, 255, 255])).toBeLessThan(60);
        for (const pixel of await at(20, 3, 6)) expect(distance(pixel, [0, 0, 0])).toBeLessThan(60);
        // The next one is started where it is shown.
        await page.getByRole('button', { name: 'Remove' }).click();
        await choose(page, 'phantom.nii', bytes);
        await viewerReady(page);
        expect(await page.evaluate(started)).toBe(2);
      }),
    60_000,
  );

  it(
    'builds two textures at opening, and at most one for a change',
    () =>
      stand.withPage(async (page) => {
        await predict(page, await encode(phantom(), 'nii'));
        expect(await rebuildsOf(page)).toEqual({ scan: 1, labels: 1 });
        await page.getByRole('slider', { name: 'Label opacity' }).focus();
        await page.keyboard.press('End');
        await page.getByText('100 %').waitFor();
        expect(await rebuildsOf(page)).toEqual({ scan: 1, labels: 1 });
        await page.getByRole('button', { name: 'Go to the centre of bright' }).click();
        const toggle = page.getByRole('switch', { name: 'Show bright' });
        await toggle.focus();
        await page.keyboard.press('Space');
        await expect.poll(() => rebuildsOf(page)).toEqual({ scan: 1, labels: 2 });
      }),
    90_000,
  );

  it(
    'keeps scan, window, view and crosshair under another label map',
    () =>
      stand.withPage(async (page) => {
        await predict(page, await encode(phantom(), 'nii'), 'maps');
        const dim = applyAffine(obliqueAffine, [5, 4, 3]);
        const brilliant = applyAffine(obliqueAffine, [15, 12, 8]);
        await page.getByRole('slider', { name: 'Label opacity' }).focus();
        await page.keyboard.press('End');
        await page.getByRole('radio', { name: 'Side by side' }).click();
        const level = page.getByLabel('Level as a number');
        await level.fill('300');
        await level.press('Enter');
        await page.locator('.viewer canvas').focus();
        await page.keyboard.press('+');
        await page.keyboard.press('ArrowUp');
        const look = () =>
          page.locator('.viewer').evaluate((viewer) => {
            const { niivue } = viewer.querySelector<HTMLCanvasElement>('canvas')! as unknown as Drawn;
            return {
              window: [niivue.volumes[0].cal_min, niivue.volumes[0].cal_max],
              view: niivue.screenSlices.map(({ axCorSag }) => axCorSag),
              zoom: [...niivue.scene.pan2Dxyzmm],
              slices: [...niivue.scene.crosshairPos],
              crosshair: [...viewer.querySelectorAll<HTMLInputElement>('.position input')].map(
                ({ value }) => value,
              ),
            };
          });
        const before = await look();
        expect(before.zoom[3]).toBeGreaterThan(1);
        const scans = (await rebuildsOf(page)).scan;
        // The answer comes when the first map has been chosen again.
        const answers: (() => Promise<void>)[] = [];
        await page.route('**/outputs/brightest*', (route) => void answers.push(() => route.continue()));
        const choice = page.getByLabel('Label map');
        await choice.selectOption('Brightest');
        await expect.poll(() => answers.length).toBe(1);
        await choice.selectOption('Bright');
        await viewerReady(page);
        // A request that was given up has no answer any longer.
        await answers[0]().catch(() => undefined);
        await page.unroute('**/outputs/brightest*');
        const drawn = async (mm: Vec3) => {
          const [pixel] = await pixelsAt(page, mm);
          await page.locator('.viewer canvas').evaluate((canvas, slices) => {
            (canvas as unknown as Drawn).niivue.scene.crosshairPos = slices;
          }, before.slices);
          return [
            [255, 32, 32],
            [32, 255, 32],
          ].map((color) => distance(pixel, color) < 16);
        };
        const isFirst = async () => [await drawn(dim), await drawn(brilliant)];
        await expect.poll(isFirst).toEqual([
          [true, false],
          [true, false],
        ]);
        await page.getByRole('switch', { name: 'Show bright', exact: true }).waitFor();

        await choice.selectOption('Brightest');
        await expect.poll(isFirst).toEqual([
          [false, false],
          [false, true],
        ]);
        expect(await look()).toEqual(before);
        expect((await rebuildsOf(page)).scan).toBe(scans);
      }),
    90_000,
  );

  it(
    'draws a large volume at half resolution in its place, then every voxel',
    () =>
      stand.withPage(async (page) => {
        const size = [150, 138, 126] as const;
        const volume = phantom(obliqueAffine, size);
        const [nx, ny] = size;
        // Large enough for points well inside.
        for (let z = 20; z < 60; z++)
          for (let y = 70; y < 100; y++)
            volume.voxels.fill(700 as never, 30 + nx * (y + ny * z), 60 + nx * (y + ny * z));
        const at = ([x, y, z]: Vec3) => x + nx * (y + ny * z);
        const single: Vec3 = [101, 34, 87];
        const four: readonly Vec3[] = [
          [120, 61, 99],
          [121, 61, 99],
          [120, 62, 99],
          [121, 62, 99],
        ];
        for (const voxel of [single, ...four]) volume.voxels[at(voxel)] = 700;
        await predict(page, await encode(volume, 'nii'));
        const full = page.getByRole('button', { name: 'Full resolution' });
        await page.getByText('Shown at half resolution').waitFor();
        const inside = applyAffine(obliqueAffine, [45, 85, 40]);
        const outside = applyAffine(obliqueAffine, [65, 85, 40]);
        const drawn = async () => [await pixelsAt(page, inside), await pixelsAt(page, outside)];
        await checkOverlay(page, stand.site, [242, 193, 78], obliqueAffine);
        const coarse = await drawn();
        /** Magnified, so that a voxel is some pixels in each plane. */
        const isLabel = async (voxel: Vec3) => {
          const mm = applyAffine(obliqueAffine, voxel);
          await magnify(page, mm, 6);
          const pixels = await pixelsAt(page, mm);
          await magnify(page, mm, 1);
          return pixels.map((pixel) => distance(pixel, [242, 193, 78]) < 16);
        };
        const expectLabels = async (there: readonly Vec3[], none: readonly Vec3[]) => {
          for (const voxel of there) expect(await isLabel(voxel), `at ${voxel}`).toEqual([true, true, true]);
          for (const voxel of none)
            expect(await isLabel(voxel), `at ${voxel}`).toEqual([false, false, false]);
        };
        const small = [single, four[0], four[3]];
        // Mirrored along an axis.
        await expectLabels(small, [
          [nx - 1 - 101, 34, 87],
          [101, ny - 1 - 34, 87],
          [101, 34, 125 - 87],
        ]);
        await full.click();
        await full.waitFor({ state: 'detached' });
        await checkOverlay(page, stand.site, [242, 193, 78], obliqueAffine);
        expect(await drawn()).toEqual(coarse);
        await expectLabels(small, [
          [100, 34, 87],
          [101, 34, 86],
          [122, 61, 99],
        ]);
      }),
    120_000,
  );
});
