import { describe, expect, it } from 'vitest';
import type { Affine } from '../geometry/affine.ts';
import { createVoxels, machineIsBigEndian, type Volume, voxelTypes } from '../volume.ts';
import { defaultLimits } from './header.ts';
import { encodeNrrdHeader, isNrrd, parseNrrd } from './nrrd.ts';

const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, 'latin1'));
const required: Record<string, string> = {
  type: 'uchar',
  dimension: '3',
  sizes: '4 3 2',
  encoding: 'raw',
};
/** A header with fields changed, left out (undefined) or added; an empty line ends it. */
function headerOf(fields: Record<string, string | undefined> = {}, magic = 'NRRD0005') {
  const lines = Object.entries({ ...required, ...fields }).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key}: ${value}\n`],
  );
  return `${magic}\n${lines.join('')}\n`;
}
const parse = (text: string, whole = true) =>
  parseNrrd({ name: 'a.nrrd', bytes: bytesOf(text), gzip: false, whole }, defaultLimits);
const parseWith = (fields: Record<string, string | undefined>) => parse(headerOf(fields));
const faultOf = (text: string) => {
  try {
    parse(text);
  } catch (error) {
    return error;
  }
};

describe('isNrrd()', () => {
  it.each([
    ['NRRD0001\n', true],
    ['NRRD000', true],
    ['NRRD00', false],
    ['NRRD0015', false],
    ['nrrd0005', false],
    [' NRRD0005', false],
  ])('of %j is %s', (text, expected) => {
    expect(isNrrd(bytesOf(text))).toBe(expected);
  });
});

describe('parseNrrd()', () => {
  it.each([
    ['int8', 1, 'signed char|int8|int8_t'],
    ['uint8', 1, 'uchar|unsigned char|uint8|uint8_t|UCHAR'],
    ['int16', 2, 'short|short int|signed short|signed short int|int16|int16_t'],
    ['uint16', 2, 'ushort|unsigned short|unsigned short int|uint16|uint16_t'],
    ['int32', 4, 'int|signed int|int32|int32_t'],
    ['uint32', 4, 'uint|unsigned int|uint32|uint32_t'],
    ['int64', 8, 'longlong|long long|long long int|signed long long|signed long long int|int64|int64_t'],
    ['uint64', 8, 'ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t'],
    ['float32', 4, 'float|Float'],
    ['float64', 8, 'double'],
  ])('knows every name of %s', (voxelType, width, names) => {
    for (const type of names.split('|'))
      expect(parseWith({ type, endian: 'little' }).header, type).toMatchObject({
        voxelType,
        storedBytes: 24 * width,
      });
  });

  it('reads a plain header', () => {
    const text = headerOf();
    const { header, layout } = parse(text);
    expect(header).toEqual({
      format: 'nrrd',
      extension: 'nrrd',
      size: [4, 3, 2],
      affine: [-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
      voxelType: 'uint8',
      components: 1,
      frames: 1,
      geometry: { format: 'nrrd' },
      storedBytes: 24,
      compressed: false,
    });
    expect(layout).toEqual({
      offset: text.length,
      skip: 0,
      skipLines: 0,
      encoding: 'raw',
      bigEndian: machineIsBigEndian,
      inner: [],
      outer: [],
    });
  });

  it('takes the first of equal fields in any case, ignoring comments and pairs', () => {
    const text =
      'NRRD0004\r\n#type: short\r\nkey:=type: short\r\nTYPE: uchar\r\ntype: short\r\nDi mension:  3\r\nsizes: 4 3 2\r\nencoding: raw\r\nlineskip: 2\r\n:sizes: 9\r\nno field\r\n\r\n';
    const { header, layout } = parse(text);
    expect(header).toMatchObject({ voxelType: 'uint8', size: [4, 3, 2] });
    expect(layout).toMatchObject({ offset: text.length, skipLines: 2 });
  });

  it.each([1, 2, 3, 4, 5])('reads version %i', (version) => {
    expect(parse(headerOf({}, `NRRD000${version}`)).header.size).toEqual([4, 3, 2]);
  });

  it.each([
    ['raw', 'raw', false],
    ['gzip', 'gzip', true],
    ['gz', 'gzip', true],
    ['GZIP', 'gzip', true],
    ['ascii', 'text', false],
    ['text', 'text', false],
    ['txt', 'text', false],
  ])('reads the encoding %s', (encoding, expected, compressed) => {
    const { header, layout } = parseWith({ encoding });
    expect([layout.encoding, header.compressed]).toEqual([expected, compressed]);
  });

  it('requires a byte order for multi-byte voxels, except as text', () => {
    expect(parseWith({ type: 'short', endian: 'little' }).layout.bigEndian).toBe(false);
    expect(parseWith({ type: 'short', endian: 'BIG' }).layout.bigEndian).toBe(true);
    expect(parseWith({ endian: 'big' }).layout.bigEndian).toBe(machineIsBigEndian);
    expect(parseWith({ type: 'short', encoding: 'text' }).header.voxelType).toBe('int16');
    for (const endian of [undefined, 'middle'])
      expect(faultOf(headerOf({ type: 'short', endian }))).toMatchObject({
        code: 'BAD_HEADER',
        message: expect.stringMatching(endian ? /neither/ : /missing/),
      });
  });

  it.each([
    ['vector first', '3 4 3 2', 'vector domain domain domain', [3, 1], [0, 0, 0]],
    ['list first', '3 4 3 2', 'list domain domain domain', [1, 3], [0, 0, 0]],
    ['RGB last', '4 3 2 3', 'space space space RGB-color', [3, 1], [0, 0, 0]],
    ['time last', '4 3 2 3', 'space space space time', [1, 3], [0, 0, 0]],
  ])('distinguishes frames from components: %s', (_what, sizes, kinds, counts) => {
    const { header, layout } = parseWith({ dimension: '4', sizes, kinds });
    expect(header.size).toEqual([4, 3, 2]);
    expect([header.components, header.frames, header.storedBytes]).toEqual([...counts, 72]);
    const axis = { role: counts[0] > 1 ? 'component' : 'frame', count: 3 };
    expect([layout.inner, layout.outer]).toEqual(sizes.startsWith('3') ? [[axis], []] : [[], [axis]]);
    expect(layout).not.toHaveProperty('order');
  });

  it('reads an axis between those of space, and several of one', () => {
    const { header, layout } = parseWith({
      dimension: '6',
      sizes: '1 4 3 2 5 1',
      kinds: 'vector domain domain list domain list',
    });
    expect(header).toMatchObject({ size: [4, 3, 5], components: 1, frames: 2 });
    expect(layout.order).toEqual([
      { role: 'component', count: 1 },
      { role: 'space', count: 4 },
      { role: 'space', count: 3 },
      { role: 'frame', count: 2 },
      { role: 'space', count: 5 },
      { role: 'frame', count: 1 },
    ]);
    expect([layout.inner, layout.outer]).toEqual([
      [{ role: 'component', count: 1 }],
      [{ role: 'frame', count: 1 }],
    ]);
  });

  it('reads 16 axes', () => {
    const ones = Array(13).fill(1).join(' ');
    const kinds = `domain domain domain ${Array(13).fill('list').join(' ')}`;
    expect(parseWith({ dimension: '16', sizes: `4 3 2 ${ones}`, kinds }).header.frames).toBe(1);
  });

  it.each([
    ['none', {}, { skipLines: 0, skip: 0 }],
    ['lines', { 'line skip': '3' }, { skipLines: 3, skip: 0 }],
    ['bytes', { 'byte skip': '5' }, { skipLines: 0, skip: 5 }],
    ['all bytes before the last', { 'byte skip': '-1' }, { skipLines: 0, skip: 'all but the voxels' }],
    ['2^40 bytes', { byteskip: '1099511627776' }, { skipLines: 0, skip: 2 ** 40 }],
    [
      'a file',
      { 'data file': 'dir/a.raw', 'byte skip': '7' },
      { file: { name: 'a.raw' }, offset: 0, skip: 7 },
    ],
    ['a file LISTED', { datafile: 'LISTED.raw' }, { file: { name: 'LISTED.raw' }, offset: 0 }],
  ])('knows where the voxels begin: %s', (_what, fields, place) => {
    expect(parseWith(fields).layout).toMatchObject(place);
  });

  it('needs no empty line before a detached data file', () => {
    for (const text of [
      headerOf({ 'data file': 'a.raw' }).slice(0, -1),
      headerOf({ datafile: 'a.raw' }).trimEnd(),
    ])
      expect(parse(text).layout).toMatchObject({ file: { name: 'a.raw' }, offset: 0 });
    for (const text of [headerOf().slice(0, -1), headerOf().trimEnd()]) {
      expect(faultOf(text)).toMatchObject({
        code: 'BAD_HEADER',
        message: expect.stringContaining('empty line'),
      });
      expect(parse(text, false).layout.offset).toBeUndefined();
    }
    expect(parse(headerOf({ 'data file': 'a.raw' }).trimEnd(), false).layout).toMatchObject({
      offset: undefined,
      skipLines: 0,
      encoding: 'raw',
    });
  });

  it.each([
    ['version 0', headerOf({}, 'NRRD0000'), 'BAD_HEADER', /NRRD0005/],
    ['version 6', headerOf({}, 'NRRD0006'), 'BAD_HEADER', /NRRD0005/],
    ['no type', headerOf({ type: undefined }), 'BAD_HEADER', /"type" is missing/],
    ['no dimension', headerOf({ dimension: undefined }), 'BAD_HEADER', /"dimension" is missing/],
    ['no sizes', headerOf({ sizes: undefined }), 'BAD_HEADER', /"sizes" is missing/],
    ['no encoding', headerOf({ encoding: undefined }), 'BAD_HEADER', /"encoding" is missing/],
    ['17 dimensions', headerOf({ dimension: '17' }), 'BAD_HEADER', /"dimension" is "17"/],
    ['no dimensions', headerOf({ dimension: '0' }), 'BAD_HEADER', /"dimension" is "0"/],
    ['a broken dimension', headerOf({ dimension: '3.5' }), 'BAD_HEADER', /"dimension" is "3.5"/],
    ['one dimension', headerOf({ dimension: '1', sizes: '24' }), 'UNSUPPORTED_FORMAT', /1-D/],
    ['two dimensions', headerOf({ dimension: '2', sizes: '4 6' }), 'UNSUPPORTED_FORMAT', /2-D/],
    ['two sizes', headerOf({ sizes: '4 6' }), 'BAD_HEADER', /"sizes" has 2 entries for 3 axes/],
    ['a size of 0', headerOf({ sizes: '4 0 2' }), 'BAD_HEADER', /"sizes"\[1\] is 0/],
    ['a block', headerOf({ type: 'block' }), 'UNSUPPORTED_FORMAT', /block/],
    ['an unknown type', headerOf({ type: 'int24' }), 'BAD_HEADER', /"type"/],
    ['bzip2', headerOf({ encoding: 'bzip2' }), 'UNSUPPORTED_FORMAT', /bzip2/],
    ['bz2', headerOf({ encoding: 'bz2' }), 'UNSUPPORTED_FORMAT', /bz2/],
    ['hex', headerOf({ encoding: 'hex' }), 'UNSUPPORTED_FORMAT', /hex/],
    ['an unknown encoding', headerOf({ encoding: 'rar' }), 'BAD_HEADER', /"encoding"/],
    ['-1 lines', headerOf({ 'line skip': '-1' }), 'BAD_HEADER', /"line skip" is "-1", not a number of lines/],
    ['1.5 lines', headerOf({ 'line skip': '1.5' }), 'BAD_HEADER', /"line skip"/],
    ['-2 bytes', headerOf({ 'byte skip': '-2' }), 'BAD_HEADER', /"byte skip" is "-2", not a number of bytes/],
    ['over 2^40 bytes', headerOf({ 'byte skip': '1099511627777' }), 'BAD_HEADER', /"byte skip"/],
    ['a list', headerOf({ 'data file': 'LIST' }), 'UNSUPPORTED_FORMAT', /list of files/],
    ['a series', headerOf({ 'data file': 'a%d.raw 1 2 1' }), 'UNSUPPORTED_FORMAT', /list of files/],
    [
      'two axes of frames',
      headerOf({ dimension: '5', sizes: '2 2 4 3 2', kinds: 'list time space space space' }),
      'UNSUPPORTED_FORMAT',
      /several axes of frames/,
    ],
    [
      'two axes of components',
      headerOf({ dimension: '5', sizes: '2 4 3 2 2', kinds: 'vector space space space vector' }),
      'UNSUPPORTED_FORMAT',
      /several axes of components/,
    ],
    ['two axes of space', headerOf({ kinds: 'list domain domain' }), 'UNSUPPORTED_FORMAT', /2 spatial axes/],
  ])('refuses %s', (_what, text, code, message) => {
    expect(faultOf(text)).toMatchObject({ code, message: expect.stringMatching(message) });
  });
});

describe('encodeNrrdHeader()', () => {
  const affine: Affine = [-2, 0, 0.5, -5, 0, -3, 0, -6, 0, 0, 4, 7, 0, 0, 0, 1];
  const volumeOf = (more: Partial<Volume> = {}): Volume => ({
    voxels: new Uint8Array(24),
    size: [4, 3, 2],
    components: 1,
    affine,
    ...more,
  });
  const linesOf = (...[volume, options]: Parameters<typeof encodeNrrdHeader>) =>
    Buffer.from(encodeNrrdHeader(volume, options))
      .toString()
      .split('\n')
      .map((line) => line.replace(/(?<=[(,])-0(?=[,)])/g, '0'));
  const endian = `endian: ${machineIsBigEndian ? 'big' : 'little'}`;

  it('writes the grid in LPS and mm', () => {
    expect(linesOf(volumeOf(), { compressed: false })).toEqual([
      'NRRD0005',
      'type: uint8',
      'dimension: 3',
      'sizes: 4 3 2',
      'kinds: domain domain domain',
      endian,
      'encoding: raw',
      'space: left-posterior-superior',
      'space directions: (2,0,0) (0,3,0) (-0.5,0,4)',
      'space origin: (5,6,7)',
      'space units: "mm" "mm" "mm"',
      '',
      '',
    ]);
  });

  it('leaves the unit unnamed on request, in mm all the same', () => {
    const named = linesOf(volumeOf(), { compressed: false });
    expect(linesOf(volumeOf(), { compressed: false, namesUnits: false })).toEqual(
      named.filter((line) => !line.startsWith('space units')),
    );
  });

  it('writes components, text and labels', () => {
    const labels = [
      { value: 4, name: ' a\\b ', color: '#FF8001' },
      { value: 7, name: '' },
      { value: 8, name: 'x', color: 'red' },
    ];
    const options = { compressed: true, description: `b\n${'c'.repeat(300)}`, labels };
    expect(linesOf(volumeOf({ components: 2 }), options)).toEqual([
      'NRRD0005',
      'type: uint8',
      'dimension: 4',
      'sizes: 2 4 3 2',
      'kinds: vector domain domain domain',
      endian,
      'encoding: gzip',
      'space: left-posterior-superior',
      'space directions: none (2,0,0) (0,3,0) (-0.5,0,4)',
      'space origin: (5,6,7)',
      'space units: "mm" "mm" "mm"',
      `content: b ${'c'.repeat(198)}`,
      'Segment0_ID:=Segment_4',
      'Segment0_Name:=a\\\\b',
      'Segment0_LabelValue:=4',
      'Segment0_Layer:=0',
      'Segment0_Color:=1.0000 0.5020 0.0039',
      'Segment1_ID:=Segment_7',
      'Segment1_Name:=label 7',
      'Segment1_LabelValue:=7',
      'Segment1_Layer:=0',
      'Segment2_ID:=Segment_8',
      'Segment2_Name:=x',
      'Segment2_LabelValue:=8',
      'Segment2_Layer:=0',
      'Segment2_Color:=0.5020 0.5020 0.5020',
      '',
      '',
    ]);
  });

  it('writes a type that is read as the same', () => {
    const names = voxelTypes.map((type) => {
      const lines = linesOf(volumeOf({ voxels: createVoxels(type, 24) }), { compressed: false });
      expect(parse(lines.join('\n')).header.voxelType).toBe(type);
      return lines[1].slice(6);
    });
    expect(names.slice(0, 8)).toEqual(voxelTypes.slice(0, 8));
    expect(names.slice(8)).toEqual(['float', 'double']);
  });
});
