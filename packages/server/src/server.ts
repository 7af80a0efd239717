import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Announcement } from '@tomaat/client';
import { TomaatError, volumeInputs, withoutUnseen } from '@tomaat/core';
import type { FastifyBaseLogger, FastifyInstance } from 'fastify';
import type { Kysely } from 'kysely';
import { type Access, markLegacy, registerAccess } from './access/access.ts';
import type { OidcSettings } from './access/claims.ts';
import { createHostPolicy, type HostOptions, requireSafeBind } from './access/hosts.ts';
import { ownerOf } from './access/principal.ts';
import { hideOwners, openPseudonyms, withPseudonyms } from './access/pseudonyms.ts';
import { hostForOthers, hostForSelf, isLoopback } from './addresses.ts';
import { openApps } from './apps.ts';
import { openAudit } from './audit/audit-log.ts';
import { createWitness } from './audit/receipts.ts';
import { countRefusals, type Recorder } from './audit/refusals.ts';
import { type Certificates, openCertificates } from './certificates.ts';
import { registerFaces } from './faces/faces.ts';
import { eraseOwner } from './folder/erase.ts';
import { createAdmission } from './http/admission.ts';
import { createApp, type Listener, listenHttp, listenHttps } from './http/app.ts';
import type { ServerContext } from './http/context.ts';
import { registerFit } from './http/fit.ts';
import { registerJobRoutes } from './http/jobs.ts';
import { createLogin, openOidc } from './http/login.ts';
import { addCertificateExpiry, createServerMetrics } from './http/metrics.ts';
import { registerOperations } from './http/operations.ts';
import { registerPage } from './http/page.ts';
import { openPublicAddress } from './http/public-address.ts';
import { createServices, registerServiceRoutes } from './http/services.ts';
import { registerUploadRoutes } from './http/uploads.ts';
import { registerWorkerRoutes } from './http/worker-routes.ts';
import { openIdentity } from './identity.ts';
import { openHeaderReader } from './intake/header-reader.ts';
import { stripFile } from './intake/strip-received.ts';
import { type AnnouncementSigner, openSigner } from './registry/signer.ts';
import { settings } from './settings.ts';
import { openBlobs } from './store/blobs.ts';
import { answerRequests } from './store/control.ts';
import { lockDataFolder } from './store/database.ts';
import { createJobs } from './store/jobs.ts';
import type { KeySchema } from './store/key-schema.ts';
import { openServerDatabase } from './store/server-database.ts';
import { createSteadyClock, moveExpiry } from './store/steady-clock.ts';
import { openUploads } from './store/uploads.ts';
import { type Certificate, namesOfMachine } from './tls.ts';
import { version } from './version.ts';
import { openConverter } from './worker/converter.ts';
import { localSource } from './worker/local-source.ts';
import { createMemoryPolicy } from './worker/memory-limit.ts';
import { startSupervisor } from './worker/supervisor.ts';
import { findLosses } from './worker/survivors.ts';

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
  tlsCert?: string;
  tlsKey?: string;
  /** Address at which others reach the server, without a slash at the end; such as that of a proxy in front of it. */
  publicUrl?: string;
  /** More addresses of this process, such as that of its registry, for the self-signed certificate. */
  otherUrls?: readonly string[];
  /** Whether a caller needs a key or a session. Required beyond this machine. */
  login?: boolean;
  /** Whether to use the self-signed certificate beyond this machine. */
  tlsSelfMade?: boolean;
  /** The issuer for logins, in addition to keys. */
  oidc?: OidcSettings;
  /** A separate port (HTTPS) for TOMAAT v1 without login; 0: a free one. */
  legacyPort?: number;
  /** Requests per minute that one address may send there. */
  legacyPerMinute?: number;
  /** Service that v1 clients get; the first if missing. */
  defaultService?: string;
  /** Concurrent predictions in this process's own children; 0 leaves all to remote workers. */
  workers?: number;
  /** Memory of one prediction if its app sets no limit, MB; 0: no limit; a share of the machine's if missing. */
  memoryMb?: number;
  /** Memory that idle children with their models may take, MB; a quarter of the machine's if missing. */
  maxIdleMb?: number;
  /** Aborts when this process is asked to stop, which may be some time before close(). */
  stopSignal?: AbortSignal;
  /** How long close() waits for running predictions; 0 if missing. Unfinished ones are then handed back. */
  drainMs?: number;
  /** How long a remote worker may be silent; 15 s if missing. */
  leaseMs?: number;
  /** How long an upload is kept after its last use; an hour if missing. */
  uploadTtlMs?: number;
  /** How often expired data is deleted; every 30 s if missing. */
  sweepMs?: number;
  /** Free space on the disk that uploads must leave. */
  minFreeBytes?: number;
  resultTtlMs?: number;
  /** Whether identifying text is removed from inputs before they are stored. */
  stripInputs?: boolean;
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

export interface RunningServer {
  /** HTTP on loopback; undefined on any other address. */
  readonly url?: string;
  readonly tlsUrl: string;
  /** The address for this machine itself, whatever its name resolves to. */
  readonly localUrl: string;
  /** The address that is announced. */
  readonly announcedUrl: string;
  /** The address of the port for TOMAAT v1 without login; v1 clients get this one. */
  readonly legacyUrl?: string;
  /** For requests without a port, as in tests. */
  readonly app: FastifyInstance;
  readonly access: Access;
  /** The current certificate of its HTTPS ports, and its renewal. */
  readonly certificate: Certificate;
  readonly certificates: Certificates;
  readonly services: readonly string[];
  /** The audit log of the data folder, for other parts of this process. */
  readonly audit: Pick<Recorder, 'record'>;
  /** Continues in new files if another program renamed those of the log. */
  reopenFiles(): void;
  /** Thumbprint of the key that signs receipts. */
  readonly identity: string;
  /** The announcement of each service, with a stable id. */
  announcements(): (Announcement & { id: string })[];
  /** Signs announcements with the key of the data folder. */
  readonly signer: AnnouncementSigner;
  close(): Promise<void>;
}

const sweepEveryMs = 30_000;
/** For answers in progress when the server stops. */
const lastWordsMs = 200;

/** Starts a server: storage, worker, HTTP. On loopback HTTP and HTTPS, elsewhere only HTTPS. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { host = settings.host.default, dataFolder, logger } = options;
  const local = isLoopback(host);
  requireSafeBind({
    host,
    login: options.login,
    tlsChosen: Boolean(options.tlsCert) || Boolean(options.tlsSelfMade),
  });
  const resultTtlMs = options.resultTtlMs ?? settings.keepMinutes.default * 60_000;
  if (!local && options.strictTlsPort) {
    throw new TomaatError(
      'BAD_REQUEST',
      `On ${host} the server uses only HTTPS, at --port. Leave --tls-port (tlsPort) out.`,
    );
  }
  const address = openPublicAddress(options.publicUrl);
  await using opened = new AsyncDisposableStack();
  const apps = await openApps(options.appFolders);
  if (apps.length === 0)
    throw new TomaatError('BAD_REQUEST', 'No app was given. Name at least one app folder.');

  opened.use(lockDataFolder(dataFolder));
  const identity = await openIdentity(dataFolder);
  const audit = opened.use(
    await openAudit(dataFolder, {
      identity,
      onFault: (error) => logger.error({ err: error }, 'the audit log cannot be written'),
    }),
  );
  if (identity.isNew && audit.head().sequence > 0)
    logger.warn(
      { identity: identity.thumbprint },
      'identity.key was missing: the server has a new identity, which clients and registries do not know',
    );
  audit.record('server.started', { version, service: apps.map(({ manifest }) => manifest.id).join(' ') });
  opened.defer(() => audit.record('server.stopped'));
  const recorder = opened.use(countRefusals(audit));
  const database = opened.use(await openServerDatabase(dataFolder));
  const pseudonyms = await openPseudonyms(dataFolder);
  if ((await hideOwners(database.db as unknown as Kysely<unknown>, pseudonyms)) > 0)
    await database.truncateWal();
  const blobs = opened.use(
    await openBlobs(join(dataFolder, 'blobs'), { minFreeBytes: options.minFreeBytes }),
  );
  const clock = createSteadyClock();
  const jobs = createJobs({
    database,
    blobs,
    steadyMs: clock.nowMs,
    resultTtlMs,
    maxQueued: options.maxQueued ?? settings.maxQueued.default,
    leaseMs: options.leaseMs,
    witness: createWitness(apps, audit),
    concurrencyOf: (service) =>
      apps.find(({ manifest }) => manifest.id === service)?.manifest.limits.concurrency,
  });
  const maxUploadBytes = options.maxUploadBytes ?? settings.maxUploadBytes.default;
  const headers = opened.use(openHeaderReader());
  const uploads = opened.use(
    await openUploads({
      database,
      blobs,
      folder: join(dataFolder, 'uploads'),
      maxBytes: maxUploadBytes,
      leaseMs: options.uploadTtlMs,
      now: clock.nowMs,
      isHeld: jobs.isHeld,
      strip: options.stripInputs ? (...file) => stripFile(...file, headers) : undefined,
      witness: {
        received: ({ id, owner, digest }) =>
          audit.record('upload.received', { who: owner, upload: id, digest }),
        removed: ({ id, owner }, why) =>
          audit.record(why === 'expired' ? 'upload.expired' : 'upload.deleted', { who: owner, upload: id }),
        refused: ({ id }, who) => recorder.record('access.denied', { who, upload: id, outcome: 'NOT_FOUND' }),
      },
    }),
  );
  jobs.keepAlso(uploads.keeps);
  await uploads.recover();
  const workFolder = join(dataFolder, 'work');
  const recovered = await jobs.recover(
    apps.map(({ manifest }) => manifest.id),
    await findLosses(workFolder),
  );
  if (recovered.requeued + recovered.failed > 0)
    logger.warn(recovered, 'unfinished jobs of the last run were found');
  const converter = await openConverter(join(dataFolder, 'converted'));
  opened.defer(() => converter.close());
  const services = createServices(apps, jobs, {
    address,
    defaultId: options.defaultService,
    keepSeconds: resultTtlMs / 1000,
  });
  const admission = createAdmission(jobs, { maxBodies: options.maxBodies });
  const context: ServerContext = {
    address,
    services,
    jobs,
    blobs,
    uploads,
    admission,
    headers,
    converter,
    audit: recorder,
    identity,
    stripInputs: options.stripInputs ?? false,
    maxUploadBytes,
    pace: { minBytesPerSecond: options.minBytesPerSecond, patienceMs: options.patienceMs },
    maxVoxels: options.maxVoxels ?? settings.maxVoxels.default,
    v1DelayMs: options.v1DelayMs ?? 4000,
    interimAfterMs: options.interimAfterMs,
    eventsMs: options.eventsMs,
    slots: options.workers ?? 1,
    memory: createMemoryPolicy({ slots: options.workers ?? 1, memoryMb: options.memoryMb }),
    ownerOf,
  };

  const certificates = opened.use(
    await openCertificates(dataFolder, {
      cert: options.tlsCert,
      key: options.tlsKey,
      host,
      names: [options.publicUrl, ...(options.otherUrls ?? [])]
        .filter((address) => address !== undefined)
        .map((address) => new URL(address).hostname),
      logger,
    }),
  );
  const app = createApp(logger, { pace: context.pace, address });
  const login = createLogin({
    db: database.db,
    required: options.login ?? false,
    scope: 'predict',
    oidc: withPseudonyms(await openOidc(options.oidc), pseudonyms),
    address,
    audit: recorder,
  });
  // Not waited for: keys log in without the issuer.
  void login.checkIssuer(logger);
  const access = registerAccess(app, {
    keys: database.db as unknown as Kysely<KeySchema>,
    hosts: createHostPolicy({
      ...options,
      machineNames: local ? [] : await namesOfMachine(),
      certificateNames: certificates.names,
    }),
    login: options.login,
    sessions: login.principalOf,
    legacyPerMinute: options.legacyPerMinute,
    audit: recorder,
    storedOwner: pseudonyms.of,
    realm: 'TOMAAT server',
  });
  const metrics = createServerMetrics(app, jobs);
  addCertificateExpiry(metrics.registry, certificates);
  const source = localSource(jobs, blobs, metrics);
  const supervisor = await startSupervisor({
    apps,
    source,
    slots: context.slots,
    memory: context.memory,
    maxIdleMb: options.maxIdleMb,
    maxIdle: Math.max(2, availableParallelism()),
    workFolder,
    maxVoxels: context.maxVoxels,
    stopSignal: options.stopSignal,
    logger,
  });
  opened.use(supervisor);
  let closing = false;
  login.register(app, access.recognise);
  registerServiceRoutes(app, services);
  registerJobRoutes(app, context);
  registerUploadRoutes(app, context);
  registerFit(app, context);
  const workers = registerWorkerRoutes(app, context, { metrics });
  registerOperations(app, {
    on: 'server',
    version,
    metrics: metrics.text,
    ready: () => (closing ? { reason: 'the server is stopping' } : { services: apps.length }),
  });
  await registerPage(app, options.page);
  registerFaces(app, context);

  const sweeper = setInterval(() => {
    clock
      .settle((byMs) => moveExpiry(database, byMs))
      .then((byMs) => {
        if (byMs !== 0)
          logger.warn({ byMs }, 'the clock was set; stored expiry times were shifted by the same amount');
      })
      .then(() => uploads.sweep())
      .then(() => jobs.sweep())
      .then(() => login.sessions.sweep())
      .catch((error: unknown) => logger.error({ err: error }, 'sweep failed'));
  }, options.sweepMs ?? sweepEveryMs);
  opened.defer(() => clearInterval(sweeper));
  const leaseKeeper = setInterval(() => {
    workers
      .sweep()
      .then(
        (ids) =>
          ids.length > 0 &&
          logger.warn({ jobs: ids }, 'workers were silent for too long; their jobs are queued again'),
      )
      .catch((error: unknown) => logger.error({ err: error }, 'leases could not be checked'));
  }, 1000);
  opened.defer(() => clearInterval(leaseKeeper));

  opened.use(
    answerRequests(
      dataFolder,
      {
        rotateAudit: async () => ({ closed: await audit.rotate() }),
        eraseOwner: (request) => eraseOwner(request, { audit, jobs, uploads, database, dataFolder }),
      },
      (error) => logger.error({ err: error }, 'the request of a command failed'),
    ),
  );

  let http: Listener | undefined;
  if (local) {
    http = await listenHttp(app, host, options.port ?? settings.port.default, options.strictPort ?? false);
    opened.defer(() => http!.close());
  } else {
    opened.defer(() => app.close());
  }
  const tlsPort = local
    ? (options.tlsPort ?? settings.tlsPort.default)
    : (options.port ?? options.tlsPort ?? settings.tlsPort.default);
  const https = await listenHttps(
    app,
    certificates.current,
    host,
    tlsPort,
    (local ? options.strictTlsPort : options.strictPort) ?? false,
  );
  opened.defer(() => https.close());
  const legacy =
    options.legacyPort === undefined
      ? undefined
      : await listenHttps(app, certificates.current, host, options.legacyPort, true, markLegacy);
  if (legacy) opened.defer(() => legacy.close());
  certificates.onChange((certificate) => {
    for (const listener of [https, legacy]) listener?.renew(certificate);
  });

  const name = hostForOthers(host);
  const url = http && `http://${name}:${http.port}`;
  const tlsUrl = `https://${name}:${https.port}`;
  const secureUrl = options.publicUrl ?? tlsUrl;
  const legacyUrl = legacy && `https://${name}:${legacy.port}`;
  const announcedUrl = options.publicUrl ?? url ?? tlsUrl;
  const signer = await openSigner({
    dataFolder,
    identity,
    certificate: () => certificates.current.fingerprint,
  });
  const stack = opened.move();
  let closed: Promise<void> | undefined;

  /** Refuses new requests, lets running predictions end, answers waiting callers, then closes everything. */
  async function shutDown(): Promise<void> {
    closing = true;
    admission.close();
    const { drainMs = 0 } = options;
    await supervisor.drain(drainMs);
    admission.end();
    await delay(lastWordsMs);
    await stack.disposeAsync();
  }

  return {
    url,
    tlsUrl,
    localUrl: url ?? `https://${hostForSelf(host)}:${https.port}`,
    announcedUrl,
    legacyUrl,
    app,
    access,
    get certificate() {
      return certificates.current;
    },
    certificates,
    signer,
    services: apps.map(({ manifest }) => manifest.id),
    audit: recorder,
    reopenFiles: audit.reopen,
    identity: identity.thumbprint,
    announcements: () =>
      apps.map(({ manifest }) => ({
        id: signer.idOf(manifest.id),
        name: withoutUnseen(manifest.name),
        modality: withoutUnseen(manifest.modality),
        anatomy: manifest.anatomy,
        task: manifest.task,
        description: manifest.description.split('\n').map(withoutUnseen).join('\n'),
        predictionUrl: `${legacyUrl ?? secureUrl}/services/${manifest.id}/predict`,
        interfaceUrl: `${legacyUrl ?? secureUrl}/services/${manifest.id}/interface`,
        serverUrl: announcedUrl,
        serviceId: manifest.id,
        version: withoutUnseen(manifest.version),
        default: services.route(manifest.task, manifest.anatomy).manifest === manifest,
        volumes: volumeInputs(manifest).filter(
          (input) => !('optional' in manifest.inputs[input] && manifest.inputs[input].optional),
        ).length,
      })),
    close() {
      closed ??= shutDown();
      return closed;
    },
  };
}
