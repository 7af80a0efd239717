import { type ErrorData, TomaatError, type Volume, voxelCount } from '@tomaat/core';
import { type Prepared, prepare, type Reduction } from './prepare.ts';
import type { Given } from './prepare-worker.ts';

/** Under this many voxels it takes less time than to start a worker. */
const smallVoxels = 1_000_000;

const openWorker = () => new Worker(new URL('./prepare-worker.ts', import.meta.url), { type: 'module' });
/** The next ones, for a scan and its labels, started while nobody waits. One that has worked is not used again: its memory goes with it. */
const spares: Worker[] = [];
function keepSpares(): void {
  if (typeof Worker === 'undefined') return;
  while (spares.length < 2) {
    const opened = openWorker();
    spares.push(opened);
    // One that did not start would never answer.
    opened.onerror = () => {
      const at = spares.indexOf(opened);
      if (at >= 0) spares.splice(at, 1);
    };
  }
}
keepSpares();

/** A volume of more bytes is given to the worker in slabs of at least as many: it works on one while the next is copied. */
const slabBytes = 16e6;

/** `prepare()` without blocking the page. The worker gets a copy of the first component, and ends with the call. */
export async function prepareApart(volume: Volume, by: Reduction): Promise<Prepared> {
  if (voxelCount(volume) < smallVoxels) return prepare(volume, by);
  const worker = spares.shift() ?? openWorker();
  try {
    return await new Promise<Prepared>((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<{ prepared: Prepared } | { error: ErrorData }>) =>
        'error' in data ? reject(TomaatError.from(data.error)) : resolve(data.prepared);
      worker.onerror = () =>
        reject(
          new TomaatError(
            'INTERNAL',
            'The part of this page that prepares volumes for drawing stopped. Reload the page and try again.',
          ),
        );
      give(worker, volume, by).catch(reject);
    });
  } finally {
    worker.terminate();
    keepSpares();
  }
}

async function give(worker: Worker, volume: Volume, by: Reduction): Promise<void> {
  const { size, affine } = volume;
  const post = (given: Given, voxels: Volume['voxels']) =>
    worker.postMessage(given, [voxels.buffer as ArrayBuffer]);
  if (by.kind === 'labels' || by.factor === 1) {
    const voxels = planesOf(volume, 0, size[2]);
    post({ volume: { ...volume, components: 1, voxels }, by }, voxels);
    return;
  }
  const { factor } = by;
  const planeBytes = size[0] * size[1] * volume.voxels.BYTES_PER_ELEMENT;
  const step = factor * Math.max(1, Math.ceil(slabBytes / (factor * planeBytes)));
  worker.postMessage({ grid: { size, affine }, factor } satisfies Given);
  for (let z = 0; z < size[2]; z += step) {
    // Between slabs the page can answer.
    if (z > 0) await pause();
    const planes = planesOf(volume, z, z + step);
    post({ planes, isLast: z + step >= size[2] }, planes);
  }
}

/** Whatever waits in the page has its turn. Timers would add 4 ms each. */
const pause = (): Promise<void> =>
  new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });

/** A copy of planes along the third axis, of the first component. */
function planesOf(volume: Volume, from: number, to: number): Volume['voxels'] {
  const [nx, ny, nz] = volume.size;
  return volume.voxels.slice(nx * ny * from, nx * ny * Math.min(to, nz)) as Volume['voxels'];
}
