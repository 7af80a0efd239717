import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { syncFolder } from '../store/files/disk.ts';
import { writeWhole } from '../store/files/whole-file.ts';
import type { AuditEvent, AuditFacts } from './events.ts';

/**
 * Lines of the audit log that other commands leave for the server, as files in `audit.pending`. The process that holds
 * the data folder takes them in within a second, or at its next start.
 */
export const pendingFolder = 'audit.pending';

/** Leaves an event. It is durable when this resolves: only then may the recorded action be carried out. */
export async function leaveForAudit(dataFolder: string, event: AuditEvent, facts: AuditFacts): Promise<void> {
  const folder = join(dataFolder, pendingFolder);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const name = `${Date.now()}-${process.pid}-${Math.random().toString(36).slice(2)}.json`;
  await writeWhole(join(folder, name), JSON.stringify({ event, facts }));
  await syncFolder(folder);
}

/** State of takePending() between calls. */
export interface PendingState {
  /** Files, and the folder, whose fault was reported. */
  readonly faulty: Set<string>;
  /** Files that are in the log and could not be removed. */
  readonly recorded: Set<string>;
}

/**
 * Takes the left events: calls `record` with each, oldest first, and removes its file once that has settled. Files that cannot be
 * read or removed stay where they are, and `onFault` is called once for each.
 */
export async function takePending(
  dataFolder: string,
  record: (event: AuditEvent, facts: AuditFacts) => unknown,
  onFault: (error: unknown) => void,
  { faulty, recorded }: PendingState,
): Promise<void> {
  async function attempt<T>(name: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      const result = await work();
      faulty.delete(name);
      return result;
    } catch (error) {
      if (!faulty.has(name)) onFault(error);
      faulty.add(name);
      return undefined;
    }
  }
  for (const name of (await attempt(pendingFolder, () => pendingNames(dataFolder))) ?? []) {
    await attempt(name, async () => {
      const file = join(dataFolder, pendingFolder, name);
      if (!recorded.has(name)) {
        const { event, facts } = await readEvent(file);
        await record(event, facts);
        recorded.add(name);
      }
      await rm(file, { force: true });
      recorded.delete(name);
    });
  }
}

/** Files of lines waiting to be taken; none if the folder does not exist. */
export async function pendingNames(dataFolder: string): Promise<string[]> {
  try {
    return (await readdir(join(dataFolder, pendingFolder))).filter(isPending).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return [];
  }
}

const isPending = (name: string): boolean => /^[\w.-]+\.json$/.test(name);

async function readEvent(file: string): Promise<{ event: AuditEvent; facts: AuditFacts }> {
  const text = await readFile(file, 'utf8');
  try {
    const { event, facts } = JSON.parse(text) as { event?: unknown; facts?: unknown };
    if (typeof event === 'string' && typeof facts === 'object' && facts !== null)
      return { event: event as AuditEvent, facts: facts as AuditFacts };
  } catch {
    // Reported below.
  }
  await rename(file, `${file}.invalid`);
  throw new TomaatError(
    'INTERNAL',
    `${file}.invalid does not contain an event of the audit log. Inspect it, then remove it`,
  );
}
