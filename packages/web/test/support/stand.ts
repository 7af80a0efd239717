import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll } from 'vitest';
import type { ServerOptions } from '../../../server/src/server/options.ts';
import { buildPage, launchBrowser, openSite, type Site, type Watched, withPageOf } from './site.ts';

/** What the tests of a `describe()` share. Only during tests and their hooks. */
export interface Stand {
  readonly browser: Browser;
  readonly site: Site;
  /** The folder of the built page, for further servers. */
  readonly pageFolder: string;
  /**
   * Opens a page for a test, which must not have misbehaved by the end.
   *
   * @param address where it may send requests; the site by default
   */
  withPage(act: (page: Page, watched: Watched) => Promise<void>, address?: string): Promise<void>;
}

/**
 * Opens a browser, and a server with the page, before the tests of the `describe()` that calls this, and closes them
 * after these.
 *
 * @param switches of Chromium
 * @param options of the server
 */
export function useStand(switches: readonly string[] = [], options: Partial<ServerOptions> = {}): Stand {
  let opened: { browser?: Browser; site?: Site; pageFolder?: string } = {};
  const open = <Name extends keyof typeof opened>(name: Name) => {
    const value = opened[name];
    if (value === undefined) throw new Error(`The ${name} is not open: use it in a test or a hook.`);
    return value;
  };
  beforeAll(async () => {
    const pageFolder = await buildPage();
    opened = { pageFolder };
    await Promise.all([
      launchBrowser(switches).then((browser) => Object.assign(opened, { browser })),
      openSite(pageFolder, options).then((site) => Object.assign(opened, { site })),
    ]);
  }, 120_000);
  afterAll(async () => {
    await opened.browser?.close();
    await opened.site?.stop();
  });
  return {
    get browser() {
      return open('browser');
    },
    get site() {
      return open('site');
    },
    get pageFolder() {
      return open('pageFolder');
    },
    withPage(act, address = open('site').address) {
      return withPageOf(open('browser'), address, act);
    },
  };
}
