import type { TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ServerContext } from '../http/context.ts';
import type { RequestForm } from '../http/request-form.ts';
import type { JobRecord } from '../store/job-records.ts';

/**
 * A protocol in which predictions are asked for: all that it does in a way of its own. What all have in common is
 * `predict()`; the table of faces is `faces.ts`.
 */
export interface Face {
  /** In the log. */
  readonly name: string;
  /** How its requests are written. */
  readonly form: RequestForm;
  /** Registers its routes; those that ask for a prediction call `predict()`. */
  register(app: FastifyInstance, context: ServerContext): void;
  /** Answers with the outputs of a job that has succeeded. */
  sendResult(reply: FastifyReply, job: JobRecord, context: ServerContext): Promise<FastifyReply>;
  /** Answers with what went wrong, a failed job included, on routes with `problemHandler()`. Problem Details if missing. */
  sendProblem?(reply: FastifyReply, error: TomaatError, context: ServerContext): FastifyReply;
  /** How its callers are put off; without, they wait until the job is settled. */
  readonly later?: {
    /** How long a caller is kept waiting before. */
    afterMs(context: ServerContext): number;
    /** Answers that the job is not settled yet. It goes on, and stays until it expires or a route of the face removes it. */
    send(reply: FastifyReply, id: string, context: ServerContext): FastifyReply;
  };
  /** Whether the record and the receipt of the job outlive its answer, without the outputs. Else nothing does. */
  keepsRecord?(request: FastifyRequest): boolean;
}
