import { type ErrorData, TomaatError } from '@tomaat/core';

/** Signals that ask a process to stop, and the numbers that shells and programs exit with for them (128 + number). */
const stopSignals: Readonly<Record<number, NodeJS.Signals>> = {
  129: 'SIGHUP',
  130: 'SIGINT',
  143: 'SIGTERM',
};

/**
 * A child or a program was asked to stop by something other than its supervisor. While the server stops, the job did not
 * cause this: the same signal went to all processes of the service.
 */
export class EndedBySignal extends TomaatError {
  static override from(data: ErrorData): EndedBySignal {
    return new EndedBySignal(data.code, data.message, { field: data.field, detail: data.detail });
  }
}

/** The signal that asked a process to stop, from how it ended; undefined if it ended for another reason. */
export function stopSignalOf(code: number | null, signal: string | null): NodeJS.Signals | undefined {
  return Object.values(stopSignals).find((known) => known === signal) ?? stopSignals[code ?? 0];
}
