import type { Dataset, DicomFile, ValueElement } from './dataset.ts';
import { encodeDataset, lengthOf } from './encode.ts';
import type { Tag } from './tags.ts';
import { encodingOf, transferSyntaxes } from './transfer-syntaxes.ts';

const groupLength: Tag = 0x00020000;

/**
 * The bytes of a DICOM file in pieces (PS3.10 7): preamble of zeros, file meta information with its length, data set. Values are
 * views of what was given. Deflating, where the transfer syntax asks for it, is left to the caller.
 */
export function encodeDicomFile(file: DicomFile): Uint8Array[] {
  const explicitLittle = encodingOf(transferSyntaxes.explicitLittleEndian);
  const elements = new Map([...file.meta].filter(([tag]) => tag !== groupLength));
  const meta = encodeDataset(elements, explicitLittle);
  const length = encodeDataset(lengthElement(lengthOf(meta)), explicitLittle);
  const preamble = new Uint8Array(132);
  preamble.set([68, 73, 67, 77], 128);
  return [preamble, ...length, ...meta, ...encodeDataset(file.dataset, file)];
}

function lengthElement(bytes: number): Dataset {
  const value = new Uint8Array(4);
  new DataView(value.buffer).setUint32(0, bytes, true);
  const element: ValueElement = {
    kind: 'value',
    tag: groupLength,
    vr: 'UL',
    bytes: value,
    littleEndian: true,
    statedBytes: 4,
  };
  return new Map([[groupLength, element]]);
}
