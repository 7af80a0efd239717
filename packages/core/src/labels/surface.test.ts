import { describe, expect, it } from 'vitest';
import { applyAffine, determinant, identity, invert } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import {
  ball,
  cellVertices,
  cross,
  dot,
  edges,
  egg,
  enclosed,
  faces,
  leftHanded,
  noise,
  rightHanded,
  shape,
  sheared,
  sortedPoints,
  triples,
  voxelVolume,
} from './fixtures.ts';
import { type Mesh, partsOf, surfaceOf } from './surface.ts';

type Corner = readonly [number, number, number];
const cube: Corner[] = [0, 1, 2, 3, 4, 5, 6, 7].map((c) => [c & 1, (c >> 1) & 1, c >> 2]);
const apart = (a: Corner, b: Corner) => a.filter((v, k) => v !== b[k]).length;

/** The groups of corners that lie along one edge of each other, or up to across one face. */
function groupsOf(corners: readonly Corner[], reach: 1 | 2): Corner[][] {
  const left = new Set(corners);
  return corners.flatMap((seed) => {
    if (!left.delete(seed)) return [];
    const group = [seed];
    for (const a of group) {
      for (const b of left) if (apart(a, b) <= reach && left.delete(b)) group.push(b);
    }
    return [group];
  });
}

// The table of cells is made once, so the first test of this file has to look at all of it.
describe('surfaceOf() of one cell', () => {
  it('has a closed sheet around each group of corners, in all 256 cases', () => {
    for (let inside = 0; inside < 256; inside++) {
      const corners = cube.filter((_, c) => (inside >> c) & 1);
      const outer = cube.filter((_, c) => !((inside >> c) & 1));
      // Corners inside that touch across a face are parted, so those outside are joined there.
      const [within, beyond] = [groupsOf(corners, 1), groupsOf(outer, 2)];
      expect(Math.min(within.length, beyond.length)).toBeLessThan(2);
      const [groups, others] = beyond.length < 2 ? [within, outer] : [beyond, corners];
      const expected = groups.flatMap((group) => {
        const middles = group.flatMap((a) =>
          others.filter((b) => apart(a, b) === 1).map((b) => a.map((v, k) => 1 + (v + b[k]) / 2)),
        );
        if (middles.length === 0) return [];
        return [[0, 1, 2].map((k) => middles.reduce((sum, p) => sum + p[k], 0) / middles.length)];
      });
      const map = shape([4, 4, 4], identity, (...p) =>
        corners.some((corner) => corner.every((v, k) => p[k] === v + 1)) ? 1 : 0,
      );
      const mesh = surfaceOf(map, { smoothing: 0 });
      const found = triples(mesh.positions).filter((p) => p.every((v) => v > 1 && v < 2));
      expect(sortedPoints(found), `case ${inside}`).toEqual(sortedPoints(expected));
      expect(edges(mesh), `case ${inside}`).toEqual({ open: 0, shared: 0 });
      expect(mesh.triangles).toHaveLength(faces(map) * 6);
      if (inside > 0) expect(enclosed(mesh)).toBeGreaterThan(0);
    }
  });
});

describe('surfaceOf()', () => {
  it.each([
    ['right-handed', rightHanded],
    ['oblique and left-handed', leftHanded],
  ])('is closed, outward, and within 1 %% of a ball’s voxel volume: %s', (_, affine) => {
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

  it.each([
    ['an egg', egg],
    ['a stair in a corner', shape([5, 4, 6], sheared, (x, y, z) => (x + y + z < 4 ? 9 : 0))],
    ['the whole volume', shape([3, 2, 4], rightHanded, () => 3)],
  ])('has a vertex in the middle of the crossed edges of each cell: %s', (_, map) => {
    const { positions } = surfaceOf(map, { smoothing: 0 });
    expect(sortedPoints(triples(positions))).toEqual(sortedPoints(cellVertices(map)));
  });

  it.each([
    ['an egg', egg],
    ['noise, more of it than the first arrays hold', noise([25, 21, 17])],
  ])('has two triangles per voxel face, split along the shorter diagonal: %s', (_, map) => {
    const mesh = surfaceOf(map, { smoothing: 0 });
    expect(mesh.triangles).toHaveLength(faces(map) * 6);
    expect(edges(mesh).open).toBe(0);
    expect(new Set(mesh.triangles).size).toBe(mesh.positions.length / 3);
    const p = triples(mesh.positions);
    const length = (a: number, b: number) => Math.hypot(...p[a].map((v, k) => v - p[b][k]));
    const found = { shorter: 0, longer: 0, broken: 0 };
    for (let t = 0; t < mesh.triangles.length; t += 6) {
      const one = [...mesh.triangles.subarray(t, t + 3)];
      const two = [...mesh.triangles.subarray(t + 3, t + 6)];
      const shared = one.filter((v) => two.includes(v));
      const others = [...one, ...two].filter((v) => !shared.includes(v));
      if (shared.length !== 2 || others.length !== 2) found.broken++;
      const difference = length(others[0], others[1]) - length(shared[0], shared[1]);
      if (difference > 0.01) found.shorter++;
      if (difference < -1e-4) found.longer++;
    }
    expect(found).toMatchObject({ longer: 0, broken: 0 });
    expect(found.shorter).toBeGreaterThan(faces(map) / 2);
  });

  it('encloses a box but for its rounded edges, wherever it lies', () => {
    for (const affine of [rightHanded, sheared]) {
      const at = (dx: number, dy: number, dz: number) =>
        enclosed(
          surfaceOf(
            shape([9, 8, 9], affine, (x, y, z) =>
              x >= dx && x < dx + 4 && y >= dy && y < dy + 3 && z >= dz && z < dz + 5 ? 2 : 0,
            ),
            { smoothing: 0 },
          ),
        );
      const inMiddle = at(2, 3, 1);
      expect(inMiddle).toBeLessThan(60 * Math.abs(determinant(affine)));
      // Inset everywhere by a quarter of a voxel, it would be 3.5 × 2.5 × 4.5 voxels.
      expect(inMiddle).toBeGreaterThan(3.5 * 2.5 * 4.5 * Math.abs(determinant(affine)));
      for (const found of [at(0, 0, 0), at(5, 5, 4), at(0, 5, 2)]) expect(found).toBeCloseTo(inMiddle, 2);
    }
  });

  it('turns every triangle of a convex shape outward', () => {
    for (const affine of [rightHanded, leftHanded, sheared]) {
      const map = shape([6, 5, 7], affine, (x, y, z) => (x > 0 && x < 4 && y > 1 && z > 2 ? 1 : 0));
      const middle = applyAffine(affine, [2, 3, 4.5]);
      const { positions, triangles } = surfaceOf(map, { smoothing: 0 });
      const p = triples(positions).map((point) => point.map((v, k) => v - middle[k]));
      for (let t = 0; t < triangles.length; t += 3) {
        const [a, b, c] = [...triangles.subarray(t, t + 3)].map((v) => p[v]);
        expect(dot(a, cross(b, c))).toBeGreaterThan(0);
      }
    }
  });

  it.each([1, 2, 5, undefined])('smooths one voxel and two as by hand: %s rounds', (smoothing) => {
    const one = shape([3, 3, 3], identity, (x, y, z) => (x === 1 && y === 1 && z === 1 ? 1 : 0));
    const two = shape([4, 3, 3], identity, (x, y, z) => (x % 3 !== 0 && y === 1 && z === 1 ? 1 : 0));
    // A corner of the cube has three neighbours, each across one axis: their mean is a third of it along each.
    let corner = 1 / 6;
    // Of the bar, the ends at x = ±endX, and the ring in the middle; the distances from the axis along y and z.
    let [endX, end, ring] = [2 / 3, 1 / 6, 1 / 4];
    for (let round = 0; round < (smoothing ?? 8); round++) {
      for (const weight of [0.5, -0.53]) {
        corner += weight * (corner / 3 - corner);
        [endX, end, ring] = [
          // Held at the centre of its voxel.
          Math.max(0.5, endX + weight * ((2 * endX) / 3 - endX)),
          end + weight * (ring / 3 - end),
          ring + weight * (end / 2 - ring),
        ];
      }
    }
    const signs = [-1, 1];
    const around = (x: number, r: number) =>
      signs.flatMap((y) => signs.map((z) => [x, 1 + y * r, 1 + z * r]));
    expect(sortedPoints(triples(surfaceOf(one, { smoothing }).positions))).toEqual(
      sortedPoints(signs.flatMap((x) => around(1 + x * corner, corner))),
    );
    expect(sortedPoints(triples(surfaceOf(two, { smoothing }).positions))).toEqual(
      sortedPoints([...around(1.5 - endX, end), ...around(1.5, ring), ...around(1.5 + endX, end)]),
    );
  });

  it('holds vertices at the walls of their cells, however much it smooths', () => {
    const loose = noise();
    const rough = surfaceOf({ ...loose, affine: identity }, { smoothing: 0 }).positions;
    const held = surfaceOf({ ...loose, affine: identity }, { smoothing: 60 }).positions;
    const inCell = held.map((v, i) => v - Math.floor(rough[i]));
    expect(Math.min(...inCell)).toBe(0);
    expect(Math.max(...inCell)).toBe(1);
  });

  it.each([
    [[1, 1, 1], [2, 2, 1], 2],
    [[1, 2, 1], [2, 1, 1], 2],
    [[1, 1, 1], [2, 1, 2], 2],
    [[1, 1, 2], [2, 1, 1], 2],
    [[1, 1, 1], [1, 2, 2], 2],
    [[1, 2, 1], [1, 1, 2], 2],
    [[1, 1, 1], [2, 2, 2], 2],
    [[2, 1, 1], [1, 2, 2], 2],
    [[1, 1, 1], [2, 1, 1], 1],
  ])('separates voxels %j and %j that touch only at an edge or corner', (a, b, parts) => {
    const [one, other] = [a, b].map((only) =>
      shape([4, 4, 4], sheared, (...p) => (p.every((v, k) => v === only[k]) ? 1 : 0)),
    );
    const both = { ...one, voxels: (one.voxels as Uint8Array).map((v, i) => v | Number(other.voxels[i])) };
    const vertices = (map: Volume) => sortedPoints(triples(surfaceOf(map, { smoothing: 0 }).positions));
    // Parted they are as each by itself.
    if (parts === 2) expect(vertices(both)).toEqual([...vertices(one), ...vertices(other)].sort());
    else expect(vertices(both)).toHaveLength(12);
    expect(edges(surfaceOf(both))).toEqual({ open: 0, shared: 0 });
  });

  it('meshes labels from 1 to 65535, and the largest of them by default', () => {
    const map = (value: number): Volume => ({
      voxels: Int32Array.of(0, value, 0, 7),
      size: [4, 1, 1],
      components: 1,
      affine: sheared,
    });
    expect([...new Set(surfaceOf(map(65535)).labels)]).toEqual([7, 65535]);
    for (const value of [65536, -1]) {
      expect(() => surfaceOf(map(value))).toThrow(new RegExp(`Label ${value} cannot be meshed`));
      expect([...new Set(surfaceOf(map(value), { labels: [7, 7] }).labels)]).toEqual([7]);
    }
    expect(surfaceOf(map(0), { labels: [7, 7] }).triangles).toHaveLength(36);
    expect(surfaceOf(map(0), { labels: [0, 3] })).toEqual({
      positions: new Float32Array(),
      triangles: new Uint32Array(),
      labels: new Uint16Array(),
    });
  });

  it('closes labels at the border of the volume', () => {
    const map = shape([6, 5, 4], leftHanded, () => 1);
    const mesh = surfaceOf(map);
    expect(edges(mesh)).toEqual({ open: 0, shared: 0 });
    expect(enclosed(mesh)).toBeGreaterThan(0.8 * voxelVolume(map));
  });

  it('is closed for noise, and separates corners that touch', () => {
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

  it('meshes each label as a separate closed surface, in the requested order', () => {
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
