import type { Volume } from '@tomaat/core';
import { dataOf } from '../worker-errors.ts';
import { prepare, type Reduction } from './prepare.ts';

/* Prepares one volume for the viewer, and ends. */

interface WorkerScope {
  onmessage: ((event: MessageEvent<Given>) => Promise<void>) | null;
  postMessage(reply: unknown, transfer?: Transferable[]): void;
}
interface Given {
  readonly volume: Volume;
  readonly by: Reduction;
}
const scope = globalThis as unknown as WorkerScope;

scope.onmessage = async ({ data }: MessageEvent<Given>) => {
  try {
    const prepared = await prepare(data.volume, data.by);
    scope.postMessage({ prepared }, [prepared.bytes.buffer]);
  } catch (error) {
    scope.postMessage({ error: dataOf(error) });
  }
};
