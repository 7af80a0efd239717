import { describe, expect, it } from 'vitest';
import type { TomaatError } from '../errors.ts';
import type { NrrdGeometry } from './file-geometry.ts';
import { geometryLines, isListOfUnits, nrrdAffine, readAxes, readGeometry, words } from './nrrd-geometry.ts';
import { collectBytes, readVolume, sourceFromBytes, writeVolume } from './volume-file.ts';
import { webPlatform } from './web-platform.ts';

/* Affines in RAS+ mm of what headers state: worked out by hand from the definition of NRRD, 2 × 3 × 4 voxels. */

const voxels = Uint8Array.from({ length: 24 }, (_, i) => i);
const nrrd = (...lines: string[]) =>
  sourceFromBytes(
    'a.nrrd',
    new Uint8Array(
      Buffer.concat([
        Buffer.from(
          `NRRD0005\ntype: uchar\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n${lines.join('\n')}\n\n`,
        ),
        voxels,
      ]),
    ),
  );

async function expectAffine(lines: readonly string[], rows: readonly number[]) {
  const { volume, header } = await readVolume([nrrd(...lines)], webPlatform);
  expect(header.affine.slice(0, 12)).toEqual(rows.map((v) => expect.closeTo(v, 9)));
  // What is written of it states the same grid.
  const { geometry } = header;
  const bytes = await collectBytes(writeVolume(volume, 'nrrd', webPlatform, { geometry }));
  const back = (await readVolume([sourceFromBytes('b.nrrd', bytes)], webPlatform)).header;
  expect(back.affine.slice(0, 12)).toEqual(rows.map((v) => expect.closeTo(v, 9)));
}

describe('the space of an NRRD file', () => {
  const grid = ['space directions: (2,0.5,1) (0,3,-0.25) (0.125,0,4)', 'space origin: (5,6,7)'];
  const lps = [-2, 0, -0.125, -5, -0.5, -3, 0, -6, 1, -0.25, 4, 7];
  const signed = (x: 1 | -1, y: 1 | -1) => lps.map((v, i) => (i < 4 ? -x * v : i < 8 ? -y * v : v));

  it.each([
    ['nothing', [], lps],
    ['space dimension alone', ['space dimension: 3'], lps],
    ['left-posterior-superior', ['space: left-posterior-superior'], lps],
    ['LPS', ['space: LPS'], lps],
    ['scanner-xyz', ['space: scanner-xyz'], lps],
    ['3D-right-handed', ['space: 3D-right-handed'], lps],
    ['RAS', ['space: RAS'], signed(1, 1)],
    ['right-anterior-superior', ['space: right-anterior-superior'], signed(1, 1)],
    ['LAS', ['space: LAS'], signed(-1, 1)],
    ['left-anterior-superior', ['space: left-anterior-superior'], signed(-1, 1)],
  ] as const)('is LPS unless another is named: %s', async (_name, lines, rows) => {
    await expectAffine([...lines, ...grid], rows);
  });

  it('is LPS for spacings and axis mins as well', async () => {
    await expectAffine(
      ['spacings: 2 3 4', 'axis mins: 10 20 30', 'centers: node node node'],
      [-2, 0, 0, -10, 0, -3, 0, -20, 0, 0, 4, 30],
    );
  });

  it('puts the first voxel at 0 where no origin is stated', async () => {
    await expectAffine(['spacings: 2 3 4'], [-2, 0, 0, 0, 0, -3, 0, 0, 0, 0, 4, 0]);
    await expectAffine(
      ['space: RAS', 'space directions: (2,0,0) (0,3,0) (0,0,4)'],
      [2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4, 0],
    );
  });
});

describe('axis mins of an NRRD file', () => {
  // A cell begins half a spacing before its centre; a node is its centre.
  const cell = [10 + 1, 20 + 1.5, 30 + 2];
  const node = [10, 20, 30];
  it.each([
    ['', [cell[0], cell[1], cell[2]]],
    ['cell cell cell', [cell[0], cell[1], cell[2]]],
    ['node node node', [node[0], node[1], node[2]]],
    ['NODE node cell', [node[0], node[1], cell[2]]],
    ['cell node node', [cell[0], node[1], node[2]]],
    ['node cell node', [node[0], cell[1], node[2]]],
    ['??? none cell', [cell[0], cell[1], cell[2]]],
  ])('are edges of cells and centres of nodes: %s', async (centers, [x, y, z]) => {
    for (const field of ['centers', 'centerings']) {
      await expectAffine(
        ['spacings: 2 3 4', 'axis mins: 10 20 30', ...(centers ? [`${field}: ${centers}`] : [])],
        [-2, 0, 0, -x, 0, -3, 0, -y, 0, 0, 4, z],
      );
    }
  });

  it('go half a step the other way along an axis that runs backwards', async () => {
    await expectAffine(
      ['spacings: -2 3 -4', 'axis mins: 10 20 30', 'centers: cell node cell'],
      [2, 0, 0, -9, 0, -3, 0, -20, 0, 0, -4, 28],
    );
  });
});

describe('words()', () => {
  it('splits at blanks, and counts', () => {
    expect(words(' a  b\tc ', 3, 'kinds')).toEqual(['a', 'b', 'c']);
    expect(() => words('a b', 3, 'kinds')).toThrow(/"kinds" has 2 entries for 3 axes/);
  });
});

const fieldsOf = (fields: Record<string, string>) =>
  new Map(Object.entries(fields).map(([name, value]) => [name.replaceAll(' ', ''), value]));
const codeOf = (run: () => unknown) => {
  try {
    run();
  } catch (error) {
    return (error as TomaatError).code;
  }
  return 'read';
};

describe('readAxes()', () => {
  const roles = (dimension: number, fields: Record<string, string>) =>
    readAxes(fieldsOf(fields), dimension)
      .map(({ role }) => role[0])
      .join('');

  it.each([
    // s: space, f: frame, c: component.
    [3, {}, 'sss'],
    [4, {}, 'sssf'],
    [5, {}, 'sssff'],
    [3, { kinds: 'domain space ???' }, 'sss'],
    [3, { kinds: 'Domain SPACE domain' }, 'sss'],
    [4, { kinds: '??? ??? ??? ???' }, 'sssf'],
    [4, { kinds: 'domain domain domain domain' }, 'sssf'],
    [4, { kinds: 'vector domain domain domain' }, 'csss'],
    [4, { kinds: 'list domain domain domain' }, 'fsss'],
    [4, { kinds: 'time domain domain domain' }, 'fsss'],
    [4, { kinds: 'none domain domain domain' }, 'fsss'],
    [4, { kinds: 'domain domain domain RGB-color' }, 'sssc'],
    [4, { 'space directions': 'none (1,0,0) (0,1,0) (0,0,1)' }, 'csss'],
    [4, { 'space directions': '(1,0,0) (0,1,0) (0,0,1) none' }, 'sssf'],
    [4, { 'space directions': 'NONE(1,0,0)(0,1,0)(0,0,1)' }, 'csss'],
    [4, { 'space directions': '(nan,NaN,nan) ( 1, 0 ,0)\t(0,1,0)  (0,0,1)' }, 'csss'],
    [4, { 'space directions': '(1,0,0) none (0,1,0) (0,0,1)' }, 'sfss'],
    [4, { 'space directions': 'none (1,0,0) (0,1,0) (0,0,1)', kinds: '??? ??? ??? ???' }, 'csss'],
    [4, { 'space directions': 'none (1,0,0) (0,1,0) (0,0,1)', kinds: 'domain space space space' }, 'csss'],
    [4, { 'space directions': 'none (1,0,0) (0,1,0) (0,0,1)', kinds: 'list space space space' }, 'fsss'],
    [3, { 'space directions': '(1,0,0) (0,1,0) (0,0,1)', kinds: 'vector list none' }, 'sss'],
    [4, { 'space dimension': '4', 'space directions': '(0,0,0,1) (1,0,0,0) (0,1,0,0) (0,0,1,0)' }, 'fsss'],
  ] as [number, Record<string, string>, string][])(
    'of %i axes with %j are %s',
    (dimension, fields, expected) => {
      expect(roles(dimension, fields)).toBe(expected);
    },
  );

  it('keeps the directions of the axes of space', () => {
    const fields = {
      'space dimension': '4',
      'space directions': '(1,2,3,0) (0,0,0,9) (4,5,6,0) (7,8,-9e1,0)',
    };
    expect(readAxes(fieldsOf(fields), 4).map(({ direction }) => direction)).toEqual([
      [1, 2, 3],
      undefined,
      [4, 5, 6],
      [7, 8, -90],
    ]);
  });

  it.each([
    ['complex voxels', 4, { kinds: 'complex domain domain domain' }, 'UNSUPPORTED_FORMAT'],
    [
      'complex voxels without a direction',
      4,
      { kinds: 'complex space space space', 'space directions': 'none (1,0,0) (0,1,0) (0,0,1)' },
      'UNSUPPORTED_FORMAT',
    ],
    ['kinds of other axes', 3, { kinds: 'domain domain' }, 'BAD_HEADER'],
    ['two directions', 3, { 'space directions': '(1,0,0) (0,1,0)' }, 'BAD_HEADER'],
    ['a direction of two numbers', 3, { 'space directions': '(1,0) (0,1,0) (0,0,1)' }, 'BAD_HEADER'],
    ['a direction with a word', 3, { 'space directions': '(1,0,x) (0,1,0) (0,0,1)' }, 'BAD_HEADER'],
    ['a direction that is NaN in part', 3, { 'space directions': '(nan,0,0) (0,1,0) (0,0,1)' }, 'BAD_HEADER'],
    ['an open bracket', 3, { 'space directions': '(1,0,0) (0,1,0) (0,0,1' }, 'read'],
    ['words without brackets', 3, { 'space directions': '1,0,0 0,1,0 0,0,1' }, 'read'],
    [
      'time along x',
      3,
      { 'space dimension': '4', 'space directions': '(1,0,0,1) (0,1,0,0) (0,0,1,0)' },
      'UNSUPPORTED_FORMAT',
    ],
    [
      'time along y',
      3,
      { 'space dimension': '4', 'space directions': '(1,0,0,0) (0,1,0,1) (0,0,1,0)' },
      'UNSUPPORTED_FORMAT',
    ],
    [
      'time along z',
      3,
      { 'space dimension': '4', 'space directions': '(1,0,0,0) (0,1,0,0) (0,0,1,1)' },
      'UNSUPPORTED_FORMAT',
    ],
  ] as [string, number, Record<string, string>, string][])('with %s', (_what, dimension, fields, code) => {
    expect(codeOf(() => readAxes(fieldsOf(fields), dimension))).toBe(code);
  });
});

describe('readGeometry()', () => {
  const direct = { 'space directions': '(2,0,0) (0,3,0) (0,0,4)' };
  const stated = (fields: Record<string, string>, dimension = 3) => {
    const map = fieldsOf(fields);
    return readGeometry(map, readAxes(map, dimension)).geometry;
  };

  it.each([
    [{ space: 'left-posterior-superior', ...direct }, { space: 'left-posterior-superior' }],
    [{ space: 'RAS', 'space dimension': '3', ...direct }, { space: 'ras' }],
    [{ 'space dimension': '3', ...direct }, { space: 'dimension' }],
    [
      {
        space: 'scanner-xyz-time',
        'space dimension': '4',
        'space directions': '(2,0,0,0) (0,3,0,0) (0,0,4,0)',
      },
      { space: 'scanner-xyz' },
    ],
    [
      { ...direct, 'space origin': '(1,2,3)' },
      {
        directions: [
          [2, 0, 0],
          [0, 3, 0],
          [0, 0, 4],
        ],
        origin: [1, 2, 3],
      },
    ],
    [{ ...direct, 'space origin': '1, 2,3' }, { origin: [1, 2, 3] }],
    [{ ...direct, 'space units': '"mm" "um" "Centimetres"' }, { spaceUnits: ['mm', 'um', 'centimeters'] }],
    [{ ...direct, 'space units': '"cm"' }, { spaceUnits: ['cm', 'cm', 'cm'] }],
    [{ ...direct, 'space units': '"cm" "cm" "cm" "cm" "cm"' }, { spaceUnits: ['cm', 'cm', 'cm'] }],
    [{ ...direct, 'space units': '"mm" "mm" "parsec"' }, { spaceUnits: ['mm', 'mm', ''] }],
    [
      {
        space: 'RAST',
        'space directions': '(2,0,0,0) (0,3,0,0) (0,0,4,0)',
        'space units': '"mm" "cm" "um" "s"',
      },
      { spaceUnits: ['mm', 'cm', 'um'] },
    ],
    [
      { space: 'RAST', 'space directions': '(2,0,0,0) (0,3,0,0) (0,0,4,0)', 'space units': '"mm" "cm" "um"' },
      { spaceUnits: ['mm', 'cm', 'um'] },
    ],
    [{ spacings: '2 3 4' }, { spacings: [2, 3, 4] }],
    [{ spacings: '2 NaN -4' }, { spacings: [2, 1, -4] }],
    [
      { 'axis mins': '1 2 3', 'axis maxs': '4 5 6' },
      { axisMins: [1, 2, 3], axisMaxs: [4, 5, 6] },
    ],
    [{ centers: 'cell Node none', centerings: 'node node node' }, { centers: ['cell', 'node', '???'] }],
    [{ centerings: 'node cell node' }, { centers: ['node', 'cell', 'node'] }],
    [{ units: '"mm" "cm" "um"' }, { units: ['mm', 'cm', 'um'] }],
  ] as [Record<string, string>, object][])('of %j keeps what is stated', (fields, expected) => {
    expect(stated(fields)).toMatchObject(expected);
  });

  it.each([
    [{ ...direct, 'space units': 'mm mm mm' }, 'spaceUnits'],
    [{ ...direct, 'space units': '"mm' }, 'spaceUnits'],
    [{ ...direct, 'space units': '"parsec" "" "?"' }, 'spaceUnits'],
    [{ ...direct, spacings: '2 3 4' }, 'spacings'],
    [{ ...direct }, 'origin'],
    [{ ...direct }, 'space'],
    [{ 'axis mins': '1 nan 3' }, 'axisMins'],
    [{ spacings: '2 3 4', 'space origin': '(1,2,3)' }, 'origin'],
  ] as [Record<string, string>, string][])('of %j states no %s', (fields, key) => {
    expect(stated(fields)).not.toHaveProperty(key);
  });

  it('takes the entries of the axes of space', () => {
    const fields = {
      kinds: 'vector domain domain domain',
      spacings: 'nan 2 3 4',
      units: '"" "mm" "cm" "um"',
      'axis mins': 'nan 1 2 3',
    };
    expect(stated(fields, 4)).toEqual({
      format: 'nrrd',
      spacings: [2, 3, 4],
      axisMins: [1, 2, 3],
      units: ['mm', 'cm', 'um'],
    });
  });

  it.each([
    [{ space: 'here' }, 'UNSUPPORTED_FORMAT'],
    [{ space: 'RAS', 'space dimension': '4' }, 'UNSUPPORTED_FORMAT'],
    [{ space: 'RAST', 'space dimension': '3' }, 'UNSUPPORTED_FORMAT'],
    [{ space: 'RAST', 'space dimension': '4' }, 'read'],
    [{ 'space dimension': '2' }, 'UNSUPPORTED_FORMAT'],
    [{ 'space dimension': '5' }, 'UNSUPPORTED_FORMAT'],
    [{ spacings: '2 0 4' }, 'BAD_HEADER'],
    [{ spacings: '2 x 4' }, 'BAD_HEADER'],
    [{ spacings: '2 3' }, 'BAD_HEADER'],
    [{ centers: 'cell cell' }, 'BAD_HEADER'],
    [{ units: '"mm" "cm"' }, 'BAD_HEADER'],
    [{ units: '"mm" "cm" "mm" "mm"' }, 'BAD_HEADER'],
    [{ ...direct, 'space origin': '(1,2)' }, 'BAD_HEADER'],
    [{ ...direct, 'space origin': '(1,2,nan)' }, 'BAD_HEADER'],
    [{ 'space directions': '(2,0,0) (2,0,0) (0,0,4)' }, 'BAD_HEADER'],
  ] as [Record<string, string>, string][])('of %j gives %s', (fields, code) => {
    expect(codeOf(() => stated(fields))).toBe(code);
  });
});

describe('nrrdAffine()', () => {
  it.each([
    ['nm', 1e-6],
    ['nanometer', 1e-6],
    ['um', 1e-3],
    ['micron', 1e-3],
    ['micrometers', 1e-3],
    ['mm', 1],
    ['millimeter', 1],
    ['', 1],
    ['cm', 10],
    ['centimeters', 10],
    ['m', 1000],
    ['meter', 1000],
  ] as const)('counts "%s" as %d mm', (unit, mm) => {
    const units: NrrdGeometry['units'] = [unit, 'mm', unit];
    const expected = [-2 * mm, 0, 0, -mm, 0, -3, 0, -1.5, 0, 0, 4 * mm, 2 * mm];
    const near = expected.map((v) => expect.closeTo(v, 9));
    const grid = { format: 'nrrd' as const, spacings: [2, 3, 4], axisMins: [0, 0, 0] };
    expect(nrrdAffine({ ...grid, units }).slice(0, 12)).toEqual(near);
    // Units of the axes go before those of space, unless there are directions.
    expect(nrrdAffine({ ...grid, units, spaceUnits: ['cm', 'cm', 'cm'] }).slice(0, 12)).toEqual(near);
    expect(nrrdAffine({ ...grid, spaceUnits: units }).slice(0, 12)).toEqual(near);
    const directions = [
      [2, 0, 0],
      [0, 3, 0],
      [0, 0, 4],
    ];
    const direct = {
      format: 'nrrd' as const,
      directions,
      origin: [1, 1.5, 2],
      units: ['cm', 'cm', 'cm'] as NrrdGeometry['units'],
    };
    expect(nrrdAffine({ ...direct, spaceUnits: units }).slice(0, 12)).toEqual(near);
  });
});

describe('isListOfUnits()', () => {
  it.each([
    ['"mm" "um" "cm"', true],
    ['"" "s" "MS" "sec" "seconds"', true],
    ['"dimensionless" "pixel" "pixels" "???" "none"', true],
    [' "mm"  ', true],
    ['', true],
    ['"mm" "', false],
    ['mm', false],
    ['"mm" of someone', false],
    ['"of someone"', false],
    ['"mm" "minutes"', false],
  ])('of %j is %s', (text, expected) => {
    expect(isListOfUnits(text)).toBe(expected);
  });
});

describe('geometryLines()', () => {
  it('writes the axes of a header without directions', () => {
    const geometry: NrrdGeometry = {
      format: 'nrrd',
      space: 'dimension',
      spacings: [2, 3, 4],
      axisMins: [1, 2, 3],
      axisMaxs: [5, 6, 7],
      centers: ['cell', 'node', '???'],
      units: ['mm', 'cm', ''],
    };
    expect(geometryLines(geometry, false)).toEqual([
      'space dimension: 3',
      'spacings: 2 3 4',
      'axis mins: 1 2 3',
      'axis maxs: 5 6 7',
      'centers: cell node ???',
      'units: "mm" "cm" ""',
    ]);
    expect(geometryLines(geometry, true).slice(1)).toEqual([
      'spacings: nan 2 3 4',
      'axis mins: nan 1 2 3',
      'axis maxs: nan 5 6 7',
      'centers: ??? cell node ???',
      'units: "" "mm" "cm" ""',
    ]);
    expect(geometryLines({ format: 'nrrd' }, true)).toEqual([]);
  });

  it.each([
    ['ras', 'RAS'],
    ['lps', 'LPS'],
    ['3d-right-handed', '3D-right-handed'],
    ['left-anterior-superior', 'left-anterior-superior'],
    ['scanner-xyz', 'scanner-xyz'],
  ] as const)('spells %s as %s', (space, expected) => {
    expect(geometryLines({ format: 'nrrd', space }, false)).toEqual([`space: ${expected}`]);
  });
});
