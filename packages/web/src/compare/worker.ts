import { compareLabelMaps, differenceMap, TomaatError } from '@tomaat/core';
import type { Reply, Request } from './messages.ts';

/* Compares two label maps in a thread of its own: surfaces of large maps take seconds. */

/** What this thread uses of its global object: the page's types have that of a window. */
interface WorkerScope {
  onmessage: (event: MessageEvent<Request>) => void;
  postMessage(reply: Reply, transfer?: Transferable[]): void;
}
const scope = globalThis as unknown as WorkerScope;

scope.onmessage = ({ data: { found, expected, files, names } }) => {
  try {
    const comparison = compareLabelMaps(found, expected, files, names);
    const difference = differenceMap(found, expected, files);
    scope.postMessage({ comparison, difference }, [difference.voxels.buffer as ArrayBuffer]);
  } catch (error) {
    const fault = error instanceof TomaatError ? error : new TomaatError('INTERNAL', String(error));
    scope.postMessage({ error: { ...fault.toJSON(), detail: undefined } });
  }
};
