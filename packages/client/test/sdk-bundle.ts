import { fileURLToPath } from 'node:url';

/** The bundler, if it is installed: for `skipIf`. */
export const rolldown = await import('rolldown').catch(() => undefined);

/** The SDK as one script for a browser, which sets the global `tomaat`. */
export async function bundleSdk(): Promise<string> {
  const bundle = await rolldown!.rolldown({
    input: fileURLToPath(new URL('../src/index.ts', import.meta.url)),
    platform: 'browser',
    resolve: { conditionNames: ['tomaat-source', 'browser', 'import', 'default'] },
    logLevel: 'silent',
  });
  const { output } = await bundle.generate({ format: 'iife', name: 'tomaat', codeSplitting: false });
  await bundle.close();
  return output[0].code;
}
