import { reservedWords, TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { queryWord } from '../intake/query.ts';
import { answered } from '../problem/take-in-rest.ts';
import type { ServerContext } from './context.ts';
import { budgetOf, headerBytes, lineBytes, relayedHeader } from './header-budget.ts';
import { signedReceipt } from './jobs.ts';
import { keepAlive } from './keep-alive.ts';
import { requestedFormat, sendOutput } from './outputs.ts';
import { receivePrediction } from './receive-prediction.ts';
import { clientGone } from './send.ts';

/** The receipt of a promise's job, from when the job is settled until its answer is sent. */
interface Receipt {
  readonly job: string;
  readonly signed: string;
  /** Whether it is fetched later: then the job outlives its answer, without its results. */
  isLinked: boolean;
}

/**
 * The promise: `POST /{task}/{anatomy}` with a volume gives the primary output, on the volume's grid and in its
 * format. It is a job like any other; whoever goes away cancels it, and it is deleted once it was answered.
 */
export function registerPromise(app: FastifyInstance, context: ServerContext): void {
  const { jobs, services } = context;
  const receipts = new WeakMap<FastifyRequest, Receipt>();

  /** By now all other headers are known, and with them whether the receipt fits. */
  const onSend = async (request: FastifyRequest, reply: FastifyReply) => {
    const receipt = receipts.get(request);
    if (!receipt || reply.statusCode !== 200) return;
    const rest = budgetOf(request.headers[relayedHeader]) - headerBytes(reply.getHeaders());
    receipt.isLinked = lineBytes('tomaat-receipt', receipt.signed) > rest;
    if (!receipt.isLinked) reply.header('tomaat-receipt', receipt.signed);
    else reply.header('link', receiptLink(context.address.pathOf(`/api/jobs/${receipt.job}/receipt`)));
  };

  app.post<{ Params: { task: string; anatomy: string } }>(
    '/:task/:anatomy',
    { onSend },
    async (request, reply) => {
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
      const stopKeepingAlive = keepAlive(request.raw, reply.raw, context.interimAfterMs);
      void answered(reply)
        .then(async (whole) => {
          await jobs.cancel(id, 'The client went away.');
          if (whole && receipts.get(request)?.isLinked) await jobs.dropOutputs(id);
          else await jobs.remove(id);
        })
        .catch((error: unknown) => request.log.error({ err: error, job: id }, 'job could not be removed'));
      try {
        const job = await jobs.settled(id, AbortSignal.any([gone, context.admission.ending]));
        if (!job) throw new TomaatError('NOT_FOUND', 'The job was deleted while it was waited for.');
        if (job.error) throw TomaatError.from(job.error);
        receipts.set(request, { job: id, signed: await signedReceipt(id, context), isLinked: false });
        const primary = job.outputs.find((output) => output.primary)!;
        return await sendOutput(reply, job, primary, requestedFormat(request, primary), context);
      } finally {
        stopKeepingAlive();
      }
    },
  );
}

export const receiptLink = (address: string): string =>
  `<${address}>; rel="tomaat-receipt"; type="application/jose"`;
