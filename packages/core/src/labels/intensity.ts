import { TomaatError } from '../errors.ts';
import { sameGrid } from '../geometry/grid.ts';
import { numericVoxels, type Volume, voxelCount } from '../volume.ts';
import { labelVoxels } from './label-map.ts';
import type { LabelMeasurement } from './measure.ts';

/**
 * The mean of a scan's values over the voxels of each label except 0, in the scan's own units. Values that are not finite
 * are left out; a label with no other value has no mean. Throws BAD_INPUT if the grids differ, or if the scan has several
 * components: a colour has no mean intensity.
 */
export function meanIntensities(labelMap: Volume, scan: Volume): Map<number, number> {
  checkPair(labelMap, scan);
  const labels = labelVoxels(labelMap);
  const values = numericVoxels(scan.voxels);
  const sums = new Map<number, { sum: number; count: number }>();
  const count = voxelCount(labelMap);
  for (let i = 0; i < count; ) {
    const label = labels[i];
    const first = i++;
    while (i < count && labels[i] === label) i++;
    if (label === 0) continue;
    let total = sums.get(label);
    if (!total) sums.set(label, (total = { sum: 0, count: 0 }));
    for (let k = first; k < i; k++) {
      if (!Number.isFinite(values[k])) continue;
      total.sum += values[k];
      total.count++;
    }
  }
  const means = new Map<number, number>();
  for (const [label, { sum, count }] of sums) if (count > 0) means.set(label, sum / count);
  return means;
}

/** The measurements with the mean of the scan under each label. Throws as `meanIntensities()`. */
export function withMeanIntensity(
  measurements: readonly LabelMeasurement[],
  labelMap: Volume,
  scan: Volume,
): LabelMeasurement[] {
  const means = meanIntensities(labelMap, scan);
  return measurements.map((row) => {
    const meanIntensity = means.get(row.value);
    return meanIntensity === undefined ? row : { ...row, meanIntensity };
  });
}

function checkPair(labelMap: Volume, scan: Volume): void {
  if (scan.components !== 1) {
    throw new TomaatError(
      'BAD_INPUT',
      `The scan has ${scan.components} components, so it has no mean intensity. Choose one component.`,
    );
  }
  if (!sameGrid(labelMap, scan)) {
    throw new TomaatError(
      'BAD_INPUT',
      `The label map and the scan lie on different grids (${labelMap.size.join('×')} and ${scan.size.join('×')} voxels, or placed differently). Resample one onto the other first.`,
    );
  }
}
