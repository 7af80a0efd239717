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
  /**
   * Rejects when the device is lost or refuses a command, after which its numbers are not to be trusted; does not settle otherwise. The engine has a
   * device only with its first session.
   */
  failed(): Promise<never>;
}

/** What is used of WebGPU's interfaces. */
interface Gpu {
  requestAdapter(options: { powerPreference: 'high-performance' }): Promise<Adapter | null>;
}
interface Adapter {
  readonly info?: { readonly vendor?: string; readonly architecture?: string; readonly description?: string };
}
interface Device extends EventTarget {
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
  return { title, engine: { InferenceSession, Tensor, provider: 'webgpu' }, failed };
}

let failing: Promise<never> | undefined;

function failed(): Promise<never> {
  failing ??= Promise.resolve(env.webgpu.device as unknown as Promise<Device>).then(failureOf);
  // Whether anything waits for it or not.
  failing.catch(() => {});
  return failing;
}

const failureOf = (device: Device): Promise<never> =>
  new Promise((_, reject) => {
    void device.lost.then(({ message }) =>
      reject(new Error(`the device was lost${message ? ` (${message})` : ''}`)),
    );
    device.addEventListener('uncapturederror', (event) => {
      const { error } = event as Event & { readonly error: { readonly message: string } };
      reject(new Error(`the device refused a command (${error.message})`));
    });
  });
