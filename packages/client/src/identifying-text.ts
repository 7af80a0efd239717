import {
  findIdentifyingText,
  type IdentifyingField,
  neutralDataName,
  neutralNames,
  type Platform,
  type Rewrite,
  type TextSource,
  TomaatError,
  webPlatform,
  writeStripped,
  type Zlib,
  zlibPlatform,
} from '@tomaat/core';
import { type FileSource, fileNameOf, readAll, toBlob, type UploadFile, unreadable } from './upload.ts';

/** The files of one input, made ready to send: without text that may identify the patient, under neutral names. */
export interface AnonymousFiles {
  /** What was found, with its text: for the owner of the files, not for a log. */
  readonly fields: readonly IdentifyingField[];
  /** The files; one without such text is not copied. */
  strip(): Promise<UploadFile[]>;
}

export interface AnonymousOptions {
  platform?: Platform;
  /**
   * Where to store a file that must be recompressed, because its length is unknown in advance; in memory if missing.
   * (Browsers move large ones to disk by themselves.)
   */
  spool?(name: string, chunks: AsyncIterable<Uint8Array>): Promise<UploadFile>;
}

/**
 * Searches the files of one input for identifying text; the files of one volume (.mhd and .raw) must be passed
 * together.
 * @throws TomaatError BAD_INPUT if a header names a file that is not among the given ones, or a file cannot be read;
 *   BAD_HEADER.
 */
export async function anonymousFiles(
  input: string,
  files: readonly UploadFile[],
  { platform = platformHere(), spool = inMemory }: AnonymousOptions = {},
): Promise<AnonymousFiles> {
  const given = files.map((file) => ('name' in file ? fileNameOf(file) : ''));
  const names = neutralNames(input, given);
  const dataFile = (name: string) => {
    const index = given.findIndex((other) => other.toLowerCase() === name.toLowerCase());
    if (index >= 0) return names[index];
    if (files.length === 1) return neutralDataName(input, name);
    throw new TomaatError(
      'BAD_INPUT',
      `The header of ${input} names another file for its voxels than those given. Give the file that it names, unchanged.`,
      { field: input },
    );
  };
  const sources = files.map((file, i) => sourceOf(given[i], file));
  const found = await Promise.all(
    sources.map((source) => findIdentifyingText(source, platform, { dataFile })),
  ).catch((error: unknown) => {
    throw error instanceof TomaatError ? error : unreadable(error);
  });
  return {
    fields: found.flatMap(({ fields }) => fields),
    strip: () =>
      Promise.all(
        files.map((file, i) => {
          const { rewrite } = found[i];
          if (!rewrite) return renamed(file, names[i]);
          if (rewrite.repack) {
            return spool(names[i], explained(input, writeStripped(sources[i], rewrite, platform)));
          }
          return spliced(file, sources[i], rewrite, names[i]);
        }),
      ),
  };
}

function sourceOf(name: string, file: UploadFile): TextSource {
  if (file instanceof Blob) {
    return { name, sizeBytes: file.size, read: (start, end) => readAll(file.slice(start ?? 0, end)) };
  }
  return {
    name,
    sizeBytes: file.sizeBytes,
    read: (start = 0, end = file.sizeBytes) => {
      if (start === 0 && end >= file.sizeBytes) return readAll(file);
      return start >= end ? empty() : range(file, start, end);
    },
  };
}

async function* empty(): AsyncGenerator<Uint8Array> {}

/** Bytes of a file; without `slice`, the preceding bytes are read and discarded. */
async function* range(file: FileSource, start: number, end: number): AsyncGenerator<Uint8Array> {
  if (file.slice) return yield* readAll(file.slice(start, Math.min(end, file.sizeBytes)));
  let at = 0;
  for await (const chunk of readAll(file)) {
    const from = Math.max(start - at, 0);
    const to = Math.min(end - at, chunk.length);
    at += chunk.length;
    if (from < to) yield chunk.subarray(from, to);
    if (at >= end) return;
  }
}

function renamed(file: UploadFile, name: string): UploadFile {
  if (fileNameOf(file) === name) return file;
  if (file instanceof Blob) return new File([file], name);
  return {
    name,
    sizeBytes: file.sizeBytes,
    stream: () => file.stream(),
    slice: file.slice && ((start: number, end: number) => file.slice!(start, end)),
  };
}

/** The new header and the rest of the file, which is read when it is sent. */
function spliced(file: UploadFile, source: TextSource, { head, from }: Rewrite, name: string): UploadFile {
  if (file instanceof Blob) return new File([head, file.slice(Math.min(from, file.size))], name);
  const rest = Math.max(0, file.sizeBytes - from);
  const sizeBytes = head.length + rest;
  async function* read(start: number, end: number): AsyncGenerator<Uint8Array> {
    if (start < head.length) yield head.subarray(start, Math.min(end, head.length));
    if (end > head.length && rest > 0) {
      yield* source.read(from + Math.max(0, start - head.length), from + end - head.length);
    }
  }
  return { name, sizeBytes, stream: () => read(0, sizeBytes), slice: read };
}

async function inMemory(name: string, chunks: AsyncIterable<Uint8Array>): Promise<UploadFile> {
  return new File([await toBlob(chunks)], name);
}

/** The same chunks; zlib's errors about damaged data become a TomaatError. */
async function* explained(input: string, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* chunks;
  } catch (error) {
    if (error instanceof TomaatError || (error as { path?: string }).path !== undefined) throw error;
    throw new TomaatError(
      'BAD_VOXELS',
      `The gzip data of ${input} is damaged or cut off. Get the file again from where it came from.`,
      { field: input, cause: error },
    );
  }
}

/** The current platform, detected automatically: Node with node:zlib, otherwise a browser. */
export const platformHere = (): Platform => nodeZlib() ?? webPlatform;

/** The Node platform, if this runs in Node; otherwise undefined. */
function nodeZlib(): Platform | undefined {
  const { process } = globalThis as { process?: { getBuiltinModule?(name: string): unknown } };
  const zlib = process?.getBuiltinModule?.('node:zlib') as Zlib | undefined;
  return zlib && zlibPlatform(zlib);
}
