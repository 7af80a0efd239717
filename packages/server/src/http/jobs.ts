import { setTimeout as delay } from 'node:timers/promises';
import type { Job } from '@tomaat/client';
import { type OutputFormat, type OutputType, outputFormats, TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { toProblem } from '../problem/problem.ts';
import type { JobRecord } from '../store/job-records.ts';
import type { Jobs } from '../store/jobs.ts';
import type { ServerContext } from './context.ts';
import { keepAlive } from './keep-alive.ts';
import { outputFileName, requestedFormat, sendOutput } from './outputs.ts';
import { receivePrediction } from './receive-prediction.ts';
import { takeOver } from './send.ts';

/** The API's faces of a job: create, look, follow, fetch, cancel, delete. */

const maxWaitSeconds = 300;
/** Progress is told at most so often; the end at once. */
const eventEveryMs = 250;
const pingEveryMs = 15_000;
const eventsMs = 60_000;

export function registerJobRoutes(app: FastifyInstance, context: ServerContext): void {
  const { jobs, services } = context;

  app.post<{ Params: { id: string } }>('/api/services/:id/predictions', async (request, reply) => {
    const service = services.find(request.params.id);
    const owner = context.ownerOf(request);
    const idempotencyKey = idempotencyKeyOf(request);
    const urgency = urgencyOf(request);
    let id: string;
    {
      await using received = await receivePrediction(request, service, 'api', context);
      const { inputs, request: jobRequest, fingerprint } = received;
      ({ id } = await jobs.create({
        service: service.manifest.id,
        owner,
        request: jobRequest,
        inputs,
        idempotencyKey,
        fingerprint,
        urgency,
        limits: request.principal?.limits,
      }));
    }
    const waitSeconds = waitOf(request);
    const stopKeepingAlive = keepAlive(request.raw, reply.raw, context.interimAfterMs);
    const job = await (waitSeconds > 0
      ? settledWithin(jobs, id, waitSeconds, context.admission.ending)
      : jobs.get(id)
    ).finally(stopKeepingAlive);
    if (!job) throw new TomaatError('NOT_FOUND', 'The job was deleted while it was waited for.');
    if (waitSeconds > 0) reply.header('preference-applied', `wait=${waitSeconds}`);
    const isSettled = job.state !== 'queued' && job.state !== 'running';
    return reply
      .code(isSettled && waitSeconds > 0 ? 200 : 202)
      .header('location', context.address.pathOf(`/api/jobs/${id}`))
      .send(await presentJob(job, context));
  });

  app.get<{ Params: { id: string } }>('/api/jobs/:id', async (request, reply) => {
    reply.header('cache-control', 'no-store');
    return presentJob(await findJob(request, context), context);
  });

  app.get<{ Params: { id: string } }>('/api/jobs/:id/events', async (request, reply) => {
    await findJob(request, context);
    await streamEvents(request, reply, context);
  });

  app.post<{ Params: { id: string } }>('/api/jobs/:id/cancel', async (request, reply) => {
    const job = await findJob(request, context);
    await jobs.cancel(job.id);
    reply.header('cache-control', 'no-store');
    return presentJob(await findJob(request, context), context);
  });

  app.delete<{ Params: { id: string } }>('/api/jobs/:id', async (request, reply) => {
    const job = await findJob(request, context);
    if (await jobs.cancel(job.id)) {
      const canceled = await jobs.get(job.id);
      if (canceled) return presentJob(canceled, context);
    } else await jobs.remove(job.id);
    // Another request may have been faster: the job is gone, which is what both wanted.
    return reply.code(204).send();
  });

  app.get<{ Params: { id: string } }>('/api/jobs/:id/receipt', async (request, reply) => {
    const job = await findJob(request, context);
    if (job.state === 'queued' || job.state === 'running') {
      throw new TomaatError('NOT_READY', `The job is ${job.state}. Ask again when it is settled.`);
    }
    return reply
      .header('cache-control', 'no-store')
      .type('application/jose')
      .send(await signedReceipt(job.id, context));
  });

  app.get<{ Params: { id: string; name: string } }>('/api/jobs/:id/outputs/:name', async (request, reply) => {
    const job = await findJob(request, context);
    if (job.state === 'queued' || job.state === 'running') {
      throw new TomaatError('NOT_READY', `The job is ${job.state}. Ask again when it has succeeded.`);
    }
    if (job.error) throw TomaatError.from(job.error);
    const output = job.outputs.find((candidate) => candidate.name === request.params.name);
    if (!output) {
      const names = job.outputs.map((candidate) => candidate.name).join(', ');
      throw new TomaatError('NOT_FOUND', `The job has no output of that name. It has: ${names}.`);
    }
    return sendOutput(reply, job, output, requestedFormat(request, output), context);
  });
}

/** The job of an address; another caller's job is as little there as none. */
export async function findJob(
  request: FastifyRequest<{ Params: { id: string } }>,
  context: ServerContext,
): Promise<JobRecord> {
  const job = await context.jobs.get(request.params.id);
  if (job && isOwn(request, job, context)) return job;
  throw new TomaatError(
    'NOT_FOUND',
    'There is no such job: it never existed, it was deleted or has expired, or another login sent it. Check the address and the API key, or send the prediction again.',
  );
}

/** Whether a job is the caller's; that it is somebody else's goes to the audit log alone. */
export function isOwn(
  request: FastifyRequest,
  job: Pick<JobRecord, 'id' | 'owner'>,
  { audit, ownerOf }: Pick<ServerContext, 'audit' | 'ownerOf'>,
): boolean {
  const who = ownerOf(request);
  if (job.owner === who) return true;
  audit.record('access.denied', {
    who,
    keyId: request.principal?.keyId,
    job: job.id,
    outcome: 'NOT_FOUND',
  });
  return false;
}

/** The signed receipt of a settled job: a compact JWS, the same whenever it is asked for. */
export async function signedReceipt(
  id: string,
  { jobs, identity }: Pick<ServerContext, 'jobs' | 'identity'>,
): Promise<string> {
  const receipt = await jobs.receipt(id);
  if (receipt) return identity.sign('tomaat-receipt+jws', receipt);
  throw new TomaatError(
    'NOT_FOUND',
    'There is no receipt of this job: its service is not offered here any more.',
  );
}

/** A job as the API shows it. */
export async function presentJob(job: JobRecord, { jobs, slots, address }: ServerContext): Promise<Job> {
  const unsettled = job.state === 'queued' || job.state === 'running';
  const time = (ms: number | undefined) => (ms === undefined ? undefined : new Date(ms).toISOString());
  return {
    id: job.id,
    service: job.service,
    state: job.state,
    attempt: job.attempt,
    createdTime: time(job.createdMs)!,
    startedTime: time(job.startedMs),
    settledTime: time(job.settledMs),
    expiresTime: time(job.expiresMs),
    stage: job.stage,
    fraction: job.fraction,
    queuePosition: job.state === 'queued' ? await jobs.positionOf(job.id) : undefined,
    expectedSeconds: unsettled ? await jobs.expectedSeconds(job.service, job.request.voxels ?? 0) : undefined,
    expectedWaitSeconds:
      job.state === 'queued' ? await jobs.expectedWaitSeconds(job.id, job.service, slots) : undefined,
    parameters: job.request.parameters,
    outputs: job.outputs.map((output) => ({
      name: output.name,
      type: output.type,
      label: output.label,
      primary: output.primary,
      format: output.format,
      formats: [...(outputFormats[output.type as OutputType] as readonly OutputFormat[])],
      fileName: outputFileName(job, output),
      sizeBytes: output.sizeBytes,
      digest: output.digest,
      url: address.pathOf(`/api/jobs/${job.id}/outputs/${output.name}`),
    })),
    error: job.error && toProblem(job.error),
  };
}

/** The Idempotency-Key of a request; BAD_REQUEST where it is none. */
export function idempotencyKeyOf(request: Pick<FastifyRequest, 'headers'>): string | undefined {
  const key = request.headers['idempotency-key'];
  if (key === undefined) return undefined;
  if (typeof key === 'string' && /^[\x21-\x7e]{1,200}$/.test(key)) return key;
  throw new TomaatError(
    'BAD_REQUEST',
    'An Idempotency-Key has 1 to 200 visible ASCII characters. Send a random UUID, for instance.',
    { field: 'Idempotency-Key' },
  );
}

/** `Priority: u=N` (RFC 9218): 0 is the most urgent, 7 the least; what cannot be understood is passed over, as it has to be. */
export function urgencyOf(request: Pick<FastifyRequest, 'headers'>): number | undefined {
  const urgency = wordOf(request.headers.priority, 'u') ?? '';
  return /^[0-7]$/.test(urgency) ? Number(urgency) : undefined;
}

/** Seconds of `Prefer: wait=N` (RFC 7240), bounded; 0 if nothing is preferred. */
export function waitOf(request: Pick<FastifyRequest, 'headers'>): number {
  const wait = wordOf(request.headers.prefer, 'wait') ?? '';
  return /^\d{1,15}$/.test(wait) ? Math.min(maxWaitSeconds, Number(wait)) : 0;
}

/** What a list such as `respond-async, wait="10"` has for a name. */
function wordOf(header: string | string[] | undefined, name: string): string | undefined {
  for (const item of [header ?? []].flat().join(',').split(/[,;]/)) {
    const [key, value] = item.split('=', 2).map((word) => word.trim());
    if (key.toLowerCase() !== name || value === undefined) continue;
    return value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value;
  }
  return undefined;
}

async function settledWithin(
  jobs: Jobs,
  id: string,
  seconds: number,
  ending: AbortSignal,
): Promise<JobRecord | undefined> {
  const limit = AbortSignal.any([AbortSignal.timeout(seconds * 1000), ending]);
  try {
    return await jobs.settled(id, limit);
  } catch (error) {
    if (!limit.aborted) throw error;
    return jobs.get(id);
  }
}

/**
 * Server-sent events: the whole job at each change, so that whoever reconnects has missed nothing. After a while the
 * stream ends and has to be asked for again, for a key may be revoked meanwhile.
 */
async function streamEvents(
  request: FastifyRequest<{ Params: { id: string } }>,
  reply: FastifyReply,
  context: ServerContext,
): Promise<void> {
  const { id } = request.params;
  const raw = takeOver(reply, 200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
  });
  if (request.method === 'HEAD') {
    raw.end();
    return;
  }
  let event = (Number(request.headers['last-event-id']) || 0) + 1;
  let wake = () => {};
  const unwatch = context.jobs.watch(id, () => wake());
  // While it waits, its position is news too.
  let waits = true;
  const unqueue = context.jobs.on('queue', () => waits && wake());
  let shown = '';
  const ping = setInterval(() => raw.write(': still here\n\n'), pingEveryMs);
  let isOver = false;
  const end = setTimeout(() => {
    isOver = true;
    wake();
  }, context.eventsMs ?? eventsMs);
  raw.once('close', () => wake());
  let sentMs = Number.NEGATIVE_INFINITY;
  try {
    for (;;) {
      const change = new Promise<void>((resolve) => {
        wake = resolve;
      });
      const job = await context.jobs.get(id);
      if (raw.destroyed || isOver) return;
      if (!job) {
        raw.write(`id: ${event}\nevent: gone\ndata: {}\n\n`);
        return;
      }
      waits = job.state === 'queued';
      const isSettled = job.state !== 'queued' && job.state !== 'running';
      const restMs = sentMs + eventEveryMs - performance.now();
      if (!isSettled && restMs > 0) {
        await Promise.race([change, delay(restMs)]);
        continue;
      }
      const text = JSON.stringify(await presentJob(job, context));
      if (text !== shown) raw.write(`id: ${event++}\nevent: job\ndata: ${text}\n\n`);
      shown = text;
      sentMs = performance.now();
      if (isSettled) return;
      await change;
    }
  } finally {
    clearInterval(ping);
    clearTimeout(end);
    unwatch();
    unqueue();
    raw.end();
  }
}
