import { describe, expect, it } from 'vitest';
import { applyAffine, determinant, invert } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import { buildSurface, decimateMesh, type Mesh, partsOf, surfaceOf } from './surface.ts';

const rightHanded = [0.8, 0, 0, -5, 0, 1.1, 0, 9, 0, 0, 1.7, 2, 0, 0, 0, 1];
/** Turned by 30° about z, mirrored, anisotropic. */
const leftHanded = [-0.7, 0.55, 0, 10, 0.4, 0.95, 0, -20, 0, 0, 1.7, 30, 0, 0, 0, 1];

/** A ball of radius `mm` about the middle, or any other shape in voxel indices. */
function shape(
  size: [number, number, number],
  affine: number[],
  isIn: (x: number, y: number, z: number) => number,
): Volume {
  const voxels = new Uint8Array(size[0] * size[1] * size[2]);
  let i = 0;
  for (let z = 0; z < size[2]; z++) {
    for (let y = 0; y < size[1]; y++) for (let x = 0; x < size[0]; x++) voxels[i++] = isIn(x, y, z);
  }
  return { voxels, size, components: 1, affine };
}

function ball(affine: number[], radiusMm = 14): Volume {
  const size: [number, number, number] = [44, 36, 22];
  const middle = applyAffine(affine, [21.3, 17.6, 10.4]);
  return shape(size, affine, (x, y, z) => {
    const p = applyAffine(affine, [x, y, z]);
    return Math.hypot(p[0] - middle[0], p[1] - middle[1], p[2] - middle[2]) <= radiusMm ? 1 : 0;
  });
}

function noise(): Volume {
  let state = 7;
  return shape([13, 11, 9], leftHanded, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 16) % 5 < 2 ? 1 : 0;
  });
}

/** Volume inside, mm³: positive when triangles turn counter-clockwise seen from outside. */
function enclosed({ positions: p, triangles: t }: Mesh): number {
  let sum = 0;
  for (let i = 0; i < t.length; i += 3) {
    const [a, b, c] = [t[i] * 3, t[i + 1] * 3, t[i + 2] * 3];
    sum +=
      p[a] * (p[b + 1] * p[c + 2] - p[b + 2] * p[c + 1]) -
      p[a + 1] * (p[b] * p[c + 2] - p[b + 2] * p[c]) +
      p[a + 2] * (p[b] * p[c + 1] - p[b + 1] * p[c]);
  }
  return sum / 6;
}

/** How often each directed edge lacks its opposite, and how many edges join more than two triangles. */
function edges({ triangles: t, positions }: Mesh): { open: number; shared: number } {
  const n = positions.length / 3;
  const count = new Map<number, number>();
  for (let i = 0; i < t.length; i += 3) {
    for (const [a, b] of [
      [t[i], t[i + 1]],
      [t[i + 1], t[i + 2]],
      [t[i + 2], t[i]],
    ]) {
      count.set(a * n + b, (count.get(a * n + b) ?? 0) + 1);
    }
  }
  let open = 0;
  let shared = 0;
  for (const [key, times] of count) {
    const opposite = (key % n) * n + Math.floor(key / n);
    open += Math.abs(times - (count.get(opposite) ?? 0));
    if (times > 1) shared++;
  }
  return { open, shared };
}

const voxelVolume = (map: Volume) =>
  (map.voxels as Uint8Array).filter((v) => v !== 0).length * Math.abs(determinant(map.affine));

describe('surfaceOf()', () => {
  it.each([
    ['right-handed', rightHanded],
    ['oblique and left-handed', leftHanded],
  ])('is closed, turned outward, and within 1 %% of the voxels’ volume for a ball: %s', (_, affine) => {
    for (const smoothing of [0, 8]) {
      const map = ball(affine);
      const mesh = surfaceOf(map, { smoothing });
      expect(edges(mesh)).toEqual({ open: 0, shared: 0 });
      expect(Math.abs(enclosed(mesh) / voxelVolume(map) - 1)).toBeLessThan(0.01);
    }
  });

  it('puts every vertex half-way between voxels, in world mm, when it is not smoothed', () => {
    const map = shape([4, 3, 5], leftHanded, (x, y, z) => (x === 2 && y === 1 && z === 3 ? 6 : 0));
    const mesh = surfaceOf(map, { smoothing: 0 });
    const back = invert(leftHanded);
    const indices = Array.from({ length: mesh.positions.length / 3 }, (_, v) =>
      applyAffine(back, [mesh.positions[v * 3], mesh.positions[v * 3 + 1], mesh.positions[v * 3 + 2]]),
    );
    // One voxel: eight cells, each with three crossed edges at its corner; their middles' mean is a sixth out.
    expect(indices).toHaveLength(8);
    for (const p of indices) {
      const offsets = [p[0] - 2, p[1] - 1, p[2] - 3].map(Math.abs);
      for (const offset of offsets) expect(offset).toBeCloseTo(1 / 6, 5);
    }
    expect(mesh.triangles).toHaveLength(36);
    expect([...mesh.labels!]).toEqual(new Array(12).fill(6));
    expect(enclosed(mesh)).toBeGreaterThan(0);
  });

  it('closes labels at the border of the volume', () => {
    const map = shape([6, 5, 4], leftHanded, () => 1);
    const mesh = surfaceOf(map);
    expect(edges(mesh)).toEqual({ open: 0, shared: 0 });
    expect(enclosed(mesh)).toBeGreaterThan(0.8 * voxelVolume(map));
  });

  it('is closed for noise, where voxels touch at edges and corners, and parts touching corners', () => {
    const mesh = surfaceOf(noise(), { smoothing: 4 });
    expect(edges(mesh).open).toBe(0);
    const twoCorners = shape([4, 4, 4], rightHanded, (x, y, z) =>
      (x === 1 && y === 1 && z === 1) || (x === 2 && y === 2 && z === 2) ? 1 : 0,
    );
    const parted = surfaceOf(twoCorners, { smoothing: 0 });
    expect(parted.positions.length / 3).toBe(16);
    expect(edges(parted)).toEqual({ open: 0, shared: 0 });
  });

  it('smoothing keeps every vertex in its cell and makes the surface smaller', () => {
    const map = ball(leftHanded);
    const rough = surfaceOf(map, { smoothing: 0 });
    const smooth = surfaceOf(map, { smoothing: 8 });
    const back = invert(leftHanded);
    let largest = 0;
    let outside = 0;
    for (let v = 0; v < rough.positions.length; v += 3) {
      const p = applyAffine(back, [rough.positions[v], rough.positions[v + 1], rough.positions[v + 2]]);
      const q = applyAffine(back, [smooth.positions[v], smooth.positions[v + 1], smooth.positions[v + 2]]);
      for (let k = 0; k < 3; k++) {
        largest = Math.max(largest, Math.abs(p[k] - q[k]));
        outside = Math.max(outside, Math.abs(q[k] - (Math.floor(p[k]) + 0.5)) - 0.5);
      }
    }
    expect(largest).toBeGreaterThan(0.05);
    expect(outside).toBeLessThan(1e-4);
    expect(area(smooth)).toBeLessThan(0.99 * area(rough));
  });

  it('meshes each label as a closed surface of its own, in the order asked for', () => {
    const map = shape([9, 6, 7], leftHanded, (x, y, z) =>
      y < 1 || y > 4 || z < 1 ? 0 : x < 4 ? 3 : x < 7 ? 500 % 256 : 0,
    );
    const mesh = surfaceOf(map, { labels: [244, 3, 77], smoothing: 2 });
    const parts = partsOf(mesh);
    expect(parts.map(({ label }) => label)).toEqual([244, 3]);
    for (const { mesh: part } of parts) {
      expect(edges(part)).toEqual({ open: 0, shared: 0 });
      expect(enclosed(part)).toBeGreaterThan(0);
    }
    expect(() => surfaceOf(map, { labels: [70000] })).toThrow(/65535/);
  });
});

describe('decimateMesh()', () => {
  it('leaves a tenth of the triangles, closed, with the same volume to 1 %', async () => {
    const map = ball(leftHanded);
    const mesh = surfaceOf(map);
    const fewer = await decimateMesh(mesh, { ratio: 0.1 });
    expect(fewer.triangles.length / mesh.triangles.length).toBeLessThan(0.11);
    expect(edges(fewer)).toEqual({ open: 0, shared: 0 });
    expect(Math.abs(enclosed(fewer) / enclosed(mesh) - 1)).toBeLessThan(0.01);
    expect(fewer.labels!.length).toBe(fewer.triangles.length / 3);
    expect(Math.max(...fewer.triangles)).toBe(fewer.positions.length / 3 - 1);
  });

  it('keeps every label, and the surface to within the error, mm', async () => {
    const map = ball(leftHanded);
    (map.voxels as Uint8Array)[0] = 2;
    const fewer = await buildSurface(map, { keepTriangles: 0.01 });
    expect(partsOf(fewer).map(({ label }) => label)).toEqual([1, 2]);
    expect(edges(fewer).open).toBe(0);
    const close = await decimateMesh(surfaceOf(map), { ratio: 0.001, maxErrorMm: 0.02 });
    const loose = await decimateMesh(surfaceOf(map), { ratio: 0.001, maxErrorMm: 2 });
    expect(close.triangles.length).toBeGreaterThan(2 * loose.triangles.length);
    await expect(decimateMesh(fewer, { ratio: 0 })).rejects.toThrow(/ratio/);
  });
});

function area({ positions: p, triangles: t }: Mesh): number {
  let sum = 0;
  for (let i = 0; i < t.length; i += 3) {
    const [a, b, c] = [t[i] * 3, t[i + 1] * 3, t[i + 2] * 3];
    const u = [0, 1, 2].map((k) => p[b + k] - p[a + k]);
    const v = [0, 1, 2].map((k) => p[c + k] - p[a + k]);
    sum += Math.hypot(u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]) / 2;
  }
  return sum;
}
