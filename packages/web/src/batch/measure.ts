import type { LabelVolume, Volume } from '@tomaat/core';
import type { Picture } from '../dicom/messages.ts';

export interface MeasureRequest {
  readonly labelMap: Blob;
  /** The files of the scan, or its voxels; missing if this page no longer has them. */
  readonly scan?: readonly File[] | Volume;
  readonly labels: readonly { readonly value: number; readonly name: string; readonly color?: string }[];
  /** For labels without a colour of their own. */
  readonly colors: readonly string[];
}

export type MeasureReply =
  | { readonly volumes: readonly LabelVolume[]; readonly picture: Picture; readonly error?: undefined }
  | { readonly error: string };

let last: Promise<unknown> = Promise.resolve();
let worker: Worker | undefined;

/**
 * Measures and draws a result in a worker, one after the other: no more than one scan is decoded at a time.
 *
 * @param prepare called when it is its turn
 */
export function measureInTurn(prepare: () => Promise<MeasureRequest>): Promise<MeasureReply> {
  const turn = last.then(async () => ask(await prepare()));
  last = turn.catch(() => undefined);
  return turn;
}

function ask(request: MeasureRequest): Promise<MeasureReply> {
  worker ??= new Worker(new URL('./measure-worker.ts', import.meta.url), { type: 'module' });
  const asked = worker;
  return new Promise((resolve) => {
    asked.onmessage = ({ data }: MessageEvent<MeasureReply>) => resolve(data);
    asked.onerror = () => {
      asked.terminate();
      worker = undefined;
      resolve({ error: 'The part of this page that measures results stopped. Try this scan again.' });
    };
    asked.postMessage(request);
  });
}
