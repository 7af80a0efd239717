import { type InputValue, numericVoxels, type Volume } from '@tomaat/core';

/** Labels 1 to 104 where the scan has ten times as much, and a line that is wider than a telephone. */
export async function infer(inputs: Readonly<Record<string, InputValue>>) {
  const scan = inputs.volume as Volume;
  const regions = Uint8Array.from(numericVoxels(scan.voxels), (value) => {
    const label = Math.floor(value / 10);
    return label <= 104 ? label : 0;
  });
  return {
    regions: { ...scan, voxels: regions },
    report: `values${Array.from({ length: 12 }, (_, i) => ` ${1234567890 + i}`).join('')}\n`,
  };
}
