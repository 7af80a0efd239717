import { pathToFileURL } from 'node:url';
import {
  type AppContext,
  type InputValue,
  type ModelSpec,
  type OutputValue,
  TomaatError,
} from '@tomaat/core';
import { appFile } from '../apps.ts';
import type { Runtime } from './runtimes.ts';

/**
 * An app in TypeScript or JavaScript: a module that exports the three functions of the first TOMAAT. Only
 * `infer` is needed; without `postprocess` it returns the outputs itself.
 */
export interface AppModule {
  preprocess?(inputs: Readonly<Record<string, InputValue>>, context: AppContext): unknown;
  infer(data: unknown, context: AppContext): unknown;
  postprocess?(result: unknown, inputs: Readonly<Record<string, InputValue>>, context: AppContext): unknown;
}

export const moduleRuntime: Runtime<Extract<ModelSpec, { runtime: 'module' }>> = {
  name: 'module',
  description: 'A TypeScript or JavaScript module that exports preprocess, infer and postprocess',
  async open(app, spec) {
    const file = await appFile(app, spec.file);
    let module: AppModule;
    try {
      module = (await import(pathToFileURL(file).href)) as AppModule;
    } catch (error) {
      throw new TomaatError('BAD_MANIFEST', `${spec.file} cannot be loaded: ${(error as Error).message}`, {
        cause: error,
      });
    }
    if (typeof module.infer !== 'function') {
      throw new TomaatError('BAD_MANIFEST', `${spec.file} has to export a function infer.`, {
        field: 'model.file',
      });
    }
    return {
      kind: 'program',
      async run(inputs, context) {
        const data = module.preprocess ? await module.preprocess(inputs, context) : inputs;
        const result = await module.infer(data, context);
        const outputs = module.postprocess ? await module.postprocess(result, inputs, context) : result;
        if (typeof outputs !== 'object' || outputs === null || Array.isArray(outputs)) {
          throw new TomaatError(
            'APP_OUTPUT',
            `${spec.file} has to return its outputs by name, as an object.`,
          );
        }
        return outputs as Record<string, OutputValue>;
      },
    };
  },
};
