import {
  attemptSchema,
  claimSchema,
  completeSchema,
  failSchema,
  handBackSchema,
  touchSchema,
} from '@tomaat/client';
import { isReadBack, type OutputType, outputFormats, TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { countBytes } from '../intake/byte-counter.ts';
import { readJson } from '../intake/read-json.ts';
import { processor } from '../runtimes/devices.ts';
import type { InputFile, OutputFile } from '../store/jobs/job-records.ts';
import { waitForJob } from '../worker/local-source.ts';
import type { ServerContext } from './context.ts';
import type { ServerMetrics } from './metrics.ts';
import { clientGone } from './send.ts';

/**
 * For workers on other machines: they ask for jobs (a request that waits for one), fetch inputs, report progress,
 * deliver outputs. No connection is made to them, so they may be behind any firewall. Each needs a key with the scope `worker` (access/table.ts).
 * Every request carries the number of the attempt: a worker that has lost a job gets CONFLICT, whatever it still sends.
 */

export interface WorkerRoutes {
  /** Takes jobs back from silent workers, and releases the outputs that they delivered. Call it every second. */
  sweep(): Promise<string[]>;
}

interface JobParams {
  Params: { id: string; digest: string; name: string };
  Querystring: { attempt?: string; digest?: string; version?: string };
}

const maxBodyBytes = 1024 * 1024;

export function registerWorkerRoutes(
  app: FastifyInstance,
  context: ServerContext,
  { metrics }: { metrics: ServerMetrics },
): WorkerRoutes {
  const { jobs, blobs, services } = context;
  /** Inputs of the jobs that workers hold, by job. */
  const claimed = new Map<string, { attempt: number; inputs: readonly InputFile[] }>();

  async function requireAttempt(id: string, attempt: number): Promise<void> {
    if (await jobs.isRunning(id, attempt)) return;
    throw new TomaatError(
      'CONFLICT',
      'This job is no longer yours: it was cancelled, or another worker has it. Drop it.',
    );
  }

  /** The length of an answer is the size that the worker states for an output: it must be true. */
  async function requireSize(
    name: string,
    { digest, sizeBytes }: Pick<OutputFile, 'digest' | 'sizeBytes'>,
  ): Promise<void> {
    if ((await blobs.stat(digest))?.sizeBytes === sizeBytes) return;
    throw new TomaatError(
      'BAD_REQUEST',
      `The output ${name.slice(0, 60)} does not have ${sizeBytes} bytes.`,
      {
        field: 'sizeBytes',
      },
    );
  }

  async function letGo(id: string, attempt: number): Promise<void> {
    if (claimed.get(id)?.attempt === attempt) claimed.delete(id);
    await jobs.releaseAll(holderOf(id, attempt));
  }

  /** During an update the server of the claim may have had another version of the app: the receipt would name the wrong one. */
  async function requireVersion(
    id: string,
    attempt: number,
    computedBy: string,
    here: string,
  ): Promise<void> {
    if (computedBy === here) return;
    await jobs.requeue(id, attempt, 'handed back');
    await letGo(id, attempt);
    throw new TomaatError(
      'CONFLICT',
      `The outputs are of version ${computedBy.slice(0, 100)} of the app, and this server has ${here}. The job is queued again: update the worker.`,
    );
  }

  /** After a restart, and at another server than that of the claim, memory is empty while the worker has the job. */
  async function recall(id: string, attempt: number) {
    await requireAttempt(id, attempt);
    const known = claimed.get(id);
    if (known?.attempt === attempt) return known;
    const recalled = { attempt, inputs: await jobs.inputsOf(id) };
    claimed.set(id, recalled);
    return recalled;
  }

  app.get('/api/worker', async () => {
    return {
      leaseMs: jobs.leaseMs,
      maxVoxels: context.maxVoxels,
      services: services.apps.map(({ manifest }) => ({ id: manifest.id, version: manifest.version })),
    };
  });

  app.post('/api/worker/claim', async (request, reply) => {
    const { worker, services: offered, waitSeconds } = await readBody(request, claimSchema);
    context.admission.requireOpen();
    context.processing.sawWorker();
    const served = new Map(services.apps.map(({ manifest }) => [manifest.id, manifest.version]));
    const ids = offered.filter(({ id, version }) => served.get(id) === version).map(({ id }) => id);
    if (ids.length === 0) {
      const wanted = [...served].map(([id, version]) => `${id} ${version}`).join(', ');
      const has = offered.map(({ id, version }) => `${id} ${version}`).join(', ');
      throw new TomaatError(
        'CONFLICT',
        `This worker's apps (${has}) are not served here. Give it one of: ${wanted}.`,
      );
    }
    const gone = clientGone(reply);
    const signal = AbortSignal.any([
      gone,
      context.admission.closing,
      AbortSignal.timeout(waitSeconds * 1000),
    ]);
    const job = await waitForJob(jobs, ids, signal, worker);
    if (!job) return reply.code(204).send();
    if (gone.aborted) {
      await jobs.requeue(job.id, job.attempt, 'handed back');
      return reply.code(204).send();
    }
    claimed.set(job.id, { attempt: job.attempt, inputs: job.inputs });
    return job;
  });

  app.post<JobParams>('/api/worker/jobs/:id/touch', async (request, reply) => {
    const { attempt, stage, fraction } = await readBody(request, touchSchema);
    const at = stage === undefined || fraction === undefined ? undefined : { stage, fraction };
    if (!(await jobs.touch(request.params.id, attempt, at))) await requireAttempt(request.params.id, attempt);
    return reply.code(204).send();
  });

  app.get<JobParams>('/api/worker/jobs/:id/inputs/:digest', async (request, reply) => {
    const { id, digest } = request.params;
    const { inputs } = await recall(id, attemptOf(request));
    const input = inputs.find((candidate) => candidate.digest === digest);
    if (!input) throw new TomaatError('NOT_FOUND', 'The job has no such input.');
    await blobs.check(input);
    const body = blobs.open(input);
    return reply.header('content-length', input.sizeBytes).type('application/octet-stream').send(body);
  });

  app.put<JobParams>('/api/worker/jobs/:id/outputs/:name', async (request, reply) => {
    const { id } = request.params;
    const attempt = attemptOf(request);
    await recall(id, attempt);
    const length = request.headers['content-length'];
    const body = countBytes(request.raw, { maxUploadBytes: maxOutputBytes }, length);
    await using writer = await blobs.create({ expectedBytes: Number(length ?? 0) });
    for await (const chunk of body) {
      await writer.write(chunk);
      await jobs.touch(id, attempt);
    }
    const holder = holderOf(id, attempt);
    const { digest } = await writer.commit((ref) => jobs.hold(ref.digest, holder));
    if (!(await jobs.isRunning(id, attempt))) await jobs.releaseAll(holder);
    await requireAttempt(id, attempt);
    if (digest !== request.query.digest) {
      throw new TomaatError(
        'BAD_REQUEST',
        'The SHA-256 of the output is not the announced one. Send it again.',
        { field: 'digest' },
      );
    }
    return reply.code(204).send();
  });

  app.post<JobParams>('/api/worker/jobs/:id/complete', async (request) => {
    const { id } = request.params;
    const {
      attempt,
      seconds,
      device = processor.device,
      rewrites,
      outputs,
    } = await readBody(request, completeSchema);
    // The answer to the first of two equal requests may have been lost.
    if (await jobs.hasSucceeded(id, attempt)) return { accepted: true };
    await requireAttempt(id, attempt);
    const job = await jobs.get(id);
    const manifest = job && services.find(job.service).manifest;
    const { version } = request.query;
    if (manifest && version !== undefined) await requireVersion(id, attempt, version, manifest.version);
    const held = new Set(await jobs.heldFor(holderOf(id, attempt)));
    const arrived = ({ digest }: { digest: string }) => held.has(digest);
    const missing = outputs.filter((output) => !filesOf(output).every(arrived)).map(({ name }) => name);
    if (missing.length > 0) {
      throw new TomaatError(
        'NOT_READY',
        `The outputs ${missing.join(', ')} have not arrived. Send them, then complete the job.`,
        { detail: { missing } },
      );
    }
    if (manifest) checkOutputs(manifest.outputs, outputs);
    for (const output of outputs) for (const file of filesOf(output)) await requireSize(output.name, file);
    const accepted = await jobs.settle(id, attempt, {
      state: 'succeeded',
      outputs,
      seconds,
      device,
      rewrites,
    });
    if (accepted && job) metrics.predictionSettled(job.service, 'succeeded', seconds);
    await letGo(id, attempt);
    if (!accepted) await requireAttempt(id, attempt);
    return { accepted };
  });

  app.post<JobParams>('/api/worker/jobs/:id/fail', async (request) => {
    const { id } = request.params;
    const { attempt, error } = await readBody(request, failSchema);
    const job = await jobs.get(id);
    const accepted = await jobs.settle(id, attempt, { state: 'failed', error });
    if (accepted && job) metrics.predictionSettled(job.service, error.code);
    await letGo(id, attempt);
    return { accepted };
  });

  app.post<JobParams>('/api/worker/jobs/:id/hand-back', async (request, reply) => {
    const { attempt } = await readBody(request, handBackSchema);
    await jobs.requeue(request.params.id, attempt, 'handed back');
    await letGo(request.params.id, attempt);
    return reply.code(204).send();
  });

  return {
    async sweep() {
      const lapsed = await jobs.lapse();
      for (const [id, { attempt }] of claimed)
        if (!(await jobs.isRunning(id, attempt))) await letGo(id, attempt);
      return lapsed;
    },
  };
}

const maxOutputBytes = 16 * 2 ** 30;

/** For whom the outputs that a worker has delivered are held until the attempt ends. */
const holderOf = (id: string, attempt: number) => `attempt ${attempt} of ${id}`;

/** Throws if a worker's outputs do not match the service: each output once, of its type, one of them primary. */
function checkOutputs(declared: Record<string, { type: string }>, outputs: readonly OutputFile[]): void {
  const names = outputs.map(({ name }) => name);
  const missing = Object.keys(declared).filter((name) => !names.includes(name));
  if (missing.length > 0 || new Set(names).size < names.length || countPrimary(outputs) !== 1) {
    throw new TomaatError(
      'BAD_REQUEST',
      `The outputs are not those of the service, each once and one of them primary: ${Object.keys(declared).join(', ')}. Give the worker the app that is served here.`,
    );
  }
  for (const { name, type, format, kept } of outputs) {
    const formats: Record<string, readonly string[]> = outputFormats;
    const isDeclared = Object.hasOwn(declared, name) && declared[name].type === type;
    const isKnown = isDeclared && formats[type].includes(format);
    if (isKnown && (kept === undefined || isReadBack(type as OutputType, kept.format))) continue;
    throw new TomaatError(
      'BAD_REQUEST',
      `The service has no output ${name.slice(0, 60)} of this type and format. Give the worker the app that is served here.`,
    );
  }
}

/** The file of an output, and the one that is kept besides. */
const filesOf = (output: OutputFile) => [output, ...(output.kept ? [output.kept] : [])];

const countPrimary = (outputs: readonly OutputFile[]) => outputs.filter(({ primary }) => primary).length;

function attemptOf(request: FastifyRequest<JobParams>): number {
  const parsed = attemptSchema.safeParse(Number(request.query.attempt));
  if (parsed.success) return parsed.data;
  throw new TomaatError(
    'BAD_REQUEST',
    'The number of the attempt is missing. Send ?attempt=N as the claim gave it.',
    { field: 'attempt' },
  );
}

const readBody = <T extends z.ZodType>(request: FastifyRequest, schema: T): Promise<z.output<T>> =>
  readJson(request, schema, { maxBytes: maxBodyBytes, hint: 'Is the worker of the server’s version?' });
