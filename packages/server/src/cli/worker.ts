import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { pino } from 'pino';
import { openApps } from '../apps.ts';
import { remoteSource } from '../worker/remote-source.ts';
import { startSupervisor } from '../worker/supervisor.ts';
import { connectTo, parseUrl } from './connect.ts';
import { openInterrupt } from './interrupt.ts';

export interface WorkerFlags {
  token?: string;
  workers: number;
  ca?: string;
  data?: string;
  fingerprint?: string[];
  logLevel: string;
  json?: boolean;
}

/** So long a worker that is told to stop may go on with what it has; then it hands it back. */
const drainMs = 20_000;

/** `tomaat worker`: computes predictions for a server elsewhere, until told to stop. */
export async function worker(
  serverUrl: string,
  appFolders: readonly string[],
  flags: WorkerFlags,
): Promise<number> {
  const { token } = flags;
  if (!token) {
    throw new TomaatError(
      'BAD_REQUEST',
      'A worker needs a key of the server: give --token or TOMAAT_WORKER_TOKEN. On the server “tomaat keys create --label NAME --scope worker” makes one.',
    );
  }
  const url = parseUrl(serverUrl);
  const { ca, data, fingerprint } = flags;
  const { fetch } = await connectTo(url.href, { apiKey: token, ca, data, fingerprint });
  const apps = await openApps(appFolders);
  const logger = pino({ level: flags.logLevel }, pino.destination(2));
  await using opened = new AsyncDisposableStack();
  using interrupt = openInterrupt();
  const workFolder = await mkdtemp(join(tmpdir(), 'tomaat-worker-'));
  opened.defer(() => rm(workFolder, { recursive: true, force: true }));
  const host = hostname()
    .replace(/[^\w.-]/g, '')
    .slice(0, 60);
  const versions = new Map(apps.map(({ manifest }) => [manifest.id, manifest.version]));
  const source = remoteSource({
    serverUrl: url.href,
    token,
    fetch,
    name: `${host}:${process.pid}:${randomBytes(4).toString('hex')}`,
    versions,
    logger,
  });
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
        `The server does not serve what this worker has (${here}). It serves: ${there}.`,
      );
    }
    const line = { server: url.href, services: useful, pid: process.pid };
    console.log(flags.json ? JSON.stringify(line) : `Working for ${url.href}: ${useful.join(', ')}`);
  } catch (error) {
    if (interrupt.signal.aborted) return 0;
    throw error;
  }
  const supervisor = await startSupervisor({
    apps,
    source,
    slots: flags.workers,
    maxIdle: Math.max(2, availableParallelism()),
    workFolder: join(workFolder, 'jobs'),
    maxVoxels,
    logger,
  });
  opened.use(supervisor);
  await new Promise<void>((resolve) => {
    // A listener of a signal keeps no process alive.
    const alive = setInterval(() => {}, 60_000);
    const stop = () => {
      clearInterval(alive);
      resolve();
    };
    if (interrupt.signal.aborted) stop();
    else interrupt.signal.addEventListener('abort', stop, { once: true });
  });
  await supervisor.drain(drainMs);
  return 0;
}
