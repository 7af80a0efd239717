import { flushCompileCache } from 'node:module';
import { hostname } from 'node:os';
import { TomaatError } from '@tomaat/core';
import type { Logger } from 'pino';
import { makeFirstAdminKey, programKey } from '../access/key-folder.ts';
import { isWildcard } from '../addresses.ts';
import { openApps } from '../apps.ts';
import type { Config, LoadedConfig } from '../config.ts';
import { startAnnouncer } from '../registry/announcer.ts';
import { type RunningRegistry, startRegistry } from '../registry/start.ts';
import { type ComputeDevice, isCard, slotsOf } from '../runtimes/devices.ts';
import { type RunningServer, startServer } from '../server.ts';
import type { ModelServers } from '../trust/model-servers.ts';
import { createMemoryPolicy } from '../worker/memory-limit.ts';
import { openDevices } from '../worker/open-devices.ts';
import { logVerified, verifyApps } from '../worker/verify-app.ts';
import { readCertificates } from './connect.ts';
import { runDemo } from './demo.ts';
import { openHangup } from './hangup.ts';
import { openInterrupt } from './interrupt.ts';
import { openLog } from './log.ts';
import { modelServersOf } from './model-servers.ts';
import { bundledApps, pageFolder } from './packaged.ts';
import { prepareFolder } from './prepare-folder.ts';
import {
  accessSettings,
  adminKeyLines,
  faceLines,
  legacyLine,
  loginLines,
  prepareIssuer,
} from './print-access.ts';
import { databaseOf } from './shared-database.ts';

/** `tomaat serve` and `tomaat up`: a server, with `up` also a registry, until stopped. */

/** The log goes to stderr as JSON; the first lines on stdout are the addresses. */
function createLogger({ config, sources }: LoadedConfig, quietByDefault: boolean): Logger {
  const level = quietByDefault && sources.logLevel === 'default' ? 'warn' : config.logLevel;
  return openLog(level);
}

interface Surroundings {
  readonly logger: Logger;
  readonly stopSignal: AbortSignal;
  readonly modelServers: ModelServers;
  readonly devices: readonly ComputeDevice[];
  /** Concurrent predictions. */
  readonly slots: number;
  /** The address of the PostgreSQL database, if the server shares one. */
  readonly database?: string;
}

/** @throws {TomaatError} BAD_REQUEST if a device of --device does not compute */
async function surroundingsOf(
  loaded: LoadedConfig,
  logger: Logger,
  stopSignal: AbortSignal,
): Promise<Surroundings> {
  const { config } = loaded;
  return {
    logger,
    database: databaseOf(loaded),
    stopSignal,
    modelServers: await modelServersOf(config),
    devices: await openDevices(config.device, {
      signal: stopSignal,
      logger,
      rewrite: config.rewrite,
      data: config.data,
      measures: false,
    }),
    slots: slotsOf(config.device, config.workers),
  };
}

async function openServer(
  { config, sources }: LoadedConfig,
  appFolders: readonly string[],
  { logger, stopSignal, modelServers, devices, slots, database }: Surroundings,
): Promise<RunningServer> {
  return startServer({
    appFolders,
    host: config.host,
    port: config.port,
    tlsPort: config.tlsPort,
    strictPort: sources.port !== 'default',
    strictTlsPort: sources.tlsPort !== 'default',
    dataFolder: config.data,
    database,
    blobs: config.blobs,
    maxCacheBytes: config.maxCacheBytes,
    deleteAfterMs: config.deleteAfterSeconds * 1000,
    tlsCert: config.tlsCert,
    tlsKey: config.tlsKey,
    ...accessSettings(config),
    archive: config.dicomweb === undefined ? undefined : await archiveOf(config.dicomweb, config),
    otherUrls: config.registryPublicUrl === undefined ? [] : [config.registryPublicUrl],
    faces: config.faces,
    legacyPort: config.legacyPort,
    defaultService: config.default,
    workers: slots,
    devices,
    drainMs: config.drainSeconds * 1000,
    memoryMb: config.memoryMb,
    modelServers,
    maxIdleMb: config.maxIdleMb,
    resultTtlMs: config.keepMinutes * 60_000,
    allowIdentity: config.allowIdentity,
    stripInputs: config.stripInputs,
    withholdModels: config.withholdModels,
    maxQueued: config.maxQueued,
    maxUploadBytes: config.maxUploadBytes,
    maxVoxels: config.maxVoxels,
    minBytesPerSecond: config.minBytesPerSecond,
    page: pageFolder(),
    stopSignal,
    logger,
  });
}

async function archiveOf(url: string, { dicomwebCredentials, ca }: Config) {
  return { url, credentials: dicomwebCredentials, ca: ca && (await readCertificates(ca)) };
}

/** Loads the models of apps before they are announced, while the server starts; see verifyApps(). */
function verifyServed(
  { config }: LoadedConfig,
  folders: readonly string[],
  { logger, stopSignal, modelServers, devices, slots }: Surroundings,
): Promise<void> {
  const verified = openApps(folders).then((apps) =>
    verifyApps(apps, {
      memory: createMemoryPolicy({ slots, memoryMb: config.memoryMb, devices }),
      devices,
      // On cards one after the other, as predictions are.
      atATime: devices.some(isCard) ? 1 : Math.max(1, slots),
      modelServers,
      signal: stopSignal,
      onVerified: logVerified(logger),
    }),
  );
  // A rejection is handled where the promise is awaited.
  verified.catch(() => {});
  return verified;
}

interface Announcing {
  readonly registries: readonly string[];
  readonly apiKey: string;
  /** Certificates (PEM). */
  readonly trust?: string;
}

/** How to announce at the configured registries; undefined if there are none. */
async function planAnnouncing({ config }: LoadedConfig): Promise<Announcing | undefined> {
  if (config.announce.length === 0) return undefined;
  if (config.announceKey === undefined) {
    throw new TomaatError(
      'BAD_REQUEST',
      'Announcing needs a key of the registry. Give --announce-key or TOMAAT_ANNOUNCE_KEY. Its operator creates one with “tomaat keys create”.',
    );
  }
  if (isWildcard(config.host) && config.publicUrl === undefined) {
    throw new TomaatError(
      'BAD_REQUEST',
      `${config.host} means all addresses of this machine, so there is no address to announce. Give one with --public-url, such as https://server.example:${config.port}.`,
    );
  }
  return {
    registries: config.announce,
    apiKey: config.announceKey,
    trust: config.ca && (await readCertificates(config.ca)),
  };
}

function announce(
  plan: Announcing | undefined,
  server: RunningServer,
  logger: Logger,
  opened: AsyncDisposableStack,
): void {
  for (const registryUrl of plan?.registries ?? []) {
    const announcer = startAnnouncer({
      registryUrl,
      apiKey: plan!.apiKey,
      trust: plan!.trust,
      services: () => server.announcements(),
      signer: server.signer,
      logger,
    });
    opened.defer(() => announcer.close());
    // Registries and clients learn of the new certificate from the announcement.
    server.certificates.onChange(() => announcer.refresh());
  }
}

export async function serve(
  loaded: LoadedConfig,
  options: { appFolders: string[]; json: boolean },
): Promise<number> {
  const logger = createLogger(loaded, false);
  using hangup = openHangup(logger);
  await prepareFolder(loaded.config.data, logger);
  const announcing = await planAnnouncing(loaded);
  await prepareIssuer(loaded.config);
  await using opened = new AsyncDisposableStack();
  using interrupt = openInterrupt();
  const about = await surroundingsOf(loaded, logger, interrupt.signal);
  const verifying = verifyServed(loaded, options.appFolders, about);
  const server = await openServer(loaded, options.appFolders, about);
  opened.defer(() => server.close());
  hangup.add('the certificate', () => server.certificates.reload());
  hangup.add('the audit log', () => server.reopenFiles());
  await verifying;
  announce(announcing, server, logger, opened);
  const adminKey = loaded.config.login
    ? await makeFirstAdminKey(loaded.config.data, ['server'], { shared: about.database })
    : undefined;
  await printAddresses(loaded, { server, adminKey, database: about.database, json: options.json });
  void server.measureNetworks();
  await untilInterrupted(interrupt.signal);
  return 0;
}

export async function up(
  loaded: LoadedConfig,
  options: { appFolders: string[]; demo: boolean; json: boolean },
): Promise<number> {
  const { config, sources } = loaded;
  const logger = createLogger(loaded, true);
  using hangup = openHangup(logger);
  await prepareFolder(config.data, logger);
  const announcing = await planAnnouncing(loaded);
  await prepareIssuer(loaded.config);
  const trust = config.ca && (await readCertificates(config.ca));
  await using opened = new AsyncDisposableStack();
  using interrupt = openInterrupt();
  const about = await surroundingsOf(loaded, logger, interrupt.signal);
  const served = [...bundledApps(), ...options.appFolders];
  // On the processor the bundled apps are verified by the tests of every release.
  const verifying = verifyServed(loaded, about.devices.some(isCard) ? served : options.appFolders, about);
  const server = await openServer(loaded, served, about);
  opened.defer(() => server.close());
  hangup.add('the certificate', () => server.certificates.reload());
  hangup.add('the audit log', () => server.reopenFiles());
  await verifying;
  const registry = await startRegistry({
    host: config.host,
    port: config.registryPort,
    strictPort: sources.registryPort !== 'default',
    dataFolder: config.data,
    database: about.database,
    logger,
    certificates: server.certificates,
    allowNet: config.allowNet,
    trust,
    ownServer: { announced: server.announcedUrl, local: server.localUrl },
    audit: server.audit,
    page: pageFolder(),
    ...accessSettings(config),
    publicUrl: config.registryPublicUrl,
    legacyPort: config.registryLegacyPort,
  });
  opened.defer(() => registry.close());
  const announcer = startAnnouncer({
    registryUrl: registry.localUrl,
    apiKey: await registry.apiKey(
      about.database ? `tomaat up on ${hostname()}:${registry.port}` : 'tomaat up',
    ),
    audience: registry.url,
    services: () => server.announcements(),
    signer: server.signer,
    pinned: () => server.certificates.current.cert,
    logger,
  });
  opened.defer(() => announcer.close());
  server.certificates.onChange(() => announcer.refresh());
  announce(announcing, server, logger, opened);
  await announcer.firstRound;
  const adminKey = config.login
    ? await makeFirstAdminKey(config.data, ['server', 'registry'], { shared: about.database })
    : undefined;
  await printAddresses(loaded, { server, registry, adminKey, database: about.database, json: options.json });
  if (options.demo && !interrupt.signal.aborted) {
    await runDemo({
      server,
      registry,
      // With the administrator's key the result belongs to the administrator, who can open it.
      apiKey: config.login
        ? (adminKey ?? (await programKey(config.data, 'tomaat up --demo', { shared: about.database })))
        : undefined,
      isMine: !config.login || adminKey !== undefined,
      print: options.json ? console.error : console.log,
      signal: interrupt.signal,
    });
  }
  void server.measureNetworks();
  await untilInterrupted(interrupt.signal);
  return 0;
}

function untilInterrupted(signal: AbortSignal): Promise<void> {
  // Node saves compiled code when a process exits normally; a killed one must start just as quickly the next time.
  setImmediate(flushCompileCache);
  // A signal listener does not keep a process alive; the servers do.
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

async function printAddresses(
  { config, sources }: LoadedConfig,
  {
    server,
    registry,
    adminKey,
    database,
    json,
  }: {
    server: RunningServer;
    registry?: RunningRegistry;
    adminKey?: string;
    database?: string;
    json: boolean;
  },
): Promise<void> {
  if (json) {
    console.log(
      JSON.stringify({
        server: server.url,
        serverTls: server.tlsUrl,
        publicUrl: config.publicUrl,
        registry: registry?.url,
        legacyUrl: server.legacyUrl,
        registryLegacyUrl: registry?.legacyUrl,
        identity: server.identity,
        data: config.data,
        adminKey,
      }),
    );
    return;
  }
  const lines = [`Server    ${[server.url, server.tlsUrl].filter(Boolean).join('   ')}`];
  if (config.publicUrl) lines.push(`Public    ${config.publicUrl}`);
  if (registry) lines.push(`Registry  ${registry.url}`);
  if (server.legacyUrl) lines.push(legacyLine(server.legacyUrl, config.faces));
  if (registry?.legacyUrl) lines.push(legacyLine(registry.legacyUrl));
  for (const line of faceLines(config, server.url ?? server.tlsUrl)) lines.push(line);
  lines.push(`Identity  ${server.identity}   (signs receipts)`);
  lines.push(`Data      ${config.data}`, `Services  ${server.services.join(', ')}`);
  if (config.login)
    lines.push(
      loginLines(config, config.publicUrl ?? server.url ?? server.tlsUrl, registry && [registry.url]),
    );
  if (adminKey) lines.push(await adminKeyLines(adminKey, config.data, { shared: database }));
  const certificate = server.certificates.current;
  const fault = server.certificates.fault();
  if (fault) lines.push(fault);
  if (certificate.selfSigned) {
    lines.push(
      `The certificate of the HTTPS address is self-signed; clients show its SHA-256 fingerprint once:`,
      `  ${certificate.fingerprint}`,
      `  in Python: requests.post(…, verify='${certificate.certFile}')`,
    );
  }
  const moved = [
    // Beyond this machine there is one port, for HTTPS.
    ['port', server.url ?? server.tlsUrl, config.port],
    ['tlsPort', server.url && server.tlsUrl, config.tlsPort],
    ['registryPort', registry?.url, config.registryPort],
  ] as const;
  for (const [key, url, wanted] of moved) {
    const used = url && Number(new URL(url).port);
    if (used && wanted !== 0 && sources[key] === 'default' && used !== wanted) {
      lines.push(`Port ${wanted} is in use: using port ${used} instead.`);
    }
  }
  console.log(lines.join('\n'));
}
