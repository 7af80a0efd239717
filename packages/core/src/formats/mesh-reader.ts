import { TomaatError } from '../errors.ts';
import type { Mesh } from '../labels/surface.ts';
import { latin1 } from './header.ts';

/** A binary STL file: a text of 80 bytes and the number of triangles, then so many bytes for each. */
export const stlHeaderBytes = 84;
export const stlTriangleBytes = 50;

/**
 * Reads a mesh: legacy VTK polygons (text or binary, file versions 1 to 5) or binary STL, recognised by the bytes. Polygons of
 * more than three corners and triangle strips become triangles; equal vertices of an STL become one. A
 * file without a SPACE in its title is read as RAS, as in the TOMAAT v1 protocol; LPS is converted.
 * Throws UNKNOWN_FORMAT, UNSUPPORTED_FORMAT, BAD_HEADER or BAD_VOXELS.
 */
export function readMesh(bytes: Uint8Array): Mesh {
  const start = latin1(bytes.subarray(0, 16));
  if (start.startsWith('# vtk DataFile')) return readVtk(bytes);
  if (bytes.length >= stlHeaderBytes) {
    const count = new DataView(bytes.buffer, bytes.byteOffset).getUint32(80, true);
    if (bytes.length === stlHeaderBytes + count * stlTriangleBytes) return readStl(bytes, count);
    if (!start.startsWith('solid') && /SPACE=|STL/i.test(latin1(bytes.subarray(0, 80)))) {
      throw badData(`The STL file states ${count} triangles but has ${bytes.length} bytes`);
    }
  }
  if (start.startsWith('solid')) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      'STL files in text are not supported. Save it as binary STL or VTK.',
    );
  }
  throw new TomaatError(
    'UNKNOWN_FORMAT',
    'The file is not a mesh. Send legacy VTK polygons (.vtk) or binary STL (.stl).',
  );
}

function readStl(bytes: Uint8Array, count: number): Mesh {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const triangles = new Uint32Array(count * 3);
  // Equal vertices are found by a hash table with open addressing.
  let slots = 16;
  while (slots < count * 6) slots *= 2;
  const table = new Int32Array(slots).fill(-1);
  const points = new Float32Array(count * 9);
  const bits = new Uint32Array(points.buffer);
  let used = 0;
  for (let i = 0; i < count * 3; i++) {
    const at = stlHeaderBytes + Math.floor(i / 3) * stlTriangleBytes + 12 + (i % 3) * 12;
    const next = used * 3;
    // Adding 0 makes -0 into 0, so that equal numbers have equal bits.
    for (let k = 0; k < 3; k++) points[next + k] = view.getFloat32(at + 4 * k, true) + 0;
    let slot =
      (Math.imul(bits[next], 73856093) ^
        Math.imul(bits[next + 1], 19349663) ^
        Math.imul(bits[next + 2], 83492791)) >>>
      0;
    slot = (slot ^ (slot >>> 15)) & (slots - 1);
    for (;;) {
      const v = table[slot];
      if (v < 0) {
        table[slot] = used;
        triangles[i] = used++;
        break;
      }
      if (
        bits[v * 3] === bits[next] &&
        bits[v * 3 + 1] === bits[next + 1] &&
        bits[v * 3 + 2] === bits[next + 2]
      ) {
        triangles[i] = v;
        break;
      }
      slot = (slot + 1) & (slots - 1);
    }
  }
  const positions = points.slice(0, used * 3);
  return toRas(checkMesh({ positions, triangles }), latin1(bytes.subarray(0, 80)));
}

type Values = Float32Array | Float64Array | Int32Array;

/** Types of numbers in a legacy VTK file: bytes each, and how to read one, big endian. */
const vtkTypes: Record<string, readonly [bytes: number, read: (view: DataView, at: number) => number]> = {
  unsigned_char: [1, (v, at) => v.getUint8(at)],
  char: [1, (v, at) => v.getInt8(at)],
  unsigned_short: [2, (v, at) => v.getUint16(at)],
  short: [2, (v, at) => v.getInt16(at)],
  unsigned_int: [4, (v, at) => v.getUint32(at)],
  int: [4, (v, at) => v.getInt32(at)],
  vtkidtype: [4, (v, at) => v.getInt32(at)],
  unsigned_long: [8, (v, at) => Number(v.getBigUint64(at))],
  long: [8, (v, at) => Number(v.getBigInt64(at))],
  vtktypeint64: [8, (v, at) => Number(v.getBigInt64(at))],
  vtktypeuint64: [8, (v, at) => Number(v.getBigUint64(at))],
  float: [4, (v, at) => v.getFloat32(at)],
  double: [8, (v, at) => v.getFloat64(at)],
};

/** Reads words, and blocks of numbers, one after the other. */
function createVtkCursor(bytes: Uint8Array) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  let binary = false;
  const isBlank = (code: number) => code === 32 || (code >= 9 && code <= 13);
  const line = (): string => {
    const end = bytes.indexOf(10, at);
    const text = latin1(bytes.subarray(at, end < 0 ? bytes.length : Math.min(end, at + 4096)));
    at = end < 0 ? bytes.length : end + 1;
    return text.replace(/\r$/, '');
  };
  const word = (): string | undefined => {
    while (at < bytes.length && isBlank(bytes[at])) at++;
    if (at === bytes.length) return undefined;
    const start = at;
    while (at < bytes.length && !isBlank(bytes[at])) at++;
    if (at - start > 256) throw badHead('There is a word of more than 256 characters');
    return latin1(bytes.subarray(start, at));
  };
  const count = (what: string): number => {
    const text = word();
    const value = Number(text);
    if (text === undefined || !/^\d+$/.test(text) || value > 2 ** 31)
      throw badHead(`${what} is "${text ?? ''}"`);
    return value;
  };
  /** The next word as a number: short decimals by their digits (exact, see Clinger 1990), others by Number(). */
  const nextNumber = (): number => {
    while (at < bytes.length && isBlank(bytes[at])) at++;
    const start = at;
    const isNegative = bytes[at] === 45;
    if (isNegative) at++;
    let mantissa = 0;
    let digits = 0;
    let decimals = -1;
    for (; at < bytes.length; at++) {
      const digit = bytes[at] - 48;
      if (digit >= 0 && digit <= 9) {
        mantissa = mantissa * 10 + digit;
        digits++;
        if (decimals >= 0) decimals++;
      } else if (bytes[at] === 46 && decimals < 0) decimals = 0;
      else break;
    }
    if (digits > 0 && digits <= 15 && (at === bytes.length || isBlank(bytes[at]))) {
      const value = decimals > 0 ? mantissa / 10 ** decimals : mantissa;
      return isNegative ? -value : value;
    }
    at = start;
    const text = word();
    const value = Number(text);
    if (text === undefined || Number.isNaN(value) !== /^nan$/i.test(text)) {
      throw badData(
        text === undefined ? 'The file ends among its numbers' : `"${text}" was found instead of a number`,
      );
    }
    return value;
  };
  const values = (length: number, typeWord: string): Values => {
    const typeName = typeWord.toLowerCase();
    const type = vtkTypes[typeName];
    if (!type) throw badHead(`The number type "${typeWord}" is unknown`);
    const [size, read] = type;
    if (length * (binary ? size : 1) > bytes.length - at)
      throw badData(`${length} numbers were announced, but the file ends before them`);
    const out =
      size === 8 || typeName === 'unsigned_int'
        ? new Float64Array(length)
        : typeName === 'float'
          ? new Float32Array(length)
          : new Int32Array(length);
    if (binary) {
      const end = bytes.indexOf(10, at);
      at = end + 1;
      if (end < 0 || length * size > bytes.length - at)
        throw badData(`${length} numbers were announced, but the file ends before them`);
      if (typeName === 'float') for (let i = 0; i < length; i++) out[i] = view.getFloat32(at + i * 4);
      else if (typeName === 'int') for (let i = 0; i < length; i++) out[i] = view.getInt32(at + i * 4);
      else for (let i = 0; i < length; i++) out[i] = read(view, at + i * size);
      at += length * size;
      return out;
    }
    for (let i = 0; i < length; i++) out[i] = nextNumber();
    return out;
  };
  /** The next word, at most its first 32 characters, without going there; empty at the end. */
  const peek = (): string => {
    let start = at;
    while (start < bytes.length && isBlank(bytes[start])) start++;
    let end = start;
    while (end < Math.min(bytes.length, start + 32) && !isBlank(bytes[end])) end++;
    return latin1(bytes.subarray(start, end));
  };
  return { line, word, peek, count, values, readBinary: () => void (binary = true), isBinary: () => binary };
}

type Cursor = ReturnType<typeof createVtkCursor>;

function readVtk(bytes: Uint8Array): Mesh {
  const cursor = createVtkCursor(bytes);
  cursor.line();
  const title = cursor.line();
  const encoding = cursor.line().trim().toUpperCase();
  if (encoding === 'BINARY') cursor.readBinary();
  else if (encoding !== 'ASCII') throw badHead(`The third line is "${encoding}", not ASCII or BINARY`);
  const dataset = cursor.line().trim();
  if (!/^DATASET\s+POLYDATA$/i.test(dataset)) {
    throw new TomaatError(
      'UNSUPPORTED_FORMAT',
      `The VTK file contains "${dataset}", which is not supported. Send polygons (DATASET POLYDATA).`,
    );
  }
  let positions: Float32Array | undefined;
  let polygons: Cells | undefined;
  let strips: Cells | undefined;
  let cellsBefore = 0;
  let tuples = 0;
  let section = '';
  let cellLabels: Values | undefined;
  for (let key = cursor.word()?.toUpperCase(); key !== undefined; key = cursor.word()?.toUpperCase()) {
    if (key === 'POINTS') {
      const count = cursor.count('The number of points');
      positions = Float32Array.from(cursor.values(count * 3, cursor.word() ?? ''));
    } else if (key === 'POLYGONS') polygons = readCells(cursor);
    else if (key === 'TRIANGLE_STRIPS') strips = readCells(cursor);
    else if (key === 'VERTICES' || key === 'LINES') cellsBefore += readCells(cursor).offsets.length - 1;
    else if (key === 'POINT_DATA' || key === 'CELL_DATA') {
      section = key;
      tuples = cursor.count(`The count of ${key}`);
    } else if (key === 'METADATA') skipMetadata(cursor);
    else {
      const array = readAttribute(cursor, key, tuples);
      if (section === 'CELL_DATA' && array?.name === 'label' && array.values.length === tuples)
        cellLabels = array.values;
    }
  }
  if (!positions) throw badHead('There are no POINTS');
  const { triangles, cells } = triangulate(polygons, strips);
  const mesh = checkMesh({ positions, triangles });
  if (cellLabels && cells.length > 0 && cells[cells.length - 1] + cellsBefore >= cellLabels.length) {
    throw badData(`There are more cells than the ${cellLabels.length} labels`);
  }
  const labels = cellLabels && Uint16Array.from(cells, (cell) => cellLabels[cell + cellsBefore]);
  return toRas(labels ? { ...mesh, labels } : mesh, title);
}

/** Cell i has the corners `corners[offsets[i]]` up to, not including, `corners[offsets[i + 1]]`. */
interface Cells {
  offsets: Values;
  corners: Values;
}

function readCells(cursor: Cursor): Cells {
  const first = cursor.count('A number of cells');
  const second = cursor.count('A length of cells');
  if (cursor.peek().toUpperCase() === 'OFFSETS') return readOffsets(cursor, first, second);
  if (first > second) throw badHead(`${first} cells do not fit into ${second} numbers`);
  const flat = cursor.values(second, 'int');
  const offsets = new Float64Array(first + 1);
  const corners = new Int32Array(second - first);
  let at = 0;
  for (let cell = 0; cell < first; cell++) {
    const count = flat[at++];
    if (!(count >= 0) || at + count > second) throw badData(`Cell ${cell} goes beyond the list of cells`);
    for (let k = 0; k < count; k++) corners[offsets[cell] + k] = flat[at++];
    offsets[cell + 1] = offsets[cell] + count;
  }
  if (at !== second) throw badData(`The cells take ${at} numbers, but ${second} were announced`);
  return { offsets, corners };
}

/** Cells as in file version 5.1: the offset of each one, then all corners. */
function readOffsets(cursor: Cursor, offsetCount: number, cornerCount: number): Cells {
  cursor.word();
  const offsets = cursor.values(offsetCount, cursor.word() ?? '');
  if (cursor.word()?.toUpperCase() !== 'CONNECTIVITY') throw badHead('CONNECTIVITY is missing after OFFSETS');
  const corners = cursor.values(cornerCount, cursor.word() ?? '');
  const isAscending = offsets.every((v, i) => (i === 0 ? v === 0 : v >= offsets[i - 1]));
  if (offsetCount > 0 && (!isAscending || offsets[offsetCount - 1] !== cornerCount)) {
    throw badData('The OFFSETS of the cells do not fit their CONNECTIVITY');
  }
  return { offsets: offsetCount > 0 ? offsets : new Int32Array(1), corners };
}

function skipMetadata(cursor: Cursor): void {
  cursor.line();
  while (cursor.peek() !== '' && cursor.line().trim() !== '');
}

/** Skips an attribute; returns the numbers of one that may hold labels. */
function readAttribute(
  cursor: Cursor,
  key: string,
  tuples: number,
): { name: string; values: Values } | undefined {
  const name = cursor.word() ?? '';
  if (key === 'SCALARS') {
    const type = cursor.word() ?? '';
    const components = /^[1-4]$/.test(cursor.peek()) ? cursor.count('A number of components') : 1;
    if (cursor.peek().toUpperCase() === 'LOOKUP_TABLE') {
      cursor.word();
      cursor.word();
    }
    return { name, values: cursor.values(tuples * components, type) };
  }
  if (key === 'NORMALS' || key === 'VECTORS') cursor.values(tuples * 3, cursor.word() ?? '');
  else if (key === 'TENSORS') cursor.values(tuples * 9, cursor.word() ?? '');
  else if (key === 'TEXTURE_COORDINATES') {
    const dimensions = cursor.count('A number of texture coordinates');
    cursor.values(tuples * dimensions, cursor.word() ?? '');
  } else if (key === 'COLOR_SCALARS') {
    const components = cursor.count('A number of colour components');
    cursor.values(tuples * components, cursor.isBinary() ? 'unsigned_char' : 'float');
  } else if (key === 'LOOKUP_TABLE') {
    const rows = cursor.count('A length of a lookup table');
    cursor.values(rows * 4, cursor.isBinary() ? 'unsigned_char' : 'float');
  } else if (key === 'FIELD') {
    const arrays = cursor.count('A number of field arrays');
    let labels: { name: string; values: Values } | undefined;
    for (let i = 0; i < arrays; i++) {
      const arrayName = cursor.word() ?? '';
      const components = cursor.count('A number of components');
      const rows = cursor.count('A number of tuples');
      const values = cursor.values(components * rows, cursor.word() ?? '');
      if (cursor.peek().toUpperCase() === 'METADATA') {
        cursor.word();
        skipMetadata(cursor);
      }
      if (arrayName === 'label') labels = { name: arrayName, values };
    }
    return labels;
  } else throw badHead(`The keyword "${key.slice(0, 40)}" is unknown`);
  return undefined;
}

/** Polygons as fans and strips as triangles, with the number of each one's cell. */
function triangulate(polygons: Cells | undefined, strips: Cells | undefined) {
  const triangleCount = (cells: Cells | undefined) => {
    let count = 0;
    for (let c = 0; cells && c + 1 < cells.offsets.length; c++) {
      const corners = cells.offsets[c + 1] - cells.offsets[c];
      if (corners < 3) throw badData(`Polygon ${c} has ${corners} corners`);
      count += corners - 2;
    }
    return count;
  };
  const total = triangleCount(polygons) + triangleCount(strips);
  const triangles = new Float64Array(total * 3);
  const cells = new Uint32Array(total);
  let t = 0;
  let cell = 0;
  for (const [list, isStrip] of [
    [polygons, false],
    [strips, true],
  ] as const) {
    for (let c = 0; list && c + 1 < list.offsets.length; c++, cell++) {
      const first = list.offsets[c];
      for (let k = 1; k + 1 < list.offsets[c + 1] - first; k++, t++) {
        const odd = isStrip && k % 2 === 0;
        triangles[t * 3] = list.corners[isStrip ? first + k - 1 : first];
        triangles[t * 3 + 1] = list.corners[first + (odd ? k + 1 : k)];
        triangles[t * 3 + 2] = list.corners[first + (odd ? k : k + 1)];
        cells[t] = cell;
      }
    }
  }
  return { triangles, cells };
}

function checkMesh({
  positions,
  triangles,
}: {
  positions: Float32Array;
  triangles: Float64Array | Uint32Array;
}): Mesh {
  const vertices = positions.length / 3;
  for (let i = 0; i < positions.length; i++) {
    if (!Number.isFinite(positions[i]))
      throw badData(`Vertex ${Math.floor(i / 3)} has coordinates that are not finite`);
  }
  for (let i = 0; i < triangles.length; i++) {
    if (!(triangles[i] >= 0 && triangles[i] < vertices)) {
      throw badData(
        `Triangle ${Math.floor(i / 3)} has the corner ${triangles[i]}, but there are only ${vertices} vertices`,
      );
    }
  }
  return { positions, triangles: triangles instanceof Uint32Array ? triangles : Uint32Array.from(triangles) };
}

function toRas(mesh: Mesh, title: string): Mesh {
  if (!title.includes('SPACE=LPS')) return mesh;
  return { ...mesh, positions: mesh.positions.map((v, i) => (i % 3 === 2 ? v : -v)) };
}

function badHead(fault: string): TomaatError {
  return new TomaatError(
    'BAD_HEADER',
    `${fault}. The mesh file is damaged or of another kind. Save it again as legacy VTK polygons.`,
  );
}

function badData(fault: string): TomaatError {
  return new TomaatError('BAD_VOXELS', `${fault}. The mesh file is damaged. Save or send it again.`);
}
