import { existsSync, readFileSync, statSync } from 'node:fs';
import { createServer, request as forward } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize } from 'node:path';
import type { Browser, Page } from 'playwright-core';

/* OHIF as a program: its pages, and what a user does in its panel for MONAI Label. */

const types: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.wasm': 'application/wasm',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
};

export interface Pages extends Disposable {
  readonly origin: string;
}

/** Serves OHIF's pages below `/ohif/`, and the archive's DICOMweb beside them, as a proxy in front of both does. */
export async function servePages(folder: string | undefined, archive: () => string): Promise<Pages> {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url!, 'http://x');
    if (pathname.startsWith('/dicom-web/')) {
      const { host, hostname, port } = new URL(archive());
      const headers = { ...request.headers, host };
      const { method, url: path } = request;
      const asked = forward({ host: hostname, port, path, method, headers }, (answer) => {
        response.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(response);
      });
      asked.on('error', () => response.destroy());
      request.pipe(asked);
      return;
    }
    const wanted = join(folder ?? '', normalize(pathname.replace(/^\/ohif/, '')));
    const file = existsSync(wanted) && statSync(wanted).isFile() ? wanted : join(folder ?? '', 'index.html');
    let body = readFileSync(file);
    if (file.endsWith('app-config.js'))
      body = Buffer.from(body.toString().replaceAll(/\/proxy\/dicom\/(?:wado|qido)/g, '/dicom-web'));
    response.writeHead(200, { 'content-type': types[extname(file)] ?? 'application/octet-stream' }).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.dispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A browser that draws without a graphics card: WebGL in software, all else without it. */
export async function launchViewer(executablePath: string): Promise<Browser> {
  const { chromium } = await import('playwright-core');
  const webgl = ['--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'];
  const rest = ['--disable-gpu-rasterization', '--disable-gpu-compositing'];
  const args = ['--no-sandbox', '--ignore-gpu-blocklist', ...webgl, ...rest];
  return chromium.launch({ executablePath, args });
}

/** What OHIF holds: the labels by their numbers, and for each slice its voxels and the place of its image (LPS, mm). */
export interface Shown {
  readonly dimensions: readonly [number, number, number];
  readonly segments: Readonly<Record<number, string>>;
  /** In base64, x fastest, slices in OHIF's order. */
  readonly voxels: string;
  readonly images: readonly {
    readonly columns: number;
    readonly rows: number;
    readonly imagePositionPatient: [number, number, number];
    readonly imageOrientationPatient: number[];
    readonly pixelSpacing: [number, number];
  }[];
}

const patientMs = 120_000;

/** Opens a series of a study, connects the panel to a server, runs a model on the series that is shown, and reads the labels off OHIF. */
export async function segmentInOhif(
  browser: Browser,
  { origin, study, series, server }: { origin: string; study: string; series: string; server: string },
): Promise<Shown> {
  const page = await browser.newPage({ viewport: { width: 1200, height: 800 } });
  try {
    // Fonts of elsewhere.
    await page.route(
      (url) => url.hostname !== '127.0.0.1',
      (route) => route.abort(),
    );
    await page.goto(`${origin}/ohif/monai-label?StudyInstanceUIDs=${study}&SeriesInstanceUIDs=${series}`);
    await untilTrue(page, () =>
      (globalThis as unknown as Viewer).cornerstone
        ?.getRenderingEngines()
        ?.some((engine) =>
          engine.getViewports().some((viewport) => (viewport.getImageIds?.() ?? []).length > 0),
        ),
    );
    const panel = page.locator('.monaiLabelPanel');
    await panel.locator('#monailabelServerURL').fill(server);
    await panel.locator('.settingsTable button').click();
    await untilTrue(page, () =>
      Boolean((globalThis as unknown as Viewer).services.segmentationService.getLabelmapVolume('1')),
    );
    await panel.locator('button[title="Run Segmentation"]').first().click({ timeout: patientMs });
    await untilTrue(page, () =>
      (globalThis as unknown as Viewer).services.segmentationService
        .getLabelmapVolume('1')
        ?.voxelManager.getCompleteScalarDataArray()
        .some((value) => value !== 0),
    );
    return await page.evaluate(readLabels);
  } finally {
    await page.close();
  }
}

/** Waits; before the study is open there is nothing to ask. */
const untilTrue = (page: Page, check: () => boolean | undefined) =>
  page.waitForFunction(
    // In the page, where nothing of this module is.
    `(() => { try { return (${check.toString()})(); } catch { return false; } })()`,
    undefined,
    { timeout: patientMs, polling: 200 },
  );

/** Runs in the page. */
function readLabels(): Shown {
  const { cornerstone, services } = globalThis as unknown as Viewer;
  const [segmentation] = services.segmentationService.getSegmentations();
  const volume = services.segmentationService.getLabelmapVolume('1')!;
  const voxels = Uint8Array.from(volume.voxelManager.getCompleteScalarDataArray());
  let text = '';
  for (let i = 0; i < voxels.length; i += 4096) text += String.fromCharCode(...voxels.subarray(i, i + 4096));
  return {
    dimensions: volume.dimensions,
    segments: Object.fromEntries(
      Object.values(segmentation.segments).flatMap((one) => (one ? [[one.segmentIndex, one.label]] : [])),
    ),
    voxels: btoa(text),
    images: volume.imageIds.map((id) => {
      const plane = cornerstone!.metaData.get('imagePlaneModule', id) as Shown['images'][number];
      const { columns, rows, imagePositionPatient, imageOrientationPatient } = plane;
      const { rowPixelSpacing, columnPixelSpacing } = plane as unknown as Record<string, number>;
      return {
        columns,
        rows,
        imagePositionPatient: Array.from(imagePositionPatient) as [number, number, number],
        imageOrientationPatient: Array.from(imageOrientationPatient),
        pixelSpacing: [rowPixelSpacing, columnPixelSpacing],
      };
    }),
  };
}

/** What OHIF leaves for programs in its page. */
interface Viewer {
  readonly cornerstone?: {
    readonly metaData: { get(type: string, id: string): unknown };
    getRenderingEngines(): { getViewports(): { getImageIds?(): string[] }[] }[] | undefined;
  };
  readonly services: {
    readonly segmentationService: {
      getLabelmapVolume(id: string):
        | {
            readonly dimensions: [number, number, number];
            readonly imageIds: readonly string[];
            readonly voxelManager: {
              getCompleteScalarDataArray(): ArrayLike<number> & Iterable<number> & Uint8Array;
            };
          }
        | undefined;
      getSegmentations(): { segments: Record<string, { segmentIndex: number; label: string } | undefined> }[];
    };
  };
}
