import type { IncomingMessage } from 'node:http';
import { reservedWords, TomaatError, withoutTrailingSlashes } from '@tomaat/core';

/**
 * The address at which others reach a server or registry, if a proxy in front serves it below a path
 * (`--public-url https://hospital.example/tomaat`). The one place that knows this path: every address in an answer
 * is built by `pathOf`, every address in a request goes through `localUrl`.
 */
export interface PublicAddress {
  /** Without a slash at the end; undefined if none was set. */
  readonly url?: string;
  /** The path in front of all addresses, such as `/tomaat`; empty if there is none. */
  readonly basePath: string;
  /** One of our addresses (`/api/jobs/1`) as a client must request it. */
  pathOf(path: string): string;
  /**
   * The local address of a request target: without the base path, which some proxies strip and others do
   * not, and with one slash in place of several.
   */
  localUrl(target: string, method: string | undefined): string;
  /** Whether a request came through the public address, as far as it shows. */
  isUsedBy(request: IncomingMessage): boolean;
  /**
   * The prefix of a link from a document at this request target to our root: the base path, else as many `../` as it
   * is deep, which is also right behind a proxy with a path that was not configured.
   */
  rootFrom(target: string): string;
}

/** @throws TomaatError BAD_REQUEST for a path that would hide one of our addresses. */
export function openPublicAddress(publicUrl?: string): PublicAddress {
  const known = publicUrl === undefined ? undefined : new URL(publicUrl);
  const basePath = withoutTrailingSlashes(known?.pathname ?? '');
  const first = basePath.split('/')[1] ?? '';
  if (isReserved(first)) {
    throw new TomaatError(
      'BAD_REQUEST',
      `The path of --public-url begins with /${first}, which is an address of the server itself. Choose another, such as ${known?.origin}/tomaat.`,
      { field: 'publicUrl' },
    );
  }

  const isBelow = (path: string) => path === basePath || path.startsWith(`${basePath}/`);

  return {
    url: publicUrl === undefined ? undefined : withoutTrailingSlashes(publicUrl),
    basePath,
    pathOf: (path) => `${basePath}${path}`,
    localUrl(target, method) {
      // A request line may hold a whole address (RFC 9112, 3.2.2).
      const start = /^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i.exec(target)?.[0].length ?? 0;
      const end = endOfPath(target, start);
      let path = target.slice(start, end).replace(/\/{2,}/g, '/');
      // A client that puts the public address before an address that has the path already repeats it.
      while (basePath !== '' && isBelow(path)) {
        const rest = path.slice(basePath.length) || '/';
        if (method === 'POST' && isPrediction(path) && !isKnownPost(rest)) break;
        path = rest;
      }
      return target.slice(0, start) + path + target.slice(end);
    },
    isUsedBy: ({ headers: { host, origin } }) =>
      known !== undefined && (host === known.host || origin === known.origin),
    rootFrom(target) {
      if (basePath !== '') return `${basePath}/`;
      const depth = target.slice(0, endOfPath(target, 0)).split('/').length - 2;
      return depth > 0 ? '../'.repeat(Math.min(depth, 64)) : './';
    },
  };
}

const isReserved = (word: string) => (reservedWords as readonly string[]).includes(word);

/** Where the path ends in a request target. */
function endOfPath(target: string, start: number): number {
  for (let at = start; at < target.length; at++) if (target[at] === '?' || target[at] === '#') return at;
  return target.length;
}

/** Whether a path may be the address of predictions, `/{task}/{anatomy}`: a task may have the same name as the base path. */
const isPrediction = (path: string) => /^\/[^/]+\/[^/]+\/?$/.test(path);
const isKnownPost = (path: string) => isReserved(path.split('/')[1]) || isPrediction(path);
