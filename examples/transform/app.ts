import {
  type Affine,
  applyAffine,
  componentOf,
  type InputValue,
  identity,
  invert,
  multiply,
  numericVoxels,
  resizedGrid,
  type Size,
  type SpatialTransform,
  TomaatError,
  type Vec3,
  type Volume,
} from '@tomaat/core';

/** Points of the displacement grid along each axis. */
const gridSize: Size = [8, 8, 8];

/**
 * Transforms are in mm, RAS+, in ITK's direction: they map a point of the result to the point of the volume that is
 * shown there. So the matrix found here maps the origin to the centre of mass.
 */
export function infer(inputs: Readonly<Record<string, InputValue>>) {
  const volume = componentOf(inputs.volume as Volume, 0);
  const given = inputs.initial as SpatialTransform | undefined;
  if (given && given.kind !== 'linear') {
    throw new TomaatError(
      'BAD_INPUT',
      `initial is a ${given.kind} transform; a linear one is needed (.mat or .tfm).`,
      {
        field: 'initial',
      },
    );
  }
  const initial = given?.matrix ?? identity;
  const [x, y, z] = applyAffine(invert(initial), centreOfMass(volume));
  const matrix = multiply(initial, [1, 0, 0, x, 0, 1, 0, y, 0, 0, 1, z, 0, 0, 0, 1]);
  const linear: SpatialTransform = { kind: 'linear', matrix };
  return { matrix: linear, grid: displacements(volume, matrix) };
}

function centreOfMass(volume: Volume): Vec3 {
  const voxels = numericVoxels(volume.voxels);
  // NaN and infinite voxels, as in a masked background, do not count.
  let [total, count] = [0, 0];
  for (let i = 0; i < voxels.length; i++) {
    if (!Number.isFinite(voxels[i])) continue;
    total += voxels[i];
    count++;
  }
  const mean = total / count;
  const sum = [0, 0, 0];
  let mass = 0;
  for (let z = 0, i = 0; z < volume.size[2]; z++) {
    for (let y = 0; y < volume.size[1]; y++) {
      for (let x = 0; x < volume.size[0]; x++, i++) {
        const weight = voxels[i] - mean;
        if (!(weight > 0 && weight < Number.POSITIVE_INFINITY)) continue;
        sum[0] += weight * x;
        sum[1] += weight * y;
        sum[2] += weight * z;
        mass += weight;
      }
    }
  }
  if (mass === 0)
    throw new TomaatError('BAD_INPUT', 'The volume has one value only, so it has no centre of mass.', {
      field: 'volume',
    });
  return applyAffine(volume.affine, [sum[0] / mass, sum[1] / mass, sum[2] / mass]);
}

/** The same map as displacements in mm at points spread over the extent of the result. */
function displacements(volume: Volume, matrix: Affine): SpatialTransform {
  const grid = resizedGrid({ size: volume.size, affine: multiply(invert(matrix), volume.affine) }, gridSize);
  const n = gridSize[0] * gridSize[1] * gridSize[2];
  const voxels = new Float32Array(3 * n);
  for (let i = 0; i < n; i++) {
    const place = applyAffine(grid.affine, [
      i % gridSize[0],
      Math.floor(i / gridSize[0]) % gridSize[1],
      Math.floor(i / (gridSize[0] * gridSize[1])),
    ]);
    const moved = applyAffine(matrix, place);
    for (let c = 0; c < 3; c++) voxels[c * n + i] = moved[c] - place[c];
  }
  return { kind: 'grid', displacement: { ...grid, voxels, components: 3 } };
}
