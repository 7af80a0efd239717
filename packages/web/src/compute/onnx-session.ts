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
import script from 'onnxruntime-web/ort-wasm-simd-threaded.mjs?url';
import wasm from 'onnxruntime-web/ort-wasm-simd-threaded.wasm?url';
import { env, InferenceSession, Tensor as OrtTensor } from 'onnxruntime-web/wasm';

/*
 * Networks in ONNX files, run by onnxruntime in WebAssembly. A run blocks the worker that calls it, and cannot be
 * stopped but with the worker. Its files come from this server, like all of the page.
 */

type OnnxSpec = Extract<ModelSpec, { runtime: 'onnx' }>;

/** For the record of a prediction. */
export const engineName = (threads: number): string =>
  `onnxruntime-web ${env.versions.web ?? ''} (WebAssembly, ${threads === 1 ? '1 thread' : `${threads} threads`})`;

/**
 * Opens a network for core to drive.
 *
 * @param threads of one run; more than one only where the page is cross-origin isolated
 * @throws TomaatError BAD_MANIFEST if the file is not a network that takes one float tensor, or has its weights elsewhere;
 *   OUT_OF_MEMORY
 */
export async function openNetwork(
  bytes: Uint8Array,
  spec: OnnxSpec,
  threads: number,
): Promise<NetworkSession> {
  env.wasm.wasmPaths = { mjs: script, wasm };
  env.wasm.numThreads = threads;
  env.logLevel = 'fatal';
  const name = spec.file;
  const isSlice = spec.inferer.type === 'slice';
  const session = await InferenceSession.create(bytes, {
    executionProviders: ['wasm'],
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
