import {
  chooseInput,
  chooseOutput,
  convertOutput,
  type ModelSpec,
  type NetworkSession,
  networkValuesOf,
  saysOutOfMemory,
  type Tensor,
  TomaatError,
  toHalf,
} from '@tomaat/core';
import type { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-web';

/*
 * Networks in ONNX files, run by onnxruntime. A run in WebAssembly blocks the worker that calls it, and cannot be stopped but with
 * the worker. The engine's files come from this server, like all of the page.
 */

export type OnnxSpec = Extract<ModelSpec, { runtime: 'onnx' }>;

/** One of the engine's builds, and what it computes on. */
export interface Engine {
  readonly InferenceSession: typeof InferenceSession;
  readonly Tensor: typeof OrtTensor;
  readonly provider: 'wasm' | 'webgpu';
}

/**
 * Opens a network for core to drive.
 *
 * @throws TomaatError BAD_MANIFEST if the file is not a network that takes one float tensor, or has its weights elsewhere;
 *   OUT_OF_MEMORY
 */
export async function openSession(
  bytes: Uint8Array,
  spec: OnnxSpec,
  { InferenceSession, Tensor: OrtTensor, provider }: Engine,
): Promise<NetworkSession> {
  const name = spec.file;
  const isSlice = spec.inferer.type === 'slice';
  const session = await InferenceSession.create(bytes, {
    executionProviders: [provider],
    logSeverityLevel: 4,
  }).catch((cause: unknown) => {
    throw loadError(cause, name);
  });
  const input = chooseInput(networkValuesOf(session.inputMetadata), name, spec.input, isSlice);
  const output = chooseOutput(networkValuesOf(session.outputMetadata), name, spec.output);
  const inputDims = input.shape.map((d) => (typeof d === 'number' ? d : null));
  return {
    inputDims: inputDims.length > 0 ? inputDims : new Array<null>(isSlice ? 4 : 5).fill(null),
    async run({ data, dims }: Tensor) {
      try {
        const feed =
          input.type === 'float16'
            ? new OrtTensor('float16', toHalf(data), dims)
            : new OrtTensor('float32', data, dims);
        const results = await session.run({ [input.name]: feed }, [output.name]);
        const { type, data: values, dims: shape } = results[output.name];
        return convertOutput({ type, data: values, dims: shape }, name);
      } catch (cause) {
        throw runError(cause, name, dims);
      }
    },
  };
}

const messageOf = (cause: unknown) => (cause instanceof Error ? cause.message : String(cause));

const outOfMemory = (name: string, cause: unknown): TomaatError =>
  new TomaatError(
    'OUT_OF_MEMORY',
    `The memory that this browser gives a page does not suffice for the network ${name}. Crop or resample the volume, close other pages, or send it to the server.`,
    { cause },
  );

function loadError(cause: unknown, name: string): TomaatError {
  const message = messageOf(cause);
  if (saysOutOfMemory(message)) return outOfMemory(name, cause);
  return new TomaatError(
    'BAD_MANIFEST',
    `This browser cannot load the network ${name}: ${message.trim()}. Send the volume to the server; networks with weights in a separate file run only there.`,
    { cause },
  );
}

function runError(cause: unknown, name: string, dims: readonly number[]): TomaatError {
  if (cause instanceof TomaatError) return cause;
  const message = messageOf(cause);
  if (saysOutOfMemory(message)) return outOfMemory(name, cause);
  return new TomaatError(
    'APP_FAILED',
    `The network ${name} failed on a tensor of ${dims.join(' × ')}: ${message.trim()}. Send the volume to the server, and tell the author if it fails there, too.`,
    { cause },
  );
}
