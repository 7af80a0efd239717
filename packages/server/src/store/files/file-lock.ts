import { open, rm, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { TomaatError } from '@tomaat/core';

/**
 * Reads and replaces a small file of a user's own while no other process does: they take turns by the file `NAME.lock` beside it.
 * @throws TomaatError CONFLICT if another process holds it for long
 */
export async function inTurn<T>(file: string, work: () => Promise<T>): Promise<T> {
  const unlock = await lock(`${file}.lock`);
  try {
    return await work();
  } finally {
    await unlock();
  }
}

const lockWaitMs = 5_000;
/** A lock this old was left by a dead process. */
const staleMs = 10_000;

/** Makes the lock file, and returns what removes it. */
async function lock(file: string): Promise<() => Promise<void>> {
  for (const deadline = Date.now() + lockWaitMs; ; ) {
    try {
      await (await open(file, 'wx', 0o600)).close();
      return () => rm(file, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const age = await stat(file).then(
      ({ mtimeMs }) => Date.now() - mtimeMs,
      () => 0, // Already gone.
    );
    if (age > staleMs) await rm(file, { force: true });
    else if (Date.now() > deadline)
      throw new TomaatError(
        'CONFLICT',
        `Another process holds ${file}. Try again. If no such process is running, remove that file.`,
      );
    else await delay(20);
  }
}
