import { TomaatError } from '@tomaat/core';

const firstPauseMs = 1000;
const longestPauseMs = 60_000;
const longestAskedMs = 10 * 60_000;

/** Network errors that do not end by waiting. A name that is not found is none: a machine that has lost its network finds no name. */
const lasting = /CERT|SIGN|EPROTO|SSL|^HPE_/;

/** Whether a failure is one of the moment: the server is away, restarts, or its queue is full. */
export function isPassing(error: unknown): error is TomaatError {
  if (!(error instanceof TomaatError)) return false;
  if (error.code === 'UNREACHABLE') return !lasting.test(String(error.detail?.reason ?? ''));
  if (error.code === 'UPSTREAM') return error.detail?.httpStatus === 502;
  if (error.code === 'LIMIT_REACHED') return Number(error.detail?.retryAfterSeconds) * 1000 <= longestAskedMs;
  return error.code === 'BUSY';
}

/**
 * The pause before the next attempt, ms: doubled from 1 s to at most 60 s, less a random part of up to half, and never shorter than
 * the server asks for (Retry-After, up to 10 min).
 *
 * @param failures so many attempts have failed before this one
 */
export function pauseMs(failures: number, error: TomaatError, random = Math.random()): number {
  const full = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(failures, 16));
  const asked = Number(error.detail?.retryAfterSeconds) * 1000;
  return Math.max(
    full * (1 - random / 2),
    asked > 0 ? Math.min(asked, longestAskedMs) * (1 + random / 10) : 0,
  );
}
