import { readdir, readFile } from 'node:fs/promises';

/**
 * Memory that a process and all processes of some process groups have in RAM, MB (10^6 bytes); 0 for what has ended, and where
 * the system does not report it. Pages that processes share count for each. The field VmRSS of
 * https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
 */
export async function residentMb(pid: number, groups: ReadonlySet<number>): Promise<number> {
  const pids = groups.size > 0 ? [pid, ...(await membersOf(groups))] : [pid];
  const sizes = await Promise.all(pids.map(residentOf));
  return sizes.reduce((sum, mb) => sum + mb, 0);
}

async function residentOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''); // Gone, or not Linux.
  const line = status.split('\n').find((text) => text.startsWith('VmRSS:')) ?? '';
  return (Number(line.slice(6).replace('kB', '')) * 1024) / 1e6;
}

/** The processes of groups. A program may be a script that started the one with the model. */
async function membersOf(groups: ReadonlySet<number>): Promise<number[]> {
  const names = await readdir('/proc').catch(() => []); // Not Linux.
  const pids = names.filter((name) => /^\d+$/.test(name)).map(Number);
  const isMember = await Promise.all(pids.map(async (pid) => groups.has(await groupOf(pid))));
  return pids.filter((_, i) => isMember[i]);
}

/** Field 5; the name, field 2, may contain blanks and parentheses. */
async function groupOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ''); // It has ended meanwhile.
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2] ?? Number.NaN);
}
