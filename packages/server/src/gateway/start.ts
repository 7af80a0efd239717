import type { FastifyBaseLogger, FastifyInstance } from 'fastify';
import type { Access } from '../access/access.ts';
import type { OidcSettings } from '../access/claims.ts';
import { type HostOptions, requireSafeBind } from '../access/hosts.ts';
import { adoptKeys } from '../access/key-folder.ts';
import { openPseudonyms } from '../access/pseudonyms.ts';
import { hostForOthers, hostForSelf, isLoopback } from '../addresses.ts';
import { type Audit, openAudit } from '../audit/audit-log.ts';
import { countRefusals } from '../audit/refusals.ts';
import { type Certificates, openCertificates } from '../certificates.ts';
import { type Listener, listenHttp, listenHttps, type TlsListener } from '../http/app.ts';
import { addCertificateExpiry } from '../http/metrics.ts';
import { openIdentity } from '../identity.ts';
import { answerRequests } from '../store/control.ts';
import { lockDataFolder } from '../store/database/database.ts';
import { gatewayFolder, openGatewayDatabase } from '../store/database/gateway-database.ts';
import { namesOfMachine } from '../tls.ts';
import { version } from '../version.ts';
import type { GatewayConfig } from './config.ts';
import type { OpenGateway } from './gateway-type.ts';
import { createGatewayApp } from './http/app.ts';
import { createGatewayMetrics } from './metrics.ts';
import { createSummary } from './summary.ts';

export interface GatewayServerOptions
  extends Omit<HostOptions, 'host' | 'machineNames' | 'certificateNames'> {
  config: GatewayConfig;
  /** Holds `gateway.db` and the folder `gateway`; a server and a registry may run in it at the same time. */
  dataFolder: string;
  /** The address of the PostgreSQL database that the servers of the data folder share: keys are also there. */
  database?: string;
  host: string;
  port: number;
  /** Whether a port in use is an error; otherwise the next free one is used. */
  strictPort?: boolean;
  logger: FastifyBaseLogger;
  /** Starts what works on series. */
  open: OpenGateway;
  /** Whether callers need a key. */
  login?: boolean;
  oidc?: OidcSettings;
  /** The operator's certificate and its key (files, PEM), for any address except loopback; missing: the self-signed one of the data folder. */
  tlsCert?: string;
  tlsKey?: string;
  /** Whether to use the self-signed certificate beyond this machine. */
  tlsSelfMade?: boolean;
  /** Folder of the built page. */
  page?: string;
}

export interface RunningGateway {
  readonly app: FastifyInstance;
  readonly access: Access;
  readonly url: string;
  /** The address for this machine itself, whatever its name resolves to. */
  readonly localUrl: string;
  readonly port: number;
  /** Those of its HTTPS port; undefined on loopback, where it speaks HTTP. */
  readonly certificates?: Certificates;
  /** Continues the audit log in a new file if it was renamed (SIGHUP). */
  reopenFiles(): void;
  close(): Promise<void>;
}

const sweepMs = 3_600_000;

/**
 * Starts a gateway: its part of the data folder, its work, and HTTP on loopback, HTTPS on any other address. Closing ends them in the
 * opposite order.
 * @throws TomaatError CONFLICT if another gateway has the data folder or the port is in use
 */
export async function startGatewayServer(options: GatewayServerOptions): Promise<RunningGateway> {
  const { config, dataFolder, host, port, strictPort = false, logger, publicUrl } = options;
  const plain = isLoopback(host);
  requireSafeBind({
    host,
    login: options.login,
    tlsChosen: Boolean(options.tlsCert) || Boolean(options.tlsSelfMade),
  });
  await using opened = new AsyncDisposableStack();
  const folder = gatewayFolder(dataFolder);
  opened.use(lockDataFolder(folder));
  const audit = opened.use(await openLog(options, folder));
  audit.record('gateway.started', { version, count: config.rules.length });
  opened.defer(() => audit.record('gateway.stopped'));
  const recorder = opened.use(countRefusals(audit));
  const database = opened.use(await openGatewayDatabase(dataFolder));
  await adoptKeys(dataFolder, 'gateway', { shared: options.database });
  const certificates = plain ? undefined : opened.use(await openOwnCertificates(options));

  const rules = config.rules.map(({ id }) => id);
  const metrics = createGatewayMetrics(rules, () => summary.now());
  if (certificates) addCertificateExpiry(metrics.registry, certificates);
  const gateway = await options.open({
    database,
    folder,
    dataFolder,
    audit: recorder,
    meter: metrics.meter,
  });
  opened.defer(() => gateway.close());
  const summary = createSummary(() => gateway.summary());
  const { app, access, login } = await createGatewayApp({
    ...options,
    gateway,
    summary,
    metrics,
    database,
    pseudonyms: await openPseudonyms(dataFolder),
    audit: recorder,
    hosts: {
      ...options,
      machineNames: plain ? [] : await namesOfMachine(),
      certificateNames: certificates?.names,
    },
  });
  opened.defer(() => app.close());
  const sweeper = setInterval(() => {
    login.sessions
      .sweep()
      .catch((error: unknown) => logger.error({ err: error }, 'dropping ended sessions failed'));
  }, sweepMs);
  sweeper.unref();
  opened.defer(() => clearInterval(sweeper));
  opened.use(
    answerRequests(folder, { rotateAudit: async () => ({ closed: await audit.rotate() }) }, (error) =>
      logger.error({ err: error }, 'the request of a command failed'),
    ),
  );
  const listener: Listener & Partial<TlsListener> = certificates
    ? await listenHttps(app, certificates.current, host, port, strictPort)
    : await listenHttp(app, host, port, strictPort);
  opened.defer(() => listener.close());
  certificates?.onChange((certificate) => listener.renew?.(certificate));
  const scheme = plain ? 'http' : 'https';
  const stack = opened.move();
  return {
    app,
    access,
    url: publicUrl ?? `${scheme}://${hostForOthers(host)}:${listener.port}`,
    localUrl: `${scheme}://${hostForSelf(host)}:${listener.port}`,
    port: listener.port,
    certificates,
    reopenFiles: () => audit.reopen(),
    close: () => stack.disposeAsync(),
  };
}

async function openLog({ dataFolder, logger }: GatewayServerOptions, folder: string): Promise<Audit> {
  return openAudit(folder, {
    identity: await openIdentity(dataFolder),
    onFault: (error) => logger.error({ err: error }, 'the audit log cannot be written'),
  });
}

function openOwnCertificates({ dataFolder, tlsCert, tlsKey, host, publicUrl, logger }: GatewayServerOptions) {
  return openCertificates(dataFolder, {
    cert: tlsCert,
    key: tlsKey,
    host,
    names: publicUrl === undefined ? [] : [new URL(publicUrl).hostname],
    logger,
  });
}
