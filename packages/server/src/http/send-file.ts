import { Readable } from 'node:stream';
import { TomaatError } from '@tomaat/core';
import type { FastifyReply } from 'fastify';
import type { BlobRange } from '../store/blobs/blobs.ts';
import { selectRange } from './ranges.ts';

/** A file with an entity tag. */
export interface TaggedFile {
  /** For messages, at the beginning of a sentence. */
  readonly name: string;
  /** `sha256:…` */
  readonly digest: string;
  readonly sizeBytes: number;
  /** Its bytes, or those of a range. */
  open(range?: Required<BlobRange>): Readable;
  /** Before bytes are sent, and before the answer to HEAD, which opens nothing. */
  check?(): Promise<void>;
  /** Called once bytes are about to be sent. */
  onSend(what: 'whole' | 'part'): void;
}

/** The body of an answer to HEAD: a stream, because fastify then keeps the given length. */
export const nothing = () => Readable.from([]);

/**
 * Sends a file with its Content-Length and its digest as entity tag; a GET or HEAD may be conditional, or ask for a range.
 * @throws {TomaatError} BAD_RANGE
 */
export async function sendFile(reply: FastifyReply, file: TaggedFile): Promise<FastifyReply> {
  const { method, headers } = reply.request;
  const { name, sizeBytes } = file;
  const isResource = method === 'GET' || method === 'HEAD';
  const etag = `"${file.digest}"`;
  const selection = isResource ? selectRange(method, headers, { etag, sizeBytes }) : { status: 200 as const };
  if (selection.status === 416) {
    reply.header('content-range', `bytes */${sizeBytes}`);
    throw new TomaatError(
      'BAD_RANGE',
      `${name} has ${sizeBytes} bytes, and the range begins after the last one. A client that already has ${sizeBytes} bytes has the whole file.`,
      { field: 'Range' },
    );
  }
  if (isResource) reply.header('etag', etag).header('accept-ranges', 'bytes');
  if (selection.status === 304) return reply.code(304).send();
  if (method === 'HEAD') {
    await file.check?.();
    return reply.header('content-length', sizeBytes).send(nothing());
  }
  await file.check?.();
  if (selection.status === 206) {
    const { range } = selection;
    const lastByte = range.offsetBytes + range.lengthBytes - 1;
    const body = file.open(range);
    file.onSend('part');
    return reply
      .code(206)
      .header('content-range', `bytes ${range.offsetBytes}-${lastByte}/${sizeBytes}`)
      .header('content-length', range.lengthBytes)
      .send(body);
  }
  const body = file.open();
  file.onSend('whole');
  return reply.header('content-length', sizeBytes).send(body);
}
