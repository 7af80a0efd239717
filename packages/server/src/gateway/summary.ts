import { TomaatError } from '@tomaat/core';
import type { GatewaySummary } from './gateway-type.ts';

/** What is true of a gateway now, for routes that anyone may call often. */
export interface Summary {
  /** A second old at most. Never rejects: a database that does not answer is a `databaseFault`. */
  now(): Promise<GatewaySummary>;
  /** The next one is made anew. */
  forget(): void;
}

const freshMs = 1000;

export function createSummary(make: () => Promise<GatewaySummary>): Summary {
  let last: { madeMs: number; summary: Promise<GatewaySummary> } | undefined;

  async function attempt(): Promise<GatewaySummary> {
    try {
      return await make();
    } catch (error) {
      const known = error instanceof TomaatError ? error : undefined;
      const { code = 'INTERNAL', message = 'The database does not answer. See the log of the gateway' } =
        known ?? {};
      return { counts: [], sources: [], destinations: [], databaseFault: { code, message } };
    }
  }

  return {
    now() {
      const nowMs = performance.now();
      if (!last || nowMs - last.madeMs > freshMs) last = { madeMs: nowMs, summary: attempt() };
      return last.summary;
    },
    forget() {
      last = undefined;
    },
  };
}
