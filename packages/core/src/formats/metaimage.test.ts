import { describe, expect, it } from 'vitest';
import type { Affine } from '../geometry/affine.ts';
import { createVoxels, machineIsBigEndian, type Volume, voxelTypes } from '../volume.ts';
import { defaultLimits } from './header.ts';
import { encodeMetaImageHeader, isMetaImage, parseMetaImage } from './metaimage.ts';

const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'));
const required: Record<string, string> = {
  ObjectType: 'Image',
  NDims: '3',
  DimSize: '4 3 2',
  ElementType: 'MET_UCHAR',
};
/** A header with fields changed, left out (undefined) or added; ElementDataFile comes last. */
function headerOf(fields: Record<string, string | undefined> = {}, dataFile: string | undefined = 'LOCAL') {
  const lines = Object.entries({ ...required, ...fields }).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key} = ${value}\n`],
  );
  return `${lines.join('')}${dataFile === undefined ? '' : `ElementDataFile = ${dataFile}\n`}`;
}
const parse = (text: string, whole = true) =>
  parseMetaImage({ name: 'a.mha', bytes: bytesOf(text), gzip: false, whole }, defaultLimits);
const parseWith = (fields: Record<string, string | undefined>, dataFile?: string) =>
  parse(headerOf(fields, dataFile));
const faultOf = (fields: Record<string, string | undefined>, dataFile?: string) => {
  try {
    parseWith(fields, dataFile);
  } catch (error) {
    return error;
  }
};

describe('isMetaImage()', () => {
  it.each([
    ['ObjectType = Image', true],
    ['NDims = 3', true],
    ['  \n ObjectType: Image', true],
    ['NDims:3', true],
    ['Comment = a\nNDims = 3\nDimSize = 1 1 1', true],
    ['Comment = a\n NDims : 3\n ElementType : MET_CHAR', true],
    ['Comment = a\nNDims = 3\nOffset = 1 1 1', false],
    ['Comment = a\nDimSize = 1 1 1\nElementType = MET_CHAR', false],
    ['Comment = NDims\nComment = DimSize', false],
    ['NDimsx = 3', false],
    ['ObjectType', false],
    ['', false],
    [`Comment = ${'a'.repeat(4096 - 23)}\nNDims =\nDimSize`.slice(0, 4096 + 10), false],
  ])('%#: goes by the names of fields', (text, expected) => {
    expect(isMetaImage(bytesOf(text))).toBe(expected);
  });

  it('looks at the first 4096 characters', () => {
    const start = (length: number) => `Comment = ${'a'.repeat(length - 26)}\nNDims=3\nDimSize`;
    expect(start(4096)).toHaveLength(4096);
    expect(isMetaImage(bytesOf(`${start(4096)}=`))).toBe(true);
    expect(isMetaImage(bytesOf(`${start(4097)}=`))).toBe(false);
  });
});

describe('parseMetaImage()', () => {
  it.each([
    ['MET_UCHAR', 'uint8', 1],
    ['MET_CHAR', 'int8', 1],
    ['MET_USHORT', 'uint16', 2],
    ['MET_SHORT', 'int16', 2],
    ['MET_UINT', 'uint32', 4],
    ['MET_INT', 'int32', 4],
    ['MET_ULONG', 'uint32', 4],
    ['MET_LONG', 'int32', 4],
    ['MET_ULONG_LONG', 'uint64', 8],
    ['MET_LONG_LONG', 'int64', 8],
    ['MET_FLOAT', 'float32', 4],
    ['MET_DOUBLE', 'float64', 8],
  ])('reads %s as %s', (ElementType, voxelType, width) => {
    expect(parseWith({ ElementType }).header).toMatchObject({ voxelType, storedBytes: 24 * width });
  });

  it('uses ITK’s defaults for missing values', () => {
    const text = headerOf({ ObjectType: undefined });
    const { header, layout } = parse(text);
    expect(header).toEqual({
      format: 'metaimage',
      extension: 'mha',
      size: [4, 3, 2],
      affine: [-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
      voxelType: 'uint8',
      components: 1,
      frames: 1,
      geometry: {
        format: 'metaimage',
        matrix: [1, 0, 0, 0, 1, 0, 0, 0, 1],
        offset: [0, 0, 0],
        spacing: [1, 1, 1],
      },
      storedBytes: 24,
      compressed: false,
    });
    expect(layout).toEqual({
      encodedBytes: undefined,
      offset: text.length,
      skip: 0,
      skipLines: 0,
      encoding: 'raw',
      bigEndian: false,
      inner: [{ role: 'component', count: 1 }],
      outer: [{ role: 'frame', count: 1 }],
    });
  });

  it('reads the frames of four dimensions, wherever the rows are theirs', () => {
    const four = { NDims: '4', DimSize: '4 3 2 5', ElementNumberOfChannels: '2' };
    const { header, layout } = parseWith(four);
    expect(header).toMatchObject({ size: [4, 3, 2], frames: 5, components: 2, storedBytes: 240 });
    expect(header.geometry).toMatchObject({ matrix: [1, 0, 0, 0, 1, 0, 0, 0, 1], offset: [0, 0, 0] });
    expect([layout.inner, layout.outer, layout.order]).toEqual([
      [{ role: 'component', count: 2 }],
      [{ role: 'frame', count: 5 }],
      undefined,
    ]);
    const second = parseWith({
      ...four,
      TransformMatrix: '0 1 0 0 0 0 0 -3 1 0 0 0 0 0 1 0',
      ElementSpacing: '2 0 3 4',
      Offset: '5 6 7 8',
    });
    expect(second.header).toMatchObject({ size: [4, 2, 5], frames: 3 });
    expect(second.header.geometry).toMatchObject({
      matrix: [0, 1, 0, 1, 0, 0, 0, 0, 1],
      offset: [5, 6, 7],
      spacing: [2, 3, 4],
    });
    expect(second.layout.order).toEqual([
      { role: 'component', count: 2 },
      { role: 'space', count: 4 },
      { role: 'frame', count: 3 },
      { role: 'space', count: 2 },
      { role: 'space', count: 5 },
    ]);
  });

  it.each([
    ['none along the fourth coordinate', '1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 0'],
    ['two along it', '1 0 0 0 0 1 0 0 0 0 0 1 0 0 0 1'],
    ['one of frames that moves along x', '1 0 0 0 0 1 0 0 0 0 1 0 0.5 0 0 1'],
    ['one of frames that moves along y', '1 0 0 0 0 1 0 0 0 0 1 0 0 0.5 0 1'],
    ['one of frames that moves along z', '1 0 0 0 0 1 0 0 0 0 1 0 0 0 0.5 1'],
    ['one of space that moves in time', '1 0 0 0 0 1 0 0.5 0 0 1 0 0 0 0 1'],
  ])('refuses axes with %s', (_what, TransformMatrix) => {
    expect(faultOf({ NDims: '4', DimSize: '4 3 2 5', TransformMatrix })).toMatchObject({
      code: 'UNSUPPORTED_FORMAT',
      message: expect.stringContaining('TransformMatrix'),
    });
  });

  it.each([
    ['TransformMatrix', '0 1 0 1 0 0 0 0 1', 'matrix', [0, 1, 0, 1, 0, 0, 0, 0, 1]],
    ['Rotation', '0 1 0 1 0 0 0 0 1', 'matrix', [0, 1, 0, 1, 0, 0, 0, 0, 1]],
    ['Orientation', '0 1 0 1 0 0 0 0 1', 'matrix', [0, 1, 0, 1, 0, 0, 0, 0, 1]],
    ['Offset', '1,2, 3', 'offset', [1, 2, 3]],
    ['Position', '1 2 3', 'offset', [1, 2, 3]],
    ['Origin', '1 2 3', 'offset', [1, 2, 3]],
    ['ElementSpacing', '1 2 3', 'spacing', [1, 2, 3]],
    ['ElementSize', '1 2 3', 'spacing', [1, 2, 3]],
    ['DistanceUnits', 'cm', 'units', 'cm'],
    ['DistanceUnits', '?', 'units', '?'],
  ])('reads %s = %s', (name, value, key, expected) => {
    expect(parseWith({ [name]: value }).header.geometry).toMatchObject({ [key]: expected });
  });

  it('prefers the first of the names, unless it is empty', () => {
    const { geometry } = parseWith({
      ElementSize: '9 9 9',
      ElementSpacing: '1 2 3',
      Origin: '9 9 9',
      Position: '4 5 6',
      Offset: '',
    }).header;
    expect(geometry).toMatchObject({ spacing: [1, 2, 3], offset: [4, 5, 6] });
  });

  it.each([
    ['True', true],
    ['true', true],
    ['1', true],
    ['Yes', true],
    ['False', false],
    ['0', false],
    ['no', false],
    ['untrue', false],
  ])('reads the flag %s', (value, expected) => {
    expect(parseWith({ CompressedData: value }).header.compressed).toBe(expected);
    expect(parseWith({ BinaryDataByteOrderMSB: value }).layout.bigEndian).toBe(expected);
    expect(parseWith({ ElementByteOrderMSB: value }).layout.bigEndian).toBe(expected);
    expect(parseWith({ BinaryData: value }).layout.encoding).toBe(expected ? 'raw' : 'text');
  });

  it('reads how the voxels are compressed', () => {
    const packed = parseWith({ CompressedData: 'True', CompressedDataSize: '77' });
    expect(packed.header.compressed).toBe(true);
    expect(packed.layout).toMatchObject({ encoding: 'deflate', encodedBytes: 77 });
    expect(parseWith({ CompressedData: 'True' }).layout.encodedBytes).toBeUndefined();
    expect(parseWith({ CompressedDataSize: '77' }).layout.encodedBytes).toBeUndefined();
    expect(faultOf({ CompressedData: 'True', BinaryData: 'False' })).toMatchObject({
      code: 'UNSUPPORTED_FORMAT',
    });
  });

  const end = headerOf().length;
  const withSize = (size: number | string) => headerOf({ HeaderSize: String(size) });
  it.each([
    ['right after it', headerOf(), { offset: end, skip: 0 }],
    ['after it, by HeaderSize 0', withSize(0), { offset: end + 15, skip: 0 }],
    ['at HeaderSize', withSize(300), { offset: 300, skip: 0 }],
    ['at HeaderSize, its own length', withSize(end + 17), { offset: end + 17, skip: 0 }],
    ['at the end', withSize(-1), { offset: end + 16, skip: 'all but the voxels' }],
    ['after it, in lower case', headerOf({}, 'local'), { offset: end, skip: 0 }],
    ['after it, with line ends of DOS', headerOf().replaceAll('\n', '\r\n'), { offset: end + 5, skip: 0 }],
    ['after it, with colons and blanks', headerOf().replaceAll(' = ', '\t:'), { offset: end - 5, skip: 0 }],
    ['in another file', headerOf({}, 'dir/a.raw'), { file: { name: 'a.raw' }, offset: 0, skip: 0 }],
    [
      'in another file, at HeaderSize',
      headerOf({ HeaderSize: '20' }, 'a.raw'),
      { file: { name: 'a.raw' }, offset: 20, skip: 0 },
    ],
    [
      'at the end of another file',
      headerOf({ HeaderSize: '-1' }, 'a.raw'),
      { file: { name: 'a.raw' }, offset: 0, skip: 'all but the voxels' },
    ],
    [
      'in a file named in the last line, without an end',
      headerOf({}, 'a.raw').trimEnd(),
      { file: { name: 'a.raw' }, offset: 0, skip: 0 },
    ],
  ])('finds the voxels %s', (_what, text, place) => {
    const { layout } = parse(
      text.startsWith('O') && text.endsWith('LOCAL\n') ? `${text}\n\nNDims = 9\n` : text,
    );
    expect({ file: layout.file, offset: layout.offset, skip: layout.skip }).toEqual({
      file: undefined,
      ...place,
    });
  });

  it('leaves the position open where the header continues past the bytes', () => {
    for (const text of [headerOf({}, 'LOC').trimEnd(), headerOf().slice(0, -24)])
      expect(parse(text, false).layout).toMatchObject({ offset: undefined, skip: 0 });
  });

  it.each([
    ['another object', { ObjectType: 'Mesh' }, 'UNSUPPORTED_FORMAT', /ObjectType/],
    ['no NDims', { NDims: undefined }, 'BAD_HEADER', /NDims is missing/],
    ['two dimensions', { NDims: '2' }, 'UNSUPPORTED_FORMAT', /NDims is 2/],
    ['one dimension', { NDims: '1' }, 'UNSUPPORTED_FORMAT', /NDims is 1/],
    ['five dimensions', { NDims: '5' }, 'UNSUPPORTED_FORMAT', /NDims is 5/],
    ['no dimensions', { NDims: '0' }, 'BAD_HEADER', /NDims is 0/],
    ['two and a half', { NDims: '2.5' }, 'BAD_HEADER', /NDims is 2.5/],
    ['no DimSize', { DimSize: undefined }, 'BAD_HEADER', /DimSize is missing/],
    ['two sizes', { DimSize: '4 3' }, 'BAD_HEADER', /DimSize is "4 3", not 3 finite numbers/],
    ['a size of 0', { DimSize: '4 3 0' }, 'BAD_HEADER', /DimSize\[2\] is 0/],
    ['channels of 0', { ElementNumberOfChannels: '0' }, 'BAD_HEADER', /ElementNumberOfChannels is 0/],
    ['two numbers of channels', { ElementNumberOfChannels: '1 2' }, 'BAD_HEADER', /not 1 finite number\./],
    ['no type', { ElementType: undefined }, 'BAD_HEADER', /ElementType/],
    ['a type of another name', { ElementType: 'toString' }, 'BAD_HEADER', /ElementType/],
    ['a type of something else', { ElementType: 'MET_STRING' }, 'UNSUPPORTED_FORMAT', /MET_DOUBLE/],
    ['a spacing of 0', { ElementSpacing: '1 0 1' }, 'BAD_HEADER', /ElementSpacing\[1\] is 0/],
    ['a spacing below 0', { ElementSpacing: '1 1 -2' }, 'BAD_HEADER', /ElementSpacing\[2\] is -2/],
    ['a word in Offset', { Offset: '1 2 x' }, 'BAD_HEADER', /Offset/],
    ['a singular matrix', { TransformMatrix: '1 0 0 1 0 0 0 0 1' }, 'BAD_HEADER', /TransformMatrix/],
    ['HeaderSize -2', { HeaderSize: '-2' }, 'BAD_HEADER', /HeaderSize is "-2"/],
    ['HeaderSize 1.5', { HeaderSize: '1.5' }, 'BAD_HEADER', /HeaderSize/],
    ['HeaderSize 2^53', { HeaderSize: '9007199254740992' }, 'BAD_HEADER', /HeaderSize/],
    ['HeaderSize -1 when packed', { HeaderSize: '-1', CompressedData: 'T' }, 'BAD_HEADER', /HeaderSize/],
    [
      'HeaderSize 1',
      { HeaderSize: '1' },
      'BAD_HEADER',
      new RegExp(`HeaderSize is 1, but the header is ${end + 15} bytes`),
    ],
    ['a HeaderSize one too small', { HeaderSize: `${end + 16}` }, 'BAD_HEADER', /HeaderSize is/],
  ] as const)('refuses %s', (_what, fields, code, message) => {
    expect(faultOf(fields)).toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it.each([
    ['LIST', 'UNSUPPORTED_FORMAT', /list of files/],
    ['LIST 2', 'UNSUPPORTED_FORMAT', /list of files/],
    ['a%03d.raw 1 2 1', 'UNSUPPORTED_FORMAT', /list of files/],
    ['', 'BAD_HEADER', /ElementDataFile.* missing/],
  ])('refuses ElementDataFile = %s', (dataFile, code, message) => {
    expect(faultOf({}, dataFile)).toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it('takes LISTED.raw for the name of a file', () => {
    expect(parseWith({}, 'LISTED.raw').layout.file).toEqual({ name: 'LISTED.raw' });
  });

  it('refuses a whole file that ends with its header', () => {
    for (const text of [headerOf().trimEnd(), headerOf().slice(0, -24)])
      expect(() => parse(text)).toThrow(expect.objectContaining({ code: 'BAD_HEADER' }));
  });

  it('counts the largest sizes it takes by the limit', () => {
    const file = {
      name: 'a',
      bytes: bytesOf(headerOf({ ElementNumberOfChannels: '2' })),
      gzip: false,
      whole: true,
    };
    expect(parseMetaImage(file, { maxVoxels: 48 }).header.components).toBe(2);
    expect(() => parseMetaImage(file, { maxVoxels: 47 })).toThrow(
      /DimSize\[0\] = 4.*ElementNumberOfChannels = 2/,
    );
  });
});

describe('encodeMetaImageHeader()', () => {
  const affine: Affine = [0, 3, 0, -10, -2, 0, 0, -20, 0, 0, 4, 30, 0, 0, 0, 1];
  const volumeOf = (more: Partial<Volume> = {}): Volume => ({
    voxels: new Uint8Array(24),
    size: [4, 3, 2],
    components: 1,
    affine,
    ...more,
  });
  const linesOf = (...[volume, options]: Parameters<typeof encodeMetaImageHeader>) =>
    Buffer.from(encodeMetaImageHeader(volume, options)).toString().split('\n');
  const msb = machineIsBigEndian ? 'True' : 'False';

  it('writes the grid in LPS and mm', () => {
    expect(linesOf(volumeOf(), {}).map((line) => line.replace(/(?<=\s)-0\b/g, '0'))).toEqual([
      'ObjectType = Image',
      'NDims = 3',
      'BinaryData = True',
      `BinaryDataByteOrderMSB = ${msb}`,
      'CompressedData = False',
      'TransformMatrix = 0 1 0 -1 0 0 0 0 1',
      'Offset = 10 20 30',
      'CenterOfRotation = 0 0 0',
      'ElementSpacing = 2 3 4',
      'DimSize = 4 3 2',
      'ElementType = MET_UCHAR',
      'ElementDataFile = LOCAL',
      '',
    ]);
  });

  it('writes a comment, compressed length, channels and the input’s unit', () => {
    const geometry = {
      format: 'metaimage' as const,
      matrix: [0, 1, 0, -1, 0, 0, 0, 0, 1],
      offset: [1, 2, 3],
      spacing: [0.2, 0.3, 0.4],
      units: 'cm' as const,
    };
    const volume = volumeOf({ components: 2, affine });
    const lines = linesOf(volume, { geometry, description: 'a\nb', compressedBytes: 0 });
    expect(lines.map((line) => line.replace(/(?<=\s)-0\b/g, '0'))).toEqual([
      'ObjectType = Image',
      'NDims = 3',
      'Comment = a b',
      'BinaryData = True',
      `BinaryDataByteOrderMSB = ${msb}`,
      'CompressedData = True',
      'CompressedDataSize = 0',
      'TransformMatrix = 0 1 0 -1 0 0 0 0 1',
      'Offset = 1 2 3',
      'CenterOfRotation = 0 0 0',
      'ElementSpacing = 0.2 0.3 0.4',
      'DistanceUnits = cm',
      'DimSize = 4 3 2',
      'ElementNumberOfChannels = 2',
      'ElementType = MET_UCHAR',
      'ElementDataFile = LOCAL',
      '',
    ]);
    const elsewhere = linesOf({ ...volume, affine: affine.with(3, -11) }, { geometry });
    expect(elsewhere.some((line) => line.startsWith('DistanceUnits'))).toBe(false);
    expect(elsewhere).toContain('Offset = 11 20 30');
  });

  it('cuts a comment off after 200 characters', () => {
    const lines = linesOf(volumeOf(), { description: 'a'.repeat(300) });
    expect(lines[2]).toBe(`Comment = ${'a'.repeat(200)}`);
  });

  it('writes a type that is read as the same', () => {
    const names = voxelTypes.map((type) => {
      const lines = linesOf(volumeOf({ voxels: createVoxels(type, 24) }), {});
      expect(parse(lines.join('\n')).header.voxelType).toBe(type);
      return lines.at(-3)?.slice(14);
    });
    expect(names).toEqual([
      'MET_UCHAR',
      'MET_CHAR',
      'MET_USHORT',
      'MET_SHORT',
      'MET_UINT',
      'MET_INT',
      'MET_ULONG_LONG',
      'MET_LONG_LONG',
      'MET_FLOAT',
      'MET_DOUBLE',
    ]);
  });
});
