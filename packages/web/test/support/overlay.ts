import { type Affine, applyAffine, invert, type Vec3, type Volume } from '@tomaat/core';
import type { Page } from 'playwright-core';
import { expect } from 'vitest';
import { resultOf } from './flows.ts';
import type { Site } from './site.ts';

/* What the viewer draws where, held against label maps of the server. */

export const distance = (a: readonly number[], b: readonly number[]) =>
  Math.max(...[0, 1, 2].map((i) => Math.abs(a[i] - b[i])));

interface Canvas extends HTMLCanvasElement {
  niivue: {
    scene: { crosshairPos: unknown };
    opts: { crosshairWidth: number };
    mm2frac(mm: readonly number[], volume: number, world: boolean): unknown;
    frac2canvasPosWithTile(frac: unknown, plane: number): { pos: number[] } | null;
    drawScene(): void;
    gl: WebGL2RenderingContext;
    uiData: { dpr: number };
  };
}

/** Moves the slices through a world point and gives the colours that are drawn for it: axial, coronal, sagittal. */
export async function pixelsAt(page: Page, mm: Vec3): Promise<number[][]> {
  return page.locator('.viewer canvas').evaluate((element, mm) => {
    const canvas = element as Canvas;
    const { niivue } = canvas;
    const frac = niivue.mm2frac(mm, 0, true);
    niivue.scene.crosshairPos = frac;
    niivue.opts.crosshairWidth = 0;
    niivue.drawScene();
    return [0, 1, 2].map((plane) => {
      const found = niivue.frac2canvasPosWithTile(frac, plane);
      if (!found) throw new Error(`plane ${plane} does not show ${mm}`);
      const pixel = new Uint8Array(4);
      const { gl } = niivue;
      gl.readPixels(
        Math.floor(found.pos[0]),
        canvas.height - 1 - Math.floor(found.pos[1]),
        1,
        1,
        gl.RGBA,
        gl.UNSIGNED_BYTE,
        pixel,
      );
      return [...pixel.subarray(0, 3)];
    });
  }, mm);
}

/** Where a world point is drawn in a plane, in CSS pixels of the canvas; the slices go through it. */
export async function canvasPosition(page: Page, mm: Vec3, plane: number): Promise<[number, number]> {
  return page.locator('.viewer canvas').evaluate(
    (element, { mm, plane }) => {
      const canvas = element as Canvas;
      const { niivue } = canvas;
      const frac = niivue.mm2frac(mm, 0, true);
      niivue.scene.crosshairPos = frac;
      niivue.drawScene();
      const { pos } = niivue.frac2canvasPosWithTile(frac, plane)!;
      return [(pos[0] * canvas.clientWidth) / canvas.width, (pos[1] * canvas.clientHeight) / canvas.height];
    },
    { mm, plane },
  );
}

/** The titles of slices that reach beyond their planes. */
export const cutTitles = (page: Page) =>
  page.locator('.overlay [data-plane]').evaluateAll((planes) =>
    planes
      .filter((plane) => {
        const { x, width } = plane.querySelector<SVGRectElement>('clipPath rect')!;
        const title = plane.querySelector<SVGTextElement>('.slice-title')!.getBBox();
        return title.x + title.width > x.baseVal.value + width.baseVal.value;
      })
      .map((plane) => plane.textContent),
  );

/** Compares the drawing with the server's mask at points well inside the label and well outside. */
export async function checkOverlay(
  page: Page,
  site: Site,
  color: readonly number[],
  affine?: Affine,
): Promise<void> {
  const [, labelMap] = await resultOf(site, page);
  for (const [i, value] of (affine ?? []).entries()) expect(labelMap.affine[i]).toBeCloseTo(value, 4);
  await page.getByRole('slider', { name: 'Label opacity' }).focus();
  await page.keyboard.press('End');
  await page.waitForTimeout(300);
  const inside = pick(labelMap, 1, 6);
  const outside = pick(labelMap, 0, 8);
  expect(inside.length).toBeGreaterThan(2);
  expect(outside.length).toBeGreaterThan(5);
  const planes = ['axial', 'coronal', 'sagittal'];
  for (const mm of inside) {
    const drawn = await pixelsAt(page, mm);
    for (const [i, plane] of planes.entries())
      expect(distance(drawn[i], color), `label at ${mm}, ${plane}: ${drawn[i]}`).toBeLessThan(16);
  }
  for (const mm of outside) {
    const drawn = await pixelsAt(page, mm);
    for (const [i, plane] of planes.entries())
      expect(distance(drawn[i], color), `background at ${mm}, ${plane}: ${drawn[i]}`).toBeGreaterThan(50);
  }
  const back = applyAffine(invert(labelMap.affine), inside[0]).map(Math.round);
  expect(labelMap.voxels[back[0] + labelMap.size[0] * (back[1] + labelMap.size[1] * back[2])]).toBe(1);
}

/** World positions of voxels whose neighbours all have the same value, spread over the volume. */
function pick({ voxels, size: [nx, ny, nz], affine }: Volume, value: number, count: number): Vec3[] {
  const found: Vec3[] = [];
  for (let z = 1; z < nz - 1; z++) {
    for (let y = 1; y < ny - 1; y++) {
      for (let x = 1; x < nx - 1; x++) {
        let same = true;
        for (let d = 0; d < 27 && same; d++) {
          const at =
            x + (d % 3) - 1 + nx * (y + (Math.floor(d / 3) % 3) - 1 + ny * (z + Math.floor(d / 9) - 1));
          same = Number(voxels[at]) === value;
        }
        if (same) found.push(applyAffine(affine, [x, y, z]));
      }
    }
  }
  const step = Math.max(1, Math.floor(found.length / count));
  return found.filter((_, i) => i % step === Math.floor(step / 2)).slice(0, count);
}
