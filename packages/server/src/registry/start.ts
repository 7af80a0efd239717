import { audienceOf } from '@tomaat/client';
import type { FastifyBaseLogger, FastifyInstance } from 'fastify';
import type { Kysely } from 'kysely';
import { type Access, markLegacy, registerAccess } from '../access/access.ts';
import type { OidcSettings } from '../access/claims.ts';
import { checkDeployment } from '../access/deployment.ts';
import { createHostPolicy, type HostOptions, isNamedBy, requireSafeBind } from '../access/hosts.ts';
import { renewProgramKey } from '../access/keys.ts';
import { hideOwners, openPseudonyms, withPseudonyms } from '../access/pseudonyms.ts';
import { bare, hostForOthers, hostForSelf, inUrl, isLoopback, isWildcard } from '../addresses.ts';
import type { Recorder } from '../audit/refusals.ts';
import { type Certificates, openCertificates } from '../certificates.ts';
import { createApp, type Listener, listenHttp, listenHttps, type TlsListener } from '../http/app.ts';
import { sendInterim } from '../http/keep-alive.ts';
import { createLogin, openOidc } from '../http/login.ts';
import { addCertificateExpiry } from '../http/metrics.ts';
import { registerOperations } from '../http/operations.ts';
import { registerPage } from '../http/page.ts';
import { openPublicAddress } from '../http/public-address.ts';
import type { DeploymentSchema } from '../store/database/deployment-schema.ts';
import type { KeySchema } from '../store/database/key-schema.ts';
import { openRegistryDatabase } from '../store/database/registry-database.ts';
import { namesOfMachine } from '../tls.ts';
import { version } from '../version.ts';
import { type Entries, openEntries } from './entries.ts';
import { createRegistryMetrics, type RegistryMetrics } from './metrics.ts';
import { createRelay, type KeepAlive } from './relay.ts';
import { registerRegistryRoutes } from './routes.ts';
import { createTargetPolicy, type OwnServer, type Resolve } from './targets.ts';

export interface RegistryAppOptions {
  /** Contains `registry.db`: the entries and the API keys. */
  dataFolder: string;
  /** The PostgreSQL database that several registries share, instead of `registry.db`. */
  database?: string;
  logger: FastifyBaseLogger | false;
  /** Ranges (CIDR) in addition to loopback that the relay may connect to. */
  allowNet?: readonly string[];
  /** Certificates (PEM) that the relay trusts beyond this machine, in addition to Node's. */
  trust?: string;
  /** The server started with this registry; the relay may always reach it. */
  ownServer?: OwnServer;
  /** Folder of the built page, served at `/`. */
  page?: string;
  /** Whether the relay may connect to this machine's own loopback addresses; true if missing. */
  loopbackTargets?: boolean;
  /**
   * Whether an address, by which a server names its registry, is this registry's: an announcement for
   * another one is refused. If missing, all are refused, and nothing can be announced through our API.
   */
  isOwnAddress?(address: string): boolean;
  /** What the relay does when a server reports that it is still computing. Default: it informs the caller. */
  keepAlive?: KeepAlive;
  /** The clock, in ms since 1970. */
  now?: () => number;
  resolve?: Resolve;
  /** Names and origins that are ours; only loopback if missing. */
  hosts?: HostOptions;
  /** Whether callers need a key. */
  login?: boolean;
  /** Who gives access, as the login page shows it. */
  contact?: string;
  /** The issuer for logins, in addition to keys. */
  oidc?: OidcSettings;
  /** The address at which others reach the registry, such as that of a proxy in front of it. */
  publicUrl?: string;
  /** Requests per minute from one address at the legacy port. */
  legacyPerMinute?: number;
  /** The audit log of the server started with it; a registry alone has none. */
  audit?: Pick<Recorder, 'record'>;
}

export interface RegistryApp {
  readonly app: FastifyInstance;
  readonly entries: Entries;
  readonly metrics: RegistryMetrics;
  readonly access: Access;
  readonly keys: Kysely<KeySchema>;
  close(): Promise<void>;
}

/** The registry without a port: its database, its routes, and the hourly removal of long-expired entries. */
export async function createRegistryApp(options: RegistryAppOptions): Promise<RegistryApp> {
  const { now = Date.now } = options;
  const policy = createTargetPolicy(
    options.allowNet,
    options.resolve,
    options.ownServer,
    options.loopbackTargets,
  );
  const database = await openRegistryDatabase(options.dataFolder, options.database);
  const isShared = database.dialect === 'postgres';
  const entries = await openEntries(database, now);
  try {
    await entries.sweep();
    const address = openPublicAddress(options.publicUrl);
    const app = createApp(options.logger, { address });
    const keys = entries.db as unknown as Kysely<KeySchema>;
    const pseudonyms = await openPseudonyms(options.dataFolder);
    if (isShared) {
      const { dataFolder } = options;
      await checkDeployment(entries.db as unknown as Kysely<DeploymentSchema>, { pseudonyms, dataFolder });
    } else if ((await hideOwners(entries.db as unknown as Kysely<unknown>, pseudonyms)) > 0)
      await database.truncateWal();
    const login = createLogin({
      db: entries.db,
      required: options.login ?? false,
      contact: options.contact,
      scope: 'predict',
      oidc: withPseudonyms(
        await openOidc(options.oidc, isShared ? { db: entries.db, now } : undefined),
        pseudonyms,
      ),
      address,
      audit: options.audit,
      now,
    });
    if (options.logger) void login.checkIssuer(options.logger);
    const access = registerAccess(app, {
      keys,
      hosts: createHostPolicy(options.hosts ?? {}),
      login: options.login,
      sessions: login.principalOf,
      legacyPerMinute: options.legacyPerMinute,
      audit: options.audit,
      storedOwner: pseudonyms.of,
      realm: 'TOMAAT registry',
      now,
    });
    const metrics = createRegistryMetrics(entries);
    const relay = createRelay({
      entries,
      policy,
      trust: options.trust,
      keepAlive: options.keepAlive ?? passOnContinue,
      onOutcome: metrics.countOutcome,
    });
    login.register(app, access.recognise);
    const { isOwnAddress = () => false } = options;
    registerRegistryRoutes(app, { entries, relay, metrics, access, now, isOwnAddress });
    registerOperations(app, {
      on: 'registry',
      version,
      metrics: () => metrics.registry.metrics(),
      ready: async () => ({ services: await countLive(entries) }),
    });
    await registerPage(app, options.page);
    const sweeper = setInterval(() => {
      entries
        .sweep()
        .then(() => login.sessions.sweep())
        .catch((error: unknown) => app.log.error({ err: error }, 'dropping expired entries failed'));
    }, 3_600_000);
    sweeper.unref();
    return {
      app,
      entries,
      metrics,
      access,
      keys,
      async close() {
        clearInterval(sweeper);
        await app.close();
        await entries.close();
      },
    };
  } catch (error) {
    await entries.close();
    throw error;
  }
}

export interface RegistryOptions
  extends Omit<RegistryAppOptions, 'hosts' | 'isOwnAddress' | 'loopbackTargets'>,
    Omit<HostOptions, 'host' | 'machineNames' | 'certificateNames'> {
  host: string;
  /** The registry's public address, such as that of a proxy in front of it. */
  publicUrl?: string;
  port: number;
  /** Whether a port in use is an error; otherwise the next free one is used. */
  strictPort?: boolean;
  /** The certificates of the server started with it, for any address except loopback, where the registry speaks HTTPS. */
  certificates?: Certificates;
  /** Otherwise the operator's certificate and its key (files, PEM); missing: the self-signed one of the data folder. */
  tlsCert?: string;
  tlsKey?: string;
  /** Whether to use the self-signed certificate beyond this machine. */
  tlsSelfMade?: boolean;
  /** A separate port (HTTPS) for TOMAAT v1 without login; 0: a free one. */
  legacyPort?: number;
}

export interface RunningRegistry {
  readonly url: string;
  /** The address for this machine itself, whatever its name resolves to. */
  readonly localUrl: string;
  readonly port: number;
  /** The address of the port for TOMAAT v1 without login. */
  readonly legacyUrl?: string;
  /**
   * A key with the scope announce for a program on this machine, such as `tomaat up`. The same label gives the same
   * key id with a new secret (the earlier secret ends), so that its entries remain its own.
   */
  apiKey(label: string): Promise<string>;
  /** The certificates of its HTTPS ports; undefined if it has none. */
  readonly certificates?: Certificates;
  close(): Promise<void>;
}

/** Starts a registry: HTTP on loopback, HTTPS on any other address. */
export async function startRegistry(options: RegistryOptions): Promise<RunningRegistry> {
  const { host, port, strictPort = false, now = Date.now } = options;
  const plain = isLoopback(host);
  requireSafeBind({
    host,
    login: options.login,
    tlsChosen: options.certificates !== undefined || Boolean(options.tlsCert) || Boolean(options.tlsSelfMade),
  });
  const { publicUrl } = options;
  const machineNames = plain ? [] : await namesOfMachine();
  const hosts = ['localhost', '127.0.0.1', '[::1]', hostForSelf(host), hostForOthers(host)];
  if (isWildcard(host)) hosts.push(...machineNames.map(inUrl));
  const own = new Set(hosts.map((name) => name.toLowerCase()));
  await using opened = new AsyncDisposableStack();
  const needsTls = !plain || options.legacyPort !== undefined;
  const certificates = needsTls ? (options.certificates ?? opened.use(await openOwn(options))) : undefined;
  const registry = await createRegistryApp({
    ...options,
    hosts: { ...options, machineNames, certificateNames: certificates?.names },
    // A loopback address announced by another machine is that machine; on loopback all callers are on this machine.
    loopbackTargets: plain,
    isOwnAddress(address) {
      if (publicUrl !== undefined && audienceOf(publicUrl) === audienceOf(address)) return true;
      const { hostname, port, pathname } = new URL(address);
      const isOwnName =
        own.has(hostname) || certificates?.names().some((pattern) => isNamedBy(pattern, bare(hostname)));
      return Boolean(isOwnName) && Number(port || (plain ? 80 : 443)) === listener.port && pathname === '/';
    },
  });
  opened.defer(() => registry.close());
  if (certificates) addCertificateExpiry(registry.metrics.registry, certificates);
  const listener: Listener & Partial<TlsListener> = plain
    ? await listenHttp(registry.app, host, port, strictPort)
    : await listenHttps(registry.app, certificates!.current, host, port, strictPort);
  opened.defer(() => listener.close());
  const legacy =
    options.legacyPort === undefined
      ? undefined
      : await listenHttps(registry.app, certificates!.current, host, options.legacyPort, true, markLegacy);
  if (legacy) opened.defer(() => legacy.close());
  certificates?.onChange((certificate) => {
    listener.renew?.(certificate);
    legacy?.renew(certificate);
  });
  const scheme = plain ? 'http' : 'https';
  const name = hostForOthers(host);
  const stack = opened.move();
  return {
    url: publicUrl ?? `${scheme}://${name}:${listener.port}`,
    localUrl: `${scheme}://${hostForSelf(host)}:${listener.port}`,
    port: listener.port,
    legacyUrl: legacy && `https://${name}:${legacy.port}`,
    certificates,
    apiKey: (label) =>
      renewProgramKey(registry.keys, label, ['announce'], now(), async ({ id, scopes }) =>
        options.audit?.record('key.renewed', { keyId: id, scopes }),
      ),
    close: () => stack.disposeAsync(),
  };
}

function openOwn({ dataFolder, tlsCert, tlsKey, host, publicUrl, logger }: RegistryOptions) {
  return openCertificates(dataFolder, {
    cert: tlsCert,
    key: tlsKey,
    host,
    names: publicUrl === undefined ? [] : [new URL(publicUrl).hostname],
    logger: logger || undefined,
  });
}

/** Forwards the server's interim answers to the caller, at a limited rate. */
const passOnContinue: KeepAlive = (request, reply) => sendInterim(request.raw, reply.raw);

async function countLive(entries: Entries): Promise<number> {
  return (await entries.count()).reduce((sum, group) => sum + (group.live ? group.entries : 0), 0);
}
