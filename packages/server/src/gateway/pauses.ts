import { TomaatError } from '@tomaat/core';
import type { GatewayLimits } from './config.ts';

/* How long the gateway waits after a fault that passes (faults.ts). */

/** Part of a pause by which it is longer or shorter at random, so that series that failed together are not all tried together. */
const jitter = 0.2;

/**
 * The pause after so many passing faults in a row (1 or more), ms: twice the one before, up to the longest, give or take a fifth; not
 * shorter than the server asked for by Retry-After, if that is not longer than the longest.
 *
 * @param random from 0 to 1
 */
export function pauseMs(
  attempts: number,
  { firstPauseMs, longestPauseMs }: Pick<GatewayLimits, 'firstPauseMs' | 'longestPauseMs'>,
  { error, random = Math.random() }: { error?: unknown; random?: number } = {},
): number {
  const doubled = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(attempts - 1, 40));
  const asked = Number(error instanceof TomaatError ? error.detail?.retryAfterSeconds : undefined) * 1000;
  const least = asked > 0 ? Math.min(asked, longestPauseMs) : 0;
  return Math.round(Math.max(least, doubled * (1 + jitter * (2 * random - 1))));
}

/** A time span in words, in its largest unit. */
export function spanOf(ms: number): string {
  const units = [
    ['day', 86_400_000],
    ['hour', 3_600_000],
    ['minute', 60_000],
    ['second', 1000],
  ] as const;
  const [unit, unitMs] = units.find(([, length]) => ms >= length) ?? units[3];
  const count = Math.round(ms / unitMs);
  return `${count} ${unit}${count === 1 ? '' : 's'}`;
}
