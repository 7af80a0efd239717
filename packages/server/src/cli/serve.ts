import { existsSync, readdirSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { TomaatError } from '@tomaat/core';
import { type Logger, pino } from 'pino';
import type { LoadedConfig } from '../config.ts';
import { startAnnouncer } from '../registry/announcer.ts';
import { type RunningRegistry, startRegistry } from '../registry/start.ts';
import { type RunningServer, startServer } from '../server.ts';
import { ownExtension } from '../source.ts';
import { openCertificate } from '../tls.ts';
import { runDemo } from './demo.ts';
import { openInterrupt } from './interrupt.ts';

/** `tomaat serve` and `tomaat up`: a server, with `up` a registry beside it, until told to stop. */

/** A folder that comes with the program: beside the sources in the workspace, in the package when installed. */
function packagedFolder(inPackage: string, inWorkspace: string): string | undefined {
  const path = ownExtension === '.ts' ? `../../../../${inWorkspace}` : `../../${inPackage}`;
  const folder = fileURLToPath(new URL(path, import.meta.url));
  return existsSync(folder) ? folder : undefined;
}

/** The apps in the box; one of them is what v1 clients get when nothing is said. */
export function bundledApps(): string[] {
  const folder = packagedFolder('apps', 'apps');
  if (!folder) return [];
  const isApp = (name: string) => existsSync(join(folder, name, 'tomaat.yaml'));
  return readdirSync(folder)
    .filter(isApp)
    .sort()
    .map((name) => join(folder, name));
}

export const pageFolder = (): string | undefined => packagedFolder('page', 'packages/web/dist');

/** The log goes to stderr as JSON; the first lines on stdout are the addresses. */
function createLogger({ config, sources }: LoadedConfig, quietByDefault: boolean): Logger {
  const level = quietByDefault && sources.logLevel === 'default' ? 'warn' : config.logLevel;
  return pino({ level }, pino.destination(2));
}

function openServer(
  { config, sources }: LoadedConfig,
  appFolders: readonly string[],
  logger: Logger,
): Promise<RunningServer> {
  return startServer({
    appFolders,
    host: config.host,
    port: config.port,
    tlsPort: config.tlsPort,
    strictPort: sources.port !== 'default',
    strictTlsPort: sources.tlsPort !== 'default',
    dataFolder: config.data,
    tlsCert: config.tlsCert,
    tlsKey: config.tlsKey,
    insecureNoLogin: config.insecureNoLogin,
    defaultService: config.default,
    workers: config.workers,
    drainMs: config.drainSeconds * 1000,
    maxIdleMb: config.maxIdleMb,
    resultTtlMs: config.keepMinutes * 60_000,
    maxQueued: config.maxQueued,
    maxUploadBytes: config.maxUploadBytes,
    maxVoxels: config.maxVoxels,
    page: pageFolder(),
    logger,
  });
}

/** Announces at the registries that the operator named. */
function announce(
  { config }: LoadedConfig,
  server: RunningServer,
  logger: Logger,
  opened: AsyncDisposableStack,
): void {
  if (config.announce.length === 0) return;
  const { apiKey } = config;
  if (apiKey === undefined) {
    throw new TomaatError(
      'BAD_REQUEST',
      'Announcing needs a key of the registry: give --api-key or TOMAAT_API_KEY. Its operator makes one with “tomaat keys create”.',
    );
  }
  for (const registryUrl of config.announce) {
    const announcer = startAnnouncer({ registryUrl, apiKey, services: () => server.announcements(), logger });
    opened.defer(() => announcer.close());
  }
}

export async function serve(
  loaded: LoadedConfig,
  options: { appFolders: string[]; json: boolean },
): Promise<number> {
  const logger = createLogger(loaded, false);
  await using opened = new AsyncDisposableStack();
  using interrupt = openInterrupt();
  const server = await openServer(loaded, options.appFolders, logger);
  opened.defer(() => server.close());
  announce(loaded, server, logger, opened);
  printAddresses(loaded, server, undefined, options.json);
  await untilInterrupted(interrupt.signal);
  return 0;
}

export async function up(
  loaded: LoadedConfig,
  options: { appFolders: string[]; demo: boolean; json: boolean },
): Promise<number> {
  const { config, sources } = loaded;
  const logger = createLogger(loaded, true);
  await using opened = new AsyncDisposableStack();
  using interrupt = openInterrupt();
  await mkdir(config.data, { recursive: true, mode: 0o700 });
  const server = await openServer(loaded, [...bundledApps(), ...options.appFolders], logger);
  opened.defer(() => server.close());
  const registry = await startRegistry({
    host: config.host,
    port: config.registryPort,
    strictPort: sources.registryPort !== 'default',
    dataFolder: config.data,
    logger,
    tls: await openCertificate(config.data, { cert: config.tlsCert, key: config.tlsKey }),
    allowNet: config.allowNet,
    page: pageFolder(),
  });
  opened.defer(() => registry.close());
  const announcer = startAnnouncer({
    registryUrl: registry.url,
    apiKey: await registry.apiKey('tomaat up'),
    services: () => server.announcements(),
    trust: server.certificate.cert,
    logger,
  });
  opened.defer(() => announcer.close());
  announce(loaded, server, logger, opened);
  await announcer.firstRound;
  printAddresses(loaded, server, registry, options.json);
  if (options.demo && !interrupt.signal.aborted) {
    await runDemo({
      server,
      registry,
      print: options.json ? console.error : console.log,
      signal: interrupt.signal,
    });
  }
  await untilInterrupted(interrupt.signal);
  return 0;
}

function untilInterrupted(signal: AbortSignal): Promise<void> {
  // A listener of a signal keeps no process alive; the servers do.
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

function printAddresses(
  { config, sources }: LoadedConfig,
  server: RunningServer,
  registry: RunningRegistry | undefined,
  json: boolean,
): void {
  if (json) {
    console.log(
      JSON.stringify({
        server: server.url,
        serverTls: server.tlsUrl,
        registry: registry?.url,
        data: config.data,
      }),
    );
    return;
  }
  const lines = [`Server    ${[server.url, server.tlsUrl].filter(Boolean).join('   ')}`];
  if (registry) lines.push(`Registry  ${registry.url}`);
  lines.push(`Data      ${config.data}`, `Services  ${server.services.join(', ')}`);
  const { certificate } = server;
  if (certificate.selfMade) {
    lines.push(
      `The certificate of the HTTPS address is self-made; clients show its SHA-256 fingerprint once:`,
      `  ${certificate.fingerprint}`,
      `  in Python: requests.post(…, verify='${certificate.certFile}')`,
    );
  }
  const moved = [
    ['port', server.url, config.port],
    ['tlsPort', server.tlsUrl, config.tlsPort],
    ['registryPort', registry?.url, config.registryPort],
  ] as const;
  for (const [key, url, wanted] of moved) {
    const used = url && Number(new URL(url).port);
    if (used && wanted !== 0 && sources[key] === 'default' && used !== wanted) {
      lines.push(`Port ${wanted} is taken: port ${used} is used instead.`);
    }
  }
  console.log(lines.join('\n'));
}
