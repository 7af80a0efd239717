import { TomaatError } from '../errors.ts';
import { determinant } from '../geometry/affine.ts';
import type { Size, Volume } from '../volume.ts';
import { type Box, copyOf, type LabelVoxels, labelVoxels, scanLabels, setLabel } from './label-map.ts';

/** Which neighbours are connected: 6 share a face, 18 a face or an edge, 26 also a corner. */
export type Connectivity = 6 | 18 | 26;

/**
 * The connected components of a label map, as runs of voxels along x. Run r covers the voxels from `start[r]` up to,
 * but not including, `end[r]` (indices into the whole volume) and belongs to component `component[r]`. Components are
 * numbered from 0 by their first voxel in memory, as scipy.ndimage.label does from 1 for the array indexed [z, y, x].
 */
export interface Components {
  readonly count: number;
  readonly start: Int32Array;
  readonly end: Int32Array;
  readonly component: Int32Array;
  /** Voxels of each component. */
  readonly voxels: Float64Array;
  /** The label value of each component; 1 if all labels were treated as one mask. */
  readonly value: Int32Array;
  /** Whether the component has a voxel on a face of the searched box. */
  readonly onBorder: Uint8Array;
}

interface SearchOptions {
  connectivity: Connectivity;
  /** The class of a value: voxels are connected if their classes are equal and not 0. Default: the value itself. */
  classOf?: (value: number) => number;
  /** Only this part of the volume; default: all of it. */
  box?: Box;
}

/**
 * Connected components by union-find over runs: time and memory depend on the number of runs, not of voxels. `size`
 * counts voxels along x (fastest), y, z.
 */
export function findComponents(voxels: LabelVoxels, size: Size, options: SearchOptions): Components {
  const { connectivity, classOf = (value: number) => value } = options;
  const [nx, ny] = size;
  const box = options.box ?? wholeBox(size);
  const width = box.max[0] - box.min[0] + 1;
  const rows = box.max[1] - box.min[1] + 1;
  const planes = box.max[2] - box.min[2] + 1;

  let capacity = 1 << 14;
  let start = new Int32Array(capacity);
  let end = new Int32Array(capacity);
  let classes = new Int32Array(capacity);
  let parent = new Int32Array(capacity);
  let count = 0;
  const rowStart = new Int32Array(rows * planes + 1);
  const row = new Int32Array(width);

  const grow = (array: Int32Array): Int32Array<ArrayBuffer> => {
    const larger = new Int32Array(capacity);
    larger.set(array);
    return larger;
  };
  const rootOf = (run: number): number => {
    let at = run;
    while (parent[at] !== at) {
      parent[at] = parent[parent[at]];
      at = parent[at];
    }
    return at;
  };
  /** Joins the touching runs of two rows; `offset` is the displacement from the second row to the first. */
  const joinRows = (first: number, second: number, offset: number, reach: 0 | 1) => {
    let low = rowStart[second];
    const lastOfSecond = rowStart[second + 1];
    for (let a = rowStart[first]; a < rowStart[first + 1]; a++) {
      const from = start[a] - offset - reach;
      const to = end[a] - offset + reach;
      while (low < lastOfSecond && end[low] <= from) low++;
      for (let b = low; b < lastOfSecond && start[b] < to; b++) {
        if (classes[a] !== classes[b]) continue;
        const p = rootOf(a);
        const q = rootOf(b);
        if (p < q) parent[q] = p;
        else if (q < p) parent[p] = q;
      }
    }
  };

  const diagonal = connectivity === 6 ? 0 : 1;
  for (let z = 0; z < planes; z++) {
    for (let y = 0; y < rows; y++) {
      const here = z * rows + y;
      const base = ((z + box.min[2]) * ny + y + box.min[1]) * nx + box.min[0];
      row.set(voxels.subarray(base, base + width));
      rowStart[here] = count;
      let x = 0;
      while (x < width) {
        const value = row[x];
        const kind = classOf(value);
        const first = x++;
        while (x < width && row[x] === value) x++;
        if (kind === 0) continue;
        if (count > rowStart[here] && end[count - 1] === base + first && classes[count - 1] === kind) {
          end[count - 1] = base + x;
          continue;
        }
        if (count === capacity) {
          capacity *= 2;
          start = grow(start);
          end = grow(end);
          classes = grow(classes);
          parent = grow(parent);
        }
        start[count] = base + first;
        end[count] = base + x;
        classes[count] = kind;
        parent[count] = count;
        count++;
      }
      rowStart[here + 1] = count;
      if (rowStart[here] === count) continue;
      if (y > 0) joinRows(here, here - 1, nx, diagonal);
      if (z > 0) {
        joinRows(here, here - rows, nx * ny, diagonal);
        if (connectivity === 6) continue;
        const corner = connectivity === 26 ? 1 : 0;
        if (y > 0) joinRows(here, here - rows - 1, nx * ny + nx, corner);
        if (y < rows - 1) joinRows(here, here - rows + 1, nx * ny - nx, corner);
      }
    }
  }
  return numberRuns(start, end, classes, parent, count, { rows, planes, width, box, nx, ny, rowStart });
}

function numberRuns(
  start: Int32Array,
  end: Int32Array,
  classes: Int32Array,
  parent: Int32Array,
  runs: number,
  shape: {
    rows: number;
    planes: number;
    width: number;
    box: Box;
    nx: number;
    ny: number;
    rowStart: Int32Array;
  },
): Components {
  const { rows, planes, width, box, nx, ny, rowStart } = shape;
  // Roots precede their runs, so numbering in order orders components by their first voxels.
  const component = new Int32Array(runs);
  let count = 0;
  for (let r = 0; r < runs; r++) component[r] = parent[r] === r ? count++ : component[parent[r]];
  const voxels = new Float64Array(count);
  const value = new Int32Array(count);
  const onBorder = new Uint8Array(count);
  for (let z = 0; z < planes; z++) {
    for (let y = 0; y < rows; y++) {
      const outer = z === 0 || z === planes - 1 || y === 0 || y === rows - 1;
      const base = ((z + box.min[2]) * ny + y + box.min[1]) * nx + box.min[0];
      for (let r = rowStart[z * rows + y]; r < rowStart[z * rows + y + 1]; r++) {
        const c = component[r];
        voxels[c] += end[r] - start[r];
        value[c] = classes[r];
        if (outer || start[r] === base || end[r] === base + width) onBorder[c] = 1;
      }
    }
  }
  return {
    count,
    start: start.subarray(0, runs),
    end: end.subarray(0, runs),
    component,
    voxels,
    value,
    onBorder,
  };
}

function wholeBox(size: Size): Box {
  return { min: [0, 0, 0], max: [size[0] - 1, size[1] - 1, size[2] - 1] };
}

/** The selected values of a label map: those listed, or all except 0. */
function chosen(labels: readonly number[] | undefined): (value: number) => boolean {
  if (!labels) return (value) => value !== 0;
  const wanted = new Set(labels.filter((value) => value !== 0));
  return (value) => wanted.has(value);
}

export interface LargestOptions {
  /** The values to process; the others are unchanged. Default: all except 0. */
  labels?: readonly number[];
  /** Default 26, as in MONAI. */
  connectivity?: Connectivity;
  /** true (default): the largest component of each label; false: of all labels treated as one mask. */
  independent?: boolean;
  /** Number of components to keep. Default 1. */
  components?: number;
}

/**
 * Keeps the largest connected component and sets the voxels of the others to 0 (MONAI's
 * KeepLargestConnectedComponent). Among components of equal size, the one whose first voxel comes first in memory is
 * kept.
 */
export function keepLargestComponent(volume: Volume, options: LargestOptions = {}): Volume {
  const { connectivity = 26, independent = true, components = 1 } = options;
  if (!Number.isInteger(components) || components < 1) {
    throw new TomaatError('BAD_INPUT', `The number of components to keep is ${components}. Give at least 1.`);
  }
  const isChosen = chosen(options.labels);
  const found = findComponents(labelVoxels(volume), volume.size, {
    connectivity,
    classOf: (value) => (isChosen(value) ? (independent ? value : 1) : 0),
  });
  const byValue = new Map<number, number[]>();
  for (let c = 0; c < found.count; c++) {
    const list = byValue.get(found.value[c]);
    if (list) list.push(c);
    else byValue.set(found.value[c], [c]);
  }
  const drop = new Uint8Array(found.count);
  for (const list of byValue.values()) {
    if (list.length <= components) continue;
    list.sort((a, b) => found.voxels[b] - found.voxels[a] || a - b);
    for (const c of list.slice(components)) drop[c] = 1;
  }
  return clear(volume, found, drop);
}

export interface SmallObjectOptions {
  /** Components with a smaller volume are removed, millilitres. */
  minVolumeMl?: number;
  /** Components with fewer voxels are removed. Default 64 if neither limit is given, as in MONAI. */
  minVoxels?: number;
  /** Default 6, as in MONAI. */
  connectivity?: Connectivity;
  /** true (default): each label's components separately; false: of all labels treated as one mask. */
  independent?: boolean;
  labels?: readonly number[];
}

/** Sets the voxels of small connected components to 0 (MONAI's RemoveSmallObjects). */
export function removeSmallObjects(volume: Volume, options: SmallObjectOptions = {}): Volume {
  const { connectivity = 6, independent = true, minVolumeMl } = options;
  const minVoxels = options.minVoxels ?? (minVolumeMl === undefined ? 64 : 0);
  const voxelMl = Math.abs(determinant(volume.affine)) / 1000;
  // A component of exactly the limit is kept, regardless of rounding in the product of spacings.
  const least = Math.max(minVoxels, minVolumeMl === undefined ? 0 : (minVolumeMl / voxelMl) * (1 - 1e-9));
  const isChosen = chosen(options.labels);
  const found = findComponents(labelVoxels(volume), volume.size, {
    connectivity,
    classOf: (value) => (isChosen(value) ? (independent ? value : 1) : 0),
  });
  return clear(
    volume,
    found,
    Uint8Array.from(found.voxels, (count) => (count < least ? 1 : 0)),
  );
}

function clear(volume: Volume, found: Components, drop: Uint8Array): Volume {
  const { result, voxels } = copyOf(volume);
  for (let r = 0; r < found.component.length; r++) {
    if (!drop[found.component[r]]) continue;
    if (voxels instanceof BigInt64Array || voxels instanceof BigUint64Array) {
      voxels.fill(0n, found.start[r], found.end[r]);
    } else voxels.fill(0, found.start[r], found.end[r]);
  }
  return result;
}

export interface FillOptions {
  /** Labels whose holes are filled, in this order. Default: all except 0, ascending. */
  labels?: readonly number[];
  /** How the outside connects: 26 (default, as in MONAI) also through corners, 6 only through faces. */
  connectivity?: Connectivity;
  /** Fills each slice perpendicular to this axis separately: a hole is then whatever is enclosed within its slice. */
  slicewise?: 'x' | 'y' | 'z';
}

/**
 * Sets every voxel enclosed by a label to that label, including voxels of other labels (MONAI's FillHoles). A voxel
 * is enclosed if no path leads from it to the border of the volume through voxels of other values.
 */
export function fillHoles(volume: Volume, options: FillOptions = {}): Volume {
  const { connectivity = 26, slicewise } = options;
  const { result, voxels } = copyOf(volume);
  const labels = labelVoxels(result);
  const scans = scanLabels(labels, volume.size);
  const wanted = options.labels ?? [...scans.keys()];
  const axis = slicewise === undefined ? -1 : 'xyz'.indexOf(slicewise);
  for (const label of wanted) {
    const scan = scans.get(label);
    if (!scan) continue;
    // Everything outside the label's bounding box is outside, so the box can stand for the volume.
    const boxes = axis < 0 ? [scan.box] : slicesOf(scan.box, axis);
    for (const box of boxes) {
      const found =
        axis < 0
          ? findComponents(labels, volume.size, { connectivity, box, classOf: (v) => (v === label ? 0 : 1) })
          : undefined;
      const holes = found ?? findHolesInSlice(labels, volume.size, box, axis, label, connectivity);
      for (let r = 0; r < holes.component.length; r++) {
        if (holes.onBorder[holes.component[r]]) continue;
        for (let i = holes.start[r]; i < holes.end[r]; i++) {
          labels[i] = label;
          if (labels !== voxels) setLabel(voxels, i, label);
        }
      }
    }
  }
  return result;
}

function slicesOf(box: Box, axis: number): Box[] {
  const boxes: Box[] = [];
  for (let i = box.min[axis]; i <= box.max[axis]; i++) {
    const min: [number, number, number] = [...box.min];
    const max: [number, number, number] = [...box.max];
    min[axis] = max[axis] = i;
    boxes.push({ min, max });
  }
  return boxes;
}

/** The components of everything except `label` in one slice; those on the slice's outline are marked. */
function findHolesInSlice(
  voxels: LabelVoxels,
  size: Size,
  box: Box,
  axis: number,
  label: number,
  connectivity: Connectivity,
): Pick<Components, 'start' | 'end' | 'component' | 'onBorder'> {
  // The slice as a separate plane, [v][u], so that its outline is the border.
  const strides = [1, size[0], size[0] * size[1]];
  const [u, v] = [0, 1, 2].filter((k) => k !== axis);
  const nu = box.max[u] - box.min[u] + 1;
  const nv = box.max[v] - box.min[v] + 1;
  const origin = box.min[0] + box.min[1] * strides[1] + box.min[2] * strides[2];
  const plane = new Uint8Array(nu * nv);
  for (let j = 0; j < nv; j++) {
    for (let i = 0; i < nu; i++) {
      plane[j * nu + i] = voxels[origin + i * strides[u] + j * strides[v]] === label ? 0 : 1;
    }
  }
  const found = findComponents(plane, [nu, nv, 1], { connectivity });
  const start: number[] = [];
  const component: number[] = [];
  const onBorder = new Uint8Array(found.count);
  for (let r = 0; r < found.component.length; r++) {
    const j = Math.floor(found.start[r] / nu);
    const first = found.start[r] - j * nu;
    const last = found.end[r] - 1 - j * nu;
    if (j === 0 || j === nv - 1 || first === 0 || last === nu - 1) onBorder[found.component[r]] = 1;
    for (let i = first; i <= last; i++) {
      start.push(origin + i * strides[u] + j * strides[v]);
      component.push(found.component[r]);
    }
  }
  return {
    start: Int32Array.from(start),
    end: Int32Array.from(start, (i) => i + 1),
    component: Int32Array.from(component),
    onBorder,
  };
}
