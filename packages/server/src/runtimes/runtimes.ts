import type { LoadedModel, ModelSpec } from '@tomaat/core';
import type { App } from '../apps.ts';

/** What a runtime needs to know of the process that it runs in. */
export interface RuntimeContext {
  /** The folder of the job: a program's input and output folders are made here. */
  folder: string;
  signal: AbortSignal;
  onSpawn(pid: number): void;
  onExit(pid: number): void;
}

export interface Runtime<Spec extends ModelSpec> {
  readonly name: Spec['runtime'];
  readonly description: string;
  open(app: App, spec: Spec, context: RuntimeContext): Promise<LoadedModel>;
}

type RuntimeTable = {
  [Name in ModelSpec['runtime']]: () => Promise<Runtime<Extract<ModelSpec, { runtime: Name }>>>;
};

/** The table of runtimes; each is imported only by the child that needs it. */
const runtimes: RuntimeTable = {
  onnx: async () => (await import('./onnx.ts')).onnxRuntime,
  module: async () => (await import('./module.ts')).moduleRuntime,
  command: async () => (await import('./command.ts')).commandRuntime,
};

/** Loads a model of an app. BAD_MANIFEST or APP_FAILED say what is wrong with it. */
export async function openModel(app: App, spec: ModelSpec, context: RuntimeContext): Promise<LoadedModel> {
  const runtime = (await runtimes[spec.runtime]()) as Runtime<ModelSpec>;
  return runtime.open(app, spec, context);
}
