import { ownNodeOptions } from '../source.ts';

/** The least that a Node process needs: V8's own reservations count as its data. */
const leastMb = 800;

/**
 * The command that runs one of this package's files in a separate Node process, with at most `dataMb` (10^6 bytes) of
 * memory where the system can limit it (`ulimit -d`: not on Windows). A lower existing limit stays in force.
 */
export function limitedNode(
  file: string,
  args: readonly string[],
  dataMb?: number,
): [file: string, args: string[]] {
  const node = [...ownNodeOptions, file, ...args];
  if (dataMb === undefined || process.platform === 'win32') return [process.execPath, node];
  const limitKb = String(Math.max(leastMb, dataMb) * 1000);
  const script = 'ulimit -d "$1" 2>/dev/null || :; shift; exec "$@"';
  return ['/bin/sh', ['-c', script, 'sh', limitKb, process.execPath, ...node]];
}
