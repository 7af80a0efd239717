import { randomUUID } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import type { GetObjectCommandOutput, S3Client } from '@aws-sdk/client-s3';
import { TomaatError } from '@tomaat/core';
import { noSuchBlob } from './blobs.ts';

/** Objects of an S3 bucket below a prefix. All methods throw TomaatError: BUSY if the store is away, INTERNAL if it refuses. */
export interface Bucket {
  /** Writes an object from a file of `sizeBytes`; it is visible only when it is whole. */
  put(name: string, path: string, sizeBytes: number): Promise<void>;
  /** Bytes of an object, from `startByte` up to `endByte` (not included); a broken connection goes on from where it was. */
  read(name: string, startByte: number, endByte: number): AsyncGenerator<Uint8Array>;
  /** Length in bytes; undefined if there is no such object. */
  size(name: string): Promise<number | undefined>;
  /** BUSY if the store does not answer within seconds: nothing is deleted later, when others may need it again. */
  remove(name: string): Promise<void>;
  names(folder: string): AsyncGenerator<string>;
  /** Deletes the parts of objects that were begun before this time and are not whole; returns of how many. 0 where the store lists none. */
  abortBefore(timeMs: number): Promise<number>;
  /** Writes, reads and deletes an object. */
  probe(): Promise<void>;
  close(): void;
}

export interface BucketAddress {
  readonly bucket: string;
  /** Empty, or ends in a slash. */
  readonly prefix: string;
  readonly endpoint?: string;
}

export const isBucketAddress = (text: string): boolean => text.startsWith('s3://');

/** Reads `s3://BUCKET/PREFIX?endpoint=URL`; undefined if it is malformed. */
export function parseBucketAddress(text: string): BucketAddress | undefined {
  if (!isBucketAddress(text) || !URL.canParse(text)) return undefined;
  const { hostname, pathname, searchParams, username, password, port, hash } = new URL(text);
  const endpoint = searchParams.get('endpoint') ?? undefined;
  const others = [...searchParams.keys()].some((key) => key !== 'endpoint');
  if (hostname === '' || others || username || password || port || hash) return undefined;
  if (endpoint !== undefined && !/^https?:/.test(endpoint)) return undefined;
  const path = decodeURIComponent(pathname).split('/').filter(Boolean).join('/');
  return { bucket: hostname, prefix: path === '' ? '' : `${path}/`, endpoint };
}

/** After the address, in messages. */
export const badBucketAddress =
  'is not the address of a bucket. Write it as s3://BUCKET/PREFIX or s3://BUCKET/PREFIX?endpoint=https://HOST.';

const leastPartBytes = 16 * 2 ** 20;
/** S3 takes 10,000 parts of an object. */
const mostParts = 10_000;
const partsAtOnce = 3;
const readAttempts = 5;
const stalledMs = 30_000;
/** Shorter than PostgreSQL leaves the lock under which a file is deleted to a transaction that asks nothing (10 s). */
const removeWithinMs = 5_000;

/** The client is loaded here, so that a server with a folder does without it. Credentials and region come from the AWS_* variables. */
export async function openBucket(
  { bucket, prefix, endpoint }: BucketAddress,
  { removeMs = removeWithinMs } = {},
): Promise<Bucket> {
  const s3 = await import('@aws-sdk/client-s3');
  const client: S3Client = new s3.S3Client({
    ...(endpoint !== undefined && { endpoint, forcePathStyle: true }),
    region: process.env.AWS_REGION ?? process.env.AWS_DEFAULT_REGION ?? 'us-east-1',
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: { connectionTimeout: 5_000, socketTimeout: stalledMs },
  });
  const at = (name: string) => ({ Bucket: bucket, Key: prefix + name });
  const asking = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw explain(error, bucket);
    }
  };

  async function size(name: string): Promise<number | undefined> {
    return asking(async () => {
      try {
        return (await client.send(new s3.HeadObjectCommand(at(name)))).ContentLength;
      } catch (error) {
        if (statusOf(error) === 404) return undefined;
        throw error;
      }
    });
  }

  async function putParts(file: FileHandle, name: string, sizeBytes: number): Promise<void> {
    const { UploadId } = await client.send(new s3.CreateMultipartUploadCommand(at(name)));
    const partBytes = Math.max(leastPartBytes, Math.ceil(sizeBytes / mostParts));
    const count = Math.ceil(sizeBytes / partBytes);
    const tags: (string | undefined)[] = new Array(count);
    let next = 0;
    let failed = false;
    const lane = async () => {
      while (next < count && !failed) {
        const part = next++;
        const start = part * partBytes;
        const Body = await readWhole(file, start, Math.min(partBytes, sizeBytes - start));
        const sent = await client.send(
          new s3.UploadPartCommand({ ...at(name), UploadId, PartNumber: part + 1, Body }),
        );
        tags[part] = sent.ETag;
      }
    };
    try {
      const lanes = await Promise.allSettled(
        Array.from({ length: partsAtOnce }, () =>
          lane().catch((error) => {
            failed = true;
            throw error;
          }),
        ),
      );
      const broken = lanes.find((outcome) => outcome.status === 'rejected');
      if (broken) throw broken.reason;
      const Parts = tags.map((ETag, part) => ({ ETag, PartNumber: part + 1 }));
      await client.send(
        new s3.CompleteMultipartUploadCommand({ ...at(name), UploadId, MultipartUpload: { Parts } }),
      );
    } catch (error) {
      // A store that is away keeps the parts: abortBefore() deletes them, or a lifecycle rule of the bucket.
      await client.send(new s3.AbortMultipartUploadCommand({ ...at(name), UploadId })).catch(() => undefined);
      throw error;
    }
  }

  return {
    size,
    put: (name, path, sizeBytes) =>
      asking(async () => {
        await using file = await open(path, 'r');
        if (sizeBytes > leastPartBytes) await putParts(file, name, sizeBytes);
        else
          await client.send(
            new s3.PutObjectCommand({ ...at(name), Body: await readWhole(file, 0, sizeBytes) }),
          );
        const stored = await size(name);
        if (stored !== sizeBytes)
          throw new TomaatError('BUSY', 'The store did not keep the file whole. Send it again.');
      }),
    async *read(name, startByte, endByte) {
      let from = startByte;
      for (let failures = 0; from < endByte; ) {
        const before = from;
        try {
          const Range = `bytes=${from}-${endByte - 1}`;
          const answer: GetObjectCommandOutput = await client.send(
            new s3.GetObjectCommand({ ...at(name), Range }),
          );
          for await (const chunk of answer.Body as unknown as AsyncIterable<Uint8Array>) {
            from += chunk.length;
            if (from > endByte) throw new Error('the store sent more than was asked for');
            yield chunk;
          }
          if (from < endByte) throw new Error('the store sent less than was asked for');
        } catch (error) {
          failures = from > before ? 1 : failures + 1;
          if (failures >= readAttempts || statusOf(error) !== undefined) throw explain(error, bucket);
        }
      }
    },
    async remove(name) {
      const abortSignal = AbortSignal.timeout(removeMs);
      await asking(() => client.send(new s3.DeleteObjectCommand(at(name)), { abortSignal }));
    },
    async *names(folder) {
      let ContinuationToken: string | undefined;
      do {
        const page = await asking(() =>
          client.send(
            new s3.ListObjectsV2Command({ Bucket: bucket, Prefix: prefix + folder, ContinuationToken }),
          ),
        );
        for (const { Key } of page.Contents ?? [])
          if (Key !== undefined) yield Key.slice(prefix.length + folder.length);
        ContinuationToken = page.NextContinuationToken;
      } while (ContinuationToken !== undefined);
    },
    async abortBefore(timeMs) {
      let aborted = 0;
      let markers: { KeyMarker?: string; UploadIdMarker?: string } = {};
      for (let isMore = true; isMore; ) {
        const page = await client
          .send(new s3.ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix, ...markers }))
          .catch((error: unknown) => {
            if (cannotList(error)) return undefined;
            throw explain(error, bucket);
          });
        for (const { Key, UploadId, Initiated } of page?.Uploads ?? []) {
          if (Initiated === undefined || Initiated.getTime() >= timeMs) continue;
          await asking(() =>
            client.send(new s3.AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId })),
          );
          aborted++;
        }
        isMore = page?.IsTruncated ?? false;
        markers = { KeyMarker: page?.NextKeyMarker, UploadIdMarker: page?.NextUploadIdMarker };
      }
      return aborted;
    },
    async probe() {
      const name = `probe-${randomUUID()}`;
      await asking(async () => {
        await client.send(new s3.PutObjectCommand({ ...at(name), Body: Buffer.from(name) }));
        const { Body } = await client.send(new s3.GetObjectCommand(at(name)));
        if ((await Body?.transformToString()) !== name)
          throw new TomaatError(
            'INTERNAL',
            `The bucket ${bucket} does not return what was written. Check it.`,
          );
        await client.send(new s3.DeleteObjectCommand(at(name)));
      });
    },
    close: () => client.destroy(),
  };
}

async function readWhole(file: FileHandle, start: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(length);
  for (let at = 0; at < length; ) {
    const { bytesRead } = await file.read(buffer, at, length - at, start + at);
    if (bytesRead === 0) throw new Error('the file that is sent to the store became shorter');
    at += bytesRead;
  }
  return buffer;
}

const statusOf = (error: unknown): number | undefined =>
  (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;

/** Not allowed, or a store that knows no such list: a lifecycle rule does the same. */
const cannotList = (error: unknown): boolean => [403, 405, 501].includes(statusOf(error) ?? 0);

const refusals: Record<string, (bucket: string) => string> = {
  NoSuchBucket: (bucket) => `There is no bucket ${bucket}. Create it, or correct --blobs.`,
  PermanentRedirect: (bucket) => `The bucket ${bucket} is in another region. Set AWS_REGION to it.`,
  AuthorizationHeaderMalformed: (bucket) =>
    `The bucket ${bucket} is in another region. Set AWS_REGION to it.`,
  InvalidAccessKeyId: () => 'The store does not know the access key. Check AWS_ACCESS_KEY_ID.',
  SignatureDoesNotMatch: () => 'The store refuses the signature. Check AWS_SECRET_ACCESS_KEY.',
  RequestTimeTooSkewed: () =>
    'The clock of this machine is more than 15 minutes from that of the store. Correct the clock.',
  CredentialsProviderError: () =>
    'There are no credentials for the store. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.',
};

function explain(error: unknown, bucket: string): unknown {
  if (error instanceof TomaatError) return error;
  const { name, code } = error as { name: string; code?: string };
  const refusal = Object.hasOwn(refusals, name) ? refusals[name](bucket) : undefined;
  if (refusal) return new TomaatError('INTERNAL', refusal, { cause: error });
  const status = statusOf(error);
  if (status === 403) {
    return new TomaatError(
      'INTERNAL',
      `The store refuses access to the bucket ${bucket}. Allow GetObject, PutObject, DeleteObject, ListBucket and AbortMultipartUpload.`,
      { cause: error },
    );
  }
  if (status === 404) return noSuchBlob();
  // A fault of the local disk has a code of its own, and is none of the store's.
  if (code === 'ENOSPC' || code === 'EIO' || code === 'EMFILE' || code === 'ENOENT') return error;
  return new TomaatError('BUSY', 'The store of volumes does not answer. Try again in a moment.', {
    cause: error,
  });
}
