import { describe, expect, it } from 'vitest';
import { canaryElement, holds, rows } from '../../test/canaries.ts';
import {
  dataset,
  dicomFile,
  fileBytes,
  image,
  latin,
  reparsed,
  sequence,
  value,
} from '../../test/deidentification-files.ts';
import type { DicomElement, DicomFile } from './dataset.ts';
import { type DeidentifyOptions, deidentify } from './deidentify.ts';
import { encodeDataset } from './encode.ts';
import { parseDicom } from './parse.ts';
import type { Tag } from './tags.ts';

const uidKey = new Uint8Array(32).fill(11);

/** What the Retain Patient Characteristics Option keeps, by hand. */
const characteristics: readonly Tag[] = [
  0x00100040, 0x00101010, 0x00101020, 0x00101030, 0x00102160, 0x001021a0, 0x001021c0, 0x00102203, 0x0072005f,
];

/** A value as UN: a sequence of implicit VR little endian (CP-246), else the same bytes. */
const asUnknown = (element: DicomElement): DicomElement =>
  element.kind === 'sequence' ? { ...element, implicitItems: true } : { ...element, vr: 'UN' };

const implicit = { explicit: false, littleEndian: true };

/** Where the canary sits. Each gives the file, which is written and parsed before it is de-identified. */
const places: Readonly<Record<string, (element: DicomElement) => DicomFile>> = {
  'at the top': (element) => dicomFile(image(element)),
  'in implicit VR': (element) => dicomFile(image(element), 'implicit'),
  'in big endian': (element) => dicomFile(image(element), 'bigEndian'),
  'as UN': (element) => dicomFile(image(asUnknown(element))),
  'two sequences deep': (element) => dicomFile(image(deep(element))),
  'two sequences deep in implicit VR': (element) => dicomFile(image(deep(element)), 'implicit'),
  'two sequences deep in a sequence as UN': (element) => dicomFile(image(asUnknown(deep(element)))),
  'in a private sequence': (element) =>
    dicomFile(image(value(0x00090010, 'LO', 'ACME 1'), sequence(0x00091001, [dataset(element)]))),
  'in a private element as bytes': (element) =>
    dicomFile(
      image(
        value(0x00090010, 'LO', 'ACME 1'),
        value(0x00091001, 'OB', Buffer.concat(encodeDataset(dataset(element), implicit))),
      ),
    ),
  'in the element of a safe creator': (element) =>
    dicomFile(
      image(
        value(0x70530010, 'LO', 'Philips PET Private Group'),
        value(0x70531000, 'UN', Buffer.concat(encodeDataset(dataset(element), implicit))),
      ),
    ),
};

/** SharedFunctionalGroupsSequence > RealWorldValueMappingSequence, beside an attribute that stays. */
const deep = (element: DicomElement): DicomElement =>
  sequence(0x52009229, [
    dataset(sequence(0x00409096, [dataset(value(0x00409224, 'FD', new Uint8Array(8)), element)])),
  ]);

function remaining(file: DicomFile, trace: string, options: Partial<DeidentifyOptions> = {}): boolean {
  const read = reparsed(file);
  const pixels = read.dataset.get(0x7fe00010);
  const cleaned = deidentify(read, { uidKey, ...options }).file;
  const out = fileBytes(cleaned);
  const after = reparsed(cleaned).dataset.get(0x7fe00010);
  expect(after).toEqual(pixels);
  return holds(out, trace);
}

describe('deidentify()', () => {
  it('knows every attribute of PS3.15 table E.1-1 and its VR', () => {
    expect(rows.length).toBe(617);
    // A value that the file itself calls unknown; it is removed with all that the dictionary lacks.
    expect(rows.filter(({ vr }) => vr === undefined).map(({ rule }) => rule.name)).toEqual([
      'Selector UN Value',
    ]);
  });

  it.each(Object.entries(places))('leaves none of the values of the table that stand %s', (_, place) => {
    const left: string[] = [];
    for (const { tag, rule, vr } of rows) {
      // Group 2 belongs in the file meta information; in a data set it is not readable.
      if (vr === undefined || Math.floor(tag / 65536) === 2) continue;
      const { element, trace } = canaryElement(tag, vr);
      if (remaining(place(element), trace)) left.push(rule.name);
    }
    expect(left).toEqual([]);
  });

  it('keeps nothing of the table but patient characteristics and times with both options', () => {
    const left: Tag[] = [];
    for (const { tag, vr } of rows) {
      if (vr === undefined || vr === 'TM' || Math.floor(tag / 65536) === 2) continue;
      const { element, trace } = canaryElement(tag, vr);
      const options = { keepPatientCharacteristics: true, shiftDates: true };
      if (remaining(dicomFile(image(element)), trace, options)) left.push(tag);
    }
    expect(left.sort((a, b) => a - b)).toEqual(characteristics);
  });

  it('writes file meta information and preamble again', () => {
    const meta = [
      value(0x00020003, 'UI', '1.2.276.0.98765432.17'),
      value(0x00020013, 'SH', 'CANARY7Q'),
      ...[0x00020016, 0x00020017, 0x00020018].map((tag) => value(tag, 'AE', 'CANARY7Q')),
      ...[0x00020026, 0x00020027, 0x00020028].map((tag) => value(tag, 'UR', 'CANARY7Q')),
      value(0x00020031, 'OB', 'CANARY7Q'),
      value(0x00020035, 'OB', 'CANARY7Q'),
      value(0x00020036, 'OB', 'CANARY7Q'),
      value(0x00020038, 'US', 'CANARY7Q'),
      value(0x00020100, 'UI', '1.2.276.0.98765432.17'),
      value(0x00020102, 'OB', 'CANARY7Q'),
    ];
    const bytes = fileBytes(dicomFile(image(), 'explicit', meta));
    bytes.set(latin('CANARY7Q'), 40);
    const file = parse(bytes);
    expect(file.meta.size).toBeGreaterThan(12);
    const out = fileBytes(deidentify(file, { uidKey }).file);
    expect(holds(out, 'CANARY7Q')).toBe(false);
    expect(holds(out, '98765432')).toBe(false);
    expect(out.subarray(0, 128).every((byte) => byte === 0)).toBe(true);
  });

  it.each([
    ['an overlay', value(0x60003000, 'OW', 'CANARY7Q')],
    ['the comment of an overlay', value(0x60064000, 'LT', 'CANARY7Q')],
    ['a curve', value(0x50003000, 'OW', 'CANARY7Q')],
    ['the axis units of a curve', value(0x50020030, 'SH', 'CANARY7Q')],
    ['what is beside the pixels', value(0x7fe00020, 'OW', 'CANARY7Q')],
    ['padding behind the pixels', value(0xfffcfffc, 'OB', 'CANARY7Q')],
    ['an attribute that PS3.6 lacks', value(0x00080fff, 'LO', 'CANARY7Q')],
    ['an attribute that PS3.6 lacks, as CS', value(0x00180fff, 'CS', 'CANARY7Q')],
    ['an unknown sequence', sequence(0x00080fff, [dataset(value(0x00080104, 'LO', 'CANARY7Q'))])],
    ['a group length', value(0x00100000, 'UL', 'CANARY7Q')],
    ['a private creator', value(0x00290010, 'LO', 'CANARY7Q')],
    ['a private element without a creator', value(0x00291010, 'LO', 'CANARY7Q')],
    ['an identifier without a row: birth date of another calendar', value(0x00100033, 'LO', 'CANARY7Q')],
    ['an order number without a row', value(0x00401006, 'SH', 'CANARY7Q')],
    ['a device number without a row', value(0x00181003, 'LO', 'CANARY7Q')],
    ['free text without a row', value(0x00700006, 'ST', 'CANARY7Q')],
    ['an address without a row', value(0x00081190, 'UR', 'CANARY7Q')],
    ['bytes without a row', value(0x00282000, 'OB', 'CANARY7Q')],
    ['a code string with small letters', value(0x00181140, 'CS', 'Canary7Q')],
    ['a code string of more than 16 characters', value(0x00181140, 'CS', 'CANARY7Q FOR MEYER')],
    ['a decimal string that is text', value(0x00180050, 'DS', 'CANARY7Q')],
    ['an integer string that is text', value(0x00200013, 'IS', 'CANARY7Q')],
    ['numbers whose bytes do not fit their VR', value(0x00189087, 'FD', 'CANARY7Q.')],
    ['a name where the dictionary has numbers', value(0x00189087, 'PN', 'CANARY7Q')],
    ['a name without a row', value(0x0040a067, 'PN', 'Canary^Meyer')],
    ['free text where the dictionary has a short text', value(0x00181210, 'LT', 'CANARY7Q')],
    ['bytes where the dictionary has a short text', value(0x00181210, 'OB', 'CANARY7Q')],
    ['a text where the dictionary has a sequence', value(0x00089215, 'LO', 'CANARY7Q')],
    [
      'a sequence where the dictionary has a text',
      sequence(0x00180024, [dataset(value(0x00080104, 'LO', 'CANARY7Q'))]),
    ],
    ['pixels of an icon', sequence(0x00089215, [dataset(value(0x7fe00010, 'OB', 'CANARY7Q'))])],
  ])('removes %s', (_, element: DicomElement) => {
    const original = reparsed(dicomFile(image(element)));
    const options = { uidKey, shiftDates: true, keepPatientCharacteristics: true };
    const text = (file: DicomFile) => Buffer.from(fileBytes(file)).toString('latin1');
    expect(text(original)).toMatch(/canary/i);
    expect(text(deidentify(original, options).file)).not.toMatch(/canary/i);
  });
});

const parse = (bytes: Uint8Array): DicomFile => {
  const file = parseDicom(bytes);
  if (!file) throw new Error('not parsed');
  return file;
};
