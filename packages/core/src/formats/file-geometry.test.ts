import { describe, expect, it } from 'vitest';
import type { Affine } from '../geometry/affine.ts';
import type { Volume } from '../volume.ts';
import { type FileGeometry, fileGeometrySchema, nrrdUnits } from './file-geometry.ts';
import { findIdentifyingText } from './identifying-text.ts';
import {
  collectBytes,
  readVolume,
  type SourceFile,
  sourceFromBytes,
  type VolumeExtension,
  writeVolume,
} from './volume-file.ts';
import { webPlatform } from './web-platform.ts';

/* What a header states of its grid, and the affine in RAS+ mm that it means: numbers worked out by hand. */

const read = (file: SourceFile, frame: number | 'all' = 'all') => readVolume([file], webPlatform, { frame });
const voxels = Uint8Array.from({ length: 24 }, (_, i) => i);
const textFile = (name: string, header: string) =>
  sourceFromBytes(name, new Uint8Array(Buffer.concat([Buffer.from(header, 'latin1'), voxels])));
/** 2 × 3 × 4 voxels. */
const nrrd = (lines: string) =>
  textFile('a.nrrd', `NRRD0005\ntype: uchar\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n${lines}\n\n`);
/** 2 × 3 × 2 voxels in two frames, in the order that the sizes say. */
const series = (lines: string) =>
  textFile('a.nrrd', `NRRD0005\ntype: uchar\ndimension: 4\nencoding: raw\n${lines}\n\n`);
const mha = (lines: string) =>
  textFile(
    'a.mha',
    `ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\n${lines}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n`,
  );

interface NiftiFields {
  dim?: number[];
  pixdim?: number[];
  units?: number;
  codes?: [q: number, s: number];
  q?: number[];
  s?: number[];
}

/** A NIfTI-1 header of uint8 voxels. */
function nifti({
  dim = [3, 2, 3, 4, 1, 1, 1, 1],
  pixdim = [1, 2, 3, 4],
  units = 2,
  codes = [0, 0],
  q = [],
  s = [],
}: NiftiFields) {
  const bytes = new Uint8Array(352 + voxels.length);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, 348, true);
  dim.forEach((n, i) => void view.setInt16(40 + 2 * i, n, true));
  view.setInt16(70, 2, true);
  pixdim.forEach((v, i) => void view.setFloat32(76 + 4 * i, v, true));
  view.setFloat32(108, 352, true);
  bytes[123] = units;
  codes.forEach((code, i) => void view.setInt16(252 + 2 * i, code, true));
  q.forEach((v, i) => void view.setFloat32(256 + 4 * i, v, true));
  s.forEach((v, i) => void view.setFloat32(280 + 4 * i, v, true));
  bytes.set([0x6e, 0x2b, 0x31, 0], 344);
  bytes.set(voxels, 352);
  return sourceFromBytes(
    'a.nii',
    bytes.slice(0, 352 + dim.slice(1, 4).reduce((n, d) => n * d) * (dim[4] || 1)),
  );
}

const affineOf = async (file: SourceFile) => (await read(file)).header.affine;
function expectAffine(found: Affine, rows: readonly number[], digits = 9) {
  for (const [i, value] of rows.entries()) expect(found[i], `number ${i}`).toBeCloseTo(value, digits);
}

describe('the affine of an NRRD file', () => {
  it.each([
    ['microns', 0.001],
    ['um', 0.001],
    ['\xb5m', 0.001],
    ['\xc2\xb5m', 0.001],
    ['\xce\xbcm', 0.001],
    ['micrometres', 0.001],
    ['NM', 1e-6],
    ['nanometers', 1e-6],
    ['mm', 1],
    ['Millimeters', 1],
    ['cm', 10],
    ['centimetre', 10],
    ['m', 1000],
    ['meters', 1000],
    ['', 1],
    ['furlong', 1],
  ])('is in mm where its unit is "%s"', async (unit, mm) => {
    const file = nrrd(
      `space: RAS\nspace directions: (0.5,0,0) (0,0.25,0.125) (0,0,2)\nspace origin: (1,2,3)\nspace units: ${`"${unit}" `.repeat(3)}`,
    );
    const rows = [0.5, 0, 0, 1, 0, 0.25, 0, 2, 0, 0.125, 2, 3].map((v) => v * mm);
    expectAffine(await affineOf(file), rows);
  });

  it('takes a unit for each coordinate, not for each axis', async () => {
    // The first axis runs along z, whose unit is mm; LPS.
    const file = nrrd(
      'space: LPS\nspace directions: (0,0,2) (500,0,0) (0,300,0)\nspace origin: (1000,2000,3)\nspace units: "um" "um" "mm"',
    );
    expectAffine(await affineOf(file), [0, -0.5, 0, -1, 0, 0, -0.3, -2, 2, 0, 0, 3]);
  });

  it('takes units of axes without directions, and begins at edges or centres', async () => {
    const file = (more: string) =>
      nrrd(`spacings: 2 -4 6\naxis mins: 10 20 30\nunits: "um" "um" "um"\n${more}`);
    // LPS: x and y change their signs. An edge is half a step before the first centre.
    const cells = [-0.002, 0, 0, -0.011, 0, 0.004, 0, -0.018, 0, 0, 0.006, 0.033];
    expectAffine(await affineOf(file('')), cells);
    expectAffine(await affineOf(file('centers: cell cell cell')), cells);
    const nodes = [-0.002, 0, 0, -0.01, 0, 0.004, 0, -0.02, 0, 0, 0.006, 0.03];
    expectAffine(await affineOf(file('centers: node node node')), nodes);
  });
});

describe('findIdentifyingText()', () => {
  const unitsOf = (words: readonly string[]) => words.map((word) => `"${word}"`).join(' ');

  it('leaves every unit of length that is read', async () => {
    const spelled = [
      '\xb5m',
      '\xc2\xb5m',
      '\xce\xbcm',
      'Nanometres',
      'Micrometres',
      'Millimetres',
      'Centimetres',
      'Metres',
    ];
    for (const unit of [...nrrdUnits, ...spelled]) {
      for (const field of ['space units', 'units']) {
        const header = `NRRD0005\ntype: uchar\n${field}: ${unitsOf([unit, unit, unit])}\n\n`;
        const bytes = Uint8Array.from(header, (c) => c.charCodeAt(0));
        const found = await findIdentifyingText(
          {
            name: 'a.nrrd',
            sizeBytes: bytes.length,
            async *read(start = 0, end = bytes.length) {
              yield bytes.subarray(start, end);
            },
          },
          webPlatform,
        );
        expect(found.fields, `${field}: ${unit}`).toEqual([]);
      }
    }
  });
});

describe('an NRRD file whose space has time', () => {
  const space = '(2,0,0,0) (0,3,0.5,0) (0,0,4,0)';
  const lps = [-2, 0, 0, -1, 0, -3, 0, -2, 0, 0.5, 4, 3];
  const ras = [2, 0, 0, 1, 0, 3, 0, 2, 0, 0.5, 4, 3];

  it.each([
    ['space dimension: 4', lps],
    ['space: left-posterior-superior-time', lps],
    ['space: LPST', lps],
    ['space: right-anterior-superior-time', ras],
    ['space: rast', ras],
    ['space: left-anterior-superior-time', ras.map((v, i) => (i < 4 ? -v : v))],
    ['space: LAST', ras.map((v, i) => (i < 4 ? -v : v))],
  ])('is frames, as in NIfTI and MetaImage: %s', async (name, affine) => {
    const file = series(
      `${name}\nsizes: 2 3 2 2\nspace directions: ${space} (0,0,0,2.5)\nkinds: domain domain domain domain\nspace origin: (1,2,3,7)`,
    );
    const { volume, header } = await read(file, 1);
    expect([header.size, header.frames, header.components]).toEqual([[2, 3, 2], 2, 1]);
    expectAffine(header.affine, affine);
    expect([...volume.voxels]).toEqual([...voxels.subarray(12)]);
  });

  it.each([
    ['first', '2 2 3 2', '(0,0,0,2.5) (2,0,0,0) (0,3,0.5,0) (0,0,4,0)'],
    ['second', '2 2 3 2', '(2,0,0,0) (0,0,0,2.5) (0,3,0.5,0) (0,0,4,0)'],
    ['third', '2 3 2 2', '(2,0,0,0) (0,3,0.5,0) (0,0,0,2.5) (0,0,4,0)'],
    ['last', '2 3 2 2', '(2,0,0,0) (0,3,0.5,0) (0,0,4,0) (0,0,0,2.5)'],
  ])('finds time as the %s axis', async (place, sizes, directions) => {
    const file = series(
      `space dimension: 4\nsizes: ${sizes}\nspace directions: ${directions}\nspace origin: (1,2,3,7)`,
    );
    const axis = ['first', 'second', 'third', 'last'].indexOf(place);
    // The stored array, fastest first, with time at its place.
    const counts = [2, 3, 2];
    counts.splice(axis, 0, 2);
    for (const frame of [0, 1]) {
      const expected: number[] = [];
      for (let z = 0; z < 2; z++) {
        for (let y = 0; y < 3; y++) {
          for (let x = 0; x < 2; x++) {
            const index = [x, y, z];
            index.splice(axis, 0, frame);
            expected.push(index.reduceRight((sum, i, k) => sum * counts[k] + i, 0));
          }
        }
      }
      const { volume, header } = await read(file, frame);
      expectAffine(header.affine, lps);
      expect([...volume.voxels]).toEqual(expected);
    }
    const all = await read(file);
    expect(all.volume.components).toBe(2);
    expect([...all.volume.voxels.subarray(12)]).toEqual([...(await read(file, 1)).volume.voxels]);
  });

  it('reads components of each frame', async () => {
    const file = textFile(
      'a.nrrd',
      'NRRD0005\ntype: uchar\ndimension: 5\nencoding: raw\nspace dimension: 4\nsizes: 3 2 2 1 2\nkinds: vector domain domain domain domain\nspace directions: none (2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,0,1)\n\n',
    );
    const { volume, header } = await read(file, 1);
    expect([header.components, header.frames]).toEqual([3, 2]);
    expect([...volume.voxels]).toEqual([12, 15, 18, 21, 13, 16, 19, 22, 14, 17, 20, 23]);
  });

  it('needs no choice where there is one frame', async () => {
    const file = series(
      'space dimension: 4\nsizes: 2 3 4 1\nspace directions: (2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,0,1)',
    );
    const { volume, header } = await readVolume([file], webPlatform);
    expect(header.frames).toBe(1);
    expect([...volume.voxels]).toEqual([...voxels]);
  });

  it.each([
    ['an axis of space', '(2,0,0,0.5) (0,3,0,0) (0,0,4,0) (0,0,0,1)'],
    ['the axis of time', '(2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,1,1)'],
  ])('is refused where %s runs through both', async (_what, directions) => {
    const file = series(`space dimension: 4\nsizes: 2 3 2 2\nspace directions: ${directions}`);
    await expect(read(file)).rejects.toMatchObject({
      code: 'UNSUPPORTED_FORMAT',
      message: expect.stringMatching(/space and time at once.*each frame as a separate volume/),
    });
  });

  it.each([
    [
      'vectors of three numbers',
      'space dimension: 4\nsizes: 2 3 2 2\nspace directions: (2,0,0) (0,3,0) (0,0,4) none',
      'BAD_HEADER',
      /four finite numbers/,
    ],
    [
      'a space of five',
      'space dimension: 5\nsizes: 2 3 2 2\nspace directions: none none none none',
      'UNSUPPORTED_FORMAT',
      /space dimension/,
    ],
    [
      'a name against its dimension',
      'space: LPST\nspace dimension: 3\nsizes: 2 3 2 2\nspace directions: none none none none',
      'UNSUPPORTED_FORMAT',
      /"space"/,
    ],
    [
      'two axes of time',
      'space dimension: 4\nsizes: 2 3 2 2\nspace directions: (2,0,0,0) (0,3,0,0) (0,0,0,1) (0,0,0,1)',
      'UNSUPPORTED_FORMAT',
      /2 spatial axes/,
    ],
  ])('is refused with the field: %s', async (_what, lines, code, message) => {
    await expect(read(series(lines))).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });
});

describe('a MetaImage file of four dimensions', () => {
  const four = (sizes: string, matrix: string) =>
    textFile(
      'a.mha',
      `ObjectType = Image\nNDims = 4\nDimSize = ${sizes}\nTransformMatrix = ${matrix}\nOffset = 1 2 3 7\nElementSpacing = 2 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n`,
    );

  it.each([
    ['last', '2 3 2 2', '1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1', 12],
    ['first', '2 2 3 2', '0 0 0 1 1 0 0 0 0 1 0 0 0 0 1 0', 1],
  ])('finds the frames on its %s axis', async (_place, sizes, matrix, second) => {
    const { volume, header } = await read(four(sizes, matrix), 1);
    expect([header.size, header.frames, volume.voxels[0]]).toEqual([[2, 3, 2], 2, second]);
    expectAffine(header.affine, [-2, 0, 0, -1, 0, -2, 0, -2, 0, 0, 2, 3]);
  });

  it('is refused where an axis runs through space and frames at once', async () => {
    await expect(read(four('2 3 2 2', '1 0 0 0.5 0 1 0 0 0 0 1 0 0 0 0 1'))).rejects.toMatchObject({
      code: 'UNSUPPORTED_FORMAT',
      message: expect.stringContaining('each frame as a separate volume'),
    });
  });
});

describe('the affine of a MetaImage file', () => {
  it.each([
    ['um', 0.001],
    ['mm', 1],
    ['cm', 10],
    ['?', 1],
    ['parsec', 1],
  ])('is in mm where its unit is %s', async (unit, mm) => {
    const file = mha(
      `TransformMatrix = 0 1 0 -1 0 0 0 0 1\nOffset = 10 20 30\nElementSpacing = 2 3 4\nDistanceUnits = ${unit}`,
    );
    const rows = [0, 3, 0, -10, -2, 0, 0, -20, 0, 0, 4, 30].map((v) => v * mm);
    expectAffine(await affineOf(file), rows);
  });
});

describe('the affine of a NIfTI file', () => {
  const s = [2, 0, 0, 5, 0, 3, 0, 6, 0, 0, 4, 7];
  /** About z by 90°: x of the file to the front, y to the left. */
  const q = [0, 0, Math.SQRT1_2, 1, 2, 3];
  const byQ = [0, -3, 0, 1, 2, 0, 0, 2, 0, 0, 4, 3];

  it.each([
    ['zeros', new Array(12).fill(0)],
    ['a column of zeros', s.map((v, i) => (i % 4 === 1 ? 0 : v))],
    ['NaN', s.with(0, Number.NaN)],
    ['infinite numbers', s.with(3, Number.POSITIVE_INFINITY)],
  ])('comes from a good qform where the sform is of %s', async (_what, rows) => {
    const { header } = await read(nifti({ codes: [1, 2], q, s: rows }));
    expectAffine(header.affine, byQ, 6);
    expect(header.geometry).toMatchObject({ format: 'nifti', qform: { code: 1 } });
    expect(header.geometry).not.toHaveProperty('sform');
  });

  it.each([
    ['no qform', { codes: [0, 1] }],
    ['a qform that is no rotation', { codes: [1, 1], q: [1, 1, 0, 0, 0, 0] }],
    ['a qform without spacing', { codes: [1, 1], q, pixdim: [1, 2, 0, 4] }],
  ] as [string, NiftiFields][])(
    'is refused where the sform is of zeros and there is %s',
    async (_what, fields) => {
      await expect(read(nifti(fields))).rejects.toMatchObject({
        code: 'BAD_HEADER',
        message: expect.stringMatching(/sform .*cannot be inverted/),
      });
    },
  );

  it.each([
    ['z', [2, 3, 1], 2, [2, 0, 0, 5, 0, 3, 0, 6, 0, 0, 4, 7]],
    ['y', [2, 1, 4], 1, [2, 0, 0, 5, 0, 3, 0, 6, 0, 0, 4, 7]],
    ['x', [1, 3, 4], 0, [2, 0, 0, 5, 0, 3, 0, 6, 0, 0, 4, 7]],
  ] as const)(
    'gives a single slice along %s the thickness of pixdim',
    async (_axis, [x, y, z], column, expected) => {
      const rows = s.map((v, i) => (i % 4 === column ? 0 : v));
      const file = nifti({ dim: [3, x, y, z, 1, 1, 1, 1], codes: [0, 1], s: rows });
      expectAffine(await affineOf(file), expected);
    },
  );

  it('says that a slice without a step has no thickness where pixdim has none', async () => {
    const rows = s.map((v, i) => (i % 4 === 2 ? 0 : v));
    const file = nifti({ dim: [3, 2, 3, 1, 1, 1, 1, 1], pixdim: [1, 2, 3, 0], codes: [0, 1], s: rows });
    await expect(read(file)).rejects.toMatchObject({
      code: 'BAD_HEADER',
      message: expect.stringMatching(/no thickness.*pixdim\[3\] is 0.*with the thickness/),
    });
  });

  it('is refused where several slices have no step', async () => {
    const rows = s.map((v, i) => (i % 4 === 2 ? 0 : v));
    await expect(read(nifti({ codes: [0, 1], s: rows }))).rejects.toMatchObject({ code: 'BAD_HEADER' });
  });

  it.each([[[4, 2, 3, 4, 0, 1, 1, 1]], [[5, 2, 3, 4, 1, 0, 1, 1]], [[7, 2, 3, 4, 0, 0, 0, 0]]])(
    'counts a size of 0 after the third as 1: dim %j',
    async (dim) => {
      const { volume, header } = await readVolume([nifti({ dim, codes: [0, 1], s })], webPlatform);
      expect([header.frames, header.components]).toEqual([1, 1]);
      expect([...volume.voxels]).toEqual([...voxels]);
    },
  );

  it.each([[[3, 2, 0, 4, 1, 1, 1, 1]], [[4, 2, 3, 4, -1, 1, 1, 1]]])('refuses dim %j', async (dim) => {
    await expect(read(nifti({ dim: dim.map((n) => n), codes: [0, 1], s }))).rejects.toMatchObject({
      code: 'BAD_HEADER',
    });
  });
});

describe('writeVolume() with the geometry of an input', () => {
  const stated: Record<string, [extension: VolumeExtension, file: () => SourceFile]> = {
    NIfTI: [
      'nii',
      () =>
        nifti({
          codes: [1, 4],
          q: [0, 0, Math.SQRT1_2, 1, 2, 3],
          s: [2, 0, 0, 5, 0, 3, 0, 6, 0, 0, 4, 7],
          units: 10,
        }),
    ],
    NRRD: [
      'nrrd',
      () =>
        nrrd(
          'space: RAS\nspace directions: (2,0,0) (0,3,0.5) (0,0,4)\nspace origin: (1,2,3)\nspace units: "cm" "cm" "cm"',
        ),
    ],
    MetaImage: [
      'mha',
      () =>
        mha(
          'TransformMatrix = 0 1 0 -1 0 0 0 0 1\nOffset = 10 20 30\nElementSpacing = 2 3 4\nDistanceUnits = um',
        ),
    ],
  };
  const labelsOn = (volume: Volume, affine = volume.affine): Volume => ({ ...volume, affine });
  async function written(volume: Volume, extension: VolumeExtension, geometry?: FileGeometry) {
    const bytes = await collectBytes(writeVolume(volume, extension, webPlatform, { geometry }));
    return (await readVolume([sourceFromBytes('a', bytes)], webPlatform)).header;
  }

  it.each(Object.entries(stated))(
    '%s: states it again, to the last bit',
    async (_name, [extension, file]) => {
      const { volume, header } = await read(file());
      expect((await written(labelsOn(volume), extension, header.geometry)).geometry).toEqual(header.geometry);
      // As far off as float32 headers of programs are.
      const near = volume.affine.map((v, i) => (i === 3 ? v + 5e-6 : v));
      expect((await written(labelsOn(volume, near), extension, header.geometry)).geometry).toEqual(
        header.geometry,
      );
    },
  );

  it.each(Object.entries(stated))(
    '%s: states its own in mm on another grid',
    async (_name, [extension, file]) => {
      const { volume, header } = await read(file());
      const moved = volume.affine.map((v, i) => (i === 7 ? v + 0.01 : v));
      const result = await written(labelsOn(volume, moved), extension, header.geometry);
      expect(result.geometry).toEqual((await written(labelsOn(volume, moved), extension)).geometry);
      expectAffine(result.affine, moved.slice(0, 12), 5);
      const cropped = {
        ...volume,
        size: [2, 3, 3] as const,
        voxels: volume.voxels.slice(0, 18) as Uint8Array,
      };
      const smaller = await written(cropped, extension, header.geometry);
      // A crop at the end leaves every voxel where it is: the same geometry holds, unless it depends on the size.
      expectAffine(smaller.affine, volume.affine.slice(0, 12), 5);
    },
  );

  it.each(Object.entries(stated))('%s: is passed over in other formats', async (_name, [extension, file]) => {
    const { volume, header } = await read(file());
    for (const other of ['nii', 'nrrd', 'mha'] as const) {
      if (other === extension) continue;
      const result = await written(labelsOn(volume), other, header.geometry);
      expect(result.geometry).toEqual((await written(labelsOn(volume), other)).geometry);
    }
  });

  it('states its own for a crop of a NIfTI without forms', async () => {
    const { volume, header } = await read(nifti({}));
    expectAffine(volume.affine, [-2, 0, 0, 1, 0, 3, 0, -3, 0, 0, 4, -6]);
    const cropped = { ...volume, size: [2, 3, 3] as const, voxels: volume.voxels.slice(0, 18) as Uint8Array };
    const result = await written(cropped, 'nii', header.geometry);
    expectAffine(result.affine, volume.affine.slice(0, 12));
    expect(result.geometry).toMatchObject({ sform: { code: 1 } });
  });

  it('states its own where a submicrometre voxel moved by its size', async () => {
    const file = nrrd(
      'space: LPS\nspace directions: (0.4,0,0) (0,0.4,0) (0,0,0.4)\nspace origin: (0,0,0)\nspace units: "um" "um" "um"',
    );
    const { volume, header } = await read(file);
    const moved = volume.affine.map((v, i) => (i === 3 ? v + 0.0004 : v));
    expect((await written(labelsOn(volume, moved), 'nrrd', header.geometry)).affine[3]).toBeCloseTo(
      0.0004,
      9,
    );
  });

  it('puts the axis of components first in NRRD', async () => {
    const { volume, header } = await read(nrrd('spacings: 2 3 4\naxis mins: 1 2 3\nunits: "cm" "cm" "cm"'));
    const two: Volume = { ...volume, components: 2, voxels: Uint8Array.from([...voxels, ...voxels]) };
    const result = await written(two, 'nrrd', header.geometry);
    expect([result.components, result.geometry]).toEqual([2, header.geometry]);
  });
});

describe('fileGeometrySchema', () => {
  it('takes what every reader states, by way of JSON', async () => {
    for (const file of [
      nifti({ codes: [1, 0], q: [0, 0, 0, 1, 2, 3] }),
      nrrd('spacings: 1 2 3'),
      mha('Offset = 1 2 3'),
    ]) {
      const { geometry } = (await read(file)).header;
      expect(fileGeometrySchema.parse(JSON.parse(JSON.stringify(geometry)))).toEqual(geometry);
    }
  });

  it('lets no text and no number that is not finite pass', () => {
    const good = { format: 'nrrd', space: 'lps', spaceUnits: ['mm', 'mm', 'mm'], spacings: [1, 2, 3] };
    expect(fileGeometrySchema.safeParse(good).success).toBe(true);
    for (const bad of [
      { ...good, space: 'lps\nowner: someone' },
      { ...good, spaceUnits: ['mm', 'mm', 'of someone'] },
      { ...good, spacings: [1, 2, Number.NaN] },
      { ...good, spacings: [1, 2] },
      { ...good, comment: 'of someone' },
      { ...good, format: 'nifti' },
    ])
      expect(fileGeometrySchema.safeParse(bad).success, JSON.stringify(bad)).toBe(false);
  });

  const nifti1 = {
    format: 'nifti',
    version: 1,
    units: 10,
    pixdim: [1, 2, 3, 4],
    qform: { code: 1, quaternion: [0, 0, 0], offset: [1, 2, 3] },
    sform: { code: 2, rows: new Array(12).fill(1) },
  };
  const meta = { format: 'metaimage', matrix: new Array(9).fill(0), offset: [1, 2, 3], spacing: [1, 2, 3] };
  const qform = (code: number) => ({ ...nifti1, qform: { ...nifti1.qform, code } });
  it.each([
    ['version 2', { ...nifti1, version: 2 }, true],
    ['version 3', { ...nifti1, version: 3 }, false],
    ['version 0', { ...nifti1, version: 0 }, false],
    ['units 0', { ...nifti1, units: 0 }, true],
    ['units 63', { ...nifti1, units: 63 }, true],
    ['units 64', { ...nifti1, units: 64 }, false],
    ['units -1', { ...nifti1, units: -1 }, false],
    ['a code of 0', qform(0), false],
    ['a code of 1', qform(1), true],
    ['a code of 2^31 - 1', qform(2 ** 31 - 1), true],
    ['a code of 2^31', qform(2 ** 31), false],
    ['three numbers of pixdim', { ...nifti1, pixdim: [1, 2, 3] }, false],
    ['five numbers of pixdim', { ...nifti1, pixdim: [1, 2, 3, 4, 5] }, false],
    ['no forms', { ...nifti1, qform: undefined, sform: undefined }, true],
    ['eleven numbers of an sform', { ...nifti1, sform: { code: 1, rows: new Array(11).fill(1) } }, false],
    ['thirteen numbers of an sform', { ...nifti1, sform: { code: 1, rows: new Array(13).fill(1) } }, false],
    ['a quaternion of four', { ...nifti1, qform: { ...nifti1.qform, quaternion: [0, 0, 0, 1] } }, false],
    ['MetaImage', meta, true],
    ['eight numbers of a matrix', { ...meta, matrix: new Array(8).fill(0) }, false],
    ['ten numbers of a matrix', { ...meta, matrix: new Array(10).fill(0) }, false],
    ['four numbers of an offset', { ...meta, offset: [1, 2, 3, 4] }, false],
    ...['?', 'um', 'mm', 'cm'].map((units) => [`the unit ${units}`, { ...meta, units }, true] as const),
    ['the unit km', { ...meta, units: 'km' }, false],
    ['the unit of no name', { ...meta, units: '' }, false],
    ...[
      'right-anterior-superior',
      'ras',
      'left-anterior-superior',
      'las',
      'left-posterior-superior',
      'lps',
      'scanner-xyz',
      '3d-right-handed',
      'dimension',
    ].map((space) => [`the space ${space}`, { format: 'nrrd', space }, true] as const),
    ['a space of no name', { format: 'nrrd', space: '' }, false],
    ['centers', { format: 'nrrd', centers: ['cell', 'node', '???'] }, true],
    ['other centers', { format: 'nrrd', centers: ['cell', 'node', ''] }, false],
    [
      'two directions',
      {
        format: 'nrrd',
        directions: [
          [1, 0, 0],
          [0, 1, 0],
        ],
      },
      false,
    ],
    ['the format nrrd2', { format: 'nrrd2' }, false],
    ['no format', { format: '' }, false],
  ] as [string, object, boolean][])('with %s', (_what, value, expected) => {
    expect(fileGeometrySchema.safeParse(value).success).toBe(expected);
  });

  it('has every spelling of a unit of NRRD, and the empty one', () => {
    const words =
      ',nm,nanometer,nanometers,um,micron,microns,micrometer,micrometers,mm,millimeter,millimeters,cm,centimeter,centimeters,m,meter,meters';
    expect([...nrrdUnits]).toEqual(words.split(','));
  });
});
