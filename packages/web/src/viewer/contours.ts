import { applyAffine, type Grid, invert, multiply, type Vec3, type Volume } from '@tomaat/core';

/** The edges of labels in one slice of a grid, as line segments along the edges of its voxels. */
export interface Contours {
  /** The axes of the grid that lie in the slice. */
  readonly axes: readonly [number, number];
  /** By label value: u, v of the first end and of the second, in voxel indices; a voxel extends half an index to each side. */
  readonly segments: ReadonlyMap<number, readonly number[]>;
}

/**
 * The outlines of a label map in slice `index` along `axis` of `grid`. A voxel of the grid has the label of the map's voxel
 * that is nearest to its centre in the world; outside of the map it has none.
 */
export function contoursOf(labelMap: Volume, grid: Grid, axis: 0 | 1 | 2, index: number): Contours {
  const axes = [0, 1, 2].filter((one) => one !== axis) as [number, number];
  const [nu, nv] = axes.map((one) => grid.size[one]);
  const labels = sliceLabels(labelMap, grid, axis, index);
  const segments = new Map<number, number[]>();
  const add = (label: number, ...ends: number[]) => {
    if (label === 0) return;
    const list = segments.get(label);
    if (list) list.push(...ends);
    else segments.set(label, ends);
  };
  const at = (u: number, v: number) => (u < 0 || v < 0 || u >= nu || v >= nv ? 0 : labels[u + nu * v]);
  for (let v = 0; v <= nv; v++) {
    for (let u = 0; u <= nu; u++) {
      const here = at(u, v);
      const before = at(u - 1, v);
      if (here !== before) {
        for (const label of [here, before]) add(label, u - 0.5, v - 0.5, u - 0.5, v + 0.5);
      }
      const above = at(u, v - 1);
      if (here !== above) {
        for (const label of [here, above]) add(label, u - 0.5, v - 0.5, u + 0.5, v - 0.5);
      }
    }
  }
  return { axes, segments };
}

/** The labels of a slice, the first axis in the slice fastest. */
function sliceLabels(labelMap: Volume, grid: Grid, axis: 0 | 1 | 2, index: number): Float64Array {
  const [u, v] = [0, 1, 2].filter((one) => one !== axis);
  const toMap = multiply(invert(labelMap.affine), grid.affine);
  const origin: [number, number, number] = [0, 0, 0];
  origin[axis] = index;
  const start = applyAffine(toMap, origin as Vec3);
  const [nx, ny, nz] = labelMap.size;
  const [nu, nv] = [grid.size[u], grid.size[v]];
  const labels = new Float64Array(nu * nv);
  for (let j = 0; j < nv; j++) {
    for (let i = 0; i < nu; i++) {
      // toMap is an affine, so a step along an axis is one of its columns.
      const x = Math.round(start[0] + i * toMap[u] + j * toMap[v]);
      const y = Math.round(start[1] + i * toMap[4 + u] + j * toMap[4 + v]);
      const z = Math.round(start[2] + i * toMap[8 + u] + j * toMap[8 + v]);
      if (x < 0 || y < 0 || z < 0 || x >= nx || y >= ny || z >= nz) continue;
      labels[i + nu * j] = Number(labelMap.voxels[x + nx * (y + ny * z)]);
    }
  }
  return labels;
}
