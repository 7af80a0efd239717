import type { Reader } from '@zip.js/zip.js/lib/zip-core-reader.js';
import { badHeader } from './header.ts';
import type { SourceFile } from './source-file.ts';

/** A file as the zip library reads it: pieces from anywhere in it, and streams of what is stored there. */
export type ZipSource = Reader<SourceFile> & {
  /** The bytes that are stored from `offset` on, `length` at most; `room` as of `SourceFile.open()`. */
  read(offset: number, length: number, room?: Uint8Array<ArrayBuffer>): AsyncGenerator<Uint8Array>;
  /** What the file itself failed with, where it did: the library may say it in words of its own. */
  fault?: { error: unknown };
};

/**
 * Reads a file for the zip library. No piece may be longer than `maxPieceBytes`, whatever lengths an archive states.
 */
export async function createZipSource(file: SourceFile, maxPieceBytes: number): Promise<ZipSource> {
  const size = file.sizeBytes ?? (await lengthOf(file));
  /** The chunk of the file that was read last: the header of an entry and the beginning of its data are mostly in it. */
  let last: { at: number; bytes: Uint8Array } = { at: 0, bytes: new Uint8Array(0) };

  /** The bytes from `at` on, in the chunks of the file. */
  async function* chunksFrom(at: number, room?: Uint8Array<ArrayBuffer>): AsyncGenerator<Uint8Array> {
    const { at: from, bytes } = last;
    let next = at;
    if (at >= from && at < from + bytes.length) {
      yield bytes.subarray(at - from);
      next = from + bytes.length;
      if (next >= size) return;
    }
    try {
      for await (const chunk of file.open(next, room?.subarray(next - at))) {
        // Others will write to the room.
        if (chunk.buffer !== room?.buffer) last = { at: next, bytes: chunk };
        yield chunk;
        next += chunk.length;
      }
    } catch (error) {
      source.fault = { error };
      throw error;
    }
  }

  async function* piece(
    offset: number,
    length: number,
    room?: Uint8Array<ArrayBuffer>,
  ): AsyncGenerator<Uint8Array> {
    let left = Math.min(length, size - offset);
    if (left <= 0) return;
    for await (const chunk of chunksFrom(offset, room)) {
      yield chunk.subarray(0, left);
      left -= chunk.length;
      if (left <= 0) return;
    }
  }

  const source: ZipSource = {
    size,
    read: piece,
    async readUint8Array(offset: number, length: number) {
      const bytes = Math.max(0, Math.min(length, size - offset));
      if (bytes > maxPieceBytes) {
        throw badHeader(
          `The zip archive has a directory of ${bytes} bytes, and ${maxPieceBytes} are read. Pack the files of one series, under short names`,
        );
      }
      const found = new Uint8Array(bytes);
      let at = 0;
      for await (const chunk of piece(offset, bytes)) {
        found.set(chunk, at);
        at += chunk.length;
      }
      return found.subarray(0, at);
    },
    // Part of what the library asks for; it reads the directory and the headers of entries alone, by the function above.
    createReadable: ({ offset = 0, size: length = size - offset } = {}) => streamOf(piece(offset, length)),
    get readable() {
      return source.createReadable();
    },
  };
  return source;
}

/** ReadableStream.from(), which not every browser has. */
function streamOf(chunks: AsyncGenerator<Uint8Array>): ReadableStream<Uint8Array> {
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await chunks.return(undefined);
    },
  });
}

async function lengthOf(file: SourceFile): Promise<number> {
  let bytes = 0;
  for await (const chunk of file.open()) bytes += chunk.length;
  return bytes;
}
