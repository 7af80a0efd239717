import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));

function folder(variable: string, fallback: string): string | undefined {
  const path = resolve(root, process.env[variable] ?? fallback);
  if (existsSync(path)) return path;
  if (process.env[variable]) throw new Error(`${variable} names ${path}, which does not exist`);
  return undefined;
}

/** Where the real images are, or undefined: tests that need them skip, visibly. */
export const dataFolder = (): string | undefined => folder('TOMAAT_TEST_DATA', '../shared/data');

/** Where the real networks are, or undefined. */
export const modelsFolder = (): string | undefined => folder('TOMAAT_TEST_MODELS', '../shared/models');

/** Where folders of MONAI and nnU-Net with their authors' own results are, or undefined. */
export const importFolder = (): string | undefined => folder('TOMAAT_TEST_IMPORT', '../shared/import');

/** True if tests are wanted that take long and prove more of the same: `TOMAAT_SLOW=1` does so in `.ci/extra`. */
export const isSlowWanted = (): boolean => Boolean(process.env.TOMAAT_SLOW);
