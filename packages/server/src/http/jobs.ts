import { setTimeout as delay } from 'node:timers/promises';
import { idempotencyKeySchema, isSettled, type Job, type JobOutput } from '@tomaat/client';
import { TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { toProblem } from '../problem/problem.ts';
import type { JobEnd, JobRecord, OutputFile } from '../store/jobs/job-records.ts';
import type { ServerContext } from './context.ts';
import { keepAlive } from './keep-alive.ts';
import { formatsOfStored, outputFileName, requestedFormat, sendOutput } from './outputs.ts';
import { signedReceipt } from './receipts.ts';
import { apiForm } from './request-form.ts';
import { takeOver } from './send.ts';
import { deletedMeanwhile, settledWithin, submitPrediction } from './submit-prediction.ts';

/** The API's routes for a job: create, read, follow, fetch, cancel, delete. */

const maxWaitSeconds = 300;
/** Progress is reported at most this often; the end at once. */
const eventEveryMs = 250;
const pingEveryMs = 15_000;
/** How soon a stream looks again after the database did not answer. */
const awayMs = 500;
const eventsMs = 60_000;

export function registerJobRoutes(app: FastifyInstance, context: ServerContext): void {
  const { jobs, services } = context;

  app.post<{ Params: { id: string } }>('/api/services/:id/predictions', async (request, reply) => {
    const service = services.find(request.params.id);
    const idempotencyKey = idempotencyKeyOf(request);
    const urgency = urgencyOf(request);
    const id = await submitPrediction(request, service, apiForm, context, { idempotencyKey, urgency });
    const waitSeconds = waitOf(request);
    const stopKeepingAlive = keepAlive(request.raw, reply.raw, context.interimAfterMs);
    const job = await (waitSeconds > 0
      ? settledWithin(
          jobs,
          id,
          AbortSignal.any([AbortSignal.timeout(waitSeconds * 1000), context.admission.ending]),
        )
      : jobs.get(id)
    ).finally(stopKeepingAlive);
    if (!job) throw deletedMeanwhile();
    if (waitSeconds > 0) reply.header('preference-applied', `wait=${waitSeconds}`);
    return reply
      .code(isSettled(job) && waitSeconds > 0 ? 200 : 202)
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

  app.post<{ Params: { id: string } }>('/api/jobs/:id/keep', async (request, reply) => {
    const job = await findJob(request, context);
    await jobs.keep(job.id);
    reply.header('cache-control', 'no-store');
    return presentJob(await findJob(request, context), context);
  });

  app.delete<{ Params: { id: string } }>('/api/jobs/:id', async (request, reply) => {
    const job = await findJob(request, context);
    if (await jobs.cancel(job.id)) {
      const canceled = await jobs.get(job.id);
      if (canceled) return presentJob(canceled, context);
    } else await jobs.remove(job.id);
    // Another request may have deleted the job first, which is what both wanted.
    return reply.code(204).send();
  });

  app.get<{ Params: { id: string } }>('/api/jobs/:id/receipt', async (request, reply) => {
    const job = await findJob(request, context);
    if (!isSettled(job)) {
      throw new TomaatError('NOT_READY', `The job is ${job.state}. Ask again when it is settled.`);
    }
    return reply
      .header('cache-control', 'no-store')
      .type('application/jose')
      .send(await signedReceipt(job.id, context));
  });

  app.get<{ Params: { id: string; name: string } }>('/api/jobs/:id/outputs/:name', async (request, reply) => {
    const job = await findJob(request, context);
    if (!isSettled(job)) {
      throw new TomaatError('NOT_READY', `The job is ${job.state}. Ask again when it has succeeded.`);
    }
    if (job.error) throw TomaatError.from(job.error);
    // A name contains no dot: what follows it is the format, for programs that recognise a file by its address.
    const [name, ...ending] = request.params.name.split('.');
    const output = job.outputs.find((candidate) => candidate.name === name);
    if (!output) {
      const names = job.outputs.map((candidate) => candidate.name).join(', ');
      throw new TomaatError('NOT_FOUND', `The job has no output of that name. Available: ${names}.`);
    }
    const format = requestedFormat(request, output, ending.length > 0 ? ending.join('.') : undefined);
    return sendOutput(reply, job, output, format, context);
  });
}

/** The job of an address; another caller's job is treated as missing. */
async function findJob(
  request: FastifyRequest<{ Params: { id: string } }>,
  context: ServerContext,
): Promise<JobRecord> {
  const job = await context.jobs.get(request.params.id);
  if (job && isOwn(request, job, context)) return job;
  throw new TomaatError(
    'NOT_FOUND',
    'There is no such job: it never existed, was deleted, has expired, or belongs to another login. Check the address and the API key, or send the prediction again.',
  );
}

/** Whether a job is the caller's; only the audit log records that it belongs to somebody else. */
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

/** A job as the API shows it. */
async function presentJob(job: JobRecord, context: ServerContext): Promise<Job> {
  const { jobs, slots } = context;
  const first = {
    id: job.id,
    service: job.service,
    state: job.state,
    attempt: job.attempt,
    createdTime: timeText(job.createdMs),
  };
  const last = {
    parameters: job.request.parameters,
    strippedInputs: job.request.stripped,
    outputs: job.outputs.map((output) => presentOutput(job, output, context)),
  };
  const expected = () => jobs.expectedSeconds(job.service, job.request.voxels ?? 0);
  switch (job.state) {
    case 'queued':
      return {
        ...first,
        state: job.state,
        queuePosition: await jobs.positionOf(job.id),
        expectedSeconds: await expected(),
        expectedWaitSeconds: await jobs.expectedWaitSeconds(job.id, job.service, slots),
        ...last,
      };
    case 'running':
      return {
        ...first,
        state: job.state,
        startedTime: timeText(job.startedMs),
        stage: job.stage,
        fraction: job.fraction,
        expectedSeconds: await expected(),
        ...last,
      };
    case 'succeeded':
      return { ...first, state: job.state, startedTime: timeText(job.startedMs), ...endOf(job), ...last };
    default:
      return {
        ...first,
        state: job.state,
        startedTime: job.startedMs === undefined ? undefined : timeText(job.startedMs),
        ...endOf(job),
        ...last,
        error: toProblem(job.error),
      };
  }
}

const timeText = (ms: number): string => new Date(ms).toISOString();

const endOf = ({ settledMs, expiresMs }: JobEnd) => ({
  settledTime: timeText(settledMs),
  expiresTime: timeText(expiresMs),
});

const presentOutput = (
  job: JobRecord,
  output: OutputFile,
  { address }: Pick<ServerContext, 'address'>,
): JobOutput => ({
  name: output.name,
  type: output.type,
  label: output.label,
  primary: output.primary,
  format: output.format,
  formats: formatsOfStored(output),
  fileName: outputFileName(job, output),
  sizeBytes: output.sizeBytes,
  digest: output.digest,
  url: address.pathOf(`/api/jobs/${job.id}/outputs/${output.name}`),
});

/** The Idempotency-Key of a request; BAD_REQUEST if it is malformed. */
export function idempotencyKeyOf(request: Pick<FastifyRequest, 'headers'>): string | undefined {
  const key = request.headers['idempotency-key'];
  if (key === undefined) return undefined;
  const known = idempotencyKeySchema.safeParse(key);
  if (known.success) return known.data;
  throw new TomaatError(
    'BAD_REQUEST',
    'An Idempotency-Key has 1 to 200 visible ASCII characters. Send a random UUID, for instance.',
    { field: 'Idempotency-Key' },
  );
}

/** `Priority: u=N` (RFC 9218): 0 is the most urgent, 7 the least; malformed values are ignored, as the RFC requires. */
export function urgencyOf(request: Pick<FastifyRequest, 'headers'>): number | undefined {
  const urgency = wordOf(request.headers.priority, 'u') ?? '';
  return /^[0-7]$/.test(urgency) ? Number(urgency) : undefined;
}

/** Seconds of `Prefer: wait=N` (RFC 7240), bounded; 0 without a preference. */
export function waitOf(request: Pick<FastifyRequest, 'headers'>): number {
  const wait = wordOf(request.headers.prefer, 'wait') ?? '';
  return /^\d{1,15}$/.test(wait) ? Math.min(maxWaitSeconds, Number(wait)) : 0;
}

/** The value of a name in a list such as `respond-async, wait="10"`. */
function wordOf(header: string | string[] | undefined, name: string): string | undefined {
  for (const item of [header ?? []].flat().join(',').split(/[,;]/)) {
    const [key, value] = item.split('=', 2).map((word) => word.trim());
    if (key.toLowerCase() !== name || value === undefined) continue;
    return value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value;
  }
  return undefined;
}

/** The number of the last event that the client has seen; 0 without one, or for what is no number of ours. */
function lastEventOf(request: FastifyRequest): number {
  const last = request.headers['last-event-id'];
  return typeof last === 'string' && /^\d{1,15}$/.test(last) ? Number(last) : 0;
}

/** Throws what is not a passing fault of the database. */
function unlessAway(error: unknown): 'away' {
  if (error instanceof TomaatError && error.code === 'BUSY') return 'away';
  throw error;
}

/**
 * Server-sent events: the whole job at each change, so that a client that reconnects has missed nothing. While the database is away the
 * stream stays open, and continues afterwards. After a while the
 * stream ends and the client must request it again, because its key may have been revoked.
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
  let event = lastEventOf(request) + 1;
  let wake = () => {};
  const unwatch = context.jobs.watch(id, () => wake());
  // While it waits, report its position too.
  let waits = true;
  const unqueue = context.jobs.on('queue', () => waits && wake());
  let shown = '';
  const ping = setInterval(() => raw.write(': still here\n\n'), pingEveryMs);
  let isOver = false;
  const stop = () => {
    isOver = true;
    wake();
  };
  const end = setTimeout(stop, context.eventsMs ?? eventsMs);
  const { leaving } = context.admission;
  leaving.addEventListener('abort', stop, { once: true });
  raw.once('close', () => wake());
  let sentMs = Number.NEGATIVE_INFINITY;
  try {
    for (;;) {
      const change = new Promise<void>((resolve) => {
        wake = resolve;
      });
      const job = await context.jobs.get(id).catch(unlessAway);
      if (raw.destroyed || isOver || leaving.aborted) return;
      if (job === 'away') {
        await Promise.race([change, delay(awayMs)]);
        continue;
      }
      if (!job) {
        raw.write(`id: ${event}\nevent: gone\ndata: {}\n\n`);
        return;
      }
      waits = job.state === 'queued';
      const restMs = sentMs + eventEveryMs - performance.now();
      if (!isSettled(job) && restMs > 0) {
        await Promise.race([change, delay(restMs)]);
        continue;
      }
      const text = await presentJob(job, context).then((view) => JSON.stringify(view), unlessAway);
      if (text === 'away') {
        await delay(awayMs);
        continue;
      }
      if (text !== shown) raw.write(`id: ${event++}\nevent: job\ndata: ${text}\n\n`);
      shown = text;
      sentMs = performance.now();
      if (isSettled(job)) return;
      await change;
    }
  } finally {
    clearInterval(ping);
    clearTimeout(end);
    leaving.removeEventListener('abort', stop);
    unwatch();
    unqueue();
    raw.end();
  }
}
