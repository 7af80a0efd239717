import { ascii, binary, bytesElement, datasetOf } from './build.ts';
import type { Dataset, DicomFile } from './dataset.ts';
import { encodeDataset, lengthOf } from './encode.ts';
import { tags } from './tags.ts';
import { encodingOf, transferSyntaxes } from './transfer-syntaxes.ts';

/** Identifies this program, in all its versions, as the writer of a file (PS3.10 7.1). */
const implementation = { classUid: '2.25.151958620126013014955657245793803280551', versionName: 'TOMAAT' };

/** What file meta information says about the data set that follows it. */
export interface FileFacts {
  readonly sopClassUid?: string;
  readonly sopInstanceUid?: string;
  readonly transferSyntax: string;
}

/** File meta information of this program (PS3.10 7.1), without its length, which `encodeDicomFile()` adds. */
export const fileMetaOf = ({ sopClassUid, sopInstanceUid, transferSyntax }: FileFacts): Dataset =>
  datasetOf(
    bytesElement(tags.fileMetaInformationVersion, 'OB', Uint8Array.of(0, 1)),
    sopClassUid === undefined ? undefined : ascii(tags.mediaStorageSopClassUid, 'UI', sopClassUid),
    sopInstanceUid === undefined ? undefined : ascii(tags.mediaStorageSopInstanceUid, 'UI', sopInstanceUid),
    ascii(tags.transferSyntaxUid, 'UI', transferSyntax),
    ascii(tags.implementationClassUid, 'UI', implementation.classUid),
    bytesElement(tags.implementationVersionName, 'SH', new TextEncoder().encode(implementation.versionName)),
  );

/**
 * The bytes of a DICOM file in chunks (PS3.10 7): preamble of zeros, file meta information with its length, data set.
 * Values are views of the input. Deflating, if the transfer syntax requires it, is left to the caller.
 */
export function encodeDicomFile(file: DicomFile): Uint8Array[] {
  const explicitLittle = encodingOf(transferSyntaxes.explicitLittleEndian);
  const elements = new Map([...file.meta].filter(([tag]) => tag !== tags.fileMetaInformationGroupLength));
  const meta = encodeDataset(elements, explicitLittle);
  const length = datasetOf(binary(tags.fileMetaInformationGroupLength, 'UL', lengthOf(meta)));
  const preamble = new Uint8Array(132);
  preamble.set([68, 73, 67, 77], 128);
  return [preamble, ...encodeDataset(length, explicitLittle), ...meta, ...encodeDataset(file.dataset, file)];
}
