import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { labelsWith, numericVoxels, parseParameters, reorient, spacingOf, type Volume } from '@tomaat/core';
import { chromium } from 'playwright-core';
import { openApp } from '../packages/server/src/apps.ts';
import { ownNodeOptions } from '../packages/server/src/source.ts';
import { readVolumeFiles } from '../packages/server/src/worker/read-volume-files.ts';
import { dataFolder } from '../test/real-data.ts';

/**
 * Makes the pictures on the cards of the apps in the box: an axial and a coronal slice of a scan, and the labels that the app gives
 * it, seen as radiologists do (the patient's right is at the left). Needs Chromium, which writes WebP (CHROMIUM names another than
 * /usr/bin/chromium). Usage: node --conditions=tomaat-source scripts/make-pictures.ts
 */

const repository = fileURLToPath(new URL('..', import.meta.url));
const images = dataFolder();
if (images === undefined)
  throw new Error('The real images are not here: set TOMAAT_TEST_DATA to their folder.');
const head = join(repository, 'apps/brain/sample.nii.gz');
/** A CT of abdomen and pelvis, 3 mm, of TotalSegmentator's tests (Apache-2.0). */
const torso = join(images, 'ct/torso_int32.nii.gz');
/** A CT of the right half of a chest, of elastix' tests (Apache-2.0). */
const chest = join(images, 'ct/lung.mha');
/** The scan of each app, and what is black and what is white in it, where that is not found from its voxels. */
const scans: Readonly<Record<string, { scan: string; range?: Range }>> = {
  brain: { scan: head },
  'ct-body': { scan: torso, range: { low: -1000, high: 400 } },
  'ct-bone': { scan: torso, range: { low: -200, high: 500 } },
  'ct-lung': { scan: chest, range: { low: -1000, high: 400 } },
  threshold: { scan: head },
};
/** Pixels along each side of a plane. */
const side = 320;
/** Points along each side of a pixel, whose colours are averaged. */
const finer = 3;
const opacity = 0.5;
/** Around what is not air, as a part of its size. */
const margin = 0.04;

/** Axes of a volume stored as LPI: x to the left, y to the back, z to the feet. */
const planes = [
  { across: 0, down: 1, through: 2 },
  { across: 0, down: 2, through: 1 },
] as const;

interface Range {
  readonly low: number;
  readonly high: number;
}

interface Slice {
  readonly columns: number;
  readonly rows: number;
  /** Pixels of the volume, mm across and down. */
  readonly spacing: readonly [number, number];
  readonly grey: Float64Array;
  readonly labels: Float64Array;
}

function cut(scan: Volume, labels: Volume, plane: (typeof planes)[number]): Slice {
  const { across, down, through } = plane;
  const { size } = scan;
  const strides = [1, size[0], size[0] * size[1]];
  const [greys, marks] = [numericVoxels(scan.voxels), numericVoxels(labels.voxels)];
  const [columns, rows] = [size[across], size[down]];
  const at = centreOf(marks, size, through);
  const slice: Slice = {
    ...{ columns, rows },
    spacing: [spacingOf(scan.affine)[across], spacingOf(scan.affine)[down]],
    grey: new Float64Array(columns * rows),
    labels: new Float64Array(columns * rows),
  };
  for (let row = 0, i = 0; row < rows; row++)
    for (let column = 0; column < columns; column++, i++) {
      const from = at * strides[through] + column * strides[across] + row * strides[down];
      slice.grey[i] = greys[from];
      slice.labels[i] = marks[from];
    }
  return slice;
}

/** The mean position of the labelled voxels along an axis, in voxels. */
function centreOf(labels: ArrayLike<number>, size: Volume['size'], axis: number): number {
  const stride = [1, size[0], size[0] * size[1]][axis];
  let [sum, count] = [0, 0];
  for (let i = 0; i < labels.length; i++) {
    if (labels[i] === 0) continue;
    sum += Math.floor(i / stride) % size[axis];
    count++;
  }
  return Math.round(sum / count);
}

/** What is black and what is white, the same in all slices. */
function rangeOf(slices: readonly Slice[]): Range {
  const sorted = slices.flatMap(({ grey }) => [...grey]).sort((a, b) => a - b);
  const [low, high] = [0.02, 0.995].map((part) => sorted[Math.floor(part * (sorted.length - 1))]);
  return { low, high };
}

/** Draws a slice into the square whose left edge is `left`, with isotropic millimetres, without the air around it. */
function draw(
  slice: Slice,
  range: Range,
  colors: ReadonlyMap<number, number[]>,
  rgba: Uint8ClampedArray,
  left: number,
): void {
  const { columns, rows, spacing, grey, labels } = slice;
  const { low, high } = range;
  const box = bodyOf(slice, low + 0.12 * (high - low));
  const sizeMm =
    Math.max((box.right - box.left) * spacing[0], (box.bottom - box.top) * spacing[1]) * (1 + 2 * margin);
  const middle = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
  const pixelMm = sizeMm / side;
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++) {
      const sum = [0, 0, 0];
      for (let k = 0; k < finer ** 2; k++) {
        const place = (pixel: number, part: number, axis: 0 | 1) =>
          middle[axis] + ((pixel + (part + 0.5) / finer - side / 2) * pixelMm) / spacing[axis];
        const [u, v] = [place(x, k % finer, 0), place(y, Math.floor(k / finer), 1)];
        const color = colorAt(u, v);
        for (let i = 0; i < 3; i++) sum[i] += color[i];
      }
      rgba.set([...sum.map((part) => part / finer ** 2), 255], 4 * (y * side * planes.length + left + x));
    }

  /** Linear between the voxels' centres; of the labels, that with the largest share. */
  function colorAt(u: number, v: number): number[] {
    if (u < -0.5 || v < -0.5 || u > columns - 0.5 || v > rows - 0.5) return [0, 0, 0];
    const [column, row] = [Math.floor(u), Math.floor(v)];
    let value = 0;
    const shares = new Map<number, number>();
    for (const [dx, dy] of [
      [0, 0],
      [1, 0],
      [0, 1],
      [1, 1],
    ]) {
      const share = (dx ? u - column : 1 - u + column) * (dy ? v - row : 1 - v + row);
      const i = clamp(row + dy, rows) * columns + clamp(column + dx, columns);
      value += share * grey[i];
      shares.set(labels[i], (shares.get(labels[i]) ?? 0) + share);
    }
    const shade = 255 * Math.min(1, Math.max(0, (value - low) / (high - low)));
    const [label] = [...shares].reduce((a, b) => (b[1] > a[1] ? b : a));
    const color = colors.get(label);
    return [0, 1, 2].map((i) => (color ? opacity * color[i] + (1 - opacity) * shade : shade));
  }
}

const clamp = (index: number, count: number) => Math.min(count - 1, Math.max(0, index));

/** The edges of what is brighter than air, in voxels. */
function bodyOf({ columns, rows, grey }: Slice, above: number) {
  const box = { left: columns, right: 0, top: rows, bottom: 0 };
  for (const [i, value] of grey.entries()) {
    if (value <= above) continue;
    const [column, row] = [i % columns, Math.floor(i / columns)];
    box.left = Math.min(box.left, column);
    box.right = Math.max(box.right, column);
    box.top = Math.min(box.top, row);
    box.bottom = Math.max(box.bottom, row);
  }
  return box;
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
});
const folder = await mkdtemp(join(tmpdir(), 'tomaat-pictures-'));
try {
  const page = await browser.newPage();
  for (const [id, { scan: file, range }] of Object.entries(scans)) {
    const app = await openApp(join(repository, 'apps', id));
    const result = join(folder, `${id}.nii.gz`);
    const command = [join(repository, 'packages/server/src/main.ts'), 'run', app.folder];
    execFileSync(process.execPath, [
      ...ownNodeOptions,
      ...command,
      '--volume',
      file,
      '-o',
      result,
      '--force',
    ]);
    const [scan, labels] = await Promise.all(
      [file, result].map(async (one) => reorient(await readVolumeFiles([one]), 'LPI')),
    );
    const shown = labelsWith(app.manifest.labels, parseParameters(app.manifest.inputs, {}));
    const colors = new Map(
      shown.map(({ value, color }) => [
        value,
        [1, 3, 5].map((at) => Number.parseInt((color ?? '#f2c14e').slice(at, at + 2), 16)),
      ]),
    );
    const rgba = new Uint8ClampedArray(4 * side * side * planes.length);
    const slices = planes.map((plane) => cut(scan, labels, plane));
    for (const [i, slice] of slices.entries()) draw(slice, range ?? rangeOf(slices), colors, rgba, i * side);
    const url = await page.evaluate(
      ([bytes, width, height]) => {
        const canvas = Object.assign(document.createElement('canvas'), { width, height });
        const pixels = Uint8ClampedArray.from(atob(bytes as string), (one) => one.charCodeAt(0));
        canvas.getContext('2d')!.putImageData(new ImageData(pixels, width as number), 0, 0);
        return canvas.toDataURL('image/webp', 0.82);
      },
      [Buffer.from(rgba).toString('base64'), side * planes.length, side] as const,
    );
    const bytes = Buffer.from(url.split(',')[1], 'base64');
    await writeFile(join(app.folder, 'picture.webp'), bytes);
    console.log(`apps/${id}/picture.webp: ${(bytes.length / 1000).toFixed(0)} kB`);
  }
} finally {
  await browser.close();
  await rm(folder, { recursive: true, force: true });
}
