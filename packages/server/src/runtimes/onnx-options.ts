import type { ComputeDevice } from './devices.ts';

/** What a process may still take, bytes; see worker/free-memory.ts. */
export interface FreeMemory {
  /** Of the machine's memory. */
  readonly resident: number;
  /** As `ulimit -d` counts it. */
  readonly data: number;
}

/** How a network in an ONNX file is opened. */
export interface OnnxOptions {
  /** Threads of one run; default: all of the machine's. */
  threads?: number;
  /** What computes it; the processor if missing. */
  device?: ComputeDevice;
  /** Names in the graph; default: its only input and its first output. */
  inputName?: string;
  outputName?: string;
  /**
   * Offers `runLabels` if the network allows it. For the simple inferer: it saves copying all class scores of a
   * whole volume, but adds an argmax to every run of the network.
   */
  labels?: boolean;
  /** The network is 2-D, for slices: it takes [1, C, y, x] or [C, y, x]. */
  slices?: boolean;
  /** Dimensions of a first run before the session is ready; see `warmUp`. */
  warmUpDims?: readonly number[];
  /**
   * Whether the graph may be rewritten into a faster one with the same results (rewrite-graph.ts); true if missing. Names: by these rewrites,
   * because another session of this process has compared the result.
   */
  rewrite?: boolean | readonly string[];
  /** What this process may still take; faster forms that take more memory are used where they fit. */
  freeMemory?: () => FreeMemory | undefined;
  /** Is told of a trial of faster forms. */
  log?: (text: string) => void;
  /** Components of the input, where the network does not say; 1 if missing. */
  components?: number;
  /** Voxels of a window along x, y and z (x and y for slices), if the network gets windows. */
  roiSize?: readonly number[];
  /** The engine's memory planning: faster only for many runs of one size, and about 40 % more memory at peak. */
  memPattern?: boolean;
}
