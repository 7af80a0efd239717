import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import { createNumbers } from '../geometry/fixtures.ts';
import type { Mesh } from '../labels/surface.ts';
import { readMesh } from './mesh-reader.ts';
import { meshToStl, meshToVtk } from './mesh-writer.ts';

const mesh: Mesh = {
  positions: Float32Array.of(0, 0, 0, 10.5, 0, 0.25, -3.1234, 7, 0, 1, 2, -90.75, 5, 5, 5),
  triangles: Uint32Array.of(0, 2, 1, 0, 1, 3, 1, 2, 3, 2, 0, 3, 4, 2, 1),
  labels: Uint16Array.of(1, 1, 2, 300, 65535),
};

type MeshEncoding = 'vtk' | 'vtk-binary' | 'stl';

function write(value: Mesh, encoding: MeshEncoding): Uint8Array {
  const pieces =
    encoding === 'stl' ? meshToStl(value) : meshToVtk(value, { binary: encoding === 'vtk-binary' });
  return Buffer.concat([...pieces]);
}
const text = (s: string) => new TextEncoder().encode(s);

/** The corners of each triangle, as points. */
function corners({ positions, triangles }: Mesh): number[][] {
  return [...triangles].map((v) => [...positions.subarray(v * 3, v * 3 + 3)]);
}

function codeOf(bytes: Uint8Array): string {
  try {
    readMesh(bytes);
  } catch (error) {
    if (error instanceof TomaatError) return error.code;
    throw error;
  }
  return 'read';
}

describe('meshToVtk(), meshToStl()', () => {
  it('writes ASCII VTK whose title names the space', () => {
    const lines = Buffer.from(write(mesh, 'vtk')).toString().split('\n');
    expect(lines.slice(0, 6)).toEqual([
      '# vtk DataFile Version 3.0',
      'TOMAAT surface SPACE=RAS',
      'ASCII',
      'DATASET POLYDATA',
      'POINTS 5 float',
      '0 0 0',
    ]);
    expect(lines[7]).toBe('-3.1234 7 0');
    expect(lines.slice(10, 12)).toEqual(['POLYGONS 5 20', '3 0 2 1']);
    expect(lines.slice(16, 20)).toEqual([
      'CELL_DATA 5',
      'SCALARS label unsigned_short 1',
      'LOOKUP_TABLE default',
      '1',
    ]);
  });

  it('keeps the digits of a mesh in micrometres in ASCII', () => {
    const small = { ...mesh, positions: mesh.positions.map((v) => v / 33_333) };
    expect(corners(readMesh(write(small, 'vtk')))).toEqual(corners(small));
  });

  it('writes STL with unit normals that point outward', () => {
    const bytes = write(mesh, 'stl');
    expect(bytes).toHaveLength(84 + 5 * 50);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const normal = [0, 1, 2].map((k) => view.getFloat32(84 + 4 * k, true));
    // (c - a) of triangle 0, 2, 1 is crossed with (b - a).
    expect(Math.hypot(...normal)).toBeCloseTo(1, 6);
    expect(normal[2]).toBeLessThan(0);
  });
});

describe('readMesh()', () => {
  it.each(['vtk', 'vtk-binary'] as const)('reads back what was written as %s, labels too', (encoding) => {
    const back = readMesh(write(mesh, encoding));
    expect(back.triangles).toEqual(mesh.triangles);
    expect(back.labels).toEqual(mesh.labels);
    back.positions.forEach(
      (v, i) => void expect(v).toBeCloseTo(mesh.positions[i], encoding === 'vtk' ? 4 : 12),
    );
    const { labels: _, ...plain } = mesh;
    expect(readMesh(write(plain, encoding)).labels).toBeUndefined();
  });

  it('reads back STL with equal vertices made one', () => {
    const back = readMesh(write(mesh, 'stl'));
    expect(back.positions).toHaveLength(15);
    expect(corners(back)).toEqual(corners(mesh));
  });

  it('reads and writes a mesh of no triangles, and one of several pieces', () => {
    const empty: Mesh = { positions: new Float32Array(0), triangles: new Uint32Array(0) };
    for (const encoding of ['vtk', 'vtk-binary', 'stl'] as const) {
      expect(readMesh(write(empty, encoding)).triangles).toHaveLength(0);
    }
    const n = 70_001;
    const large: Mesh = {
      positions: Float32Array.from({ length: n * 3 }, (_, i) => (i % 977) / 4),
      triangles: Uint32Array.from({ length: n * 3 }, (_, i) => (i * 7919) % n),
    };
    for (const encoding of ['vtk', 'vtk-binary'] as const)
      expect(readMesh(write(large, encoding))).toEqual(large);
  });

  it('turns LPS into RAS', () => {
    const lps = Buffer.from(write(mesh, 'vtk')).toString().replace('SPACE=RAS', 'SPACE=LPS');
    const back = readMesh(text(lps));
    expect([...back.positions.subarray(3, 6)]).toEqual([-10.5, -0, 0.25]);
  });

  it('reads polygons as fans, strips, OFFSETS of version 5.1, and skips other attributes', () => {
    const old = `# vtk DataFile Version 4.2\nvtk output\nASCII\nDATASET POLYDATA\nPOINTS 5 double\n0 0 0 1 0 0 1 1 0\n0 1 0 2 2 2\n
VERTICES 1 2 1 4
POLYGONS 2 9
4 0 1 2 3
3 0 1 4
TRIANGLE_STRIPS 1 5
4 0 1 2 3
POINT_DATA 5
NORMALS Normals float
0 0 1 0 0 1 0 0 1 0 0 1 0 0 1
METADATA
INFORMATION 0

CELL_DATA 4
FIELD FieldData 2
other 2 4 float
1 2 3 4 5 6 7 8
label 1 4 int
9 5 6 7
`;
    const back = readMesh(text(old));
    expect([...back.triangles]).toEqual([0, 1, 2, 0, 2, 3, 0, 1, 4, 0, 1, 2, 1, 3, 2]);
    expect([...back.labels!]).toEqual([5, 5, 6, 7, 7]);
    const later = `# vtk DataFile Version 5.1\nx\nASCII\nDATASET POLYDATA\nPOINTS 4 float\n0 0 0 1 0 0 1 1 0 0 1 0\nMETADATA\nINFORMATION 1\nNAME a LOCATION b\nDATA 1\n\nPOLYGONS 3 7\nOFFSETS vtktypeint64\n0 4 7\nCONNECTIVITY vtktypeint64\n0 1 2 3 1 2 3\n`;
    expect([...readMesh(text(later)).triangles]).toEqual([0, 1, 2, 0, 2, 3, 1, 2, 3]);
  });

  const head = '# vtk DataFile Version 3.0\nx\nASCII\nDATASET POLYDATA\n';
  const points = `${head}POINTS 3 float\n0 0 0 1 0 0 0 1 0\n`;
  it.each([
    ['nothing', '', 'UNKNOWN_FORMAT'],
    ['text', 'a long text that is no mesh at all', 'UNKNOWN_FORMAT'],
    ['STL in text', 'solid a\nfacet normal 0 0 1', 'UNSUPPORTED_FORMAT'],
    ['another dataset', head.replace('POLYDATA', 'UNSTRUCTURED_GRID'), 'UNSUPPORTED_FORMAT'],
    ['an encoding that does not exist', head.replace('ASCII', 'ROT13'), 'BAD_HEADER'],
    ['no points', head, 'BAD_HEADER'],
    ['a negative count', `${head}POINTS -3 float\n`, 'BAD_HEADER'],
    ['a huge count', `${head}POINTS 2000000000 float\n0 0 0\n`, 'BAD_VOXELS'],
    ['an unknown type', `${head}POINTS 1 complex\n0 0 0\n`, 'BAD_HEADER'],
    ['a missing number', `${head}POINTS 2 float\n0 0 0 0 0`, 'BAD_VOXELS'],
    ['a word for a number', `${head}POINTS 1 float\n0 zero 0\n`, 'BAD_VOXELS'],
    ['NaN', `${head}POINTS 1 float\n0 nan 0\n`, 'BAD_VOXELS'],
    ['a corner that does not exist', `${points}POLYGONS 1 4\n3 0 1 3\n`, 'BAD_VOXELS'],
    ['a negative corner', `${points}POLYGONS 1 4\n3 0 1 -1\n`, 'BAD_VOXELS'],
    ['two corners', `${points}POLYGONS 1 3\n2 0 1\n`, 'BAD_VOXELS'],
    ['cells beyond their list', `${points}POLYGONS 2 4\n3 0 1 2\n`, 'BAD_VOXELS'],
    ['surplus in the list of cells', `${points}POLYGONS 1 5\n3 0 1 2 0\n`, 'BAD_VOXELS'],
    ['a keyword that does not exist', `${points}POLYGNOS 1 4\n3 0 1 2\n`, 'BAD_HEADER'],
    [
      'labels for too few cells',
      `${points}POLYGONS 2 8\n3 0 1 2\n3 0 2 1\nCELL_DATA 1\nSCALARS label int\nLOOKUP_TABLE default\n1\n`,
      'BAD_VOXELS',
    ],
  ])('refuses %s', (_, content, code) => {
    expect(codeOf(text(content))).toBe(code);
  });

  it('refuses binary files truncated anywhere', () => {
    for (const encoding of ['vtk-binary', 'stl'] as const) {
      const { labels: _, ...plain } = mesh;
      const whole = write(plain, encoding);
      expect(codeOf(whole)).toBe('read');
      for (let n = 0; n < whole.length - 1; n++) {
        const code = codeOf(whole.subarray(0, n));
        // A file that ends between its sections has fewer of them: points without polygons.
        if (code === 'read') expect(readMesh(whole.subarray(0, n)).triangles).toHaveLength(0);
        else expect(['UNKNOWN_FORMAT', 'BAD_HEADER', 'BAD_VOXELS', 'UNSUPPORTED_FORMAT']).toContain(code);
      }
    }
  });

  it('lets nothing but a TomaatError out for mutated bytes', () => {
    const next = createNumbers(99);
    const random = (n: number) => next() % n;
    for (const encoding of ['vtk', 'vtk-binary', 'stl'] as const) {
      const whole = write(mesh, encoding);
      for (let round = 0; round < 600; round++) {
        const bytes = whole.slice();
        for (let k = 0; k <= round % 3; k++) bytes[random(bytes.length)] = random(256);
        codeOf(bytes);
      }
    }
  });
});

/** Three vertices and one triangle. */
const triangleOf = (...positions: number[]): Mesh => ({
  positions: Float32Array.from(positions),
  triangles: Uint32Array.of(0, 1, 2),
});

describe('meshToVtk()', () => {
  const linesOf = (value: Mesh) => Buffer.from(write(value, 'vtk')).toString().split('\n');

  it.each([
    [0, '0'],
    [-0, '0'],
    [7, '7'],
    [-12, '-12'],
    [10, '10'],
    [0.1, '0.1'],
    [-0.5, '-0.5'],
    [0.00004, '0'],
    [-0.00004, '0'],
    [-0.00006, '-0.0001'],
    [0.00096, '0.001'],
    [12.0305, '12.0305'],
    [9.99996, '10'],
    [100.05, '100.05'],
    // The last numbers with four decimals, then those with all that a float32 has.
    [150_000.015625, '150000.0156'],
    [214_748.359375, '214748.3594'],
    [300_000.03125, '300000.031'],
    [-300_000.03125, '-300000.031'],
    [3e9, '3000000000'],
    [2 ** 100, '1.2676506e+30'],
  ])('writes %d mm as %s', (value, expected) => {
    expect(linesOf(triangleOf(0, 0, 0, 100, 100, 100, value, 1, 2))[7]).toBe(`${expected} 1 2`);
  });

  it.each([
    ['5 mm along x', [1, 0, 0, 6, 1, 1], '0.1235'],
    ['5 mm along y', [0, -2, 0, 1, 3, 1], '0.1235'],
    ['5 mm along z', [0, 0, -9, 1, 1, -4], '0.1235'],
    ['less', [-2, 2, -2, 2.75, -2.5, 2.75], '0.123456784'],
  ])('rounds to four decimals in a mesh of %s', (_what, corners, expected) => {
    const value = corners[2] < -5 ? [0.5, 0.123456784, -5] : [1, 0.123456784, 0];
    expect(linesOf(triangleOf(...corners, ...value))[7].split(' ')[1]).toBe(expected);
  });

  it('writes every digit of long numbers, however many there are', () => {
    for (let count = 1; count < 140; count++) {
      const long: Mesh = {
        positions: new Float32Array(count * 3).fill(-214_748.359375).fill(1, 0, 1),
        triangles: new Uint32Array(count * 3).fill(4_294_967_295),
      };
      const lines = linesOf(long);
      expect(lines.slice(6, 5 + count)).toEqual(Array(count - 1).fill(`${'-214748.3594 '.repeat(3).trim()}`));
      expect(lines.slice(6 + count, -1)).toEqual(Array(count).fill(`3${' 4294967295'.repeat(3)}`));
    }
  });

  it('writes indexes by their digits', () => {
    const indexes = [0, 9, 10, 99, 100, 101, 1_000_000, 999_999, 4_000_000_000];
    const lines = linesOf({ positions: new Float32Array(3), triangles: Uint32Array.from(indexes) });
    expect(lines.slice(6, 10)).toEqual([
      'POLYGONS 3 12',
      '3 0 9 10',
      '3 99 100 101',
      '3 1000000 999999 4000000000',
    ]);
  });

  it('writes binary big-endian, each section with a line end', () => {
    const value: Mesh = { ...triangleOf(1, -2, 0.5, 0, 70_000, 0, 3, 4, 5), labels: Uint16Array.of(0x1234) };
    const floats = Buffer.alloc(36);
    [1, -2, 0.5, 0, 70_000, 0, 3, 4, 5].forEach((v, i) => void floats.writeFloatBE(v, 4 * i));
    const indexes = Buffer.alloc(16);
    [3, 0, 1, 2].forEach((v, i) => void indexes.writeInt32BE(v, 4 * i));
    const head = '# vtk DataFile Version 3.0\nTOMAAT surface SPACE=RAS\nBINARY\nDATASET POLYDATA\n';
    const expected = Buffer.concat([
      text(`${head}POINTS 3 float\n`),
      floats,
      text('\nPOLYGONS 1 4\n'),
      indexes,
      text('\nCELL_DATA 1\nSCALARS label unsigned_short 1\nLOOKUP_TABLE default\n'),
      Uint8Array.of(0x12, 0x34, 10),
    ]);
    expect(Buffer.compare(write(value, 'vtk-binary'), expected)).toBe(0);
    const { labels: _, ...plain } = value;
    expect(
      Buffer.compare(write(plain, 'vtk-binary'), expected.subarray(0, expected.indexOf('CELL_DATA'))),
    ).toBe(0);
  });

  it('makes pieces of 32768 points, triangles or labels', () => {
    const count = 32_769;
    const large: Mesh = {
      positions: new Float32Array(count * 3).fill(2, 1),
      triangles: Uint32Array.from({ length: count * 3 }, (_, i) => i % 7),
      labels: Uint16Array.from({ length: count }, (_, i) => i),
    };
    const lengths = [...meshToVtk(large, { binary: true })].map((piece) => piece.length);
    const binary = [lengths[1], lengths[2], lengths[4], lengths[5], lengths[8], lengths[9]];
    expect(binary).toEqual([32_768 * 12, 12, 32_768 * 16, 16, 65_536, 2]);
    expect([...meshToStl(large)].map((piece) => piece.length)).toEqual([84, 32_768 * 50, 50]);
    const back = readMesh(write(large, 'vtk-binary'));
    expect(Buffer.compare(Buffer.from(back.labels!.buffer), Buffer.from(large.labels!.buffer))).toBe(0);
    expect(
      linesOf(large)
        .slice(-count - 1)
        .join(' '),
    ).toBe(`${large.labels!.join(' ')} `);
  });
});

describe('meshToStl()', () => {
  it('writes each triangle with its normal, little-endian', () => {
    const positions = [1, 2, 3, 2, 4, 5, 3, 3, 1, 1, 2, 3];
    const bytes = Buffer.from(
      write(
        { positions: Float32Array.from(positions), triangles: Uint32Array.of(0, 1, 2, 0, 2, 1, 0, 3, 1) },
        'stl',
      ),
    );
    expect(bytes.subarray(0, 80).toString()).toBe('TOMAAT surface SPACE=RAS'.padEnd(80));
    expect(bytes.readUInt32LE(80)).toBe(3);
    const floats = (triangle: number) =>
      Array.from({ length: 12 }, (_, i) => bytes.readFloatLE(84 + 50 * triangle + 4 * i));
    const near = (values: number[]) => values.map((v) => expect.closeTo(v, 6));
    // (1, 2, 2) × (2, 1, -2) = (-6, 6, -3), of length 9.
    expect(floats(0)).toEqual(near([-2 / 3, 2 / 3, -1 / 3, 1, 2, 3, 2, 4, 5, 3, 3, 1]));
    expect(floats(1)).toEqual(near([2 / 3, -2 / 3, 1 / 3, 1, 2, 3, 3, 3, 1, 2, 4, 5]));
    expect(floats(2)).toEqual(near([0, 0, 0, 1, 2, 3, 1, 2, 3, 2, 4, 5]));
    expect([134 - 2, 134 - 1, 184 - 2, 184 - 1].map((at) => bytes[at])).toEqual([0, 0, 0, 0]);
  });
});

describe('readMesh() of STL', () => {
  /** A header of 80 bytes, the count of triangles, and so many bytes. */
  const stl = (title: string, count: number, length: number) => {
    const bytes = new Uint8Array(84 + length);
    bytes.set(text(title));
    new DataView(bytes.buffer).setUint32(80, count, true);
    return bytes;
  };

  it.each([
    ['no triangles', stl('', 0, 0), 'read'],
    ['a title of text STL', stl('solid a', 1, 50), 'read'],
    ['a title without space, one byte short', stl('a', 1, 49), 'UNKNOWN_FORMAT'],
    ['a byte short', stl('made as STL', 1, 49), 'BAD_VOXELS'],
    ['a byte more', stl('SPACE=RAS', 1, 51), 'BAD_VOXELS'],
    ['a byte short, after its title', stl(`${' '.repeat(77)}stl`, 1, 49), 'BAD_VOXELS'],
    ['STL in text that names itself', stl('solid STL', 1, 49), 'UNSUPPORTED_FORMAT'],
    ['less than its header', stl('STL', 0, 0).subarray(0, 83), 'UNKNOWN_FORMAT'],
  ])('with %s', (_what, bytes, code) => {
    expect(codeOf(bytes)).toBe(code);
  });

  it('goes by the place in the memory that it is given', () => {
    const bytes = write(mesh, 'stl');
    const shifted = new Uint8Array(bytes.length + 7).fill(1);
    shifted.set(bytes, 3);
    expect(corners(readMesh(shifted.subarray(3, 3 + bytes.length)))).toEqual(corners(mesh));
    const vtk = write(mesh, 'vtk-binary');
    const moved = new Uint8Array(vtk.length + 7).fill(10);
    moved.set(vtk, 3);
    expect(corners(readMesh(moved.subarray(3, 3 + vtk.length)))).toEqual(corners(mesh));
  });

  it('makes equal vertices one, and no others', () => {
    // The corners of a grid, each in several triangles; with 0 and -0.
    const side = 11;
    const positions: number[] = [];
    for (let z = 0; z < side; z++)
      for (let y = 0; y < side; y++)
        for (let x = 0; x < side; x++) positions.push(x / 2 - 2, y * 1e-3, -z * 1000);
    const count = side ** 3;
    const grid: Mesh = {
      positions: Float32Array.from(positions),
      triangles: Uint32Array.from({ length: count * 6 }, (_, i) => (i * 7919 + (i >> 3)) % count),
    };
    const back = readMesh(write(grid, 'stl'));
    expect(back.positions).toHaveLength(count * 3);
    expect(
      Buffer.compare(
        Buffer.from(`${corners(back)}`),
        Buffer.from(`${corners(grid)}`.replaceAll('-0,', '0,')),
      ),
    ).toBe(0);
    const signed = readMesh(write(triangleOf(0, 0, 0, -0, 0, -0, 1, -0, 2), 'stl'));
    expect([...signed.triangles]).toEqual([0, 0, 1]);
    expect([...signed.positions]).toEqual([0, 0, 0, 1, 0, 2]);
  });

  it('turns LPS into RAS', () => {
    const bytes = write(triangleOf(1, 2, 3, 4, 5, 6, -7, 8, 9), 'stl');
    bytes.set(text('SPACE=LPS'), 71);
    expect([...readMesh(bytes).positions]).toEqual([-1, -2, 3, -4, -5, 6, 7, -8, 9]);
    bytes.set(text('SPACE=LP '), 71);
    expect([...readMesh(bytes).positions]).toEqual([1, 2, 3, 4, 5, 6, -7, 8, 9]);
  });
});

describe('readMesh() of VTK', () => {
  const head = '# vtk DataFile Version 3.0\nx\nASCII\nDATASET POLYDATA\n';
  const binaryHead = head.replace('ASCII', 'BINARY');
  const positionsOf = (numbers: string, type = 'double') => [
    ...readMesh(text(`${head}POINTS 2 ${type}\n${numbers}`)).positions,
  ];

  const types: [string, number, (bytes: Buffer, value: number, at: number) => void, number[]][] = [
    ['unsigned_char', 1, (b, v, at) => void b.writeUInt8(v, at), [0, 1, 255]],
    ['char', 1, (b, v, at) => void b.writeInt8(v, at), [-128, 2, 127]],
    ['unsigned_short', 2, (b, v, at) => void b.writeUInt16BE(v, at), [1, 300, 65_535]],
    ['short', 2, (b, v, at) => void b.writeInt16BE(v, at), [-32_768, 300, 32_767]],
    ['unsigned_int', 4, (b, v, at) => void b.writeUInt32BE(v, at), [1, 70_000, 4_294_967_040]],
    ['int', 4, (b, v, at) => void b.writeInt32BE(v, at), [-70_000, 1, 2_147_483_520]],
    ['vtkIdType', 4, (b, v, at) => void b.writeInt32BE(v, at), [-70_000, 1, 2_147_483_520]],
    ['unsigned_long', 8, (b, v, at) => void b.writeBigUInt64BE(BigInt(v), at), [1, 300, 2 ** 63]],
    ['long', 8, (b, v, at) => void b.writeBigInt64BE(BigInt(v), at), [-(2 ** 63), 300, 2 ** 40]],
    ['vtktypeint64', 8, (b, v, at) => void b.writeBigInt64BE(BigInt(v), at), [-(2 ** 63), 300, 2 ** 40]],
    ['vtktypeuint64', 8, (b, v, at) => void b.writeBigUInt64BE(BigInt(v), at), [1, 300, 2 ** 63]],
    ['float', 4, (b, v, at) => void b.writeFloatBE(v, at), [-0.5, 1.25, 1e30]],
    ['double', 8, (b, v, at) => void b.writeDoubleBE(v, at), [-0.5, 1.25, 1e30]],
  ];
  it.each(types)('reads points of the type %s, in either case', (type, size, put, values) => {
    const numbers = [...values, ...values.toReversed()];
    const data = Buffer.alloc(6 * size);
    numbers.forEach((value, i) => void put(data, value, i * size));
    const expected = [...Float32Array.from(numbers)];
    for (const name of [type, type.toUpperCase()]) {
      const bytes = Buffer.concat([text(`${binaryHead}POINTS 2 ${name}\n`), data, text('\nPOLYGONS 0 0\n')]);
      expect([...readMesh(bytes).positions]).toEqual(expected);
      expect(positionsOf(numbers.join(' '), name)).toEqual(expected);
    }
  });

  it.each([
    ['1 2 3 4 5 6', [1, 2, 3, 4, 5, 6]],
    ['1\t2\v3\f4\r\n5\n\n 6 ', [1, 2, 3, 4, 5, 6]],
    ['-1 -0.5 .25 -.125 5. -6.', [-1, -0.5, 0.25, -0.125, 5, -6]],
    ['1.50 100.25 007 0.0009765625 10.0 0', [1.5, 100.25, 7, 0.0009765625, 10, 0]],
    ['1e2 -1.25E-1 +3 2e+1 4e0 0.5e1', [100, -0.125, 3, 20, 4, 5]],
    [
      '123456789012345 1234567890123456 0.000000000000001 1 2 3',
      [123456789012345, 1234567890123456, 1e-15, 1, 2, 3],
    ],
  ])('reads the numbers %j', (numbers, expected) => {
    expect(positionsOf(numbers)).toEqual([...Float32Array.from(expected)]);
  });

  it.each([
    '1.2.3',
    '-',
    '--5',
    '5-',
    '.',
    '1,',
    'zero',
    '1\u00082',
    '1\u000e2',
    '1/',
    '1:',
    'nan',
    'NaN',
    'infinity',
  ])('refuses %j as a number', (number) => {
    expect(codeOf(text(`${head}POINTS 2 double\n1 2 3 4 5 ${number}\n`))).toBe('BAD_VOXELS');
    expect(codeOf(text(`${head}POINTS 2 double\n${number} 2 3 4 5 6\n`))).toBe('BAD_VOXELS');
  });

  it.each([
    ['2^31 points', 'POINTS 2147483648 float', 'BAD_VOXELS'],
    ['more than 2^31 points', 'POINTS 2147483649 float', 'BAD_HEADER'],
    ['one and a half point', 'POINTS 1.5 float', 'BAD_HEADER'],
    ['no count', 'POINTS', 'BAD_HEADER'],
    ['no points, and nothing after', 'POINTS 0 float', 'read'],
    ['a word of 256 characters', `POINTS 0 float\nPOINT_DATA 0\nSCALARS ${'a'.repeat(256)} int\n`, 'read'],
    [
      'a word of 257 characters',
      `POINTS 0 float\nPOINT_DATA 0\nSCALARS ${'a'.repeat(257)} int\n`,
      'BAD_HEADER',
    ],
  ])('takes %s for what it is', (_what, lines, code) => {
    expect(codeOf(text(`${head}${lines}`))).toBe(code);
  });

  it('reads line ends of DOS and words in either case', () => {
    const numbers = 'POINTS 3 float\n1 2 3 4 5 6 7 8 9\nPOLYGONS 1 4\n3 0 1 2\n';
    const dos = text(`${head}${numbers}`.replaceAll('\n', '\r\n'));
    expect([...readMesh(dos).triangles]).toEqual([0, 1, 2]);
    const lower = `${head}${numbers}`.toLowerCase().replace('# vtk datafile', '# vtk DataFile');
    expect([...readMesh(text(lower)).triangles]).toEqual([0, 1, 2]);
  });

  it('finds the space in the first 4096 characters of the title', () => {
    const titled = (title: string) =>
      readMesh(text(`${head.replace('x', title)}POINTS 1 float\n1 2 3\n`)).positions[0];
    expect(titled(`${' '.repeat(4087)}SPACE=LPS`)).toBe(-1);
    expect(titled(`${' '.repeat(4088)}SPACE=LPS`)).toBe(1);
  });

  const points = `${head}POINTS 6 float\n0 0 0 1 0 0 0 1 0 1 1 0 2 1 0 2 2 1\n`;
  const labels = (count: number) =>
    `CELL_DATA ${count}\nSCALARS label int 1\nLOOKUP_TABLE default\n${Array.from({ length: count }, (_, i) => 10 + i).join(' ')}\n`;
  const readCells = (cells: string) => {
    const { triangles, labels } = readMesh(text(points + cells));
    return { triangles: [...triangles], labels: labels && [...labels] };
  };

  it('makes fans of polygons and turns every second triangle of a strip', () => {
    expect(readCells('POLYGONS 1 6\n5 0 1 2 3 4\nTRIANGLE_STRIPS 1 6\n5 1 2 3 4 5\n').triangles).toEqual([
      0, 1, 2, 0, 2, 3, 0, 3, 4, 1, 2, 3, 2, 4, 3, 3, 4, 5,
    ]);
    expect(readCells(`TRIANGLE_STRIPS 2 8\n3 0 1 2\n3 1 2 3\n${labels(2)}`)).toEqual({
      triangles: [0, 1, 2, 1, 2, 3],
      labels: [10, 11],
    });
  });

  it('counts vertices and lines before polygons and strips for the labels', () => {
    const cells = `VERTICES 2 5\n1 0\n2 1 2\nLINES 1 3\n2 0 1\nPOLYGONS 2 9\n4 0 1 3 2\n3 0 1 4\nTRIANGLE_STRIPS 1 4\n3 3 4 5\n`;
    expect(readCells(cells + labels(6)).labels).toEqual([13, 13, 14, 15]);
    expect(codeOf(text(points + cells + labels(5)))).toBe('BAD_VOXELS');
    const none = 'VERTICES 0 0\nOFFSETS vtktypeint64\nCONNECTIVITY vtktypeint64\n';
    expect(readCells(`${none}POLYGONS 1 4\n3 0 1 2\n${labels(1)}`).labels).toEqual([10]);
    expect(readCells(`${none}POLYGONS 0 0\n${labels(0)}`).labels).toEqual([]);
  });

  it.each([
    ['of its polygons', 'OFFSETS vtktypeint64\n0 3 7\nCONNECTIVITY vtktypeint64\n0 1 2 0 1 3 2\n', 'read'],
    ['in lower case', 'offsets int\n0 3 7\nconnectivity int\n0 1 2 0 1 3 2\n', 'read'],
    ['not from 0', 'OFFSETS int\n1 3 7\nCONNECTIVITY int\n0 1 2 0 1 3 2\n', 'BAD_VOXELS'],
    ['that descend', 'OFFSETS int\n0 8 7\nCONNECTIVITY int\n0 1 2 0 1 3 2\n', 'BAD_VOXELS'],
    ['to another end', 'OFFSETS int\n0 3 6\nCONNECTIVITY int\n0 1 2 0 1 3 2\n', 'BAD_VOXELS'],
    ['alone', 'OFFSETS int\n0 3 7\nPOLYGONS int\n0 1 2 0 1 3 2\n', 'BAD_HEADER'],
  ])('with OFFSETS %s', (_what, cells, code) => {
    expect(codeOf(text(`${points}POLYGONS 3 7\n${cells}`))).toBe(code);
    if (code === 'read')
      expect(readCells(`POLYGONS 3 7\n${cells}`).triangles).toEqual([0, 1, 2, 0, 1, 3, 0, 3, 2]);
  });

  it.each([
    ['POLYGONS 0 0', 'read'],
    ['POLYGONS 3 2\n0 0', 'BAD_HEADER'],
    ['POLYGONS 2 2\n0 0', 'BAD_VOXELS'],
    ['POLYGONS 1 3\n2 0 1', 'BAD_VOXELS'],
    ['POLYGONS 1 4\n-1 0 1 2', 'BAD_VOXELS'],
    ['POLYGONS 1 4\n4 0 1 2', 'BAD_VOXELS'],
    ['POLYGONS 1 4\n3 0 1 6', 'BAD_VOXELS'],
    ['POLYGONS 1 4\n3 0 1 5', 'read'],
    ['VERTICES 2 3\n0 1 0', 'read'],
    ['TRIANGLE_STRIPS 1 3\n2 0 1', 'BAD_VOXELS'],
  ])('takes the cells %j: %s', (cells, code) => {
    expect(codeOf(text(`${points}${cells}\n`))).toBe(code);
  });

  const one = 'POLYGONS 2 8\n3 0 1 2\n3 1 3 2\n';
  const after = 'SCALARS label int\nLOOKUP_TABLE default\n5 6\n';
  it.each([
    ['NORMALS n float', 6, 'float'],
    ['VECTORS v double', 6, 'double'],
    ['TENSORS t float', 18, 'float'],
    ['TEXTURE_COORDINATES t 2 float', 4, 'float'],
    ['TEXTURE_COORDINATES t 3 float', 6, 'float'],
    ['COLOR_SCALARS c 3', 6, 'colour'],
    ['COLOR_SCALARS c 4', 8, 'colour'],
    ['LOOKUP_TABLE l 3', 12, 'colour'],
    ['SCALARS s float', 2, 'float'],
    ['SCALARS s float 1\nLOOKUP_TABLE default', 2, 'float'],
    ['SCALARS s float\nlookup_table default', 2, 'float'],
    ['SCALARS s short 2', 4, 'short'],
    ['SCALARS s short 4', 8, 'short'],
    ['FIELD f 1\nx 3 2 float', 6, 'float'],
    ['SCALARS label int 2', 4, 'int'],
    ['FIELD f 1\nlabel 2 2 int', 4, 'int'],
  ])('reads past %s', (attribute, count, type) => {
    const size = { float: 4, double: 8, colour: 1, short: 2, int: 4 }[type]!;
    const numbers = Array(count).fill(0.5).join(' ');
    expect(readCells(`${one}CELL_DATA 2\n${attribute}\n${numbers}\n${after}`).labels).toEqual([5, 6]);
    const cells = Buffer.alloc(32);
    [3, 0, 1, 2, 3, 1, 3, 2].forEach((v, i) => void cells.writeInt32BE(v, 4 * i));
    const binary = Buffer.concat([
      text(`${binaryHead}POINTS 4 float\n`),
      Buffer.alloc(48),
      text('\nPOLYGONS 2 8\n'),
      cells,
      text(`\nCELL_DATA 2\n${attribute}\n`),
      Buffer.alloc(count * size, 65),
      text('\nSCALARS label unsigned_char\nLOOKUP_TABLE default\n'),
      Uint8Array.of(5, 6),
    ]);
    expect([...readMesh(binary).labels!]).toEqual([5, 6]);
  });

  it.each([
    ['of points', 'POINT_DATA 2\nSCALARS label int\n5 6\n'],
    ['of another name', 'CELL_DATA 2\nSCALARS labels int\n5 6\n'],
    ['of two components', 'CELL_DATA 2\nSCALARS label int 2\n5 6 7 8\n'],
    ['of a field with two components', 'CELL_DATA 2\nFIELD f 1\nlabel 2 2 int\n5 6 7 8\n'],
  ])('takes no labels %s', (_what, attributes) => {
    expect(readCells(one + attributes).labels).toBeUndefined();
  });

  it('finds labels among the arrays of a field, over metadata', () => {
    const meta = 'METADATA\nINFORMATION 2\nNAME a LOCATION b\nDATA 1\n\n';
    const field = `CELL_DATA 2\nFIELD f 3\nx 1 2 int\n1 2\n${meta}label 1 2 int\n5 6\n${meta}y 2 1 int\n3 4\n${meta}`;
    expect(readCells(one + field).labels).toEqual([5, 6]);
    expect(readCells(`METADATA\nCOMPONENT_NAMES\na%20b\n \n${one}${field}`).labels).toEqual([5, 6]);
    expect(readCells(`${one}METADATA\nINFORMATION 0`).triangles).toHaveLength(6);
  });
});
