import { randomBytes } from 'node:crypto';
import { availableParallelism, hostname } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { openApps } from '../apps.ts';
import { deviceFault, engineOf } from '../config.ts';
import { isCard, slotsOf } from '../runtimes/devices.ts';
import { settings } from '../settings.ts';
import { measureApps } from '../worker/measure-apps.ts';
import { createMemoryPolicy } from '../worker/memory-limit.ts';
import { openDevices } from '../worker/open-devices.ts';
import { remoteSource } from '../worker/remote-source.ts';
import { type Supervisor, startSupervisor } from '../worker/supervisor.ts';
import { logVerified, verifyApps } from '../worker/verify-app.ts';
import { connectTo, parseUrl } from './connect.ts';
import { devicesOf } from './device-flag.ts';
import { openHangup } from './hangup.ts';
import { openInterrupt } from './interrupt.ts';
import { openLog } from './log.ts';
import { loadModelServers } from './model-servers.ts';
import { bundledApps } from './packaged.ts';
import { openWorkFolder } from './work-folder.ts';

export interface WorkerFlags {
  token?: string;
  workers?: number;
  device?: string;
  /** False with --no-rewrite. */
  rewrite?: boolean;
  memoryMb?: number;
  ca?: string;
  allowNet?: string[];
  data?: string;
  fingerprint?: string[];
  /** Seconds. */
  drainSeconds: number;
  /** Seconds without a job after which it ends; it waits for jobs forever if missing. */
  idleExit?: number;
  logLevel: string;
  json?: boolean;
}

/** `tomaat worker`: computes predictions for another server, until stopped, or until there was nothing to do for `--idle-exit`. */
export async function worker(
  serverUrl: string,
  appFolders: readonly string[],
  flags: WorkerFlags,
): Promise<number> {
  const { token } = flags;
  if (!token) {
    throw new TomaatError(
      'BAD_REQUEST',
      'A worker needs a key of the server. Give --token or TOMAAT_WORKER_TOKEN. On the server, “tomaat keys create --label NAME --scope worker” creates one.',
    );
  }
  const url = parseUrl(serverUrl);
  const { ca, data, fingerprint, idleExit } = flags;
  const idleExitMs = idleExit === undefined ? undefined : idleExit * 1000;
  const logger = openLog(flags.logLevel);
  using hangup = openHangup(logger);
  const trust = { apiKey: token, ca, data, fingerprint };
  let reached = await connectTo(url.href, trust);
  hangup.add('what is trusted (--ca, known_hosts)', async () => {
    const again = await connectTo(url.href, { ...trust, ask: async () => false });
    // An unreachable server presents no certificate: keep the known one.
    if (url.protocol === 'http:' || again.hosts.length > 0) reached = again;
  });
  const apps = await openApps(appFolders.length > 0 ? appFolders : bundledApps());
  const modelServers = await loadModelServers(apps, flags);
  await using opened = new AsyncDisposableStack();
  using interrupt = openInterrupt();
  const asked = devicesOf(flags.device);
  const unfit = deviceFault(asked, flags.workers);
  if (unfit) throw new TomaatError('BAD_REQUEST', unfit, { field: 'workers' });
  const devices = await openDevices(asked, {
    signal: interrupt.signal,
    logger,
    ...engineOf(flags),
    measures: false,
  });
  const slots = slotsOf(asked, flags.workers ?? settings.workers.default);
  const workFolder = await openWorkFolder(opened);
  const host = hostname()
    .replace(/[^\w.-]/g, '')
    .slice(0, 60);
  const versions = new Map(apps.map(({ manifest }) => [manifest.id, manifest.version]));
  const source = remoteSource({
    serverUrl: url.href,
    token,
    fetch: (...request) => reached.fetch(...request),
    name: `${host}:${process.pid}:${randomBytes(4).toString('hex')}`,
    versions,
    patienceMs: idleExitMs,
    logger,
  });
  const memory = createMemoryPolicy({ slots, memoryMb: flags.memoryMb, devices });
  const onCard = devices.some(isCard);
  let maxVoxels: number;
  try {
    const welcome = await source.greet(interrupt.signal);
    ({ maxVoxels } = welcome);
    const useful = welcome.services
      .filter(({ id, version }) => versions.get(id) === version)
      .map(({ id }) => id);
    if (useful.length === 0) {
      const there = welcome.services.map(({ id, version }) => `${id} ${version}`).join(', ');
      const here = [...versions].map((pair) => pair.join(' ')).join(', ');
      throw new TomaatError(
        'CONFLICT',
        `The server does not serve any app of this worker (${here}). Available: ${there}.`,
      );
    }
    const line = { server: url.href, services: useful, pid: process.pid };
    console.log(flags.json ? JSON.stringify(line) : `Working for ${url.href}: ${useful.join(', ')}`);
    await verifyApps(appFolders.length > 0 || onCard ? apps : [], {
      memory,
      devices,
      modelServers,
      atATime: onCard ? 1 : slots,
      signal: interrupt.signal,
      onVerified: logVerified(logger),
    });
  } catch (error) {
    if (interrupt.signal.aborted) return 0;
    throw error;
  }
  const supervisor = await startSupervisor({
    apps,
    source,
    slots,
    devices,
    memory,
    modelServers,
    maxIdle: Math.max(2, availableParallelism()),
    workFolder: join(workFolder, 'jobs'),
    maxVoxels,
    idleExitMs,
    stopSignal: interrupt.signal,
    logger,
  });
  opened.use(supervisor);
  void measureApps(apps, { memory, devices, spare: supervisor.spare, logger });
  const isIdle = await untilIdle(supervisor, interrupt.signal);
  if (isIdle) logger.info(`there was nothing to do for ${idleExit} s; the worker ends`);
  else await supervisor.drain(flags.drainSeconds * 1000);
  return 0;
}

/** Waits for the end of a supervisor: true if there was nothing to do, false if the signal fired. */
async function untilIdle({ idle }: Supervisor, signal: AbortSignal): Promise<boolean> {
  // A signal listener does not keep a process alive.
  const alive = setInterval(() => {}, 60_000);
  const stopped = new Promise<boolean>((resolve) => {
    if (signal.aborted) resolve(false);
    else signal.addEventListener('abort', () => resolve(false), { once: true });
  });
  try {
    return await Promise.race([stopped, idle.then(() => true)]);
  } finally {
    clearInterval(alive);
  }
}
