import { numericVoxels, spacingOf, type Volume } from '@tomaat/core';
import type { Picture } from '../dicom/messages.ts';

/** Number of pixels along the longer edge of the drawn field. */
const edge = 96;

/**
 * The middle slice of the labelled part (without labels: of the volume), across the axis nearest to the body's, with
 * the labels over the scan. Seen as radiologists do: the patient's right is at the left, anterior is up.
 *
 * @param scan on the label map's grid; without it, the labels are drawn on black
 * @param colors `#rrggbb` by value
 */
export function drawResult(
  labelMap: Volume,
  scan: Volume | undefined,
  colors: ReadonlyMap<number, string>,
): Picture {
  const { size, affine } = labelMap;
  const labels = numericVoxels(labelMap.voxels);
  const along = (row: number, column: number) => affine[row * 4 + column];
  const [x, y, z] = nearestAxes(affine);
  const stride = [1, size[0], size[0] * size[1]];
  const slice = middleSlice(labels, size, z);
  const spacing = spacingOf(affine);
  const width = size[x] * spacing[x];
  const height = size[y] * spacing[y];
  const stepMm = Math.max(width, height) / edge;
  const columns = Math.max(1, Math.round(width / stepMm));
  const rows = Math.max(1, Math.round(height / stepMm));
  const gray = scan && grayOf(scan);
  const rgba = new Uint8ClampedArray(4 * columns * rows);
  const parsed = new Map([...colors].map(([value, color]) => [value, parseColor(color)]));
  for (let row = 0; row < rows; row++) {
    // R falls to the right, A falls downwards.
    const j = indexAt(row, rows, size[y], along(1, y) > 0);
    for (let column = 0; column < columns; column++) {
      const i = indexAt(column, columns, size[x], along(0, x) > 0);
      const at = i * stride[x] + j * stride[y] + slice * stride[z];
      const base = gray ? gray(at) : 0;
      const color = labels[at] === 0 ? undefined : (parsed.get(labels[at]) ?? [255, 255, 255]);
      const share = scan ? 0.55 : 1;
      const pixel = color ? color.map((part) => share * part + (1 - share) * base) : [base, base, base];
      rgba.set([...pixel, 255], 4 * (row * columns + column));
    }
  }
  return { width: columns, height: rows, stretch: 1, rgba };
}

const indexAt = (pixel: number, pixels: number, count: number, flipped: boolean): number => {
  const index = Math.min(count - 1, Math.floor(((pixel + 0.5) / pixels) * count));
  return flipped ? count - 1 - index : index;
};

/** The voxel axes nearest to left–right, front–back and feet–head, each once. */
function nearestAxes(affine: Volume['affine']): [number, number, number] {
  const orders = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
  ] as const;
  const spacing = spacingOf(affine);
  const match = (order: readonly number[]) =>
    order.reduce((sum, column, row) => sum + Math.abs(affine[row * 4 + column]) / spacing[column], 0);
  return [...orders].sort((a, b) => match(b) - match(a))[0] as unknown as [number, number, number];
}

/** Halfway between the first and the last slice that have a label. */
function middleSlice(labels: ArrayLike<number>, size: Volume['size'], z: number): number {
  const stride = [1, size[0], size[0] * size[1]][z];
  let first = size[z];
  let last = -1;
  for (let at = 0; at < labels.length; at++) {
    if (labels[at] === 0) continue;
    const slice = Math.floor(at / stride) % size[z];
    if (slice < first) first = slice;
    if (slice > last) last = slice;
  }
  return Math.floor(last < 0 ? size[z] / 2 : (first + last) / 2);
}

/** From the 1st percentile to the 99th as 0 to 255, estimated from every n-th voxel. */
function grayOf({ voxels, size }: Volume): (at: number) => number {
  const count = size[0] * size[1] * size[2];
  const values = numericVoxels(voxels.subarray(0, count) as Volume['voxels']);
  const step = Math.max(1, Math.floor(count / 20_000));
  const sample: number[] = [];
  for (let at = 0; at < count; at += step) if (Number.isFinite(values[at])) sample.push(values[at]);
  sample.sort((a, b) => a - b);
  const low = sample[Math.floor(sample.length * 0.01)] ?? 0;
  const high = sample[Math.floor((sample.length - 1) * 0.99)] ?? 1;
  return (at) => Math.min(255, Math.max(0, (255 * (values[at] - low)) / Math.max(high - low, 1e-6)));
}

const parseColor = (color: string): number[] =>
  [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16));
