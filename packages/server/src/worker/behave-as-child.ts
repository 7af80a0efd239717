import { writeFileSync } from 'node:fs';

/** From 0 to 1000; a normal process has 0. https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html */
const oomScore = '800';

/**
 * Every computing process calls this first. A signal that is sent to all processes of a service (systemd's
 * `KillMode=control-group`, `scancel`, a terminal) asks the server to stop, and the server decides about running
 * work: this process ignores the signal, and ends when its channel to the server closes, or by SIGKILL. When the
 * machine runs out of memory, the kernel kills this process, and the programs that it starts, before the server.
 */
export function behaveAsChild(): void {
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => {});
  if (process.platform !== 'linux') return;
  try {
    writeFileSync('/proc/self/oom_score_adj', oomScore);
  } catch {
    // A sandbox without /proc: the kernel then chooses by size alone.
  }
}
