import { isNetworkSpec, type ModelSpec } from '@tomaat/core';

/* What runs of networks were measured to take when their apps were verified, by the digests of their files. */

const known = new Map<string, number>();

/** The digest of a network in a file; undefined for other models. */
const digestOf = (spec: ModelSpec | undefined): string | undefined =>
  spec && isNetworkSpec(spec) && spec.runtime === 'onnx' ? spec.sha256 : undefined;

export function keepRunBytes(spec: ModelSpec | undefined, runBytes: number | undefined): void {
  const digest = digestOf(spec);
  if (digest !== undefined && runBytes !== undefined) known.set(digest, runBytes);
}

/** Bytes that a run of a network takes per voxel of its input; undefined where they were not measured. */
export function runBytesOf(spec: ModelSpec): number | undefined {
  const digest = digestOf(spec);
  return digest === undefined ? undefined : known.get(digest);
}
