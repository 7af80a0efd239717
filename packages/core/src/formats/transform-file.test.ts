import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import { type Affine, applyAffine, type Vec3 } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import {
  readTransform,
  readTransformMat,
  readTransformText,
  type SpatialTransform,
  transformExtensions,
  writeTransform,
  writeTransformMat,
  writeTransformText,
} from './transform-file.ts';
import { webPlatform as platform } from './web-platform.ts';

// Written by SimpleITK 2.5: an affine, and a rotation by Euler angles, each about a centre.
const affineMat =
  'AAAAAAwAAAABAAAAAAAAABsAAABBZmZpbmVUcmFuc2Zvcm1fZG91YmxlXzNfMwDNzMzMzMzsP5qZmZmZmcm/mpmZmZmZuT8AAAAAAADQP5qZmZmZmfE/mpmZmZmZqb+4HoXrUbi+v+xRuB6F67E/ZmZmZmZm7j8AAAAAAAAWQAAAAAAAAB3AAAAAAAAAJkAAAAAAAwAAAAEAAAAAAAAABgAAAGZpeGVkAAAAAAAAACRAAAAAAAAANEAAAAAAAAA+wA==';
const eulerMat =
  'AAAAAAYAAAABAAAAAAAAABwAAABFdWxlcjNEVHJhbnNmb3JtX2RvdWJsZV8zXzMAMzMzMzMz0z+amZmZmZnJvwAAAAAAAOA/AAAAAAAAFkAAAAAAAAAdwAAAAAAAACZAAAAAAAQAAAABAAAAAAAAAAYAAABmaXhlZAAAAAAAAAAkQAAAAAAAADRAAAAAAAAAPsAAAAAAAAAAAA==';
const lines = {
  affine:
    'Transform: AffineTransform_double_3_3\nParameters: 0.9 -0.2 0.1 0.25 1.1 -0.05 -0.12 0.07 0.95 5.5 -7.25 11\nFixedParameters: 10 20 -30',
  euler:
    'Transform: Euler3DTransform_double_3_3\nParameters: 0.3 -0.2 0.5 5.5 -7.25 11\nFixedParameters: 10 20 -30 0',
  eulerZyx:
    'Transform: Euler3DTransform_double_3_3\nParameters: 0.3 -0.2 0.5 5.5 -7.25 11\nFixedParameters: 10 20 -30 1',
  versor:
    'Transform: VersorRigid3DTransform_double_3_3\nParameters: 0.09164329313481029 0.18328658626962058 0.27492988283340897 5.5 -7.25 11\nFixedParameters: 10 20 -30',
  translation: 'Transform: TranslationTransform_double_3_3\nParameters: 5.5 -7.25 11\nFixedParameters: ',
};
const tfm = (...parts: string[]) =>
  `#Insight Transform File V1.0\n${parts.map((part, i) => `#Transform ${i}\n${part}\n`).join('')}`;

/** Where SimpleITK takes the point (1.5, -2.5, 3.5), LPS. */
const itk: Record<string, [string, Vec3]> = {
  affine: [tfm(lines.affine), [15.7, -15.8, 12.27]],
  euler: [tfm(lines.euler), [17.066258667273665, -21.375236287424386, 4.103356511871692]],
  eulerZyx: [tfm(lines.eulerZyx), [18.820267471304167, -21.2105391013501, 4.160475121738555]],
  versor: [tfm(lines.versor), [32.94575912310338, -13.038323157936597, 8.043629144781704]],
  translation: [tfm(lines.translation), [7, -9.75, 14.5]],
  composite: [
    tfm('Transform: CompositeTransform_double_3_3', lines.affine, lines.eulerZyx),
    [35.09639605661762, -32.084549899745994, 9.509281532000621],
  ],
};
const decode = (base64: string) => new Uint8Array(Buffer.from(base64, 'base64'));

function expectMaps(matrix: Affine, lps: Vec3): void {
  const [r, a, s] = applyAffine(matrix, [-1.5, 2.5, 3.5]);
  [-r, -a, s].forEach((v, k) => void expect(v).toBeCloseTo(lps[k], 10));
}

const file = (bytes: Uint8Array, name = 'transform') => ({
  name,
  async *open(start = 0) {
    for (let i = start; i < bytes.length; i += 100) yield bytes.subarray(i, i + 100);
  },
});
async function collect(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return new Uint8Array(Buffer.concat(chunks));
}

describe('readTransformText()', () => {
  it.each(Object.keys(itk))('maps a point as ITK does, in RAS: %s', (name) => {
    expectMaps(readTransformText(itk[name][0]), itk[name][1]);
    expectMaps(readTransformText(itk[name][0].replaceAll('\n', '\r\n')), itk[name][1]);
  });

  it.each([
    ['', 'no transform'],
    [tfm(lines.affine, lines.euler), 'several'],
    [tfm(lines.affine.replace('0.9', 'x')), 'line 4'],
    [tfm(lines.affine.replace('0.9 ', '')), ', not 12.'],
    [tfm(lines.affine.replace(/FixedParameters.*/, '')), 'centre'],
    [tfm(lines.affine.replace(/: 0.9 -0.2 0.1 0.25 1.1 -0.05/, ': 1 2 3 2 4 6')), 'inverted'],
    [tfm(lines.affine.replace('AffineTransform', 'BSplineTransform')), 'AffineTransform'],
    [tfm(lines.affine.replace('Parameters', 'Paramters')), 'line 4'],
  ])('refuses a faulty text: %#', (text, fault) => {
    expect(() => readTransformText(text)).toThrow(TomaatError);
    expect(() => readTransformText(text)).toThrow(new RegExp(fault));
  });
});

describe('readTransformMat()', () => {
  it('reads ITK’s files', () => {
    expectMaps(readTransformMat(decode(affineMat)), itk.affine[1]);
    expectMaps(readTransformMat(decode(eulerMat)), itk.euler[1]);
  });

  it('reads single precision and big-endian files, and MatrixOffsetTransformBase', () => {
    for (const littleEndian of [true, false]) {
      const numbers = [0.5, 0.25, 0, 0, 2, 0, 0, 0.5, 1, 3, -4, 8];
      const bytes = new Uint8Array(20 + 36 + 48 + 20 + 6 + 12);
      const view = new DataView(bytes.buffer);
      const matrix = (at: number, name: string, values: number[]) => {
        const type = littleEndian ? 10 : 1010;
        [type, values.length, 1, 0, name.length].forEach(
          (v, i) => void view.setInt32(at + 4 * i, v, littleEndian),
        );
        bytes.set(new TextEncoder().encode(name), at + 20);
        values.forEach((v, i) => void view.setFloat32(at + 20 + name.length + 4 * i, v, littleEndian));
      };
      matrix(0, 'MatrixOffsetTransformBase_float_3_3'.padEnd(36, '\0'), numbers);
      matrix(104, 'fixed\0', [0, 0, 0]);
      expectMaps(readTransformMat(bytes), [3.125, -9, 10.25]);
    }
  });

  it('never quotes an unknown type, however long', () => {
    for (const type of [
      'SecretTransform_double_3_3',
      `${'a'.repeat(100_000)}_double_3_3`,
      'AffineTransform_double_2_2',
    ]) {
      for (const rest of ['', 'Parameters: 1\nFixedParameters: 1\n']) {
        let refusal: unknown;
        try {
          readTransformText(`#Insight Transform File V1.0\nTransform: ${type}\n${rest}`);
        } catch (error) {
          refusal = error;
        }
        expect(refusal).toMatchObject({ code: 'UNSUPPORTED_FORMAT' });
        expect((refusal as Error).message.length).toBeLessThan(200);
        expect((refusal as Error).message).not.toMatch(/Secret|aaa|_2_2/);
      }
    }
  });

  it('refuses files truncated at any byte, and names that are not ITK’s', () => {
    const whole = decode(affineMat);
    for (let n = 0; n < whole.length; n++) {
      expect(() => readTransformMat(whole.subarray(0, n))).toThrow(TomaatError);
    }
    const other = Buffer.from(whole).toString('latin1');
    for (const [from, to] of [
      ['fixed', 'mixed'],
      ['AffineT', 'BitterT'],
    ]) {
      expect(() => readTransformMat(Buffer.from(other.replace(from, to), 'latin1'))).toThrow(TomaatError);
    }
  });
});

const matrix: Affine = [0.9, -0.2, 0.1, 5.25, 0.25, 1.1, -0.05, -7, -0.12, 0.07, -0.95, 1 / 3, 0, 0, 0, 1];

describe('writeTransformMat(), writeTransformText()', () => {
  it('write what reads back exactly', () => {
    expect(readTransformMat(writeTransformMat(matrix))).toEqual(matrix);
    expect(readTransformText(writeTransformText(matrix))).toEqual(matrix);
  });

  it('write a file laid out as ITK’s', () => {
    const [mine, itks] = [writeTransformMat(matrix), decode(affineMat)];
    expect(mine).toHaveLength(itks.length);
    expect(mine.subarray(0, 47)).toEqual(itks.subarray(0, 47));
    expect(mine.subarray(143, 169)).toEqual(itks.subarray(143, 169));
  });

  it('refuse a matrix that has no inverse', () => {
    expect(() => writeTransformMat(matrix.map((v, i) => (i < 3 ? 0 : v)))).toThrow(
      /not an invertible matrix|inverted/,
    );
    expect(() => writeTransformText(matrix.map((v, i) => (i === 3 ? Number.NaN : v)))).toThrow(/finite/);
  });
});

// A field of 4×3×2 vectors with spacing 1, 2, 3 mm, origin (5, 6, 7) LPS; vector (3 (x + 4 y + 12 z) + c) / 8 mm LPS.
const itkField =
  'H4sIAAAAAAACA8XRLWzCUBDA8SuwpSHLUomsXDLDHApKMMhJBAI5tSxTyAoEYgKBQCAqJhATFRMIEp5ATCAQE4iJigkECRUTCMT+r7ykIzW4Xfrrx/u4vLu2LTkjnuVCCpKXnFjcLTndtMs74iZvfu1IPC4vmydsmHkdRfnnOK1DnytQIgoRZ/fn6ZweT8I8lUrndJ1RptbH27s/X6rKOvIPoBDDYc+N6VMLT+hhgDEmeIfCEmt8I8YBhTothJBbyNfR58fK9L+EMprooIs+hgjwhikWWOELG/zoWsh7iSv45HfNfw0RwWaNiwru8aD7hReM8IoQM3zg0/Roiz1y5LVxXf8FDHGqFYACAAA=';
const vectorAt = (
  { displacement: { voxels, size } }: { displacement: Volume },
  x: number,
  y: number,
  z: number,
) => [0, 1, 2].map((c) => Number(voxels[((c * size[2] + z) * size[1] + y) * size[0] + x]));

describe('readTransform()', () => {
  it('reads ITK’s vector image (intent VECTOR, LPS) as displacements in RAS', async () => {
    const grid = (await readTransform(file(decode(itkField)), platform)) as SpatialTransform & {
      kind: 'grid';
    };
    expect(grid.kind).toBe('grid');
    expect(grid.displacement.size).toEqual([4, 3, 2]);
    expect(vectorAt(grid, 1, 2, 1)).toEqual([-7.875, -8, 8.125]);
    expect(applyAffine(grid.displacement.affine, [1, 2, 1])).toEqual([-6, -10, 10]);
  });

  it('takes vectors with the intent DISPVECT as RAS, as ITK does', async () => {
    const raw = await collect(
      new Blob([decode(itkField)]).stream().pipeThrough(new DecompressionStream('gzip')),
    );
    raw[68] = 1006 & 255;
    const grid = (await readTransform(file(raw, 'd.nii'), platform)) as SpatialTransform & { kind: 'grid' };
    expect(vectorAt(grid, 1, 2, 1)).toEqual([7.875, 8, 8.125]);
  });

  it('distinguishes linear transforms and B-splines by their bytes', async () => {
    const linear = await readTransform(file(decode(affineMat)), platform);
    expectMaps((linear as SpatialTransform & { kind: 'linear' }).matrix, itk.affine[1]);
    const text = await readTransform(file(new TextEncoder().encode(itk.versor[0])), platform);
    expectMaps((text as SpatialTransform & { kind: 'linear' }).matrix, itk.versor[1]);
    const h5 = Uint8Array.of(0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a, ...new Array(5000).fill(7));
    expect(await readTransform(file(h5), platform)).toEqual({ kind: 'bspline', bytes: h5 });
  });

  it('refuses scalar images, vectors that are not finite, and other files', async () => {
    const raw = await collect(
      new Blob([decode(itkField)]).stream().pipeThrough(new DecompressionStream('gzip')),
    );
    const patch = (at: number, ...bytes: number[]) => {
      const copy = raw.slice();
      copy.set(bytes, at);
      return copy;
    };
    // Two components and a shorter file; three frames in the place of three components; NaN.
    await expect(readTransform(file(patch(50, 2).slice(0, 352 + 192)), platform)).rejects.toThrow(
      /3 components/,
    );
    await expect(readTransform(file(patch(48, 3, 0, 1)), platform)).rejects.toThrow(/3 frames/);
    await expect(readTransform(file(patch(352, 0, 0, 0xc0, 0x7f)), platform)).rejects.toThrow(/NaN/);
    for (const bytes of [
      new Uint8Array(0),
      new Uint8Array(3),
      raw.slice(0, 500),
      new TextEncoder().encode('hello'),
    ]) {
      await expect(readTransform(file(bytes), platform)).rejects.toThrow(TomaatError);
    }
  });
});

describe('writeTransform()', () => {
  it('writes each kind in a form that readTransform() returns unchanged', async () => {
    const displacement: Volume = {
      voxels: Float32Array.from({ length: 72 }, (_, i) => i / 4 - 5),
      size: [4, 3, 2],
      components: 3,
      affine: [0, -1.5, 0, 3, 2, 0, 0, 4, 0, 0, 2.5, 5, 0, 0, 0, 1],
    };
    const bytes = Uint8Array.of(0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a, 1);
    for (const [transform, extension] of [
      [{ kind: 'linear', matrix }, 'mat'],
      [{ kind: 'linear', matrix }, 'txt'],
      [{ kind: 'grid', displacement }, 'nii.gz'],
      [{ kind: 'bspline', bytes }, 'h5'],
    ] as const) {
      const written = await collect(writeTransform(transform, extension, platform));
      expect(await readTransform(file(written), platform)).toEqual(transform);
    }
    await expect(collect(writeTransform({ kind: 'linear', matrix }, 'h5', platform))).rejects.toThrow(
      /\.mat/,
    );
  });
});

describe('readTransformText() of one transform', () => {
  const h = Math.SQRT1_2;
  // By hand: where the point (1.5, -2.5, 3.5) goes, LPS.
  it.each<[string, string, string, Vec3]>([
    ['Identity', '', '', [1.5, -2.5, 3.5]],
    ['Translation', '1 2 3', '', [2.5, -0.5, 6.5]],
    ['MatrixOffset', '0 0 2 3 0 0 0 -1 0 1 2 3', '0 0 0', [8, 6.5, 5.5]],
    ['Rigid3D', '0 0 1 1 0 0 0 1 0 1 2 3', '1 -1 2', [1.5 + 2, 0.5 + 1, -1.5 + 5]],
    ['VersorRigid3D', `${h} 0 0 1 2 3`, '0 0 0', [2.5, -1.5, 0.5]],
    ['VersorRigid3D', `0 ${h} 0 1 2 3`, '0 0 0', [4.5, -0.5, 1.5]],
    ['VersorRigid3D', `0 0 ${h} 1 2 3`, '0 0 0', [3.5, 3.5, 6.5]],
    ['VersorRigid3D', '0 0 1.00000001 1 2 3', '0 0 0', [-0.5, 4.5, 6.5]],
    ['Similarity3D', `0 0 ${h} 5 -6 7 2`, '1 2 3', [15, -3, 11]],
    ['Euler3D', `${Math.PI / 2} 0 0 1 2 3`, '0 0 0', [2.5, -1.5, 0.5]],
    ['Euler3D', `0 ${Math.PI / 2} 0 1 2 3`, '0 0 0', [4.5, -0.5, 1.5]],
    ['Euler3D', `0 0 ${Math.PI / 2} 1 2 3`, '0 0 0', [3.5, 3.5, 6.5]],
  ])('maps a point by %sTransform (%s) about (%s)', (name, parameters, fixed, lps) => {
    const base = name === 'MatrixOffset' ? 'MatrixOffsetTransformBase' : `${name}Transform`;
    for (const type of ['double', 'float']) {
      const text = (p = parameters, f = fixed) =>
        `Transform: ${base}_${type}_3_3\nParameters: ${p}\nFixedParameters: ${f}\n`;
      const matrix = readTransformText(text());
      const [r, a, s] = applyAffine(matrix, [-1.5, 2.5, 3.5]);
      [-r, -a, s].forEach((v, k) => void expect(v).toBeCloseTo(lps[k], 6));
      if (name === 'Identity') continue;
      const count = parameters.split(' ').length;
      for (const wrong of [`${parameters} 1`, parameters.slice(parameters.indexOf(' ') + 1)])
        expect(() => readTransformText(text(wrong))).toThrow(`, not ${count}.`);
      if (name !== 'Translation')
        expect(() => readTransformText(text(parameters, '0 0'))).toThrow(/has no centre/);
    }
  });

  it.each([
    ['Parameters: 1\n', 'line 1'],
    ['#Insight\n\nTransform\n', 'line 3'],
    ['Transform: TranslationTransform_double_3_3\nParameters: 1 2 1e999\n', 'line 2'],
    ['Transform: TranslationTransform_double_3_3\nFixedParameters: nan\n', 'line 2'],
    ['Transform: TranslationTransform_double_3_3\n: 1 2 3\n', 'line 2'],
    ['Transform: CompositeTransform_double_3_3\n', 'no transform'],
    ['# nothing\n\n', 'no transform'],
  ])('refuses %j', (text, fault) => {
    expect(() => readTransformText(text)).toThrow(expect.objectContaining({ code: 'BAD_HEADER' }));
    expect(() => readTransformText(text)).toThrow(fault);
  });

  it('takes blanks of any kind, and a matrix that is nearly flat', () => {
    const flat = (e: number) =>
      `Transform:\tAffineTransform_double_3_3 \n \nParameters:1\t1  0 0 ${e} 0 0 0 1 \t1 2 3\nFixedParameters: 0 0 0\n`;
    expect(readTransformText(flat(2e-12))).toEqual([1, 1, 0, -1, 0, 2e-12, 0, -2, 0, 0, 1, 3, 0, 0, 0, 1]);
    expect(() => readTransformText(flat(0.5e-12))).toThrow(/not an invertible matrix|inverted/);
  });
});

describe('readTransformMat() of a layout', () => {
  interface Part {
    name: string;
    numbers: number[];
    type?: number;
    rows?: number;
    columns?: number;
    imaginary?: number;
  }
  /** Matrices of doubles, little-endian; float32 where the type is 10. */
  function mat(...parts: Part[]): Uint8Array {
    const pieces = parts.map(
      ({ name, numbers, type = 0, rows = numbers.length, columns = 1, imaginary = 0 }) => {
        const head = Buffer.alloc(20);
        for (const [i, v] of [type, rows, columns, imaginary, name.length].entries())
          head.writeInt32LE(v, 4 * i);
        const values = type === 10 ? Float32Array.from(numbers) : Float64Array.from(numbers);
        return Buffer.concat([head, Buffer.from(name, 'latin1'), new Uint8Array(values.buffer)]);
      },
    );
    return new Uint8Array(Buffer.concat(pieces));
  }
  const name = 'TranslationTransform_double_3_3\0';
  const numbers = [1, 2, 3];
  const fixed = { name: 'fixed\0', numbers: [] };
  const moved = [1, 0, 0, -1, 0, 1, 0, -2, 0, 0, 1, 3, 0, 0, 0, 1];

  it('reads names of 2 to 256 characters up to a zero, rows and columns', () => {
    for (const part of [
      { name, numbers },
      { name: `${name}Jane`.padEnd(256, 'x'), numbers },
      { name, numbers, rows: 1, columns: 3 },
      { name, numbers, type: 10 },
    ]) {
      expect(readTransformMat(mat(part, fixed))).toEqual(moved);
      const behind = new Uint8Array([9, 9, 9, ...mat(part, fixed)]);
      expect(readTransformMat(behind.subarray(3))).toEqual(moved);
    }
    expect(readTransformMat(mat({ name, numbers }, { name: 'fixed\0\n', numbers: [] }))).toEqual(moved);
  });

  it.each<[string, Part[], string]>([
    ['a name of one character', [{ name: 'a', numbers }, fixed], 'no MATLAB v4 matrix at byte 0'],
    ['a name of two', [{ name: 'ab', numbers }, fixed], 'unsupported type'],
    ['a name of 257', [{ name: name.padEnd(257, '\0'), numbers }, fixed], 'no MATLAB v4 matrix at byte 0'],
    ['a type of integers', [{ name, numbers, type: 20 }, fixed], 'no MATLAB v4 matrix at byte 0'],
    [
      'a second type of integers',
      [
        { name, numbers },
        { ...fixed, type: 20 },
      ],
      'at byte 76',
    ],
    ['negative sizes', [{ name, numbers, rows: -3, columns: -1 }, fixed], 'wrong size'],
    ['negative rows', [{ name, numbers: [], rows: -1 }, fixed], 'wrong size'],
    ['negative columns', [{ name, numbers: [], rows: 1, columns: -1 }, fixed], 'wrong size'],
    ['imaginary numbers', [{ name, numbers, imaginary: 1 }, fixed], 'wrong size'],
    [
      'one number too few',
      [
        { name, numbers },
        { ...fixed, rows: 1 },
      ],
      'cut off',
    ],
    ['no fixed parameters', [{ name, numbers }], 'does not contain'],
    [
      'another second matrix',
      [
        { name, numbers },
        { name: 'fix\0', numbers: [] },
      ],
      'does not contain',
    ],
    ['nothing', [], 'does not contain'],
    ['a third matrix', [{ name, numbers }, fixed, fixed], 'several'],
  ])('refuses %s', (_what, parts, fault) => {
    expect(() => readTransformMat(mat(...parts))).toThrow(fault);
  });
});

describe('writeTransformText(), writeTransformMat() by ITK’s layout', () => {
  it('writes the matrix row by row in LPS, then the translation', () => {
    const ras = [1, 2, 3, 10, 4, 5, 6, 20, 7, 8, 10, 30, 0, 0, 0, 1];
    const lps = [1, 2, -3, 4, 5, -6, -7, -8, 10, -10, -20, 30];
    expect(writeTransformText(ras)).toBe(
      '#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n' +
        `Parameters: ${lps.join(' ')}\nFixedParameters: 0 0 0\n`,
    );
    const bytes = writeTransformMat(ras);
    const view = new DataView(bytes.buffer);
    expect([0, 4, 8, 12, 16].map((at) => view.getInt32(at, true))).toEqual([0, 12, 1, 0, 27]);
    expect(lps.map((_, i) => view.getFloat64(47 + 8 * i, true))).toEqual(lps);
    expect([143, 147, 151, 155, 159].map((at) => view.getInt32(at, true))).toEqual([0, 3, 1, 0, 6]);
    expect(bytes).toHaveLength(193);
  });

  it('refuses anything but a 4×4 matrix', () => {
    for (const wrong of [matrix.slice(0, 12), [...matrix, 0]])
      expect(() => writeTransformText(wrong)).toThrow(expect.objectContaining({ code: 'BAD_INPUT' }));
  });
});

describe('readTransform() of vectors', () => {
  /** 2 × 1 × 1 vectors of float32: (1, 2, 3) and (4, 5, 6). */
  function vectors(version: 1 | 2, little: boolean, intent: number): Uint8Array {
    const bytes = new Uint8Array((version === 1 ? 352 : 544) + 24);
    const view = new DataView(bytes.buffer);
    const dim = [5, 2, 1, 1, 1, 3, 1, 1];
    if (version === 1) {
      view.setInt32(0, 348, little);
      for (const [i, n] of dim.entries()) view.setInt16(40 + 2 * i, n, little);
      view.setInt16(68, intent, little);
      view.setInt16(70, 16, little);
      for (const i of [0, 1, 2, 3]) view.setFloat32(76 + 4 * i, 1, little);
      view.setFloat32(108, 352, little);
      bytes.set(Buffer.from('n+1\0'), 344);
    } else {
      view.setInt32(0, 540, little);
      bytes.set(Buffer.from('n+2\0\r\n\x1a\n', 'latin1'), 4);
      view.setInt16(12, 16, little);
      for (const [i, n] of dim.entries()) view.setBigInt64(16 + 8 * i, BigInt(n), little);
      for (const i of [0, 1, 2, 3]) view.setFloat64(104 + 8 * i, 1, little);
      view.setBigInt64(168, 544n, little);
      view.setInt32(504, intent, little);
    }
    for (const [i, v] of [1, 4, 2, 5, 3, 6].entries()) view.setFloat32(bytes.length - 24 + 4 * i, v, little);
    return bytes;
  }
  const read = async (bytes: Uint8Array) =>
    ((await readTransform(file(bytes), platform)) as SpatialTransform & { kind: 'grid' }).displacement;

  it('uses the intent in both versions and byte orders, compressed or not', async () => {
    for (const version of [1, 2] as const) {
      for (const little of [true, false]) {
        for (const [intent, sign] of [
          [1006, 1],
          [1007, -1],
          [0, -1],
        ]) {
          const plain = vectors(version, little, intent);
          const packed = await collect(
            new Blob([plain as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new CompressionStream('gzip')),
          );
          for (const bytes of [plain, packed])
            expect([...(await read(bytes)).voxels]).toEqual([sign, 4 * sign, 2 * sign, 5 * sign, 3, 6]);
        }
      }
    }
  });

  it.each([
    ['SHORT', new Uint8Array(Int16Array.of(1, 2, 3, 4, 5, 6).buffer), Float32Array.of(-1, -4, -2, -5, 3, 6)],
    [
      'DOUBLE',
      new Uint8Array(Float64Array.of(0, 2, 3, 4, 5, 0.1).buffer),
      Float64Array.of(0, -4, -2, -5, 3, 0.1),
    ],
  ])('takes vectors of MET_%s in a MetaImage as LPS', async (type, data, wanted) => {
    const header = `NDims = 3\nDimSize = 2 1 1\nElementNumberOfChannels = 3\nElementType = MET_${type}\nElementDataFile = LOCAL\n`;
    expect((await read(new Uint8Array(Buffer.concat([Buffer.from(header), data])))).voxels).toEqual(wanted);
  });

  it('explains what is wrong with other images', async () => {
    const infinite = vectors(1, true, 1006);
    new DataView(infinite.buffer).setFloat32(372, Number.NEGATIVE_INFINITY, true);
    await expect(read(infinite)).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    const header = (channels: number) =>
      `NDims = 3\nDimSize = 1 1 1\nElementNumberOfChannels = ${channels}\nElementType = MET_CHAR\nElementDataFile = LOCAL\n`;
    for (const channels of [1, 2, 4])
      await expect(
        read(new Uint8Array(Buffer.concat([Buffer.from(header(channels)), Buffer.alloc(channels)]))),
      ).rejects.toMatchObject({ code: 'BAD_HEADER', message: expect.stringContaining(`${channels} comp`) });
    await expect(readTransform(file(vectors(1, true, 0)), platform, { maxVoxels: 5 })).rejects.toMatchObject({
      code: 'TOO_MANY_VOXELS',
    });
    await expect(read(vectors(1, true, 0).slice(0, 360))).rejects.toMatchObject({ code: 'BAD_VOXELS' });
    await expect(read(new Uint8Array(Buffer.from('hello')))).rejects.toMatchObject({
      code: 'UNKNOWN_FORMAT',
      message: expect.stringContaining('.tfm'),
    });
  });
});

describe('readTransform() of a stream', () => {
  const signature = [0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a];

  it('needs all eight bytes of HDF5', async () => {
    for (let i = 0; i < 8; i++) {
      const bytes = Uint8Array.from(signature.map((v, k) => (k === i ? v ^ 1 : v)));
      await expect(readTransform(file(bytes), platform)).rejects.toBeInstanceOf(TomaatError);
    }
  });

  it('copies what a source gives it, and looks at the first 4096 bytes only', async () => {
    let pulled = 0;
    const chunk = new Uint8Array(1000);
    const source = {
      name: 'a',
      async *open() {
        for (let i = 0; i < 9; i++) {
          chunk.fill(i);
          if (i === 0) chunk.set(signature);
          pulled++;
          yield chunk;
        }
      },
    };
    const transform = await readTransform(source, platform);
    const bytes = new Uint8Array(9000).map((_, i) => Math.floor(i / 1000));
    bytes.set(signature);
    expect(transform).toEqual({ kind: 'bspline', bytes });
    expect(pulled).toBe(5 + 9);
  });

  it('reads texts of 1 MiB, and refuses longer ones', async () => {
    const text = (length: number) => new TextEncoder().encode(`${itk.affine[0]}#`.padEnd(length));
    const read = (bytes: Uint8Array) =>
      readTransform(
        {
          ...file(bytes),
          async *open() {
            yield bytes;
          },
        },
        platform,
      );
    expectMaps(
      ((await read(text(1_048_576))) as SpatialTransform & { kind: 'linear' }).matrix,
      itk.affine[1],
    );
    const refusal = { code: 'BAD_HEADER', message: expect.stringContaining('1048576 bytes') };
    await expect(read(text(1_048_577))).rejects.toMatchObject(refusal);
    const mat = new Uint8Array(1_048_577);
    mat.set(decode(affineMat));
    await expect(read(mat)).rejects.toMatchObject(refusal);
    await expect(read(mat.subarray(1))).rejects.toMatchObject({ code: 'UNKNOWN_FORMAT' });
  });
});

describe('writeTransform() by extension', () => {
  const displacement: Volume = {
    voxels: Float32Array.of(1, 4, 2, 5, 3, 6),
    size: [2, 1, 1],
    components: 3,
    affine: [1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 1],
  };
  const transforms = [
    { kind: 'linear', matrix },
    { kind: 'grid', displacement },
    { kind: 'bspline', bytes: Uint8Array.of(1, 2) },
  ] as const;

  it('refuses other extensions, and names the right one', async () => {
    expect(transformExtensions).toEqual({ linear: 'mat', grid: 'nii.gz', bspline: 'h5' });
    for (const transform of transforms) {
      const own = transform.kind === 'linear' ? ['mat', 'txt'] : [transformExtensions[transform.kind]];
      for (const extension of ['mat', 'txt', 'nii.gz', 'h5'] as const) {
        const written = collect(writeTransform(transform, extension, platform));
        if (own.includes(extension)) expect((await written).length).toBeGreaterThan(0);
        else
          await expect(written).rejects.toMatchObject({
            code: 'NOT_ACCEPTABLE',
            message: expect.stringContaining(`Use .${own[0]}`),
          });
      }
    }
  });

  it('leaves the vectors that it was given, and writes LPS of intent VECTOR', async () => {
    const packed = await collect(writeTransform(transforms[1], 'nii.gz', platform));
    expect([...displacement.voxels]).toEqual([1, 4, 2, 5, 3, 6]);
    const raw = await collect(
      new Blob([packed as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream('gzip')),
    );
    expect(raw[68] | (raw[69] << 8)).toBe(1007);
    expect([...new Float32Array(raw.buffer, 352, 6)]).toEqual([-1, -4, -2, -5, 3, 6]);
  });
});
