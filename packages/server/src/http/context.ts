import type { FastifyRequest } from 'fastify';
import type { Audit } from '../audit/audit-log.ts';
import type { Identity } from '../identity.ts';
import type { Blobs } from '../store/blobs.ts';
import type { Jobs } from '../store/jobs.ts';
import type { Uploads } from '../store/uploads.ts';
import type { Converter } from '../worker/converter.ts';
import type { Admission } from './admission.ts';
import type { Services } from './services.ts';
import type { Pace } from './slow-readers.ts';

/** What the server's routes work with. */
export interface ServerContext {
  readonly services: Services;
  readonly jobs: Jobs;
  readonly blobs: Blobs;
  readonly uploads: Uploads;
  readonly admission: Admission;
  readonly converter: Converter;
  readonly audit: Audit;
  readonly identity: Identity;
  /** Whether identifying text is taken out of what comes before it is kept. */
  readonly stripInputs: boolean;
  readonly maxUploadBytes: number;
  /** The slowest pace that a body may come in. */
  readonly pace?: Pace;
  readonly maxVoxels: number;
  /** How long a v1 request is kept waiting before it gets a delayed response. */
  readonly v1DelayMs: number;
  /** How often a client that waits for the promise is told that the work goes on; 10 s if missing. */
  readonly keepAliveMs?: number;
  /** For how long a stream of events goes on before its reader has to ask anew; a minute if missing. */
  readonly eventsMs?: number;
  /** Predictions at a time here, for the time that a queued job may wait. */
  readonly slots: number;
  /** Whose request this is: jobs, inputs and results belong to their owner. */
  ownerOf(request: FastifyRequest): string;
}
