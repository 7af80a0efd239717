import { TomaatError } from '@tomaat/core';
import type { Dataset, DicomElement, DicomFile } from '../../packages/core/src/dicom/dataset.ts';
import { deidentify } from '../../packages/core/src/dicom/deidentify.ts';
import { representationOf } from '../../packages/core/src/dicom/dictionary.ts';
import { encodeDicomFile } from '../../packages/core/src/dicom/encode-file.ts';
import { parseDicom } from '../../packages/core/src/dicom/parse.ts';
import {
  dataset,
  dicomFile,
  fileBytes,
  image,
  sequence,
  value,
} from '../../packages/core/test/deidentification-files.ts';
import { bytesOf, equal, must, type Target, textOf } from '../target.ts';

const uidKey = new Uint8Array(32).fill(1);

/** Stands for identifying values: a text that no input contains and no rule produces. */
const canary = 'Qz7Canary';
/**
 * Value representations that never say how an image was made, dates and times among them: 1977, and in the afternoon.
 */
const identifying: Readonly<Record<string, string>> = {
  PN: `${canary}^`,
  LT: `${canary} `,
  ST: `${canary} `,
  UT: `${canary} `,
  AE: `${canary} `,
  UI: '1.2.276.77441199.8',
  DA: '19771103',
  DT: '19771103121314',
};
const traces = [canary, '77441199', '19771103'];

/** The file with canaries in everything that identifies, at any depth, including private elements of every kind. */
function planted(content: Dataset, isPrivate = false): Dataset {
  return new Map(
    [...content].map(([tag, element]) => {
      const inside = isPrivate || Math.floor(tag / 65536) % 2 === 1;
      return [tag, plantedElement(element, inside)];
    }),
  );
}

function plantedElement(element: DicomElement, isPrivate: boolean): DicomElement {
  if (element.kind === 'sequence')
    return { ...element, items: element.items.map((item) => planted(item, isPrivate)) };
  if (element.kind === 'fragments' || (element.tag & 0xffff) === 0) return element;
  const text = isPrivate ? canary : identifying[representationOf(element.tag) ?? element.vr ?? ''];
  if (text === undefined || element.bytes.length === 0) return element;
  const bytes = bytesOf(text);
  return { ...element, bytes, statedBytes: bytes.length };
}

const written = (file: DicomFile) => new Uint8Array(Buffer.concat(encodeDicomFile(file)));

function readAgain(bytes: Uint8Array): DicomFile {
  try {
    const file = parseDicom(bytes);
    must(file !== undefined, 'the result is a whole file');
    return file;
  } catch (error) {
    if (!(error instanceof TomaatError)) throw error;
    throw new Error(`broken promise: the result is read again: ${error.message}`);
  }
}

const pixelsOf = ({ dataset: content }: DicomFile): Uint8Array => {
  const pixels = content.get(0x7fe00010);
  if (pixels?.kind === 'value') return pixels.bytes;
  return pixels?.kind === 'fragments' ? new Uint8Array(Buffer.concat(pixels.fragments)) : new Uint8Array(0);
};
/** Bytes, padded to an even length. */
const isPrefix = (all: Uint8Array, start: Uint8Array) =>
  all.length - start.length <= 32 && equal(all.subarray(0, start.length), start);

const nested = sequence(0x52009229, [
  dataset(
    value(0x00204000, 'LT', 'a comment '),
    value(0x00189087, 'FD', new Uint8Array(8)),
    sequence(0x00409096, [
      dataset(value(0x0040a123, 'PN', 'A^B '), value(0x00409224, 'FD', new Uint8Array(8))),
    ]),
  ),
]);
const seed = image(
  value(0x00080008, 'CS', 'ORIGINAL\\PRIMARY'),
  value(0x00080020, 'DA', '20200229'),
  value(0x0008002a, 'DT', '20200229101112.5'),
  value(0x00100010, 'PN', 'Meyer^A '),
  value(0x00100020, 'LO', 'P-17'),
  value(0x00101030, 'DS', '71.5'),
  value(0x00180024, 'SH', '*tfl'),
  value(0x00290010, 'LO', 'ACME'),
  value(0x00291001, 'LO', 'text'),
  value(0x70530010, 'LO', 'Philips PET Private Group '),
  value(0x70531000, 'DS', '0.5 '),
  nested,
  sequence(0x00081140, [dataset(value(0x00081155, 'UI', '1.2.276.0.5'))]),
);

const deidentifyTarget: Target = {
  description: 'de-identification of DICOM files',
  seeds: async () => [
    fileBytes(dicomFile(seed)),
    fileBytes(dicomFile(seed, 'implicit')),
    fileBytes(dicomFile(seed, 'bigEndian')),
    fileBytes(dicomFile(image({ ...nested, ...{ implicitItems: true } } as DicomElement))),
  ],
  words: [
    'PN',
    'UN',
    'SQ',
    'DA',
    'UI',
    'OB',
    'CS',
    '\x08\0\x18\0',
    '\xfe\xff\0\xe0',
    '\xff\xff\xff\xff',
    '\x10\0\x10\0',
  ],
  maxBytes: 4096,
  run(input) {
    if (traces.some((trace) => textOf(input).includes(trace))) return;
    const parsed = parseDicom(input);
    must(parsed !== undefined, 'a whole file is parsed');
    const options = {
      uidKey,
      shiftDates: input.length % 2 === 1,
      keepPatientCharacteristics: input.length % 4 > 1,
    };
    const file = { ...parsed, dataset: planted(parsed.dataset) };
    const out = written(deidentify(file, options).file);
    for (const trace of traces) must(!textOf(out).includes(trace), `${trace} does not leave`);
    const again = readAgain(out);
    must(isPrefix(pixelsOf(again), pixelsOf(parsed)), 'the pixels stay');
    deidentify(again, options);
  },
};

export const deidentificationTargets: Readonly<Record<string, Target>> = {
  'dicom-deidentify': deidentifyTarget,
};
