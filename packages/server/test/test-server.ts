import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import pino from 'pino';
import './check-answers.ts';
import type { ServerOptions } from '../src/server/options.ts';
import { type RunningServer, startServer } from '../src/server.ts';
import { sharedOptions } from './support/tested-database.ts';

export const repository = fileURLToPath(new URL('../../..', import.meta.url));

/** Folder of a bundled app or of an example. */
export const appFolder = (name: string) => resolve(repository, name.includes('/') ? name : `apps/${name}`);

export interface TestServer extends RunningServer, AsyncDisposable {
  url: string;
  dataFolder: string;
}

/** A real server on free ports with a data folder of its own, which goes with it. */
export async function startTestServer(
  apps: readonly string[],
  options: Partial<ServerOptions> = {},
): Promise<TestServer> {
  const dataFolder = options.dataFolder ?? (await temporaryFolder());
  const server = await startServer({
    appFolders: apps.map(appFolder),
    port: 0,
    tlsPort: 0,
    logger: pino({ level: process.env.TEST_LOG ?? 'silent' }),
    ...(await sharedOptions(dataFolder)),
    ...options,
    dataFolder,
  });
  return Object.assign(server, {
    url: server.url!,
    dataFolder,
    async [Symbol.asyncDispose]() {
      await server.close();
      if (!options.dataFolder) await rm(dataFolder, { recursive: true, force: true });
    },
  });
}

export function temporaryFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'tomaat-test-'));
}
