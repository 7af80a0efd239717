import { describe, expect, it } from 'vitest';
import { type Kind, niftiFields, put, type Version } from './fixtures.ts';
import { findNifti } from './identifying-nifti.ts';

type Edits = Partial<Record<keyof (typeof niftiFields)[1], string | readonly number[]>>;

// A turn by 90° about z with z mirrored, spacing 2, 2.5 and 3: the qform and the sform say the same.
const base: Edits = {
  dim: [3, 4, 3, 2, 1, 1, 1, 1],
  datatype: [4],
  bitpix: [16],
  pixdim: [-1, 2, 2.5, 3, 1, 1, 1, 1],
  slope: [0.5],
  intercept: [-1024],
  units: [2 | 8],
  qformCode: [1],
  sformCode: [2],
  qform: [0, 0, Math.SQRT1_2, 5, -6, 7],
  sform: [0, -2.5, 0, 5, 2, 0, 0, -6, 0, 0, -3, 7],
};

/** The header with its extension flag, and `behind` after it. */
function nifti(version: Version, little: boolean, edits: Edits = {}, behind: readonly number[] = []) {
  const length = version === 1 ? 348 : 540;
  const bytes = new Uint8Array(length + 4 + behind.length);
  const defaults: Edits =
    version === 1 ? { magic: 'n+1\0', voxOffset: [352] } : { magic: 'n+2\0\r\n\x1a\n', voxOffset: [544] };
  put(bytes, 0, 'i32', little, [length]);
  for (const [name, held] of Object.entries({ ...defaults, ...base, ...edits })) {
    const [at, kind] = niftiFields[version][name as keyof Edits];
    put(bytes, at, kind, little, held);
  }
  bytes.set(behind, length + 4);
  return bytes;
}

function analyze(little: boolean) {
  const bytes = new Uint8Array(348);
  put(bytes, 0, 'i32', little, [348]);
  put(bytes, 40, 'i16', little, [3, 4, 3, 2, 1, 1, 1, 1]);
  put(bytes, 70, 'i16', little, [4, 16]);
  put(bytes, 76, 'f32', little, [0, 2, 2, 3, 1, 1, 1, 1]);
  put(bytes, 108, 'f32', little, [7, 0.5]);
  return bytes;
}

const forms: [Version, boolean][] = [
  [1, true],
  [1, false],
  [2, true],
  [2, false],
];
const nothing = { fields: [], from: 0 };
const text = (length: number) =>
  Array.from({ length }, (_, i) => String.fromCharCode(65 + (i % 58))).join('');
const letters = (words: string) => [...words].map((letter) => letter.charCodeAt(0));

type Held = readonly [name: string, at: number, kind: Kind, held: string | readonly number[]];
const unneeded1: Held[] = [
  ['data_type', 4, 'text', text(10)],
  ['db_name', 14, 'text', text(18)],
  ['extents', 32, 'i32', [-5]],
  ['session_error', 36, 'i16', [258]],
  ['regular', 38, 'text', 'Q'],
  ['dim_info', 39, 'u8', [200]],
  ['slice_start', 74, 'i16', [-2]],
  ['slice_end', 120, 'i16', [3]],
  ['slice_code', 122, 'u8', [4]],
  ['cal_max, cal_min', 124, 'f32', [1.5, -2.5]],
  ['slice_duration', 132, 'f32', [0.25]],
  ['toffset', 136, 'f32', [-8]],
  ['glmax, glmin', 140, 'i32', [7, -9]],
  ['descrip', 148, 'text', text(80)],
  ['aux_file', 228, 'text', text(24)],
  ['intent_name', 328, 'text', text(16)],
  ['intent_p1, intent_p2, intent_p3', 56, 'f32', [3.5, -1, 12]],
];
const unneeded2: Held[] = [
  ['cal_max, cal_min', 192, 'f64', [1.1, -2.5]],
  ['slice_duration', 208, 'f64', [0.25]],
  ['toffset', 216, 'f64', [-8]],
  ['slice_start, slice_end', 224, 'i64', [-2, 3]],
  ['descrip', 240, 'text', text(80)],
  ['aux_file', 320, 'text', text(24)],
  ['slice_code', 496, 'i32', [4]],
  ['intent_name', 508, 'text', text(16)],
  ['dim_info', 524, 'u8', [200]],
  ['unused_str', 525, 'text', text(15)],
  ['intent_p1, intent_p2, intent_p3', 80, 'f64', [3.5, -1, 12]],
];
const unneededAnalyze: Held[] = [
  ['data_type', 4, 'text', text(10)],
  ['db_name', 14, 'text', text(18)],
  ['extents', 32, 'i32', [-5]],
  ['session_error', 36, 'i16', [258]],
  ['regular', 38, 'text', 'Q'],
  ['hkey_un0', 39, 'text', 'Z'],
  ['vox_units, cal_units', 56, 'text', text(14)],
  ['dim_un0', 74, 'i16', [-2]],
  ['funused2, funused3', 116, 'f32', [1.5, -2.5]],
  ['cal_max, cal_min', 124, 'f32', [6.5, -3.5]],
  ['compressed, verified', 132, 'f32', [0.25, 9]],
  ['glmax, glmin', 140, 'i32', [7, -9]],
  ['descrip', 148, 'text', text(80)],
  ['aux_file', 228, 'text', text(24)],
  ['orient', 252, 'u8', [200]],
  ['originator, patient_id, dates', 253, 'text', text(63)],
  ['views … smin', 316, 'i32', [1, 2, 3, 4, 5, 6, 7, -8]],
];

describe('findNifti()', () => {
  it.each<[string, () => Uint8Array<ArrayBuffer>, boolean, Held[]]>([
    ['NIfTI-1', () => nifti(1, true), true, unneeded1],
    ['NIfTI-1, big-endian', () => nifti(1, false), false, unneeded1],
    ['NIfTI-2', () => nifti(2, true), true, unneeded2],
    ['NIfTI-2, big-endian', () => nifti(2, false), false, unneeded2],
    ['Analyze 7.5', () => analyze(true), true, unneededAnalyze],
    ['Analyze 7.5, big-endian', () => analyze(false), false, unneededAnalyze],
  ])('names and empties every unneeded field of %s', (what, make, little, rows) => {
    const given = make();
    for (const [, at, kind, held] of rows) put(given, at, kind, little, held);
    const found = findNifti(given, 'a.hdr');
    expect(found.fields).toEqual(
      rows.map(([name, , , held]) => ({ name, value: typeof held === 'string' ? held : held.join(', ') })),
    );
    const length = what.startsWith('NIfTI-2') ? 540 : 348;
    expect(found.head).toEqual(make().slice(0, length));
    expect(found.from).toBe(length);
    expect(findNifti(make(), 'a.hdr')).toEqual(nothing);
  });

  it('leaves blanks in texts, but no numbers of such bytes', () => {
    const given = nifti(1, true);
    put(given, 148, 'text', true, ' '.repeat(80));
    expect(findNifti(given, 'a.nii')).toEqual(nothing);
    put(given, 140, 'i32', true, [0x20202020]);
    expect(findNifti(given, 'a.nii').fields).toEqual([{ name: 'glmax, glmin', value: `${0x20202020}, 0` }]);
  });

  it.each([
    ['extents', 32, 'i32', [16384], undefined],
    ['extents', 32, 'i32', [16385], '16385'],
    ['regular', 38, 'text', 'r', undefined],
    ['regular', 38, 'text', 's', 's'],
    // Numbers whose bytes are printable may be a text: from the space to the tilde.
    ['extents', 32, 'i32', [0x417e2041], 'A ~A'],
    ['extents', 32, 'i32', [0x417f2041], String(0x417f2041)],
    ['extents', 32, 'i32', [0x411f2041], String(0x411f2041)],
  ] as const)('takes %s at %d, %s %j, for %s', (name, at, kind, held, value) => {
    const given = nifti(1, true);
    put(given, at, kind, true, held);
    expect(findNifti(given, 'a.nii').fields).toEqual(value === undefined ? [] : [{ name, value }]);
  });

  const parameters = 'intent_p1, intent_p2, intent_p3';
  const [qformName, sformName] = ['quatern_b … qoffset_z', 'srow_x, srow_y, srow_z'];
  const none12 = new Array<number>(12).fill(0);
  const moved = (rows: readonly number[], by: number, i = 3) => rows.map((v, k) => (k === i ? v + by : v));
  const { sform, qform } = base as { sform: number[]; qform: number[] };

  it.each<[what: string, edits: Edits, wanted: Edits, fields: [name: string, value: string][]]>([
    [
      'sizes and spacings of dimensions that are not there',
      { dim: [3, 4, 3, 2, 5, 6, 7, 8], pixdim: [-1, 2, 2.5, 3, 1.5, 0.25, -2, 9] },
      { dim: base.dim, pixdim: base.pixdim },
      [
        ['dim[4]', '5'],
        ['dim[5]', '6'],
        ['dim[6]', '7'],
        ['dim[7]', '8'],
        ['pixdim[4]', '1.5'],
        ['pixdim[5]', '0.25'],
        ['pixdim[6]', '-2'],
        ['pixdim[7]', '9'],
      ],
    ],
    [
      'zeros for dimensions that are not there',
      { dim: [3, 4, 3, 2], pixdim: [-1, 2, 2.5, 3, 0, 0, 0, 0] },
      {},
      [],
    ],
    [
      'all of seven dimensions',
      { dim: [7, 4, 3, 2, 5, 1, 1, 9], pixdim: [-1, 2, 2.5, 3, 4, 5, 6, 7] },
      {},
      [],
    ],
    [
      'one dimension',
      { dim: [1, 4, 3, 2, 5, 1, 1, 9] },
      { dim: [1, 4, 1, 1, 1, 1, 1, 1], pixdim: [-1, 2, 1, 1, 1, 1, 1, 1] },
      [
        ['dim[2]', '3'],
        ['dim[3]', '2'],
        ['dim[4]', '5'],
        ['dim[7]', '9'],
        ['pixdim[2]', '2.5'],
        ['pixdim[3]', '3'],
      ],
    ],
    ['no dimension', { dim: [0, 4, 3, 2, 5, 1, 1, 9] }, {}, []],
    ['a rank below 0', { dim: [-1, 4, 3, 2, 5, 1, 1, 9] }, {}, []],
    ['a rank above 7', { dim: [8, 4, 3, 2, 5, 1, 1, 9] }, {}, []],
    ['a qfac of 0', { pixdim: [0, 2, 2.5, 3, 1, 1, 1, 1] }, {}, []],
    ['a qfac of 1', { pixdim: [1, 2, 2.5, 3, 1, 1, 1, 1] }, {}, []],
    ['a qfac below -1', { pixdim: [-2, 2, 2.5, 3, 1, 1, 1, 1] }, {}, []],
    [
      'a positive qfac',
      { pixdim: [0.25, 2, 2.5, 3, 1, 1, 1, 1] },
      { pixdim: [1, 2, 2.5, 3, 1, 1, 1, 1] },
      [['pixdim[0]', '0.25']],
    ],
    ['bits of an unknown type', { datatype: [3], bitpix: [5] }, {}, []],
    ['an intercept with a slope', { slope: [1], intercept: [7] }, {}, []],
    [
      'an intercept without a slope',
      { slope: [0], intercept: [7] },
      { intercept: [0] },
      [['scl_inter', '7']],
    ],
    [
      'an intercept with a slope of NaN',
      { slope: [Number.NaN], intercept: [-3] },
      { intercept: [0] },
      [['scl_inter', '-3']],
    ],
    [
      'an intercept with an infinite slope',
      { slope: [Number.NEGATIVE_INFINITY], intercept: [-3] },
      { intercept: [0] },
      [['scl_inter', '-3']],
    ],
    ['an intercept of NaN without a slope', { slope: [0], intercept: [Number.NaN] }, {}, []],
    ['units of six bits', { units: [0x3f] }, {}, []],
    ['units of more bits', { units: [0x80 | 11] }, { units: [11] }, [['xyzt_units', '139']]],
    ['the last intent', { intent: [9999] }, {}, []],
    ['an intent above', { intent: [10_000] }, { intent: [0] }, [['intent_code', '10000']]],
    ['an intent below 0', { intent: [-1] }, { intent: [0] }, [['intent_code', '-1']]],
    ...[2, 3, 24, 1004, 1005].map((intent): [string, Edits, Edits, []] => [
      `parameters of intent ${intent}`,
      { intent: [intent], parameters: [3.5, -1, 12] },
      {},
      [],
    ]),
    ...[0, 1, 25, 1003, 1006].map((intent): [string, Edits, Edits, [string, string][]] => [
      `parameters of intent ${intent}`,
      { intent: [intent], parameters: [3.5, -1, 12] },
      { parameters: [0, 0, 0] },
      [[parameters, '3.5, -1, 12']],
    ]),
    ['the last codes of forms', { qformCode: [5], sformCode: [5] }, {}, []],
    [
      'codes of forms above',
      { qformCode: [6], sformCode: [6] },
      { qformCode: [0], sformCode: [0], qform: [0, 0, 0, 0, 0, 0], sform: none12 },
      [
        ['qform_code', '6'],
        ['sform_code', '6'],
        [sformName, sform.join(', ')],
        [qformName, `0, 0, 0.7071, 5, -6, 7`],
      ],
    ],
    ['a qform_code below 0', { qformCode: [-1] }, { qformCode: [0] }, [['qform_code', '-1']]],
    ['a sform_code below 0', { sformCode: [-1] }, { sformCode: [0] }, [['sform_code', '-1']]],
    ['an unset sform that says the same', { sformCode: [0] }, {}, []],
    ['an unset sform that is 0.005 mm off', { sformCode: [0], sform: moved(sform, 0.005) }, {}, []],
    [
      'an unset sform that is half a millimetre off',
      { sformCode: [0], sform: moved(sform, 0.5) },
      { sform: none12 },
      [[sformName, moved(sform, 0.5).join(', ')]],
    ],
    ['an unset qform that says the same', { qformCode: [0] }, {}, []],
    [
      'an unset qform that is half a millimetre off',
      { qformCode: [0], qform: moved(qform, 0.5) },
      { qform: [0, 0, 0, 0, 0, 0] },
      [[qformName, `0, 0, 0.7071, 5.5, -6, 7`]],
    ],
    [
      'an unset qform of the other handedness',
      { qformCode: [0], pixdim: [1, 2, 2.5, 3, 1, 1, 1, 1] },
      { qform: [0, 0, 0, 0, 0, 0] },
      [[qformName, `0, 0, 0.7071, 5, -6, 7`]],
    ],
    [
      'an unset qform with spacings below 0',
      { qformCode: [0], pixdim: [-1, -2, 2.5, -3, 1, 1, 1, 1] },
      {},
      [],
    ],
    [
      'an unset sform in micrometres, 5 µm off',
      { units: [3], sformCode: [0], sform: moved(sform, 5) },
      {},
      [],
    ],
    [
      'an unset sform in metres, 20 mm off',
      { units: [1], sformCode: [0], sform: moved(sform, 0.02) },
      { sform: none12 },
      [[sformName, '0, -2.5, 0, 5.02, 2, 0, 0, -6, 0, 0, -3, 7']],
    ],
    [
      'an unset qform in micrometres, 5 µm off',
      { units: [3], qformCode: [0], qform: moved(qform, 5) },
      {},
      [],
    ],
    [
      'forms that are not set, of an image that is refused',
      { dim: [2, 4, 3, 1, 1, 1, 1, 1], pixdim: [-1, 2, 2.5, 1, 1, 1, 1, 1], sformCode: [0], qformCode: [0] },
      { sform: none12, qform: [0, 0, 0, 0, 0, 0] },
      [
        [sformName, sform.join(', ')],
        [qformName, `0, 0, 0.7071, 5, -6, 7`],
      ],
    ],
  ])('treats %s in both versions and byte orders', (_what, edits, wanted, fields) => {
    for (const [version, little] of forms) {
      const given = nifti(version, little, edits);
      const length = version === 1 ? 348 : 540;
      const { fields: found, head, from } = findNifti(given, 'a.nii');
      expect(found.map(({ name }) => name)).toEqual(fields.map(([name]) => name));
      for (const [i, [, value]] of fields.entries()) {
        const [shown, numbers] = [found[i].value, value].map((list) => list.split(', ').map(Number));
        expect(shown).toHaveLength(numbers.length);
        // Float32 holds other digits of an irrational number.
        for (const [k, number] of numbers.entries()) expect(shown[k]).toBeCloseTo(number, 3);
      }
      expect(head ?? given.slice(0, length)).toEqual(
        nifti(version, little, { ...edits, ...wanted }).slice(0, length),
      );
      expect(from).toBe(fields.length > 0 ? length : 0);
    }
  });

  // nifti1.h: NIFTI_TYPE_*, and the bits of each.
  it.each([
    [1, 1],
    [2, 8],
    [4, 16],
    [8, 32],
    [16, 32],
    [32, 64],
    [64, 64],
    [128, 24],
    [256, 8],
    [512, 16],
    [768, 32],
    [1024, 64],
    [1280, 64],
    [1536, 128],
    [1792, 128],
    [2048, 256],
    [2304, 32],
  ])('corrects bitpix of datatype %d to %d', (datatype, bits) => {
    for (const [version, little] of forms) {
      const right = nifti(version, little, { datatype: [datatype], bitpix: [bits] });
      expect(findNifti(right, 'a.nii')).toEqual(nothing);
      const found = findNifti(nifti(version, little, { datatype: [datatype], bitpix: [bits + 1] }), 'a.nii');
      expect(found.fields).toEqual([{ name: 'bitpix', value: String(bits + 1) }]);
      expect(found.head).toEqual(right.slice(0, found.from));
    }
  });

  it('keeps an unset qform of a turn by 180°, unless not a rotation', () => {
    for (const axis of [0, 1, 2]) {
      const column = (k: number, v: number) => (k === axis ? v : -v);
      const sform = [column(0, 2), 0, 0, 5, 0, column(1, 2.5), 0, -6, 0, 0, column(2, 3), 7];
      const unset = (length: number) => ({
        sform,
        pixdim: [1, 2, 2.5, 3, 1, 1, 1, 1],
        qformCode: [0],
        qform: [...[0, 1, 2].map((k) => (k === axis ? length : 0)), 5, -6, 7],
      });
      for (const length of [1, -1])
        expect(findNifti(nifti(2, true, unset(length)), 'a.nii')).toEqual(nothing);
      for (const length of [1.01, -1.1]) {
        const { fields } = findNifti(nifti(2, true, unset(length)), 'a.nii');
        expect(fields.map(({ name }) => name)).toEqual([qformName]);
      }
    }
  });

  it.each([
    ['a.hdr', true],
    ['a.HDR.gz', true],
    ['a.nii', true],
    ['a.nii.gz', true],
    ['a.img', false],
    ['a.hdr.raw', false],
    ['ahdr', false],
    ['348', false],
  ])('looks into %s without a magic: %s', (name, isHeader) => {
    const given = analyze(true);
    given[252] = 1;
    expect(findNifti(given, name).fields).toHaveLength(isHeader ? 1 : 0);
    for (const [version, magics] of [
      [1, ['n+1', 'ni1', 'n+2', 'ni2']],
      [2, ['n+2', 'ni2', 'n+1', 'ni1']],
    ] as const) {
      for (const [i, magic] of magics.entries()) {
        const edits = { magic, voxOffset: [0] };
        const bytes = nifti(version, true, { ...edits, units: [0x40] });
        expect(findNifti(bytes, name).fields.some((field) => field.name === 'xyzt_units')).toBe(i < 2);
      }
    }
  });

  it('looks into whole headers of 348 and 540 bytes alone', () => {
    for (const [version, little] of forms) {
      const length = version === 1 ? 348 : 540;
      const given = nifti(version, little, { units: [0x40] });
      expect(findNifti(given.slice(0, length), 'a.nii').fields).toHaveLength(1);
      expect(findNifti(given.slice(0, length - 1), 'a.nii')).toEqual(nothing);
      put(given, 0, 'i32', little, [length + 1]);
      expect(findNifti(given, 'a.nii')).toEqual(nothing);
      const behind = new Uint8Array([9, 9, ...nifti(version, little, { units: [0x40] })]);
      expect(findNifti(behind.subarray(2), 'a.nii').fields).toHaveLength(1);
    }
    expect(findNifti(new Uint8Array(3), 'a.nii')).toEqual(nothing);
  });
});

describe('findNifti() between header and voxels', () => {
  /** A block as extensions are: its length, its kind (a comment), and text; then voxels. */
  const block = (little: boolean, words: string, length: number) => {
    const bytes = new Uint8Array(length);
    put(bytes, 0, 'i32', little, [length, 6]);
    bytes.set(letters(words), 8);
    return [...bytes];
  };
  const voxels = [7, 7, 7, 7];
  const named = (name: string, value: string) => [{ name, value }];

  it('drops extensions, and puts the voxels right after the header', () => {
    for (const [version, little] of forms) {
      const first = version === 1 ? 352 : 544;
      const given = nifti(version, little, { voxOffset: [first + 48], flag: [1] }, [
        ...block(little, 'Jane', 16),
        ...block(little, 'born 1960', 32),
        ...voxels,
      ]);
      const found = findNifti(given, 'a.nii');
      expect(found.fields[0].name).toBe('extension');
      expect(found.fields[0].value).toMatch(/^48 bytes: Jane .*born 1960$/);
      expect(found.head).toEqual(nifti(version, little));
      expect(found.from).toBe(first + 48);
    }
  });

  it('drops extensions that continue past the available bytes', () => {
    for (const [version, little] of forms) {
      const first = version === 1 ? 352 : 544;
      for (const [at, behind, value] of [
        [first + 1000, [], '1000 bytes'],
        [first + 1, [], '1 bytes'],
        [first + 1000, block(little, 'Jane', 16), '1000 bytes: Jane'],
      ] as const) {
        const given = nifti(version, little, { voxOffset: [at] }, behind);
        expect(findNifti(given, 'a.nii')).toEqual({
          fields: named('extension', value),
          head: nifti(version, little),
          from: at,
        });
      }
      // Nothing is missing but the flag.
      const short = nifti(version, little).slice(0, first - 2);
      expect(findNifti(short, 'a.nii')).toEqual(nothing);
    }
  });

  it('keeps zeros in the place of extensions', () => {
    for (const [version, little] of forms) {
      const at = version === 1 ? 384 : 576;
      const behind = [...new Array<number>(32).fill(0), ...voxels];
      expect(findNifti(nifti(version, little, { voxOffset: [at] }, behind), 'a.nii')).toEqual(nothing);
    }
  });

  it.each<[string, number[], string]>([
    ['numbers', [1, 0, 2, 31], '1, 0, 2, 31'],
    ['text', [0, 74, 97, 110], 'Jan'],
    ['one number', [1], '1, 0, 0, 0'],
  ])('empties an extension flag that holds %s', (_what, flag, value) => {
    for (const [version, little] of forms) {
      const first = version === 1 ? 352 : 544;
      for (const at of [first, 0]) {
        const given = nifti(version, little, { voxOffset: [at], flag }, voxels);
        expect(findNifti(given, 'a.nii')).toEqual({
          fields: named('extension flag', value),
          head: nifti(version, little, { voxOffset: [at] }),
          from: first,
        });
      }
    }
  });

  it('passes over offsets that cannot be', () => {
    for (const [version, at] of [
      [1, 352.5],
      [1, Number.NaN],
      [1, Number.POSITIVE_INFINITY],
      [1, 348],
      [1, -352],
      [2, 540],
      [2, -544],
    ] as const) {
      const given = nifti(version, true, { voxOffset: [at], flag: [1, 2, 3, 4] }, voxels);
      expect(findNifti(given, 'a.nii')).toEqual(nothing);
    }
    // One byte of room is room.
    const close = nifti(1, true, { voxOffset: [349], flag: [1] }, voxels);
    expect(findNifti(close, 'a.nii')).toEqual({
      fields: named('extension flag', '1'),
      head: nifti(1, true),
      from: 349,
    });
  });

  it('drops everything after the header of a pair, and keeps its offset', () => {
    for (const [version, little] of forms) {
      const magic = version === 1 ? 'ni1\0' : 'ni2\0';
      for (const at of [0, 64]) {
        const edits = { magic, voxOffset: [at] };
        const given = nifti(version, little, edits, block(little, 'Jane', 16));
        expect(findNifti(given, 'a.hdr')).toEqual({
          fields: named('extension', '16 bytes: Jane'),
          head: nifti(version, little, edits),
          from: Number.POSITIVE_INFINITY,
        });
        expect(findNifti(nifti(version, little, edits), 'a.hdr')).toEqual(nothing);
      }
    }
  });

  it('drops all that follows an Analyze header', () => {
    const given = new Uint8Array([...analyze(true), 0, 0, 0, 0, ...block(true, 'Jane', 16)]);
    expect(findNifti(given, 'a.hdr')).toEqual({
      fields: named('extension', '16 bytes: Jane'),
      head: new Uint8Array([...analyze(true), 0, 0, 0, 0]),
      from: Number.POSITIVE_INFINITY,
    });
  });
});
