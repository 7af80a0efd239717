import { TomaatError } from '@tomaat/core';
import type { ComputeDevice } from './devices.ts';

/**
 * What onnxruntime's arenas, CUDA, cuDNN, cuBLAS and Vulkan say when a card has no memory left, and what onnxruntime says after WebGPU gave
 * it no buffer, or where a tensor is larger than its buffers may be. Their errors have no codes.
 */
const noMemory =
  /failed to allocate|allocation failed|out of (device )?memory|bad_alloc|_ALLOC_FAILED|cudaErrorMemoryAllocation|OUT_OF_DEVICE_MEMORY|Invalid Buffer .{0,60}is invalid due to a previous error|Too many storage buffers in shader/i;

/** OUT_OF_MEMORY, with what may fit, if an error of the engine says that the card is full; undefined for other errors. */
export function outOfCardMemory(
  message: string,
  {
    name,
    device,
    dims,
    cause,
  }: { name: string; device: ComputeDevice; dims?: readonly number[]; cause: unknown },
): TomaatError | undefined {
  if (!noMemory.test(message)) return undefined;
  if (!dims) {
    return new TomaatError(
      'OUT_OF_MEMORY',
      `${device.title} has not enough free memory to load the network ${name}. End other programs that use the card, or choose another --device.`,
      { cause },
    );
  }
  const least = smaller(dims.slice(dims.length === 5 ? 2 : -2));
  return new TomaatError(
    'OUT_OF_MEMORY',
    `The network ${name} ran out of the memory of ${device.title} on a tensor of ${dims.join(' × ')}. About ${least.join(' × ')} voxels at once may fit. Send a smaller or coarser volume; the author of the app can use the sliding window or a smaller roiSize; the operator of the server can choose a larger card or --device cpu.`,
    { cause, detail: { device: device.device, fittingSize: least } },
  );
}

/** The same proportions with half of the voxels, x first. */
function smaller(axes: readonly number[]): number[] {
  const factor = 0.5 ** (1 / axes.length);
  return axes.map((length) => Math.max(1, Math.floor(length * factor))).reverse();
}
