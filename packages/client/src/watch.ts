import { TomaatError } from '@tomaat/core';
import { createParser } from 'eventsource-parser';
import { isSettled, type Job, jobSchema } from './contract/jobs.ts';
import {
  addressOf,
  type Connection,
  callJson,
  isPassing,
  jobPath,
  networkFault,
  pause,
  send,
  startWatchdog,
} from './http.ts';

export interface WatchOptions {
  signal?: AbortSignal;
  /** Polling interval where events do not get through, ms. */
  pollMs?: number;
  /** An event stream that is silent for this long is reopened, ms. */
  silenceMs?: number;
  /** How long to wait for an unreachable server, ms: jobs survive its restart. */
  patienceMs?: number;
}

/**
 * The job at every change, until it is settled. Reads server-sent events, resumes after an interruption, and polls if
 * a proxy swallows events. Throws the server's error (NOT_FOUND …), or UNREACHABLE after the time limit; the job
 * itself then continues.
 */
export async function* watchJob(
  connection: Connection,
  id: string,
  options: WatchOptions = {},
): AsyncGenerator<Job, void, undefined> {
  const { signal, pollMs = 1_000, silenceMs = 45_000, patienceMs = 120_000 } = options;
  const path = jobPath(id);
  const state = { lastEventId: '', retryMs: 500, shown: '', heardTime: Date.now() };
  let fruitless = 0;

  const isNews = (job: Job) => {
    state.heardTime = Date.now();
    const text = JSON.stringify(job);
    if (text === state.shown) return false;
    state.shown = text;
    return true;
  };

  for (;;) {
    try {
      if (fruitless < 3) {
        fruitless++;
        for await (const job of readEvents(connection, path, state, silenceMs, signal)) {
          fruitless = 0;
          if (isNews(job)) yield job;
          if (isSettled(job)) return;
        }
      }
      // The stream ended early, or never started: poll.
      const job = await callJson(connection, path, jobSchema, { signal });
      if (job && isNews(job)) yield job;
      if (job && isSettled(job)) return;
    } catch (error) {
      signal?.throwIfAborted();
      if (!isPassing(error)) throw error;
      if (Date.now() - state.heardTime > patienceMs) {
        throw new TomaatError(
          'UNREACHABLE',
          `${error.message} The job ${id} continues if the server does: ${addressOf(connection, path)}`,
          {
            cause: error,
            detail: error.detail,
          },
        );
      }
    }
    await pause(fruitless < 3 ? state.retryMs : pollMs, signal);
  }
}

interface StreamState {
  lastEventId: string;
  retryMs: number;
  heardTime: number;
}

async function* readEvents(
  connection: Connection,
  path: string,
  state: StreamState,
  silenceMs: number,
  signal?: AbortSignal,
): AsyncGenerator<Job> {
  const watchdog = startWatchdog(connection, signal, silenceMs);
  const abort = new AbortController();
  const jobs: Job[] = [];
  const parser = createParser({
    onEvent(event) {
      if (event.event !== undefined && event.event !== 'job') return;
      const parsed = jobSchema.safeParse(parseJson(event.data));
      if (parsed.success) jobs.push(parsed.data);
    },
    onId: (lastEventId) => {
      state.lastEventId = lastEventId;
    },
    onRetry: (ms) => {
      state.retryMs = Math.min(Math.max(ms, 50), 10_000);
    },
  });
  const address = addressOf(connection, `${path}/events`);
  let reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  try {
    const response = await send(connection, `${path}/events`, {
      headers: { accept: 'text/event-stream', 'last-event-id': state.lastEventId || undefined },
      signal: AbortSignal.any([watchdog.signal, abort.signal]),
    });
    if (!response.headers.get('content-type')?.startsWith('text/event-stream') || !response.body) return;
    reader = response.body.getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      watchdog.alive();
      state.heardTime = Date.now();
      parser.feed(decoder.decode(value, { stream: true }));
      yield* jobs.splice(0);
    }
  } catch (error) {
    throw networkFault(error, address, signal);
  } finally {
    watchdog.stop();
    await reader?.cancel().catch(() => {});
    abort.abort();
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
