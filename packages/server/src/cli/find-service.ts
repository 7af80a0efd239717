import {
  type Client,
  createClient,
  createRegistryClient,
  type Entry,
  type RegistryClient,
  type Service,
  toSlug,
} from '@tomaat/client';
import { TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import { isLoopback } from '../addresses.ts';
import { defaultRegistry, defaultServer } from '../settings.ts';
import { chooseTrusted } from '../trust/announced.ts';
import { knownHostsFile } from '../trust/known-hosts.ts';
import { type ConnectOptions, connectTo, dataFolderOf, parseUrl, type Told } from './connect.ts';
import { plain } from './console.ts';
import { storedKeyFor } from './keyring.ts';

/** A service on a server of ours, or one that speaks only TOMAAT v1. */
export type FoundService =
  | { readonly kind: 'api'; readonly client: Client; readonly service: Service }
  | {
      readonly kind: 'v1';
      readonly predictionUrl: string;
      readonly name: string;
      /** The registry that the address came from. */
      readonly told?: Told;
    };

export interface FindOptions extends ConnectOptions {
  /** Called with notes for the user, for example that the key was withheld. */
  note?(text: string): void;
}

/**
 * The service that a user names: by an address (of a service, its page, its v1 interface, or a server, with or
 * without task/anatomy), or by a name, id or task/anatomy, which is looked up at the registry.
 */
export async function findService(wanted: string, options: FindOptions): Promise<FoundService> {
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(wanted)) return findByAddress(wanted, options);
  if (/^[\w.-]+:\d+(\/|$)/.test(wanted) || wanted.startsWith('localhost/')) {
    throw new TomaatError(
      'BAD_REQUEST',
      `“${wanted}” lacks http:// or https://. Did you mean http://${wanted}?`,
    );
  }
  return findByName(wanted, options);
}

async function open(baseUrl: string, options: FindOptions, told?: Told): Promise<Client> {
  const apiKey = options.apiKey ?? (await storedKeyFor(baseUrl, await dataFolderOf(options)));
  const { fetch } = await connectTo(baseUrl, { ...options, apiKey }, told);
  return createClient({ baseUrl, apiKey, fetch });
}

/** What a registry lists. The key is meant for a server: the registry gets it only if it asks for one. */
async function discoverAt(
  baseUrl: string,
  filter: { task?: string; anatomy?: string },
  options: FindOptions,
): Promise<{ registry: RegistryClient; entries: Entry[] }> {
  const ask = async (apiKey?: string) => {
    const { fetch, hosts } = await connectTo(baseUrl, { ...options, apiKey });
    const registry = createRegistryClient({ baseUrl, apiKey, fetch, otherHosts: hosts });
    return { registry, entries: await registry.discover(filter, { live: true, signal: options.signal }) };
  };
  try {
    return await ask();
  } catch (error) {
    const asks = error instanceof TomaatError && error.code === 'UNAUTHORIZED';
    const apiKey = options.apiKey ?? (await storedKeyFor(baseUrl, await dataFolderOf(options)));
    if (!asks || apiKey === undefined) throw error;
    return ask(apiKey);
  }
}

const isV1Word = (part: string) => part === 'predict' || part === 'interface';

/** The service that an address names: `…/api/services/ID`, `…/services/ID`, and anything allowed after the id. */
function serviceIn(parts: readonly string[]): { base: string; id: string; isV1: boolean } | undefined {
  const last = parts[parts.length - 1];
  const isApi = (at: number) => parts[at - 1] === 'api';
  // At most two parts may follow `services`: the id, and one more word.
  for (const at of [parts.length - 2, parts.length - 3]) {
    if (at < 1 || parts[at] !== 'services' || parts[at + 1] === '') continue;
    const isV1 = at === parts.length - 3 && isV1Word(last);
    const isPrediction = at === parts.length - 3 && isApi(at) && last === 'predictions';
    if (at === parts.length - 3 && !isV1 && !isPrediction) continue;
    const end = isApi(at) && !isV1 ? at - 1 : at;
    return { base: parts.slice(0, end).join('/'), id: parts[at + 1], isV1 };
  }
  return undefined;
}

async function findByAddress(wanted: string, options: FindOptions): Promise<FoundService> {
  const { signal } = options;
  const url = parseUrl(wanted);
  const path = withoutTrailingSlashes(url.pathname);
  const parts = path.split('/');
  const named = serviceIn(parts);
  if (named) {
    const client = await open(url.origin + named.base, options);
    try {
      return { kind: 'api', client, service: await client.service(decodeURIComponent(named.id), { signal }) };
    } catch (error) {
      if (named.isV1 && isNoApi(error))
        return { kind: 'v1', predictionUrl: wanted.replace(/\/interface\/?$/, '/predict'), name: url.host };
      if (!(error instanceof TomaatError) || error.code !== 'NOT_FOUND') throw error;
      const others = await client.services({}, { signal }).catch(() => []);
      throw notFound(`There is no service ${named.id} at ${client.baseUrl}.`, others);
    }
  }
  if (parts.length > 1 && isV1Word(parts[parts.length - 1])) {
    const client = await open(url.origin + parts.slice(0, -1).join('/'), options);
    try {
      const services = await client.services({}, { signal });
      // Only v1 itself knows which of several is its default.
      if (services.length === 1) return { kind: 'api', client, service: services[0] };
    } catch (error) {
      if (!isNoApi(error)) throw error;
    }
    return { kind: 'v1', predictionUrl: wanted.replace(/\/interface\/?$/, '/predict'), name: url.host };
  }
  const [task, anatomy] = parts.slice(-2);
  const isPair = parts.length > 2 && task !== '';
  const base = url.origin + (isPair ? parts.slice(0, -2).join('/') : path);
  const filter = isPair ? { task, anatomy } : {};
  const client = await open(base, options);
  let services: Service[];
  try {
    services = await client.services(filter, { signal });
  } catch (error) {
    if (!(error instanceof TomaatError) || error.code !== 'UPSTREAM') throw error;
    // It may be a registry.
    const { registry, entries } = await discoverAt(base, filter, options);
    return fromEntries(isPair ? `${task}/${anatomy}` : '', entries, registry, options);
  }
  if (isPair && services.length > 0)
    return { kind: 'api', client, service: services.find((service) => service.default) ?? services[0] };
  if (!isPair && services.length === 1) return { kind: 'api', client, service: services[0] };
  const all = isPair ? await client.services({}, { signal }) : services;
  if (isPair) throw notFound(`${base} has no service for ${task}/${anatomy}.`, all);
  throw services.length === 0
    ? new TomaatError('NOT_FOUND', `${base} has no services. Start it with an app: tomaat serve APP_DIR.`)
    : notFound(`${base} has ${services.length} services. Name one: ${base}/services/ID.`, all);
}

/** A web server without our API: perhaps an old TOMAAT server. */
function isNoApi(error: unknown): boolean {
  return (
    error instanceof TomaatError &&
    ['NOT_FOUND', 'METHOD_NOT_ALLOWED', 'UPSTREAM', 'BAD_REQUEST'].includes(error.code)
  );
}

function notFound(
  what: string,
  services: readonly { id: string; task: string; anatomy: string; name: string }[],
): TomaatError {
  const lines = services.map(
    (service) => `\n  ${plain(`${service.id}  (${service.task}/${service.anatomy}, ${service.name})`)}`,
  );
  return new TomaatError('NOT_FOUND', `${what}${lines.length > 0 ? ` Available:${lines.join('')}` : ''}`);
}

async function findByName(wanted: string, options: FindOptions): Promise<FoundService> {
  const registry = options.registry ?? defaultRegistry;
  let found: Awaited<ReturnType<typeof discoverAt>>;
  try {
    found = await discoverAt(registry, {}, options);
  } catch (error) {
    if (options.registry !== undefined || !(error instanceof TomaatError) || error.code !== 'UNREACHABLE')
      throw error;
    // No registry was named and none runs here, but perhaps a server without a registry.
    return findOnServer(wanted, options, error);
  }
  const { registry: client, entries } = found;
  const meant = entries.filter(
    (entry) =>
      isMeant(wanted, entry.serviceId, entry.name, entry.task, entry.anatomy) ||
      entry.sid === wanted ||
      entry.id === wanted,
  );
  if (meant.length > 0) return fromEntries(wanted, meant, client, options);
  const known = entries.map((entry) => ({
    id: entry.serviceId ?? entry.sid,
    task: entry.task,
    anatomy: entry.anatomy,
    name: entry.name,
  }));
  throw notFound(`The registry ${registry} has no live service “${wanted}”.`, known);
}

async function findOnServer(
  wanted: string,
  options: FindOptions,
  noRegistry: TomaatError,
): Promise<FoundService> {
  const client = await open(defaultServer, options);
  let services: Service[];
  try {
    services = await client.services({}, { signal: options.signal });
  } catch (error) {
    if (!(error instanceof TomaatError) || error.code !== 'UNREACHABLE') throw error;
    throw new TomaatError(
      'UNREACHABLE',
      `“${wanted}” must be looked up, but neither a registry (${defaultRegistry}) nor a server (${defaultServer}) is running here. Start one with “tomaat up”, name a registry (--registry URL, or the option registry of findService()), or give the address of the service.`,
      { cause: noRegistry },
    );
  }
  const meant = services.filter((service) =>
    isMeant(wanted, service.id, service.name, service.task, service.anatomy),
  );
  const service = meant.find((candidate) => candidate.default) ?? meant[0];
  if (!service) throw notFound(`There is no service “${wanted}” at ${defaultServer}.`, services);
  return { kind: 'api', client, service };
}

function isMeant(
  wanted: string,
  id: string | undefined,
  name: string,
  task: string,
  anatomy: string,
): boolean {
  const word = wanted.toLowerCase();
  const slugs = wanted.split('/').map(toSlug).join('/');
  return (
    word === id?.toLowerCase() ||
    word === name.toLowerCase() ||
    slugs === `${toSlug(task)}/${toSlug(anatomy)}`
  );
}

/** Default services first, then those with our API. */
function byPreference(entries: readonly Entry[]): Entry[] {
  const rank = (entry: Entry) => (entry.default ? 0 : entry.face === 'api' ? 1 : 2);
  return [...entries].sort((a, b) => rank(a) - rank(b));
}

/**
 * The service of a valid announcement. The user's key does not go to an address that someone announced, even if
 * the registry is one that the user named, unless it is this machine.
 */
async function fromEntries(
  wanted: string,
  entries: readonly Entry[],
  registry: RegistryClient,
  options: FindOptions,
): Promise<FoundService> {
  if (entries.length === 0) {
    throw new TomaatError(
      'NOT_FOUND',
      `No live service is announced for ${wanted || 'anything'} at ${registry.baseUrl}. See “tomaat discover”.`,
    );
  }
  const file = knownHostsFile(await dataFolderOf(options));
  const trusted = await chooseTrusted(byPreference(entries), { file, registry, wanted, note: options.note });
  const { entry, announcement, known } = trusted;
  if (!announcement) {
    options.note?.(
      `${entry.name} is announced unsigned (TOMAAT v1): only the registry vouches for its address, ${entry.predictionUrl}.`,
    );
    const told = { registry: registry.baseUrl };
    return { kind: 'v1', predictionUrl: entry.predictionUrl, name: entry.name, told };
  }
  const { serverUrl, serviceId, certificate, sub } = announcement;
  const { hostname, host } = parseUrl(serverUrl);
  const withheld = options.apiKey !== undefined && !isLoopback(hostname);
  if (withheld) {
    options.note?.(
      `The API key is not sent to ${host}, whose address came from the registry. If it is intended for this server, name the server: ${serverUrl}/services/${serviceId}`,
    );
  }
  const client = await open(serverUrl, withheld ? { ...options, apiKey: undefined } : options, {
    registry: registry.baseUrl,
    certificate,
  });
  const service = await client.service(serviceId, { signal: options.signal });
  if (!known) {
    options.note?.(
      `First use of ${serviceId} by ${registry.baseUrl}: the key of its server, ${sub}, is remembered.`,
    );
  }
  await trusted.remember().catch((error: NodeJS.ErrnoException) => {
    if (!['EACCES', 'EPERM', 'EROFS', 'ENOSPC'].includes(error.code ?? '')) throw error;
    options.note?.(`It cannot be remembered, because ${file} cannot be written (${error.code}).`);
  });
  return { kind: 'api', client, service };
}
