import { readFileSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { syncFolder } from '../store/files/disk.ts';

/**
 * After this process was killed while jobs were running: which children died too. A job fails after several such
 * losses, because it may be their cause; a job whose child was alive when the server died is not the cause.
 *
 * A job that has run for a moment has a file that names its child. A child that finds the server gone marks the job's
 * folder; a busy child is still alive when the next server looks.
 */

const childFile = 'child';
const markFile = 'outlived-server';
/** Shorter jobs are not worth a file. */
const noteAfterMs = 250;

/** The folder of an attempt at a job; it may not exist. */
export const attemptFolder = (workFolder: string, { id, attempt }: { id: string; attempt: number }): string =>
  join(workFolder, `${id}-${attempt}`);

/** Records which process computes the job of a folder, until `remove()`. */
export function noteChild(folder: string, pid: number): { remove(): Promise<void> } {
  let writing: Promise<void> | undefined;
  const write = async () => {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const note = `${pid} ${await startOf(pid)} ${bootId()}`;
    await writeFile(join(folder, childFile), note, { mode: 0o600, flush: true });
    await syncFolder(folder);
  };
  const timer = setTimeout(() => {
    // A full disk: the job then counts as lost without its child.
    writing = write().catch(() => {});
  }, noteAfterMs).unref();
  return {
    async remove() {
      clearTimeout(timer);
      if (!writing) return;
      await writing;
      await rm(join(folder, childFile), { force: true });
    },
  };
}

/** Called by a child that finds the server gone. */
export function markOutlived(folder: string): void {
  try {
    writeFileSync(join(folder, markFile), '');
  } catch {
    // The next server has already removed the folder, and has seen that this process is alive.
  }
}

/**
 * For a work folder left by the last server: whether an attempt at a job was lost together with the process that
 * computed it, or with the whole machine. Children that still compute are ended: nobody wants their results.
 */
export async function findLosses(
  workFolder: string,
): Promise<(job: { id: string; attempt: number }) => boolean> {
  const lost = new Set<string>();
  for (const name of await readdir(workFolder).catch(() => [])) {
    const folder = join(workFolder, name);
    const noted = await readFile(join(folder, childFile), 'utf8').catch(() => undefined); // It had no child yet.
    if (noted === undefined) continue;
    const marked = await readFile(join(folder, markFile)).then(
      () => true,
      () => false,
    );
    const [pid, start, boot] = noted.split(' ');
    const lives = start !== '' && boot === bootId() && (await startOf(Number(pid))) === start;
    if (lives) endGroup(Number(pid));
    if (!marked && !lives) lost.add(folder);
  }
  return (job) => lost.has(attemptFolder(workFolder, job));
}

/** Different after each boot of the machine; empty if the system does not report it. */
function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}

/** When a process started, in ticks since the machine's boot: together with the pid it identifies a process. Empty if it is gone. */
async function startOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ''); // Gone, or not Linux.
  // Field 22; the name, field 2, may contain blanks and parentheses.
  const afterName = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return afterName[0] === 'Z' ? '' : (afterName[19] ?? '');
}

function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ESRCH' && code !== 'EPERM') throw error;
  }
}
