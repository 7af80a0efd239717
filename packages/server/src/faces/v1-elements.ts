import { Readable } from 'node:stream';
import { base64Length, encodeBase64, type Input, type TomaatError } from '@tomaat/core';
import type { FastifyReply } from 'fastify';
import type { App } from '../apps.ts';
import type { Blobs } from '../store/blobs/blobs.ts';
import type { JobRecord, OutputFile } from '../store/jobs/job-records.ts';

/** The elements of TOMAAT v1: inputs of a service, its results, its errors. */

/** An element of an answer; a `blob` is replaced by its content in base64, streamed while it is sent. */
export type Element = Record<string, unknown> & { blob?: OutputFile };

export const errorElement = ({ message }: Pick<TomaatError, 'message'>): Element => ({
  type: 'PlainText',
  content: message,
  label: 'Error!',
});

/** The result is not ready yet; it can be requested by this id. */
export const delayed = (id: string): Element => ({ type: 'DelayedResponse', request_id: id });

/** The input elements of `GET /interface`, with ours added in fields that old clients ignore. */
export function interfaceOf(app: App): Element[] {
  return Object.entries(app.manifest.inputs).map(([name, input]) => {
    const label = input.label ?? name;
    const element = { type: input.type, destination: name, label, description: input.description };
    return { ...element, ...details(input, label) };
  });
}

function details(input: Input, label: string): Element {
  if (input.type === 'slider')
    return { minimum: input.minimum, maximum: input.maximum, default: input.default ?? input.minimum };
  if (input.type === 'checkbox') return { text: label, default: input.default };
  if (input.type === 'radiobutton')
    return { text: label, options: input.options, default: input.default ?? input.options[0] };
  if (input.type === 'volume') return { modality: input.modality };
  return {};
}

/** The outputs of a job for which v1 has an element; it has none for measurements. */
export const shownOutputs = ({ outputs }: JobRecord): OutputFile[] =>
  outputs.filter(({ type }) => type !== 'Measurements');

/** The elements of a job that has succeeded. Throws DAMAGED if a file has changed. */
export async function resultElements(job: JobRecord, blobs: Blobs): Promise<Element[]> {
  const elements: Element[] = [];
  for (const output of shownOutputs(job)) {
    const element = { type: output.type, label: output.label };
    if (output.type === 'PlainText' || output.type === 'Fiducials') {
      const chunks: Buffer[] = [];
      for await (const chunk of blobs.open(output)) chunks.push(chunk as Buffer);
      elements.push({ ...element, content: Buffer.concat(chunks).toString('utf8') });
    } else {
      await blobs.check(output);
      elements.push({ ...element, blob: output });
    }
  }
  return elements;
}

/** Sends elements as JSON; blobs go out as base64 while they are read, under a length computed in advance. */
export function sendElements(reply: FastifyReply, elements: readonly Element[], blobs: Blobs): FastifyReply {
  const pieces: (Buffer | OutputFile)[] = [];
  let length = 0;
  const text = (s: string) => {
    const bytes = Buffer.from(s);
    pieces.push(bytes);
    length += bytes.length;
  };
  elements.forEach(({ blob, ...element }, index) => {
    text(
      `${index === 0 ? '[' : ','}${blob ? JSON.stringify(element).slice(0, -1) : JSON.stringify(element)}`,
    );
    if (!blob) return;
    text(',"content":"');
    pieces.push(blob);
    // In JSON each newline of the base64 is written as two characters.
    const encoded = base64Length(blob.sizeBytes);
    length += encoded + newlinesIn(blob.sizeBytes);
    text('"}');
  });
  text(elements.length === 0 ? '[]' : ']');
  reply.header('content-length', length).type('application/json; charset=utf-8');
  if (pieces.every((piece) => Buffer.isBuffer(piece))) return reply.send(Buffer.concat(pieces));
  return reply.send(Readable.from(write(pieces, blobs), { objectMode: false, highWaterMark: 1 << 20 }));
}

const newlinesIn = (bytes: number) => Math.ceil((4 * Math.ceil(bytes / 3)) / 76);

async function* write(pieces: readonly (Buffer | OutputFile)[], blobs: Blobs): AsyncGenerator<Buffer> {
  for (const piece of pieces) {
    if (Buffer.isBuffer(piece)) {
      yield piece;
      continue;
    }
    for await (const lines of encodeBase64(blobs.open(piece))) {
      yield Buffer.from(
        Buffer.from(lines.buffer, lines.byteOffset, lines.length).toString('latin1').replaceAll('\n', '\\n'),
        'latin1',
      );
    }
  }
}
