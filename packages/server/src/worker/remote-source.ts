import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { claimedJobSchema, type Welcome, welcomeSchema } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import { writeAll } from '../store/files/disk.ts';
import type { ClaimedJob, InputFile } from '../store/jobs/job-records.ts';
import { filesOf, type JobSource, toOutputFile } from './job-source.ts';
import { createLeases, type Leases } from './leases.ts';
import type { WrittenFile } from './messages.ts';
import { createRemoteServer, type RemoteServer, type RemoteServerOptions } from './remote-server.ts';

export interface RemoteOptions extends RemoteServerOptions {
  /** Name of this worker, unique: letters, digits, `.:@-_`. */
  name: string;
  /** The versions of the apps, by id: a server with another version of an app gives no jobs of it. */
  versions: ReadonlyMap<string, string>;
  /** How long the server may be out of reach of `greet()` and `claim()` before they throw, ms; as long as it is if missing. */
  patienceMs?: number;
}

const longestClaimMs = 20_000;
/** A long poll without an answer for this time after its end is abandoned: the server would have answered that there is no job. */
const answerLimitMs = 10_000;

export interface RemoteSource extends JobSource {
  /** What the server reports about itself. Waits while the server is unreachable, for `patienceMs`; throws if it refuses. */
  greet(signal: AbortSignal): Promise<Welcome>;
}

/** The jobs of a server elsewhere, over HTTP (remote-server.ts). Each is held under a lease (leases.ts). */
export function remoteSource({ name, versions, patienceMs, ...options }: RemoteOptions): RemoteSource {
  const { logger } = options;
  const claimMs = shareOf(patienceMs ?? longestClaimMs);
  const server = createRemoteServer(options);
  const leases = createLeases(server, logger);
  const { askJson, patiently } = server;
  const pathOf = (job: ClaimedJob, action: string) => `/api/worker/jobs/${job.id}/${action}`;

  return {
    greet: (signal) =>
      patiently(
        signal,
        'the first request',
        async () => {
          const limited = AbortSignal.any([signal, AbortSignal.timeout(10_000)]);
          const welcome = welcomeSchema.safeParse(await askJson('GET', '/api/worker', undefined, limited));
          if (!welcome.success)
            throw new TomaatError(
              'UPSTREAM',
              `${server.base} is not a TOMAAT server of this version. Check the address.`,
            );
          leases.leaseMs = welcome.data.leaseMs;
          return welcome.data;
        },
        patienceMs,
      ),

    async claim(services, signal) {
      const offered = services.map((id) => ({ id, version: versions.get(id) ?? '' }));
      const request = { worker: name, services: offered, waitSeconds: claimMs / 1000 };
      try {
        let askedMs = 0;
        const ask = () => {
          askedMs = performance.now();
          const limit = AbortSignal.any([signal, AbortSignal.timeout(claimMs + answerLimitMs)]);
          return askJson('POST', '/api/worker/claim', request, limit);
        };
        const found = await patiently(signal, 'the request for a job', ask, patienceMs);
        if (found === undefined) return undefined;
        const job = claimedJobSchema.parse(found) as ClaimedJob;
        // The lease began when the job was given out: after the request was sent, at the latest just now.
        leases.begin(job, Math.max(askedMs, performance.now() - 1000));
        return job;
      } catch (error) {
        if (signal.aborted) return undefined;
        throw error;
      }
    },

    async inputPath(job, input, folder, signal) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const path = join(folder, `input-${job.inputs.indexOf(input)}`);
      await patiently(signal, 'the request for an input', () => fetchInput(server, job, input, path, signal));
      return path;
    },

    isRunning: (job) => leases.get(job.id)?.job.attempt === job.attempt,

    touch(job, stage, fraction) {
      const lease = leases.get(job.id);
      if (lease) lease.at = { stage, fraction };
    },

    complete: (job, outputs, seconds, { device, rewrites }) =>
      settle(server, leases, job, async (signal) => {
        // Not in the body: servers of 0.1.0 refuse what they do not know there.
        const computedBy = new URLSearchParams({ version: versions.get(job.service) ?? '' });
        const result = {
          attempt: job.attempt,
          seconds,
          // Servers of 0.1.0 know neither, and take the processor for granted.
          ...(device !== 'cpu' && { device }),
          ...(rewrites.length > 0 && { rewrites }),
          outputs: outputs.map(toOutputFile),
        };
        for (;;) {
          for (const output of outputs)
            for (const file of filesOf([output])) await bringFile(server, job, output.name, file, signal);
          try {
            await askJson('POST', `${pathOf(job, 'complete')}?${computedBy}`, result, signal);
            return true;
          } catch (error) {
            // The server was restarted in between, and has swept what belonged to nothing.
            if (!(error instanceof TomaatError && error.code === 'NOT_READY')) throw error;
          }
        }
      }),

    fail: (job, { code, message, field, detail }) =>
      settle(server, leases, job, async (signal) => {
        const failure = { attempt: job.attempt, error: { code, message, field, detail } };
        const answer = await askJson('POST', pathOf(job, 'fail'), failure, signal);
        return (answer as { accepted?: boolean } | undefined)?.accepted === true;
      }),

    async handBack(job) {
      leases.end(job);
      const limit = AbortSignal.timeout(3000);
      await askJson('POST', pathOf(job, 'hand-back'), { attempt: job.attempt }, limit).catch(
        (error: Error) => {
          logger.warn(
            { job: job.id, reason: error.message },
            'the job could not be handed back; its lease will end',
          );
        },
      );
    },

    onCancel: leases.onLost,
  };
}

/** The longest wait of a request for a job that divides this time evenly, ms: after so many waits the time is over. */
function shareOf(ms: number): number {
  return Math.ceil(ms / Math.max(1, Math.ceil(ms / longestClaimMs)));
}

/** Settles a job, however often the connection fails; false if it is no longer ours. */
async function settle(
  server: RemoteServer,
  leases: Leases,
  job: ClaimedJob,
  work: (signal: AbortSignal) => Promise<boolean>,
): Promise<boolean> {
  const lease = leases.get(job.id);
  if (!lease) return false;
  try {
    return await server.patiently(lease.ended, 'the end of a job', () => work(lease.ended));
  } catch (error) {
    if (lease.ended.aborted || (error instanceof TomaatError && error.code === 'CONFLICT')) return false;
    throw error;
  } finally {
    leases.end(job);
  }
}

/** Fetches an input into a file; UNREACHABLE if it did not arrive as its digest says. */
async function fetchInput(
  server: RemoteServer,
  job: ClaimedJob,
  { digest }: InputFile,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const from = `/api/worker/jobs/${job.id}/inputs/${digest}?attempt=${job.attempt}`;
  const response = await server.ask('GET', from, { signal });
  const hash = createHash('sha256');
  await using file = await open(path, 'w', 0o600);
  let sizeBytes = 0;
  try {
    for await (const chunk of response.body as ReadableStream<Uint8Array>) {
      hash.update(chunk);
      await writeAll(file, chunk, sizeBytes);
      sizeBytes += chunk.length;
    }
  } catch (error) {
    if (signal.aborted || (error as NodeJS.ErrnoException).syscall === 'write') throw error;
    throw new TomaatError('UNREACHABLE', 'The input was cut off.', { cause: error });
  }
  if (`sha256:${hash.digest('hex')}` !== digest)
    throw new TomaatError('UNREACHABLE', 'The input arrived damaged.');
}

/** Sends a file of an output, which the server keeps if its bytes have the digest. */
async function bringFile(
  server: RemoteServer,
  job: ClaimedJob,
  name: string,
  file: WrittenFile,
  signal: AbortSignal,
): Promise<void> {
  const query = `attempt=${job.attempt}&digest=${encodeURIComponent(file.digest)}`;
  await server.ask('PUT', `/api/worker/jobs/${job.id}/outputs/${name}?${query}`, {
    body: Readable.toWeb(createReadStream(file.path, { highWaterMark: 256 * 1024 })) as ReadableStream,
    headers: { 'content-type': 'application/octet-stream', 'content-length': String(file.sizeBytes) },
    signal,
  });
}
