import { ownNodeOptions } from '../source.ts';

/** The least that a Node process lives on: V8's own reservations count as its data. */
const leastMb = 800;

/**
 * The command that runs one of this package's files in a Node of its own, with at most `memoryMb` (10^6 bytes) of
 * memory where the system can bound it (`ulimit -d`: not on Windows).
 */
export function limitedNode(
  file: string,
  args: readonly string[],
  memoryMb?: number,
): [file: string, args: string[]] {
  const node = [...ownNodeOptions, file, ...args];
  if (memoryMb === undefined || process.platform === 'win32') return [process.execPath, node];
  const limitKb = String(Math.max(leastMb, memoryMb) * 1000);
  return ['/bin/sh', ['-c', 'ulimit -d "$1"; shift; exec "$@"', 'sh', limitKb, process.execPath, ...node]];
}
