import { TomaatError } from '@tomaat/core';
import type { FastifyRequest } from 'fastify';
import type { App } from '../apps.ts';
import type { JobRecord, NewJob } from '../store/jobs/job-records.ts';
import type { Jobs } from '../store/jobs/jobs.ts';
import type { ServerContext } from './context.ts';
import { receivePrediction } from './receive-prediction.ts';
import type { RequestForm } from './request-form.ts';

export interface Submission extends Pick<NewJob, 'idempotencyKey' | 'urgency'> {
  /** Aborts when the client disconnects: then no job is created. */
  readonly gone?: AbortSignal;
}

/**
 * Makes a job of a request for a prediction of `app` and returns its id: the body is received and checked, then the
 * job is committed. Every protocol uses this function. Nothing stays on disk when it rejects.
 */
export async function submitPrediction(
  request: FastifyRequest,
  app: App,
  form: RequestForm,
  context: ServerContext,
  { gone, ...more }: Submission = {},
): Promise<string> {
  requireComputedHere(app);
  await using received = await receivePrediction(request, app, form, context);
  gone?.throwIfAborted();
  const { id } = await context.jobs.create({
    service: app.manifest.id,
    owner: context.ownerOf(request),
    request: received.request,
    inputs: received.inputs,
    fingerprint: received.fingerprint,
    limits: request.principal?.limits,
    ...more,
  });
  return id;
}

/** Refuses a scan for a service whose author lets it run at its callers alone, before any of it is read. */
function requireComputedHere({ manifest: { id, compute } }: App): void {
  if (compute !== 'caller') return;
  throw new TomaatError(
    'FORBIDDEN',
    `The service ${id} runs on its callers’ own computers alone: this server takes no scans for it. Open its page in a browser, or fetch its manifest and model (/api/services/${id}/manifest and /model).`,
  );
}

/** A job once it is settled, or as it is when `limit` aborts before that; undefined if it was deleted. */
export async function settledWithin(
  jobs: Jobs,
  id: string,
  limit: AbortSignal,
): Promise<JobRecord | undefined> {
  try {
    return await jobs.settled(id, limit);
  } catch (error) {
    if (!limit.aborted) throw error;
    return jobs.get(id);
  }
}

/** The error for a caller whose job was deleted while it waited. */
export const deletedMeanwhile = (): TomaatError =>
  new TomaatError('NOT_FOUND', 'The job was deleted while the request waited for it.');
