import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ErrorData, TomaatError } from '@tomaat/core';
import type { OnnxSignature } from '../runtimes/onnx-signature.ts';
import { ownExtension } from '../source.ts';
import { askChild } from './ask-child.ts';

/** The message of the child. */
export type Inspected = { readonly signature: OnnxSignature } | { readonly error: ErrorData };

const childFile = fileURLToPath(new URL(`./inspect-child${ownExtension}`, import.meta.url));

/**
 * What the network in an ONNX file takes and gives, read in a separate process.
 * @throws {TomaatError} BAD_MANIFEST if the file is not a model, or ends the process that loads it; OUT_OF_MEMORY
 */
export async function inspectModel(file: string, signal: AbortSignal): Promise<OnnxSignature> {
  const said = await askChild<Inspected>(childFile, [file], { signal });
  if ('died' in said) {
    throw new TomaatError(
      'BAD_MANIFEST',
      `The process that loaded ${basename(file)} ${said.died}: ${said.lastWords}. Check the model with onnx.checker, and export it again.`,
    );
  }
  if ('error' in said.answer) throw TomaatError.from(said.answer.error);
  return said.answer.signature;
}
