import { describe, expect, it } from 'vitest';
import { TomaatError } from '../errors.ts';
import { type Affine, applyAffine, type Vec3 } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import {
  readTransform,
  readTransformMat,
  readTransformText,
  type SpatialTransform,
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
    [tfm(lines.affine.replace('0.9 ', '')), '12 are needed'],
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

  it('refuses files that are cut off, at any byte, and names that are not ITK’s', () => {
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
    expect(() => writeTransformMat(matrix.map((v, i) => (i < 3 ? 0 : v)))).toThrow(/inverted/);
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

  it('tells linear transforms and B-splines by their bytes', async () => {
    const linear = await readTransform(file(decode(affineMat)), platform);
    expectMaps((linear as SpatialTransform & { kind: 'linear' }).matrix, itk.affine[1]);
    const text = await readTransform(file(new TextEncoder().encode(itk.versor[0])), platform);
    expectMaps((text as SpatialTransform & { kind: 'linear' }).matrix, itk.versor[1]);
    const h5 = Uint8Array.of(0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a, ...new Array(5000).fill(7));
    expect(await readTransform(file(h5), platform)).toEqual({ kind: 'bspline', bytes: h5 });
  });

  it('refuses images that are no vectors, vectors that are not finite, and other files', async () => {
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
  it('writes each kind so that readTransform() gives it back', async () => {
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
