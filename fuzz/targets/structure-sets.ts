/** Outlines of label maps: whatever the voxels are, the even-odd rule gives them back. */
import { traceContours } from '../../packages/core/src/dicom/contours.ts';
import { bytesOf, equal, must, type Target } from '../target.ts';

/** The width in pixels; the rest of the input is the rows of two slices. */
const longestWidth = 24;

export const structureSetTargets: Readonly<Record<string, Target>> = {
  'dicom-contours': {
    description: 'traceContours(): outlines that enclose exactly the voxels of each label',
    seeds: async () => [
      bytesOf('\x03aaaa.aaaa....a.a.a'),
      bytesOf('\x01ab'),
      bytesOf(`\x08${'aabb'.repeat(32)}`),
    ],
    words: ['.', '....', 'a', 'b', 'aaaa'],
    maxBytes: 2 ** 10,
    run(input) {
      if (input.length < 2) return;
      const nx = 1 + (input[0] % longestWidth);
      const ny = Math.floor((input.length - 1) / (2 * nx));
      const voxels = input.slice(1, 1 + 2 * nx * ny).map((byte) => (byte === 46 ? 0 : byte & 3));
      const found = new Uint8Array(voxels.length);
      for (const { value, slice, points } of traceContours(voxels, [nx, ny, 2])) {
        must(points.length >= 6 && points.length % 2 === 0, 'three vertices or more');
        fillEvenOdd(found, points, slice * nx * ny, nx, value);
      }
      must(equal(found, voxels), 'the outlines enclose the voxels of their label');
    },
  },
};

/** Adds a value, by XOR, to the pixels from whose centre a ray to the right crosses an odd number of edges. */
function fillEvenOdd(found: Uint8Array, points: Int32Array, from: number, nx: number, value: number): void {
  for (let i = 0; i < points.length; i += 2) {
    const next = (i + 2) % points.length;
    const [ax, ay, bx, by] = [points[i], points[i + 1], points[next], points[next + 1]];
    must((bx - ax) * (by - ay) === 0 || Math.abs(bx - ax) === Math.abs(by - ay), 'edges of eight directions');
    for (let y = Math.min(ay, by) + (Math.min(ay, by) & 1); y < Math.max(ay, by); y += 2) {
      const crossing = ax + ((y - ay) / (by - ay)) * (bx - ax);
      for (let x = 0; x < crossing; x += 2) found[from + (y / 2) * nx + x / 2] ^= value;
    }
  }
}
