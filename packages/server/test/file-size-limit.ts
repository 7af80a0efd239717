import { execFileSync } from 'node:child_process';
import { findProgram } from '../../../test/programs.ts';

const prlimit = findProgram('prlimit', ['--version']);

/** Whether `limitFileSize()` works on this machine. */
export const canLimitFileSize = prlimit !== undefined;

/**
 * Until it is disposed of, no file of this process may grow beyond so many bytes, as on a disk that is full: a write takes
 * what there is room for, and the next one fails with EFBIG. Node ignores the signal SIGXFSZ that comes with it.
 */
export function limitFileSize(bytes: number): Disposable {
  setLimit(`${bytes}`);
  return { [Symbol.dispose]: () => setLimit('unlimited') };
}

/** The soft limit alone: it may be raised again without being root. */
function setLimit(softLimit: string): void {
  if (prlimit === undefined)
    throw new Error('prlimit is missing: skip the test where canLimitFileSize is false');
  execFileSync(prlimit, ['--pid', `${process.pid}`, `--fsize=${softLimit}:`]);
}
