import { type Bytes, type OutputFormat, TomaatError } from '@tomaat/core';
import { z } from 'zod';
import { isSettled, type Job, type JobIn, jobSchema } from './contract/jobs.ts';
import { type LoggedOut, loggedOutSchema, type Me, meSchema } from './contract/login.ts';
import type { NamedPrediction } from './contract/predictions.ts';
import { type Fit, fitSchema, type Service, serviceSchema, type VolumeFacts } from './contract/services.ts';
import { dispositionName } from './header-value.ts';
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
import {
  type NamedBytes,
  randomHex,
  toUploadFile,
  type UploadFile,
  type UploadProgress,
  upload,
} from './upload.ts';
import { type FileRef, type ResumableOptions, removeUpload, uploadResumable } from './upload-resumable.ts';
import { type WatchOptions, watchJob } from './watch.ts';

export interface ServiceFilters {
  modality?: string;
  anatomy?: string;
  task?: string;
  /** Words that must occur in the name or description. */
  q?: string;
}

/** A value of an input that is not a file. Points are RAS+ mm. */
export type InputParameter = number | boolean | string | readonly (readonly [number, number, number])[];

/**
 * A file of a volume: a File or Blob, bytes with or without a name, a source that is read while it is sent, or the
 * result of `upload`.
 */
export type VolumeFile = UploadFile | NamedBytes | Uint8Array | ArrayBuffer | FileRef;
type SentFile = UploadFile | FileRef;

export interface PredictOptions {
  /**
   * The file of each volume input, or the result of `upload` for it; several for one volume that consists of several
   * files (.hdr and .img, the files of a DICOM series).
   */
  volumes: Readonly<Record<string, VolumeFile | readonly VolumeFile[]>>;
  values?: Readonly<Record<string, InputParameter>>;
  /** Which frame of a 4-D volume, starting at 0. */
  frame?: number;
  /** Which DICOM series, if the files of a volume contain several: its UID or its number. */
  series?: string;
  /**
   * The format of an output, by its name. Those that refer to a DICOM series (`seriesFormats`) can only be asked for
   * here; all others also from `output()`.
   */
  formats?: Readonly<Record<string, OutputFormat>>;
  /** The same key with the same request returns the same job; generated if missing. */
  idempotencyKey?: string;
  onUpload?: UploadProgress;
  /** Resumes uploads of larger files after an interruption, and does not resend files that the server already has. */
  resumableAboveBytes?: number;
  /** 0 (most urgent) to 7; 3 if missing. */
  urgency?: number;
  /** Sends files unchanged: with header text that may identify the patient, and under their own names. */
  keepText?: boolean;
  signal?: AbortSignal;
}

export interface OutputFile {
  /**
   * The bytes; the stream fails with UNREACHABLE if the connection breaks. They can be read once: from this stream,
   * or by one call of one of the methods below. A second read rejects with BAD_REQUEST.
   */
  readonly stream: ReadableStream<Bytes>;
  readonly fileName: string;
  readonly sizeBytes?: number;
  readonly mediaType: string;
  blob(): Promise<Blob>;
  bytes(): Promise<Bytes>;
  /** The bytes as UTF-8 text. */
  text(): Promise<string>;
  /**
   * The parsed text of Measurements, and of other outputs requested with the format json. UPSTREAM if it is not JSON.
   */
  json<T = unknown>(): Promise<T>;
}

interface Signalled {
  signal?: AbortSignal;
}

interface KeepText {
  /** Sends the file unchanged, under its own name; otherwise text that may identify the patient is removed. */
  keepText?: boolean;
}

export interface Client {
  readonly baseUrl: string;
  services(filters?: ServiceFilters, options?: Signalled): Promise<Service[]>;
  service(id: string, options?: Signalled): Promise<Service>;
  /** Whether volumes fit a service, and what a prediction would need, from their headers alone: nothing is uploaded. */
  fit(serviceId: string, inputs: Readonly<Record<string, VolumeFacts>>, options?: Signalled): Promise<Fit>;
  /**
   * Sends a file that several predictions may use, within an hour of its last use. An interruption costs only the
   * bytes in flight, and a file that the server already has is not sent. Undefined if the server does not support
   * such uploads.
   */
  upload(
    file: Exclude<VolumeFile, FileRef>,
    options?: ResumableOptions & KeepText,
  ): Promise<FileRef | undefined>;
  /**
   * Deletes the result of `upload` by its id; a job that uses it keeps it until it settles. A missing upload is not
   * an error.
   */
  removeUpload(id: string, options?: Signalled): Promise<void>;
  /**
   * Uploads and returns the job, which is then stored on the server's disk. Repeats an interrupted upload (same key,
   * same job).
   */
  predict(serviceId: string, options: PredictOptions): Promise<Job>;
  job(id: string, options?: Signalled): Promise<Job>;
  /** The job at every change, until it is settled. */
  watch(id: string, options?: WatchOptions): AsyncIterable<Job>;
  /** The settled job, whatever its outcome; see `requireSuccess`. */
  wait(id: string, options?: WatchOptions): Promise<Job>;
  /** Cancels a queued or running job; a settled one is left unchanged, with its results. */
  cancel(id: string, options?: Signalled): Promise<Job>;
  /** Keeps a settled job with its results for another period from now. CONFLICT if the server keeps it no longer. */
  keep(id: string, options?: Signalled): Promise<Job>;
  /** Cancels the job if necessary, then deletes it with its results. A missing job is not an error. */
  remove(id: string, options?: Signalled): Promise<void>;
  /** The signed receipt of a settled job; see `verifyReceipt`. */
  receipt(jobId: string, options?: Signalled): Promise<string>;
  output(jobId: string, name: string, options?: Signalled & { format?: string }): Promise<OutputFile>;
  /**
   * The current login at the server, and the ways to log in; a registry reports them too.
   * @param options.page address of the calling page, to report at once whether the server accepts its requests
   */
  me(options?: Signalled & { page?: string }): Promise<Me>;
  /** In a page: opens a session for this browser. The key is not kept. */
  logIn(key: string, options?: Signalled): Promise<void>;
  /**
   * In a page: ends the session here. The result says where to end the session at an OpenID Connect issuer, if there
   * is one.
   */
  logOut(options?: Signalled): Promise<LoggedOut | undefined>;
}

const formatsText = (formats: Readonly<Record<string, string>>): string | undefined =>
  Object.entries(formats)
    .map((pair) => pair.join(':'))
    .join(',') || undefined;

/**
 * A newer server may send more about an input than this version knows: only what is used is validated, the rest is
 * ignored.
 */
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
 * A client of a TOMAAT server, for browsers and Node. All errors are TomaatErrors: with the code and message of the
 * server's response, or UNREACHABLE if the network failed. An aborted signal rejects with its own reason.
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

  /**
   * For servers without that endpoint, where DELETE is the only way to cancel. DELETE removes a job that is already
   * settled, so the state is checked first. NOT_FOUND if there is no such job. CONFLICT if the job was settled and
   * deleted meanwhile.
   */
  async function cancelByDelete(id: string, signal?: AbortSignal): Promise<Job> {
    const job = await client.job(id, { signal });
    if (isSettled(job)) return job;
    const canceled = await callJson(connection, jobPath(id), jobSchema, { method: 'DELETE', signal });
    if (canceled) return canceled;
    throw new TomaatError(
      'CONFLICT',
      'The job ended before it could be cancelled, and this server, an older one, has deleted its results. Send the prediction again if you need them.',
    );
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

    async upload(given, { keepText, ...options } = {}) {
      const file = toUploadFile('upload()', given);
      const [sent] =
        keepText || isAsIs(file) ? [file] : await (await anonymousFiles('volume', [file])).strip();
      return uploadResumable(connection, sent, options);
    },

    removeUpload: (id, { signal } = {}) => removeUpload(connection, id, signal),

    async predict(
      serviceId,
      {
        volumes,
        values = {},
        frame,
        series,
        formats,
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
            const list = (isList(files) ? files : [files]).map((file) =>
              isRef(file) ? file : toUploadFile(name, file),
            );
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
          const named: NamedPrediction = {
            inputs,
            parameters: Object.fromEntries(fields),
            ...{ frame, series, formats },
          };
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
          query: { frame, series, formats: formats && formatsText(formats) },
          headers,
          repeatable: true,
          onUpload,
          signal,
        },
      );
      return readJson(response, jobSchema, addressOf(connection, path), signal);
    },

    fit: (id, inputs, { signal } = {}) =>
      call(`/api/services/${encodeURIComponent(id)}/fit`, fitSchema, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ inputs }),
        repeatable: true,
        signal,
      }),

    job: (id, { signal } = {}) => call(jobPath(id), jobSchema, { signal }),

    watch: (id, options = {}) => watchJob(connection, id, options),

    async wait(id, options = {}) {
      let last: Job | undefined;
      for await (const job of watchJob(connection, id, options)) last = job;
      // watchJob ends only after it has yielded a settled job.
      return last!;
    },

    keep: (id, { signal } = {}) =>
      call(`${jobPath(id)}/keep`, jobSchema, { method: 'POST', repeatable: true, signal }),

    async cancel(id, { signal } = {}) {
      try {
        return await call(`${jobPath(id)}/cancel`, jobSchema, { method: 'POST', repeatable: true, signal });
      } catch (error) {
        const isUnknown =
          error instanceof TomaatError && (error.code === 'NOT_FOUND' || error.code === 'METHOD_NOT_ALLOWED');
        if (!isUnknown) throw error;
        return cancelByDelete(id, signal);
      }
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
        // The raw bytes: a .nii.gz must not be decompressed on the way.
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
          ...readersOf(stream, name, mediaType),
        };
      } catch (error) {
        watchdog.stop();
        throw error;
      }
    },

    me: ({ signal, page } = {}) => call('/auth/me', meSchema, { query: { page }, signal }),

    async logIn(key, { signal } = {}) {
      const headers = { 'content-type': 'application/json' };
      const body = JSON.stringify({ key });
      await callJson(connection, '/auth/session', z.unknown(), { method: 'POST', headers, body, signal });
    },

    logOut: ({ signal } = {}) =>
      callJson(connection, '/auth/session', loggedOutSchema, { method: 'DELETE', signal }),
  };
  return client;
}

/** The job if it succeeded; otherwise throws its outcome. */
export function requireSuccess(job: Job): JobIn<'succeeded'> {
  if (job.state === 'succeeded') return job;
  if (isSettled(job)) throw errorOf(job.error);
  throw new TomaatError('NOT_READY', 'The job is not settled yet. Wait for it.');
}

/**
 * The files of one input, ready to send. Those already on the server, and those to be sent unchanged, are left alone.
 */
async function withoutText(input: string, files: readonly SentFile[]): Promise<readonly SentFile[]> {
  const sent = files.flatMap((file) => (isRef(file) || isAsIs(file) ? [] : [file]));
  const stripped = await (await anonymousFiles(input, sent)).strip();
  return files.map((file) => (isRef(file) || isAsIs(file) ? file : stripped.shift()!));
}

const isAsIs = (file: UploadFile): boolean => !(file instanceof Blob) && file.asIs === true;

const sizeOf = (file: UploadFile): number => (file instanceof Blob ? file.size : file.sizeBytes);

/** Sends the files of each input one after the other; undefined if the server does not support such uploads. */
async function uploadAll(
  connection: Connection,
  files: readonly (readonly [name: string, file: SentFile])[],
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
  return typeof file === 'object' && file !== null && ('upload' in file || 'blob' in file);
}

function isList(files: VolumeFile | readonly VolumeFile[]): files is readonly VolumeFile[] {
  return Array.isArray(files);
}

function asText(value: InputParameter): string {
  return Array.isArray(value) ? value.map((point) => point.join(',')).join(';') : String(value);
}

/** The ways to read a whole output. */
function readersOf(
  stream: ReadableStream<Bytes>,
  name: string,
  mediaType: string,
): Pick<OutputFile, 'blob' | 'bytes' | 'text' | 'json'> {
  const whole = () => {
    try {
      return new Response(stream);
    } catch (cause) {
      throw new TomaatError(
        'BAD_REQUEST',
        `The output ${name} was read before, and its bytes come once. Keep what the first read gave, or call output() again.`,
        { cause },
      );
    }
  };
  return {
    blob: async () => new Blob([await whole().blob()], { type: mediaType }),
    bytes: async () => new Uint8Array(await whole().arrayBuffer()),
    text: async () => await whole().text(),
    async json<T>() {
      const text = await whole().text();
      try {
        return JSON.parse(text) as T;
      } catch (cause) {
        throw new TomaatError(
          'UPSTREAM',
          `The output ${name} is not JSON but ${mediaType}. Ask for the format json where its type has it: output(id, '${name}', { format: 'json' }).`,
          { cause },
        );
      }
    },
  };
}

/**
 * The same bytes; a broken connection, a timeout or a short response makes the stream fail with UNREACHABLE instead
 * of ending it.
 */
function guarded(
  body: ReadableStream<Bytes>,
  sizeBytes: number | undefined,
  address: string,
  watchdog: ReturnType<typeof startWatchdog>,
  signal?: AbortSignal,
): ReadableStream<Bytes> {
  const reader = body.getReader();
  let seenBytes = 0;
  // Only while waiting for a chunk: a slow reader does not make the server silent.
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
