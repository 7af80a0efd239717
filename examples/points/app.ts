import {
  type AppContext,
  applyAffine,
  componentOf,
  type InputValue,
  numericVoxels,
  TomaatError,
  type Vec3,
  type Volume,
} from '@tomaat/core';

/** Points are [x, y, z] in mm, RAS+, in both directions. Only `affine` maps voxels to that world. */
export function infer(inputs: Readonly<Record<string, InputValue>>, { parameters }: AppContext) {
  const volume = componentOf(inputs.volume as Volume, 0);
  const radiusMm = parameters.radius as number;
  const sign = parameters.target === 'brightest' ? 1 : -1;
  return {
    points: (parameters.seeds as readonly Vec3[]).map((seed, i) => snap(volume, seed, radiusMm, sign, i + 1)),
  };
}

/** The extreme voxel nearest to the seed within the radius. */
function snap(volume: Volume, seed: Vec3, radiusMm: number, sign: number, number: number): Vec3 {
  const { size, affine } = volume;
  const voxels = numericVoxels(volume.voxels);
  let found: Vec3 | undefined;
  let best = Number.NEGATIVE_INFINITY;
  let nearest = Number.POSITIVE_INFINITY;
  for (let z = 0, i = 0; z < size[2]; z++) {
    for (let y = 0; y < size[1]; y++) {
      for (let x = 0; x < size[0]; x++, i++) {
        const value = sign * voxels[i];
        if (!(value >= best) || !Number.isFinite(value)) continue;
        const place = applyAffine(affine, [x, y, z]);
        const distance = Math.hypot(place[0] - seed[0], place[1] - seed[1], place[2] - seed[2]);
        if (distance > radiusMm || (value === best && distance >= nearest)) continue;
        found = place;
        best = value;
        nearest = distance;
      }
    }
  }
  if (found) return found;
  // A TomaatError with this code is the caller's fault: its message is shown unchanged.
  throw new TomaatError(
    'BAD_INPUT',
    `Point ${number} has no voxel within ${radiusMm} mm. Place it inside the volume.`,
    {
      field: 'seeds',
    },
  );
}
