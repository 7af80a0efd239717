import { describe, expect, it } from 'vitest';
import { ball, edges, enclosed, leftHanded, triples } from './fixtures.ts';
import { buildSurface, decimateMesh, joinMeshes, type Mesh, partsOf, surfaceOf } from './surface.ts';

describe('joinMeshes()', () => {
  const one: Mesh = {
    positions: Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8),
    triangles: Uint32Array.of(0, 1, 2),
  };
  const two: Mesh = {
    positions: Float32Array.of(9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20),
    triangles: Uint32Array.of(3, 1, 0, 2, 1, 3),
  };

  it('puts vertices and triangles one after the other, with labels', () => {
    const joined = joinMeshes([
      { label: 300, mesh: one },
      { label: 7, mesh: two },
      { label: 8, mesh: one },
    ]);
    expect([...joined.positions]).toEqual([...one.positions, ...two.positions, ...one.positions]);
    expect([...joined.triangles]).toEqual([0, 1, 2, 6, 4, 3, 5, 4, 6, 7, 8, 9]);
    expect([...joined.labels!]).toEqual([300, 7, 7, 8]);
  });

  it('is undone by partsOf(), vertices in the order of their use', () => {
    const parts = partsOf(
      joinMeshes([
        { label: 300, mesh: one },
        { label: 7, mesh: two },
      ]),
    );
    expect(parts.map(({ label }) => label)).toEqual([300, 7]);
    expect(parts[0].mesh).toEqual(one);
    // Vertices 3, 1, 0, 2 of the second mesh.
    expect([...parts[1].mesh.positions]).toEqual([18, 19, 20, 12, 13, 14, 9, 10, 11, 15, 16, 17]);
    expect([...parts[1].mesh.triangles]).toEqual([0, 1, 2, 3, 1, 0]);
  });
});

describe('partsOf()', () => {
  it('collects the triangles of a label wherever they lie, without other vertices', () => {
    const mesh: Mesh = {
      positions: Float32Array.from({ length: 15 }, (_, i) => i),
      triangles: Uint32Array.of(0, 1, 2, 2, 3, 4, 4, 1, 0),
      labels: Uint16Array.of(5, 2, 5),
    };
    const [first, second] = partsOf(mesh);
    expect([first.label, second.label]).toEqual([5, 2]);
    expect([...first.mesh.triangles]).toEqual([0, 1, 2, 3, 1, 0]);
    expect([...first.mesh.positions]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 14]);
    expect([...second.mesh.triangles]).toEqual([0, 1, 2]);
    expect([...second.mesh.positions]).toEqual([6, 7, 8, 9, 10, 11, 12, 13, 14]);
  });

  it('takes a mesh without labels as one part', () => {
    const mesh: Mesh = { positions: new Float32Array(9), triangles: Uint32Array.of(0, 1, 2) };
    expect(partsOf(mesh)).toEqual([{ label: 0, mesh }]);
  });
});

describe('buildSurface()', () => {
  const map = ball(leftHanded, 9);

  it('smooths and keeps every triangle by default', async () => {
    expect(await buildSurface(map)).toEqual(surfaceOf(map));
    expect(await buildSurface(map, { keepTriangles: 1 })).toEqual(surfaceOf(map, { smoothing: 8 }));
    expect(await buildSurface(map, { smooth: false })).toEqual(surfaceOf(map, { smoothing: 0 }));
  });

  it('meshes the labels it is given and simplifies to the share', async () => {
    const two = { ...map, voxels: (map.voxels as Uint8Array).map((v, i) => (i % 44 < 20 ? 2 * v : v)) };
    const whole = surfaceOf(two, { labels: [2] });
    const found = await buildSurface(two, { labels: [2], keepTriangles: 0.3 });
    expect(new Set(found.labels)).toEqual(new Set([2]));
    expect(found).toEqual(await decimateMesh(whole, { ratio: 0.3 }));
  });
});

describe('decimateMesh()', () => {
  /** A closed tetrahedron with its edges along the axes, 3 mm. */
  const tetrahedron: Mesh = {
    positions: Float32Array.of(0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 3),
    triangles: Uint32Array.of(0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3),
  };

  it('keeps a fifth of the triangles, each vertex within 1 mm', async () => {
    const mesh = surfaceOf(ball(leftHanded));
    const share = (await decimateMesh(mesh)).triangles.length / mesh.triangles.length;
    expect(share).toBeGreaterThan(0.19);
    expect(share).toBeLessThanOrEqual(0.2);
    const least = { ratio: 0.001 };
    const standard = await decimateMesh(mesh, least);
    expect(standard).toEqual(await decimateMesh(mesh, { ...least, maxErrorMm: 1 }));
    const count = async (maxErrorMm: number) =>
      (await decimateMesh(mesh, { ...least, maxErrorMm })).triangles.length;
    expect(await count(0.3)).toBeGreaterThan(standard.triangles.length);
    expect(await count(2.5)).toBeLessThan(standard.triangles.length);
  });

  it('goes down to four triangles of a label, and never below', async () => {
    const fewest = await decimateMesh(surfaceOf(ball(leftHanded)), { ratio: 1e-6, maxErrorMm: 1000 });
    expect(fewest.triangles).toHaveLength(12);
    expect(edges(fewest)).toEqual({ open: 0, shared: 0 });
    expect(await decimateMesh(tetrahedron, { ratio: 0.1, maxErrorMm: 1000 })).toEqual({
      positions: Float32Array.of(0, 0, 0, 0, 3, 0, 3, 0, 0, 0, 0, 3),
      triangles: Uint32Array.of(0, 1, 2, 0, 2, 3, 0, 3, 1, 2, 1, 3),
    });
  });

  it('drops pairs of triangles that lie face to face, and no others', async () => {
    const { positions, triangles } = tetrahedron;
    const fold = [1, 3, 2];
    const withTriangles = (...more: number[]) =>
      decimateMesh({ positions, triangles: Uint32Array.of(...more) }, { ratio: 1 });
    // Vertices are named by their place, so that the order does not matter.
    const shown = (mesh: Mesh) => {
      const p = triples(mesh.positions);
      return Array.from({ length: mesh.triangles.length / 3 }, (_, t) =>
        [...mesh.triangles.subarray(t * 3, t * 3 + 3)].map((v) => p[v].join(' ')),
      );
    };
    const corners = (list: number[]) =>
      Array.from({ length: list.length / 3 }, (_, t) =>
        list.slice(t * 3, t * 3 + 3).map((v) => [...positions.subarray(v * 3, v * 3 + 3)].join(' ')),
      );
    const whole = [...triangles];
    // The last triangle of the four meets its reverse: both go; of three, one stays.
    expect(shown(await withTriangles(...whole, ...fold))).toEqual(corners(whole.slice(0, 9)));
    expect(shown(await withTriangles(...fold, ...whole))).toEqual(corners(whole.slice(0, 9)));
    expect(shown(await withTriangles(...whole, ...fold, 2, 3, 1))).toEqual(
      corners([...whole.slice(0, 9), 2, 3, 1]),
    );
    // Nothing would be left: it stays as it was.
    expect(shown(await withTriangles(1, 2, 3, ...fold))).toEqual(corners([1, 2, 3, ...fold]));
    // 0, 1, 3 and 0, 2, 3 have the same lowest and highest vertex.
    expect(shown(await withTriangles(...whole))).toEqual(corners(whole));
  });

  it.each([
    { ratio: 0 },
    { ratio: -0.5 },
    { ratio: 1.01 },
    { ratio: Number.NaN },
    { maxErrorMm: 0 },
    { maxErrorMm: -1 },
    { maxErrorMm: Number.NaN },
  ])('refuses %j', async (options) => {
    await expect(decimateMesh(tetrahedron, options)).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringContaining(String(Object.values(options)[0])),
    });
  });

  it('gives a mesh without triangles as it comes', async () => {
    const empty: Mesh = { positions: new Float32Array(), triangles: new Uint32Array() };
    expect(await decimateMesh(empty)).toBe(empty);
  });

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
