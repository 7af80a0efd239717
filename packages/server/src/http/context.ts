import type { FastifyRequest } from 'fastify';
import type { Access } from '../access/access.ts';
import type { Recorder } from '../audit/refusals.ts';
import type { Identity } from '../identity.ts';
import type { HeaderReader } from '../intake/header-reader.ts';
import type { SeriesSource } from '../intake/series-source.ts';
import type { Stripping } from '../intake/strip-received.ts';
import type { Blobs } from '../store/blobs/blobs.ts';
import type { Jobs } from '../store/jobs/jobs.ts';
import type { Uploads } from '../store/uploads/uploads.ts';
import type { Converter } from '../worker/converter.ts';
import type { MemoryPolicy } from '../worker/memory-limit.ts';
import type { Admission } from './admission.ts';
import type { ProcessingFacts } from './processing.ts';
import type { PublicAddress } from './public-address.ts';
import type { Services } from './services.ts';
import type { Pace } from './slow-readers.ts';

/** What the server's routes work with. */
export interface ServerContext {
  readonly address: PublicAddress;
  readonly services: Services;
  readonly jobs: Jobs;
  readonly blobs: Blobs;
  readonly uploads: Uploads;
  readonly admission: Admission;
  /** Reads headers of files, each within a time limit. */
  readonly headers: HeaderReader;
  readonly converter: Converter;
  readonly audit: Pick<Recorder, 'record'>;
  readonly identity: Identity;
  /** How what may identify a person is removed from inputs before they are stored; undefined if it is not. */
  readonly stripping?: Stripping;
  /** The archive from which series are fetched; undefined if the operator named none. */
  readonly archive?: SeriesSource;
  /** Where this server computes, and whether it accepts files that name a patient. */
  readonly processing: ProcessingFacts;
  readonly maxUploadBytes: number;
  /** The slowest accepted pace of a body. */
  readonly pace?: Pace;
  readonly maxVoxels: number;
  /** How long a v1 request waits before it gets a delayed response. */
  readonly v1DelayMs: number;
  /** When a waiting caller is sent an interim answer; see keep-alive.ts. */
  readonly interimAfterMs?: readonly number[];
  /** How long a stream of events lasts before its reader must reconnect; a minute if missing. */
  readonly eventsMs?: number;
  /** Concurrent predictions here, to estimate how long a queued job waits. */
  readonly slots: number;
  /** What a prediction of each app may take. */
  readonly memory: MemoryPolicy;
  /** Whether callers must log in, and how a protocol of its own recognises a key (access/access.ts). */
  readonly login: { readonly required: boolean; readonly recognise: Access['recognise'] };
  /** Whose request this is: jobs, inputs and results belong to their owner. */
  ownerOf(request: FastifyRequest): string;
}
