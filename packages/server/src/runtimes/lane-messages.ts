import type { ErrorData } from '@tomaat/core';
import type { OnnxOptions } from './onnx-options.ts';

/** The messages between a process and its threads that run a network. Voxels are moved, never copied. */

/** What a thread is started with. */
export interface LaneData {
  readonly modelFile: string;
  /** Those of the session in `onnx.ts`, but for its threads, and without a first run on a window. */
  readonly options: Omit<OnnxOptions, 'roiSize' | 'freeMemory' | 'log'>;
}

export interface LaneRun {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

export type FromLane =
  | { readonly type: 'ready' }
  | {
      readonly type: 'done';
      readonly data: Float32Array | Uint8Array | Uint16Array;
      readonly dims: readonly number[];
      readonly integer: boolean;
    }
  | { readonly type: 'failed'; readonly error: ErrorData };
