import { readFileSync, writeFileSync } from 'node:fs';
import { isNetworkSpec, type ModelSpec, type NetworkSession, TomaatError } from '@tomaat/core';

/** A run on about so many voxels: much more than those before it, whose memory the engine keeps and takes again. */
const wantedVoxels = 96 ** 3;

/**
 * Bytes by which the memory of this process grows at most in a run of a network that takes the whole volume at once, per voxel of its input: its
 * inside and its output. Measured by a run on zeros, after one on fewer voxels (`dims`: [1, C, z, y, x]); 10 to 20 % too
 * small, by what the engine keeps from before. Undefined for networks that take one size, which was tried then; where the system does not say what
 * a process takes (Linux does); and where there is not enough memory for the run.
 */
export async function measureRunBytes(
  spec: ModelSpec,
  session: NetworkSession,
  dims: readonly number[],
): Promise<number | undefined> {
  if (!isNetworkSpec(spec) || spec.runtime !== 'onnx' || spec.inferer.type !== 'simple') return undefined;
  const fixed = session.inputDims ?? [];
  const isFree = (axis: number) => axis >= 2 && typeof fixed[axis] !== 'number';
  const freeAxes = dims.filter((_, axis) => isFree(axis)).length;
  // A multiple of what it took: networks that halve their input take that, too.
  const factor = Math.round((wantedVoxels / product(dims.slice(2))) ** (1 / freeAxes));
  if (freeAxes === 0 || factor < 2) return undefined;
  const larger = dims.map((n, axis) => (isFree(axis) ? n * factor : n));
  const voxels = product(larger.slice(2));
  const input = { data: new Float32Array(product(larger)), dims: larger };
  const before = resetPeak();
  if (before === undefined) return undefined;
  try {
    await session.run(input);
  } catch (error) {
    // A network may refuse a size that its manifest would never give it.
    if (error instanceof TomaatError) return undefined;
    throw error;
  }
  const peak = memoryOf('VmHWM');
  return peak === undefined ? undefined : Math.max(1, Math.ceil((peak - before) / voxels));
}

const product = (numbers: readonly number[]) => numbers.reduce((a, b) => a * b, 1);

/** Starts the peak of the resident memory of this process again, and returns what it takes now, bytes. */
function resetPeak(): number | undefined {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
  } catch {
    return undefined;
  }
  return memoryOf('VmRSS');
}

function memoryOf(name: 'VmRSS' | 'VmHWM'): number | undefined {
  const line = readFileSync('/proc/self/status', 'utf8')
    .split('\n')
    .find((text) => text.startsWith(`${name}:`));
  const kib = Number.parseInt(line?.slice(name.length + 1) ?? '', 10);
  return Number.isNaN(kib) ? undefined : kib * 1024;
}
