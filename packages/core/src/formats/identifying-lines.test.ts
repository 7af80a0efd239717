import { describe, expect, it } from 'vitest';
import { findMetaImage, findNrrd, longestHeader } from './identifying-lines.ts';

const bytesOf = (text: string) => Uint8Array.from([...text].map((letter) => letter.charCodeAt(0)));
const textOf = (bytes: Uint8Array = new Uint8Array(0)) => Buffer.from(bytes).toString('latin1');
const same = (name: string) => name;
const renamed = (name: string) => name.replace(/^.*\./, 'volume.');
const nothing = { fields: [], from: 0 };

const meta = (header: string, { whole = true, dataFile = same } = {}) =>
  findMetaImage(bytesOf(header), whole, dataFile);
const nrrd = (header: string, { whole = true, dataFile = same } = {}) =>
  findNrrd(bytesOf(header), whole, dataFile);

describe('findMetaImage()', () => {
  /** What a line becomes, and what is reported of it; undefined where it stays. */
  async function lineOf(line: string) {
    const found = await meta(`NDims = 3\n${line}\nElementDataFile = LOCAL\nvoxels`);
    if (!found.head) {
      expect(found).toEqual(nothing);
      return undefined;
    }
    const head = textOf(found.head);
    expect(head.slice(0, 10)).toBe('NDims = 3\n');
    expect(head.slice(-25)).toBe('\nElementDataFile = LOCAL\n');
    expect(head).toHaveLength(35 + line.length);
    expect(found.from).toBe(35 + line.length);
    expect(found.fields).toHaveLength(1);
    const { name, value } = found.fields[0];
    return [head.slice(10, -25), name, value];
  }

  it.each(
    (
      'NDims DimSize ElementSpacing ElementSize TransformMatrix Rotation Orientation Offset Position Origin ' +
      'ElementNumberOfChannels HeaderSize CompressedDataSize'
    ).split(' '),
  )('keeps numbers of %s, and refuses words', async (key) => {
    for (const value of ['-1', '3 2.5,-.5e3  4', '', 'nan +nan -nan', 'inf +inf -inf', 'Infinity NaN'])
      expect(await lineOf(`${key} = ${value}`)).toBeUndefined();
    expect(await lineOf(`${key} = 1 Jane`)).toEqual([`${key} = ?     `, key, '1 Jane']);
    expect(await lineOf(`${key.toUpperCase()} = ?`)).toBeUndefined();
    expect(await lineOf(`${key} = 0x10`)).toEqual([`${key} = ?   `, key, '0x10']);
  });

  it.each([
    ['CenterOfRotation', ['0 0 5'], 'Jane'],
    ['AnatomicalOrientation', ['RAI', 'LPS', 'SRA', 'R?S', '???', '????', 'RA'], 'RAIS'],
    ['AnatomicalOrientation', ['L', '?P?'], 'RLS'],
    ['AnatomicalOrientation', ['RAI'], 'rai'],
    ['AnatomicalOrientation', ['RAI'], 'RAX'],
    ['AnatomicalOrientation', ['RAI'], '?????'],
    ['AnatomicalOrientation', ['IPL'], 'AAS'],
    ['ObjectSubType', ['Image', 'image'], 'Tube'],
    ['TransformType', ['MatrixOffset'], 'Offset'],
    [
      'Modality',
      'MET_MOD_CT MET_MOD_MR MET_MOD_NM MET_MOD_US MET_MOD_OTHER MET_MOD_UNKNOWN'.split(' '),
      'MET_MOD_',
    ],
  ])('keeps %s of %j, and empties %j', async (key, values, other) => {
    for (const value of values) expect(await lineOf(`${key} = ${value}`)).toBeUndefined();
    expect(await lineOf(`${key} =`)).toBeUndefined();
    expect(await lineOf(`${key} = ${other}`)).toEqual([
      `${key} =${' '.repeat(other.length + 1)}`,
      key,
      other,
    ]);
  });

  it.each([
    ['ObjectType', 'Image IMAGE ?', 'Tube'],
    ['DistanceUnits', 'nm um µm mm cm dm m km in ft mil unknown ?', 'mile'],
    [
      'ElementType',
      'MET_UCHAR MET_CHAR MET_USHORT MET_SHORT MET_UINT MET_INT MET_ULONG MET_LONG MET_ULONG_LONG MET_LONG_LONG ' +
        'MET_FLOAT MET_DOUBLE MET_NONE MET_OTHER MET_STRING MET_ASCII_CHAR met_uchar ?',
      'MET_FLOAT_MATRIX',
    ],
  ])('keeps the words of %s, and refuses others', async (key, values, other) => {
    for (const value of values.split(' ')) expect(await lineOf(`${key} = ${value}`), value).toBeUndefined();
    expect(await lineOf(`${key} = ${other}`)).toEqual([`${key} = ${'?'.padEnd(other.length)}`, key, other]);
  });

  it.each(['BinaryData', 'BinaryDataByteOrderMSB', 'ElementByteOrderMSB', 'CompressedData'])(
    'makes a truth of what %s says',
    async (key) => {
      for (const value of ['True', 'False', 't', 'F', '1', '0', ''])
        expect(await lineOf(`${key} = ${value}`)).toBeUndefined();
      for (const value of ['Tom', 'tom', '1945', 'yes'])
        expect(await lineOf(`${key} = ${value}`)).toEqual([
          `${key} = ${'1'.padEnd(value.length)}`,
          key,
          value,
        ]);
      for (const value of ['Jane', 'at 1', '01'])
        expect(await lineOf(`${key} = ${value}`)).toEqual([
          `${key} = ${'0'.padEnd(value.length)}`,
          key,
          value,
        ]);
    },
  );

  it.each([
    ['PatientName = Jane', 'x           =     ', 'PatientName', 'Jane'],
    ['\t Patient \t:Jane ', '\t x       \t:     ', 'Patient', 'Jane'],
    ['Patient =', 'x       =', 'Patient', ''],
    ['X =', 'x =', 'X', ''],
    ['a:b=c', 'x:   ', 'a', 'b=c'],
    ['a=b:c', 'x=   ', 'a', 'b:c'],
    ['\t Offset  :  1 Jane\t', '\t Offset  :  ?      ', 'Offset', '1 Jane'],
    ['Offset = 1\r2 3', ' '.repeat(14), 'text', 'Offset = 1\r2 3'],
    [' Jane ', '      ', 'text', ' Jane '],
    ['=Jane: Doe', '          ', 'text', '=Jane: Doe'],
    [':Jane = Doe', '           ', 'text', ':Jane = Doe'],
    [' = Jane', '       ', 'text', ' = Jane'],
    ['Jan\xe9', '    ', 'text', 'Jan\xe9'],
  ])('writes %j as %j', async (line, instead, name, value) => {
    expect(await lineOf(line)).toEqual([instead, name, value]);
    expect(await lineOf(instead)).toBeUndefined();
  });

  it.each(['', ' \t ', 'x =', 'x:  ', '\tx ='])('keeps the blank line %j', async (line) => {
    expect(await lineOf(line)).toBeUndefined();
  });

  it('shows 300 characters of a name and a value', async () => {
    const [, name, value] = (await lineOf(`${'k'.repeat(301)} = ${'v'.repeat(301)}`)) ?? [];
    expect([name, value]).toEqual(['k'.repeat(300), 'v'.repeat(300)]);
  });

  it('ends after ElementDataFile, and keeps every line end and byte before', async () => {
    const given =
      'NDims = 3\r\nName = Jane\r\nOffset = 1\n\xe9 = \xff\nelementdatafile : Local\r\nName = Jane';
    const found = await meta(given);
    expect(textOf(found.head)).toBe(
      'NDims = 3\r\nx    =     \r\nOffset = 1\nx =  \nelementdatafile : Local\r\n',
    );
    expect(found.from).toBe(given.length - 'Name = Jane'.length);
    expect(found.fields).toEqual([
      { name: 'Name', value: 'Jane' },
      { name: '\xe9', value: '\xff' },
    ]);
    for (const end of ['', '\n', '\r\n'])
      expect(await meta(`NDims = 3\nElementDataFile =${end}`)).toEqual(nothing);
    expect(textOf((await meta('Name = Jane')).head)).toBe('x    =     ');
  });

  it('writes bytes of Latin-1 as they were', async () => {
    const { head } = await meta('DistanceUnits = \xb5m\nName = J\n');
    expect(textOf(head)).toBe('DistanceUnits = \xb5m\nx    =  \n');
  });

  it('refuses a header without an end in the bytes at hand', async () => {
    await expect(meta('NDims = 3\n', { whole: false })).rejects.toMatchObject({
      code: 'BAD_HEADER',
      message: expect.stringContaining('4194304 bytes'),
    });
    expect(longestHeader).toBe(4_194_304);
    expect(await meta('NDims = 3\n')).toEqual(nothing);
    expect(await meta('ElementDataFile = LOCAL\n', { whole: false })).toEqual(nothing);
  });

  it('names a thousand lines, and counts the rest', async () => {
    for (const [count, last] of [
      [1000, 'value 999'],
      [1001, '1 more lines'],
      [1234, '234 more lines'],
    ] as const) {
      const lines = Array.from({ length: count }, (_, i) => `Key = value ${i}\n`).join('');
      const { fields } = await meta(`${lines}ElementDataFile = LOCAL\n`);
      expect(fields).toHaveLength(Math.min(count, 1001));
      expect(fields.at(-1)).toEqual({ name: count > 1000 ? 'text' : 'Key', value: last });
    }
  });

  it('pauses in a header of many lines, and loses none', async () => {
    let paused = 0;
    const timer = setInterval(() => paused++);
    const lines = Array.from({ length: 9000 }, (_, i) => `Offset = ${i}\n`);
    const { head, from } = await meta(`${lines.join('')}Name = Jane\nElementDataFile = LOCAL\n`);
    clearInterval(timer);
    expect(textOf(head)).toBe(`${lines.join('')}x    =     \nElementDataFile = LOCAL\n`);
    expect(from).toBe(head?.length);
    expect(paused).toBeGreaterThan(0);
  });

  it.each([
    ['ElementDataFile = Jane.raw', 'ElementDataFile = volume.raw', false],
    ['  elementDATAfile:home/Jane.zraw  ', '  elementDATAfile:volume.zraw', false],
    ['ElementDataFile = C:\\Jane\\volume.raw', 'ElementDataFile = C:\\Jane\\volume.raw', false],
    ['ElementDataFile = Jane%03d.raw 1 9 2', 'ElementDataFile = volume%03d.raw 1 2 1', false],
    ['ElementDataFile = LIST', 'ElementDataFile = LIST', true],
    ['ElementDataFile = list 2D', 'ElementDataFile = LIST', true],
    ['ElementDataFile = Listing.raw', 'ElementDataFile = volume.raw', false],
    ['ElementDataFile = localizer.raw', 'ElementDataFile = volume.raw', false],
    ['ElementDataFile = a LOCAL', 'ElementDataFile = a LOCAL', false],
  ])('writes %j as %j', async (line, instead, isList) => {
    const dataFile = (name: string) => (name.startsWith('a ') ? name : renamed(name));
    const isChanged = line !== instead || isList;
    const end = isList ? Number.POSITIVE_INFINITY : line.length;
    const whole = await meta(line, { dataFile });
    expect(whole.fields).toEqual([]);
    expect(textOf(whole.head)).toBe(isChanged ? instead : '');
    expect(whole.from).toBe(isChanged ? end : 0);
    // Nobody reads what follows.
    for (const found of [
      await meta(`${line}\nJane`, { dataFile }),
      await meta(`${line}\n`, { dataFile, whole: false }),
    ]) {
      expect(textOf(found.head)).toBe(`${instead}\n`);
      expect(found.from).toBe(Number.POSITIVE_INFINITY);
    }
  });
});

describe('findNrrd()', () => {
  async function lineOf(line: string) {
    const found = await nrrd(`NRRD0004\n${line}\n\nvoxels`);
    if (!found.head) {
      expect(found).toEqual(nothing);
      return undefined;
    }
    const head = textOf(found.head);
    expect(head.slice(0, 9)).toBe('NRRD0004\n');
    expect(head.slice(-2)).toBe('\n\n');
    expect(found.from).toBe(11 + line.length);
    expect(found.fields).toHaveLength(1);
    const { name, value } = found.fields[0];
    return [head.slice(9, -2), name, value];
  }

  it.each([
    ['dimension', '3 NaN 2.5', true],
    ['space dimension', '3', true],
    ['sizes', '3 2 2', true],
    ['spacings', '1 -2 .5', true],
    ['axis mins', '0 NaN 1', true],
    ['axismaxs', '1 2 3', false],
    ['line skip', '1', true],
    ['byte skip', '-1', true],
    ['space directions', '(1,0,0) none NONE (0, .5e1, nan)', true],
    ['space origin', '(1,-2,3)', true],
    ['measurement frame', '(1,0,0) (0,1,0) none', false],
    ['type', 'unsigned char', true],
    ['encoding', 'gzip', true],
    ['endian', 'Little', true],
    ['space', 'RAS', true],
    ['centers', 'cell NODE ??? none', false],
    ['centerings', 'cell', false],
    ['space units', '"mm" "mm" "cm"', false],
    ['units', '"mm" "" "s"', false],
  ])('keeps %s of %s, and %s: refuses another', async (key, value, isRefused) => {
    expect(await lineOf(`${key}: ${value}`)).toBeUndefined();
    expect(await lineOf(`${key.toUpperCase().replaceAll(' ', '\t  ')}:${value} `)).toBeUndefined();
    const line = `${key}: Jane`;
    const instead = isRefused ? `${key}: ?   ` : '#'.padEnd(line.length);
    expect(await lineOf(line)).toEqual([instead, key, 'Jane']);
    expect(await lineOf(instead)).toBeUndefined();
  });

  it.each(
    (
      'signed char,int8,int8_t,uchar,unsigned char,uint8,uint8_t,short,short int,signed short,signed short int,int16,' +
      'int16_t,ushort,unsigned short,unsigned short int,uint16,uint16_t,int,signed int,int32,int32_t,uint,unsigned int,' +
      'uint32,uint32_t,longlong,long long,long long int,signed long long,signed long long int,int64,int64_t,ulonglong,' +
      'unsigned long long,unsigned long long int,uint64,uint64_t,float,double,block,DOUBLE'
    ).split(','),
  )('keeps the type %s', async (type) => {
    expect(await lineOf(`type: ${type}`)).toBeUndefined();
  });

  it.each([
    ['encoding', 'raw gzip gz bzip2 bz2 hex ascii text txt'],
    ['endian', 'little big'],
    [
      'space',
      'right-anterior-superior ras left-anterior-superior las left-posterior-superior lps rast last lpst scanner-xyz ' +
        '3d-right-handed 3d-left-handed right-anterior-superior-time scanner-xyz-TIME 3D-left-handed-time RAS',
    ],
    [
      'kinds',
      'domain space time list point vector covariant-vector normal stub scalar complex 2-vector 3-color rgb-color ' +
        'hsv-color xyz-color 4-color rgba-color 3-vector 3-gradient 3-normal 4-vector quaternion 2d-symmetric-matrix ' +
        '2d-masked-symmetric-matrix 2d-matrix 2d-masked-matrix 3d-symmetric-matrix 3d-masked-symmetric-matrix ' +
        '3d-matrix 3d-masked-matrix none ??? RGB-color',
    ],
    ['centers', 'cell node none ???'],
  ])('keeps every word of %s', async (key, words) => {
    for (const word of words.split(' ')) expect(await lineOf(`${key}: ${word}`), word).toBeUndefined();
  });

  it.each([
    ['kinds: domain Jane  Doe,list', 'kinds: domain vector vector list', 'kinds', 'domain Jane  Doe,list'],
    ['kinds: Jane', 'kinds: vector', 'kinds', 'Jane'],
    ['space: ras-times', 'space: ?        ', 'space', 'ras-times'],
    ['space: -time', 'space: ?    ', 'space', '-time'],
    ['spacings: 1 2 Jane', 'spacings: ?       ', 'spacings', '1 2 Jane'],
    ['number: 12', '#         ', 'number', '12'],
    ['content:Jane', '#           ', 'content', 'Jane'],
    ['Jane: ', '#     ', 'Jane', ''],
    ['Jane:=  Doe ', '#           ', 'Jane', '  Doe '],
    ['Jane: =Doe', '#         ', 'Jane', '=Doe'],
    ['Jane', '#   ', 'text', 'Jane'],
    ['sizes: 1\r2', '#         ', 'text', 'sizes: 1\r2'],
    [': Jane', '#     ', '', 'Jane'],
    ['#Jane', '#    ', 'comment', 'Jane'],
    ['#  Jane Doe ', '#           ', 'comment', 'Jane Doe'],
    ['# Complete NRRD file format', '#'.padEnd(27), 'comment', 'Complete NRRD file format'],
  ])('writes %j as %j', async (line, instead, name, value) => {
    expect(await lineOf(line)).toEqual([instead, name, value]);
    expect(await lineOf(instead)).toBeUndefined();
  });

  it.each([
    '#',
    '#  ',
    '# Complete NRRD file format specification at:',
    '# http://teem.sourceforge.net/nrrd/format.html',
  ])('keeps the comment %j', async (line) => {
    expect(await lineOf(line)).toBeUndefined();
  });

  it('empties what follows the version in the first line', async () => {
    expect(await nrrd('NRRD0005 \t\n\n')).toEqual(nothing);
    const found = await nrrd('NRRD0005 Jane\r\nsizes: 1\r\n\r\n');
    expect(found).toEqual({
      fields: [{ name: 'text', value: ' Jane' }],
      head: bytesOf('NRRD0005     \r\nsizes: 1\r\n\r\n'),
      from: 27,
    });
    expect((await nrrd('NRRD0005J\n\n')).fields).toEqual([{ name: 'text', value: 'J' }]);
    // Only there.
    expect((await nrrd('NRRD0005\nNRRD0005\n\n')).fields).toEqual([{ name: 'text', value: 'NRRD0005' }]);
  });

  it('ends at an empty line, and is refused without one', async () => {
    const found = await nrrd('NRRD0004\nJane\n\nJane\n\n');
    expect([textOf(found.head), found.from]).toEqual(['NRRD0004\n#   \n\n', 15]);
    await expect(nrrd('NRRD0004\nsizes: 1\n', { whole: false })).rejects.toMatchObject({
      code: 'BAD_HEADER',
    });
    expect(await nrrd('NRRD0004\nsizes: 1\n')).toEqual(nothing);
  });

  it.each([
    ['data file: Jane.raw', 'data file: volume.raw'],
    ['Data File:  home/Jane.raw.gz ', 'Data File: volume.gz'],
    ['datafile: Jane%03d.raw 1 9 2', 'datafile: volume%03d.raw 1 2 1'],
    ['data file: volume.raw', 'data file: volume.raw'],
    ['data file: ./volume.raw', 'data file: ./volume.raw'],
  ])('writes %j as %j', async (line, instead) => {
    const given = `NRRD0004\n${line}\nsizes: 1\n\n`;
    const wanted = `NRRD0004\n${instead}\nsizes: 1\n\n`;
    const isChanged = given !== wanted;
    const whole = await nrrd(given, { dataFile: renamed });
    expect([textOf(whole.head), whole.from]).toEqual(isChanged ? [wanted, given.length] : ['', 0]);
    for (const found of [
      await nrrd(`${given}Jane`, { dataFile: renamed }),
      await nrrd(given, { dataFile: renamed, whole: false }),
    ])
      expect([textOf(found.head), found.from]).toEqual([wanted, Number.POSITIVE_INFINITY]);
    // Without an empty line the header ends with the file.
    const open = await nrrd(`NRRD0004\n${line}\n`, { dataFile: renamed });
    expect(open.from).toBe(isChanged ? 10 + line.length : 0);
  });

  it('drops the names of a list', async () => {
    for (const list of ['LIST', 'list 2', 'List']) {
      const found = await nrrd(`NRRD0004\ndata file: ${list}\nJane1.raw\nJane2.raw\n`);
      expect([textOf(found.head), found.from]).toEqual([
        'NRRD0004\ndata file: LIST\n',
        Number.POSITIVE_INFINITY,
      ]);
    }
  });

  it.each(['data file: ', 'data file: LOCAL', 'data file: local'])(
    'keeps %j, and what follows',
    async (line) => {
      expect(await nrrd(`NRRD0004\n${line}\n\nvoxels`)).toEqual(nothing);
    },
  );
});
