import { basename } from 'node:path';
import { networkValuesOf, type NetworkValue as Value } from '@tomaat/core';
import { checkExternalFiles, loadError, readModel, sessionOptions } from './onnx.ts';
import { operatorsOf } from './onnx-graph.ts';

/** What a network takes and gives, as its file states it. */
export interface OnnxSignature {
  /** Dimensions that are free have a name, or an empty one. No dimensions at all: unknown. */
  readonly inputs: readonly Value[];
  /** With the operator that computes each of them, such as Softmax; undefined if the file does not say. */
  readonly outputs: readonly (Value & { readonly operator?: string })[];
  /** Files with weights next to the model. */
  readonly externalFiles: readonly string[];
}

/**
 * Loads an ONNX file into onnxruntime, which infers the shapes, without running it. A fault of native code ends the process: call
 * it in one of its own. Throws BAD_MANIFEST if the file is not a model, OUT_OF_MEMORY.
 */
export async function readOnnxSignature(modelFile: string): Promise<OnnxSignature> {
  const name = basename(modelFile);
  const { bytes, facts } = await readModel(modelFile, name);
  if (facts) await checkExternalFiles(modelFile, name, facts.externalFiles);
  process.env.ORT_DISABLE_TELEMETRY = '1';
  const { InferenceSession } = await import('onnxruntime-node');
  const session = await InferenceSession.create(modelFile, sessionOptions({ threads: 1 })).catch((cause) => {
    throw loadError(cause, name);
  });
  try {
    const operatorOf = facts ? operatorsOf(bytes) : () => undefined;
    return {
      inputs: networkValuesOf(session.inputMetadata),
      outputs: networkValuesOf(session.outputMetadata).map((value) => ({
        ...value,
        operator: operatorOf(value.name),
      })),
      externalFiles: facts?.externalFiles ?? [],
    };
  } finally {
    await session.release();
  }
}
