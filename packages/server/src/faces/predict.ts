import { isSettled } from '@tomaat/client';
import { describeError, TomaatError } from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { App } from '../apps.ts';
import type { ServerContext } from '../http/context.ts';
import { keepAlive } from '../http/keep-alive.ts';
import { clientGone } from '../http/send.ts';
import { deletedMeanwhile, settledWithin, submitPrediction } from '../http/submit-prediction.ts';
import { forgetFile, toTomaatError } from '../problem/problem.ts';
import { answered, takeInRest } from '../problem/take-in-rest.ts';
import type { JobRecord } from '../store/jobs/job-records.ts';
import type { Face } from './face.ts';

/**
 * A prediction through a face: body → job → its end, or the face's time limit → answer. A caller who disconnects
 * cancels the job. After the answer, only what the face keeps remains of it.
 */
export async function predict(
  request: FastifyRequest,
  reply: FastifyReply,
  app: App,
  face: Face,
  context: ServerContext,
): Promise<FastifyReply> {
  const { jobs } = context;
  const gone = clientGone(reply);
  const id = await submitPrediction(request, app, face.form, context, { gone });
  let isPutOff = false;
  afterAnswer(reply, id, async (isWhole) => {
    // A caller without a complete answer, even one that announces a later result, does not know what to ask for.
    if (isWhole && isPutOff) return;
    await jobs.cancel(id, 'The client disconnected.');
    if (isWhole && face.keepsRecord?.(request)) await jobs.dropOutputs(id);
    else await jobs.remove(id);
  });
  const stopKeepingAlive = keepAlive(request.raw, reply.raw, context.interimAfterMs);
  try {
    const job = await waitForJob(id, face, gone, context);
    if (face.later && !(job && isSettled(job))) {
      isPutOff = true;
      return face.later.send(reply, id, context);
    }
    if (!job) throw deletedMeanwhile();
    if (job.error) throw TomaatError.from(job.error);
    return await face.sendResult(reply, job, context);
  } finally {
    stopKeepingAlive();
  }
}

/**
 * The job when it is settled, or as it is at the face's time limit; undefined if it was deleted. If the face
 * has no limit, rejects when the client disconnects or the server is about to exit.
 */
function waitForJob(
  id: string,
  { later }: Face,
  gone: AbortSignal,
  context: ServerContext,
): Promise<JobRecord | undefined> {
  const over = AbortSignal.any([gone, context.admission.ending]);
  if (!later) return context.jobs.settled(id, over);
  const limit = AbortSignal.any([over, AbortSignal.timeout(later.afterMs(context))]);
  return settledWithin(context.jobs, id, limit);
}

/** Calls back with a job once its answer was written completely (`isWhole`), or the client disconnected first. */
export function afterAnswer(
  reply: FastifyReply,
  id: string,
  act: (isWhole: boolean) => void | Promise<void>,
): void {
  void answered(reply)
    .then(act)
    .catch((error: unknown) => reply.log.error({ err: error, job: id }, 'job could not be removed'));
}

/**
 * The `errorHandler` of routes on which any error, including fastify's own, is answered in the form of the face. Internal
 * errors are logged. Callers that `access/access.ts` refuses get Problem Details: it answers before the route.
 */
export function problemHandler(
  { name, sendProblem }: Required<Pick<Face, 'name' | 'sendProblem'>>,
  context: ServerContext,
) {
  return (error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const known = toTomaatError(error);
    if (describeError(known.code).fault === 'server') {
      request.log.error({ err: known.cause ?? known, requestId: request.id }, `${name} request failed`);
    }
    forgetFile(reply);
    takeInRest(request, reply);
    return sendProblem(reply, known, context);
  };
}
