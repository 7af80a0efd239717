import { closeSync, openSync } from 'node:fs';
import { isatty } from 'node:tty';

/**
 * SIGHUP in long-running commands. If an operator, logrotate or systemd sends it, files and certificates are reread and
 * the process continues. If the kernel or the shell sends it because a terminal closes, a command started there without
 * nohup ends as by SIGTERM.
 */
export interface Hangup extends Disposable {
  /** What to do at each SIGHUP; a failure is logged, and the rest is still done. */
  add(what: string, work: () => unknown): void;
}

export interface HangupLog {
  info(message: string): void;
  error(about: object, message: string): void;
}

/** After this call the signal no longer ends the process. Call it before anything slow. */
export function openHangup(logger: HangupLog): Hangup {
  const works: { what: string; work: () => unknown }[] = [];
  const wasOnTerminal = [0, 1, 2].some((fd) => isatty(fd)) && hasTerminal();
  let working = Promise.resolve();

  async function reload(): Promise<void> {
    for (const { what, work } of works) {
      try {
        await work();
      } catch (error) {
        const { message } = error as Error;
        logger.error({ err: error }, `SIGHUP: ${what} could not be reloaded and is unchanged: ${message}`);
      }
    }
    logger.info(`SIGHUP: reloaded: ${works.map(({ what }) => what).join(', ') || 'nothing'}`);
  }

  const hangUp = () => {
    if (wasOnTerminal && !hasTerminal()) process.kill(process.pid, 'SIGTERM');
    // One after the other: an operator who replaces files one by one may send several signals.
    else working = working.then(reload);
  };
  process.on('SIGHUP', hangUp);
  return {
    add: (what, work) => works.push({ what, work }),
    [Symbol.dispose]: () => void process.off('SIGHUP', hangUp),
  };
}

/** Whether this process has a terminal that is still open. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false; // ENXIO, or EIO just after it was closed.
  }
}
