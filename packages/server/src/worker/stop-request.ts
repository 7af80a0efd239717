import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';
import type { App } from '../apps.ts';
import { EndedBySignal } from '../runtimes/ended-by-signal.ts';

/*
 * A service manager that stops a service signals all of its processes. A program of an app then ends, and its job fails,
 * perhaps before this process has read its own signal. Such a job is not at fault and is handed back.
 */

/** After a program ended by a signal: how long the same signal may take to reach this process. */
const signalDelayMs = 1000;
/** The same for a program that handles the signal: how long the failure of any program is held back. */
const programDelayMs = 500;
/** How long a program that is asked to stop may take to end. */
const signalledMs = 5000;

export interface StopRequest {
  /**
   * Whether a job of this app failed with `error` only because all processes of the service were asked to stop, its program
   * among them. A program that handles the signal may end with any exit code, or without its output. May wait for a moment.
   */
  explains(error: unknown, app: App | undefined): Promise<boolean>;
}

/** Notes when this process is asked to stop: `signal` aborts. */
export function watchStopRequest(signal: AbortSignal): StopRequest {
  let requestedMs = signal.aborted ? performance.now() : Number.POSITIVE_INFINITY;
  signal.addEventListener('abort', () => {
    requestedMs = performance.now();
  });
  const waitFor = (ms: number) => delay(ms, undefined, { signal }).catch(() => {});

  return {
    async explains(error, app) {
      if (!(error instanceof TomaatError)) return false;
      if (error instanceof EndedBySignal) {
        if (!signal.aborted) await waitFor(signalDelayMs);
        return signal.aborted;
      }
      const mayBeSignalled = error.code === 'APP_FAILED' || error.code === 'APP_OUTPUT';
      if (!mayBeSignalled) return false;
      // This process may learn of the program's end before it has handled its own signal.
      const isProgram = app?.manifest.model.some(({ runtime }) => runtime === 'command');
      if (isProgram && !signal.aborted) await waitFor(programDelayMs);
      return signal.aborted && performance.now() - requestedMs < signalledMs;
    },
  };
}
