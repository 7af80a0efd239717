import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/* The real server in a separate process, as a user starts it, and the cost of processes. */

export const repository = fileURLToPath(new URL('..', import.meta.url));

/** Node arguments that run the workspace's TypeScript. */
export const nodeOptions = ['--conditions=tomaat-source'];

export const cli = fileURLToPath(new URL('../packages/server/bin/tomaat.js', import.meta.url));

export interface ServedApps extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
  /** From process start to the line with its addresses. */
  readonly readyMs: number;
  /** Log entries with this message, oldest first. */
  logged(message: string): Record<string, unknown>[];
}

/** Starts `tomaat serve` or `tomaat up` on free ports with a data folder, and waits until it is ready. */
export async function serveApps(
  command: 'serve' | 'up',
  appFolders: readonly string[],
  dataFolder: string,
): Promise<ServedApps> {
  const ports = ['--port', '0', '--tls-port', '0', ...(command === 'up' ? ['--registry-port', '0'] : [])];
  const args = [command, ...appFolders, ...ports, '--data', dataFolder, '--json', '--log-level', 'info'];
  const start = performance.now();
  const child = spawn(process.execPath, [cli, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: repository,
  });
  endWithThis(child);
  const log: string[] = [];
  createInterface({ input: child.stderr }).on('line', (line) => log.push(line));
  const lines = createInterface({ input: child.stdout });
  const gone = once(child, 'exit').then(() => {
    throw new Error(`tomaat ${command} ended before it was ready:\n${log.join('\n')}`);
  });
  const [first] = (await Promise.race([once(lines, 'line'), gone])) as [string];
  gone.catch(() => {});
  const { server } = JSON.parse(first) as { server: string };
  return {
    url: server,
    pid: child.pid as number,
    readyMs: performance.now() - start,
    logged: (message) =>
      log
        .filter((line) => line.includes(message))
        .map((line) => JSON.parse(line) as Record<string, unknown>)
        .filter((entry) => entry.msg === message),
    [Symbol.asyncDispose]: () => stopProcess(child),
  };
}

/** Makes sure that a process does not outlive this one if this one is interrupted. */
export function endWithThis(child: ChildProcess): void {
  const end = () => child.kill('SIGTERM');
  process.once('exit', end);
  child.once('exit', () => process.off('exit', end));
}

/** Asks a process to exit and waits until it has. */
export async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  await exit;
}

/** A process and all its descendants, by id: the fields of /proc/ID/stat after the name. */
function statOfTree(pid: number): Map<number, string[]> {
  const stats = new Map<number, string[]>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
      // The name in parentheses may contain anything; it is followed by state, parent … utime (12th), stime.
      stats.set(Number(entry), stat.slice(stat.lastIndexOf(')') + 2).split(' '));
    } catch {
      // It has exited meanwhile.
    }
  }
  const belongs = (id: number): boolean => id > 1 && (id === pid || belongs(Number(stats.get(id)?.[1] ?? 0)));
  return new Map([...stats].filter(([id]) => belongs(id)));
}

/**
 * CPU seconds (user + system) used by a process and its descendants; undefined where the system does not report it
 * (it is read from /proc).
 */
export function cpuSeconds(pid: number): number | undefined {
  if (process.platform !== 'linux') return undefined;
  let ticks = 0;
  for (const fields of statOfTree(pid).values()) ticks += Number(fields[11]) + Number(fields[12]);
  return ticks / 100;
}

/** Peak memory (MB) of the largest of those processes; undefined where the system does not report it. */
export function peakMemoryMb(pid: number): number | undefined {
  if (process.platform !== 'linux') return undefined;
  let peak = 0;
  for (const id of statOfTree(pid).keys()) {
    try {
      const found = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${id}/status`, 'utf8'));
      peak = Math.max(peak, (Number(found?.[1] ?? 0) * 1024) / 1e6);
    } catch {
      // It has exited meanwhile.
    }
  }
  return peak;
}
