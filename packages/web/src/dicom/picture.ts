import { type DicomImage, readDicomImage } from '@tomaat/core';
import { dicomPlatform } from './codecs.ts';
import type { Picture } from './messages.ts';

/** Maximum number of pixels along an edge. */
const largestEdge = 160;

/** An image of a series as a thumbnail: darkest at the 1st percentile, brightest at the 99th. */
export async function drawPicture(image: DicomImage, signal: AbortSignal): Promise<Picture> {
  const values = await readDicomImage(image, dicomPlatform, signal);
  const { columns, rows } = image.format;
  const step = Math.max(1, Math.ceil(Math.max(columns, rows) / largestEdge));
  const width = Math.ceil(columns / step);
  const height = Math.ceil(rows / step);
  const small = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) small[y * width + x] = values[y * step * columns + x * step];
  }
  const sorted = small.filter(Number.isFinite).sort();
  const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
  const [low, high] = [at(0.01), at(0.99)];
  const rgba = new Uint8ClampedArray(small.length * 4);
  for (const [i, value] of small.entries()) {
    rgba.fill((255 * (value - low)) / Math.max(high - low, 1e-6), i * 4, i * 4 + 3);
    rgba[i * 4 + 3] = 255;
  }
  const [rowDistance, columnDistance] = image.pixelSpacing ?? [1, 1];
  return { width, height, stretch: rowDistance / columnDistance, rgba };
}
