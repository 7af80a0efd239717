import { access, constants, lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import type { CommandSpec } from './program-process.ts';

const exists = (path: string) =>
  lstat(path).then(
    () => true,
    () => false,
  );

/**
 * A program of Python in the app's own environment, the folder `venv`, which `tomaat import --command` makes a link. No app carries it
 * to another machine.
 * @throws {TomaatError} BAD_MANIFEST if the environment is not there, with the commands that make it
 */
export async function checkEnvironment({ command: [program] }: CommandSpec, folder: string): Promise<void> {
  if (!program.startsWith('venv/') || !(await exists(join(folder, 'requirements.lock')))) return;
  try {
    await access(join(folder, program), constants.X_OK);
  } catch (error) {
    const remove = (await exists(join(folder, 'venv'))) ? 'rm -rf venv && ' : '';
    throw new TomaatError(
      'BAD_MANIFEST',
      `The app’s Python environment is not on this machine: ${program} does not exist, or cannot be executed. In ${folder}, run “${remove}python3 -m venv venv && venv/bin/python3 -m pip install -r requirements.lock”; its README.md says with which Python.`,
      { field: 'model.command', cause: error },
    );
  }
}
