/**
 * Temporary folders of a backup and a restore. A backup's is in the data folder, where hard links keep what
 * the server deletes meanwhile; a restore's is in the restored folder, and its files are moved into place from there.
 */

export const stageName = (): string => `backup-${process.pid}.part`;
export const restoringName = 'restore.part';

/** Whether a name is that of a backup that is no longer running. */
export function isStage(name: string): boolean {
  const pid = Number(/^backup-(\d{1,10})\.part$/.exec(name)?.[1] ?? 0);
  return pid > 0 && !isRunning(pid);
}

/** Whether a name shows that a restore into this folder did not finish. */
export const isRestoring = (name: string): boolean => name === restoringName;

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
