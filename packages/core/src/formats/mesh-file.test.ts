import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import type { Mesh } from '../labels/surface.ts';
import { meshToStl, meshToVtk, readMesh } from './mesh-file.ts';

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

  it('refuses binary files that are cut off, anywhere', () => {
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
    let state = 99;
    const random = (n: number) => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % n;
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
