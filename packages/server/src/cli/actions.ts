import type { LoadedConfig } from '../config.ts';
import type { CheckApp } from './check.ts';
import type { RunApp } from './run.ts';

/**
 * The actions of the commands that serve or compute; each returns the exit code. A command without an action is not
 * offered.
 */
export interface Actions {
  up?(config: LoadedConfig, options: { appFolders: string[]; demo: boolean; json: boolean }): Promise<number>;
  serve?(config: LoadedConfig, options: { appFolders: string[]; json: boolean }): Promise<number>;
  registry?(config: LoadedConfig, options: { json: boolean }): Promise<number>;
  /** Loads what runs an app without a server. */
  runApp?(): Promise<RunApp>;
  /** Loads what checks an app. */
  checkApp?(): Promise<CheckApp>;
}

export const actions: Actions = {
  up: async (config, options) => (await import('./serve.ts')).up(config, options),
  serve: async (config, options) => (await import('./serve.ts')).serve(config, options),
  runApp: async () => (await import('./local.ts')).runLocally,
  checkApp: async () => (await import('../check-app.ts')).checkApp,
  registry: async (config, options) => (await import('./registry.ts')).registry(config, options),
};
