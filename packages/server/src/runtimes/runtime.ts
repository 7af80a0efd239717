import type { LoadedModel, ModelSpec } from '@tomaat/core';
import type { App } from '../apps.ts';
import type { ModelServers } from '../trust/model-servers.ts';
import type { ComputeDevice } from './devices.ts';
import type { FreeMemory } from './onnx-options.ts';

/** What a runtime needs to know about its process. */
export interface RuntimeContext {
  /** The folder of the job that runs now: a program's input and output folders are created here. */
  readonly folder: string;
  /** Aborts when this process is about to end: programs that are kept between predictions end then. */
  readonly closing: AbortSignal;
  /** What is permitted of model servers; missing for an app that uses none. */
  readonly modelServers?: ModelServers;
  /** What computes networks of this process; the processor if missing. */
  readonly device?: ComputeDevice;
  /** What this process may still take of its memory limit; missing where a model is only tried. */
  readonly freeMemory?: () => FreeMemory | undefined;
  /** Takes a line for the log. */
  readonly log?: (text: string) => void;
  onSpawn(pid: number): void;
  onExit(pid: number): void;
}

export interface Runtime<Spec extends ModelSpec> {
  readonly name: Spec['runtime'];
  readonly description: string;
  open(app: App, spec: Spec, context: RuntimeContext): Promise<LoadedModel>;
}
