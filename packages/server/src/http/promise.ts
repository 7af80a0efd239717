import { reservedWords, TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { ServerContext } from './context.ts';
import { signedReceipt } from './jobs.ts';
import { keepAlive } from './keep-alive.ts';
import { requestedFormat, sendOutput } from './outputs.ts';
import { queryWord } from './query.ts';
import { receivePrediction } from './receive-prediction.ts';
import { answered, clientGone } from './send.ts';

/** Proxies and clients have limits for headers; what is longer is left out. */
const longestReceipt = 4096;

/** The job is deleted once it was answered, so its receipt comes with the answer. */
async function addReceipt(reply: FastifyReply, id: string, context: ServerContext): Promise<void> {
  const receipt = await signedReceipt(id, context);
  if (receipt.length < longestReceipt) reply.header('tomaat-receipt', receipt);
}

/**
 * The promise: `POST /{task}/{anatomy}` with a volume gives the primary output, on the volume's grid and in its
 * format. It is a job like any other; whoever goes away cancels it, and it is deleted once it was answered.
 */
export function registerPromise(app: FastifyInstance, context: ServerContext): void {
  const { jobs, services } = context;
  app.post<{ Params: { task: string; anatomy: string } }>('/:task/:anatomy', async (request, reply) => {
    if ((reservedWords as readonly string[]).includes(request.params.task)) return reply.callNotFound();
    const service = services.route(
      request.params.task,
      request.params.anatomy,
      queryWord(request, 'service'),
    );
    reply.header('tomaat-service', service.manifest.id);
    const gone = clientGone(reply);
    let id: string;
    {
      await using received = await receivePrediction(request, service, 'api', context);
      gone.throwIfAborted();
      const { inputs, request: jobRequest } = received;
      ({ id } = await jobs.create({
        service: service.manifest.id,
        owner: context.ownerOf(request),
        request: jobRequest,
        inputs,
        limits: request.principal?.limits,
      }));
    }
    const stopKeepingAlive = keepAlive(request.raw, reply.raw, context.keepAliveMs);
    void answered(reply)
      .then(async () => {
        await jobs.cancel(id, 'The client went away.');
        await jobs.remove(id);
      })
      .catch((error: unknown) => request.log.error({ err: error, job: id }, 'job could not be removed'));
    try {
      const job = await jobs.settled(id, AbortSignal.any([gone, context.admission.ending]));
      if (!job) throw new TomaatError('NOT_FOUND', 'The job was deleted while it was waited for.');
      if (job.error) throw TomaatError.from(job.error);
      await addReceipt(reply, id, context);
      const primary = job.outputs.find((output) => output.primary)!;
      return await sendOutput(reply, job, primary, requestedFormat(request, primary), context);
    } finally {
      stopKeepingAlive();
    }
  });
}
