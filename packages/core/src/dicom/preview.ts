import { TomaatError } from '../errors.ts';
import { determinant, spacingOf } from '../geometry/affine.ts';
import { reorient } from '../geometry/exact.ts';
import { sameGrid } from '../geometry/grid.ts';
import { type LabelVoxels, labelVoxels } from '../labels/label-map.ts';
import { formatMl } from '../labels/measure.ts';
import { componentOf, type NumericVoxels, numericVoxels, type Size, type Volume } from '../volume.ts';
import { greyOf, rangeOf, stylesOf } from './key-picture.ts';
import { drawKeyPicture, type PictureContent, type PictureLine } from './key-picture-drawing.ts';
import { asciiOf, createPicture, type Picture, type Rgb } from './picture.ts';
import type { SegmentLabel } from './segment-description.ts';

/** What a preview is made of. */
export interface PreviewOptions {
  /** The meaning of the values; those that are not listed are named “label 7”. */
  readonly labels: readonly SegmentLabel[];
  /** The first line of the picture. */
  readonly title: string;
  /** Pixels of the longer side of each plane, which is then drawn without a legend; 512 to 1024 with one if missing. */
  readonly sidePixels?: number;
}

const white: Rgb = [235, 235, 235];
const pale: Rgb = [170, 170, 170];

/** The planes: their columns and rows as axes of a volume stored as LPI, and where their edges are. */
const planes = [
  { name: 'axial', across: 2, columns: 0, rows: 1, edges: { left: 'R', right: 'L', top: 'A', bottom: 'P' } },
  {
    name: 'coronal',
    across: 1,
    columns: 0,
    rows: 2,
    edges: { left: 'R', right: 'L', top: 'H', bottom: 'F' },
  },
  {
    name: 'sagittal',
    across: 0,
    columns: 1,
    rows: 2,
    edges: { left: 'A', right: 'P', top: 'H', bottom: 'F' },
  },
] as const;

/**
 * Three planes of a scan side by side, through the labelled voxel that is nearest to the centre of all of them, with the outlines of
 * the labels. They run along the volume's own axes, named after the nearest ones of the patient.
 *
 * @throws TomaatError BAD_INPUT if the volumes are not on one grid, or `labelMap` is not a label map
 */
export function drawPreview(
  scan: Volume,
  labelMap: Volume,
  { labels, title, sidePixels }: PreviewOptions,
): Picture {
  if (!sameGrid(scan, labelMap, 1e-3)) {
    throw new TomaatError(
      'BAD_INPUT',
      `The label map (${labelMap.size.join(' × ')}) does not lie on the grid of the scan (${scan.size.join(' × ')}). Resample it to that grid first.`,
    );
  }
  const image = reorient(componentOf(scan, 0), 'LPI');
  const marks = reorient(labelMap, 'LPI');
  const values = labelVoxels(marks);
  const { at, counts } = locate(values, marks.size);
  const style = stylesOf(labels, [...counts.keys()]);
  const spacing = spacingOf(image.affine);
  const cuts = planes.map((plane) => ({
    ...plane,
    grey: cut(numericVoxels(image.voxels), image.size, plane, at),
    labels: cut(values, image.size, plane, at),
  }));
  const range = rangeOf(joined(cuts.map(({ grey }) => grey)), undefined);
  const voxelMl = Math.abs(determinant(marks.affine)) / 1000;
  const legend = legendOf(counts, voxelMl, style);
  const pictures = cuts.map(({ name, across, columns, rows, edges, ...plane }, i) => {
    const content: PictureContent = {
      grey: greyOf(plane.grey, range, false),
      labels: plane.labels,
      columns: image.size[columns],
      rows: image.size[rows],
      spacing: [spacing[columns], spacing[rows]],
      colorOf: (label) => style(label).color,
      heading: [
        ...(title === '' ? [] : [{ text: i === 0 ? (asciiOf(title) ?? '') : '', color: white }]),
        { text: placeOf(name, at[across] + 1, image.size[across], sidePixels === undefined), color: pale },
      ],
      legend: i === 0 && sidePixels === undefined ? legend : [],
      edges,
      sidePixels,
    };
    return drawKeyPicture(content).picture;
  });
  return sideBySide(pictures);
}

const placeOf = (plane: string, slice: number, slices: number, isWide: boolean) =>
  isWide ? `${plane}, ${slice} of ${slices}` : `${plane} ${slice}/${slices}`;

/** The labelled voxel nearest to the centre of all, in voxels (the middle of the volume if there is none), and the voxels of each label. */
function locate(values: LabelVoxels, [nx, ny, nz]: Size): { at: number[]; counts: Map<number, number> } {
  const counts = new Map<number, number>();
  const sums = [0, 0, 0];
  let total = 0;
  // A run of one label along x at a time.
  const eachRun = (visit: (from: number, to: number, y: number, z: number, value: number) => void) => {
    for (let z = 0, start = 0; z < nz; z++)
      for (let y = 0; y < ny; y++, start += nx)
        for (let x = 0, to = 0; x < nx; x = to) {
          const value = values[start + x];
          for (to = x + 1; to < nx && values[start + to] === value; ) to++;
          if (value !== 0) visit(x, to, y, z, value);
        }
  };
  eachRun((from, to, y, z, value) => {
    const length = to - from;
    counts.set(value, (counts.get(value) ?? 0) + length);
    sums[0] += (length * (from + to - 1)) / 2;
    sums[1] += length * y;
    sums[2] += length * z;
    total += length;
  });
  if (total === 0) return { at: [nx >> 1, ny >> 1, nz >> 1], counts };
  const [cx, cy, cz] = sums.map((sum) => sum / total);
  let at = [0, 0, 0];
  let nearest = Infinity;
  eachRun((from, to, y, z) => {
    const x = Math.min(to - 1, Math.max(from, Math.ceil(cx - 0.5)));
    const distance = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2;
    if (distance < nearest) [nearest, at] = [distance, [x, y, z]];
  });
  return { at, counts };
}

function cut(
  voxels: NumericVoxels | LabelVoxels,
  size: Size,
  { across, columns, rows }: Pick<(typeof planes)[number], 'across' | 'columns' | 'rows'>,
  at: readonly number[],
): Float64Array {
  const strides = [1, size[0], size[0] * size[1]];
  const out = new Float64Array(size[columns] * size[rows]);
  for (let row = 0, i = 0; row < size[rows]; row++)
    for (let column = 0; column < size[columns]; column++, i++)
      out[i] = voxels[at[across] * strides[across] + column * strides[columns] + row * strides[rows]];
  return out;
}

function joined(parts: readonly Float64Array[]): Float64Array {
  const all = new Float64Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const mostLabels = 24;

function legendOf(
  counts: ReadonlyMap<number, number>,
  voxelMl: number,
  style: ReturnType<typeof stylesOf>,
): (PictureLine & { box?: Rgb })[] {
  const largest = [...counts].sort((a, b) => b[1] - a[1]).slice(0, mostLabels);
  const lines: (PictureLine & { box?: Rgb })[] = largest
    .map(([value, count]) => ({ ...style(value), count }))
    .sort((a, b) => a.order - b.order)
    .map(({ name, color, count }) => ({
      text: name,
      end: `  ${formatMl(count * voxelMl)} ml`,
      color: white,
      box: color,
    }));
  if (counts.size > mostLabels) lines.push({ text: `and ${counts.size - mostLabels} more`, color: pale });
  if (counts.size === 0) lines.push({ text: 'No label found', color: pale });
  return lines;
}

function sideBySide(pictures: readonly Picture[]): Picture {
  const width = pictures.reduce((sum, picture) => sum + picture.width, 0);
  const all = createPicture(width, Math.max(...pictures.map(({ height }) => height)));
  let left = 0;
  for (const { width: columns, height, rgb } of pictures) {
    for (let y = 0; y < height; y++)
      all.rgb.set(rgb.subarray(3 * y * columns, 3 * (y + 1) * columns), 3 * (y * width + left));
    left += columns;
  }
  return all;
}
