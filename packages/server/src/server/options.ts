import type { FastifyBaseLogger } from 'fastify';
import type { OidcSettings } from '../access/claims.ts';
import type { HostOptions } from '../access/hosts.ts';
import { isLoopback } from '../addresses.ts';
import type { SeriesSourceOptions } from '../intake/series-source.ts';
import type { ComputeDevice } from '../runtimes/devices.ts';
import { type FaceName, settings } from '../settings.ts';
import type { ModelServers } from '../trust/model-servers.ts';

export interface ServerOptions
  extends Omit<HostOptions, 'host' | 'publicUrl' | 'machineNames' | 'certificateNames'> {
  appFolders: readonly string[];
  host?: string;
  port?: number;
  tlsPort?: number;
  /** Whether a port in use is an error; otherwise the next free one is used. */
  strictPort?: boolean;
  strictTlsPort?: boolean;
  dataFolder: string;
  /** The address of a PostgreSQL database, instead of the one in the data folder. */
  database?: string;
  /** The folder or bucket (`s3://…`) of volumes and results that all servers of the database share, instead of a folder in the data folder. */
  blobs?: string;
  tlsCert?: string;
  tlsKey?: string;
  /** Address at which others reach the server, without a slash at the end; such as that of a proxy in front of it. */
  publicUrl?: string;
  /** More addresses of this process, such as that of its registry, for the self-signed certificate. */
  otherUrls?: readonly string[];
  /** Whether a caller needs a key or a session. Required beyond this machine. */
  login?: boolean;
  /** Who gives access, as the login page shows it. */
  contact?: string;
  /** Whether to use the self-signed certificate beyond this machine. */
  tlsSelfMade?: boolean;
  /** The issuer for logins, in addition to keys. */
  oidc?: OidcSettings;
  /**
   * Faces in addition to the API and the promise. TOMAAT v1 is always served at the ports with login; at the legacy port only
   * if it is named here, or if nothing is.
   */
  faces?: readonly FaceName[];
  /** A separate port (HTTPS) for `faces` without login; 0: a free one. */
  legacyPort?: number;
  /** Requests per minute that one address may send there. */
  legacyPerMinute?: number;
  /** Service that v1 clients get; the first if missing. */
  defaultService?: string;
  /** The archive from which series are fetched that callers name by their UID. */
  archive?: Pick<SeriesSourceOptions, 'url' | 'credentials' | 'ca'>;
  /** Concurrent predictions in this process's own children; 0 leaves all to remote workers. */
  workers?: number;
  /** What computes networks, of `openDevices()`; the processor if missing. Of cards there are as many as `workers`. */
  devices?: readonly ComputeDevice[];
  /** Memory of one prediction if its app sets no limit, MB; 0: no limit; a share of the machine's if missing. */
  memoryMb?: number;
  /** Memory that idle children with their models may take, MB; a quarter of the machine's if missing. */
  maxIdleMb?: number;
  /** What apps may use of model servers; only those of this machine if missing. */
  modelServers?: ModelServers;
  /** Aborts when this process is asked to stop, which may be some time before close(). */
  stopSignal?: AbortSignal;
  /** How long close() waits for running predictions; 0 if missing. Unfinished ones are then handed back. */
  drainMs?: number;
  /** How long a remote worker may be silent; 15 s if missing. */
  leaseMs?: number;
  /** How long a file to which nothing refers is kept where servers share a database; a minute if missing. */
  blobGraceMs?: number;
  /** How long an upload is kept after its last use; an hour if missing. */
  uploadTtlMs?: number;
  /** How often expired data is deleted; every 30 s if missing. */
  sweepMs?: number;
  /** Free space on the disk that uploads must leave. */
  minFreeBytes?: number;
  resultTtlMs?: number;
  /** Whether DICOM files that name a patient are accepted; `local`: only while no other machine can get them. */
  allowIdentity?: 'yes' | 'local' | 'no';
  /** Whether what identifies the patient is removed from inputs before they are stored. */
  stripInputs?: boolean;
  /** Whether no model leaves this server, whatever manifests allow (`compute`). */
  withholdModels?: boolean;
  maxQueued?: number;
  /** Bodies of predictions received concurrently; 128 if missing. */
  maxBodies?: number;
  maxUploadBytes?: number;
  /** The slowest pace of a sender, and of a reader of results; see Pace. */
  minBytesPerSecond?: number;
  patienceMs?: number;
  maxVoxels?: number;
  v1DelayMs?: number;
  /** When a waiting caller is sent an interim answer, ms after it began to wait. */
  interimAfterMs?: readonly number[];
  eventsMs?: number;
  /** Folder of the built page. */
  page?: string;
  logger: FastifyBaseLogger;
}

/** The options with their defaults, those of settings from their table. */
export function withDefaults(options: ServerOptions) {
  const host = options.host ?? settings.host.default;
  const port = options.port ?? settings.port.default;
  /** Whether only this machine can reach it: HTTP and HTTPS; elsewhere HTTPS alone, at `port`. */
  const isLocal = isLoopback(host);
  return {
    ...options,
    host,
    isLocal,
    port,
    tlsPort: isLocal
      ? (options.tlsPort ?? settings.tlsPort.default)
      : (options.port ?? options.tlsPort ?? settings.tlsPort.default),
    login: options.login ?? false,
    faces: options.faces ?? [],
    legacyFaces: options.faces?.length ? options.faces : (['v1'] as const),
    workers: options.workers ?? settings.workers.default,
    drainMs: options.drainMs ?? 0,
    sweepMs: options.sweepMs ?? 30_000,
    resultTtlMs: options.resultTtlMs ?? settings.keepMinutes.default * 60_000,
    allowIdentity: options.allowIdentity ?? settings.allowIdentity.default,
    stripInputs: options.stripInputs ?? false,
    withholdModels: options.withholdModels ?? false,
    maxQueued: options.maxQueued ?? settings.maxQueued.default,
    maxUploadBytes: options.maxUploadBytes ?? settings.maxUploadBytes.default,
    maxVoxels: options.maxVoxels ?? settings.maxVoxels.default,
    v1DelayMs: options.v1DelayMs ?? 4000,
  };
}

export type FilledOptions = ReturnType<typeof withDefaults>;
