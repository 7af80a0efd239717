import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { type Affine, affinesEqual, composeAffine, determinant } from '../geometry/affine.ts';
import { createVoxels, type Size, type Volume, type VoxelType, voxelTypes } from '../volume.ts';
import {
  collectBytes,
  extensionOf,
  inspectVolume,
  readVolume,
  type SourceFile,
  sourceFromBytes,
  supportedExtensions,
  type WriteOptions,
  writeVolume,
} from './volume-file.ts';
import { webPlatform } from './web-platform.ts';

function rotation(x: number, y: number, z: number): number[] {
  const [cx, sx, cy, sy, cz, sz] = [
    Math.cos(x),
    Math.sin(x),
    Math.cos(y),
    Math.sin(y),
    Math.cos(z),
    Math.sin(z),
  ];
  return [
    cz * cy,
    cz * sy * sx - sz * cx,
    cz * sy * cx + sz * sx,
    sz * cy,
    sz * sy * sx + cz * cx,
    sz * sy * cx - cz * sx,
    -sy,
    cy * sx,
    cy * cx,
  ];
}

const spacing = [0.75, 1.25, 5.5] as const;
const origin = [-31.25, 47.5, -112.75] as const;
const oblique = composeAffine(spacing, rotation(0.3, -0.2, 1.1), origin);
const affines: Record<string, Affine> = {
  oblique,
  'left-handed': composeAffine(
    spacing,
    rotation(0.3, -0.2, 1.1).map((v, i) => (i % 3 === 0 ? -v : v)),
    origin,
  ),
  'turned by 180°': composeAffine(spacing, rotation(Math.PI, 0.4, 0), origin),
  permuted: [0, 0, 5.5, 10, -0.75, 0, 0, 20, 0, 1.25, 0, -30, 0, 0, 0, 1],
  sheared: [0.75, 0, 0.4, -31, 0, 1.25, 1.1, 47, 0, 0.2, 5.5, -112, 0, 0, 0, 1],
};

/** A volume whose values use the type's whole range, each one different from its neighbours. */
function makeVolume(
  type: VoxelType,
  affine: Affine = oblique,
  size: Size = [5, 4, 3],
  components = 1,
): Volume {
  const voxels = createVoxels(type, size[0] * size[1] * size[2] * components);
  const bytes = new Uint8Array(voxels.buffer);
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 37 + (i >> 3) * 11) & 255;
  return { voxels, size, components, affine };
}

const bytesOf = (volume: Volume) =>
  new Uint8Array(volume.voxels.buffer, volume.voxels.byteOffset, volume.voxels.byteLength);

async function write(
  volume: Volume,
  extension: (typeof supportedExtensions)[number],
  options?: WriteOptions,
) {
  return sourceFromBytes(
    `result.${extension}`,
    await collectBytes(writeVolume(volume, extension, webPlatform, options)),
  );
}
const bytesIn = (file: SourceFile) => collectBytes(file.open());
const read = (...files: SourceFile[]) => readVolume(files, webPlatform);
const text = (name: string, header: string, ...data: Uint8Array[]) =>
  sourceFromBytes(name, new Uint8Array(Buffer.concat([Buffer.from(header, 'latin1'), ...data])));

describe.each(supportedExtensions)('writeVolume() as %s, then readVolume()', (extension) => {
  it.each(voxelTypes)('%s: the same bits', async (type) => {
    const volume = makeVolume(type);
    const { volume: back, header } = await read(await write(volume, extension));
    expect(bytesOf(back)).toEqual(bytesOf(volume));
    expect(header).toMatchObject({ voxelType: type, extension, size: [5, 4, 3], components: 1, frames: 1 });
  });

  it.each(Object.keys(affines))('%s: the same affine', async (name) => {
    const file = await write(makeVolume('int16', affines[name]), extension);
    const { volume } = await read(file);
    // NIfTI-1 stores float32: 2e-6 mm at 112 mm.
    expect(affinesEqual(volume.affine, affines[name], extension.startsWith('nii') ? 4e-6 : 1e-12)).toBe(true);
  });

  it.each(['uint8', 'int16', 'float32', 'float64'] as const)(
    'three components of %s: the same bits',
    async (type) => {
      const volume = makeVolume(type, oblique, [7, 5, 3], 3);
      const { volume: back, header } = await read(await write(volume, extension));
      expect(bytesOf(back)).toEqual(bytesOf(volume));
      expect([header.components, header.frames, back.components]).toEqual([3, 1, 3]);
    },
  );

  it('keeps components apart in a volume of many pieces', async () => {
    const volume = makeVolume('uint16', oblique, [101, 67, 31], 2);
    const { volume: back } = await read(await write(volume, extension));
    expect(Buffer.compare(bytesOf(back), bytesOf(volume))).toBe(0);
  });

  it('a description cannot end its line or add a field', async () => {
    const description = 'made by β\nDimSize = 1 1 1\r\n\r\nsizes: 9 9 9\0';
    const { header } = await read(await write(makeVolume('uint8'), extension, { description }));
    expect(header.size).toEqual([5, 4, 3]);
  });

  it('writes a view of voxels, not the underlying buffer', async () => {
    const whole = makeVolume('int16', oblique, [5, 4, 3], 2);
    const second: Volume = { ...whole, components: 1, voxels: whole.voxels.subarray(60) as Int16Array };
    const { volume } = await read(await write(second, extension));
    expect(volume.voxels).toEqual(second.voxels);
  });

  it('refuses voxels that do not fill the size, and a singular affine', async () => {
    const volume = makeVolume('int16');
    await expect(write({ ...volume, size: [5, 4, 4] }, extension)).rejects.toMatchObject({
      code: 'BAD_INPUT',
    });
    const singular = oblique.map((v, i) => (i % 4 === 1 ? 0 : v));
    await expect(write({ ...volume, affine: singular }, extension)).rejects.toMatchObject({
      code: 'BAD_HEADER',
    });
  });
});

describe('writeVolume() of NIfTI', () => {
  const viewOf = async (file: SourceFile) => new DataView((await bytesIn(file)).buffer);

  it('sets both forms for spacing and rotation, sform alone for a shear', async () => {
    for (const [name, affine] of Object.entries(affines)) {
      const view = await viewOf(await write(makeVolume('uint8', affine), 'nii'));
      expect([view.getInt16(252, true), view.getInt16(254, true)], name).toEqual([
        name === 'sheared' ? 0 : 1,
        1,
      ]);
    }
  });

  it('its qform alone gives the affine, and its quaternion is at most 1', async () => {
    for (const [name, affine] of Object.entries(affines)) {
      if (name === 'sheared') continue;
      const bytes = await bytesIn(await write(makeVolume('uint8', affine), 'nii'));
      const view = new DataView(bytes.buffer);
      const length = [256, 260, 264].reduce((sum, at) => sum + view.getFloat32(at, true) ** 2, 0);
      expect(length).toBeLessThanOrEqual(1);
      view.setInt16(254, 0, true);
      const { header } = await read(sourceFromBytes('q.nii', bytes));
      // float32 leaves a turn by 180° uncertain by its root.
      expect(
        affinesEqual(header.affine, affine, name.includes('180') ? 1e-3 : 1e-5),
        `${name}: ${header.affine}`,
      ).toBe(true);
      expect(Math.sign(determinant(header.affine))).toBe(Math.sign(determinant(affine)));
    }
  });

  it('says what a label map is, in ASCII', async () => {
    const file = await write(makeVolume('uint8'), 'nii', { intent: 'label', description: 'prostate' });
    const bytes = await bytesIn(file);
    expect(new DataView(bytes.buffer).getInt16(68, true)).toBe(1002);
    expect(String.fromCharCode(...bytes.subarray(148, 157))).toBe('prostate\0');
  });

  it('becomes NIfTI-2 where an axis is longer than NIfTI-1 can say', async () => {
    const volume = makeVolume('int16', oblique, [40_000, 2, 3]);
    const { volume: back, header } = await read(await write(volume, 'nii.gz'));
    expect(header.format).toBe('nifti2');
    expect(Buffer.compare(bytesOf(back), bytesOf(volume))).toBe(0);
    expect(affinesEqual(header.affine, oblique, 1e-12)).toBe(true);
  });

  it('the compressed file contains the plain one', async () => {
    const volume = makeVolume('int16');
    const packed = await bytesIn(await write(volume, 'nii.gz'));
    expect(new Uint8Array(gunzipSync(packed))).toEqual(await bytesIn(await write(volume, 'nii')));
  });
});

describe('writeVolume() of NRRD', () => {
  it('names labels as 3D Slicer does and marks the file a label map', async () => {
    const labels = [{ value: 2, name: 'peripheral\nzone', color: '#ff8000' }];
    const file = await write(makeVolume('uint8'), 'nrrd', { intent: 'label', labels });
    const header = Buffer.from(await bytesIn(file))
      .toString('latin1')
      .split('\n\n')[0];
    expect(header).toContain('\ncontent: label map\n');
    expect(header).toContain('\nSegment0_Name:=peripheral zone\nSegment0_LabelValue:=2\n');
    expect(header).toContain('\nSegment0_Color:=1.0000 0.5020 0.0000');
  });

  it('writes the names of labels in UTF-8, whole, each on one line', async () => {
    const names: Record<string, string> = {
      Läsion: 'Läsion',
      'La\u0308sion': 'La\u0308sion',
      肺: '肺',
      'Œdème n°1': 'Œdème n°1',
      'आँख, बायाँ': 'आँख, बायाँ',
      الكبد: 'الكبد',
      '𠀀🫁': '𠀀🫁',
      'left\u2028lung\r\n': 'left lung',
      'a\\nb': 'a\\\\nb',
      'half \ud800': 'half \ufffd',
      '\n\t': 'label 11',
      [`${'ü'.repeat(300)}`]: 'ü'.repeat(300),
    };
    const labels = Object.keys(names).map((name, i) => ({ value: i + 1, name }));
    const bytes = await bytesIn(await write(makeVolume('uint8'), 'nrrd', { labels }));
    const [header] = new TextDecoder('utf-8', { fatal: true })
      .decode(bytes.subarray(0, Buffer.from(bytes).indexOf('\n\n')))
      .split('\n\n');
    const written = [...header.matchAll(/^Segment\d+_Name:=(.*)$/gmu)].map((match) => match[1]);
    expect(written).toEqual(Object.values(names));
    expect((await read(sourceFromBytes('a.nrrd', bytes))).header.size).toEqual([5, 4, 3]);
  });
});

/** A NIfTI-1 header of int16 voxels, 3 × 2 × 2, changed by `change`. */
function nifti(change: (view: DataView) => void, voxels = new Uint8Array(24), bigEndian = false): SourceFile {
  const bytes = new Uint8Array(352 + voxels.length);
  const view = new DataView(bytes.buffer);
  const le = !bigEndian;
  view.setInt32(0, 348, le);
  for (const [i, v] of [3, 3, 2, 2, 1, 1, 1, 1].entries()) view.setInt16(40 + 2 * i, v, le);
  view.setInt16(70, 4, le);
  for (const [i, v] of [1, 2, 3, 4].entries()) view.setFloat32(76 + 4 * i, v, le);
  view.setFloat32(108, 352, le);
  bytes.set([0x6e, 0x2b, 0x31, 0], 344);
  bytes.set(voxels, 352);
  change(view);
  return sourceFromBytes('image.nii', bytes);
}

describe('readVolume() of NIfTI', () => {
  const i16 = (...values: number[]) => new Uint8Array(Int16Array.from(values).buffer);
  const stored = i16(-5, 0, 1, 2, 300, 4, 5, 6, 7, 8, 9, 32767);

  it('scales 8 and 16 bits to float32, or float64 where steps would merge', async () => {
    const scaled = (slope: number, inter: number) =>
      read(
        nifti((v) => {
          v.setFloat32(112, slope, true);
          v.setFloat32(116, inter, true);
        }, stored),
      );
    const { volume, header } = await scaled(0.5, -1024);
    expect(header.scale).toEqual({ slope: 0.5, intercept: -1024 });
    expect(volume.voxels).toBeInstanceOf(Float32Array);
    expect([volume.voxels[0], volume.voxels[4], volume.voxels[11]]).toEqual([-1026.5, -874, 15359.5]);
    const fine = await scaled(2 ** -20, 2 ** 20);
    expect(fine.volume.voxels).toBeInstanceOf(Float64Array);
    expect(fine.volume.voxels[2]).toBe(2 ** 20 + 2 ** -20);
  });

  it.each([
    [0, 5],
    [Number.NaN, 5],
    [Number.POSITIVE_INFINITY, Number.NaN],
    [1, 0],
  ])('takes slope %d with intercept %d for none', async (slope, inter) => {
    const { volume, header } = await read(
      nifti((v) => {
        v.setFloat32(112, slope, true);
        v.setFloat32(116, inter, true);
      }, stored),
    );
    expect(header.scale).toBeUndefined();
    expect(bytesOf(volume)).toEqual(stored);
  });

  it('reads the other byte order, scaled or not', async () => {
    const swapped = new Uint8Array(Buffer.from(stored).swap16());
    const plain = await read(nifti(() => undefined, swapped, true));
    expect(bytesOf(plain.volume)).toEqual(stored);
    const scaled = await read(nifti((v) => v.setFloat32(112, 2, false), swapped, true));
    expect([scaled.volume.voxels[4], scaled.volume.voxels[11]]).toEqual([600, 65534]);
  });

  it('centres the volume with x to the left for missing or unknown forms', async () => {
    for (const code of [0, 6, -1]) {
      const { header } = await read(nifti((v) => v.setInt16(254, code, true)));
      expect(header.affine).toEqual([-2, 0, 0, 2, 0, 3, 0, -1.5, 0, 0, 4, -2, 0, 0, 0, 1]);
    }
  });

  it('turns by a qform of 180° that rounding made longer than 1', async () => {
    const { header } = await read(
      nifti((v) => {
        v.setInt16(252, 1, true);
        v.setFloat32(256, 0.6, true);
        v.setFloat32(260, 0.8000001, true);
      }),
    );
    expect(header.affine.every(Number.isFinite)).toBe(true);
    expect(header.affine[0]).toBeCloseTo(2 * -0.28, 5);
  });

  it('prefers sform to qform', async () => {
    const { header } = await read(
      nifti((v) => {
        v.setInt16(252, 1, true);
        v.setInt16(254, 2, true);
        for (const [i, value] of [7, 0, 0, 1, 0, 8, 0, 2, 0, 0, 9, 3].entries())
          v.setFloat32(280 + 4 * i, value, true);
      }),
    );
    expect(header.affine.slice(0, 12)).toEqual([7, 0, 0, 1, 0, 8, 0, 2, 0, 0, 9, 3]);
  });

  it('reads one frame of a 4-D file or all, and requires a choice', async () => {
    const values = i16(...Array.from({ length: 60 }, (_, i) => i));
    const file = nifti((v) => {
      v.setInt16(40, 4, true);
      v.setInt16(48, 5, true);
    }, values);
    await expect(read(file)).rejects.toMatchObject({
      code: 'FRAME_NEEDED',
      message: expect.stringMatching(/5 frames.*frame, from 0 to 4.*predict\(\).*\?frame=4.*--frame/),
    });
    for (const frame of [5, -1, 0.5])
      await expect(readVolume([file], webPlatform, { frame })).rejects.toMatchObject({ code: 'BAD_INPUT' });
    const { volume, header } = await readVolume([file], webPlatform, { frame: 3 });
    expect([...volume.voxels]).toEqual(Array.from({ length: 12 }, (_, i) => 36 + i));
    expect([header.frames, volume.components]).toEqual([5, 1]);
    expect((await readVolume([file], webPlatform, { frame: 'all' })).volume.components).toBe(5);
  });

  it('puts a frame of a 5-D file together from its components', async () => {
    const values = i16(...Array.from({ length: 12 * 2 * 3 }, (_, i) => i));
    const file = nifti((v) => {
      v.setInt16(40, 5, true);
      v.setInt16(48, 2, true);
      v.setInt16(50, 3, true);
    }, values);
    const { volume } = await readVolume([file], webPlatform, { frame: 1 });
    // Stored: x, y, z, then the frame, then the component.
    expect([volume.voxels[0], volume.voxels[12], volume.voxels[24]]).toEqual([12, 36, 60]);
    const all = await readVolume([file], webPlatform, { frame: 'all' });
    expect([0, 1, 2, 3, 4, 5].map((c) => all.volume.voxels[12 * c])).toEqual([0, 24, 48, 12, 36, 60]);
  });

  it('takes colours apart into components', async () => {
    const rgb = Uint8Array.from({ length: 36 }, (_, i) => i);
    const { volume, header } = await read(nifti((v) => v.setInt16(70, 128, true), rgb));
    expect([header.components, header.voxelType]).toEqual([3, 'uint8']);
    expect([...volume.voxels.subarray(0, 3), ...volume.voxels.subarray(12, 15)]).toEqual([0, 3, 6, 1, 4, 7]);
  });

  it('passes over extensions between header and voxels', async () => {
    const data = new Uint8Array(Buffer.concat([new Uint8Array(32).fill(9), stored]));
    const { volume } = await read(nifti((v) => v.setFloat32(108, 384, true), data));
    expect(bytesOf(volume)).toEqual(stored);
  });
});

describe('readVolume() of MetaImage', () => {
  const data = Uint8Array.from({ length: 12 }, (_, i) => i);
  const header = (extra: string, file = 'LOCAL') =>
    `ObjectType = Image\nNDims = 3\nDimSize = 3 2 2   \n${extra}ElementType = MET_UCHAR\nElementDataFile = ${file}\n`;

  it('a row of TransformMatrix is the direction of an axis, in LPS', async () => {
    const lines =
      'TransformMatrix = 0 1 0 0 0 1 1 0 0\nOffset = 10 20 30\nElementSpacing = 2 3 4\nCenterOfRotation = 5 5 5\n';
    const { volume } = await read(text('a.mha', header(lines), data));
    expect(volume.affine).toEqual([0, 0, -4, -10, -2, 0, 0, -20, 0, 3, 0, 30, 0, 0, 0, 1]);
    expect([...volume.voxels]).toEqual([...data]);
  });

  it('knows the older names: Rotation, Position, ElementSize', async () => {
    const { volume } = await read(
      text('a.mha', header('Rotation = 1 0 0 0 1 0 0 0 1\nPosition = 1 2 3\nElementSize = 2 3 4\n'), data),
    );
    expect(volume.affine).toEqual([-2, 0, 0, -1, 0, -3, 0, -2, 0, 0, 4, 3, 0, 0, 0, 1]);
  });

  it('reads big-endian voxels, text, and data at the end of its file', async () => {
    const big = header('BinaryDataByteOrderMSB = True\n').replace('UCHAR', 'USHORT');
    const { volume } = await read(
      text(
        'a.mha',
        big,
        new Uint8Array(24).map((_, i) => i),
      ),
    );
    expect([...volume.voxels.subarray(0, 3)]).toEqual([0x0001, 0x0203, 0x0405]);
    const ascii = await read(
      text(
        'a.mha',
        `${header('BinaryData = False\n').replace('UCHAR', 'SHORT')}1 -2 3\n4 5 6 7 8 9 10 11 -12\n`,
      ),
    );
    expect([...ascii.volume.voxels]).toEqual([1, -2, 3, 4, 5, 6, 7, 8, 9, 10, 11, -12]);
    const last = await read(
      text('a.mhd', header('HeaderSize = -1\n', 'a.raw')),
      sourceFromBytes('a.raw', Uint8Array.from([9, 9, 9, ...data])),
    );
    expect([...last.volume.voxels]).toEqual([...data]);
  });

  it('finds the data by base name among the given files only', async () => {
    const mhd = text('a.mhd', header('', 'some/where/a.raw'));
    const raw = sourceFromBytes('uploads/a.raw', data);
    expect([...(await read(raw, mhd)).volume.voxels]).toEqual([...data]);
    expect((await read(mhd, raw)).header.extension).toBe('mha');
    await expect(read(mhd)).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringContaining('names a .raw file'),
    });
    await expect(read(mhd, sourceFromBytes('b.raw', data))).rejects.toMatchObject({ code: 'BAD_INPUT' });
    await expect(read(mhd, raw, sourceFromBytes('b.raw', data))).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringContaining('A .raw file does not belong'),
    });
  });
});

describe('readVolume() of NRRD', () => {
  const data = Uint8Array.from({ length: 24 }, (_, i) => i);
  const nrrd = (fields: string, ...rest: Uint8Array[]) =>
    text('a.nrrd', `NRRD0004\n# comment\n${fields}\n\n`, ...rest);

  it('turns every named space to RAS+', async () => {
    const signs: Record<string, number[]> = {
      'right-anterior-superior': [1, 1],
      LAS: [-1, 1],
      'left-posterior-superior': [-1, -1],
    };
    for (const [space, [x, y]] of Object.entries(signs)) {
      const file = nrrd(
        `type: uchar\ndimension: 3\nspace: ${space}\nsizes: 2 3 4\nspace directions: (2,0,1) (0,3,0) (0,0,4)\nencoding: raw\nspace origin: (5,6,7)`,
        data,
      );
      expect((await read(file)).volume.affine, space).toEqual([
        2 * x,
        0,
        0,
        5 * x,
        0,
        3 * y,
        0,
        6 * y,
        1,
        0,
        4,
        7,
        0,
        0,
        0,
        1,
      ]);
    }
  });

  const directions = '(1,0,0) (0,1,0) (0,0,1)';
  it.each([
    [
      'components before space',
      `sizes: 2 3 2 2\nspace directions: none ${directions}\nkinds: vector space space space`,
      2,
      1,
    ],
    [
      'frames before space',
      `sizes: 2 3 2 2\nspace directions: none ${directions}\nkinds: list space space space`,
      1,
      2,
    ],
    [
      'components after space',
      `sizes: 3 2 2 2\nspace directions: ${directions} none\nkinds: domain domain domain vector`,
      2,
      1,
    ],
    ['frames after space', `sizes: 3 2 2 2\nspace directions: ${directions} (nan,nan,nan)`, 1, 2],
  ])('%s', async (name, fields, components, frames) => {
    const file = nrrd(`type: uint8\ndimension: 4\nspace: RAS\n${fields}\nencoding: raw`, data);
    const { volume, header } = await readVolume([file], webPlatform, { frame: 'all' });
    expect([header.components, header.frames]).toEqual([components, frames]);
    const second = name.includes('before') ? 1 : 12;
    expect([volume.voxels[0], volume.voxels[12]]).toEqual([0, second]);
    if (frames > 1)
      expect([...(await readVolume([file], webPlatform, { frame: 1 })).volume.voxels.subarray(0, 1)]).toEqual(
        [second],
      );
  });

  it('reads big-endian, text, DOS line ends, byte and line skip', async () => {
    const fields = 'dimension: 3\nspace: RAS\nsizes: 3 2 2\nspace directions: (1,0,0) (0,1,0) (0,0,1)';
    const big = await read(nrrd(`type: ushort\n${fields}\nendian: big\nencoding: raw`, data));
    expect([...big.volume.voxels.subarray(0, 2)]).toEqual([0x0001, 0x0203]);
    const ascii = await read(
      nrrd(`type: float\n${fields}\nencoding: ascii`, Buffer.from('1 2.5 -3e2 nan 5 6 7 8 9 10 11 -inf')),
    );
    expect([...ascii.volume.voxels.subarray(0, 4), ascii.volume.voxels[11]]).toEqual([
      1,
      2.5,
      -300,
      Number.NaN,
      Number.NEGATIVE_INFINITY,
    ]);
    const dos = text(
      'a.nrrd',
      `NRRD0004\r\ntype: uchar\r\n${fields.replaceAll('\n', '\r\n')}\r\nencoding: raw\r\nline skip: 1\r\nbyte skip: 2\r\n\r\nskipped\n`,
      Uint8Array.of(9, 9),
      data.subarray(0, 12),
    );
    expect([...(await read(dos)).volume.voxels]).toEqual([...data.subarray(0, 12)]);
    const last = nrrd(
      `type: uchar\n${fields}\nencoding: raw\nbyte skip: -1`,
      Uint8Array.of(9, 9, 9),
      data.subarray(0, 12),
    );
    expect([...(await read(last)).volume.voxels]).toEqual([...data.subarray(0, 12)]);
  });

  it('reads a header longer than the bytes that intake has', async () => {
    const volume = makeVolume('int16');
    const labels = Array.from({ length: 1500 }, (_, value) => ({
      value,
      name: `structure number ${value}`,
      color: '#102030',
    }));
    const file = await write(volume, 'nrrd', { labels });
    const bytes = await bytesIn(file);
    const header = await inspectVolume(
      [{ name: file.name, prefix: bytes.subarray(0, 65536), sizeBytes: bytes.length }],
      webPlatform,
    );
    expect(header.size).toEqual([5, 4, 3]);
    expect(bytesOf((await read(file)).volume)).toEqual(bytesOf(volume));
  });
});

describe('readVolume()', () => {
  it('goes by the content, not by the name', async () => {
    const volume = makeVolume('int16');
    for (const extension of supportedExtensions) {
      const bytes = await bytesIn(await write(volume, extension));
      const { header } = await read(sourceFromBytes('patient.dat', bytes));
      expect(header.extension).toBe(extension);
    }
  });

  it('gives the source back its own fault', async () => {
    const bytes = await bytesIn(await write(makeVolume('int16', oblique, [64, 64, 64]), 'nii.gz'));
    const fault = new Error('the disk failed');
    const file: SourceFile = {
      name: 'a.nii.gz',
      sizeBytes: bytes.length,
      async *open() {
        yield bytes.subarray(0, 70_000);
        throw fault;
      },
    };
    await expect(read(file)).rejects.toBe(fault);
  });

  it('reports its progress up to 1, and stops at a signal', async () => {
    const file = await write(makeVolume('int16', oblique, [100, 100, 60]), 'nii');
    const seen: number[] = [];
    await readVolume([file], webPlatform, { onProgress: (fraction) => seen.push(fraction) });
    expect(seen.length).toBeGreaterThan(2);
    expect([...seen].sort((a, b) => a - b)).toEqual(seen);
    expect(seen.at(-1)).toBe(1);
    const stop = new AbortController();
    const reading = readVolume([file], webPlatform, {
      signal: stop.signal,
      onProgress: () => stop.abort(new Error('enough')),
    });
    await expect(reading).rejects.toThrow('enough');
  });
});

describe('extensionOf()', () => {
  it('is what a result is written as', () => {
    const names = [
      'a.NII.GZ',
      'b.nii',
      'c.hdr',
      'd.img.gz',
      'e.mhd',
      'f.mha',
      'g.seg.nrrd',
      'h.nhdr',
      'nii',
      'x.png',
    ];
    expect(names.map(extensionOf)).toEqual([
      'nii.gz',
      'nii',
      'nii',
      'nii.gz',
      'mha',
      'mha',
      'nrrd',
      'nrrd',
      undefined,
      undefined,
    ]);
  });
});
