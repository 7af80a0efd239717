import { reservedWords } from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { budgetOf, headerBytes, lineBytes, relayedHeader } from '../http/header-budget.ts';
import { requestedFormat, sendOutput } from '../http/outputs.ts';
import { receiptLink, signedReceipt } from '../http/receipts.ts';
import { apiForm } from '../http/request-form.ts';
import { queryWord } from '../intake/query.ts';
import type { Face } from './face.ts';
import { predict } from './predict.ts';

/** The receipt of a promise's job, from its settlement until its answer is sent. */
interface Receipt {
  readonly job: string;
  readonly signed: string;
  /** Whether it will be fetched later: then the job is kept after its answer, without its results. */
  isLinked: boolean;
}

const receipts = new WeakMap<FastifyRequest, Receipt>();

/**
 * The promise: `POST /{task}/{anatomy}` with a volume gives the primary output, on the volume's grid and in its
 * format. It is a job like any other; it is cancelled if the caller disconnects, and deleted after the answer.
 */
export const promise: Face = {
  name: 'promise',
  form: apiForm,

  register(app, context) {
    /** All other headers are known by now, and thus whether the receipt fits. */
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
        const { task, anatomy } = request.params;
        if ((reservedWords as readonly string[]).includes(task)) return reply.callNotFound();
        const service = context.services.route(task, anatomy, queryWord(request, 'service'));
        reply.header('tomaat-service', service.manifest.id);
        return predict(request, reply, service, promise, context);
      },
    );
  },

  async sendResult(reply, job, context) {
    const { request } = reply;
    receipts.set(request, { job: job.id, signed: await signedReceipt(job.id, context), isLinked: false });
    const { stripped } = job.request;
    if (stripped) reply.header('tomaat-stripped', stripped.join(', '));
    const primary = job.outputs.find((output) => output.primary)!;
    return sendOutput(reply, job, primary, requestedFormat(request, primary), context);
  },

  keepsRecord: (request) => receipts.get(request)?.isLinked ?? false,
};
