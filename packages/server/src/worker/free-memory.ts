import { readFileSync } from 'node:fs';
import type { FreeMemory } from '../runtimes/onnx-options.ts';
import { type MemoryLimit, machineMemoryMb } from './memory-limit.ts';

/** Where the operator sets no limit, a process leaves this part of the machine to others. */
const sharedPart = 0.75;

/** What this process may still take of its limit, bytes; undefined where the system does not say what it has (Linux does). */
export function freeMemory(
  limit: MemoryLimit | undefined,
  status = '/proc/self/status',
): FreeMemory | undefined {
  let text: string;
  try {
    text = readFileSync(status, 'utf8');
  } catch {
    return undefined;
  }
  const lines = text.split('\n');
  const bytesOf = (name: string) =>
    Number.parseInt(lines.find((line) => line.startsWith(`${name}:`))?.slice(name.length + 1) ?? '', 10) *
    1024;
  const [resident, data] = [bytesOf('VmRSS'), bytesOf('VmData')];
  if (Number.isNaN(resident) || Number.isNaN(data)) return undefined;
  return {
    resident: (limit?.memoryMb ?? machineMemoryMb() * sharedPart) * 1e6 - resident,
    data: limit ? limit.dataMb * 1e6 - data : Number.POSITIVE_INFINITY,
  };
}
