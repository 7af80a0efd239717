import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import type { App } from '../apps.ts';

/*
 * How much memory a prediction may take. The manifest of its app has the first word, then the operator (`memoryMb`); else
 * the predictions that run at a time share what the machine, or the cgroup of this process, has.
 */

/** What predictions may take together; the rest is for this process, the idle models and the system. */
const sharedPart = 0.75;
/** No share is smaller than this: the smallest networks must run on the smallest machines. */
const leastShareMb = 512;
/**
 * `ulimit -d` counts address space that is never touched, too: what V8 reserves (570 MB in Node 24), what the ONNX engine
 * maps ahead (300 to 500 MB with the bundled networks), and the stack of each of its threads (8 MB), one a core.
 */
const reservedMb = 900;
const reservedPerCoreMb = 10;

/** What one prediction of an app may take. */
export interface MemoryLimit {
  /** MB (10^6 bytes) that a caller and the operator are told of. */
  readonly memoryMb: number;
  /** MB that `ulimit -d` is set to. */
  readonly dataMb: number;
  /** Whose word it is. */
  readonly from: 'manifest' | 'operator' | 'machine';
}

/** Gives the limit of an app's predictions; undefined where there is none. */
export type MemoryPolicy = (app: Pick<App, 'manifest'>) => MemoryLimit | undefined;

/**
 * The limits on a machine that computes `slots` predictions at a time; 0 where it computes none, and only manifests and the
 * operator say what may be taken elsewhere. `memoryMb` is the operator's word: 0 for no limit.
 */
export function createMemoryPolicy({
  slots,
  memoryMb,
  machineMb = machineMemoryMb(),
}: {
  slots: number;
  memoryMb?: number;
  /** Memory of the machine, MB; measured if missing. */
  machineMb?: number;
}): MemoryPolicy {
  const shareMb =
    slots > 0 ? Math.max(leastShareMb, Math.floor((machineMb * sharedPart) / slots)) : undefined;
  return ({ manifest }) => {
    // The author has measured with `ulimit -d` itself.
    const { memoryMb: own } = manifest.limits;
    if (own !== undefined) return { memoryMb: own, dataMb: own, from: 'manifest' };
    const mb = memoryMb ?? shareMb;
    if (mb === undefined || mb === 0) return undefined;
    const dataMb = mb + reservedMb + reservedPerCoreMb * availableParallelism();
    return { memoryMb: mb, dataMb, from: memoryMb === undefined ? 'machine' : 'operator' };
  };
}

/** MB (10^6 bytes) that this process may use: the machine's, or less in a container, a unit or a job of a cluster. */
export function machineMemoryMb(): number {
  const limits = [totalmem(), process.constrainedMemory(), ...cgroupLimits()];
  return Math.min(...limits.filter((bytes) => bytes > 0)) / 1e6;
}

/** `memory.max` of this process' cgroup and of all above it (cgroup v2), bytes; what Slurm limits is not the innermost. */
export function cgroupLimits(root = '/sys/fs/cgroup', own = '/proc/self/cgroup'): number[] {
  const path = /^0::(\/.*)$/m.exec(readText(own))?.[1];
  if (path === undefined) return [];
  const names = path.split('/').filter((name) => name !== '');
  return names.flatMap((_, depth) => {
    const text = readText(join(root, ...names.slice(0, depth + 1), 'memory.max')).trim();
    return /^\d{1,18}$/.test(text) ? [Number(text)] : [];
  });
}

/** Empty where the system has no such file. */
function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
