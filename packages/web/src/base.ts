import { withoutTrailingSlashes } from '@tomaat/core';

/** Parts of the page are also rendered without a browser, in tests. */
const inBrowser = typeof document !== 'undefined';

/**
 * The location of this page's server on its host: a proxy may serve it below a path. The document contains the path
 * known to the server (tomaat-base), and the way to its root from here (tomaat-root), which works behind any proxy.
 */
const meta = (name: string) => document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? '';

function findBasePath(): string {
  if (!inBrowser) return '';
  const known = meta('tomaat-base');
  const path = location.pathname;
  if (known !== '' && (path === known || path.startsWith(`${known}/`))) return known;
  // The server itself, without the proxy: there its root is that of the host.
  if (known !== '') return '';
  return withoutTrailingSlashes(new URL(meta('tomaat-root') || '/', location.href).pathname);
}

/** For example `/tomaat`; empty if the server is at the root of the host. */
export const basePath: string = findBasePath();
/** The server's base address, without a slash at the end. */
export const baseUrl: string = inBrowser ? location.origin + basePath : '';
/** Keys of what this page stores in the browser, separate from pages at other paths of the same host. */
export const keptAt = (name: string): string => (basePath === '' ? name : `${name}:${basePath}`);
