import { env, InferenceSession, Tensor } from 'onnxruntime-web/jspi';
import script from 'onnxruntime-web/ort-wasm-simd-threaded.jspi.mjs?url';
import wasm from 'onnxruntime-web/ort-wasm-simd-threaded.jspi.wasm?url';
import type { Engine } from './onnx-session.ts';

/*
 * onnxruntime on WebGPU. Of its builds the one for browsers that can suspend WebAssembly (JSPI): 16.8 MB, 3.1 MB as sent; that for all
 * browsers has 26.8 MB. It is loaded only where there is a device.
 */

export interface OpenedGpu {
  /** For the record, as the browser describes it. */
  readonly title: string;
  readonly engine: Engine;
  /** Rejects when the device is lost, and does not settle otherwise. The engine has a device only with its first session. */
  lost(): Promise<never>;
}

/** What is used of WebGPU's interfaces. */
interface Gpu {
  requestAdapter(options: { powerPreference: 'high-performance' }): Promise<Adapter | null>;
}
interface Adapter {
  readonly info?: { readonly vendor?: string; readonly architecture?: string; readonly description?: string };
}
interface Device {
  readonly lost: Promise<{ readonly message: string }>;
}

/** The device of this browser; undefined if it has none. */
export async function openWebGpu(): Promise<OpenedGpu | undefined> {
  const { gpu } = navigator as unknown as { gpu: Gpu };
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) return undefined;
  env.wasm.wasmPaths = { mjs: script, wasm };
  env.wasm.numThreads = 1;
  env.logLevel = 'fatal';
  const { vendor, architecture, description } = adapter.info ?? {};
  const title = description || [vendor, architecture].filter(Boolean).join(' ') || 'an unnamed device';
  return { title, engine: { InferenceSession, Tensor, provider: 'webgpu' }, lost };
}

let losing: Promise<never> | undefined;

function lost(): Promise<never> {
  losing ??= Promise.resolve(env.webgpu.device as unknown as Promise<Device>).then(async (device) => {
    const { message } = await device.lost;
    throw new Error(`the device was lost${message ? ` (${message})` : ''}`);
  });
  // Whether anything waits for it or not.
  losing.catch(() => {});
  return losing;
}
