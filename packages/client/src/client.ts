import { TomaatError } from '@tomaat/core';
import { z } from 'zod';
import { isSettled, type Job, type JobIn, jobSchema } from './contract/jobs.ts';
import { type LoggedOut, loggedOutSchema, type Me, meSchema } from './contract/login.ts';
import { type Fit, fitSchema, type Service, serviceSchema, type VolumeFacts } from './contract/services.ts';
import {
  addressOf,
  type ConnectionOptions,
  callForJson,
  callJson,
  errorOf,
  jobPath,
  networkFault,
  openConnection,
  send,
  startWatchdog,
} from './http.ts';
import { anonymousFiles } from './identifying-text.ts';
import { type OutputFile, openFile, openOutput } from './output-file.ts';
import { isAsIs, type PredictOptions, predict, type VolumeFile } from './prediction.ts';
import { toUploadFile } from './upload.ts';
import { type FileRef, type ResumableOptions, removeUpload, uploadResumable } from './upload-resumable.ts';
import { type WatchOptions, watchJob } from './watch.ts';

export interface ServiceFilters {
  modality?: string;
  anatomy?: string;
  task?: string;
  /** Words that must occur in the name or description. */
  q?: string;
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
  /**
   * The tomaat.yaml of a service that its callers may compute themselves (`compute`); `parseManifest()` of @tomaat/core
   * reads it. FORBIDDEN for all others.
   */
  manifest(serviceId: string, options?: Signalled): Promise<string>;
  /**
   * The file of a network of such a service. Check its SHA-256 before you use it.
   * @param options.sha256 which one, by its digest in the manifest; needed where there are several
   */
  model(serviceId: string, options?: Signalled & { sha256?: string }): Promise<OutputFile>;
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
  const call = <T>(path: string, schema: z.ZodType<T>, options?: Parameters<typeof callForJson>[3]) =>
    callForJson(connection, path, schema, options);

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

    predict: (serviceId, options) => predict(connection, serviceId, options),

    async manifest(id, { signal } = {}) {
      const file = await openFile(connection, `/api/services/${encodeURIComponent(id)}/manifest`, {
        name: `manifest of ${id}`,
        fileName: 'tomaat.yaml',
        query: {},
        signal,
      });
      return file.text();
    },

    model: (id, { sha256, signal } = {}) =>
      openFile(connection, `/api/services/${encodeURIComponent(id)}/model`, {
        name: `model of ${id}`,
        fileName: 'model.onnx',
        query: { sha256 },
        signal,
      }),

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

    output: (jobId, name, options) => openOutput(connection, jobId, name, options),

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
