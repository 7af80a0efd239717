import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { applyAffine, readVolume, type Vec3 } from '@tomaat/core';
import type { Page } from 'playwright-core';
import { describe, expect, it } from 'vitest';
import { findChromium } from '../../../test/programs.ts';
import { dataFolder } from '../../../test/real-data.ts';
import { nodePlatform } from '../../server/src/node-platform.ts';
import { choose, jobPage, source, viewerReady } from './support/flows.ts';
import { drop } from './support/gestures.ts';
import { canvasPosition, distance, pixelsAt } from './support/overlay.ts';
import { boxedApp } from './support/site.ts';
import { useStand } from './support/stand.ts';

/* Real heads in the viewer: what is drawn, named and lettered where, left and right. */

/** In the middle of each cerebellar hemisphere of the sample, RAS+ mm, and the colours of the labels in the manifest. */
const cerebellum: readonly { name: string; at: Vec3; color: Vec3 }[] = [
  { name: 'left cerebellum', at: [-15.6, -42.4, -11.9], color: [0x6d, 0x78, 0xc4] },
  { name: 'right cerebellum', at: [19.8, -50.1, -12.2], color: [0x9a, 0xa3, 0xe0] },
];
const data = dataFolder();

interface Canvas extends HTMLCanvasElement {
  niivue: {
    drawText(at: readonly number[], text: string, ...more: unknown[]): void;
    drawScene(): void;
    screenSlices: { leftTopWidthHeight: number[]; axCorSag: number }[];
    volumes: { cal_min: number; cal_max: number }[];
    gl: WebGL2RenderingContext;
  };
}

/** The letters of each plane, by the side they stand at. */
const letters = (page: Page) =>
  page.locator('.viewer canvas').evaluate((element) => {
    const { niivue } = element as Canvas;
    const drawn: { at: readonly number[]; text: string }[] = [];
    const draw = niivue.drawText;
    niivue.drawText = (at, text, ...more) => {
      drawn.push({ at, text });
      draw.call(niivue, at, text, ...more);
    };
    niivue.drawScene();
    niivue.drawText = draw;
    return niivue.screenSlices.map(({ leftTopWidthHeight: [x, y, w, h] }) => {
      const left = Math.min(x, x + w);
      const inside = drawn.filter(
        ({ at: [tx, ty] }) => tx > left - 40 && tx < left + Math.abs(w) && ty > y - 40 && ty < y + h,
      );
      return Object.fromEntries(
        inside.map(({ at: [tx, ty], text }) => [
          Math.abs(ty - y) < h / 4 && Math.abs(tx - left - Math.abs(w) / 2) < Math.abs(w) / 4
            ? 'top'
            : tx < left + Math.abs(w) / 2
              ? 'left'
              : 'right',
          text,
        ]),
      );
    });
  });

/** The mean place of the pixels of a colour in the axial plane, from the left and the top of the canvas. */
const meanPlace = (page: Page, color: Vec3) =>
  page.locator('.viewer canvas').evaluate((element, color) => {
    const { niivue, width, height } = element as Canvas;
    niivue.drawScene();
    const pixels = new Uint8Array(4 * width * height);
    niivue.gl.readPixels(0, 0, width, height, niivue.gl.RGBA, niivue.gl.UNSIGNED_BYTE, pixels);
    const [x, y, w, h] = niivue.screenSlices.find(({ axCorSag }) => axCorSag === 0)!.leftTopWidthHeight;
    let [count, sumX, sumY] = [0, 0, 0];
    for (let row = Math.ceil(y); row < y + h; row++) {
      for (let column = Math.ceil(Math.min(x, x + w)); column < Math.max(x, x + w); column++) {
        const at = 4 * (column + width * (height - 1 - row));
        if (color.some((v, i) => Math.abs(v - pixels[at + i]) > 3)) continue;
        count++;
        sumX += column;
        sumY += row;
      }
    }
    return { count, x: sumX / count, y: sumY / count };
  }, color);

async function goTo(page: Page, mm: Vec3): Promise<void> {
  for (const [i, axis] of ['right', 'anterior', 'superior'].entries()) {
    await page.getByLabel(`Crosshair ${axis}, mm`).fill(String(mm[i]));
    await page.keyboard.press('Enter');
  }
}

describe.skipIf(findChromium() === undefined)('real heads in the viewer', () => {
  const stand = useStand([], { appFolders: [boxedApp('brain')] });

  // Half a minute of software drawing: TOMAAT_SLOW=1 runs it.
  it.skipIf(!process.env.TOMAAT_SLOW)(
    'names and draws the left and right of a brain on their sides',
    () =>
      stand.withPage(async (page) => {
        await page.setViewportSize({ width: 1440, height: 900 });
        await page.goto(`${stand.site.address}/services/brain`);
        await choose(page, 'head.nii.gz', await readFile(join(boxedApp('brain'), 'sample.nii.gz')));
        await page.getByRole('button', { name: 'Send and compute' }).click();
        await jobPage(page);
        await page.getByText(/^Done in/).waitFor({ timeout: 100_000 });
        await viewerReady(page);
        expect(await letters(page)).toEqual([
          { left: 'R', top: 'A' },
          { left: 'R', top: 'S' },
          { left: expect.stringMatching(/^[AP]$/), top: 'S' },
        ]);
        await page.getByRole('slider', { name: 'Label opacity' }).focus();
        await page.keyboard.press('End');
        await page.getByText('100 %').waitFor();
        const hover = page.getByTestId('hover');
        for (const { name, at, color } of cerebellum) {
          await goTo(page, at);
          await expect.poll(() => page.getByTestId('label').textContent()).toBe(name);
          const box = (await page.locator('.viewer canvas').boundingBox())!;
          const [x, y] = await canvasPosition(page, at, 0);
          await page.mouse.move(box.x + x, box.y + y);
          await expect.poll(() => hover.locator('strong').textContent()).toBe(name);
          for (const pixel of await pixelsAt(page, at)) expect(distance(pixel, color)).toBeLessThan(4);
        }
        // Radiological: the patient's left is on the right; the cerebellum lies behind.
        const [left, right] = [
          await meanPlace(page, cerebellum[0].color),
          await meanPlace(page, cerebellum[1].color),
        ];
        expect(Math.min(left.count, right.count)).toBeGreaterThan(200);
        expect(left.x).toBeGreaterThan(right.x + 20);
      }),
    120_000,
  );

  it.skipIf(data === undefined)(
    'draws a DICOM series where dcm2niix places its voxels',
    () =>
      stand.withPage(async (page) => {
        await page.setViewportSize({ width: 1440, height: 900 });
        const file = await readFile(join(data!, 'dicom/head_t1_enhanced_truth.nii.gz'));
        const { volume } = await readVolume([source('truth.nii.gz', file)], nodePlatform);
        const [nx, ny, nz] = volume.size;
        const valueAt = ([x, y, z]: Vec3) => Number(volume.voxels[x + nx * (y + ny * z)]);
        await page.goto(`${stand.site.address}/services/brain`);
        await drop(page, join(data!, 'dicom/head_t1_enhanced'));
        await viewerReady(page);
        const [low, high] = await page.locator('.viewer canvas').evaluate((element) => {
          const { cal_min, cal_max } = (element as Canvas).niivue.volumes[0];
          return [cal_min, cal_max];
        });
        const grey = (value: number) => 255 * Math.min(1, Math.max(0, (value - low) / (high - low)));
        const even: Vec3[] = [];
        for (let z = 2; z < nz - 2; z += 3) {
          for (let y = 2; y < ny - 2; y += 3) {
            for (let x = 2; x < nx - 2; x += 3) {
              const around = [-1, 0, 1].flatMap(
                (i) =>
                  [
                    [x + i, y, z],
                    [x, y + i, z],
                    [x, y, z + i],
                  ] as Vec3[],
              );
              const greys = around.map((voxel) => grey(valueAt(voxel)));
              const isEven = Math.max(...greys) - Math.min(...greys) < 8;
              // Elsewhere, if any axis were reversed.
              const mirrored = [
                [nx - 1 - x, y, z],
                [x, ny - 1 - y, z],
                [x, y, nz - 1 - z],
              ] as Vec3[];
              const others = mirrored.map((voxel) =>
                Math.abs(grey(valueAt(voxel)) - grey(valueAt([x, y, z]))),
              );
              if (isEven && Math.min(...others) > 60) even.push([x, y, z]);
            }
          }
        }
        expect(even.length).toBeGreaterThan(4);
        for (const voxel of [0.1, 0.4, 0.6, 0.9].map((part) => even[Math.floor(part * even.length)])) {
          const mm = applyAffine(volume.affine, voxel);
          for (const [red] of await pixelsAt(page, mm))
            expect(Math.abs(red - grey(valueAt(voxel))), `at ${voxel}`).toBeLessThan(16);
          await goTo(page, mm.map((v) => Number(v.toFixed(2))) as unknown as Vec3);
          await expect.poll(() => page.getByTestId('value').textContent()).toBe(String(valueAt(voxel)));
        }
        // Enter in a field of the preview has not sent the form around it.
        expect(new URL(page.url()).pathname).toBe('/services/brain');
      }),
    120_000,
  );
});
