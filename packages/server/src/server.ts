import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Announcement } from '@tomaat/client';
import { TomaatError, volumeInputs } from '@tomaat/core';
import type { FastifyBaseLogger, FastifyInstance } from 'fastify';
import type { Kysely } from 'kysely';
import { type Access, markLegacy, registerAccess } from './access/access.ts';
import type { OidcSettings } from './access/claims.ts';
import { createHostPolicy, type HostOptions, requireSafeBind } from './access/hosts.ts';
import type { KeySchema } from './access/keys.ts';
import { ownerOf } from './access/principal.ts';
import { hostForOthers, hostForSelf } from './addresses.ts';
import { openApps } from './apps.ts';
import { openAudit } from './audit/audit-log.ts';
import { createWitness } from './audit/receipts.ts';
import { createAdmission } from './http/admission.ts';
import { createApp, type Listener, listenHttp, listenHttps } from './http/app.ts';
import type { ServerContext } from './http/context.ts';
import { registerFit } from './http/fit.ts';
import { registerJobRoutes } from './http/jobs.ts';
import { createLogin, openOidc } from './http/login.ts';
import { createServerMetrics } from './http/metrics.ts';
import { registerOperations } from './http/operations.ts';
import { registerPage } from './http/page.ts';
import { registerPromise } from './http/promise.ts';
import { createServices, registerServiceRoutes } from './http/services.ts';
import { registerUploadRoutes } from './http/uploads.ts';
import { registerV1 } from './http/v1.ts';
import { registerWorkerRoutes } from './http/worker-routes.ts';
import { openIdentity } from './identity.ts';
import { stripFile } from './intake/strip-received.ts';
import { type AnnouncementSigner, openSigner } from './registry/signer.ts';
import { isLoopback } from './registry/targets.ts';
import { openBlobs } from './store/blobs.ts';
import { lockDataFolder } from './store/database.ts';
import { createJobs } from './store/jobs.ts';
import { openServerDatabase } from './store/server-database.ts';
import { openUploads } from './store/uploads.ts';
import { type Certificate, namesOfMachine, openCertificate } from './tls.ts';
import { version } from './version.ts';
import { openConverter } from './worker/converter.ts';
import { localSource } from './worker/local-source.ts';
import { startSupervisor } from './worker/supervisor.ts';

export interface ServerOptions extends Omit<HostOptions, 'host' | 'publicUrl' | 'machineNames'> {
  appFolders: readonly string[];
  host?: string;
  port?: number;
  tlsPort?: number;
  /** Whether a taken port is an error; else the next free one is used. */
  strictPort?: boolean;
  strictTlsPort?: boolean;
  dataFolder: string;
  tlsCert?: string;
  tlsKey?: string;
  /** Address at which others reach the server, without a slash at the end; such as that of a proxy in front of it. */
  publicUrl?: string;
  /** Whether a caller needs a key or a session. Beyond this machine it has to be on. */
  login?: boolean;
  /** That the self-made certificate is wanted, beyond this machine. */
  tlsSelfMade?: boolean;
  /** The issuer that logs people in, besides keys. */
  oidc?: OidcSettings;
  /** A port (HTTPS) of its own for TOMAAT v1 without login; 0: a free one. */
  legacyPort?: number;
  /** Requests a minute that one address may send there. */
  legacyPerMinute?: number;
  /** Service that v1 clients get; the first if missing. */
  defaultService?: string;
  /** Predictions at a time in this process' own children; 0 leaves them all to workers elsewhere. */
  workers?: number;
  /** Memory that idle children with their models may take, MB; a quarter of the machine's if missing. */
  maxIdleMb?: number;
  /** How long close() waits for the predictions that run; 0 if missing. What is not done then is handed back. */
  drainMs?: number;
  /** How long a worker elsewhere may keep silent; 15 s if missing. */
  leaseMs?: number;
  /** How long an upload lives after its last use; an hour if missing. */
  uploadTtlMs?: number;
  /** How often what has expired is deleted; every 30 s if missing. */
  sweepMs?: number;
  /** Free space on the disk that uploads leave alone. */
  minFreeBytes?: number;
  resultTtlMs?: number;
  /** Whether identifying text is taken out of inputs before they are kept. */
  stripInputs?: boolean;
  maxQueued?: number;
  maxUploadBytes?: number;
  /** The slowest pace of a sender, and of a reader of results; see Pace. */
  minBytesPerSecond?: number;
  patienceMs?: number;
  maxVoxels?: number;
  v1DelayMs?: number;
  keepAliveMs?: number;
  eventsMs?: number;
  /** Folder of the built page. */
  page?: string;
  logger: FastifyBaseLogger;
}

export interface RunningServer {
  /** HTTP on loopback; undefined on any other address. */
  readonly url?: string;
  readonly tlsUrl: string;
  /** The address for this machine itself, whatever DNS says of its name. */
  readonly localUrl: string;
  /** The address that is announced. */
  readonly announcedUrl: string;
  /** Of the port for TOMAAT v1 without login; v1 clients are told this one. */
  readonly legacyUrl?: string;
  /** For whoever asks without a port, as tests do. */
  readonly app: FastifyInstance;
  readonly access: Access;
  readonly certificate: Certificate;
  readonly services: readonly string[];
  /** Thumbprint of the key that signs receipts. */
  readonly identity: string;
  /** What to announce of each service, with an id that stays the same. */
  announcements(): (Announcement & { id: string })[];
  /** Signs announcements with the key of the data folder. */
  readonly signer: AnnouncementSigner;
  close(): Promise<void>;
}

const sweepEveryMs = 30_000;
/** For answers that are on their way when the server goes. */
const lastWordsMs = 200;

/** Starts a server: storage, worker, HTTP. On loopback HTTP and HTTPS, elsewhere HTTPS alone. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { host = '127.0.0.1', dataFolder, logger } = options;
  const local = isLoopback(host);
  requireSafeBind({
    host,
    login: options.login,
    tlsChosen: Boolean(options.tlsCert) || Boolean(options.tlsSelfMade),
  });
  const resultTtlMs = options.resultTtlMs ?? 3_600_000;
  if (!local && options.strictTlsPort) {
    throw new TomaatError(
      'BAD_REQUEST',
      `On ${host} the server speaks HTTPS alone, at --port. Leave --tls-port (tlsPort) out.`,
    );
  }
  await using opened = new AsyncDisposableStack();
  const apps = await openApps(options.appFolders);
  if (apps.length === 0)
    throw new TomaatError('BAD_REQUEST', 'There is no app to serve. Name at least one app folder.');

  opened.use(lockDataFolder(dataFolder));
  const identity = await openIdentity(dataFolder);
  const audit = opened.use(
    await openAudit(dataFolder, {
      identity,
      onFault: (error) => logger.error({ err: error }, 'the audit log cannot be written'),
    }),
  );
  audit.record('server.started', { version, service: apps.map(({ manifest }) => manifest.id).join(' ') });
  opened.defer(() => audit.record('server.stopped'));
  const database = opened.use(await openServerDatabase(dataFolder));
  const blobs = opened.use(
    await openBlobs(join(dataFolder, 'blobs'), { minFreeBytes: options.minFreeBytes }),
  );
  const jobs = createJobs({
    database,
    blobs,
    resultTtlMs,
    maxQueued: options.maxQueued ?? 1000,
    leaseMs: options.leaseMs,
    witness: createWitness(apps, audit),
    concurrencyOf: (service) =>
      apps.find(({ manifest }) => manifest.id === service)?.manifest.limits.concurrency,
  });
  const maxUploadBytes = options.maxUploadBytes ?? 2 * 2 ** 30;
  const uploads = opened.use(
    await openUploads({
      database,
      blobs,
      folder: join(dataFolder, 'uploads'),
      maxBytes: maxUploadBytes,
      leaseMs: options.uploadTtlMs,
      isHeld: jobs.isHeld,
      strip: options.stripInputs ? stripFile : undefined,
      witness: {
        received: ({ id, owner, digest }) =>
          audit.record('upload.received', { who: owner, upload: id, digest }),
        removed: ({ id, owner }, why) =>
          audit.record(why === 'expired' ? 'upload.expired' : 'upload.deleted', { who: owner, upload: id }),
      },
    }),
  );
  jobs.keepAlso(uploads.keeps);
  await uploads.recover();
  const recovered = await jobs.recover(apps.map(({ manifest }) => manifest.id));
  if (recovered.requeued + recovered.failed > 0) logger.warn(recovered, 'jobs of the last run were found');
  const converter = await openConverter(join(dataFolder, 'converted'));
  opened.defer(() => converter.close());
  const services = createServices(apps, jobs, {
    defaultId: options.defaultService,
    keepSeconds: resultTtlMs / 1000,
  });
  const admission = createAdmission(jobs);
  const context: ServerContext = {
    services,
    jobs,
    blobs,
    uploads,
    admission,
    converter,
    audit,
    identity,
    stripInputs: options.stripInputs ?? false,
    maxUploadBytes,
    pace: { minBytesPerSecond: options.minBytesPerSecond, patienceMs: options.patienceMs },
    maxVoxels: options.maxVoxels ?? 2 ** 30,
    v1DelayMs: options.v1DelayMs ?? 4000,
    keepAliveMs: options.keepAliveMs,
    eventsMs: options.eventsMs,
    slots: options.workers ?? 1,
    ownerOf,
  };

  const app = createApp(logger, context.pace);
  const login = createLogin({
    db: database.db,
    required: options.login ?? false,
    scope: 'predict',
    oidc: await openOidc(options.oidc),
    publicUrl: options.publicUrl,
    audit,
  });
  const access = registerAccess(app, {
    keys: database.db as unknown as Kysely<KeySchema>,
    hosts: createHostPolicy({ ...options, machineNames: local ? [] : await namesOfMachine() }),
    login: options.login,
    sessions: login.principalOf,
    legacyPerMinute: options.legacyPerMinute,
    audit,
    realm: 'TOMAAT server',
  });
  const metrics = createServerMetrics(app, jobs);
  const source = localSource(jobs, blobs, metrics);
  const supervisor = await startSupervisor({
    apps,
    source,
    slots: context.slots,
    maxIdleMb: options.maxIdleMb,
    maxIdle: Math.max(2, availableParallelism()),
    workFolder: join(dataFolder, 'work'),
    maxVoxels: context.maxVoxels,
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
  registerV1(app, context);
  registerOperations(app, {
    on: 'server',
    version,
    metrics: metrics.text,
    ready: () => (closing ? { reason: 'the server stops' } : { services: apps.length }),
  });
  await registerPage(app, options.page);
  registerPromise(app, context);

  const sweeper = setInterval(() => {
    uploads
      .sweep()
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
          logger.warn({ jobs: ids }, 'workers were not heard of; their jobs are queued again'),
      )
      .catch((error: unknown) => logger.error({ err: error }, 'leases could not be checked'));
  }, 1000);
  opened.defer(() => clearInterval(leaseKeeper));

  const certificate = await openCertificate(dataFolder, {
    cert: options.tlsCert,
    key: options.tlsKey,
    host,
    names: options.publicUrl === undefined ? [] : [new URL(options.publicUrl).hostname],
    logger,
  });
  let http: Listener | undefined;
  if (local) {
    http = await listenHttp(app, host, options.port ?? 9000, options.strictPort ?? false);
    opened.defer(() => http!.close());
  } else {
    opened.defer(() => app.close());
  }
  const tlsPort = local ? (options.tlsPort ?? 9443) : (options.port ?? options.tlsPort ?? 9443);
  const https = await listenHttps(
    app,
    certificate,
    host,
    tlsPort,
    (local ? options.strictTlsPort : options.strictPort) ?? false,
  );
  opened.defer(() => https.close());
  const legacy =
    options.legacyPort === undefined
      ? undefined
      : await listenHttps(app, certificate, host, options.legacyPort, true, markLegacy);
  if (legacy) opened.defer(() => legacy.close());

  const name = hostForOthers(host);
  const url = http && `http://${name}:${http.port}`;
  const tlsUrl = `https://${name}:${https.port}`;
  const secureUrl = options.publicUrl ?? tlsUrl;
  const legacyUrl = legacy && `https://${name}:${legacy.port}`;
  const announcedUrl = options.publicUrl ?? url ?? tlsUrl;
  const signer = await openSigner({ dataFolder, identity, certificate: certificate.fingerprint });
  const stack = opened.move();
  let closed: Promise<void> | undefined;

  /** First nothing new is let in, then what runs may end, then whoever still waits is told, then all is closed. */
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
    certificate,
    signer,
    services: apps.map(({ manifest }) => manifest.id),
    identity: identity.thumbprint,
    announcements: () =>
      apps.map(({ manifest }) => ({
        id: signer.idOf(manifest.id),
        name: manifest.name,
        modality: manifest.modality,
        anatomy: manifest.anatomy,
        task: manifest.task,
        description: manifest.description,
        predictionUrl: `${legacyUrl ?? secureUrl}/services/${manifest.id}/predict`,
        interfaceUrl: `${legacyUrl ?? secureUrl}/services/${manifest.id}/interface`,
        serverUrl: announcedUrl,
        serviceId: manifest.id,
        version: manifest.version,
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
