import { describe, expect, it } from 'vitest';
import {
  dicomFile,
  type Elements,
  encodeElements,
  type FileForm,
  sliceElements,
  syntaxes,
} from '../../test/dicom-files.ts';
import { TomaatError } from '../errors.ts';
import { itemsOf, number, numbers, text, unsignedShort, word, words } from './dataset.ts';
import { isDicom, isDicomUnlikeText, parseDicom } from './parse.ts';

const explicit = { explicit: true, little: true, open: false };
const implicit = { ...explicit, explicit: false };
const parsed = (bytes: Uint8Array) => parseDicom(bytes)!;
const refusalOf = (run: () => unknown) => {
  try {
    run();
  } catch (error) {
    if (error instanceof TomaatError) return error;
    throw error;
  }
  throw new Error('it was taken');
};

/** A slice with sequences: standard, nested, private, and one whose VR is not stated. */
const elements: Elements = [
  [0x00080005, 'CS', 'ISO_IR 192'],
  [0x00080016, 'UI', '1.2.840.10008.5.1.4.1.1.4'],
  [0x00080018, 'UI', '1.2.3.4'],
  [0x00081140, 'SQ', [[[0x00081155, 'UI', '1.2.5']], [[0x00081155, 'UI', '1.2.6']]]],
  [0x00100010, 'PN', 'Müller^Jörg'],
  [0x00180088, 'DS', '2.5'],
  [0x00189219, 'SS', [-5]],
  [0x00190010, 'LO', 'A PRIVATE CREATOR'],
  [
    0x00191001,
    'SQ',
    [
      [
        [0x00200013, 'IS', '7'],
        [0x00081140, 'SQ', [[[0x00081155, 'UI', '1.2.7']]]],
      ],
    ],
  ],
  [0x00280010, 'US', [3]],
  [0x00280011, 'US', [4]],
  [0x7fe00010, 'OW', Buffer.from('000102030405060708090a0b', 'hex')],
];

describe('parseDicom()', () => {
  it.each([
    ['explicit', syntaxes.explicit],
    ['implicit', syntaxes.implicit],
    ['big endian', syntaxes.big],
  ])('reads %s, with sequences of defined and of undefined length', (_, syntax) => {
    for (const open of [false, true]) {
      const { dataset, transferSyntax, meta } = parsed(dicomFile(elements, { syntax, open }));
      expect(transferSyntax).toBe(syntax);
      expect(word(meta, 0x00020003)).toBe('1.2.3.4');
      expect([...dataset.keys()]).toEqual(elements.map(([tag]) => tag));
      expect(itemsOf(dataset, 0x00081140).map((item) => word(item, 0x00081155))).toEqual(['1.2.5', '1.2.6']);
      const [item] = itemsOf(dataset, 0x00191001);
      expect(number(item, 0x00200013)).toBe(7);
      expect(word(itemsOf(item, 0x00081140)[0], 0x00081155)).toBe('1.2.7');
      expect(text(dataset, 0x00100010)).toBe('Müller^Jörg');
      expect([unsignedShort(dataset, 0x00280010), number(dataset, 0x00189219, 'SS')]).toEqual([3, -5]);
      expect(dataset.get(0x7fe00010)).toMatchObject({ kind: 'value', statedBytes: 12 });
    }
  });

  it.each<[string, FileForm]>([
    ['without preamble', { preamble: false }],
    ['without meta information', { bare: true }],
    ['without meta information, implicit', { bare: true, syntax: syntaxes.implicit }],
    ['without meta information, big endian', { bare: true, syntax: syntaxes.big }],
  ])('reads a file %s', (_, form) => {
    const bytes = dicomFile(elements, form);
    expect(isDicom(bytes)).toBe(true);
    expect(parsed(bytes)).toMatchObject({ transferSyntax: form.syntax ?? syntaxes.explicit });
    expect(word(parsed(bytes).dataset, 0x00080018)).toBe('1.2.3.4');
  });

  it('reads sequences in UN as implicit little endian (CP-246), whatever the byte order', () => {
    const item: Elements = [
      [0x00081155, 'UI', '1.2.8'],
      [0x00280010, 'US', [515]],
    ];
    const content = encodeElements([[0x00091002, 'SQ', [item]]], implicit).subarray(8);
    const open = encodeElements([[0x00091002, 'SQ', [item]]], { ...implicit, open: true });
    for (const syntax of [syntaxes.explicit, syntaxes.big]) {
      const bytes = dicomFile([...elements.slice(0, 3), [0x00091002, 'UN', content], ...elements.slice(3)], {
        syntax,
      });
      const [found] = itemsOf(parsed(bytes).dataset, 0x00091002);
      expect([word(found, 0x00081155), unsignedShort(found, 0x00280010)]).toEqual(['1.2.8', 515]);
      expect(parsed(bytes).dataset.get(0x00091002)).toMatchObject({ implicitItems: true, vr: 'SQ' });
    }
    // UN of an undefined length: only its value ends it.
    const head = encodeElements([[0x00091002, 'UN', new Uint8Array(0)]], explicit).fill(0xff, 8, 12);
    const before = dicomFile(elements.slice(0, 3));
    const bytes = Buffer.concat([
      before,
      head,
      open.subarray(8),
      encodeElements(elements.slice(4), explicit),
    ]);
    expect(word(itemsOf(parsed(bytes).dataset, 0x00091002)[0], 0x00081155)).toBe('1.2.8');
    expect(text(parsed(bytes).dataset, 0x00100010)).toBe('Müller^Jörg');
  });

  it('gives a typed error, or asks for more, wherever the file is cut', () => {
    for (const syntax of [syntaxes.explicit, syntaxes.implicit, syntaxes.big])
      for (const open of [false, true]) {
        const whole = dicomFile(elements, { syntax, open });
        const pixels = whole.length - 12;
        for (let length = 0; length < whole.length; length++) {
          const start = whole.subarray(0, length);
          if (length < 132) {
            expect(refusalOf(() => parseDicom(start)).code).toMatch(/UNKNOWN_FORMAT|BAD_HEADER/);
            continue;
          }
          const beginning = parseDicom(start, { fileBytes: whole.length });
          expect(beginning === undefined).toBe(length < pixels);
          if (length > pixels)
            expect(parsed(start).dataset.get(0x7fe00010)).toMatchObject({ statedBytes: 12 });
          // At an element's end the file may end too: what is missing is missed later.
          else
            try {
              expect(parsed(start).dataset.has(0x7fe00010)).toBe(length === pixels);
            } catch (error) {
              expect(error).toBeInstanceOf(TomaatError);
            }
        }
      }
  });

  it('stops at the pixel data of a prefix, wherever the prefix ends', () => {
    const bytes = dicomFile(elements);
    const beginning = parseDicom(bytes.subarray(0, bytes.length - 3), { fileBytes: bytes.length + 1000 });
    expect(beginning?.dataset.get(0x7fe00010)).toMatchObject({ statedBytes: 12 });
    expect(word(beginning!.dataset, 0x00080018)).toBe('1.2.3.4');
  });

  it('refuses more levels than 32', () => {
    const nested = (levels: number): Elements =>
      levels === 0 ? [[0x00080018, 'UI', '1.2']] : [[0x00081140, 'SQ', [nested(levels - 1)]]];
    for (const open of [false, true]) {
      expect(parsed(dicomFile(nested(32), { open })).dataset.size).toBe(1);
      expect(refusalOf(() => parsed(dicomFile(nested(33), { open }))).message).toContain(
        'more than 32 levels',
      );
    }
  });

  it('refuses more than a million elements', () => {
    const item = Buffer.from('feff00e000000000', 'hex');
    const content = Buffer.concat(Array(1_000_001).fill(item));
    const bytes = dicomFile([
      [0x00080018, 'UI', '1.2'],
      [0x00081140, 'UN', content],
    ]);
    expect(refusalOf(() => parsed(bytes)).message).toContain('more than 1000000');
  });

  it.each<[what: string, bytes: () => Uint8Array, code: string, message: RegExp]>([
    [
      'a tag that occurs twice',
      () => dicomFile([...elements.slice(0, 2), elements[1]]),
      'BAD_HEADER',
      /SOPClassUID \(0008,0016\) occurs twice/,
    ],
    [
      'a VR that there is not',
      () => dicomFile([[0x00080018, 'ZZ', '1.2 ']]),
      'BAD_HEADER',
      /no valid value representation/,
    ],
    [
      'something that is no item',
      () =>
        dicomFile(
          [
            [0x00081140, 'SQ', []],
            [0x00081150, 'UI', '1.2'],
          ],
          { open: true },
        ).map((byte, i, all) => (i === all.length - 20 ? 0x11 : byte)),
      'BAD_HEADER',
      /./,
    ],
    [
      'text',
      () => new Uint8Array(Buffer.from('patient,volume\n1,2\n')),
      'UNKNOWN_FORMAT',
      /not a DICOM file/,
    ],
    ['nothing', () => new Uint8Array(0), 'UNKNOWN_FORMAT', /not a DICOM file/],
  ])('refuses %s', (_, bytes, code, message) => {
    const error = refusalOf(() => parsed(bytes()));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });

  it('reads fragments with their offset table, and refuses truncated ones', () => {
    const fragments = [
      Buffer.from('00000000', 'hex'),
      Buffer.from('ffd8ffd9', 'hex'),
      Buffer.from('aabb', 'hex'),
    ];
    const bytes = dicomFile([...elements.slice(0, 3), [0x7fe00010, 'OB', { fragments }]]);
    const element = parsed(bytes).dataset.get(0x7fe00010);
    expect(element).toMatchObject({ kind: 'fragments', offsets: Uint32Array.of(0) });
    expect(element?.kind === 'fragments' && element.fragments.map((one) => [...one])).toEqual([
      [0xff, 0xd8, 0xff, 0xd9],
      [0xaa, 0xbb],
    ]);
    expect(refusalOf(() => parsed(bytes.subarray(0, bytes.length - 9))).code).toBe('BAD_VOXELS');
  });
});

describe('numbers()', () => {
  const positions = (value: string) =>
    numbers(parsed(dicomFile(sliceElements({ more: { 2097202: ['DS', value] } }))).dataset, 0x00200032);

  it('reads decimal strings of every form, and their padding', () => {
    expect(positions('-1.5\\ +2e-3 \\.25')).toEqual([-1.5, 0.002, 0.25]);
    expect(positions('')).toBeUndefined();
  });

  it.each([
    'nan\\0\\0',
    'NaN',
    'inf\\0\\0',
    '-Infinity',
    '1e999',
    '0x10',
    '1,5\\0\\0',
    '--1',
    '1 2',
    '1\\\\2',
  ])('refuses %s', (value) => {
    const error = refusalOf(() => positions(value));
    expect(error.code).toBe('BAD_HEADER');
    expect(error.message).toContain('ImagePositionPatient (0020,0032)');
  });

  it('refuses floats that are not finite', () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const { dataset } = parsed(
        dicomFile([
          [0x00080018, 'UI', '1'],
          [0x00189087, 'FD', [value]],
        ]),
      );
      expect(refusalOf(() => number(dataset, 0x00189087)).code).toBe('BAD_HEADER');
    }
  });
});

describe('isDicomUnlikeText()', () => {
  it('accepts files that parseDicom() reads, but not text with DICM in place', () => {
    for (const form of [{}, { preamble: false }, { bare: true }, { bare: true, syntax: syntaxes.big }])
      expect(isDicomUnlikeText(dicomFile(elements, form).subarray(0, 256))).toBe(true);
    expect(isDicomUnlikeText(new Uint8Array(Buffer.from(`${'QUJD'.repeat(32)}DICMQUJD`)))).toBe(false);
  });

  it('words() are those between backslashes', () => {
    const { dataset } = parsed(dicomFile([[0x00080008, 'CS', 'ORIGINAL\\PRIMARY \\ M']]));
    expect(words(dataset, 0x00080008)).toEqual(['ORIGINAL', 'PRIMARY', 'M']);
  });
});
