import { type ErrorData, TomaatError, type Volume, voxelCount } from '@tomaat/core';
import { type Prepared, prepare, type Reduction } from './prepare.ts';

/** Under this many voxels it takes less time than to start a worker. */
const smallVoxels = 1_000_000;

const openWorker = () => new Worker(new URL('./prepare-worker.ts', import.meta.url), { type: 'module' });
/** The next one, started while nobody waits. One that has worked is not used again: its memory goes with it. */
let spare: Worker | undefined;
function keepSpare(): void {
  if (typeof Worker === 'undefined') return;
  const opened = openWorker();
  spare = opened;
  // One that did not start would never answer.
  opened.onerror = () => {
    if (spare === opened) spare = undefined;
  };
}
keepSpare();

/** `prepare()` without blocking the page. The worker gets a copy of the first component, and ends with the call. */
export async function prepareApart(volume: Volume, by: Reduction): Promise<Prepared> {
  const count = voxelCount(volume);
  if (count < smallVoxels) return prepare(volume, by);
  const worker = spare ?? openWorker();
  spare = undefined;
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
      const voxels = volume.voxels.slice(0, count) as Volume['voxels'];
      worker.postMessage({ volume: { ...volume, components: 1, voxels }, by }, [
        voxels.buffer as ArrayBuffer,
      ]);
    });
  } finally {
    worker.terminate();
    if (!spare) keepSpare();
  }
}
