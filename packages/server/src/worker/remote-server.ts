import { setTimeout as delay } from 'node:timers/promises';
import { isPassing } from '@tomaat/client';
import { type ErrorCode, TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';

export interface RemoteServerOptions {
  /** Base address of the server. */
  serverUrl: string;
  /** API key with the scope `worker`. */
  token: string;
  /** A fetch that trusts the server's certificate; the built-in one if missing. */
  fetch?: typeof globalThis.fetch;
  logger: FastifyBaseLogger;
}

interface RequestParts {
  body?: RequestInit['body'];
  headers?: Record<string, string>;
  signal: AbortSignal;
}

/** A server elsewhere, as a worker asks it. Every request goes from here to there. */
export interface RemoteServer {
  /** Its base address, without a slash at the end. */
  readonly base: string;
  /** One request; a refusal becomes the server's error, a connection failure UNREACHABLE. */
  ask(method: string, path: string, parts: RequestParts): Promise<Response>;
  /** One request with JSON, or without a body where `data` is undefined; undefined where the answer is 204. */
  askJson(method: string, path: string, data: unknown, signal: AbortSignal): Promise<unknown>;
  /**
   * Does `work` again and again while only the way to the server is at fault, for `limitMs` if given: then throws the last fault.
   * `what` is what the log calls it.
   */
  patiently<T>(signal: AbortSignal, what: string, work: () => Promise<T>, limitMs?: number): Promise<T>;
}

const longestPauseMs = 5_000;

export function createRemoteServer(options: RemoteServerOptions): RemoteServer {
  const { token, fetch = globalThis.fetch, logger } = options;
  const base = withoutTrailingSlashes(options.serverUrl);

  async function ask(method: string, path: string, parts: RequestParts): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(`${base}${path}`, {
        method,
        body: parts.body,
        headers: { authorization: `Bearer ${token}`, ...parts.headers },
        signal: parts.signal,
        ...(parts.body instanceof ReadableStream && { duplex: 'half' }),
      } as RequestInit);
      if (response.ok) return response;
    } catch (error) {
      throw new TomaatError('UNREACHABLE', `${base} cannot be reached. Check the address and the network.`, {
        cause: error,
      });
    }
    const text = await response.text().catch(() => '');
    const problem = parse(text) as { code?: string; detail?: string } | undefined;
    if (typeof problem?.code === 'string')
      throw TomaatError.from({ code: problem.code as ErrorCode, message: problem.detail ?? '' });
    const code = response.status >= 500 ? 'UNREACHABLE' : 'BAD_REQUEST';
    throw new TomaatError(
      code,
      `${base}${path} answered with HTTP ${response.status}. Is it a TOMAAT server?`,
    );
  }

  async function askJson(method: string, path: string, data: unknown, signal: AbortSignal): Promise<unknown> {
    const parts =
      data === undefined
        ? { signal }
        : { body: JSON.stringify(data), headers: { 'content-type': 'application/json' }, signal };
    const response = await ask(method, path, parts);
    return response.status === 204 ? undefined : parse(await response.text());
  }

  async function patiently<T>(
    signal: AbortSignal,
    what: string,
    work: () => Promise<T>,
    limitMs = Number.POSITIVE_INFINITY,
  ): Promise<T> {
    const startMs = performance.now();
    for (let pauseMs = 250; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
      try {
        return await work();
      } catch (error) {
        signal.throwIfAborted();
        if (!mayPass(error) || performance.now() - startMs >= limitMs) throw error;
        logger.warn(
          { server: base, reason: (error as Error).message },
          `${what} did not reach the server; trying again`,
        );
        await delay(pauseMs, undefined, { signal }).catch(() => {});
        signal.throwIfAborted();
      }
    }
  }

  return { base, ask, askJson, patiently };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Whether the same request may succeed later. A full disk is emptied by the operator, or by the results that expire. */
export const mayPass = (error: unknown): boolean =>
  isPassing(error) || (error instanceof TomaatError && error.code === 'DISK_FULL');
