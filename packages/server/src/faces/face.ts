import type { TomaatError } from '@tomaat/core';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ServerContext } from '../http/context.ts';
import type { RequestForm } from '../http/request-form.ts';
import type { JobRecord } from '../store/jobs/job-records.ts';

/**
 * A protocol for requesting predictions: everything specific to it. `predict()` is common to all;
 * the table of faces is `faces.ts`.
 */
export interface Face {
  /** Its name in the log. */
  readonly name: string;
  /** How its requests are written. */
  readonly form: RequestForm;
  /** Registers its routes; those for predictions call `predict()`. */
  register(app: FastifyInstance, context: ServerContext): void;
  /** Answers with the outputs of a job that has succeeded. */
  sendResult(reply: FastifyReply, job: JobRecord, context: ServerContext): Promise<FastifyReply>;
  /** Answers with an error, including that of a failed job, on routes with `problemHandler()`. Problem Details if missing. */
  sendProblem?(reply: FastifyReply, error: TomaatError, context: ServerContext): FastifyReply;
  /** How it answers while the job is unsettled; if missing, callers wait until the job is settled. */
  readonly later?: {
    /** How long a caller waits first. */
    afterMs(context: ServerContext): number;
    /** Answers that the job is not settled yet. The job continues, and is kept until it expires or a route of the face removes it. */
    send(reply: FastifyReply, id: string, context: ServerContext): FastifyReply;
  };
  /** Whether the record and the receipt of the job are kept after its answer, without the outputs. Otherwise nothing is. */
  keepsRecord?(request: FastifyRequest): boolean;
}
