import { TomaatError } from '@tomaat/core';
import { z } from 'zod';
import {
  type Job,
  jobSchema,
  type Me,
  meSchema,
  type NamedPrediction,
  type Service,
  serviceSchema,
} from './contract.ts';
import {
  addressOf,
  type Connection,
  type ConnectionOptions,
  callJson,
  errorOf,
  networkFault,
  openConnection,
  readJson,
  send,
  startWatchdog,
} from './http.ts';
import { anonymousFiles } from './identifying-text.ts';
import { randomHex, type UploadFile, type UploadProgress, upload } from './upload.ts';
import { type FileRef, type ResumableOptions, removeUpload, uploadResumable } from './upload-resumable.ts';
import { isSettled, type WatchOptions, watchJob } from './watch.ts';

export interface ServiceFilters {
  modality?: string;
  anatomy?: string;
  task?: string;
  /** Words that must occur in name or description. */
  q?: string;
}

/** A value of an input that is no file. Points are RAS+ mm. */
export type InputParameter = number | boolean | string | readonly (readonly [number, number, number])[];

export type VolumeFile = UploadFile | FileRef;

export interface PredictOptions {
  /**
   * The file of each volume input, or what `upload` gave for it; several for one volume that comes in several files
   * (.hdr and .img).
   */
  volumes: Readonly<Record<string, VolumeFile | readonly VolumeFile[]>>;
  values?: Readonly<Record<string, InputParameter>>;
  /** Which frame of a 4-D volume, from 0. */
  frame?: number;
  /** The same key with the same request gives the same job; one is made if missing. */
  idempotencyKey?: string;
  onUpload?: UploadProgress;
  /** With a file larger than this, uploads go on after a cut, and files that are there already are not sent again. */
  resumableAboveBytes?: number;
  /** 0 (most urgent) to 7; 3 if missing. */
  urgency?: number;
  /** Sends files as they are: with the text in their headers that may tell whose scan it is, and under their own names. */
  keepText?: boolean;
  signal?: AbortSignal;
}

export interface OutputFile {
  /** The bytes; errs with UNREACHABLE when the connection breaks. Read it once. */
  readonly stream: ReadableStream<Uint8Array>;
  readonly fileName: string;
  readonly sizeBytes?: number;
  readonly mediaType: string;
  blob(): Promise<Blob>;
}

interface Signalled {
  signal?: AbortSignal;
}

interface KeepText {
  /** Sends the file as it is, under its own name; else text that may tell whose scan it is is taken out. */
  keepText?: boolean;
}

export interface Client {
  readonly baseUrl: string;
  services(filters?: ServiceFilters, options?: Signalled): Promise<Service[]>;
  service(id: string, options?: Signalled): Promise<Service>;
  /**
   * Sends a file that several predictions may use, within an hour of its last use; a cut costs only what was on the way,
   * and a file that is there already is not sent. Undefined if the server takes no such uploads.
   */
  upload(file: UploadFile, options?: ResumableOptions & KeepText): Promise<FileRef | undefined>;
  /** Deletes what `upload` sent, by its id; a job that uses it keeps it until it settles. Nothing there is fine. */
  removeUpload(id: string, options?: Signalled): Promise<void>;
  /** Uploads and gives the job, which is then on the server's disk. Repeats a broken upload (same key, same job). */
  predict(serviceId: string, options: PredictOptions): Promise<Job>;
  job(id: string, options?: Signalled): Promise<Job>;
  /** The job at every change, until it is settled. */
  watch(id: string, options?: WatchOptions): AsyncIterable<Job>;
  /** The settled job, whatever became of it; see `requireSuccess`. */
  wait(id: string, options?: WatchOptions): Promise<Job>;
  /** Cancels a queued or running job; a settled one stays as it is. */
  cancel(id: string, options?: Signalled): Promise<Job>;
  /** Cancels the job if need be, then deletes it with its results. Nothing there is fine. */
  remove(id: string, options?: Signalled): Promise<void>;
  /** The signed receipt of a settled job; see `verifyReceipt`. */
  receipt(jobId: string, options?: Signalled): Promise<string>;
  output(jobId: string, name: string, options?: Signalled & { format?: string }): Promise<OutputFile>;
  /** Who this is to the server, and how one logs in; a registry tells it, too. */
  me(options?: Signalled): Promise<Me>;
  /** In a page: opens a session for this browser. The key is not kept. */
  logIn(key: string, options?: Signalled): Promise<void>;
  /** In a page: ends the session. */
  logOut(options?: Signalled): Promise<void>;
}

/** A newer server may say more of an input than this version knows: what is relied on is checked, the rest let be. */
const namedList = z.array(z.looseObject({ name: z.string(), type: z.string() }));
const anyService: z.ZodType<Service> = z.union([
  serviceSchema,
  z
    .looseObject({
      id: z.string(),
      name: z.string(),
      version: z.string(),
      task: z.string(),
      anatomy: z.string(),
      inputs: namedList,
      outputs: namedList,
    })
    .transform((service) => service as unknown as Service),
]);

/**
 * A client of a TOMAAT server, for browsers and Node. Everything rejects with a TomaatError: with the code and
 * the message of the server's answer, or UNREACHABLE when the network failed. An aborted signal rejects with
 * its own reason.
 */
export function createClient(options: ConnectionOptions): Client {
  const connection = openConnection(options);
  const jobPath = (id: string) => `/api/jobs/${encodeURIComponent(id)}`;

  async function call<T>(
    path: string,
    schema: z.ZodType<T>,
    options: Parameters<typeof callJson>[3] = {},
  ): Promise<T> {
    const found = await callJson(connection, path, schema, options);
    if (found === undefined)
      throw new TomaatError(
        'UPSTREAM',
        `${addressOf(connection, path)} answered nothing. Check the address.`,
      );
    return found;
  }

  const client: Client = {
    baseUrl: connection.baseUrl,

    async services(filters = {}, { signal } = {}) {
      const { services } = await call('/api/services', z.object({ services: z.array(anyService) }), {
        query: { ...filters },
        signal,
      });
      return services;
    },

    service: (id, { signal } = {}) => call(`/api/services/${encodeURIComponent(id)}`, anyService, { signal }),

    async upload(file, { keepText, ...options } = {}) {
      const [sent] = keepText ? [file] : await (await anonymousFiles('volume', [file])).strip();
      return uploadResumable(connection, sent, options);
    },

    removeUpload: (id, { signal } = {}) => removeUpload(connection, id, signal),

    async predict(
      serviceId,
      {
        volumes,
        values = {},
        frame,
        idempotencyKey = randomHex(16),
        onUpload,
        resumableAboveBytes = Number.POSITIVE_INFINITY,
        urgency,
        keepText,
        signal,
      },
    ) {
      const path = `/api/services/${encodeURIComponent(serviceId)}/predictions`;
      const fields = Object.entries(values).map(([name, value]) => [name, asText(value)] as const);
      const given = (
        await Promise.all(
          Object.entries(volumes).map(async ([name, files]) => {
            const list = isList(files) ? files : [files];
            return (keepText ? list : await withoutText(name, list)).map((file) => [name, file] as const);
          }),
        )
      ).flat();
      const headers = {
        'idempotency-key': idempotencyKey,
        accept: 'application/json',
        priority: urgency === undefined ? undefined : `u=${urgency}`,
      };
      if (given.some(([, file]) => isRef(file) || sizeOf(file) > resumableAboveBytes)) {
        const inputs = await uploadAll(connection, given, onUpload, signal);
        if (inputs) {
          const named: NamedPrediction = { inputs, parameters: Object.fromEntries(fields), frame };
          return call(path, jobSchema, {
            method: 'POST',
            headers: { ...headers, 'content-type': 'application/json' },
            body: JSON.stringify(named),
            repeatable: true,
            signal,
          });
        }
      }
      const files = given.flatMap(([name, file]) => (isRef(file) ? [] : [[name, file] as const]));
      const response = await upload(
        connection,
        path,
        { fields, files },
        {
          query: { frame },
          headers,
          repeatable: true,
          onUpload,
          signal,
        },
      );
      return readJson(response, jobSchema, addressOf(connection, path), signal);
    },

    job: (id, { signal } = {}) => call(jobPath(id), jobSchema, { signal }),

    watch: (id, options = {}) => watchJob(connection, id, options),

    async wait(id, options = {}) {
      let last: Job | undefined;
      for await (const job of watchJob(connection, id, options)) last = job;
      // watchJob ends only after it gave a settled job.
      return last!;
    },

    async cancel(id, { signal } = {}) {
      const job = await client.job(id, { signal });
      if (isSettled(job)) return job;
      const canceled = await callJson(connection, jobPath(id), jobSchema, { method: 'DELETE', signal });
      // 204: it was settled in between, and is deleted now.
      return canceled ?? { ...job, state: 'canceled', outputs: [] };
    },

    async remove(id, { signal } = {}) {
      try {
        const canceled = await callJson(connection, jobPath(id), jobSchema, { method: 'DELETE', signal });
        if (!canceled) return;
        if (!isSettled(canceled)) await client.wait(id, { signal });
        await callJson(connection, jobPath(id), jobSchema, { method: 'DELETE', signal });
      } catch (error) {
        if (!(error instanceof TomaatError) || error.code !== 'NOT_FOUND') throw error;
      }
    },

    async receipt(jobId, { signal } = {}) {
      const watchdog = startWatchdog(connection, signal);
      try {
        const response = await send(
          connection,
          `${jobPath(jobId)}/receipt`,
          { signal: watchdog.signal },
          watchdog.alive,
        );
        return await response.text();
      } catch (error) {
        throw networkFault(
          watchdog.signal.aborted ? watchdog.signal.reason : error,
          addressOf(connection, `${jobPath(jobId)}/receipt`),
          signal,
        );
      } finally {
        watchdog.stop();
      }
    },

    async output(jobId, name, { format, signal } = {}) {
      const path = `${jobPath(jobId)}/outputs/${encodeURIComponent(name)}`;
      const address = addressOf(connection, path, { format });
      const watchdog = startWatchdog(connection, signal);
      try {
        // The bytes as they are: a .nii.gz must not be unpacked on the way.
        const headers = { 'accept-encoding': 'identity' };
        const response = await send(
          connection,
          path,
          { query: { format }, headers, signal: watchdog.signal },
          watchdog.alive,
        );
        const length = response.headers.get('content-length');
        const sizeBytes =
          length === null || response.headers.has('content-encoding') ? undefined : Number(length);
        const stream = guarded(response.body ?? new ReadableStream(), sizeBytes, address, watchdog, signal);
        const mediaType = response.headers.get('content-type') ?? 'application/octet-stream';
        return {
          stream,
          fileName: dispositionName(response.headers.get('content-disposition')) ?? name,
          sizeBytes,
          mediaType,
          async blob() {
            const blob = await new Response(stream as ReadableStream<Uint8Array<ArrayBuffer>>).blob();
            return new Blob([blob], { type: mediaType });
          },
        };
      } catch (error) {
        watchdog.stop();
        throw error;
      }
    },

    me: ({ signal } = {}) => call('/auth/me', meSchema, { signal }),

    async logIn(key, { signal } = {}) {
      const headers = { 'content-type': 'application/json' };
      const body = JSON.stringify({ key });
      await callJson(connection, '/auth/session', z.unknown(), { method: 'POST', headers, body, signal });
    },

    async logOut({ signal } = {}) {
      await callJson(connection, '/auth/session', z.unknown(), { method: 'DELETE', signal });
    },
  };
  return client;
}

/** The job if it succeeded; else throws what became of it. */
export function requireSuccess(job: Job): Job {
  if (job.state === 'succeeded') return job;
  if (job.error) throw errorOf(job.error);
  if (job.state === 'canceled')
    throw new TomaatError('CANCELED', 'The job was cancelled. Send it again if that was not meant.');
  if (job.state === 'failed')
    throw new TomaatError('APP_FAILED', 'The job failed without a message. The log of the server says more.');
  throw new TomaatError('NOT_READY', 'The job is not settled yet. Wait for it.');
}

/** The files of one input as they may be sent; those that are on the server already stay as they are. */
async function withoutText(input: string, files: readonly VolumeFile[]): Promise<readonly VolumeFile[]> {
  const sent = files.flatMap((file) => (isRef(file) ? [] : [file]));
  const stripped = await (await anonymousFiles(input, sent)).strip();
  return files.map((file) => (isRef(file) ? file : stripped.shift()!));
}

const sizeOf = (file: UploadFile): number => (file instanceof Blob ? file.size : file.sizeBytes);

/** Sends the files of each input one after the other; undefined if the server takes no such uploads. */
async function uploadAll(
  connection: Connection,
  files: readonly (readonly [name: string, file: VolumeFile])[],
  onUpload?: UploadProgress,
  signal?: AbortSignal,
): Promise<Record<string, FileRef[]> | undefined> {
  const totalBytes = files.reduce((sum, [, file]) => sum + (isRef(file) ? 0 : sizeOf(file)), 0);
  const inputs: Record<string, FileRef[]> = {};
  let before = 0;
  for (const [name, file] of files) {
    const report = ({ sentBytes }: { sentBytes: number }) =>
      onUpload?.({ sentBytes: before + sentBytes, totalBytes });
    const ref = isRef(file) ? file : await uploadResumable(connection, file, { onUpload: report, signal });
    if (!ref) return undefined;
    inputs[name] = [...(inputs[name] ?? []), ref];
    before += isRef(file) ? 0 : sizeOf(file);
  }
  return inputs;
}

function isRef(file: VolumeFile): file is FileRef {
  return 'upload' in file || 'blob' in file;
}

function isList(files: VolumeFile | readonly VolumeFile[]): files is readonly VolumeFile[] {
  return Array.isArray(files);
}

function asText(value: InputParameter): string {
  return Array.isArray(value) ? value.map((point) => point.join(',')).join(';') : String(value);
}

/** The name that Content-Disposition gives (RFC 6266), without any folder. */
function dispositionName(header: string | null): string | undefined {
  if (!header) return undefined;
  const extended = /filename\*\s*=\s*utf-8''([^;\s]+)/i.exec(header)?.[1];
  let name = /filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))/i
    .exec(header)
    ?.slice(1)
    .find(Boolean)
    ?.replace(/\\(.)/g, '$1');
  if (extended) {
    try {
      name = decodeURIComponent(extended);
    } catch {}
  }
  return name?.split(/[\\/]/).pop()?.replace(/^\.+/, '') || undefined;
}

/** The same bytes; a break, a silence or a short answer errs with UNREACHABLE instead of ending the stream. */
function guarded(
  body: ReadableStream<Uint8Array>,
  sizeBytes: number | undefined,
  address: string,
  watchdog: ReturnType<typeof startWatchdog>,
  signal?: AbortSignal,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let seenBytes = 0;
  // Only while somebody waits for a chunk: a slow reader is no silent server.
  watchdog.rest();
  return new ReadableStream(
    {
      async pull(controller) {
        watchdog.alive();
        try {
          const { done, value } = await reader.read();
          watchdog.rest();
          if (done && sizeBytes !== undefined && seenBytes !== sizeBytes) throw new TypeError('short answer');
          if (done) {
            watchdog.stop();
            return controller.close();
          }
          seenBytes += value.length;
          controller.enqueue(value);
        } catch (error) {
          watchdog.stop();
          throw networkFault(watchdog.signal.aborted ? watchdog.signal.reason : error, address, signal);
        }
      },
      async cancel(reason) {
        watchdog.stop();
        await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
}
