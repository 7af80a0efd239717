import { TomaatError } from '@tomaat/core';
import type { GatewayLimits, SourceConfig } from './config.ts';
import { mayPass, messageOf } from './faults.ts';
import { pauseMs, spanOf } from './pauses.ts';
import type { Source } from './series.ts';
import { type Row, unbegun } from './series-rows.ts';

/*
 * The end of a series. An association or a request that ends says nothing: a scanner sends one series in several. A series
 * counts as complete when its source has had the same number of instances for the quiet time, or says so itself (Orthanc's stable
 * series).
 */

/** What becomes of a waiting row. */
export type Look = Partial<Row> & { readonly state: 'waiting' | 'queued' | 'failed' };

export interface LookContext {
  readonly source: Source;
  readonly quietMs: number;
  readonly limits: GatewayLimits;
  readonly signal: AbortSignal;
  now(): number;
}

/**
 * Looks at a series whose quiet time has passed: queued if it still has the same number of instances, else it waits again. One that
 * its source no longer has fails with that reason. While the source does not answer it waits, with growing pauses.
 *
 * @throws the signal's reason
 */
export async function lookAgain(
  row: Row,
  { source, quietMs, limits, signal, now }: LookContext,
): Promise<Look> {
  try {
    const seen = await source.look(row.study, row.series, signal);
    const nowMs = now();
    if (seen === undefined) return gone(row, nowMs);
    const { instances } = seen;
    if (instances === row.instances)
      return {
        state: 'queued',
        due_ms: nowMs,
        attempts: 0,
        passing_ms: null,
        reason_code: null,
        reason_message: null,
      };
    return { ...unbegun, state: 'waiting', instances, changed_ms: nowMs, due_ms: nowMs + quietMs };
  } catch (error) {
    signal.throwIfAborted();
    return afterFault(row, error, limits, now());
  }
}

/** The change of a waiting row after a fault: its series is looked at again, or it fails. */
function afterFault(row: Row, error: unknown, limits: GatewayLimits, nowMs: number): Look {
  const reason = reasonFor(row, error, limits, nowMs);
  const { code: reason_code, message: reason_message } = reason;
  if (reason.isFinal) return { state: 'failed', reason_code, reason_message, due_ms: nowMs, ended_ms: nowMs };
  return {
    state: 'waiting',
    attempts: row.attempts + 1,
    passing_ms: row.passing_ms ?? nowMs,
    due_ms: nowMs + pauseMs(row.attempts + 1, limits, { error }),
    reason_code,
    reason_message,
  };
}

/** What is kept of a fault; `isFinal`: it is none that passes, or has not passed for too long. */
export function reasonFor(
  row: Pick<Row, 'attempts' | 'passing_ms'>,
  error: unknown,
  { giveUpMs }: Pick<GatewayLimits, 'giveUpMs'>,
  nowMs: number,
): { code: string; message: string; isFinal: boolean } {
  if (!(error instanceof TomaatError)) {
    const name = error instanceof Error ? error.name : typeof error;
    return {
      code: 'INTERNAL',
      message: `The gateway failed unexpectedly (${name}). See its log, report it, and try the series again.`,
      isFinal: true,
    };
  }
  const message = messageOf(error);
  if (!mayPass(error)) return { code: error.code, message, isFinal: true };
  const spentMs = nowMs - (row.passing_ms ?? nowMs);
  if (spentMs < giveUpMs) return { code: error.code, message, isFinal: false };
  const tries = `This was the fault of the last of ${row.attempts + 1} attempts in ${spanOf(spentMs)}. Try the series again once it is corrected.`;
  return { code: error.code, message: `${message} ${tries}`, isFinal: true };
}

function gone(row: Row, nowMs: number): Look {
  const { code, message } = goneFromSource(row.source);
  return {
    state: 'failed',
    // Whatever number it has when it comes back is news.
    instances: 0,
    reason_code: code,
    reason_message: message,
    due_ms: nowMs,
    ended_ms: nowMs,
  };
}

export const goneFromSource = (source: string) => ({
  code: 'NOT_FOUND',
  message: `The source ${source} no longer has this series. If it was moved or deleted, send it again.`,
});

/** The quiet time of a source, ms. */
export const quietMsOf = (source: SourceConfig | undefined): number => source?.quietMs ?? 0;
