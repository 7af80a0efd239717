import {
  canaryDims,
  channelCount,
  compareSessions,
  type Manifest,
  type NetworkSession,
  type Tensor,
  TomaatError,
} from '@tomaat/core';
import script from 'onnxruntime-web/ort-wasm-simd-threaded.mjs?url';
import wasm from 'onnxruntime-web/ort-wasm-simd-threaded.wasm?url';
import { env, InferenceSession, Tensor as WasmTensor } from 'onnxruntime-web/wasm';
import { type OnnxSpec, openSession } from './onnx-session.ts';
import type { OpenedGpu } from './webgpu-engine.ts';

/*
 * What computes a network in this browser: WebGPU where it gives the labels that WebAssembly gives, otherwise WebAssembly. What was
 * chosen, and why, is said in the record of the prediction.
 */

export interface Engines {
  /** Opens a network for core to drive; throws as `openSession()`. */
  open(bytes: Uint8Array, spec: OnnxSpec): Promise<NetworkSession>;
  /** What computed, for the record. */
  describe(): string;
}

/** @param threads of one run in WebAssembly; more than one only where the page is cross-origin isolated */
export function createEngines(manifest: Manifest, threads: number): Engines {
  env.wasm.wasmPaths = { mjs: script, wasm };
  env.wasm.numThreads = threads;
  env.logLevel = 'fatal';
  const webAssembly = { InferenceSession, Tensor: WasmTensor, provider: 'wasm' } as const;
  /** What each network was computed on, and what went wrong, each once. */
  const used = new Set<string>();
  const notes = new Set<string>();
  const threaded = `WebAssembly, ${threads === 1 ? '1 thread' : `${threads} threads`}`;
  let gpu: Promise<OpenedGpu | undefined> | undefined;

  async function open(bytes: Uint8Array, spec: OnnxSpec): Promise<NetworkSession> {
    const reference = await openSession(bytes, spec, webAssembly);
    gpu ??= openGpu().catch((error: unknown) => {
      notes.add(`WebGPU could not be started: ${wordsOf(error)}`);
      return undefined;
    });
    const device = await gpu;
    const session = device && (await openEqual(bytes, spec, reference, device));
    if (!session) {
      used.add(threaded);
      return reference;
    }
    used.add(`WebGPU on ${device.title}`);
    return withFallback(session, reference, device, (fault) => {
      used.add(threaded);
      notes.add(`WebGPU failed and WebAssembly continued: ${fault}`);
    });
  }

  /** The network on WebGPU, if it gives the labels of WebAssembly on a canary. */
  async function openEqual(
    bytes: Uint8Array,
    spec: OnnxSpec,
    reference: NetworkSession,
    device: OpenedGpu,
  ): Promise<NetworkSession | undefined> {
    let fault: string | undefined;
    try {
      const session = guarded(await openSession(bytes, spec, device.engine), device);
      fault = await faultOf(manifest, spec, { reference, session });
      if (fault === undefined) return session;
    } catch (error) {
      fault = wordsOf(error);
    }
    notes.add(`WebGPU not used: ${fault}`);
    return undefined;
  }

  return {
    open,
    describe: () =>
      `onnxruntime-web ${env.versions.web ?? ''} (${[[...used].join(', then '), ...notes].join('; ')})`,
  };
}

/** Why a session does not give the labels of the reference; undefined if it does. */
async function faultOf(
  manifest: Manifest,
  spec: OnnxSpec,
  sessions: { reference: NetworkSession; session: NetworkSession },
): Promise<string | undefined> {
  const { inferer } = spec;
  const dims = sessions.reference.inputDims ?? [];
  const roi = inferer.type === 'simple' ? undefined : inferer.roiSize;
  const components = channelCount(spec) ?? 1;
  const hasBatch = roi !== undefined && dims.length > roi.length + 1;
  const window = roi && [
    ...(hasBatch ? [1] : []),
    dims[hasBatch ? 1 : 0] ?? components,
    ...[...roi].reverse(),
  ];
  let refused: unknown;
  for (const tried of canaryDims(dims, window, components)) {
    try {
      return (await compareSessions(manifest, spec, sessions, tried)).fault;
    } catch (error) {
      // Networks refuse sizes that they cannot halve.
      refused = error;
    }
  }
  return refused === undefined ? 'it takes no volume that is small enough to compare both' : wordsOf(refused);
}

/** The session, whose runs end with an error when the device fails. */
function guarded(session: NetworkSession, device: OpenedGpu): NetworkSession {
  const failed = device.failed();
  return { ...session, run: (input: Tensor) => Promise.race([session.run(input), failed]) };
}

/** The session until it fails; what it was given then, and everything later, goes to the other one. */
function withFallback(
  session: NetworkSession,
  other: NetworkSession,
  device: OpenedGpu,
  onFault: (fault: string) => void,
): NetworkSession {
  let chosen = session;
  const change = (error: unknown) => {
    if (chosen === other) return;
    chosen = other;
    onFault(wordsOf(error));
  };
  device.failed().catch(change);
  return {
    inputDims: session.inputDims,
    async run(input) {
      if (chosen === session) {
        try {
          const output = await session.run(input);
          // What the browser has to say of these commands comes as an event.
          await new Promise((resolve) => setTimeout(resolve));
          if (chosen === session) return output;
        } catch (error) {
          change(error);
        }
      }
      return other.run(input);
    },
  };
}

/** Undefined where this browser has no WebGPU, or none that the engine can use. */
async function openGpu(): Promise<OpenedGpu | undefined> {
  const isUsable = 'gpu' in navigator && 'Suspending' in WebAssembly;
  return isUsable ? (await import('./webgpu-engine.ts')).openWebGpu() : undefined;
}

/** One line of what went wrong. */
function wordsOf(error: unknown): string {
  const cause = error instanceof TomaatError && error.cause !== undefined ? error.cause : error;
  const text = cause instanceof Error ? cause.message : String(cause);
  return text.trim().split('\n', 1)[0].slice(0, 300);
}
