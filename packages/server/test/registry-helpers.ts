import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type Announcement,
  announcementId,
  announcementType,
  audienceOf,
  type SignedAnnouncement,
} from '@tomaat/client';
import './check-answers.ts';
import { createKey } from '../src/access/keys.ts';
import type { KeyScope } from '../src/access/scopes.ts';
import { type Identity, openIdentity } from '../src/identity.ts';
import { createRegistryApp, type RegistryApp, type RegistryAppOptions } from '../src/registry/start.ts';
import { databaseOf } from './support/tested-database.ts';

/** What a test opened is closed in the opposite order. */
export function createCleanup() {
  const steps: (() => unknown)[] = [];
  return {
    add: (step: () => unknown) => steps.push(step),
    async run() {
      for (const step of steps.splice(0).reverse()) await step();
    },
  };
}
export type Cleanup = ReturnType<typeof createCleanup>;

export async function openFolder(cleanup: Cleanup): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-registry-'));
  cleanup.add(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export interface TestRegistry extends RegistryApp {
  clock: { ms: number };
  folder: string;
  key(label?: string, scopes?: KeyScope[]): Promise<string>;
}

/** A registry without a port (listen on `app` where one is needed), under a clock that the test moves. */
export async function openTestRegistry(
  cleanup: Cleanup,
  options: Partial<RegistryAppOptions> = {},
): Promise<TestRegistry> {
  const folder = options.dataFolder ?? (await openFolder(cleanup));
  const clock = { ms: Date.parse('2026-01-02T03:04:05.678Z') };
  const registry = await createRegistryApp({
    now: () => clock.ms,
    logger: false,
    isOwnAddress: (address) => {
      const listening = registry.app.server.address() as AddressInfo | null;
      return address === registryUrl || address === `http://127.0.0.1:${listening?.port}`;
    },
    database: await databaseOf(folder),
    ...options,
    dataFolder: folder,
  });
  let open = true;
  const close = async () => {
    if (open) await registry.close();
    open = false;
  };
  cleanup.add(close);
  return {
    ...registry,
    close,
    clock,
    folder,
    key: async (label = 'test', scopes = ['announce']) =>
      (await createKey(registry.entries.db, { label, scopes }, clock.ms)).key,
  };
}

/** A small HTTP server on a free port of 127.0.0.1; gives its address. */
export async function openServer(
  cleanup: Cleanup,
  listener: RequestListener,
): Promise<{ url: string; server: Server }> {
  const server = createServer({ requestTimeout: 0 }, listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanup.add(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

export function announcementOf(serverUrl: string, change: Partial<Announcement> = {}): Announcement {
  const serviceId = change.serviceId ?? 'prostate-net';
  return {
    name: 'Prostate net',
    modality: 'MRI',
    anatomy: 'prostate',
    task: 'segmentation',
    description: 'Finds the prostate in T2 images',
    predictionUrl: `${serverUrl}/services/${serviceId}/predict`,
    interfaceUrl: `${serverUrl}/services/${serviceId}/interface`,
    serverUrl,
    serviceId,
    ...change,
  };
}

/** The address by which signed announcements name a registry without a port. */
export const registryUrl = 'https://registry.test';
export const certificateOf = (byte: number) =>
  Array<string>(32).fill(byte.toString(16).toUpperCase().padStart(2, '0')).join(':');

let lastEpoch = 0;

/** What a server signs for the registry at `registryUrl`, at this time, with a greater epoch than any before. */
export function payloadOf(
  announcement: Announcement,
  { thumbprint }: Pick<Identity, 'thumbprint'>,
  nowMs: number,
): SignedAnnouncement {
  const iat = Math.floor(nowMs / 1000);
  return {
    ...announcement,
    id: announcementId(thumbprint, announcement.serviceId),
    sub: thumbprint,
    aud: registryUrl,
    iat,
    exp: iat + 120,
    epoch: ++lastEpoch,
    certificate: certificateOf(0xa5),
  };
}

export async function putSigned(registry: TestRegistry, key: string, id: string, signed: unknown) {
  return registry.app.inject({
    method: 'PUT',
    url: `/api/announcements/${encodeURIComponent(id)}`,
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    payload: JSON.stringify({ signed }),
  });
}

const identities = new Map<string, Promise<Identity>>();
const keyFolder = mkdtempSync(join(tmpdir(), 'tomaat-identities-'));
process.once('exit', () => rmSync(keyFolder, { recursive: true, force: true }));

/** The key of a server, by the name that a test gives it. */
export function identityOf(server: string): Promise<Identity> {
  let identity = identities.get(server);
  if (!identity) {
    const folder = join(keyFolder, String(identities.size));
    mkdirSync(folder);
    identity = openIdentity(folder);
    identities.set(server, identity);
  }
  return identity;
}

/** The id under which a server announces a service. */
export const idOf = async (server: string, serviceId = 'prostate-net') =>
  announcementId((await identityOf(server)).thumbprint, serviceId);

/** Announces, signed by the key of that server. */
export async function announce(
  registry: TestRegistry,
  key: string,
  server: string,
  announcement: Announcement,
) {
  const identity = await identityOf(server);
  const payload = payloadOf(announcement, identity, registry.clock.ms);
  return putSigned(registry, key, payload.id, await identity.sign(announcementType, payload));
}

/** Signs as `openSigner` does, under the clock of the registry. */
export const signerOf = (server: string, now: () => number) => ({
  async sign(announcement: Announcement, address: string) {
    const identity = await identityOf(server);
    const payload = { ...payloadOf(announcement, identity, now()), aud: audienceOf(address) };
    return identity.sign(announcementType, payload);
  },
});
