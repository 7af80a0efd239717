import type { Mesh, Vec3 } from '@tomaat/core';
import type { LabelStyle } from './labels.ts';

/* Surfaces and colours as NiiVue takes them. */

export function trianglesByLabel(mesh: Mesh): Map<number, Uint32Array> {
  const count = mesh.triangles.length / 3;
  const lists = new Map<number, number[]>();
  for (let t = 0; t < count; t++) {
    const label = mesh.labels?.[t] ?? 0;
    let list = lists.get(label);
    if (!list) lists.set(label, (list = []));
    list.push(mesh.triangles[3 * t], mesh.triangles[3 * t + 1], mesh.triangles[3 * t + 2]);
  }
  return new Map([...lists].map(([label, list]) => [label, Uint32Array.from(list)]));
}

/** A small octahedron around each point. */
export function octahedra(
  points: readonly Vec3[],
  radiusMm: number,
): { vertices: Float32Array; triangles: Uint32Array } {
  const corners = [0, 1, 2].flatMap((axis) =>
    [1, -1].map((sign) => [0, 1, 2].map((i) => (i === axis ? sign * radiusMm : 0))),
  );
  const faces = [0, 1].flatMap((x) =>
    [2, 3].flatMap((y) => [4, 5].map((z) => ((x + y + z) % 2 === 0 ? [x, y, z] : [x, z, y]))),
  );
  return {
    vertices: Float32Array.from(points.flatMap((p) => corners.flatMap((c) => c.map((v, i) => v + p[i])))),
    triangles: Uint32Array.from(
      points.flatMap((_, n) => faces.flatMap((face) => face.map((v) => v + 6 * n))),
    ),
  };
}

/** Discrete colours by label value; unlisted and hidden labels are not drawn. */
export function lookupTable(labels: readonly LabelStyle[]) {
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ['background'] };
  for (const { value, name, color, visible } of labels) {
    const [r, g, b] = rgbOf(color);
    table.R.push(r);
    table.G.push(g);
    table.B.push(b);
    table.A.push(visible ? 255 : 0);
    table.I.push(value);
    table.labels.push(name);
  }
  return table;
}

export function rgbOf(color: string): [number, number, number] {
  const bits = Number.parseInt(color.slice(1), 16);
  return [(bits >> 16) & 255, (bits >> 8) & 255, bits & 255];
}
