import { isUtf8 } from 'node:buffer';
import { TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { countBytes } from '../intake/byte-counter.ts';
import { toProblem } from '../problem/problem.ts';
import { takeInRest } from '../problem/take-in-rest.ts';
import type { Upload } from '../store/database/upload-schema.ts';
import type { Admission } from './admission.ts';
import type { ServerContext } from './context.ts';

/**
 * Resumable uploads: tus 1.0 (https://tus.io/protocols/resumable-upload, core protocol, creation,
 * expiration, termination), and "do you have it?" by SHA-256. A `sha256` in Upload-Metadata (base64 of the hex digits) is
 * checked when all bytes have arrived.
 */

const tusVersion = '1.0.0';
const extensions = 'creation,expiration,termination';

interface IdParams {
  Params: { id: string };
}

export function registerUploadRoutes(
  app: FastifyInstance,
  context: Pick<ServerContext, 'address' | 'maxUploadBytes' | 'ownerOf' | 'pace' | 'uploads'> & {
    admission: Pick<Admission, 'requireOpen'>;
  },
): void {
  const { uploads, maxUploadBytes } = context;

  app.options('/api/uploads', async (_request, reply) =>
    tus(reply)
      .header('tus-version', tusVersion)
      .header('tus-extension', extensions)
      .header('tus-max-size', maxUploadBytes)
      .code(204)
      .send(),
  );

  app.post('/api/uploads', async (request, reply) => {
    if (!speaksTus(request)) return refuseVersion(request, reply);
    context.admission.requireOpen();
    const metadata = textOf(request, 'upload-metadata') ?? '';
    const { filename, sha256 } = parseMetadata(metadata);
    const upload = await uploads.create({
      owner: context.ownerOf(request),
      sizeBytes: lengthOf(request),
      expected: sha256,
      fileName: filename,
      metadata,
    });
    const location = context.address.pathOf(`/api/uploads/${upload.id}`);
    return tus(reply, upload).code(201).header('location', location).send();
  });

  app.head<IdParams>('/api/uploads/:id', async (request, reply) => {
    if (!speaksTus(request)) return refuseVersion(request, reply);
    const upload = await uploads.find(context.ownerOf(request), request.params.id);
    if (upload.metadata !== '') reply.header('upload-metadata', upload.metadata);
    return tus(reply, upload)
      .header('upload-length', upload.sizeBytes)
      .header('cache-control', 'no-store')
      .send();
  });

  app.patch<IdParams>('/api/uploads/:id', async (request, reply) => {
    if (!speaksTus(request)) return refuseVersion(request, reply);
    if (!/^application\/offset\+octet-stream\b/i.test(request.headers['content-type'] ?? '')) {
      throw new TomaatError(
        'UNSUPPORTED_MEDIA',
        'The Content-Type of the request is not that of an upload. Send the bytes as application/offset+octet-stream.',
        {
          field: 'Content-Type',
        },
      );
    }
    const offset = numberOf(request, 'Upload-Offset');
    const body = countBytes(
      request.raw,
      { ...context.pace, maxUploadBytes },
      request.headers['content-length'],
    );
    const upload = await uploads.append(context.ownerOf(request), request.params.id, offset, body);
    return tus(reply, upload).code(204).send();
  });

  app.delete<IdParams>('/api/uploads/:id', async (request, reply) => {
    if (!speaksTus(request)) return refuseVersion(request, reply);
    await uploads.remove(context.ownerOf(request), request.params.id);
    return tus(reply).code(204).send();
  });

  app.head<{ Params: { digest: string } }>('/api/blobs/:digest', async (request, reply) => {
    // A damaged file counts as missing: a new upload replaces it.
    const found = await uploads
      .findBlob(context.ownerOf(request), request.params.digest)
      .catch(unlessDamaged);
    if (!found) throw new TomaatError('NOT_FOUND', 'You have no such file here. Upload it.');
    return reply.header('content-length', found.sizeBytes).header('cache-control', 'no-store').send();
  });
}

/** Undefined for a file that is damaged; throws any other error. */
function unlessDamaged(error: unknown): undefined {
  if (!(error instanceof TomaatError && error.code === 'DAMAGED')) throw error;
}

function tus(reply: FastifyReply, upload?: Upload): FastifyReply {
  reply.header('tus-resumable', tusVersion);
  if (!upload) return reply;
  if (upload.digest) reply.header('tomaat-digest', upload.digest);
  return reply
    .header('upload-offset', upload.digest === undefined ? upload.offsetBytes : upload.sizeBytes)
    .header('upload-expires', new Date(upload.expiresMs).toUTCString());
}

const speaksTus = (request: FastifyRequest): boolean => request.headers['tus-resumable'] === tusVersion;

/** 412, as the protocol requires for an unsupported version. */
function refuseVersion(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  takeInRest(request, reply);
  const problem = toProblem(
    new TomaatError(
      'BAD_REQUEST',
      `The server supports only tus ${tusVersion} for uploads. Send the header 'Tus-Resumable: ${tusVersion}'.`,
      {
        field: 'Tus-Resumable',
      },
    ),
    request.id,
  );
  return tus(reply)
    .header('tus-version', tusVersion)
    .code(412)
    .type('application/problem+json')
    .send(JSON.stringify({ ...problem, status: 412 }));
}

function textOf(request: FastifyRequest, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(',') : value;
}

function numberOf(request: FastifyRequest, name: string): number {
  const text = textOf(request, name.toLowerCase());
  const value = text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(value)) return value;
  throw new TomaatError(
    'BAD_REQUEST',
    `${name} ${text === undefined ? 'is missing' : 'is not a number of bytes'}. Send it as a whole number.`,
    {
      field: name,
    },
  );
}

function lengthOf(request: FastifyRequest): number {
  if (request.headers['upload-defer-length'] !== undefined) {
    throw new TomaatError(
      'BAD_REQUEST',
      'The length of an upload must be known when it starts. Send Upload-Length.',
      {
        field: 'Upload-Defer-Length',
      },
    );
  }
  const length = numberOf(request, 'Upload-Length');
  if (length > 0) return length;
  throw new TomaatError('BAD_INPUT', 'The upload is empty. Send the file of a volume.', {
    field: 'Upload-Length',
  });
}

/** It is repeated in the header of an answer, which must be shorter than 4 kB in all (header-budget.ts). */
const longestMetadata = 2560;

/** The keys of Upload-Metadata that are used here: `filename`, `sha256`. */
export function parseMetadata(header: string): { filename?: string; sha256?: string } {
  const refuse = (message: string) => new TomaatError('BAD_REQUEST', message, { field: 'Upload-Metadata' });
  if (header.length > longestMetadata)
    throw refuse(`Upload-Metadata is longer than ${longestMetadata} characters. Send less.`);
  const values = new Map<string, string>();
  for (const pair of header
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean)) {
    const [key, encoded = '', ...more] = pair.split(' ');
    const bytes = Buffer.from(encoded, 'base64');
    if (more.length > 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(encoded) || !isUtf8(bytes)) {
      throw refuse(
        'Upload-Metadata is malformed. Send pairs of a key and a value in base64, separated by commas.',
      );
    }
    values.set(key, bytes.toString('utf8'));
  }
  const digest = values.get('sha256')?.toLowerCase();
  if (digest !== undefined && !/^[0-9a-f]{64}$/.test(digest)) {
    throw refuse(
      'sha256 in Upload-Metadata is not 64 hexadecimal digits in base64. Encode the digits, not the bytes.',
    );
  }
  return { filename: values.get('filename')?.slice(0, 1000), sha256: digest && `sha256:${digest}` };
}
