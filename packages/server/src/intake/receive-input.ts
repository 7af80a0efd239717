import { TomaatError, withField } from '@tomaat/core';
import type { BlobRef, BlobWriter, KeepBlob } from '../store/blobs/blob-writer.ts';
import type { Blobs } from '../store/blobs/blobs.ts';
import { decodeBase64, isRawVolume } from './base64.ts';
import { type BodyPart, peek } from './body-part.ts';

export interface ReceiveOptions {
  /** Bytes of the file (after base64); UPLOAD_TOO_LARGE beyond. */
  readonly maxBytes?: number;
  /** Expected number of bytes, if known: if the disk has no room for them, the request is refused before the first one. */
  readonly expectedBytes?: number;
  /**
   * `raw` (the bytes themselves), or `base64`: base64 with line breaks, or the raw file if it begins like one
   * (TOMAAT v1); `base64-form` also reads a space as '+', as urlencoded forms deliver it.
   */
  readonly encoding?: 'raw' | 'base64' | 'base64-form';
  /** Checks the first 64 KiB as soon as they have arrived (less if the file is shorter) and throws to refuse the file. */
  readonly checkPrefix?: (prefix: Uint8Array) => void | Promise<void>;
  /** Records what keeps the blob; see Blobs. */
  readonly keep?: KeepBlob;
}

export interface ReceivedInput extends BlobRef {
  readonly name: string;
  readonly fileName?: string;
  /** SHA-256 as received, if identifying text was removed. */
  readonly received?: string;
  /** The first 256 bytes of the file: they tell what kind of file it is. */
  readonly start: Uint8Array;
}

const prefixBytes = 64 * 1024;
/** A request may have thousands of files, of which no more is kept in memory. */
export const startBytes = 256;

/** A file whose bytes are written, and not yet durable. One of its two functions is to be called, once. */
export interface WrittenInput {
  commit(): Promise<ReceivedInput>;
  abort(): Promise<void>;
}

/**
 * Streams one part of a request into the blob store, in constant memory. `commit()` waits for the disk, while the next parts
 * arrive: its file is durably on disk. Nothing is left behind when either rejects. Errors name the part in `field`.
 */
export async function receiveInput(
  part: BodyPart,
  blobs: Blobs,
  options: ReceiveOptions = {},
): Promise<WrittenInput> {
  const { maxBytes, expectedBytes, encoding = 'raw', checkPrefix, keep } = options;
  const { name, fileName } = part;
  let writer: BlobWriter | undefined;
  try {
    const bytes = encoding === 'raw' ? part.body : await decoded(part.body, encoding === 'base64-form');
    writer = await blobs.create({ maxBytes, expectedBytes });
    let isChecked = checkPrefix === undefined;
    for await (const chunk of bytes) {
      await writer.write(chunk);
      if (!isChecked && writer.bytes >= prefixBytes) {
        isChecked = true;
        await checkPrefix?.(writer.prefix);
      }
    }
    if (writer.bytes === 0) {
      throw new TomaatError('BAD_INPUT', `'${name}' is empty. Send the file of the volume`);
    }
    if (!isChecked) await checkPrefix?.(writer.prefix);
    return written(writer, { name, fileName }, keep);
  } catch (error) {
    await writer?.abort();
    throw withField(error, name);
  }
}

function written(
  writer: BlobWriter,
  { name, fileName }: Pick<ReceivedInput, 'name' | 'fileName'>,
  keep: KeepBlob | undefined,
): WrittenInput {
  const start = Uint8Array.from(writer.prefix.subarray(0, startBytes));
  return {
    async commit() {
      try {
        return { name, fileName, start, ...(await writer.commit(keep)) };
      } catch (error) {
        throw withField(error, name);
      }
    },
    abort: () => writer.abort(),
  };
}

async function decoded(
  body: AsyncIterable<Uint8Array>,
  spaceIsPlus: boolean,
): Promise<AsyncIterable<Uint8Array>> {
  const peeked = await peek(body, 256);
  return isRawVolume(peeked.prefix) ? peeked.body : decodeBase64(peeked.body, { spaceIsPlus });
}
