import { createHash, randomUUID } from 'node:crypto';
import { TomaatError } from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import type { ServerContext } from '../http/context.ts';
import { type Keep, receiveFile } from '../http/receive-prediction.ts';
import { mostFiles, multipart } from '../http/request-form.ts';
import { readText } from '../intake/body-part.ts';
import { countBytes } from '../intake/byte-counter.ts';
import { readMultipart } from '../intake/multipart.ts';
import { parseJson } from '../intake/read-json.ts';
import type { ReceivedInput } from '../intake/receive-input.ts';
import type { GroupKey } from '../store/uploads/upload-groups.ts';

/**
 * Images that clients upload under a name of their own, such as that of a volume in 3D Slicer, and sessions, which have an id. Both
 * are uploads (store/uploads/upload-groups.ts): kept for an hour after their last use, and a bound on how many. The name of an
 * image may be that of a patient, and equal for two users: it is stored as a hash, together with what distinguishes the callers.
 */

const hashOf = (...parts: readonly (string | undefined)[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('hex');

/** What distinguishes unauthenticated callers, who share one owner or an address. */
function holderOf(request: FastifyRequest): string {
  const { via } = request.principal ?? {};
  if (via === 'key' || via === 'session') return '';
  return hashOf('holder', request.raw.socket.remoteAddress, request.headers.origin);
}

/** An image of a caller, by the name that the caller gave it. Throws BAD_INPUT if the name is empty, too long or not text. */
export function imageKey(
  request: FastifyRequest,
  image: string,
  clientId: string | undefined,
  { ownerOf }: Pick<ServerContext, 'ownerOf'>,
): GroupKey {
  requireName(image, 'image', 1000);
  return {
    owner: ownerOf(request),
    name: hashOf('image', holderOf(request), clientId?.slice(0, 1000), image),
  };
}

export function sessionKey(
  request: FastifyRequest,
  id: string,
  { ownerOf }: Pick<ServerContext, 'ownerOf'>,
): GroupKey {
  return { owner: ownerOf(request), name: hashOf('session', id) };
}

function requireName(text: string, field: string, longest: number): void {
  // Nothing is opened by that name. These are refused so that no mistake goes unnoticed.
  if (text !== '' && text.length <= longest && !text.includes('\0')) return;
  throw new TomaatError(
    'BAD_INPUT',
    `The name of the image is empty, longer than ${longest} characters, or contains a NUL. Send 1 to ${longest} characters.`,
    { field },
  );
}

interface ReceivedImage {
  readonly files: readonly ReceivedInput[];
  readonly clientId?: string;
}

/** Stores the files of the body as the image of that name. */
export async function storeImage(
  request: FastifyRequest,
  image: string,
  context: ServerContext,
): Promise<void> {
  requireName(image, 'image', 1000);
  await receiveImage(request, 'file', context, ({ clientId }) => imageKey(request, image, clientId, context));
}

/** Stores the files of the body as a new session; returns its id. */
export async function storeSession(request: FastifyRequest, context: ServerContext): Promise<string> {
  const id = randomUUID();
  await receiveImage(request, 'files', context, () => sessionKey(request, id, context));
  return id;
}

/** Receives a form with the files of one volume, and stores them. Nothing stays on the disk if it rejects. */
async function receiveImage(
  request: FastifyRequest,
  partName: string,
  context: ServerContext,
  keyOf: (received: ReceivedImage) => GroupKey,
): Promise<void> {
  const { jobs, blobs, uploads } = context;
  const held: string[] = [];
  const hold: Keep = async ({ digest }) => {
    await jobs.hold(digest);
    held.push(digest);
  };
  using _admitted = await context.admission.enter(request);
  try {
    const received = await readImage(request, partName, hold, context);
    if (received.files.length === 0) {
      throw new TomaatError(
        'BAD_INPUT',
        `The request has no file. Send the volume as the part ${partName} of multipart/form-data.`,
        { field: partName },
      );
    }
    const files = await Promise.all(
      received.files.map(async (file) => ({ ...file, path: await blobs.fetch(file) })),
    );
    await uploads.groups.put({ ...keyOf(received), holder: holderOf(request) }, files, hold);
  } finally {
    await jobs.discard(held);
  }
}

async function readImage(
  request: FastifyRequest,
  partName: string,
  keep: Keep,
  context: ServerContext,
): Promise<ReceivedImage> {
  const type = request.headers['content-type'] ?? '';
  const length = request.headers['content-length'];
  if (!multipart.takes(type)) {
    throw new TomaatError(
      'UNSUPPORTED_MEDIA',
      `The body is not a form. Send the volume as the part ${partName} of multipart/form-data.`,
      { field: 'Content-Type' },
    );
  }
  if (Number(length ?? 0) <= context.maxUploadBytes)
    await context.uploads.makeRoom(context.ownerOf(request), Number(length ?? 0));
  const limits = { ...context.pace, maxUploadBytes: context.maxUploadBytes + 65_536 };
  const body = countBytes(request.raw, limits, length);
  const files: ReceivedInput[] = [];
  let clientId: string | undefined;
  for await (const part of readMultipart(body, type, { maxFiles: mostFiles })) {
    if (part.name === partName && part.fileName !== undefined) {
      const options = { name: partName, isVolume: true, encoding: 'raw', arrived: files, keep } as const;
      const file = await receiveFile(part, options, context);
      files.push(await file.commit());
    } else if (part.fileName !== undefined) {
      throw new TomaatError(
        'BAD_INPUT',
        `A file of the request is not part of the image. Send the volume as ${partName}.`,
        { field: partName },
      );
    } else if (part.name === 'params') clientId ??= clientIdOf(parseParams(await readText(part)));
    else if (part.name === 'client_id') clientId = await readText(part);
  }
  return { files, clientId };
}

/** The `params` of a form: an object of JSON. */
export function parseParams(text: string): Readonly<Record<string, unknown>> {
  const hint = 'Send params as an object of JSON.';
  const value = text.trim() === '' ? {} : parseJson(Buffer.from(text), hint);
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new TomaatError('BAD_REQUEST', `params is not an object. ${hint}`, { field: 'params' });
}

/** What a client calls itself: at each start of 3D Slicer another name. */
export const clientIdOf = ({ client_id: id }: Readonly<Record<string, unknown>>): string | undefined =>
  typeof id === 'string' ? id : undefined;
