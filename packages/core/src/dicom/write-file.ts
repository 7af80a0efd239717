import { ownedBytes } from '../formats/header.ts';
import { joinBytes, pieceBytes } from '../formats/voxel-pieces.ts';
import type { Bytes } from '../platform.ts';
import { ascii, binary, bytesElement, datasetOf } from './build.ts';
import type { Dataset } from './dataset.ts';
import { encodeDataset, lengthOf } from './encode.ts';
import { tags } from './tags.ts';
import { encodingOf, transferSyntaxes } from './transfer-syntaxes.ts';

/** A DICOM object that is ready to be written to a file. */
export interface DicomObject {
  readonly dataset: Dataset;
  readonly sopClassUid: string;
  readonly sopInstanceUid: string;
  readonly transferSyntax: string;
}

/** Who wrote a file (PS3.10 7.1): of all versions of this program. */
const implementation = { classUid: '2.25.151958620126013014955657245793803280551', versionName: 'TOMAAT' };

/** The bytes of a file (PS3.10 7), in pieces: preamble, file meta information, data set. */
export async function* writeDicomFile(object: DicomObject): AsyncGenerator<Bytes> {
  const meta = encodeDataset(
    datasetOf(
      bytesElement(tags.fileMetaInformationVersion, 'OB', Uint8Array.of(0, 1)),
      ascii(tags.mediaStorageSopClassUid, 'UI', object.sopClassUid),
      ascii(tags.mediaStorageSopInstanceUid, 'UI', object.sopInstanceUid),
      ascii(tags.transferSyntaxUid, 'UI', object.transferSyntax),
      ascii(tags.implementationClassUid, 'UI', implementation.classUid),
      bytesElement(
        tags.implementationVersionName,
        'SH',
        new TextEncoder().encode(implementation.versionName),
      ),
    ),
    encodingOf(transferSyntaxes.explicitLittleEndian),
  );
  const length = encodeDataset(
    datasetOf(binary(tags.fileMetaInformationGroupLength, 'UL', lengthOf(meta))),
    encodingOf(transferSyntaxes.explicitLittleEndian),
  );
  const preamble = new Uint8Array(132);
  preamble.set(new TextEncoder().encode('DICM'), 128);
  yield joinBytes([preamble, ...length, ...meta]);
  for (const piece of encodeDataset(object.dataset, encodingOf(object.transferSyntax))) {
    for (let at = 0; at < piece.length; at += pieceBytes)
      yield ownedBytes(piece.subarray(at, at + pieceBytes));
  }
}
