import { seriesSchema } from '@tomaat/client';
import { isFileInput, TomaatError, withField } from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { App } from '../apps.ts';
import { readJson } from '../intake/read-json.ts';
import { type ReceivedInput, startBytes } from '../intake/receive-input.ts';
import type { OwnBlob } from '../store/uploads/own-blobs.ts';
import type { ServerContext } from './context.ts';
import { type FileRef, mostFiles } from './request-form.ts';

/**
 * The body of a prediction that refers to files already on the server:
 * `{ "inputs": { "volume": { "upload": "…" } }, "parameters": { … }, "frame": 0, "format": "nii.gz" }`.
 */

const refSchema = z.union(
  [
    z.strictObject({ upload: z.string().min(1).max(200) }),
    z.strictObject({
      blob: z.string().regex(/^sha256:[0-9a-f]{64}$/, "is 'sha256:' and 64 lower-case hexadecimal digits"),
      fileName: z.string().min(1).max(1000).optional(),
    }),
  ],
  'is { "upload": id }, or { "blob": "sha256:…", "fileName": "…" }',
);

/** The schema of that body. */
export const namedInputsSchema = z.strictObject({
  inputs: z.record(z.string(), z.union([refSchema, z.array(refSchema).min(1).max(mostFiles)])).default({}),
  parameters: z.record(z.string(), z.unknown()).default({}),
  frame: z.int().min(0).optional(),
  series: seriesSchema.optional(),
  format: z.string().max(20).optional(),
  formats: z.record(z.string().max(40), z.string().max(20)).optional(),
});

export interface NamedInputs {
  files: ReceivedInput[];
  parameters: Record<string, unknown>;
  frame?: number;
  series?: string;
  format?: string;
  formats?: Record<string, string>;
}

const maxBodyBytes = 1024 * 1024;

export const isJson = (request: FastifyRequest): boolean =>
  /^application\/json\b/i.test(request.headers['content-type'] ?? '');

/** Reads such a body and looks the files up. `nameOf` gives the input that a name means; `hold` keeps a blob until the request is over. */
export async function readNamedInputs(
  request: FastifyRequest,
  app: App,
  context: FindContext,
  nameOf: (given: string) => string,
  hold: (digest: string) => void | Promise<void>,
): Promise<NamedInputs> {
  const { inputs, ...rest } = await readJson(request, namedInputsSchema, {
    maxBytes: maxBodyBytes,
    hint: 'A body names uploads as { "inputs": { "volume": { "upload": id } }, "parameters": { … } }.',
  });
  const files: ReceivedInput[] = [];
  for (const [given, refs] of Object.entries(inputs)) {
    const name = nameOf(given);
    const input = Object.hasOwn(app.manifest.inputs, name) ? app.manifest.inputs[name] : undefined;
    if (!input || !isFileInput(input)) {
      const known = Object.keys(app.manifest.inputs).filter((key) => isFileInput(app.manifest.inputs[key]));
      throw new TomaatError(
        'BAD_INPUT',
        `An input that the request names is not a file input of this service. Its files are: ${known.join(', ') || 'none'}.`,
      );
    }
    files.push(...(await findFiles(request, name, [refs].flat(), context, hold)));
  }
  return { files, ...rest };
}

type FindContext = Pick<ServerContext, 'uploads' | 'blobs' | 'audit' | 'ownerOf'>;

/** Files of the caller that are on the server, as the files of an input. `hold` keeps a blob until the request is over. */
export async function findFiles(
  request: FastifyRequest,
  name: string,
  refs: readonly FileRef[],
  context: FindContext,
  hold: (digest: string) => void | Promise<void>,
): Promise<ReceivedInput[]> {
  const files: ReceivedInput[] = [];
  for (const ref of refs) {
    try {
      files.push({ name, ...(await findFile(request, ref, context, hold)) });
    } catch (error) {
      throw withField(error, name);
    }
  }
  return files;
}

async function findFile(
  request: FastifyRequest,
  ref: FileRef,
  { uploads, blobs, audit, ownerOf }: FindContext,
  hold: (digest: string) => void | Promise<void>,
): Promise<Omit<ReceivedInput, 'name'>> {
  const owner = ownerOf(request);
  const { digest, fileName } =
    'upload' in ref ? await uploads.use(owner, ref.upload) : { digest: ref.blob, fileName: ref.fileName };
  const isOwn = (await findWhole(uploads, owner, digest)) !== undefined;
  // Held here, where no deletion of the same blob can intervene; nothing is deleted here.
  if (isOwn) {
    await blobs.delete(digest, async () => {
      await hold(digest);
      return true;
    });
  }
  const found = isOwn ? await findWhole(uploads, owner, digest) : undefined;
  if (!found) {
    if (!isOwn && (await blobs.stat(digest))) {
      const { keyId } = request.principal ?? {};
      audit.record('access.denied', { who: owner, keyId, digest, outcome: 'NOT_FOUND' });
    }
    throw new TomaatError(
      'NOT_FOUND',
      'You have no such file here: it was deleted, or has expired. Upload it again.',
    );
  }
  const chunks: Buffer[] = [];
  for await (const chunk of blobs.open(digest, { offsetBytes: 0, lengthBytes: startBytes }))
    chunks.push(chunk as Buffer);
  return {
    digest,
    received: found.received,
    sizeBytes: found.sizeBytes,
    fileName,
    start: Uint8Array.from(Buffer.concat(chunks)),
  };
}

async function findWhole(
  uploads: ServerContext['uploads'],
  owner: string,
  digest: string,
): Promise<OwnBlob | undefined> {
  try {
    return await uploads.findBlob(owner, digest);
  } catch (error) {
    if (!(error instanceof TomaatError && error.code === 'DAMAGED')) throw error;
    throw new TomaatError(
      'DAMAGED',
      'The uploaded file is damaged on the server. Upload it again, and report it to the operator: the disk of the server may be failing.',
      { cause: error.cause },
    );
  }
}
