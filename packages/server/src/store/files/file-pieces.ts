import { open } from 'node:fs/promises';

/**
 * The first piece is short, since often only a header is read: 64 KiB of a DICOM file (`dicomPrefixBytes`), even behind the header
 * of an entry in a zip archive.
 */
const firstBytes = 68 * 1024;

export interface PieceOptions {
  start?: number;
  /** Length of pieces; 1 MiB by default. */
  pieceBytes?: number;
  /** Memory for the bytes, used from its beginning on; pieces are in memory of their own where it is missing or full. */
  room?: Uint8Array<ArrayBuffer>;
}

/**
 * The bytes of a file in pieces. Compared with a stream: it does not read ahead, nor once more to see that the file has ended.
 *
 * @param sizeBytes length of the file; one that is shorter ends early
 */
export async function* filePieces(
  path: string,
  sizeBytes: number,
  { start = 0, pieceBytes = 2 ** 20, room }: PieceOptions = {},
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  if (start >= sizeBytes) return;
  await using file = await open(path, 'r');
  let free = room ?? new Uint8Array(0);
  for (let at = start; at < sizeBytes; ) {
    const most = Math.min(at === start && !room ? firstBytes : pieceBytes, sizeBytes - at);
    const piece = free.length > 0 ? free.subarray(0, most) : newPiece(most);
    const { bytesRead } = await file.read(piece, 0, piece.length, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    if (free.length > 0) free = free.subarray(bytesRead);
    yield piece.subarray(0, bytesRead);
  }
}

const newPiece = (length: number) => new Uint8Array(Buffer.allocUnsafeSlow(length).buffer, 0, length);
