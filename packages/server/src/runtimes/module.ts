import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { pathToFileURL } from 'node:url';
import {
  type AppContext,
  checkDeclaration,
  type InputValue,
  type ModelSpec,
  type OutputValue,
  TomaatError,
} from '@tomaat/core';
import { type App, appFile } from '../apps.ts';
import { isTypeScript, runsTypeScript } from './app-modules.ts';
import type { Runtime } from './runtime.ts';

/**
 * An app in TypeScript or JavaScript: a module that exports the three functions of the first TOMAAT. Only
 * `infer` is needed; without `postprocess` it returns the outputs itself.
 */
export interface AppModule {
  preprocess?(inputs: Readonly<Record<string, InputValue>>, context: AppContext): unknown;
  infer(data: unknown, context: AppContext): unknown;
  postprocess?(result: unknown, inputs: Readonly<Record<string, InputValue>>, context: AppContext): unknown;
}

/** A module as on disk: its functions, or an app made by `defineApp()` as its default. */
interface LoadedModule extends Partial<AppModule> {
  default?: Partial<AppModule> & { inputs?: unknown; outputs?: unknown };
}

export const moduleRuntime: Runtime<Extract<ModelSpec, { runtime: 'module' }>> = {
  name: 'module',
  description:
    'A TypeScript or JavaScript module that exports infer, or an app of defineApp() as its default',
  async open(app, spec) {
    const loaded = await load(await moduleFile(app, spec.file), spec.file);
    const isDefault = typeof loaded.infer !== 'function' && typeof loaded.default?.infer === 'function';
    const module = (isDefault ? loaded.default : loaded) as AppModule;
    if (typeof module.infer !== 'function') {
      throw new TomaatError(
        'BAD_MANIFEST',
        `${spec.file} must export a function infer, or an app of defineApp() as its default.`,
        { field: 'model.file' },
      );
    }
    if (isDefault) checkDeclaration(spec.file, loaded.default!, app.manifest);
    return {
      kind: 'program',
      async run(inputs, context) {
        const data = module.preprocess ? await module.preprocess(inputs, context) : inputs;
        const result = await module.infer(data, context);
        const outputs = module.postprocess ? await module.postprocess(result, inputs, context) : result;
        if (typeof outputs !== 'object' || outputs === null || Array.isArray(outputs)) {
          throw new TomaatError('APP_OUTPUT', `${spec.file} must return its outputs by name, as an object.`);
        }
        return outputs as Record<string, OutputValue>;
      },
    };
  },
};

/** The file to import: if this Node cannot run TypeScript, the JavaScript compiled next to it. */
async function moduleFile(app: App, file: string): Promise<string> {
  const found = await appFile(app, file);
  if (runsTypeScript || !isTypeScript(found)) return found;
  const compiled = found.replace(/\.(m?)ts$/, '.$1js');
  if (existsSync(compiled)) return compiled;
  throw new TomaatError(
    'BAD_MANIFEST',
    `${file} is TypeScript, which Node ${process.version} does not run. Use Node 24 or newer, or compile it to ${basename(compiled)} next to it.`,
    { field: 'model.file' },
  );
}

async function load(path: string, file: string): Promise<LoadedModule> {
  try {
    return (await import(pathToFileURL(path).href)) as LoadedModule;
  } catch (error) {
    throw new TomaatError('BAD_MANIFEST', `${file} cannot be loaded: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
