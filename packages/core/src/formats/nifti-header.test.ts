import { describe, expect, it } from 'vitest';
import { createVoxels, type Volume, type VoxelType } from '../volume.ts';
import { niftiFields, put, widths } from './fixtures.ts';
import { defaultLimits, type HeaderBytes } from './header.ts';
import { encodeNiftiHeader, isNifti, parseNifti } from './nifti.ts';

type Field = Exclude<keyof (typeof niftiFields)[1], 'magic'>;
type Edits = Partial<Record<Field, readonly number[]>> & { magic?: string };
const forms: [1 | 2, boolean][] = [
  [1, true],
  [1, false],
  [2, true],
  [2, false],
];
const headerLength = { 1: 348, 2: 540 };

function header(version: 1 | 2, little: boolean, { magic, ...edits }: Edits = {}): Uint8Array {
  const bytes = new Uint8Array(headerLength[version]);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, headerLength[version], little);
  const own = version === 1 ? 'n+1\0' : 'n+2\0\r\n\x1a\n';
  bytes.set(Buffer.from(magic ?? own, 'latin1'), version === 1 ? 344 : 4);
  const all = { dim: [3, 4, 3, 2], datatype: [4], pixdim: [1, 2, 3, 4], units: [2], ...edits };
  for (const [name, values] of Object.entries(all)) {
    const [at, kind] = niftiFields[version][name as Field];
    put(bytes, at, kind, little, values);
  }
  return bytes;
}

const parse = (bytes: Uint8Array, given: Partial<HeaderBytes> = {}, limits = defaultLimits) =>
  parseNifti({ name: 'a', bytes, gzip: false, whole: true, ...given }, limits);

describe('isNifti()', () => {
  it('knows each size, byte order and magic', () => {
    for (const [version, little] of forms) {
      const bytes = header(version, little);
      expect(isNifti(bytes)).toBe(true);
      expect(isNifti(bytes.subarray(0, 8))).toBe(true);
      expect(isNifti(bytes.subarray(0, 7))).toBe(false);
      const behind = new Uint8Array([9, ...bytes]);
      expect(isNifti(behind.subarray(1))).toBe(true);
      for (const plus of ['+', 'i', '-']) {
        const wrong = header(version, little, { magic: `n${plus}${version}\0` });
        wrong.fill(0, 0, 4);
        expect(isNifti(wrong)).toBe(plus !== '-');
      }
      const magic = header(version, little, { magic: version === 1 ? 'n+1 ' : 'an+2' });
      magic.fill(0, 0, 4);
      expect(isNifti(magic)).toBe(false);
    }
  });
});

describe('parseNifti()', () => {
  it.each<[number, VoxelType, number, number]>([
    [2, 'uint8', 1, 24],
    [4, 'int16', 1, 48],
    [8, 'int32', 1, 96],
    [16, 'float32', 1, 96],
    [64, 'float64', 1, 192],
    [128, 'uint8', 3, 72],
    [256, 'int8', 1, 24],
    [512, 'uint16', 1, 48],
    [768, 'uint32', 1, 96],
    [1024, 'int64', 1, 192],
    [1280, 'uint64', 1, 192],
    [2304, 'uint8', 4, 96],
  ])('reads datatype %d as %s with %d components', (datatype, voxelType, components, storedBytes) => {
    for (const [version, little] of forms) {
      const bytes = header(version, little, { datatype: [datatype], slope: [2], intercept: [1] });
      const parsed = parse(bytes);
      expect(parsed.header).toMatchObject({ voxelType, components, storedBytes, frames: 1 });
      // Colours are not scaled.
      expect(parsed.header.scale).toEqual(components > 1 ? undefined : { slope: 2, intercept: 1 });
      expect(parsed.layout.inner).toEqual(components > 1 ? [{ role: 'component', count: components }] : []);
    }
  });

  it('reports all of a header, in single, compressed and paired files', () => {
    for (const [version, little] of forms) {
      const least = version === 1 ? 352 : 544;
      const edits = { dim: [5, 4, 3, 2, 6, 7], qformCode: [3], qform: [0, 0, 0, 5, 6, 7] };
      const common = {
        format: version === 1 ? 'nifti1' : 'nifti2',
        size: [4, 3, 2],
        affine: [2, 0, 0, 5, 0, 3, 0, 6, 0, 0, 4, 7, 0, 0, 0, 1],
        voxelType: 'int16',
        components: 7,
        frames: 6,
        geometry: {
          format: 'nifti',
          version,
          units: 2,
          pixdim: [1, 2, 3, 4],
          qform: { code: 3, quaternion: [0, 0, 0], offset: [5, 6, 7] },
        },
        scale: undefined,
        storedBytes: 2016,
      };
      const layout = {
        skipLines: 0,
        bigEndian: !little,
        inner: [],
        outer: [
          { role: 'frame', count: 6 },
          { role: 'component', count: 7 },
        ],
      };
      for (const [given, at] of [
        [0, least],
        [least, least],
        [least + 16, least + 16],
        [2 ** 26, 2 ** 26],
      ]) {
        const bytes = header(version, little, { ...edits, voxOffset: [given] });
        expect(parse(bytes)).toEqual({
          header: { ...common, extension: 'nii', compressed: false },
          layout: { ...layout, offset: at, skip: 0, encoding: 'raw' },
        });
        expect(parse(bytes, { gzip: true })).toEqual({
          header: { ...common, extension: 'nii.gz', compressed: true },
          layout: { ...layout, offset: 0, skip: at, encoding: 'gzip' },
        });
      }
      const magic = version === 1 ? 'ni1\0' : 'ni2\0\r\n\x1a\n';
      for (const at of [0, 1, 64]) {
        expect(parse(header(version, little, { ...edits, magic, voxOffset: [at] }))).toEqual({
          header: { ...common, extension: 'nii', compressed: false },
          layout: { ...layout, file: 'image', offset: 0, skip: at, encoding: 'sniff' },
        });
      }
      for (const at of [least - 1, -1, 2 ** 26 + (version === 1 ? 8 : 1)])
        expect(() => parse(header(version, little, { voxOffset: [at] }))).toThrow(
          `vox_offset is ${at}, not a whole number from ${least} to 67108864`,
        );
    }
    for (const at of [352.5, Number.NaN, Number.POSITIVE_INFINITY])
      expect(() => parse(header(1, true, { voxOffset: [at] }))).toThrow(/vox_offset/);
    expect(() => parse(header(1, true, { magic: 'ni1\0', voxOffset: [-1] }))).toThrow(/from 0 to/);
  });

  it.each<[string, number[], number, number]>([
    ['dimensions of 0 behind space', [5, 4, 3, 2, 0, 0], 1, 1],
    ['dimensions that are not counted', [3, 4, 3, 2, 9, 9, 9, 9], 1, 1],
    ['four', [4, 4, 3, 2, 5, 9], 5, 1],
    ['seven', [7, 4, 3, 2, 5, 6, 1, 1], 5, 6],
    ['seven, of which two are 0', [7, 4, 3, 2, 5, 6, 0, 0], 5, 6],
  ])('takes %s', (_what, dim, frames, components) => {
    for (const [version, little] of forms)
      expect(parse(header(version, little, { dim })).header).toMatchObject({
        size: [4, 3, 2],
        frames,
        components,
      });
  });

  it.each<[string, Edits, string, string]>([
    ['rank 0', { dim: [0, 4, 3, 2] }, 'BAD_HEADER', 'dim[0] is 0'],
    ['rank -1', { dim: [-1, 4, 3, 2] }, 'BAD_HEADER', 'dim[0] is -1'],
    ['rank 8', { dim: [8, 4, 3, 2, 1, 1, 1, 1] }, 'BAD_HEADER', 'dim[0] is 8'],
    ['rank 1', { dim: [1, 4] }, 'UNSUPPORTED_FORMAT', 'a 1-D image'],
    ['rank 2', { dim: [2, 4, 3] }, 'UNSUPPORTED_FORMAT', 'a 2-D image'],
    ['no slices', { dim: [4, 4, 3, 0, 5] }, 'BAD_HEADER', 'dim[3] is 0'],
    ['no columns', { dim: [3, 0, 3, 2] }, 'BAD_HEADER', 'dim[1] is 0'],
    ['frames below 0', { dim: [4, 4, 3, 2, -5] }, 'BAD_HEADER', 'dim[4] is -5'],
    ['a sixth dimension', { dim: [6, 4, 3, 2, 1, 1, 2] }, 'UNSUPPORTED_FORMAT', 'dim[6] is 2'],
    ['a seventh dimension', { dim: [7, 4, 3, 2, 1, 1, 1, 3] }, 'UNSUPPORTED_FORMAT', 'dim[7] is 3'],
    ['bits', { datatype: [1] }, 'UNSUPPORTED_FORMAT', 'datatype is 1)'],
    ['complex64', { datatype: [32] }, 'UNSUPPORTED_FORMAT', 'complex64'],
    ['float128', { datatype: [1536] }, 'UNSUPPORTED_FORMAT', 'float128'],
    ['complex128', { datatype: [1792] }, 'UNSUPPORTED_FORMAT', 'complex128'],
    ['complex256', { datatype: [2048] }, 'UNSUPPORTED_FORMAT', 'complex256'],
    ['no type', { datatype: [0] }, 'BAD_HEADER', 'datatype is 0'],
    [
      'colours of five dimensions',
      { dim: [5, 4, 3, 2, 1, 2], datatype: [128] },
      'UNSUPPORTED_FORMAT',
      'colours',
    ],
    [
      'a scaling without intercept',
      { slope: [2], intercept: [Number.NaN] },
      'BAD_HEADER',
      'scl_inter is NaN',
    ],
    ['another magic', { magic: 'n+3\0' }, 'BAD_HEADER', 'field magic'],
  ])('refuses %s', (_what, edits, code, message) => {
    for (const [version, little] of forms) {
      const bytes = header(version, little, edits);
      expect(() => parse(bytes)).toThrow(expect.objectContaining({ code }));
      expect(() => parse(bytes)).toThrow(message);
    }
  });

  it('counts colours within the limit, and names them', () => {
    for (const [datatype, most] of [
      [128, 72],
      [2304, 96],
      [4, 24],
    ]) {
      const bytes = header(1, true, { datatype: [datatype] });
      expect(parse(bytes, {}, { maxVoxels: most }).header.size).toEqual([4, 3, 2]);
      expect(() => parse(bytes, {}, { maxVoxels: most - 1 })).toThrow(
        most > 24 ? `dim[3] = 2, colours = ${most / 24}` : `${most} values`,
      );
    }
  });

  it('refuses headers that are truncated, of another size, or of Analyze', () => {
    for (const [version, little] of forms) {
      const bytes = header(version, little);
      expect(() => parse(bytes.subarray(0, -1))).toThrow(
        `after ${headerLength[version] - 1} of the ${headerLength[version]} bytes of a NIfTI-${version}`,
      );
      expect(parse(new Uint8Array([9, ...bytes]).subarray(1)).header.size).toEqual([4, 3, 2]);
      new DataView(bytes.buffer).setInt32(0, 349, true);
      expect(() => parse(bytes)).toThrow('sizeof_hdr is 349');
    }
    const codeOf = (version: 1 | 2, magic: string) => {
      try {
        parse(header(version, true, { magic }));
      } catch (error) {
        return (error as { code: string }).code;
      }
      return undefined;
    };
    expect(codeOf(1, '\0\0\0\0')).toBe('UNSUPPORTED_FORMAT');
    expect(codeOf(1, '\0\0\0a')).toBe('BAD_HEADER');
    expect(codeOf(2, '\0\0\0\0\0\0\0\0')).toBe('BAD_HEADER');
    expect(codeOf(2, 'n+2\0\n\r\x1a\n')).toBe('BAD_HEADER');
    expect(codeOf(1, 'n+1 ')).toBe('BAD_HEADER');
  });
});

describe('encodeNiftiHeader()', () => {
  const affine = [0, -2.5, 0, 5, 2, 0, 0, -6, 0, 0, -3, 7, 0, 0, 0, 1];
  const volume = (type: VoxelType = 'int16', components = 1, size = [4, 3, 2] as const): Volume => ({
    voxels: createVoxels(type, size[0] * size[1] * size[2] * components),
    size,
    components,
    affine,
  });
  function read(bytes: Uint8Array, version: 1 | 2, name: Field, count = 1): number[] {
    const view = new DataView(bytes.buffer);
    const [at, kind] = niftiFields[version][name];
    return Array.from({ length: count }, (_, i) => {
      const from = at + i * widths[kind];
      if (kind === 'i16') return view.getInt16(from, true);
      if (kind === 'i32') return view.getInt32(from, true);
      if (kind === 'i64') return Number(view.getBigInt64(from, true));
      if (kind === 'f32') return view.getFloat32(from, true);
      return kind === 'f64' ? view.getFloat64(from, true) : bytes[from];
    });
  }
  const stated = (version: 1 | 2, given: Volume) => {
    const q = { code: 2, quaternion: [0, 0, Math.fround(Math.SQRT1_2)], offset: [5, -6, 7] };
    return {
      volume: given,
      geometry: {
        format: 'nifti' as const,
        version,
        units: 10,
        pixdim: [-1, 2, 2.5, 3],
        qform: q,
        sform: { code: 4, rows: affine.slice(0, 12) },
      },
    };
  };

  it.each<[VoxelType, number, number]>([
    ['uint8', 2, 8],
    ['int16', 4, 16],
    ['int32', 8, 32],
    ['float32', 16, 32],
    ['float64', 64, 64],
    ['int8', 256, 8],
    ['uint16', 512, 16],
    ['uint32', 768, 32],
    ['int64', 1024, 64],
    ['uint64', 1280, 64],
  ])('writes %s as datatype %d of %d bits', (type, datatype, bits) => {
    for (const version of [1, 2] as const) {
      const { geometry } = stated(version, volume(type));
      const bytes = encodeNiftiHeader(volume(type), { geometry });
      expect([...read(bytes, version, 'datatype'), ...read(bytes, version, 'bitpix')]).toEqual([
        datatype,
        bits,
      ]);
    }
  });

  it('writes every field at its place, and nothing else', () => {
    for (const version of [1, 2] as const) {
      for (const [components, intent, code, dim] of [
        [1, undefined, 0, [3, 4, 3, 2, 1, 1, 1, 1]],
        [1, 'label', 1002, [3, 4, 3, 2, 1, 1, 1, 1]],
        [3, undefined, 1007, [5, 4, 3, 2, 1, 3, 1, 1]],
        [3, 'label', 1002, [5, 4, 3, 2, 1, 3, 1, 1]],
      ] as const) {
        const given = volume('int16', components);
        const { geometry } = stated(version, given);
        const description = 'd'.repeat(90);
        const bytes = encodeNiftiHeader(given, { geometry, description, intent });
        expect(bytes).toHaveLength(version === 1 ? 352 : 544);
        const wanted = header(version, true, {
          dim,
          intent: [code],
          bitpix: [16],
          pixdim: [-1, 2, 2.5, 3, 1, 1, 1, 1],
          voxOffset: [version === 1 ? 352 : 544],
          slope: [1],
          units: [10],
          qformCode: [2],
          sformCode: [4],
          qform: [0, 0, Math.fround(Math.SQRT1_2), 5, -6, 7],
          sform: affine.slice(0, 12),
        });
        wanted.set(Buffer.from('d'.repeat(79)), version === 1 ? 148 : 240);
        if (version === 1) wanted[38] = 0x72;
        expect(bytes).toEqual(Uint8Array.from([...wanted, 0, 0, 0, 0]));
      }
    }
  });

  it('leaves a form out that the input does not state', () => {
    for (const version of [1, 2] as const) {
      const { geometry } = stated(version, volume());
      const { qform, sform, ...none } = geometry;
      const without = (form: object) => encodeNiftiHeader(volume(), { geometry: { ...none, ...form } });
      expect(read(without({ qform }), version, 'sformCode')).toEqual([0]);
      expect(read(without({ qform }), version, 'sform', 12)).toEqual(new Array(12).fill(0));
      expect(read(without({ sform }), version, 'qformCode')).toEqual([0]);
      expect(read(without({ sform }), version, 'qform', 6)).toEqual(new Array(6).fill(0));
      // Of another grid: our own.
      expect(read(without({}), 1, 'sformCode')).toEqual([1]);
    }
  });

  it('needs NIfTI-2 from 32,768 voxels or components on', () => {
    const lengthOf = (size: readonly [number, number, number], components = 1) =>
      encodeNiftiHeader({ ...volume('uint8', components, size as never) }, {}).length;
    expect(lengthOf([32_767, 1, 1])).toBe(352);
    for (const size of [
      [32_768, 1, 1],
      [1, 32_768, 1],
      [1, 1, 32_768],
    ] as const)
      expect(lengthOf(size)).toBe(544);
    expect(lengthOf([1, 1, 1], 32_767)).toBe(352);
    expect(lengthOf([1, 1, 1], 32_768)).toBe(544);
    const bytes = encodeNiftiHeader(volume('uint8', 1, [32_768, 1, 1] as never), {});
    expect(read(bytes, 2, 'dim', 8)).toEqual([3, 32_768, 1, 1, 1, 1, 1, 1]);
    expect(read(bytes, 2, 'units')).toEqual([2]);
  });
});
