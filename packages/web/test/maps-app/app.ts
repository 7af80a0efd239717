import { type InputValue, numericVoxels, type Volume } from '@tomaat/core';

/** The voxels above 200 as 1, and in another map those above 600 as 2. */
export async function infer({ volume }: Readonly<Record<string, InputValue>>) {
  const scan = volume as Volume;
  const values = numericVoxels(scan.voxels);
  const above = (limit: number, label: number): Volume => ({
    ...scan,
    voxels: Uint8Array.from(values, (value) => (value > limit ? label : 0)),
  });
  return { bright: above(200, 1), brightest: above(600, 2) };
}
