import type { LoadedModel, ModelSpec } from '@tomaat/core';
import type { App } from '../apps.ts';
import type { Runtime, RuntimeContext } from './runtime.ts';

type RuntimeTable = {
  [Name in ModelSpec['runtime']]: () => Promise<Runtime<Extract<ModelSpec, { runtime: Name }>>>;
};

/** The table of runtimes; each is imported only by the child that needs it. */
const runtimes: RuntimeTable = {
  onnx: async () => (await import('./onnx.ts')).onnxRuntime,
  oip: async () => (await import('./oip.ts')).oipRuntime,
  module: async () => (await import('./module.ts')).moduleRuntime,
  command: async () => (await import('./command.ts')).commandRuntime,
};

/** Loads a model of an app. BAD_MANIFEST or APP_FAILED say what is wrong with it. */
export async function openModel(app: App, spec: ModelSpec, context: RuntimeContext): Promise<LoadedModel> {
  const runtime = (await runtimes[spec.runtime]()) as Runtime<ModelSpec>;
  return runtime.open(app, spec, context);
}
