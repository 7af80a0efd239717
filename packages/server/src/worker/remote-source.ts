import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { claimedJobSchema, isPassing, type Welcome, welcomeSchema } from '@tomaat/client';
import { type ErrorCode, TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import { writeAll } from '../store/blobs.ts';
import type { ClaimedJob } from '../store/job-records.ts';
import type { WrittenOutput } from './messages.ts';
import { type JobSource, toOutputFile } from './supervisor.ts';

/**
 * The jobs of a remote server, over HTTP. All requests are sent from here. While a job runs, its progress is reported
 * twice a second; if the server is unreachable for the time of the lease, the job counts as lost on both sides.
 */

export interface RemoteOptions {
  /** Base address of the server. */
  serverUrl: string;
  /** API key with the scope `worker`. */
  token: string;
  /** A fetch that trusts the server's certificate; the built-in one if missing. */
  fetch?: typeof globalThis.fetch;
  /** Name of this worker, unique: letters, digits, `.:@-_`. */
  name: string;
  /** The versions of the apps, by id: a server with another version of an app gives no jobs of it. */
  versions: ReadonlyMap<string, string>;
  logger: FastifyBaseLogger;
}

const touchEveryMs = 500;
const touchLimitMs = 5_000;
const claimWaitSeconds = 20;
/** A long poll without an answer for this time is abandoned: the server would have answered that there is no job. */
const claimLimitMs = claimWaitSeconds * 1000 + 10_000;
const longestPauseMs = 5_000;

interface Held {
  readonly job: ClaimedJob;
  readonly ended: AbortController;
  at: { stage: string; fraction: number } | undefined;
  heardMs: number;
}

export interface RemoteSource extends JobSource {
  /** What the server reports about itself. Waits while the server is unreachable; throws if it refuses. */
  greet(signal: AbortSignal): Promise<Welcome>;
}

export function remoteSource({
  serverUrl,
  token,
  fetch = globalThis.fetch,
  name,
  versions,
  logger,
}: RemoteOptions): RemoteSource {
  const base = withoutTrailingSlashes(serverUrl);
  const held = new Map<string, Held>();
  const listeners = new Set<(id: string) => void>();
  let leaseMs = 15_000;

  /** One request; a refusal becomes the server's error, a connection failure UNREACHABLE. */
  async function ask(
    method: string,
    path: string,
    init: { body?: RequestInit['body']; headers?: Record<string, string>; signal: AbortSignal },
  ) {
    let response: Response;
    try {
      response = await fetch(`${base}${path}`, {
        method,
        body: init.body,
        headers: { authorization: `Bearer ${token}`, ...init.headers },
        signal: init.signal,
        ...(init.body instanceof ReadableStream && { duplex: 'half' }),
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

  const askJson = async (
    method: string,
    path: string,
    data: unknown,
    signal: AbortSignal,
  ): Promise<unknown> => {
    const init =
      data === undefined
        ? { signal }
        : { body: JSON.stringify(data), headers: { 'content-type': 'application/json' }, signal };
    const response = await ask(method, path, init);
    return response.status === 204 ? undefined : parse(await response.text());
  };

  /** Retries as long as only the connection fails. */
  async function patiently<T>(signal: AbortSignal, what: string, work: () => Promise<T>): Promise<T> {
    for (let pauseMs = 250; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
      try {
        return await work();
      } catch (error) {
        signal.throwIfAborted();
        if (!mayPass(error)) throw error;
        logger.warn(
          { server: base, reason: (error as Error).message },
          `${what} did not reach the server; trying again`,
        );
        await delay(pauseMs, undefined, { signal }).catch(() => {});
        signal.throwIfAborted();
      }
    }
  }

  /** Reports to the server that the job is in progress, until it has ended in any way. */
  async function keepTouching(one: Held): Promise<void> {
    const { job, ended } = one;
    while (!ended.signal.aborted) {
      const askedMs = performance.now();
      const leftMs = leaseMs - (askedMs - one.heardMs);
      if (leftMs <= 0) {
        logger.error(
          { job: job.id, server: base },
          'the server was unreachable for the time of the lease; the job is dropped',
        );
        return lose(one);
      }
      try {
        const signal = AbortSignal.any([
          ended.signal,
          AbortSignal.timeout(Math.ceil(Math.max(100, Math.min(touchLimitMs, leftMs)))),
        ]);
        await askJson(
          'POST',
          `/api/worker/jobs/${job.id}/touch`,
          { attempt: job.attempt, ...one.at },
          signal,
        );
        one.heardMs = askedMs;
      } catch (error) {
        if (ended.signal.aborted) return;
        if (!mayPass(error)) {
          logger.info({ job: job.id, reason: (error as Error).message }, 'the job is no longer ours');
          return lose(one);
        }
      }
      await delay(touchEveryMs, undefined, { signal: ended.signal }).catch(() => {});
    }
  }

  function lose(one: Held): void {
    end(one.job);
    for (const listener of listeners) listener(one.job.id);
  }

  function end(job: ClaimedJob): void {
    const one = held.get(job.id);
    if (one?.job.attempt !== job.attempt) return;
    held.delete(job.id);
    one.ended.abort();
  }

  /** Settles a job, however often the connection fails; false if it is no longer ours. */
  async function settle(job: ClaimedJob, work: (signal: AbortSignal) => Promise<boolean>): Promise<boolean> {
    const one = held.get(job.id);
    if (!one) return false;
    try {
      return await patiently(one.ended.signal, 'the end of a job', () => work(one.ended.signal));
    } catch (error) {
      if (one.ended.signal.aborted || (error instanceof TomaatError && error.code === 'CONFLICT'))
        return false;
      throw error;
    } finally {
      end(job);
    }
  }

  async function bring(job: ClaimedJob, output: WrittenOutput, signal: AbortSignal): Promise<void> {
    const query = `attempt=${job.attempt}&digest=${encodeURIComponent(output.digest)}`;
    await ask('PUT', `/api/worker/jobs/${job.id}/outputs/${output.name}?${query}`, {
      body: Readable.toWeb(createReadStream(output.path, { highWaterMark: 256 * 1024 })) as ReadableStream,
      headers: { 'content-type': 'application/octet-stream', 'content-length': String(output.sizeBytes) },
      signal,
    });
  }

  return {
    greet: (signal) =>
      patiently(signal, 'the first request', async () => {
        const welcome = welcomeSchema.safeParse(
          await askJson(
            'GET',
            '/api/worker',
            undefined,
            AbortSignal.any([signal, AbortSignal.timeout(10_000)]),
          ),
        );
        if (!welcome.success)
          throw new TomaatError(
            'UPSTREAM',
            `${base} is not a TOMAAT server of this version. Check the address.`,
          );
        ({ leaseMs } = welcome.data);
        return welcome.data;
      }),

    async claim(services, signal) {
      const offered = services.map((id) => ({ id, version: versions.get(id) ?? '' }));
      while (!signal.aborted) {
        try {
          const askedMs = performance.now();
          const found = await patiently(signal, 'the request for a job', () =>
            askJson(
              'POST',
              '/api/worker/claim',
              { worker: name, services: offered, waitSeconds: claimWaitSeconds },
              AbortSignal.any([signal, AbortSignal.timeout(claimLimitMs)]),
            ),
          );
          if (found === undefined) continue;
          const job = claimedJobSchema.parse(found) as ClaimedJob;
          // The lease began when the job was given out: after the request was sent, at the latest just now.
          const one = {
            job,
            ended: new AbortController(),
            at: undefined,
            heardMs: Math.max(askedMs, performance.now() - 1000),
          };
          held.set(job.id, one);
          void keepTouching(one);
          return job;
        } catch (error) {
          if (signal.aborted) return undefined;
          throw error;
        }
      }
      return undefined;
    },

    async inputPath(job, input, folder, signal) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const path = join(folder, `input-${job.inputs.indexOf(input)}`);
      await patiently(signal, 'the request for an input', async () => {
        const response = await ask(
          'GET',
          `/api/worker/jobs/${job.id}/inputs/${input.digest}?attempt=${job.attempt}`,
          { signal },
        );
        const hash = createHash('sha256');
        await using file = await open(path, 'w', 0o600);
        let sizeBytes = 0;
        try {
          for await (const chunk of response.body as ReadableStream<Uint8Array>) {
            hash.update(chunk);
            await writeAll(file, chunk, sizeBytes);
            sizeBytes += chunk.length;
          }
        } catch (error) {
          if (signal.aborted || (error as NodeJS.ErrnoException).syscall === 'write') throw error;
          throw new TomaatError('UNREACHABLE', 'The input was cut off.', { cause: error });
        }
        if (`sha256:${hash.digest('hex')}` !== input.digest)
          throw new TomaatError('UNREACHABLE', 'The input arrived damaged.');
      });
      return path;
    },

    isRunning: (job) => held.get(job.id)?.job.attempt === job.attempt,

    touch(job, stage, fraction) {
      const one = held.get(job.id);
      if (one) one.at = { stage, fraction };
    },

    complete: (job, outputs, seconds) =>
      settle(job, async (signal) => {
        for (;;) {
          for (const output of outputs) await bring(job, output, signal);
          try {
            await askJson(
              'POST',
              `/api/worker/jobs/${job.id}/complete`,
              { attempt: job.attempt, seconds, outputs: outputs.map(toOutputFile) },
              signal,
            );
            return true;
          } catch (error) {
            // The server was restarted meanwhile and has deleted unreferenced blobs.
            if (!(error instanceof TomaatError && error.code === 'NOT_READY')) throw error;
          }
        }
      }),

    fail: (job, error) =>
      settle(job, async (signal) => {
        const { code, message, field, detail } = error;
        const answer = await askJson(
          'POST',
          `/api/worker/jobs/${job.id}/fail`,
          { attempt: job.attempt, error: { code, message, field, detail } },
          signal,
        );
        return (answer as { accepted?: boolean } | undefined)?.accepted === true;
      }),

    async handBack(job) {
      end(job);
      await askJson(
        'POST',
        `/api/worker/jobs/${job.id}/hand-back`,
        { attempt: job.attempt },
        AbortSignal.timeout(3000),
      ).catch((error: Error) => {
        logger.warn(
          { job: job.id, reason: error.message },
          'the job could not be handed back; its lease will end',
        );
      });
    },

    onCancel(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The operator frees a full disk, or results expire. */
const mayPass = (error: unknown): boolean =>
  isPassing(error) || (error instanceof TomaatError && error.code === 'DISK_FULL');
