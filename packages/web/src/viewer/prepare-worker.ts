import { type Grid, numericVoxels, type Volume } from '@tomaat/core';
import { dataOf } from '../worker-errors.ts';
import { type Prepared, prepare, prepareReduced, type Reduction } from './prepare.ts';
import { createReducer, type Reducer, reducedGrid } from './reduce.ts';

/* Prepares one volume for the viewer, and ends. */

/** A whole volume; or a scan in slabs: first its grid, then its planes. */
export type Given =
  | { readonly volume: Volume; readonly by: Reduction }
  | { readonly grid: Grid; readonly factor: number }
  | { readonly planes: Volume['voxels']; readonly isLast: boolean };

interface WorkerScope {
  onmessage: ((event: MessageEvent<Given>) => Promise<void>) | null;
  postMessage(reply: unknown, transfer?: Transferable[]): void;
}
const scope = globalThis as unknown as WorkerScope;

let reducer: Reducer | undefined;
async function take(given: Given): Promise<Prepared | undefined> {
  if ('volume' in given) return prepare(given.volume, given.by);
  if ('grid' in given) {
    reducer = createReducer(given.grid, given.factor);
    return undefined;
  }
  reducer!.add(numericVoxels(given.planes));
  return given.isLast ? prepareReduced(reducer!.finish()) : undefined;
}

scope.onmessage = async ({ data }: MessageEvent<Given>) => {
  try {
    const prepared = await take(data);
    if (prepared) scope.postMessage({ prepared }, [prepared.bytes.buffer]);
  } catch (error) {
    scope.postMessage({ error: dataOf(error) });
  }
};

/**
 * Work of the same kind, before there is a volume: the browser compiles what does it, and the first volume takes half
 * the time.
 */
async function warmUp(): Promise<void> {
  const size = [128, 128, 64] as const;
  const grid: Grid = { size, affine: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1] };
  const scan = Int16Array.from({ length: 128 * 128 * 64 }, (_, i) => i % 99);
  await prepare({ ...grid, components: 1, voxels: scan }, { kind: 'mean', factor: 2 });
  const map = Uint8Array.from(scan, (value) => (value >> 3) % 3);
  await prepare({ ...grid, components: 1, voxels: map }, { kind: 'labels', grid: reducedGrid(grid, 2) });
}
void warmUp();
