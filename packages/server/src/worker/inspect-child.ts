import { TomaatError } from '@tomaat/core';
import { readOnnxSignature } from '../runtimes/onnx-signature.ts';
import { behaveAsChild } from './behave-as-child.ts';
import type { Inspected } from './inspect-model.ts';
import { isOutOfMemory } from './out-of-memory.ts';

/* Reads what the network in an ONNX file takes and gives, reports it to its parent, and ends. */

behaveAsChild();
process.on('disconnect', () => process.exit(1));

async function inspect(file: string): Promise<Inspected> {
  try {
    return { signature: await readOnnxSignature(file) };
  } catch (error) {
    if (error instanceof TomaatError) return { error: error.toJSON() };
    if (!isOutOfMemory(error)) throw error;
    return { error: { code: 'OUT_OF_MEMORY', message: 'There is not enough memory to load the model.' } };
  }
}

const inspected = await inspect(process.argv[2]);
process.send?.(inspected, () => process.exit(0));
