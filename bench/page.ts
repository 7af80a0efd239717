/**
 * The viewer in Chromium without a graphics card: a result is opened in the page as users open it, and looked at. All
 * times are counted from the moment when the last of the voxels (of the scan; of a result also those of its label map)
 * was read. The first slice: the slices through the middle of the scan are seen, which are the only thing that the page
 * has computed then; `first-slices.test.ts` holds them against those of the scene. The scene: all planes and positions
 * can be shown, in textures, up to pixels that can be read; and the labels over it. The volumes are generated: a head of
 * 256 × 256 × 176 voxels (int16), and a body of 512 × 512 × 400 (210 MB).
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { collectBytes, type Volume, writeVolume } from '@tomaat/core';
import { chromium, type Page } from 'playwright-core';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { readMark } from '../packages/web/src/form/scan.ts';
import { jobPage, viewerReady } from '../packages/web/test/support/flows.ts';
import {
  boxedApp,
  buildPage,
  openPage,
  openSite,
  softwareDrawing,
} from '../packages/web/test/support/site.ts';
import { findChromium } from '../test/programs.ts';
import { cpuSeconds, peakMemoryMb } from './processes.ts';
import { type BenchOptions, type BenchResult, type Line, median } from './report.ts';

interface Case {
  readonly name: string;
  readonly size: readonly [number, number, number];
  readonly spacingMm: readonly [number, number, number];
  readonly rounds: number;
  readonly maxMemoryMb?: number;
}

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const executablePath = findChromium();
  if (executablePath === undefined) return { skipped: 'Chromium is not there' };
  const cases: readonly Case[] = [
    { name: 'head', size: [256, 256, 176], spacingMm: [0.9, 0.9, 1.1], rounds: quick ? 1 : 5 },
    {
      name: 'body',
      size: quick ? [256, 256, 200] : [512, 512, 400],
      spacingMm: [0.75, 0.75, 1.25],
      rounds: quick ? 1 : 3,
      maxMemoryMb: 1500,
    },
  ];
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  const pageFolder = await buildPage();
  try {
    const site = await openSite(pageFolder, { appFolders: [boxedApp('threshold')] });
    try {
      const lines: Line[] = [];
      for (const one of cases) {
        const file = join(folder, `${one.name}.nii`);
        await writeFile(file, await collectBytes(writeVolume(blocks(one), 'nii', nodePlatform)));
        lines.push(...(await measureCase(one, file, site.address, executablePath)));
        await rm(file);
      }
      return { lines };
    } finally {
      await site.stop();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
    await rm(pageFolder, { recursive: true, force: true });
  }
}

/** Left-handed; a body with two bright parts, one of a single voxel, in air. */
function blocks({ size, spacingMm }: Case): Volume {
  const [nx, ny, nz] = size;
  const [dx, dy, dz] = spacingMm;
  const voxels = new Int16Array(nx * ny * nz).fill(-1000);
  for (let z = 0; z < nz; z++) {
    for (let y = ny >> 3; y < (ny * 7) >> 3; y++) {
      const row = nx * (y + ny * z);
      for (let x = nx >> 3; x < (nx * 7) >> 3; x++) voxels[row + x] = 40 + ((x * 7 + y * 3 + z) % 50);
      if (z > nz >> 2 && z < nz >> 1 && y > ny >> 1 && y < (ny * 3) >> 2)
        voxels.fill(900, row + (nx >> 2), row + (nx >> 1));
    }
  }
  voxels[(nx * 5) >> 3] = 900;
  return { size, components: 1, affine: [-dx, 0, 0, 60, 0, dy, 0, -90, 0, 0, dz, 12, 0, 0, 0, 1], voxels };
}

/** What is done by key, and the target for the time until it is drawn. */
const changes = [
  { name: 'a slice further', keys: ['ArrowUp', 'ArrowUp', 'ArrowDown', 'ArrowUp'], targetMs: 100 },
  { name: 'opacity', slider: 'Label opacity', keys: ['End', 'Home', 'End'], targetMs: 100 },
  { name: 'window', slider: 'Level', keys: ['PageUp', 'PageUp', 'PageDown'], targetMs: undefined },
  { name: 'a label hidden or shown', toggle: 'Show bright', keys: ['Space', 'Space'], targetMs: undefined },
] as const;

async function measureCase(
  { name, rounds, maxMemoryMb }: Case,
  file: string,
  address: string,
  executablePath: string,
): Promise<Line[]> {
  const times = new Map<string, number[]>();
  const note = (what: string, ...values: readonly number[]) =>
    times.set(what, [...(times.get(what) ?? []), ...values]);
  let [builtAtOpening, builtByOneChange] = [0, 0];
  for (let round = 0; round < rounds; round++) {
    const server = await chromium.launchServer({ executablePath, args: [...softwareDrawing] });
    const pid = server.process().pid!;
    const browser = await chromium.connect(server.wsEndpoint());
    try {
      const { page } = await openPage(browser, address, { viewport: { width: 1440, height: 900 } });
      await page.addInitScript(watchViewers, readMark);
      await page.goto(`${address}/services/threshold`);
      // As long as a person takes at least to choose a file.
      await page.waitForTimeout(3000);
      await page.locator('.volume-field input[type=file]').first().setInputFiles(file);
      const preview = await seenOf(page, 0);
      note('preview', preview.firstSliceMs);
      note('preview scene', preview.sceneMs);
      await page.getByRole('button', { name: 'Send and compute' }).click({ timeout: 120_000 });
      await jobPage(page);
      await page.getByText(/^Done in/).waitFor({ timeout: 300_000 });
      await viewerReady(page, 120_000);
      const { firstSliceMs, sceneMs, labelsMs } = await seenOf(page, 1);
      note('result', firstSliceMs);
      note('result scene', sceneMs);
      note('labels', labelsMs!);
      builtAtOpening = Math.max(builtAtOpening, await built(page));
      for (const change of changes) {
        const before = await built(page);
        if ('slider' in change) await page.getByRole('slider', { name: change.slider }).focus();
        else if ('toggle' in change) await page.getByRole('switch', { name: change.toggle }).focus();
        else await page.locator(sceneCanvas).focus();
        for (const key of change.keys) note(change.name, await pressAndDraw(page, key));
        const each = ((await built(page)) - before) / change.keys.length;
        if (change.name !== 'window') builtByOneChange = Math.max(builtByOneChange, each);
      }
      const memoryMb = peakMemoryMb(pid);
      if (memoryMb !== undefined) note('memory', memoryMb);
      console.log(
        `${name}: preview ${preview.firstSliceMs.toFixed(0)} ms, all of it ${preview.sceneMs.toFixed(0)} ms; ` +
          `result ${firstSliceMs.toFixed(0)} ms, all of it ${sceneMs.toFixed(0)} ms, ` +
          `labels ${labelsMs!.toFixed(0)} ms; ${cpuSeconds(pid)} s of CPU, ${memoryMb?.toFixed(0)} MB`,
      );
    } finally {
      await browser.close();
      await server.close();
    }
  }
  const of = (what: string) => median(times.get(what)!);
  return [
    { point: `page, ${name}: first slice of a preview`, measured: of('preview'), target: 300, unit: 'ms' },
    { point: `page, ${name}: first slice of a result`, measured: of('result'), target: 300, unit: 'ms' },
    { point: `page, ${name}: scene of a preview`, measured: of('preview scene'), unit: 'ms' },
    { point: `page, ${name}: scene of a result`, measured: of('result scene'), unit: 'ms' },
    { point: `page, ${name}: its labels`, measured: of('labels'), unit: 'ms' },
    ...changes.map(({ name: what, targetMs }) => ({
      point: `page, ${name}: ${what}`,
      measured: of(what),
      target: targetMs,
      unit: 'ms',
    })),
    { point: `page, ${name}: textures built at opening`, measured: builtAtOpening, target: 2 },
    { point: `page, ${name}: textures built for a change`, measured: builtByOneChange, target: 1 },
    ...(times.has('memory')
      ? [
          {
            point: `page, ${name}: peak memory of a process`,
            measured: Math.max(...times.get('memory')!),
            target: maxMemoryMb,
            unit: 'MB',
          },
        ]
      : []),
  ];
}

// ---- In the page ----

interface Seen {
  /** Its voxels were read. */
  givenAt?: number;
  firstSliceMs?: number;
  sceneMs?: number;
  labelsMs?: number;
}
interface Canvas extends HTMLCanvasElement {
  rebuilds?: { scan: number; labels: number };
  niivue: { gl: WebGL2RenderingContext; drawScene(): unknown };
}
interface Watching {
  seen: Seen[];
  drawnMs: Promise<number>;
}

const sceneCanvas = '.viewer .canvas-holder canvas';

/** Notes when the scan of each viewer was there, and when its slices, its scene and its labels were first seen. */
function watchViewers(mark: string): void {
  const seen: Seen[] = [];
  const known = new WeakMap<Element, Seen>();
  const wait = (viewer: Element, of: Seen) => {
    const canvas = viewer.querySelector<Canvas>('.canvas-holder canvas');
    const { scan = 0, labels = 0 } = canvas?.rebuilds ?? {};
    const isNew = (scan > 0 && of.sceneMs === undefined) || (labels > 0 && of.labelsMs === undefined);
    if (canvas && isNew && of.givenAt !== undefined) {
      const { gl } = canvas.niivue;
      // Returns when all that was asked for before is drawn.
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
      const ms = performance.now() - of.givenAt;
      if (scan > 0) of.sceneMs ??= ms;
      if (labels > 0) of.labelsMs ??= ms;
      of.firstSliceMs ??= ms;
    }
    if (viewer.isConnected && of.labelsMs === undefined) requestAnimationFrame(() => wait(viewer, of));
  };
  new MutationObserver(() => {
    for (const viewer of document.querySelectorAll('.viewer')) {
      let of = known.get(viewer);
      if (!of) {
        of = {};
        known.set(viewer, of);
        seen.push(of);
        wait(viewer, of);
      }
      const { givenAt } = of;
      if (givenAt !== undefined || !viewer.matches('[data-stale=true]')) continue;
      const found = of;
      found.givenAt = performance.getEntriesByName(mark).at(-1)!.startTime;
      // The first task after the frame with them.
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        found.firstSliceMs ??= performance.now() - found.givenAt!;
      };
      if (viewer.querySelector('.first-slices')) requestAnimationFrame(() => port2.postMessage(undefined));
    }
  }).observe(document, {
    childList: true,
    subtree: true,
    attributes: true,
    attributeFilter: ['data-stale'],
  });
  Object.assign(globalThis, { seen });
}

/** Of the viewers since the page was loaded, that with the index: a preview, then its result. */
async function seenOf(page: Page, index: number) {
  const found = await page.waitForFunction(
    (index) => {
      const one = (globalThis as unknown as Watching).seen[index];
      const isDone = one?.sceneMs !== undefined && (index === 0 || one.labelsMs !== undefined);
      return isDone ? one : undefined;
    },
    index,
    { timeout: 120_000 },
  );
  return (await found.jsonValue()) as { firstSliceMs: number; sceneMs: number; labelsMs?: number };
}

const built = (page: Page) =>
  page.locator(sceneCanvas).evaluate((element) => {
    const { scan, labels } = (element as Canvas).rebuilds!;
    return scan + labels;
  });

/** From the key to the pixels, ms. */
async function pressAndDraw(page: Page, key: string): Promise<number> {
  await page.locator(sceneCanvas).evaluate((element) => {
    const { niivue } = element as Canvas;
    const draw = niivue.drawScene;
    let pressedAt: number | undefined;
    addEventListener('keydown', ({ timeStamp }) => (pressedAt = timeStamp), { capture: true, once: true });
    const drawnMs = new Promise<number>((resolve) => {
      niivue.drawScene = () => {
        const drawn = draw.call(niivue);
        if (pressedAt !== undefined) {
          const { gl } = niivue;
          gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
          resolve(performance.now() - pressedAt);
          niivue.drawScene = draw;
        }
        return drawn;
      };
    });
    Object.assign(globalThis, { drawnMs });
  });
  await page.keyboard.press(key);
  return page.evaluate(() => (globalThis as unknown as Watching).drawnMs);
}
