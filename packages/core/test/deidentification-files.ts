import type { Dataset, DicomElement, DicomFile, Encoding, ValueElement } from '../src/dicom/dataset.ts';
import { encodeDicomFile } from '../src/dicom/encode-file.ts';
import { parseDicom } from '../src/dicom/parse.ts';
import type { Tag } from '../src/dicom/tags.ts';
import type { Vr } from '../src/dicom/value-representations.ts';

/* DICOM files for tests, element by element. */

export const latin = (text: string): Uint8Array => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

export function value(tag: Tag, vr: Vr, content: string | Uint8Array): ValueElement {
  const bytes = typeof content === 'string' ? latin(content) : content;
  return { kind: 'value', tag, vr, bytes, littleEndian: true, statedBytes: bytes.length };
}

export const sequence = (tag: Tag, items: readonly Dataset[], implicitItems = false): DicomElement => ({
  kind: 'sequence',
  tag,
  vr: 'SQ',
  items,
  implicitItems,
});

export const dataset = (...elements: readonly DicomElement[]): Dataset =>
  new Map(elements.map((element) => [element.tag, element]));

export const syntaxes = {
  implicit: '1.2.840.10008.1.2',
  explicit: '1.2.840.10008.1.2.1',
  bigEndian: '1.2.840.10008.1.2.2',
} as const;

const encodings: Readonly<Record<keyof typeof syntaxes, Encoding>> = {
  implicit: { explicit: false, littleEndian: true },
  explicit: { explicit: true, littleEndian: true },
  bigEndian: { explicit: true, littleEndian: false },
};

/** A file with the meta information that it needs, and more of it. */
export function dicomFile(
  content: Dataset,
  syntax: keyof typeof syntaxes = 'explicit',
  meta: readonly DicomElement[] = [],
): DicomFile {
  const transferSyntax = syntaxes[syntax];
  return {
    meta: dataset(value(0x00020010, 'UI', transferSyntax), ...meta),
    dataset: content,
    transferSyntax,
    ...encodings[syntax],
  };
}

export const joined = (pieces: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(pieces));

export const fileBytes = (file: DicomFile): Uint8Array => joined(encodeDicomFile(file));

/** Written and read again, so that a test sees what a receiver does. */
export function reparsed(file: DicomFile): DicomFile {
  const parsed = parseDicom(fileBytes(file));
  if (!parsed) throw new Error('the file did not parse');
  return parsed;
}

/** An image of 2 × 3 pixels; further elements replace its own. */
export const image = (...elements: readonly DicomElement[]): Dataset =>
  dataset(
    value(0x00080016, 'UI', '1.2.840.10008.5.1.4.1.1.4'),
    value(0x00080018, 'UI', '1.2.276.0.5'),
    value(0x00080060, 'CS', 'MR'),
    value(0x0020000d, 'UI', '1.2.276.0.3'),
    value(0x0020000e, 'UI', '1.2.276.0.4'),
    value(0x00280010, 'US', Uint8Array.of(2, 0)),
    value(0x00280011, 'US', Uint8Array.of(3, 0)),
    value(0x7fe00010, 'OW', Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)),
    ...elements,
  );
