import { access, cp, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { build } from 'vite';
import { findChromium } from '../../../../test/programs.ts';
import type { ServerOptions } from '../../../server/src/server/options.ts';
import { type RunningServer, startServer } from '../../../server/src/server.ts';

const web = fileURLToPath(new URL('../..', import.meta.url));
const repository = fileURLToPath(new URL('../../../..', import.meta.url));

/** Switches of Chromium: without a screen, it draws with the processor. */
export const softwareDrawing: readonly string[] = [
  '--headless',
  '--no-sandbox',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-angle=swiftshader',
  '--enable-unsafe-swiftshader',
];

/** Switches that leave WebGL to that drawing alone: the rest of a page takes a third of its time without it. */
export const drawnWithoutWebgl: readonly string[] = [
  '--disable-gpu-rasterization',
  '--disable-gpu-compositing',
];

/** @param more switches of Chromium */
export function launchBrowser(more: readonly string[] = []): Promise<Browser> {
  const args = [...softwareDrawing, ...drawnWithoutWebgl, ...more];
  return chromium.launch({ executablePath: findChromium(), args });
}

/** Switches of a browser that has no WebGL: the page says so in place of slices, and the rest of it is much quicker than with software drawing. */
export const withoutDrawing: readonly string[] = ['--disable-3d-apis', '--disable-gpu'];

/**
 * The page, built from its sources. All test files of a run share one build, which `shared-page.ts` removes at the
 * end; outside of a run it is a folder of the caller.
 */
export async function buildPage(): Promise<string> {
  const shared = process.env.TOMAAT_TEST_PAGE;
  if (shared === undefined) return buildInto(await mkdtemp(join(tmpdir(), 'tomaat-page-')));
  const built = join(shared, 'built');
  const building = join(shared, 'building');
  for (;;) {
    if (await exists(built)) return built;
    // One file makes the folder and builds; if it fails, the next one tries.
    const isFirst = await mkdir(building).then(
      () => true,
      () => false,
    );
    if (!isFirst) {
      await setTimeout(100);
      continue;
    }
    try {
      // Another file may have finished between the two looks.
      if (await exists(built)) {
        await rm(building, { recursive: true });
        return built;
      }
      await buildInto(building);
      await rename(building, built);
    } catch (error) {
      await rm(building, { recursive: true, force: true });
      throw error;
    }
  }
}

async function buildInto(folder: string): Promise<string> {
  // CI has just built it from the same sources.
  const isBuilt = process.env.TOMAAT_BUILT_PAGE;
  if (isBuilt) {
    await cp(isBuilt, folder, { recursive: true });
    return folder;
  }
  // As it is shipped: a run of tests is no production for React otherwise.
  const before = process.env.NODE_ENV;
  process.env.NODE_ENV = 'production';
  try {
    await build({ root: web, logLevel: 'error', build: { outDir: folder, emptyOutDir: true } });
  } finally {
    process.env.NODE_ENV = before;
  }
  return folder;
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  );

export const boxedApp = (name: string) => join(repository, 'apps', name);
export const slowApp = join(web, 'test', 'slow-app');
export const pairApp = join(web, 'test', 'pair-app');
export const regionsApp = join(web, 'test', 'regions-app');
export const mapsApp = join(web, 'test', 'maps-app');

export interface Site extends RunningServer {
  readonly address: string;
  readonly dataFolder: string;
  /** Stops the server, leaving its data, and starts it again on the same port. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** A real server with the page. */
export async function openSite(pageFolder: string, options: Partial<ServerOptions> = {}): Promise<Site> {
  const dataFolder = await mkdtemp(join(tmpdir(), 'tomaat-web-'));
  const start = (port: number) =>
    startServer({
      appFolders: [boxedApp('threshold'), boxedApp('ct-lung'), slowApp],
      port,
      tlsPort: 0,
      strictPort: port !== 0,
      dataFolder,
      page: pageFolder,
      logger: pino({ level: process.env.TEST_LOG ?? 'silent' }),
      ...options,
    });
  let server = await start(0);
  const address = server.url!;
  return Object.assign(server, {
    address,
    dataFolder,
    async restart() {
      await server.close();
      server = await start(Number(new URL(address).port));
    },
    async stop() {
      await server.close();
      await rm(dataFolder, { recursive: true, force: true });
    },
  });
}

/** What a page did that it must not do, as lines of text. */
export interface Watched {
  context: BrowserContext;
  page: Page;
  misdeeds: string[];
}

/** A page in a browser that knows nothing yet; errors, dialogs, CSP reports and requests to other hosts are noted. */
export async function openPage(
  browser: Browser,
  address: string,
  options: Parameters<Browser['newContext']>[0] = {},
): Promise<Watched> {
  const context = await browser.newContext({ viewport: { width: 960, height: 640 }, ...options });
  const misdeeds: string[] = [];
  await context.exposeBinding('reportMisdeed', (_source, text: string) => misdeeds.push(text));
  await context.addInitScript(() => {
    const report = (globalThis as unknown as { reportMisdeed(text: string): void }).reportMisdeed;
    document.addEventListener('securitypolicyviolation', (event) =>
      report(
        `CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample} ${event.sourceFile}:${event.lineNumber}`,
      ),
    );
  });
  const page = await context.newPage();
  // A machine under load draws slowly.
  page.setDefaultTimeout(50_000);
  page.on('dialog', (dialog) => {
    // Leaving during an upload asks; nothing else may.
    if (dialog.type() !== 'beforeunload') misdeeds.push(`dialog: ${dialog.message()}`);
    void dialog.accept();
  });
  page.on('pageerror', (error) => misdeeds.push(`error: ${error.message}`));
  page.on('console', (message) => {
    if (/Content Security Policy/i.test(message.text())) misdeeds.push(`console: ${message.text()}`);
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(address) && !/^(blob|data):/.test(request.url()))
      misdeeds.push(`request: ${request.url()}`);
  });
  return { context, page, misdeeds };
}

/**
 * Opens a page for a test, which must not have misbehaved by the end.
 *
 * @param address where it may send requests
 */
export async function withPageOf(
  browser: Browser,
  address: string,
  act: (page: Page, watched: Watched) => Promise<void>,
): Promise<void> {
  const watched = await openPage(browser, address);
  try {
    await act(watched.page, watched);
    if (watched.misdeeds.length > 0) throw new Error(`The page misbehaved: ${watched.misdeeds.join('; ')}`);
  } catch (error) {
    if (process.env.SHOTS) {
      const path = join(process.env.SHOTS, `failed-${Date.now()}.png`);
      await watched.page.screenshot({ path, fullPage: true });
    }
    throw error;
  } finally {
    await watched.context.close();
  }
}
