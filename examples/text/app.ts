import {
  applyAffine,
  type InputValue,
  numericVoxels,
  orientationOf,
  spacingOf,
  type Volume,
  voxelTypeOf,
} from '@tomaat/core';

export function infer(inputs: Readonly<Record<string, InputValue>>) {
  const { size, affine, components, voxels } = inputs.volume as Volume;
  const middle = applyAffine(affine, [(size[0] - 1) / 2, (size[1] - 1) / 2, (size[2] - 1) / 2]);
  const round = (values: readonly number[]) => values.map((v) => Number(v.toFixed(2)));
  const { minimum, maximum, mean, count } = describe(numericVoxels(voxels));
  const lines = [
    `Size: ${size.join(' × ')} voxels${components > 1 ? ` of ${components} components` : ''}, ${voxelTypeOf(voxels)}`,
    `Spacing: ${round(spacingOf(affine)).join(' × ')} mm`,
    `Axes point to: ${orientationOf(affine)}`,
    `Centre (R, A, S): ${round(middle).join(', ')} mm`,
    count > 0
      ? `Intensities: ${round([minimum, maximum]).join(' to ')}, mean ${round([mean])}`
      : 'Intensities: none that is a finite number',
  ];
  return { report: `${lines.join('\n')}\n` };
}

function describe(values: ReturnType<typeof numericVoxels>) {
  let minimum = Number.POSITIVE_INFINITY;
  let maximum = Number.NEGATIVE_INFINITY;
  let sum = 0;
  let count = 0;
  for (let i = 0; i < values.length; i++) {
    const v = values[i];
    if (!Number.isFinite(v)) continue;
    if (v < minimum) minimum = v;
    if (v > maximum) maximum = v;
    sum += v;
    count++;
  }
  return { minimum, maximum, mean: sum / count, count };
}
