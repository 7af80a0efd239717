import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { type Manifest, TomaatError, volumeInputs, withoutUnseen } from '@tomaat/core';
import type { FastifyInstance } from 'fastify';
import type { Kysely } from 'kysely';
import { type Access, registerAccess } from './access/access.ts';
import { createHostPolicy, requireSafeBind } from './access/hosts.ts';
import { ownerOf } from './access/principal.ts';
import { withPseudonyms } from './access/pseudonyms.ts';
import { type App, openApps } from './apps.ts';
import type { Recorder } from './audit/refusals.ts';
import { type Certificates, openCertificates } from './certificates.ts';
import { registerFaces } from './faces/faces.ts';
import { createAdmission } from './http/admission.ts';
import { createApp } from './http/app.ts';
import type { ServerContext } from './http/context.ts';
import { registerFit } from './http/fit.ts';
import { registerJobRoutes } from './http/jobs.ts';
import { createLogin, openOidc } from './http/login.ts';
import { addCertificateExpiry, createServerMetrics } from './http/metrics.ts';
import { checkModelsGiven, registerModelRoutes } from './http/models.ts';
import { trackRequests } from './http/open-requests.ts';
import { registerOperations } from './http/operations.ts';
import { registerPage } from './http/page.ts';
import { openPublicAddress } from './http/public-address.ts';
import { mostFiles } from './http/request-form.ts';
import { createServices, registerServiceRoutes, type Services } from './http/services.ts';
import { registerUploadRoutes } from './http/uploads.ts';
import { registerWorkerRoutes } from './http/worker-routes.ts';
import { openSeriesSource } from './intake/series-source.ts';
import type { AnnouncedService } from './registry/announcer.ts';
import { type AnnouncementSigner, openSigner } from './registry/signer.ts';
import { openServerData } from './server/data.ts';
import { openListeners, type ServerAddresses } from './server/listeners.ts';
import { type FilledOptions, type ServerOptions, withDefaults } from './server/options.ts';
import { startUpkeep } from './server/upkeep.ts';
import type { DeploymentSchema } from './store/database/deployment-schema.ts';
import type { KeySchema } from './store/database/key-schema.ts';
import { type Certificate, namesOfMachine } from './tls.ts';
import { version } from './version.ts';
import { localSource } from './worker/local-source.ts';
import { measureApps } from './worker/measure-apps.ts';
import { createMemoryPolicy } from './worker/memory-limit.ts';
import { startSupervisor } from './worker/supervisor.ts';

export interface RunningServer extends ServerAddresses {
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
  announcements(): AnnouncedService[];
  /** Signs announcements with the key of the data folder. */
  readonly signer: AnnouncementSigner;
  /** Measures in spare time what is not known yet of the networks; see worker/measure-apps.ts. Resolves when that is done, or the server stops. */
  measureNetworks(): Promise<void>;
  close(): Promise<void>;
}

/** How long a proxy may take to notice that a server with others beside it is no longer ready. */
const noticeMs = 5000;
/** For answers in progress when the server stops. */
const lastWordsMs = 200;

/** Starts a server: storage, worker, HTTP. On loopback HTTP and HTTPS, elsewhere only HTTPS. */
export async function startServer(serverOptions: ServerOptions): Promise<RunningServer> {
  const options = withDefaults(serverOptions);
  const { dataFolder, logger } = options;
  checkAddress(options);
  const address = openPublicAddress(options.publicUrl);
  await using opened = new AsyncDisposableStack();
  const apps = await openApps(options.appFolders);
  if (apps.length === 0)
    throw new TomaatError('BAD_REQUEST', 'No app was given. Name at least one app folder.');
  checkModelsGiven(apps, options.withholdModels);

  const data = opened.use(await openServerData(apps, options));
  const { audit, recorder, identity, database, pseudonyms, jobs, blobs, uploads } = data;
  const isShared = database.dialect === 'postgres';
  // One whose machine has the wrong time ends no session, and accepts no key that has expired.
  const now = isShared ? data.clock.nowMs : Date.now;
  const services = createServices(apps, jobs, {
    address,
    defaultId: options.defaultService,
    keepSeconds: options.resultTtlMs / 1000,
    processing: data.processing,
    withholdModels: options.withholdModels,
  });
  const admission = createAdmission(jobs, { maxBodies: options.maxBodies, isShared });
  const pace = { minBytesPerSecond: options.minBytesPerSecond, patienceMs: options.patienceMs };
  const { maxUploadBytes } = options;
  const context: ServerContext = {
    address,
    services,
    jobs,
    blobs,
    uploads,
    admission,
    headers: data.headers,
    converter: data.converter,
    audit: recorder,
    identity,
    stripping: data.stripping,
    archive:
      options.archive &&
      openSeriesSource({ ...options.archive, limits: { ...pace, maxUploadBytes }, maxFiles: mostFiles }),
    processing: data.processing,
    maxUploadBytes,
    pace,
    maxVoxels: options.maxVoxels,
    v1DelayMs: options.v1DelayMs,
    interimAfterMs: options.interimAfterMs,
    eventsMs: options.eventsMs,
    slots: options.workers,
    memory: createMemoryPolicy({
      slots: options.workers,
      memoryMb: options.memoryMb,
      devices: options.devices,
    }),
    login: { required: options.login, recognise: (key, request) => access.recognise(key, request) },
    ownerOf,
  };

  const certificates = opened.use(
    await openCertificates(dataFolder, {
      cert: options.tlsCert,
      key: options.tlsKey,
      host: options.host,
      names: [options.publicUrl, ...(options.otherUrls ?? [])]
        .filter((url) => url !== undefined)
        .map((url) => new URL(url).hostname),
      logger,
    }),
  );
  const app = createApp(logger, { pace: context.pace, address });
  const openRequests = trackRequests(app);
  const login = createLogin({
    db: database.db,
    required: options.login,
    contact: options.contact,
    scope: 'predict',
    oidc: withPseudonyms(
      await openOidc(options.oidc, isShared ? { db: database.db, now } : undefined),
      pseudonyms,
    ),
    address,
    audit: recorder,
    now,
    within: { transaction: database.transaction, recordIn: audit.recordIn },
  });
  // Not waited for: keys log in without the issuer.
  void login.checkIssuer(logger);
  const access = registerAccess(app, {
    keys: database.db as unknown as Kysely<KeySchema>,
    hosts: createHostPolicy({
      ...options,
      machineNames: options.isLocal ? [] : await namesOfMachine(),
      certificateNames: certificates.names,
    }),
    login: options.login,
    sessions: login.principalOf,
    legacyFaces: options.legacyFaces,
    legacyPerMinute: options.legacyPerMinute,
    audit: recorder,
    storedOwner: pseudonyms.of,
    realm: 'TOMAAT server',
    now,
  });
  const metrics = createServerMetrics(
    app,
    jobs,
    apps.map(({ manifest }) => manifest.id),
  );
  addCertificateExpiry(metrics.registry, certificates);
  const supervisor = opened.use(
    await startSupervisor({
      apps,
      source: localSource(jobs, blobs, metrics),
      slots: context.slots,
      devices: options.devices,
      memory: context.memory,
      modelServers: options.modelServers,
      maxIdleMb: options.maxIdleMb,
      maxIdle: Math.max(2, availableParallelism()),
      workFolder: data.workFolder,
      maxVoxels: context.maxVoxels,
      stopSignal: options.stopSignal,
      logger,
    }),
  );

  let closing = false;
  login.register(app, access.recognise);
  registerServiceRoutes(app, services);
  registerModelRoutes(app, context);
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
  registerFaces(app, context, options.faces);

  opened.use(startUpkeep(data, login, workers, options));
  const { addresses } = opened.use(await openListeners(app, certificates, options));
  data.processing.listensAt(
    [addresses.url, addresses.tlsUrl].flatMap((address) => (address ? Number(new URL(address).port) : [])),
  );
  const v1Url =
    (options.legacyFaces.includes('v1') ? addresses.legacyUrl : undefined) ??
    options.publicUrl ??
    addresses.tlsUrl;
  const signer = await openSigner({
    dataFolder,
    identity,
    certificate: () => certificates.current.fingerprint,
    shared: isShared ? (database.db as unknown as Kysely<DeploymentSchema>) : undefined,
  });
  const stack = opened.move();
  let closed: Promise<void> | undefined;

  /** First nothing new is let in, then what runs may end, then those who still wait get an answer, then all is closed. */
  async function shutDown(): Promise<void> {
    closing = true;
    // A proxy still sends requests until it has asked whether this server is ready; other servers compute what they bring.
    if (isShared) {
      openRequests.leave();
      await delay(Math.min(noticeMs, options.drainMs / 4));
    }
    admission.close();
    const drained = supervisor.drain(options.drainMs);
    if (isShared) await openRequests.answered(options.drainMs);
    await drained;
    admission.end();
    await delay(lastWordsMs);
    await stack.disposeAsync();
  }

  return {
    ...addresses,
    app,
    access,
    get certificate() {
      return certificates.current;
    },
    certificates,
    signer,
    measureNetworks: () =>
      measureApps(apps, {
        memory: context.memory,
        devices: options.devices,
        spare: supervisor.spare,
        logger,
      }),
    services: apps.map(({ manifest }) => manifest.id),
    audit: recorder,
    reopenFiles: audit.reopen,
    identity: identity.thumbprint,
    announcements: () =>
      apps.map((served) => ({
        id: signer.idOf(served.manifest.id),
        ...announcementOf(served, services, { serverUrl: addresses.announcedUrl, v1Url }),
      })),
    close() {
      closed ??= shutDown();
      return closed;
    },
  };
}

/** Refuses addresses at which this server must not listen, or not as it is asked to. */
function checkAddress({ host, isLocal, login, tlsCert, tlsSelfMade, strictTlsPort }: FilledOptions): void {
  requireSafeBind({ host, login, tlsChosen: Boolean(tlsCert) || Boolean(tlsSelfMade) });
  if (isLocal || !strictTlsPort) return;
  throw new TomaatError(
    'BAD_REQUEST',
    `On ${host} the server uses only HTTPS, at --port. Leave --tls-port (tlsPort) out.`,
  );
}

/** What registries say of a service. */
function announcementOf(
  { manifest }: App,
  services: Services,
  { serverUrl, v1Url }: { serverUrl: string; v1Url: string },
): Omit<AnnouncedService, 'id'> {
  return {
    name: withoutUnseen(manifest.name),
    modality: withoutUnseen(manifest.modality),
    anatomy: manifest.anatomy,
    task: manifest.task,
    description: manifest.description.split('\n').map(withoutUnseen).join('\n'),
    predictionUrl: `${v1Url}/services/${manifest.id}/predict`,
    interfaceUrl: `${v1Url}/services/${manifest.id}/interface`,
    serverUrl,
    serviceId: manifest.id,
    version: withoutUnseen(manifest.version),
    default: services.route(manifest.task, manifest.anatomy).manifest === manifest,
    volumes: volumeInputs(manifest).filter(
      (input) => !('optional' in manifest.inputs[input] && manifest.inputs[input].optional),
    ).length,
    parity: announcedParity(manifest.parity),
  };
}

function announcedParity(parity: Manifest['parity']): AnnouncedService['parity'] {
  if (!parity) return undefined;
  const { verdict, agree, cases, conditions } = parity;
  return { verdict, agree, cases, conditions: withoutUnseen(conditions ?? '') || undefined };
}
