import { readFileSync } from 'node:fs';
import * as nodeModule from 'node:module';
import { fileURLToPath } from 'node:url';

/*
 * How the modules of apps are loaded. The required functions of node:module do not exist in the oldest Node that
 * openApp() supports, so they are looked up, not imported by name.
 */

const { registerHooks, stripTypeScriptTypes } = nodeModule as Partial<typeof nodeModule>;

export const isTypeScript = (path: string): boolean => /\.[cm]?ts$/.test(path);

/** Whether apps may be TypeScript in this Node. */
export const runsTypeScript = registerHooks !== undefined && stripTypeScriptTypes !== undefined;

/**
 * Lets the modules of apps import @tomaat/core wherever their folder is (they get the running one), and be TypeScript
 * even in node_modules, where Node itself strips no types. A process that loads apps calls this first. A Node without
 * hooks (before 22.15) looks @tomaat/core up in the folders above the app.
 */
export function registerAppModules(): void {
  registerHooks?.({
    resolve(specifier, context, next) {
      if (specifier !== '@tomaat/core') return next(specifier, context);
      return next(specifier, { ...context, parentURL: import.meta.url });
    },
    load(url, context, next) {
      if (!url.startsWith('file:') || !stripTypeScriptTypes) return next(url, context);
      const path = fileURLToPath(url);
      const isLeft = /[\\/]node_modules[\\/]/.test(path) || !process.features.typescript;
      if (!isTypeScript(path) || !isLeft) return next(url, context);
      return {
        format: path.endsWith('.cts') ? 'commonjs' : 'module',
        source: stripTypeScriptTypes(readFileSync(path, 'utf8')),
        shortCircuit: true,
      };
    },
  });
}
