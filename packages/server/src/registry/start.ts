import { join } from 'node:path';
import { audienceOf } from '@tomaat/client';
import type { FastifyBaseLogger, FastifyInstance } from 'fastify';
import { renewProgramKey } from '../access/keys.ts';
import { hostForOthers, hostForSelf, inUrl, isWildcard } from '../addresses.ts';
import { createApp, type Listener, listenHttp, listenHttps } from '../http/app.ts';
import { mayContinue } from '../http/keep-alive.ts';
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
}

export interface RegistryApp {
  readonly app: FastifyInstance;
  readonly entries: Entries;
  readonly metrics: RegistryMetrics;
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
    const metrics = createRegistryMetrics(entries);
    const keepAlive: KeepAlive = options.keepAlive ?? passOnContinue;
    const relay = createRelay({
      entries,
      policy,
      trust: options.trust,
      keepAlive,
      onOutcome: metrics.countOutcome,
    });
    const { isOwnAddress = () => false } = options;
    registerRegistryRoutes(app, { entries, relay, metrics, now, isOwnAddress });
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
        .catch((error: unknown) => app.log.error({ err: error }, 'dropping expired entries failed'));
    }, 3_600_000);
    sweeper.unref();
    return {
      app,
      entries,
      metrics,
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

export interface RegistryOptions extends Omit<RegistryAppOptions, 'isOwnAddress' | 'loopbackTargets'> {
  host: string;
  /** The address by which others know the registry, such as that of a proxy in front of it. */
  publicUrl?: string;
  port: number;
  /** Whether a taken port is an error; else the next free one is used. */
  strictPort?: boolean;
  /** For any address but loopback, where the registry speaks HTTPS; missing: the self-made one of the data folder. */
  tls?: Certificate;
}

export interface RunningRegistry {
  readonly url: string;
  /** The address for this machine itself, whatever DNS says of its name. */
  readonly localUrl: string;
  readonly port: number;
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
  const { publicUrl } = options;
  const hosts = ['localhost', '127.0.0.1', '[::1]', hostForSelf(host), hostForOthers(host)];
  if (isWildcard(host)) hosts.push(...(await namesOfMachine()).map(inUrl));
  const own = new Set(hosts.map((name) => name.toLowerCase()));
  const registry = await createRegistryApp({
    ...options,
    // What others announce as loopback is their machine, not this one; on loopback everyone is on this machine.
    loopbackTargets: plain,
    isOwnAddress(address) {
      if (publicUrl !== undefined && audienceOf(publicUrl) === audienceOf(address)) return true;
      const { hostname, port, pathname } = new URL(address);
      return own.has(hostname) && Number(port || (plain ? 80 : 443)) === listener.port && pathname === '/';
    },
  });
  let listener: Listener;
  try {
    listener = plain
      ? await listenHttp(registry.app, host, port, strictPort)
      : await listenHttps(
          registry.app,
          options.tls ??
            (await openCertificate(options.dataFolder, { host, logger: options.logger || undefined })),
          host,
          port,
          strictPort,
        );
  } catch (error) {
    await registry.close();
    throw error;
  }
  const scheme = plain ? 'http' : 'https';
  return {
    url: publicUrl ?? `${scheme}://${hostForOthers(host)}:${listener.port}`,
    localUrl: `${scheme}://${hostForSelf(host)}:${listener.port}`,
    port: listener.port,
    apiKey: (label) => renewProgramKey(registry.entries.db, label, ['announce'], now()),
    async close() {
      await listener.close();
      await registry.close();
    },
  };
}

/** Tells the caller what its server says, if it is one that takes it well. */
const passOnContinue: KeepAlive = (request, reply) => {
  if (mayContinue(request.raw) && !reply.raw.headersSent) reply.raw.writeContinue();
};

async function countLive(entries: Entries): Promise<number> {
  return (await entries.count()).reduce((sum, group) => sum + (group.live ? group.entries : 0), 0);
}
