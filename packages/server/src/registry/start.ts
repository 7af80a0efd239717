import { join } from 'node:path';
import { audienceOf } from '@tomaat/client';
import type { FastifyBaseLogger, FastifyInstance } from 'fastify';
import type { Kysely } from 'kysely';
import { type Access, markLegacy, registerAccess } from '../access/access.ts';
import type { OidcSettings } from '../access/claims.ts';
import { createHostPolicy, type HostOptions, requireSafeBind } from '../access/hosts.ts';
import { type KeySchema, renewProgramKey } from '../access/keys.ts';
import { hostForOthers, hostForSelf, inUrl, isWildcard } from '../addresses.ts';
import { createApp, type Listener, listenHttp, listenHttps } from '../http/app.ts';
import { mayContinue } from '../http/keep-alive.ts';
import { createLogin, openOidc } from '../http/login.ts';
import { registerOperations } from '../http/operations.ts';
import { registerPage } from '../http/page.ts';
import { type Certificate, namesOfMachine, openCertificate } from '../tls.ts';
import { version } from '../version.ts';
import { type Entries, openEntries } from './entries.ts';
import { createRegistryMetrics, type RegistryMetrics } from './metrics.ts';
import { createRelay, type KeepAlive } from './relay.ts';
import { registerRegistryRoutes } from './routes.ts';
import { createTargetPolicy, isLoopback, type OwnServer, type Resolve } from './targets.ts';

export interface RegistryAppOptions {
  /** `registry.db` lies in it: the entries and the API keys. */
  dataFolder: string;
  logger: FastifyBaseLogger | false;
  /** Ranges (CIDR) besides loopback that the relay may connect to. */
  allowNet?: readonly string[];
  /** Certificates (PEM) that the relay trusts beyond this machine, besides those that Node does. */
  trust?: string;
  /** The server beside this registry; the relay may always reach it. */
  ownServer?: OwnServer;
  /** Folder of the built page, served at `/`. */
  page?: string;
  /** Whether the relay may connect to this machine's own loopback addresses; true if missing. */
  loopbackTargets?: boolean;
  /**
   * Whether an address, as a server names the registry that it announces to, is this registry's: what was announced to
   * another one is refused. If missing, none is, and nothing can be announced through our API.
   */
  isOwnAddress?(address: string): boolean;
  /** What the relay does when a server says that it is still computing. Default: the caller is told so, too. */
  keepAlive?: KeepAlive;
  /** The clock, in ms since 1970. */
  now?: () => number;
  resolve?: Resolve;
  /** Names and origins that are ours; only loopback if missing. */
  hosts?: HostOptions;
  /** Whether a caller needs a key. */
  login?: boolean;
  /** The issuer that logs people in, besides keys. */
  oidc?: OidcSettings;
  /** The address at which others reach the registry, such as that of a proxy in front of it. */
  publicUrl?: string;
  /** Requests a minute from one address at the legacy port. */
  legacyPerMinute?: number;
}

export interface RegistryApp {
  readonly app: FastifyInstance;
  readonly entries: Entries;
  readonly metrics: RegistryMetrics;
  readonly access: Access;
  readonly keys: Kysely<KeySchema>;
  close(): Promise<void>;
}

/** The registry without a port: its database, its routes, and the hourly drop of what expired long ago. */
export async function createRegistryApp(options: RegistryAppOptions): Promise<RegistryApp> {
  const { now = Date.now } = options;
  const policy = createTargetPolicy(
    options.allowNet,
    options.resolve,
    options.ownServer,
    options.loopbackTargets,
  );
  const entries = await openEntries(join(options.dataFolder, 'registry.db'), now);
  try {
    await entries.sweep();
    const app = createApp(options.logger);
    const keys = entries.db as unknown as Kysely<KeySchema>;
    const login = createLogin({
      db: entries.db,
      required: options.login ?? false,
      scope: 'predict',
      oidc: await openOidc(options.oidc),
      publicUrl: options.publicUrl,
      now,
    });
    const access = registerAccess(app, {
      keys,
      hosts: createHostPolicy(options.hosts ?? {}),
      login: options.login,
      sessions: login.principalOf,
      legacyPerMinute: options.legacyPerMinute,
      realm: 'TOMAAT registry',
      now,
    });
    const metrics = createRegistryMetrics(entries);
    const keepAlive: KeepAlive = options.keepAlive ?? passOnContinue;
    const relay = createRelay({
      entries,
      policy,
      trust: options.trust,
      keepAlive,
      onOutcome: metrics.countOutcome,
    });
    login.register(app, access.recognise);
    const { isOwnAddress = () => false } = options;
    registerRegistryRoutes(app, { entries, relay, metrics, access, now, isOwnAddress });
    let live = 0;
    app.addHook('onRequest', async (request) => {
      if (request.routeOptions.url === '/health/ready') live = await countLive(entries);
    });
    registerOperations(app, {
      on: 'registry',
      version,
      metrics: () => metrics.registry.metrics(),
      ready: () => ({ services: live }),
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
    Omit<HostOptions, 'host' | 'machineNames'> {
  host: string;
  /** The address by which others know the registry, such as that of a proxy in front of it. */
  publicUrl?: string;
  port: number;
  /** Whether a taken port is an error; else the next free one is used. */
  strictPort?: boolean;
  /** For any address but loopback, where the registry speaks HTTPS; missing: the self-made one of the data folder. */
  tls?: Certificate;
  /** That the self-made certificate is wanted, beyond this machine. */
  tlsSelfMade?: boolean;
  /** A port (HTTPS) of its own for TOMAAT v1 without login; 0: a free one. */
  legacyPort?: number;
}

export interface RunningRegistry {
  readonly url: string;
  /** The address for this machine itself, whatever DNS says of its name. */
  readonly localUrl: string;
  readonly port: number;
  /** Of the port for TOMAAT v1 without login. */
  readonly legacyUrl?: string;
  /**
   * A key with the scope announce for a program on this machine, such as `tomaat up`. The same label gives the same
   * key id with a new secret (the earlier secret ends), so that its entries stay its own.
   */
  apiKey(label: string): Promise<string>;
  close(): Promise<void>;
}

/** Starts a registry: HTTP on loopback, HTTPS on any other address. */
export async function startRegistry(options: RegistryOptions): Promise<RunningRegistry> {
  const { host, port, strictPort = false, now = Date.now } = options;
  const plain = isLoopback(host);
  requireSafeBind({
    host,
    login: options.login,
    tlsChosen: options.tls !== undefined || Boolean(options.tlsSelfMade),
  });
  const { publicUrl } = options;
  const machineNames = plain ? [] : await namesOfMachine();
  const hosts = ['localhost', '127.0.0.1', '[::1]', hostForSelf(host), hostForOthers(host)];
  if (isWildcard(host)) hosts.push(...machineNames.map(inUrl));
  const own = new Set(hosts.map((name) => name.toLowerCase()));
  await using opened = new AsyncDisposableStack();
  const registry = await createRegistryApp({
    ...options,
    hosts: { ...options, machineNames },
    // What others announce as loopback is their machine, not this one; on loopback everyone is on this machine.
    loopbackTargets: plain,
    isOwnAddress(address) {
      if (publicUrl !== undefined && audienceOf(publicUrl) === audienceOf(address)) return true;
      const { hostname, port, pathname } = new URL(address);
      return own.has(hostname) && Number(port || (plain ? 80 : 443)) === listener.port && pathname === '/';
    },
  });
  opened.defer(() => registry.close());
  const certificate =
    plain && options.legacyPort === undefined
      ? undefined
      : (options.tls ??
        (await openCertificate(options.dataFolder, { host, logger: options.logger || undefined })));
  const listener: Listener = plain
    ? await listenHttp(registry.app, host, port, strictPort)
    : await listenHttps(registry.app, certificate!, host, port, strictPort);
  opened.defer(() => listener.close());
  const legacy =
    options.legacyPort === undefined
      ? undefined
      : await listenHttps(registry.app, certificate!, host, options.legacyPort, true, markLegacy);
  if (legacy) opened.defer(() => legacy.close());
  const scheme = plain ? 'http' : 'https';
  const name = hostForOthers(host);
  const stack = opened.move();
  return {
    url: publicUrl ?? `${scheme}://${name}:${listener.port}`,
    localUrl: `${scheme}://${hostForSelf(host)}:${listener.port}`,
    port: listener.port,
    legacyUrl: legacy && `https://${name}:${legacy.port}`,
    apiKey: (label) => renewProgramKey(registry.keys, label, ['announce'], now()),
    close: () => stack.disposeAsync(),
  };
}

/** Tells the caller what its server says, if it is one that takes it well. */
const passOnContinue: KeepAlive = (request, reply) => {
  if (mayContinue(request.raw) && !reply.raw.headersSent) reply.raw.writeContinue();
};

async function countLive(entries: Entries): Promise<number> {
  return (await entries.count()).reduce((sum, group) => sum + (group.live ? group.entries : 0), 0);
}
