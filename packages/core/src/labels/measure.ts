import { applyAffine, determinant, type Vec3 } from '../geometry/affine.ts';
import type { Size, Volume } from '../volume.ts';
import { type LabelName, labelVoxels, scanLabels } from './label-map.ts';

/** The measurements of one label in a label map. */
export interface LabelMeasurement {
  readonly value: number;
  readonly name: string;
  readonly voxels: number;
  /** Number of voxels × volume of one, millilitres. */
  readonly volumeMl: number;
  /** Mean position of the voxels' centres, RAS+ mm; undefined if there are no voxels. */
  readonly centroidMm?: Vec3;
  /** First and last voxel index along x, y, z, both inclusive. */
  readonly box?: { readonly min: Size; readonly max: Size };
  /** The smallest box along the world axes that contains the voxels, including their edges, RAS+ mm. */
  readonly boxMm?: { readonly min: Vec3; readonly max: Vec3 };
  /** Mean of the scan's values over the voxels, in the scan's units; only where a scan was measured too. */
  readonly meanIntensity?: number;
}

/**
 * Measures every label of a label map in one pass over its voxels: those of `labels` in order (a label without a
 * voxel counts 0), then unlisted values of the map, as "label 7".
 */
export function measureLabels(labelMap: Volume, labels: readonly LabelName[] = []): LabelMeasurement[] {
  const scans = scanLabels(labelVoxels(labelMap), labelMap.size);
  const voxelMl = Math.abs(determinant(labelMap.affine)) / 1000;
  const listed = labels.filter(({ value }) => value !== 0);
  const known = new Set(listed.map(({ value }) => value));
  const unlisted = [...scans.keys()].filter((value) => !known.has(value));
  const all = [...listed, ...unlisted.map((value) => ({ value, name: `label ${value}` }))];
  return all.map(({ value, name }) => {
    const scan = scans.get(value);
    if (!scan) return { value, name, voxels: 0, volumeMl: 0 };
    const { voxels, sum, box } = scan;
    const mean: Vec3 = [sum[0] / voxels, sum[1] / voxels, sum[2] / voxels];
    return {
      value,
      name,
      voxels,
      volumeMl: voxels * voxelMl,
      centroidMm: applyAffine(labelMap.affine, mean),
      box,
      boxMm: worldBox(labelMap.affine, box),
    };
  });
}

function worldBox(affine: Volume['affine'], box: { min: Size; max: Size }): { min: Vec3; max: Vec3 } {
  const centre: Vec3 = [
    (box.min[0] + box.max[0]) / 2,
    (box.min[1] + box.max[1]) / 2,
    (box.min[2] + box.max[2]) / 2,
  ];
  const middle = applyAffine(affine, centre);
  // Half of the box along each world axis: the edge-to-edge voxel counts times the absolute values of the columns.
  const half = [0, 1, 2].map(
    (r) =>
      [0, 1, 2].reduce((total, c) => total + Math.abs(affine[r * 4 + c]) * (box.max[c] - box.min[c] + 1), 0) /
      2,
  );
  return {
    min: [middle[0] - half[0], middle[1] - half[1], middle[2] - half[2]],
    max: [middle[0] + half[0], middle[1] + half[1], middle[2] + half[2]],
  };
}

/**
 * The measurements as a plain-text table: name, value, voxels, millilitres and the centroid, in columns aligned in a
 * fixed-width font. Labels without a voxel are listed on one line below.
 */
export function volumeReport(measurements: readonly LabelMeasurement[]): string {
  const present = measurements.filter(({ voxels }) => voxels > 0);
  const absent = measurements.filter(({ voxels }) => voxels === 0);
  const rows = present.map(({ name, value, voxels, volumeMl, centroidMm }) => [
    name,
    String(value),
    String(voxels),
    formatMl(volumeMl),
    (centroidMm ?? []).map((v) => v.toFixed(mmDigits(Math.cbrt((1000 * volumeMl) / voxels)))).join(', '),
  ]);
  const table = [['Label', 'Value', 'Voxels', 'Volume (ml)', 'Centre R, A, S (mm)'], ...rows];
  const widths = table[0].map((_, c) => Math.max(...table.map((row) => row[c].length)));
  const lines = table.map((row) =>
    row
      .map((cell, c) => (c === 0 ? cell.padEnd(widths[c]) : cell.padStart(widths[c])))
      .join('  ')
      .trimEnd(),
  );
  if (present.length === 0) return `No label has a voxel.${list(absent)}\n`;
  return `${lines.join('\n')}\n${absent.length > 0 ? `Not found:${list(absent)}\n` : ''}`;
}

/** Millilitres with three significant digits, but never an exponent, even for a volume in micrometres. */
export function formatMl(ml: number): string {
  if (ml > 0 && ml < 0.01) return ml.toFixed(Math.min(20, 2 - Math.floor(Math.log10(ml))));
  return ml >= 100 ? ml.toFixed(0) : ml >= 10 ? ml.toFixed(1) : ml >= 1 ? ml.toFixed(2) : ml.toFixed(3);
}

/**
 * Decimals of a position in mm that distinguish voxels of this spacing: one, and more below a tenth of a millimetre.
 */
export const mmDigits = (spacingMm: number): number =>
  spacingMm > 0 && spacingMm < 0.1 ? Math.min(12, 1 - Math.floor(Math.log10(spacingMm))) : 1;

function list(absent: readonly LabelMeasurement[]): string {
  return absent.length > 0 ? ` ${absent.map(({ name }) => name).join(', ')}` : '';
}
