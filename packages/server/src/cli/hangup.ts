import { closeSync, openSync } from 'node:fs';
import { isatty } from 'node:tty';

/**
 * SIGHUP of long-running commands. An operator, logrotate or systemd sends it to have files and certificates read again:
 * nothing ends. The kernel and the shell send it when a terminal closes: what was started there, without nohup, then ends
 * as by SIGTERM, because nobody sees it any longer.
 */
export interface Hangup extends Disposable {
  /** What to do at each SIGHUP; a failure is logged, and the rest is still done. */
  add(what: string, work: () => unknown): void;
}

export interface HangupLog {
  info(message: string): void;
  error(about: object, message: string): void;
}

/** From this call on the signal no longer ends the process. Call it before anything slow. */
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
        logger.error({ err: error }, `SIGHUP: ${what} could not be reloaded, and stays as it is: ${message}`);
      }
    }
    logger.info(`SIGHUP: reloaded: ${works.map(({ what }) => what).join(', ') || 'nothing'}`);
  }

  const hangUp = () => {
    if (wasOnTerminal && !hasTerminal()) process.kill(process.pid, 'SIGTERM');
    // One after the other: files that are replaced one by one may come with several signals.
    else working = working.then(reload);
  };
  process.on('SIGHUP', hangUp);
  return {
    add: (what, work) => works.push({ what, work }),
    [Symbol.dispose]: () => void process.off('SIGHUP', hangUp),
  };
}

/** Whether this process has a terminal that is still there. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false; // ENXIO, or EIO just after it was closed.
  }
}
