import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
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
import { type Dataset, type DicomElement, itemsOf, text, word, words } from './dataset.ts';
import { createDeidentifier, type DeidentifyOptions, deidentify } from './deidentify.ts';
import { encodeDicomFile } from './encode-file.ts';
import { tags } from './tags.ts';

const uidKey = new Uint8Array(32).fill(5);

const cleaned = (content: Dataset, options: Partial<DeidentifyOptions> = {}): Dataset =>
  reparsed(deidentify(reparsed(dicomFile(content)), { uidKey, ...options }).file).dataset;

const bytesOf = (content: Dataset, tag: number): Uint8Array | undefined => {
  const element = content.get(tag);
  return element?.kind === 'value' ? element.bytes : undefined;
};

describe('deidentify() of UIDs', () => {
  it('gives files of one series the same UIDs, each image a distinct one', () => {
    const run = createDeidentifier({ uidKey });
    const [a, b] = ['1.2.276.0.5.1', '1.2.276.0.5.2'].map(
      (uid) => run(dicomFile(image(value(tags.sopInstanceUid, 'UI', uid)))).file.dataset,
    );
    expect(word(a, tags.seriesInstanceUid)).toBe(word(b, tags.seriesInstanceUid));
    expect(word(a, tags.studyInstanceUid)).toBe(word(b, tags.studyInstanceUid));
    expect(word(a, tags.sopInstanceUid)).not.toBe(word(b, tags.sopInstanceUid));
    expect(word(a, tags.studyInstanceUid)).toMatch(/^2\.25\.[1-9]\d{30,38}$/);
  });

  it('gives a reference the UID that the image itself gets', () => {
    const reference = sequence(0x00081140, [dataset(value(0x00081155, 'UI', '1.2.276.0.5'))]);
    const result = cleaned(image(reference));
    expect(word(itemsOf(result, 0x00081140)[0], 0x00081155)).toBe(word(result, tags.sopInstanceUid));
  });

  it('keeps classes and well-known frames of reference, but not in instance UIDs', () => {
    const result = cleaned(
      image(
        value(tags.frameOfReferenceUid, 'UI', '1.2.840.10008.1.4.1.1\0'),
        value(tags.sopInstanceUid, 'UI', '1.2.840.10008.1.4.1.1\0'),
      ),
    );
    expect(word(result, tags.sopClassUid)).toBe('1.2.840.10008.5.1.4.1.1.4');
    expect(word(result, tags.frameOfReferenceUid)).toBe('1.2.840.10008.1.4.1.1');
    expect(word(result, tags.sopInstanceUid)).toMatch(/^2\.25\./);
    const long = cleaned(image(value(tags.frameOfReferenceUid, 'UI', '1.2.840.10008.19771103.1')));
    expect(word(long, tags.frameOfReferenceUid)).toMatch(/^2\.25\./);
  });

  it('replaces each of several values, and those of attributes without a row', () => {
    const result = cleaned(image(value(0x0008001a, 'UI', '1.2.276.0.5\\1.2.840.10008.5.1.4.1.1.4')));
    const [first, second] = words(result, 0x0008001a);
    expect(first).toBe(word(result, tags.sopInstanceUid));
    expect(second).toBe('1.2.840.10008.5.1.4.1.1.4');
  });

  it('states the replaced UID in the file meta information', () => {
    const { file } = deidentify(dicomFile(image()), { uidKey });
    const read = reparsed(file);
    expect(word(read.meta, tags.mediaStorageSopInstanceUid)).toBe(word(read.dataset, tags.sopInstanceUid));
    expect(word(read.meta, tags.mediaStorageSopClassUid)).toBe('1.2.840.10008.5.1.4.1.1.4');
    expect(read.transferSyntax).toBe('1.2.840.10008.1.2.1');
  });
});

const patient = [
  value(tags.patientName, 'PN', 'Meyer^Anna'),
  value(tags.patientId, 'LO', 'P-771103'),
  value(tags.patientBirthDate, 'DA', '19350704'),
  value(tags.patientSex, 'CS', 'F'),
  value(tags.patientWeight, 'DS', '71.25'),
  value(0x00101010, 'AS', '088Y'),
];

describe('deidentify() of the patient', () => {
  it('replaces name and number by one pseudonym per number', () => {
    const a = cleaned(image(...patient));
    const b = cleaned(image(...patient, value(tags.patientName, 'PN', 'MEYER^ANNA')));
    const c = cleaned(image(...patient, value(tags.patientId, 'LO', 'P-771104')));
    expect(word(a, tags.patientId)).toMatch(/^ANON-[A-Z2-9]{12}$/);
    expect(word(a, tags.patientName)).toBe(word(a, tags.patientId));
    expect(word(b, tags.patientId)).toBe(word(a, tags.patientId));
    expect(word(c, tags.patientId)).not.toBe(word(a, tags.patientId));
  });

  it('keeps sex, age and weight on request alone', () => {
    const without = cleaned(image(...patient));
    expect(without.has(tags.patientWeight)).toBe(false);
    expect(without.has(0x00101010)).toBe(false);
    expect(bytesOf(without, tags.patientSex)).toHaveLength(0);
    const kept = cleaned(image(...patient), { keepPatientCharacteristics: true });
    expect(word(kept, tags.patientWeight)).toBe('71.25');
    expect(word(kept, 0x00101010)).toBe('088Y');
    expect(word(kept, tags.patientSex)).toBe('F');
    expect(bytesOf(kept, tags.patientBirthDate)).toHaveLength(0);
  });

  it('treats attributes of the patient without a row as characteristics', () => {
    const content = image(value(0x00101022, 'DS', '24.75'));
    expect(cleaned(content).has(0x00101022)).toBe(false);
    expect(word(cleaned(content, { keepPatientCharacteristics: true }), 0x00101022)).toBe('24.75');
  });

  it('empties a kept text that holds a word of the name or number', () => {
    const named = (kernel: string, ...more: DicomElement[]) =>
      bytesOf(cleaned(image(...patient, ...more, value(0x00181210, 'SH', kernel))), 0x00181210);
    expect(named('STANDARD')).toEqual(latin('STANDARD'));
    expect(named('for MEYER A.')).toHaveLength(0);
    expect(named('xx771103')).toHaveLength(0);
    // Four letters within a longer word are chance: Anna in Hannah.
    expect(named('Hannah')).toEqual(latin('Hannah'));
    const deep = sequence(0x52009229, [dataset(value(0x0040a123, 'PN', 'Winterberg^Ute'))]);
    expect(named('Winterberg', deep)).toHaveLength(0);
    const maker = cleaned(image(...patient, value(tags.manufacturer, 'LO', 'Meyer & Co')));
    expect(text(maker, tags.manufacturer)).toBe('Meyer & Co');
  });

  it('empties all such texts of a file with more than 1000 words of names', () => {
    const names = (count: number) =>
      sequence(
        0x52009230,
        Array.from({ length: count }, (_, i) =>
          dataset(value(0x0040a123, 'PN', `Name${i}`), value(0x00189087, 'FD', new Uint8Array(8))),
        ),
      );
    const kernel = value(0x00181210, 'SH', 'STANDARD');
    expect(word(cleaned(image(names(1000), kernel)), 0x00181210)).toBe('STANDARD');
    expect(word(cleaned(image(names(1001), kernel)), 0x00181210)).toBe(undefined);
  });

  it('finds the words in the character set of the file', () => {
    const japanese = Uint8Array.from([0x1b, 0x24, 0x42, 0x3b, 0x33, 0x45, 0x44, 0x1b, 0x28, 0x42]); // 山田
    const content = image(
      value(tags.specificCharacterSet, 'CS', '\\ISO 2022 IR 87'),
      value(tags.patientName, 'PN', Uint8Array.of(...latin('X^Y='), ...japanese)),
      value(0x00181210, 'SH', japanese),
    );
    expect(bytesOf(cleaned(content), 0x00181210)).toHaveLength(0);
  });
});

const dates = [
  ...patient,
  value(tags.studyDate, 'DA', '20200229'),
  value(tags.studyTime, 'TM', '235959.5 '),
  value(tags.contentDate, 'DA', '20200301'),
  value(0x00181078, 'DT', '20200229101500.250000+0100'),
  value(0x00080201, 'SH', '+0100 '),
];
const day = (date: string) => Date.UTC(+date.slice(0, 4), +date.slice(4, 6) - 1, +date.slice(6, 8)) / 864e5;

describe('deidentify() of dates', () => {
  it('shifts all dates of a patient equally and keeps times', () => {
    const result = cleaned(image(...dates), { shiftDates: true });
    const shift = day('20200229') - day(word(result, tags.studyDate)!);
    expect(shift).toBeGreaterThanOrEqual(1);
    expect(shift).toBeLessThanOrEqual(3650);
    expect(day('20200301') - day(word(result, tags.contentDate)!)).toBe(shift);
    const start = word(result, 0x00181078)!;
    expect(day('20200229') - day(start)).toBe(shift);
    expect(start.slice(8)).toBe('101500.250000+0100');
    expect(word(result, tags.studyTime)).toBe('235959.5');
    expect(word(result, 0x00080201)).toBe('+0100');
    expect(bytesOf(result, tags.patientBirthDate)).toHaveLength(0);
    const other = cleaned(image(...patient, value(0x00080021, 'DA', '20200229')), { shiftDates: true });
    expect(word(other, 0x00080021)).toBe(word(result, tags.studyDate));
  });

  it('moves those of other patients by other days', () => {
    const shifts = ['P-1', 'P-2', 'P-3', 'P-4'].map((id) => {
      const content = image(value(tags.patientId, 'LO', id), value(tags.studyDate, 'DA', '20200229'));
      return day('20200229') - day(word(cleaned(content, { shiftDates: true }), tags.studyDate)!);
    });
    expect(new Set(shifts).size).toBe(4);
  });

  it('removes, empties or replaces them without the option', () => {
    const result = cleaned(image(...dates));
    expect(bytesOf(result, tags.studyDate)).toHaveLength(0);
    expect(bytesOf(result, tags.studyTime)).toHaveLength(0);
    expect(word(result, tags.contentDate)).toBe('19000101');
    expect(result.has(0x00181078)).toBe(false);
    expect(result.has(0x00080201)).toBe(false);
  });

  it.each([
    ['an incomplete date', '202002'],
    ['a day that the calendar lacks', '20200230'],
    ['a month that the calendar lacks', '20201301'],
    ['month zero', '20200001'],
    ['text', 'yesterday'],
    ['a range', '20200101-20200201'],
  ])('does not keep %s', (_, date) => {
    const result = cleaned(image(...patient, value(tags.studyDate, 'DA', date)), { shiftDates: true });
    expect(bytesOf(result, tags.studyDate)).toHaveLength(0);
    const required = cleaned(image(...patient, value(tags.contentDate, 'DA', date)), { shiftDates: true });
    expect(word(required, tags.contentDate)).toBe('19000101');
  });

  it('shifts old-style and multiple dates, and empties times that are text', () => {
    const result = cleaned(
      image(
        ...patient,
        value(tags.studyDate, 'DA', '20200229'),
        value(0x00080021, 'DA', '2020.02.29'),
        value(0x00181200, 'DA', '20200229\\20200301'),
        value(0x00181201, 'TM', '101500\\noon'),
      ),
      { shiftDates: true },
    );
    const moved = word(result, tags.studyDate);
    expect(word(result, 0x00080021)).toBe(moved);
    expect(words(result, 0x00181200)[0]).toBe(moved);
    expect(bytesOf(result, 0x00181201)).not.toEqual(latin('101500\\noon'));
  });
});

const block = (creator: string, ...elements: DicomElement[]) => [
  value(0x20050011, 'LO', creator),
  ...elements,
];
const slope = value(0x2005110e, 'FL', Uint8Array.of(0, 0, 0x80, 0x3f));

describe('deidentify() of private elements', () => {
  it('keeps safe ones with the creator of their block, in any block', () => {
    const other = value(0x20051199, 'LO', 'Canary');
    const result = cleaned(image(...block('Philips MR Imaging DD 001', slope, other)));
    expect(bytesOf(result, 0x2005110e)).toEqual(Uint8Array.of(0, 0, 0x80, 0x3f));
    expect(word(result, 0x20050011)).toBe('Philips MR Imaging DD 001');
    expect(result.has(0x20051199)).toBe(false);
  });

  it('removes a known number of another creator or block, or if not numeric', () => {
    expect(cleaned(image(...block('ACME', slope))).has(0x2005110e)).toBe(false);
    expect(
      cleaned(image(...block('Philips MR Imaging DD 001'), { ...slope, tag: 0x2005120e })).has(0x2005120e),
    ).toBe(false);
    const long = value(0x2005110e, 'FL', new Uint8Array(8));
    expect(cleaned(image(...block('Philips MR Imaging DD 001', long))).has(0x20050011)).toBe(false);
    const written = [value(0x70530010, 'LO', 'Philips PET Private Group'), value(0x70531000, 'DS', 'Meyer ')];
    expect(cleaned(image(...written)).has(0x70531000)).toBe(false);
    const suv = [value(0x70530010, 'LO', 'Philips PET Private Group'), value(0x70531000, 'UN', '0.000276')];
    expect(word(cleaned(image(...suv)), 0x70531000)).toBe('0.000276');
  });
});

describe('deidentify() of sequences', () => {
  it('keeps items in place and removes a sequence that becomes empty', () => {
    const frame = (...elements: DicomElement[]) => dataset(...elements);
    const comment = value(0x00204000, 'LT', 'Meyer');
    const result = cleaned(
      image(
        sequence(0x52009230, [frame(comment), frame(comment, value(0x00189087, 'FD', new Uint8Array(8)))]),
        sequence(0x52009229, [frame(comment)]),
      ),
    );
    expect(itemsOf(result, 0x52009230).map(({ size }) => size)).toEqual([0, 1]);
    expect(result.has(0x52009229)).toBe(false);
  });

  it('keeps sequences that were empty, but for those that are removed anyway', () => {
    const result = cleaned(
      image(
        sequence(0x00081111, []),
        sequence(0x00081110, []),
        sequence(0x00081115, []),
        sequence(0x00081084, []),
      ),
    );
    expect([0x00081111, 0x00081110, 0x00081115, 0x00081084].map((tag) => result.has(tag))).toEqual([
      true,
      true,
      true,
      false,
    ]);
  });

  it('empties the acquisition context, which must stay, and removes other emptied sequences', () => {
    const item = [dataset(value(0x00081155, 'UI', '1.2.276.0.9'))];
    const result = cleaned(
      image(sequence(0x00400555, item), sequence(0x00081110, item), sequence(0x00081111, item)),
    );
    expect(result.get(0x00400555)).toMatchObject({ kind: 'sequence', items: [] });
    expect(result.has(0x00081110)).toBe(false);
    expect(result.has(0x00081111)).toBe(false);
  });
});

describe('deidentify()', () => {
  it('keeps what an image needs, byte for byte', () => {
    const kept = [
      value(0x00080008, 'CS', 'ORIGINAL\\PRIMARY'),
      value(0x00200032, 'DS', '-1.5\\2e-3\\ 1'),
      value(0x00200037, 'DS', '1\\0\\0\\0\\1\\0 '),
      value(0x00280030, 'DS', '0.0000123456789012345678901\\.5'),
      value(0x00180050, 'DS', '1.E+00'),
      value(0x00281052, 'DS', '-1024 '),
      value(0x00080070, 'LO', 'ACME'),
    ];
    const result = cleaned(image(...kept));
    for (const element of kept) expect(result.get(element.tag)).toEqual(element);
  });

  it('keeps codes of all three kinds, but no address in place of a code', () => {
    const code = (...elements: DicomElement[]) => sequence(0x00082218, [dataset(...elements)]);
    const kept = [
      [value(0x00080100, 'SH', 'T-A0100 '), value(0x00080104, 'LO', 'Brain ')],
      [value(0x00080119, 'UC', 'a code of more than 16 letters')],
      [value(0x00080120, 'UR', 'urn:oid:2.16.840.1')],
      [value(0x00080120, 'UR', 'urn:lex:us:federal')],
      [value(0x0008010c, 'UI', '2.16.840.1.113883.6.96')],
    ];
    for (const elements of kept)
      expect(itemsOf(cleaned(image(code(...elements))), 0x00082218)).toEqual([dataset(...elements)]);
    for (const address of ['http://pacs/meyer ', 'urn:uuid:meyer', 'urn:oid:meyer ', 'urn:oid:1\\urn:oid:2 '])
      expect(cleaned(image(code(value(0x00080120, 'UR', address)))).has(0x00082218)).toBe(false);
    const patients = value(0x00080119, 'UC', 'Code of Meyer');
    expect(cleaned(image(...patient, code(patients))).has(0x00082218)).toBe(false);
  });

  it('takes only the values out that lack the form of their VR', () => {
    const result = cleaned(image(value(0x00080008, 'CS', 'ORIGINAL\\PRIMARY\\Meyer\\OTHER')));
    expect(words(result, 0x00080008)).toEqual(['ORIGINAL', 'PRIMARY', '', 'OTHER']);
  });

  it('keeps compressed pixels, their table and the transfer syntax', () => {
    const pixels: DicomElement = {
      kind: 'fragments',
      tag: 0x7fe00010,
      vr: 'OB',
      offsets: Uint32Array.of(0, 10),
      fragments: [Uint8Array.of(1, 2), Uint8Array.of(3, 4, 5, 6)],
    };
    const file = { ...dicomFile(image(pixels)), transferSyntax: '1.2.840.10008.1.2.5' };
    const read = reparsed(deidentify(file, { uidKey }).file);
    expect(read.dataset.get(0x7fe00010)).toEqual(pixels);
    expect(read.transferSyntax).toBe('1.2.840.10008.1.2.5');
  });

  it('writes a deflated file without deflating it', () => {
    const file = { ...dicomFile(image()), transferSyntax: '1.2.840.10008.1.2.1.99' };
    expect(reparsed(deidentify(file, { uidKey }).file).transferSyntax).toBe('1.2.840.10008.1.2.1');
  });

  it('writes what was done, once, whatever stood there', () => {
    const options = { uidKey, shiftDates: true, keepPatientCharacteristics: true };
    const claims = image(
      value(0x00120062, 'CS', 'NO'),
      value(0x00120063, 'LO', 'by Dr. Meyer'),
      sequence(0x00120064, [dataset(value(0x00080100, 'SH', '113101'))]),
      value(0x00280303, 'CS', 'UNMODIFIED'),
    );
    const once = deidentify(dicomFile(claims), options).file;
    const twice = deidentify(once, options).file.dataset;
    for (const result of [once.dataset, twice]) {
      expect(word(result, 0x00120062)).toBe('YES');
      expect(word(result, 0x00120063)).toBe('PS3.15 E Basic Profile by TOMAAT');
      expect(itemsOf(result, 0x00120064).map((item) => word(item, 0x00080100))).toEqual([
        '113100',
        '113107',
        '113108',
        '113111',
      ]);
      expect(itemsOf(result, 0x00120064).map((item) => word(item, 0x00080102))).toEqual([
        'DCM',
        'DCM',
        'DCM',
        'DCM',
      ]);
      expect(word(result, 0x00280303)).toBe('MODIFIED');
    }
    const basic = cleaned(claims);
    expect(itemsOf(basic, 0x00120064).map((item) => word(item, 0x00080100))).toEqual(['113100', '113111']);
    expect(word(basic, 0x00280303)).toBe('REMOVED');
  });

  it('reports what was removed, replaced and kept, with the text for its owner', () => {
    const { report } = deidentify(
      reparsed(
        dicomFile(
          image(
            ...patient,
            value(0x00100032, 'TM', ''),
            value(0x00120063, 'LO', 'by Dr. Meyer'),
            value(0x00290010, 'LO', 'ACME'),
            value(0x00291010, 'LO', 'x '),
            sequence(0x52009229, [dataset(value(tags.patientName, 'PN', 'Meyer^A '))]),
          ),
        ),
      ),
      { uidKey },
    );
    const of = (tag: number) => report.attributes.filter((attribute) => attribute.tag === tag);
    expect(of(tags.patientName)).toEqual([
      { tag: tags.patientName, name: "Patient's Name", outcome: 'replaced', count: 2, value: 'Meyer^Anna' },
    ]);
    expect(of(tags.patientWeight)).toMatchObject([{ outcome: 'removed', value: '71.25' }]);
    expect(of(tags.patientSex)).toMatchObject([{ outcome: 'removed', value: 'F' }]);
    expect(of(tags.modality)).toMatchObject([{ outcome: 'kept', name: 'Modality (0008,0060)', value: 'MR' }]);
    expect(of(0x00100032)).toEqual([]);
    expect(of(0x00120063)).toEqual([]);
    expect(report.privateElements).toEqual({ removed: 2, kept: 0 });
    // Name twice, number, and the UIDs of image, study and series; birth date, sex, weight, age.
    expect(report.counts).toMatchObject({ replaced: 6, removed: 4 });
  });

  it('refuses truncated pixels, DICOMDIR, unknown transfer syntaxes and an invalid key', () => {
    const { bytes, ...cut } = value(0x7fe00010, 'OW', new Uint8Array(4));
    const short = dicomFile(image({ ...cut, bytes, statedBytes: 12 }));
    expect(() => deidentify(short, { uidKey })).toThrow(expect.objectContaining({ code: 'BAD_VOXELS' }));
    const directory = dicomFile(dataset(value(0x00041130, 'CS', 'MEYER')), 'explicit', [
      value(0x00020002, 'UI', '1.2.840.10008.1.3.10'),
    ]);
    expect(() => deidentify(directory, { uidKey })).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED_FORMAT' }),
    );
    const syntax = { ...dicomFile(image()), transferSyntax: '1.2.276.0.98765432.17' };
    expect(() => deidentify(syntax, { uidKey })).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED_FORMAT' }),
    );
    expect(() => deidentify(dicomFile(image()), { uidKey: new Uint8Array(16) })).toThrow(
      expect.objectContaining({ code: 'BAD_INPUT' }),
    );
  });

  const leaf = fc.constantFrom(
    ...dates,
    value(0x00181030, 'LO', 'T1 Meyer'),
    value(0x00181210, 'SH', 'UB'),
    value(0x00080008, 'CS', 'ORIGINAL\\small\\AXIAL '),
    value(0x00290010, 'LO', 'ACME'),
    value(0x00291010, 'LO', 'x '),
    value(0x00700081, 'LO', 'Meyer '),
    value(0x00280030, 'DS', '1\\2 '),
  );
  const { content } = fc.letrec<{ content: Dataset; element: DicomElement }>((tie) => ({
    element: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      leaf,
      fc
        .tuple(
          fc.constantFrom(0x52009229, 0x00409096, 0x00081110, 0x00081140),
          fc.array(tie('content'), { maxLength: 3 }),
        )
        .map(([tag, items]) => sequence(tag, items)),
    ),
    content: fc.array(tie('element'), { maxLength: 8 }).map((elements) => dataset(...elements)),
  }));

  it('changes nothing but UIDs the second time', () => {
    const withoutUids = (given: Dataset): unknown[] =>
      [...given]
        .filter(([, element]) => element.vr !== 'UI')
        .map(([tag, element]) =>
          element.kind === 'sequence' ? [tag, element.items.map(withoutUids)] : [tag, element],
        );
    fc.assert(
      fc.property(content, fc.boolean(), fc.boolean(), (given, shiftDates, keepPatientCharacteristics) => {
        const options = { uidKey, shiftDates, keepPatientCharacteristics };
        const once = deidentify(reparsed(dicomFile(image(...patient, ...given.values()))), options).file;
        const twice = deidentify(reparsed(once), options).file;
        expect(withoutUids(reparsed(twice).dataset)).toEqual(withoutUids(reparsed(once).dataset));
        expect(Buffer.from(fileBytes(once)).toString('latin1')).not.toMatch(/meyer|771103|19350704/i);
      }),
      { numRuns: 300 },
    );
  });

  it('takes at most 2 s of CPU for 300 files of 512 kB', () => {
    const slices = Array.from({ length: 300 }, (_, i) =>
      reparsed(
        dicomFile(
          image(
            ...dates,
            value(tags.sopInstanceUid, 'UI', `1.2.276.0.5.${i + 10}`),
            ...block('ACME', ...Array.from({ length: 120 }, (__, n) => value(0x20051100 + n, 'LO', 'text'))),
            value(0x7fe00010, 'OW', new Uint8Array(512 * 1024)),
          ),
        ),
      ),
    );
    const before = process.cpuUsage();
    const run = createDeidentifier({ uidKey, shiftDates: true });
    for (const slice of slices) encodeDicomFile(run(slice).file);
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1e6).toBeLessThan(2);
  });
});
