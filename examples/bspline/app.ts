import { type InputValue, type SpatialTransform, TomaatError } from '@tomaat/core';

/** A B-spline is passed as the bytes of its HDF5 file; nothing on the way parses them. */
export function infer(inputs: Readonly<Record<string, InputValue>>) {
  const warp = inputs.warp as SpatialTransform;
  if (warp.kind !== 'bspline') {
    throw new TomaatError(
      'BAD_INPUT',
      `warp is a ${warp.kind} transform; a B-spline in an .h5 file is needed.`,
      { field: 'warp' },
    );
  }
  return { 'warp-out': warp };
}
