import type { Mesh } from '../labels/surface.ts';
import type { Bytes } from '../platform.ts';
import { stlHeaderBytes, stlTriangleBytes } from './mesh-reader.ts';

/** Numbers per piece of output, about. */
const pieceLength = 1 << 15;
/** A mesh smaller than this is written with all its digits: four decimals of a millimetre would be coarse for it. */
const fineExtentMm = 5;

/**
 * A legacy VTK file of polygons (VTK file formats, version 3.0), RAS+ mm. The title line states this, as 3D Slicer reads it.
 * Labels become the cell scalar `label`.
 */
export function* meshToVtk(mesh: Mesh, options: { binary?: boolean } = {}): Generator<Bytes> {
  const { positions, triangles, labels } = mesh;
  const { binary = false } = options;
  const text = (s: string) => new TextEncoder().encode(s);
  const count = triangles.length / 3;
  const isFine = extentOf(positions) < fineExtentMm;
  yield text(
    `# vtk DataFile Version 3.0\nTOMAAT surface SPACE=RAS\n${binary ? 'BINARY' : 'ASCII'}\nDATASET POLYDATA\nPOINTS ${positions.length / 3} float\n`,
  );
  yield* pieces(positions.length, 3, (from, to) =>
    binary ? floatBytes(positions, from, to) : coordinateLines(positions, from, to, isFine),
  );
  yield text(`${binary ? '\n' : ''}POLYGONS ${count} ${count * 4}\n`);
  yield* pieces(triangles.length, 3, (from, to) =>
    binary ? polygonBytes(triangles, from, to) : polygonLines(triangles, from, to),
  );
  if (binary) yield text('\n');
  if (!labels) return;
  yield text(`CELL_DATA ${count}\nSCALARS label unsigned_short 1\nLOOKUP_TABLE default\n`);
  yield* pieces(labels.length, 1, (from, to) => {
    if (!binary) return text(`${labels.subarray(from, to).join('\n')}\n`);
    const bytes = new Uint8Array((to - from) * 2);
    const view = new DataView(bytes.buffer);
    for (let i = from; i < to; i++) view.setUint16((i - from) * 2, labels[i]);
    return bytes;
  });
  if (binary) yield text('\n');
}

/** The largest distance between two points along an axis, mm. */
function extentOf(positions: Float32Array): number {
  const low = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  const high = low.map((v) => -v);
  for (let i = 0; i < positions.length; i++) {
    const axis = i % 3;
    if (positions[i] < low[axis]) low[axis] = positions[i];
    if (positions[i] > high[axis]) high[axis] = positions[i];
  }
  return Math.max(...high.map((v, axis) => v - low[axis]));
}

function* pieces(length: number, step: number, make: (from: number, to: number) => Bytes): Generator<Bytes> {
  const size = pieceLength * step;
  for (let from = 0; from < length; from += size) yield make(from, Math.min(length, from + size));
}

function floatBytes(values: Float32Array, from: number, to: number): Bytes {
  const bytes = new Uint8Array((to - from) * 4);
  const view = new DataView(bytes.buffer);
  for (let i = from; i < to; i++) view.setFloat32((i - from) * 4, values[i]);
  return bytes;
}

function polygonBytes(triangles: Uint32Array, from: number, to: number): Bytes {
  const bytes = new Uint8Array(((to - from) / 3) * 16);
  const view = new DataView(bytes.buffer);
  for (let i = from, at = 0; i < to; i += 3, at += 16) {
    view.setInt32(at, 3);
    for (let k = 0; k < 3; k++) view.setInt32(at + 4 + 4 * k, triangles[i + k]);
  }
  return bytes;
}

function coordinateLines(values: Float32Array, from: number, to: number, isFine: boolean): Bytes {
  const out = createTextBuffer((to - from) * 12);
  for (let i = from; i < to; i++) {
    if (isFine) out.exact(values[i]);
    else out.decimal(values[i]);
    out.byte((i - from) % 3 === 2 ? 10 : 32);
  }
  return out.bytes();
}

function polygonLines(triangles: Uint32Array, from: number, to: number): Bytes {
  const out = createTextBuffer((to - from) * 11);
  for (let i = from; i < to; i += 3) {
    out.byte(51);
    for (let k = 0; k < 3; k++) {
      out.byte(32);
      out.integer(triangles[i + k]);
    }
    out.byte(10);
  }
  return out.bytes();
}

/** Numbers as text, several times faster than with strings. */
function createTextBuffer(expectedBytes: number) {
  let buffer = new Uint8Array(expectedBytes + 64);
  let length = 0;
  const reserve = (more: number) => {
    if (length + more <= buffer.length) return;
    const larger = new Uint8Array(buffer.length * 2 + more);
    larger.set(buffer);
    buffer = larger;
  };
  const digits = (value: number) => {
    let count = 1;
    for (let limit = 10; value >= limit; limit *= 10) count++;
    let rest = value;
    for (let at = length + count - 1; at >= length; at--) {
      const tenth = Math.floor(rest / 10);
      buffer[at] = 48 + rest - tenth * 10;
      rest = tenth;
    }
    length += count;
  };
  const byte = (code: number) => {
    reserve(1);
    buffer[length++] = code;
  };
  const integer = (value: number) => {
    reserve(10);
    digits(value);
  };
  /** With all digits that a float32 has. */
  const exact = (value: number) => {
    const text = new TextEncoder().encode(String(Number(value.toPrecision(9))));
    reserve(text.length);
    buffer.set(text, length);
    length += text.length;
  };
  /** To four decimals, without zeros at the end. */
  const decimal = (value: number) => {
    let tenThousandths = Math.round(Math.abs(value) * 1e4);
    if (!(tenThousandths < 2 ** 31)) return exact(value);
    reserve(16);
    if (value < 0 && tenThousandths > 0) buffer[length++] = 45;
    const whole = Math.floor(tenThousandths / 1e4);
    digits(whole);
    tenThousandths -= whole * 1e4;
    if (tenThousandths === 0) return;
    buffer[length++] = 46;
    for (let unit = 1000; tenThousandths > 0; unit /= 10) {
      const digit = Math.floor(tenThousandths / unit);
      buffer[length++] = 48 + digit;
      tenThousandths -= digit * unit;
    }
  };
  return { byte, integer, decimal, exact, bytes: () => buffer.subarray(0, length) };
}

/**
 * A binary STL file, RAS+ mm (its 80 bytes of text state this, as 3D Slicer reads them). The format has neither shared
 * vertices nor labels: all labels are in it, without their names.
 */
export function* meshToStl(mesh: Mesh): Generator<Bytes> {
  const { positions, triangles } = mesh;
  const head = new Uint8Array(stlHeaderBytes).fill(32, 0, 80);
  head.set(new TextEncoder().encode('TOMAAT surface SPACE=RAS'));
  new DataView(head.buffer).setUint32(80, triangles.length / 3, true);
  yield head;
  yield* pieces(triangles.length, 3, (from, to) => {
    const bytes = new Uint8Array(((to - from) / 3) * stlTriangleBytes);
    const view = new DataView(bytes.buffer);
    for (let i = from, at = 0; i < to; i += 3, at += stlTriangleBytes) {
      const [a, b, c] = [triangles[i] * 3, triangles[i + 1] * 3, triangles[i + 2] * 3];
      const ux = positions[b] - positions[a];
      const uy = positions[b + 1] - positions[a + 1];
      const uz = positions[b + 2] - positions[a + 2];
      const vx = positions[c] - positions[a];
      const vy = positions[c + 1] - positions[a + 1];
      const vz = positions[c + 2] - positions[a + 2];
      const nx = uy * vz - uz * vy;
      const ny = uz * vx - ux * vz;
      const nz = ux * vy - uy * vx;
      const length = Math.hypot(nx, ny, nz) || 1;
      view.setFloat32(at, nx / length, true);
      view.setFloat32(at + 4, ny / length, true);
      view.setFloat32(at + 8, nz / length, true);
      for (let k = 0; k < 3; k++) {
        view.setFloat32(at + 12 + 4 * k, positions[a + k], true);
        view.setFloat32(at + 24 + 4 * k, positions[b + k], true);
        view.setFloat32(at + 36 + 4 * k, positions[c + k], true);
      }
    }
    return bytes;
  });
}
