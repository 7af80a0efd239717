import { readFileSync } from 'node:fs';
import * as nodeModule from 'node:module';
import { fileURLToPath } from 'node:url';

/*
 * How the modules of apps are loaded. The functions of node:module that this needs are younger than the oldest Node that
 * openApp() runs in, so that they are looked up, not imported by name.
 */

const { registerHooks, stripTypeScriptTypes } = nodeModule as Partial<typeof nodeModule>;

export const isTypeScript = (path: string): boolean => /\.[cm]?ts$/.test(path);

/** Whether apps may be TypeScript in this Node. */
export const runsTypeScript = registerHooks !== undefined && stripTypeScriptTypes !== undefined;

/**
 * Lets the modules of apps import @tomaat/core wherever their folder lies (they get the one that runs here), and be TypeScript
 * in node_modules, too, where Node itself strips no types. To be called first by a process that loads apps. A Node without
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
