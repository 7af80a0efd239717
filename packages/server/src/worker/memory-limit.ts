import { readFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import type { App } from '../apps.ts';
import type { ComputeDevice } from '../runtimes/devices.ts';

/*
 * How much memory a prediction may take. The manifest of its app takes precedence, then the operator (`memoryMb`); otherwise
 * concurrent predictions share the memory of the machine, or of the cgroup of this process.
 */

/** What predictions may take together; the rest is for this process, the idle models and the system. */
const sharedPart = 0.75;
/** No share is smaller than this: the smallest networks must run on the smallest machines. */
const leastShareMb = 512;
/**
 * `ulimit -d` also counts untouched address space: what V8 reserves (570 MB in Node 24), what the ONNX engine
 * maps in advance (300 to 500 MB with the bundled networks), and the stack of each of its threads (8 MB), one per core.
 */
const reservedMb = 900;
const reservedPerCoreMb = 10;

/** What one prediction of an app may take. */
export interface MemoryLimit {
  /** MB (10^6 bytes), as shown to callers and the operator. */
  readonly memoryMb: number;
  /** MB that `ulimit -d` is set to. */
  readonly dataMb: number;
  /** Who set it. */
  readonly from: 'manifest' | 'operator' | 'machine';
}

/** Returns the limit of an app's predictions; undefined without a limit. */
export interface MemoryPolicy {
  (app: Pick<App, 'manifest'>): MemoryLimit | undefined;
  /** The card with the least memory of those that compute networks, if they have a known one: any of them may get a prediction. */
  readonly card?: { readonly title: string; readonly memoryMb: number };
}

/**
 * The limits on a machine that computes `slots` concurrent predictions; with 0 it computes none, and only manifests and the
 * operator limit what remote workers may take. `memoryMb` is the operator's limit: 0 for none.
 */
export function createMemoryPolicy({
  slots,
  memoryMb,
  devices = [],
  machineMb = machineMemoryMb(),
}: {
  slots: number;
  memoryMb?: number;
  /** What computes networks; the processor if missing. */
  devices?: readonly ComputeDevice[];
  /** Memory of the machine, MB; measured if missing. */
  machineMb?: number;
}): MemoryPolicy {
  const shareMb =
    slots > 0 ? Math.max(leastShareMb, Math.floor((machineMb * sharedPart) / slots)) : undefined;
  const policy = ({ manifest }: Pick<App, 'manifest'>): MemoryLimit | undefined => {
    // The author has measured with `ulimit -d` itself.
    const { memoryMb: own } = manifest.limits;
    if (own !== undefined) return { memoryMb: own, dataMb: own, from: 'manifest' };
    const mb = memoryMb ?? shareMb;
    if (mb === undefined || mb === 0) return undefined;
    const dataMb = mb + reservedMb + reservedPerCoreMb * availableParallelism();
    return { memoryMb: mb, dataMb, from: memoryMb === undefined ? 'machine' : 'operator' };
  };
  const [card] = devices
    .flatMap(({ title, memoryMb }) => (memoryMb === undefined ? [] : [{ title, memoryMb }]))
    .toSorted((a, b) => a.memoryMb - b.memoryMb);
  return card ? Object.assign(policy, { card }) : policy;
}

/** MB (10^6 bytes) that this process may use: the machine's, or less in a container, a unit or a job of a cluster. */
export function machineMemoryMb(): number {
  const limits = [totalmem(), process.constrainedMemory(), ...cgroupLimits()];
  return Math.min(...limits.filter((bytes) => bytes > 0)) / 1e6;
}

/** `memory.max` of this process's cgroup and of all above it (cgroup v2), bytes; Slurm does not limit the innermost one. */
export function cgroupLimits(root = '/sys/fs/cgroup', own = '/proc/self/cgroup'): number[] {
  const path = /^0::(\/.*)$/m.exec(readText(own))?.[1];
  if (path === undefined) return [];
  const names = path.split('/').filter((name) => name !== '');
  return names.flatMap((_, depth) => {
    const text = readText(join(root, ...names.slice(0, depth + 1), 'memory.max')).trim();
    return /^\d{1,18}$/.test(text) ? [Number(text)] : [];
  });
}

/** Empty if the system has no such file. */
function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
