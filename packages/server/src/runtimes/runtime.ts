import type { LoadedModel, ModelSpec } from '@tomaat/core';
import type { App } from '../apps.ts';

/** What a runtime needs to know about its process. */
export interface RuntimeContext {
  /** The folder of the job that runs now: a program's input and output folders are created here. */
  readonly folder: string;
  /** Aborts when this process is about to end: programs that are kept between predictions end then. */
  readonly closing: AbortSignal;
  onSpawn(pid: number): void;
  onExit(pid: number): void;
}

export interface Runtime<Spec extends ModelSpec> {
  readonly name: Spec['runtime'];
  readonly description: string;
  open(app: App, spec: Spec, context: RuntimeContext): Promise<LoadedModel>;
}
