import { ownedBytes } from '../formats/header.ts';
import { pieceBytes } from '../formats/voxel-pieces.ts';
import type { Bytes } from '../platform.ts';
import type { Dataset } from './dataset.ts';
import { encodeDicomFile, fileMetaOf } from './encode-file.ts';
import { encodingOf } from './transfer-syntaxes.ts';

/** A DICOM object that is ready to be written to a file. */
export interface DicomObject {
  readonly dataset: Dataset;
  readonly sopClassUid: string;
  readonly sopInstanceUid: string;
  readonly transferSyntax: string;
}

/** The bytes of a file (PS3.10 7) in chunks: preamble, file meta information, data set. */
export async function* writeDicomFile(object: DicomObject): AsyncGenerator<Bytes> {
  const { dataset, transferSyntax } = object;
  const file = { meta: fileMetaOf(object), dataset, transferSyntax, ...encodingOf(transferSyntax) };
  for (const piece of encodeDicomFile(file)) {
    for (let at = 0; at < piece.length; at += pieceBytes)
      yield ownedBytes(piece.subarray(at, at + pieceBytes));
  }
}
