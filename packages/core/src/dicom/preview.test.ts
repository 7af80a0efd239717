import { describe, expect, it } from 'vitest';
import type { Volume } from '../volume.ts';
import { drawPreview } from './preview.ts';

/*
 * Stored from front to back (18 × 2 mm), from feet to head (19 × 2 mm), from left to right (10 × 4 mm), left-handed and slightly
 * oblique. The labelled box is in front, at the top, on the patient's right.
 */
const affine: Volume['affine'] = [
  0.05, 0.02, 3.99, -12, -1.99, 0.1, 0.1, 40, 0.1, 1.99, -0.08, -30, 0, 0, 0, 1,
];
const size = [18, 19, 10] as const;
const scan: Volume = {
  voxels: Int16Array.from({ length: 3420 }, (_, i) => (i * 7919) % 301),
  size,
  components: 1,
  affine,
};
const voxels = new Uint8Array(3420);
for (let k = 7; k <= 8; k++)
  for (let j = 13; j <= 16; j++) for (let i = 2; i <= 4; i++) voxels[i + 18 * (j + 19 * k)] = 5;
const labelMap: Volume = { voxels, size, components: 1, affine };
const options = { labels: [{ value: 5, name: 'Box', color: '#12ff34' }], title: 'Boxes 1.0' };

/** Above the images are two lines. */
const top = 60;

/** The box around the pixels of a colour in a part of a picture: left, top, right, bottom; within one pixel. */
function boxOf(
  { width, rgb }: ReturnType<typeof drawPreview>,
  [left, right]: readonly [number, number],
  height: number,
): number[] {
  const box = [Infinity, Infinity, -1, -1];
  for (let y = top; y < top + height; y++)
    for (let x = left; x < right; x++) {
      const at = 3 * (y * width + x);
      if (rgb[at] !== 0x12 || rgb[at + 1] !== 0xff || rgb[at + 2] !== 0x34) continue;
      box[0] = Math.min(box[0], x - left);
      box[1] = Math.min(box[1], y - top);
      box[2] = Math.max(box[2], x - left + 1);
      box[3] = Math.max(box[3], y - top + 1);
    }
  return box;
}

describe('drawPreview()', () => {
  const picture = drawPreview(scan, labelMap, options);

  // The longer side of each plane has 512 pixels: 40 × 36, 40 × 38 and 36 × 38 mm.
  it.each([
    ['axial: right at the left, front at the top', [0, 512], 461, [51.2, 51.2, 153.6, 128]],
    ['coronal: right at the left, head at the top', [512, 1024], 486, [51.2, 51.2, 153.6, 153.6]],
    ['sagittal: front at the left, head at the top', [1024, 1509], 512, [53.9, 53.9, 134.7, 161.7]],
  ] as const)('%s', (_, columns, height, expected) => {
    for (const [i, at] of boxOf(picture, columns, height).entries())
      expect(Math.abs(at - expected[i])).toBeLessThanOrEqual(1);
  });

  it('an empty label map gives the middle of the volume', () => {
    const empty = drawPreview(scan, { ...labelMap, voxels: new Uint8Array(3420) }, options);
    expect(boxOf(empty, [0, empty.width], 461)).toEqual([Infinity, Infinity, -1, -1]);
    expect(new Set(empty.rgb).size).toBeGreaterThan(50);
  });

  it('refuses a label map on another grid', () => {
    const moved = affine.map((v, i) => (i === 3 ? v + 1 : v)) as unknown as Volume['affine'];
    expect(() => drawPreview(scan, { ...labelMap, affine: moved }, options)).toThrow(/grid of the scan/);
  });
});
