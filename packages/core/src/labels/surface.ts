import { MeshoptSimplifier } from 'meshoptimizer/simplifier';
import { TomaatError } from '../errors.ts';
import { determinant } from '../geometry/affine.ts';
import type { Size, Volume } from '../volume.ts';
import { type Box, type LabelVoxels, labelVoxels, scanLabels } from './label-map.ts';

/** A triangle mesh in space. */
export interface Mesh {
  /** x, y, z of each vertex, RAS+ mm. */
  readonly positions: Float32Array;
  /** Three vertices of each triangle, counter-clockwise seen from outside. */
  readonly triangles: Uint32Array;
  /** The label that each triangle bounds; triangles of one label are contiguous. */
  readonly labels?: Uint16Array;
}

export interface SurfaceOptions {
  /** The labels to mesh, each as a separate closed surface. Default: all except 0, ascending. */
  labels?: readonly number[];
  /** Smoothing iterations; 0 keeps the voxel steps. Default 8. */
  smoothing?: number;
}

/**
 * The closed surface of each label of a label map (surface nets, Gibson 1998; one vertex for each sheet of the
 * surface that passes a cell, as in dual marching cubes, Nielson 2004, so that parts that touch at an edge or corner
 * stay separate). Vertices are midway between inside and outside voxels; background is assumed beyond the volume, so
 * a label at its border is closed too. Smoothing (Taubin 1995) keeps every vertex in its cell, the cube between eight
 * voxel centres. Report volumes from voxels, never from a mesh. Throws BAD_INPUT for a label above 65535.
 */
export function surfaceOf(labelMap: Volume, options: SurfaceOptions = {}): Mesh {
  const voxels = labelVoxels(labelMap);
  const scans = scanLabels(voxels, labelMap.size);
  const parts: { label: number; mesh: Mesh }[] = [];
  for (const label of new Set(options.labels ?? scans.keys())) {
    if (label < 0 || label > 65535) {
      throw new TomaatError('BAD_INPUT', `Label ${label} cannot be meshed. Give labels from 1 to 65535.`);
    }
    const box = scans.get(label)?.box;
    if (!box) continue;
    const net = findNet(voxels, labelMap.size, box, label);
    smooth(net, options.smoothing ?? 8);
    parts.push({ label, mesh: placeNet(net, labelMap) });
  }
  return joinMeshes(parts);
}

/** Concatenates meshes, with the label of each triangle. */
export function joinMeshes(parts: readonly { label: number; mesh: Mesh }[]): Mesh {
  const positions = new Float32Array(parts.reduce((n, { mesh }) => n + mesh.positions.length, 0));
  const triangles = new Uint32Array(parts.reduce((n, { mesh }) => n + mesh.triangles.length, 0));
  const labels = new Uint16Array(triangles.length / 3);
  let vertex = 0;
  let corner = 0;
  for (const { label, mesh } of parts) {
    positions.set(mesh.positions, vertex * 3);
    for (let i = 0; i < mesh.triangles.length; i++) triangles[corner + i] = mesh.triangles[i] + vertex;
    labels.fill(label, corner / 3, (corner + mesh.triangles.length) / 3);
    vertex += mesh.positions.length / 3;
    corner += mesh.triangles.length;
  }
  return { positions, triangles, labels };
}

/** Vertices as voxel indices, the corner of each one's cell, and quads that are counter-clockwise in index space. */
interface Net {
  points: Float32Array;
  cells: Int32Array;
  quads: Uint32Array;
}

/** Corner c of a cell is at x = c & 1, y = c >> 1 & 1, z = c >> 2. Edges 0-3 run along x, 4-7 y, 8-11 z. */
const edgeCorners: readonly (readonly [number, number])[] = [
  ...[0, 2, 4, 6].map((c) => [c, c + 1] as const),
  ...[0, 1, 4, 5].map((c) => [c, c + 2] as const),
  ...[0, 1, 2, 3].map((c) => [c, c + 4] as const),
];

/**
 * For each of the 256 inside/outside patterns of a cell's corners: how many sheets of the surface pass through it,
 * which one crosses each edge, and the mean of the midpoints of each one's edges. Sheets are the cycles of edges
 * linked by the cell's faces; on a face with two diagonally opposite inside corners, these are separated.
 */
let cellTable: ReturnType<typeof buildCellTable> | undefined;

function buildCellTable() {
  const sheets = new Uint8Array(256);
  const sheetOfEdge = new Uint8Array(256 * 12);
  const centres = new Float32Array(256 * 4 * 3);
  const faces = [0, 1, 2].flatMap((axis) =>
    [0, 1].map((side) => [0, 1, 2, 3, 4, 5, 6, 7].filter((c) => ((c >> axis) & 1) === side)),
  );
  for (let inside = 0; inside < 256; inside++) {
    const isIn = (corner: number) => (inside >> corner) & 1;
    const crossed = edgeCorners.map(([a, b]) => isIn(a) !== isIn(b));
    const group = edgeCorners.map((_, e) => e);
    const link = (a: number, b: number) => {
      const [from, to] = [group[a], group[b]];
      for (let e = 0; e < 12; e++) if (group[e] === from) group[e] = to;
    };
    for (const corners of faces) {
      const edges = edgeCorners.flatMap(([a, b], e) =>
        crossed[e] && corners.includes(a) && corners.includes(b) ? [e] : [],
      );
      if (edges.length === 2) link(edges[0], edges[1]);
      if (edges.length === 4) {
        for (const corner of corners.filter(isIn)) {
          const [a, b] = edges.filter((e) => edgeCorners[e].includes(corner));
          link(a, b);
        }
      }
    }
    const names = [...new Set(group.filter((_, e) => crossed[e]))];
    sheets[inside] = names.length;
    names.forEach((name, s) => {
      const own = edgeCorners.flatMap((_, e) => (crossed[e] && group[e] === name ? [e] : []));
      for (const e of own) {
        sheetOfEdge[inside * 12 + e] = s;
        for (let k = 0; k < 3; k++) {
          const middle = (((edgeCorners[e][0] >> k) & 1) + ((edgeCorners[e][1] >> k) & 1)) / 2;
          centres[(inside * 4 + s) * 3 + k] += middle / own.length;
        }
      }
    });
  }
  return { sheets, sheetOfEdge, centres };
}

/** The net of one label within its box; the box is assumed to be surrounded by background. */
function findNet(voxels: LabelVoxels, size: Size, box: Box, label: number): Net {
  cellTable ??= buildCellTable();
  const { sheets, sheetOfEdge, centres } = cellTable;
  const [ox, oy, oz] = box.min;
  const [wx, wy, wz] = [0, 1, 2].map((k) => box.max[k] - box.min[k] + 3);
  // Two planes of voxels, and two of cells: cell (x, y, z) has its corner 0 at voxel (x, y, z) of the padded box.
  let below = new Uint8Array(wx * wy);
  let above = new Uint8Array(wx * wy);
  let casesBelow = new Uint8Array(wx * wy);
  let cases = new Uint8Array(wx * wy);
  let firstBelow = new Int32Array(wx * wy);
  let first = new Int32Array(wx * wy);
  let points = new Float32Array(3 << 12);
  let cells = new Int32Array(3 << 12);
  let quads = new Uint32Array(4 << 12);
  let vertex = 0;
  let corner = 0;

  for (let z = 0; z < wz - 1; z++) {
    [below, above] = [above, below];
    above.fill(0);
    if (z + 1 < wz - 1) {
      for (let y = 1; y < wy - 1; y++) {
        const from = ((z + oz) * size[1] + (y - 1 + oy)) * size[0] + ox;
        const to = y * wx + 1;
        for (let x = 0; x < wx - 2; x++) above[to + x] = voxels[from + x] === label ? 1 : 0;
      }
    }
    [casesBelow, cases] = [cases, casesBelow];
    [firstBelow, first] = [first, firstBelow];
    for (let y = 0; y < wy - 1; y++) {
      let at = y * wx;
      let side = below[at] | (below[at + wx] << 1) | (above[at] << 2) | (above[at + wx] << 3);
      for (let x = 0; x < wx - 1; x++, at++) {
        const left = side;
        side = below[at + 1] | (below[at + 1 + wx] << 1) | (above[at + 1] << 2) | (above[at + 1 + wx] << 3);
        // The case of a cell that the surface does not cross is never read.
        if (left === side && (left === 0 || left === 15)) continue;
        // `left` has the corners with x = 0: bits 0, 2, 4, 6 of the case; `side` those with x = 1.
        const inside =
          (left & 1) |
          ((left & 2) << 1) |
          ((left & 4) << 2) |
          ((left & 8) << 3) |
          ((side & 1) << 1) |
          ((side & 2) << 2) |
          ((side & 4) << 3) |
          ((side & 8) << 4);
        cases[at] = inside;
        first[at] = vertex;
        const count = sheets[inside];
        if ((vertex + count) * 3 > points.length) {
          points = larger(points);
          cells = larger(cells);
        }
        for (let s = 0; s < count; s++, vertex++) {
          const c = (inside * 4 + s) * 3;
          const v = vertex * 3;
          cells[v] = x + ox - 1;
          cells[v + 1] = y + oy - 1;
          cells[v + 2] = z + oz - 1;
          points[v] = cells[v] + centres[c];
          points[v + 1] = cells[v + 1] + centres[c + 1];
          points[v + 2] = cells[v + 2] + centres[c + 2];
        }
        // The three edges at corner 0: the four cells around each have all been visited by now.
        const here = inside & 1;
        if (corner + 12 > quads.length) quads = larger(quads);
        if (here !== ((inside >> 1) & 1)) {
          const a = first[at] + sheetOfEdge[inside * 12];
          const b = first[at - wx] + sheetOfEdge[cases[at - wx] * 12 + 1];
          const c = firstBelow[at - wx] + sheetOfEdge[casesBelow[at - wx] * 12 + 3];
          const d = firstBelow[at] + sheetOfEdge[casesBelow[at] * 12 + 2];
          quads[corner] = a;
          quads[corner + 1] = here ? b : d;
          quads[corner + 2] = c;
          quads[corner + 3] = here ? d : b;
          corner += 4;
        }
        if (here !== ((inside >> 2) & 1)) {
          const a = first[at] + sheetOfEdge[inside * 12 + 4];
          const b = firstBelow[at] + sheetOfEdge[casesBelow[at] * 12 + 6];
          const c = firstBelow[at - 1] + sheetOfEdge[casesBelow[at - 1] * 12 + 7];
          const d = first[at - 1] + sheetOfEdge[cases[at - 1] * 12 + 5];
          quads[corner] = a;
          quads[corner + 1] = here ? b : d;
          quads[corner + 2] = c;
          quads[corner + 3] = here ? d : b;
          corner += 4;
        }
        if (here !== ((inside >> 4) & 1)) {
          const a = first[at] + sheetOfEdge[inside * 12 + 8];
          const b = first[at - 1] + sheetOfEdge[cases[at - 1] * 12 + 9];
          const c = first[at - 1 - wx] + sheetOfEdge[cases[at - 1 - wx] * 12 + 11];
          const d = first[at - wx] + sheetOfEdge[cases[at - wx] * 12 + 10];
          quads[corner] = a;
          quads[corner + 1] = here ? b : d;
          quads[corner + 2] = c;
          quads[corner + 3] = here ? d : b;
          corner += 4;
        }
      }
    }
  }
  return {
    points: points.subarray(0, vertex * 3),
    cells: cells.subarray(0, vertex * 3),
    quads: quads.subarray(0, corner),
  };
}

function larger<A extends Float32Array | Int32Array | Uint32Array>(array: A): A {
  const ArrayType = array.constructor as new (length: number) => A;
  const out = new ArrayType(array.length * 2);
  out.set(array);
  return out;
}

/** Taubin's smoothing: a step towards the neighbours' mean, a slightly larger one back; each limited to the cell. */
function smooth(net: Net, rounds: number): void {
  if (rounds === 0) return;
  const { cells, quads } = net;
  // Every edge has a quad on either side, in opposite directions: the neighbours of a vertex are the targets of its
  // edges.
  const vertices = cells.length / 3;
  const first = new Uint32Array(vertices + 1);
  for (let i = 0; i < quads.length; i++) first[quads[i] + 1]++;
  for (let v = 0; v < vertices; v++) first[v + 1] += first[v];
  const next = first.slice();
  const neighbours = new Uint32Array(quads.length);
  for (let q = 0; q < quads.length; q += 4) {
    neighbours[next[quads[q]]++] = quads[q + 1] * 3;
    neighbours[next[quads[q + 1]]++] = quads[q + 2] * 3;
    neighbours[next[quads[q + 2]]++] = quads[q + 3] * 3;
    neighbours[next[quads[q + 3]]++] = quads[q] * 3;
  }
  let from: Float32Array = net.points;
  let to: Float32Array = new Float32Array(from.length);
  for (let step = 0; step < rounds * 2; step++) {
    const weight = step % 2 === 0 ? 0.5 : -0.53;
    for (let v = 0, at = 0; v < vertices; v++, at += 3) {
      let x = 0;
      let y = 0;
      let z = 0;
      const end = first[v + 1];
      for (let i = first[v]; i < end; i++) {
        const n = neighbours[i];
        x += from[n];
        y += from[n + 1];
        z += from[n + 2];
      }
      const share = weight / (end - first[v]);
      const keep = 1 - weight;
      to[at] = clamp(keep * from[at] + share * x, cells[at]);
      to[at + 1] = clamp(keep * from[at + 1] + share * y, cells[at + 1]);
      to[at + 2] = clamp(keep * from[at + 2] + share * z, cells[at + 2]);
    }
    [from, to] = [to, from];
  }
  net.points = from;
}

const clamp = (value: number, cell: number): number =>
  value < cell ? cell : value > cell + 1 ? cell + 1 : value;

/** The net in world mm; each quad is split along its shorter diagonal and faces outward, for mirrored affines too. */
function placeNet(net: Net, { affine }: Volume): Mesh {
  const { points, quads } = net;
  const positions = new Float32Array(points.length);
  for (let v = 0; v < points.length; v += 3) {
    const x = points[v];
    const y = points[v + 1];
    const z = points[v + 2];
    positions[v] = affine[0] * x + affine[1] * y + affine[2] * z + affine[3];
    positions[v + 1] = affine[4] * x + affine[5] * y + affine[6] * z + affine[7];
    positions[v + 2] = affine[8] * x + affine[9] * y + affine[10] * z + affine[11];
  }
  const distance = (a: number, b: number) => {
    const x = positions[a * 3] - positions[b * 3];
    const y = positions[a * 3 + 1] - positions[b * 3 + 1];
    const z = positions[a * 3 + 2] - positions[b * 3 + 2];
    return x * x + y * y + z * z;
  };
  const mirrored = determinant(affine) < 0;
  const triangles = new Uint32Array((quads.length / 4) * 6);
  for (let q = 0, t = 0; q < quads.length; q += 4, t += 6) {
    const a = quads[q];
    const b = mirrored ? quads[q + 3] : quads[q + 1];
    const c = quads[q + 2];
    const d = mirrored ? quads[q + 1] : quads[q + 3];
    const alongAc = distance(a, c) <= distance(b, d);
    triangles[t] = a;
    triangles[t + 1] = b;
    triangles[t + 2] = alongAc ? c : d;
    triangles[t + 3] = alongAc ? a : b;
    triangles[t + 4] = c;
    triangles[t + 5] = d;
  }
  return { positions, triangles };
}

/**
 * The surfaces of a label map as returned to callers: smoothed by default, and simplified to a fraction of their
 * triangles (1 keeps all).
 */
export async function buildSurface(
  labelMap: Volume,
  options: { labels?: readonly number[]; smooth?: boolean; keepTriangles?: number } = {},
): Promise<Mesh> {
  const { labels, smooth: isSmooth = true, keepTriangles = 1 } = options;
  const mesh = surfaceOf(labelMap, { labels, smoothing: isSmooth ? undefined : 0 });
  return keepTriangles === 1 ? mesh : decimateMesh(mesh, { ratio: keepTriangles });
}

export interface DecimateOptions {
  /** The fraction of each label's triangles to keep, 0-1. Default 0.2. */
  ratio?: number;
  /** Maximum distance of a vertex from the original surface, mm; it takes precedence over the ratio. Default 1. */
  maxErrorMm?: number;
}

/**
 * Fewer triangles for nearly the same surface (quadric error, meshoptimizer). Each label is simplified separately and
 * stays closed; unused vertices are dropped. A label never vanishes.
 */
export async function decimateMesh(mesh: Mesh, options: DecimateOptions = {}): Promise<Mesh> {
  const { ratio = 0.2, maxErrorMm = 1 } = options;
  if (!(ratio > 0 && ratio <= 1) || !(maxErrorMm > 0)) {
    throw new TomaatError(
      'BAD_INPUT',
      `A mesh cannot be decimated to a ratio of ${ratio} within an error of ${maxErrorMm} mm. Give a ratio above 0 and at most 1, and an error above 0 mm.`,
    );
  }
  if (mesh.triangles.length === 0) return mesh;
  await MeshoptSimplifier.ready;
  const parts = partsOf(mesh).map(({ label, mesh: part }) => {
    const wanted = Math.max(12, Math.floor((part.triangles.length / 3) * ratio) * 3);
    // The simplifier rejects a target above the number of triangles.
    const target = Math.min(part.triangles.length, wanted);
    const [simpler] = MeshoptSimplifier.simplify(part.triangles, part.positions, 3, target, maxErrorMm, [
      'ErrorAbsolute',
    ]);
    const triangles = dropFolds(simpler, part.positions.length / 3);
    const kept = triangles.length > 0 ? triangles : part.triangles;
    return { label, mesh: compact({ positions: part.positions, triangles: kept }) };
  });
  const joined = joinMeshes(parts);
  return mesh.labels ? joined : { positions: joined.positions, triangles: joined.triangles };
}

/** Each label's triangles as a separate mesh. A mesh without labels is one part, of label 0. */
export function partsOf(mesh: Mesh): { label: number; mesh: Mesh }[] {
  const { labels, triangles, positions } = mesh;
  if (!labels) return [{ label: 0, mesh }];
  const byLabel = new Map<number, number>();
  for (const label of labels) byLabel.set(label, (byLabel.get(label) ?? 0) + 1);
  return [...byLabel].map(([label, count]) => {
    const own = new Uint32Array(count * 3);
    let at = 0;
    for (let t = 0; t < labels.length; t++) {
      if (labels[t] !== label) continue;
      own[at] = triangles[t * 3];
      own[at + 1] = triangles[t * 3 + 1];
      own[at + 2] = triangles[t * 3 + 2];
      at += 3;
    }
    return { label, mesh: compact({ positions, triangles: own }) };
  });
}

/**
 * The triangles without pairs that are face to face on the same three vertices, which simplification can leave
 * behind.
 */
function dropFolds(triangles: Uint32Array, vertices: number): Uint32Array {
  const seen = new Map<number, number[]>();
  const folded = new Uint8Array(triangles.length / 3);
  let pairs = 0;
  for (let t = 0; t < folded.length; t++) {
    const [a, b, c] = triangles.subarray(t * 3, t * 3 + 3);
    const low = Math.min(a, b, c);
    const high = Math.max(a, b, c);
    const key = low * vertices + high;
    const others = seen.get(key);
    if (!others) {
      seen.set(key, [t]);
      continue;
    }
    const middle = a + b + c - low - high;
    const other = others.find((o) => {
      const [p, q, r] = triangles.subarray(o * 3, o * 3 + 3);
      return !folded[o] && p + q + r - low - high === middle;
    });
    if (other === undefined) others.push(t);
    else {
      folded[t] = folded[other] = 1;
      pairs++;
    }
  }
  if (pairs === 0) return triangles;
  const out = new Uint32Array(triangles.length - pairs * 6);
  let at = 0;
  for (let t = 0; t < folded.length; t++) {
    if (folded[t]) continue;
    out.set(triangles.subarray(t * 3, t * 3 + 3), at);
    at += 3;
  }
  return out;
}

/** The mesh without unused vertices. */
function compact({ positions, triangles }: Mesh): Mesh {
  const unused = 0xffffffff;
  const place = new Uint32Array(positions.length / 3).fill(unused);
  const out = new Uint32Array(triangles.length);
  let count = 0;
  for (let i = 0; i < triangles.length; i++) {
    if (place[triangles[i]] === unused) place[triangles[i]] = count++;
    out[i] = place[triangles[i]];
  }
  const kept = new Float32Array(count * 3);
  for (let v = 0; v < place.length; v++) {
    if (place[v] !== unused) kept.set(positions.subarray(v * 3, v * 3 + 3), place[v] * 3);
  }
  return { positions: kept, triangles: out };
}
